"""Rows about DNS: cached answers against unbound, forwarded ones against dnsmasq, latency added."""

import re
from pathlib import Path
from statistics import median

from bench.flows import interleaved
from bench.namespaces import Namespace
from bench.report import Row
from bench.world import FAR, World, devbox_namespaces, start_devbox, start_unbound, wait_until

SECONDS = 3
UNIQUE_NAMES = 200_000
ROUTER_PLAIN = "10.80.1.1"


def _dnsperf(way: Namespace, server: str, queries: Path, *, in_flight: int) -> dict[str, float]:
    """Queries per second and mean latency (µs) of one dnsperf run; RuntimeError if answers were lost."""
    text = way.run(
        "dnsperf", "-s", server, "-d", queries, "-l", str(SECONDS), "-c", "1", "-T", "1", "-q", str(in_flight), cpu=0
    )
    found = {
        key: float(match.group(1))
        for key, pattern in (
            ("per_s", r"Queries per second:\s+([\d.]+)"),
            ("mean_s", r"Average Latency \(s\):\s+([\d.]+)"),
            ("lost", r"Queries lost:\s+(\d+)"),
            ("sent", r"Queries sent:\s+(\d+)"),
            ("noerror", r"NOERROR (\d+)"),
        )
        if (match := re.search(pattern, text))
    }
    if found["lost"] > found["sent"] * 0.01 or found.get("noerror", 0) < found["sent"] * 0.98:
        raise RuntimeError(f"dnsperf at {server}: answers lost or wrong:\n{text}")
    return found


def _query_file(folder: Path, name: str, count: int, template: str) -> Path:
    path = folder / name
    path.write_text("".join(template.format(i) + "\n" for i in range(count)))
    return path


def _start_dnsmasq(router: Namespace) -> None:
    """dnsmasq on the router's other port, forwarding everything, without a cache."""
    router.start(
        "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--cache-size=0",
        f"--server={FAR}", "--port=5353", f"--listen-address={ROUTER_PLAIN}", "--bind-interfaces", "--user=root",
        "--dns-forward-max=4096", "--pid-file=",
    )  # fmt: skip
    wait_until(lambda: "5353" in router.run("ss", "-Hlun", "sport", "=", "5353"), "dnsmasq listens")


def name_lookups(world: World, gateway: str) -> list[Row]:
    """Each resolver one hop away from its client, as the gate is from a devbox."""
    start_unbound(world.router_plain, ROUTER_PLAIN, world.folder)
    servers = {world.plain.name: ROUTER_PLAIN, world.devbox.name: gateway}
    few = _query_file(world.folder, "few.txt", 200, "n{}.bench.example A")
    ways = {"unbound": world.plain, "outgate": world.devbox}
    qps = interleaved(lambda way: _dnsperf(way, servers[way.name], few, in_flight=100)["per_s"], ways)
    latency = interleaved(lambda way: _dnsperf(way, servers[way.name], few, in_flight=1)["mean_s"] * 1e6, ways)
    return [
        Row(
            "DNS: cached answers/s / unbound",
            qps["outgate"] / qps["unbound"],
            0.75,
            at_least=True,
            unit="x",
            detail=f"unbound {qps['unbound']:.0f}/s, outgate {qps['outgate']:.0f}/s; 200 names of one wildcard",
        ),
        Row(
            "DNS: added latency, cached, one query at a time",
            latency["outgate"] - latency["unbound"],
            100,
            at_least=False,
            unit="µs",
            detail=f"unbound {latency['unbound']:.0f} µs, outgate {latency['outgate']:.0f} µs (means)",
        ),
        _forwarded(world, gateway),
    ]


def _forwarded(world: World, gateway: str) -> Row:
    """Names never asked before, by a devbox under allow_all: every one must be fetched from the far resolver."""
    _start_dnsmasq(world.router_plain)
    before = devbox_namespaces(world.outgate)
    policy = world.outgate.call("POST", "/v1/network-policies", {"name": "bench-all", "allow_all": True})
    start_devbox(world.outgate, policy["id"])
    (name,) = devbox_namespaces(world.outgate) - before
    opened = Namespace(name, world.load_tool)
    seen: dict[str, list[float]] = {"dnsmasq": [], "outgate": []}
    for turn in range(3):
        for way, where, server in (("dnsmasq", world.plain, ROUTER_PLAIN), ("outgate", opened, gateway)):
            queries = _query_file(world.folder, "unique.txt", UNIQUE_NAMES, f"u{turn}{way}{{}}.wild.example A")
            arguments = ("-p", "5353") if way == "dnsmasq" else ()
            seen[way].append(_unique_qps(where, server, queries, arguments))
    rates = {way: median(values) for way, values in seen.items()}
    return Row(
        "DNS: forwarded answers/s / dnsmasq",
        rates["outgate"] / rates["dnsmasq"],
        1.5,
        at_least=True,
        unit="x",
        detail=f"dnsmasq without cache {rates['dnsmasq']:.0f}/s, outgate {rates['outgate']:.0f}/s; every name new",
    )


def _unique_qps(way: Namespace, server: str, queries: Path, arguments: tuple[str, ...]) -> float:
    text = way.run(
        "dnsperf", "-s", server, *arguments, "-d", queries, "-l", str(SECONDS), "-n", "1", "-c", "1", "-T", "1",
        "-q", "100", cpu=0,
    )  # fmt: skip
    match = re.search(r"Queries per second:\s+([\d.]+)", text)
    if match is None:
        raise RuntimeError(text)
    return float(match.group(1))
