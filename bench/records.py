"""Rows about the flow log: what records of kernel flows cost those flows, and how its pages are read when it is long."""

import contextlib
import sys
from collections.abc import Iterator

from bench.namespaces import Namespace
from bench.packets import PORT_SINK, bench_driver, state_of_bench
from bench.report import Row
from bench.world import FAR, PORT_PLAIN, World, many_ports

ROUNDS = 10
CONNECTIONS = 4000
DATAGRAMS = 50_000
PARALLEL = 32
WAYS = ("without", "counted", "recorded")


@contextlib.contextmanager
def _way(router: Namespace, way: str) -> Iterator[None]:
    """Flows are told to nobody, or counted by the kernel but told to nobody, or recorded as the agent does it."""
    on = int(way != "without")
    names = ("nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_events")
    router.run("sysctl", "-qw", *(f"net.netfilter.{name}={on}" for name in names))
    if way != "recorded":
        yield
        return
    recorder = router.start(sys.executable, "-m", "bench.recorder", f"{FAR}/32", wait_for="recording")
    yield
    told, _ = recorder.communicate("", timeout=60)
    read, dropped = map(int, told.split())
    if not read:
        raise RuntimeError("the recorder was told of no flow")
    if dropped:
        print(f"  ({dropped} of {read + dropped} events found no room)")


def kernel_records(world: World) -> list[Row]:
    """Connections and datagrams of one devbox: nothing counted, counted, and with a record of each flow."""
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    costs: dict[str, list[float]] = {way: [] for way in WAYS}
    with bench_driver(world.host.name) as (driver, layout):
        driver.set(state_of_bench(1))
        box = Namespace(layout.devbox_namespace(0), world.load_tool)
        router = Namespace(layout.router_namespace, world.load_tool)
        many_ports(box)
        connect = ("connect", FAR, str(PORT_PLAIN), world.hello, str(CONNECTIONS), str(PARALLEL))
        box.load(*connect)
        for _ in range(ROUNDS):
            for way in WAYS:
                with _way(router, way):
                    rates[way].append(box.load(*connect)["per_s"])
                    costs[way].append(box.load("udp", FAR, str(PORT_SINK), str(DATAGRAMS))["ns_per_packet"])
    # The best of each: the runs are short, and whatever else the machine does only slows them.
    rate = {way: max(seen) for way, seen in rates.items()}
    cost = {way: min(seen) for way, seen in costs.items()}
    return [
        Row(
            "flow log: connections/s with records / without",
            rate["recorded"] / rate["without"],
            None,
            at_least=True,
            unit="x",
            detail=", ".join(f"{way} {value:.0f} /s" for way, value in rate.items()),
        ),
        Row(
            "flow log: cost per packet with records / without",
            cost["recorded"] / cost["without"],
            None,
            at_least=False,
            unit="x",
            detail=", ".join(f"{way} {value:.0f} ns" for way, value in cost.items()),
        ),
    ]
