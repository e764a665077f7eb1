"""Rows about the kernel alone, by the driver itself: a packet's cost with many devboxes, and policy's share of a start."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from statistics import median

from bench.namespaces import Namespace
from bench.report import Row
from bench.world import FAR, PORT_PLAIN, World
from outgate.core.ranges import always_denied_networks
from outgate.dataplane import netns
from outgate.dataplane.driver import RouterState, link_devbox
from outgate.dataplane.layout import NetworkLayout, choose_layout
from outgate.dataplane.linux import LinuxDriver
from outgate.dataplane.ruleset import RulesetOptions
from outgate.model.addresses import Protocol
from outgate.model.plan import PolicyPlan, PortCell, grant_of_allow_all

INSTANCE = "be4c11"
POOL = IPv4Network("10.213.240.0/20")
NUMBER = 16
GRANT = 100
DEVBOXES = 1000
DATAGRAMS = 200_000
PORT_SINK = 9001


def layout_of_bench() -> NetworkLayout:
    """Of the driver that the bench has beside Outgate's own."""
    return choose_layout(INSTANCE, (), network4=POOL, has_ipv6=False)


def state_of_bench(devboxes: int) -> RouterState:
    """So many devboxes under one policy, which opens the far side's sink and its plain server."""
    layout = layout_of_bench()
    far = int(IPv4Address(FAR))
    cells = (
        PortCell(far, far, Protocol.TCP, PORT_PLAIN, PORT_PLAIN, GRANT),
        PortCell(far, far, Protocol.UDP, PORT_SINK, PORT_SINK, GRANT),
    )
    plan = PolicyPlan(NUMBER, grant_of_allow_all(NUMBER), frozenset({GRANT}), cells, ())
    links = [link_devbox(layout, slot, f"dbx_{slot}", NUMBER) for slot in range(devboxes)]
    return RouterState({NUMBER: plan}, {link.devbox_id: link for link in links})


@contextmanager
def bench_driver(host: str) -> Iterator[tuple[LinuxDriver, NetworkLayout]]:
    """A driver of its own in the host namespace; everything of it is gone at the end."""
    with netns.entered(host):
        layout = layout_of_bench()
        driver = LinuxDriver(layout, RulesetOptions(always_denied_networks(), 4096))
        try:
            driver.ensure_router()
            yield driver, layout
        finally:
            driver.teardown()
            driver.close()


def many_devboxes(world: World) -> list[Row]:
    """One-way UDP, so that sending, judging and delivering are all on one CPU; first 1 devbox, then DEVBOXES."""
    costs: dict[int, float] = {}
    with bench_driver(world.host.name) as (driver, layout):
        box = Namespace(layout.devbox_namespace(0), world.load_tool)
        for count in (1, DEVBOXES):
            driver.set(state_of_bench(count))
            runs = [box.load("udp", FAR, str(PORT_SINK), str(DATAGRAMS))["ns_per_packet"] for _ in range(5)]
            costs[count] = median(runs)
        added = [_timed_add(driver, count) for count in range(DEVBOXES, DEVBOXES + 5)]
        driver.set(state_of_bench(1))
        first = [_timed_add(driver, count) for count in range(1, 11)]
    detail = ", ".join(f"{count} devboxes {cost:.0f} ns" for count, cost in costs.items())
    return [
        Row(
            "cost per packet, 1 → 1,000 devboxes",
            costs[DEVBOXES] / costs[1],
            1.10,
            at_least=False,
            unit="x",
            detail=detail,
        ),
        Row(
            "policy's share of a devbox's start",
            median(first),
            5,
            at_least=False,
            unit="ms",
            detail=f"namespace, link, addresses and rules; the 1,001st devbox {median(added):.1f} ms",
        ),
    ]


def _timed_add(driver: LinuxDriver, count: int) -> float:
    """Milliseconds that one more devbox takes, beside ``count`` that are there."""
    begin = time.perf_counter()
    driver.set(state_of_bench(count + 1))
    return (time.perf_counter() - begin) * 1e3
