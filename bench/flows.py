"""Rows about bytes and connections: kernel flows, relayed flows, idle flows."""

import json
from collections.abc import Callable, Mapping
from statistics import median

from bench.namespaces import Namespace
from bench.report import Row
from bench.world import FAR, NAME, PORT_PLAIN, PORT_TLS, World, look_up

ROUNDS = 3
STREAM_S = 1.5
STREAMS = 8
CONNECTIONS = 6000
PARALLEL = 32
IDLE_FLOWS = 5000
IDLE_FLOW_KIB_MAX = 16

Measure = Callable[[Namespace], float]


def interleaved(measure: Measure, ways: Mapping[str, Namespace]) -> dict[str, float]:
    """The median of ROUNDS measurements of each way, taken in turn so that drift of the machine hits all alike."""
    seen: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, namespace in ways.items():
            seen[way].append(measure(namespace))
    return {way: median(values) for way, values in seen.items()}


def _streams(world: World, port: int, direction: str) -> Measure:
    return lambda way: way.load("stream", FAR, str(port), world.hello, str(STREAM_S), str(STREAMS), direction)[
        "gbit_per_s"
    ]


def _connections(world: World, port: int) -> Measure:
    return lambda way: way.load("connect", FAR, str(port), world.hello, str(CONNECTIONS), str(PARALLEL))["per_s"]


def _first_byte(world: World, port: int) -> Measure:
    return lambda way: way.load("connect", FAR, str(port), world.hello, "2000", "1")["first_byte_p50_us"]


def _ratio(name: str, seen: Mapping[str, float], of: str, owed: float, unit: str) -> Row:
    figures = ", ".join(f"{way} {value:.4g} {unit}" for way, value in seen.items())
    return Row(name, seen["outgate"] / seen[of], owed, at_least=True, unit="x", detail=figures)


def kernel_flows(world: World) -> list[Row]:
    """CIDR flows against plain forwarding; plain forwarding behind a masquerade is measured too, and shown."""
    ways = {"plain": world.plain, "plain behind NAT": world.nat, "outgate": world.devbox}
    down = interleaved(_streams(world, PORT_PLAIN, "down"), ways)
    up = interleaved(_streams(world, PORT_PLAIN, "up"), ways)
    rate = interleaved(_connections(world, PORT_PLAIN), ways)
    return [
        _ratio("kernel flows: 8 streams down / plain", down, "plain", 0.90, "Gbit/s"),
        _ratio("kernel flows: 8 streams up / plain", up, "plain", 0.90, "Gbit/s"),
        _ratio("kernel flows: connections/s / plain", rate, "plain", 0.85, "/s"),
    ]


def relayed_flows(world: World) -> list[Row]:
    """Host-name flows (TLS, port 443) against plain forwarding and nginx ssl_preread."""
    look_up(world.devbox, NAME)
    ways = {"plain": world.plain, "nginx": world.nginx, "outgate": world.devbox}
    down = interleaved(_streams(world, PORT_TLS, "down"), ways)
    up = interleaved(_streams(world, PORT_TLS, "up"), ways)
    rate = interleaved(_connections(world, PORT_TLS), ways)
    first = interleaved(_first_byte(world, PORT_TLS), ways)
    added = first["outgate"] - first["plain"]
    figures = ", ".join(f"{way} {value:.0f} µs" for way, value in first.items())
    return [
        _ratio("relayed: 8 streams down / plain", down, "plain", 0.70, "Gbit/s"),
        _ratio("relayed: 8 streams down / nginx", down, "nginx", 1.0, "Gbit/s"),
        _ratio("relayed: 8 streams up / plain", up, "plain", 0.70, "Gbit/s"),
        _ratio("relayed: 8 streams up / nginx", up, "nginx", 1.0, "Gbit/s"),
        _ratio("relayed: connections/s / plain", rate, "plain", 0.28, "/s"),
        _ratio("relayed: connections/s / nginx", rate, "nginx", 0.75, "/s"),
        Row("relayed: added connect + first byte, p50", added, 250, at_least=False, unit="µs", detail=figures),
    ]


def idle_flows(world: World, gate_rss_kib: Callable[[], int]) -> list[Row]:
    """IDLE_FLOWS idle relayed flows: what one costs the gate, and what all of them cost a busy one."""
    look_up(world.devbox, NAME)
    busy = _streams(world, PORT_TLS, "down")
    rss_before = gate_rss_kib()
    without = median(busy(world.devbox) for _ in range(ROUNDS))
    holder = world.devbox.start(
        world.load_tool, "hold", FAR, str(PORT_TLS), world.hello, str(IDLE_FLOWS), cpu=0, wait_for="held"
    )
    per_flow_kib = (gate_rss_kib() - rss_before) / IDLE_FLOWS
    during = median(busy(world.devbox) for _ in range(ROUNDS))
    answer, _ = holder.communicate("done\n", timeout=30)
    died = json.loads(answer.strip().splitlines()[-1])["dead"]
    if died:
        raise RuntimeError(f"{died} of {IDLE_FLOWS} idle flows died")
    detail = f"{IDLE_FLOWS} flows; busy 8 streams {without:.3g} → {during:.3g} Gbit/s"
    return [
        Row(
            "5,000 idle relayed flows: memory each",
            per_flow_kib,
            IDLE_FLOW_KIB_MAX,
            at_least=False,
            unit="KiB",
            detail=detail,
        ),
        # "None" is owed; on a machine whose own noise is ±20 % (docs/benchmarks.md) 0.8 is none.
        Row(
            "5,000 idle relayed flows: effect on a busy one",
            during / without,
            0.80,
            at_least=True,
            unit="x",
            detail=detail,
        ),
    ]
