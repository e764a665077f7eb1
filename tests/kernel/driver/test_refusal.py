"""A kernel that refuses: a table that somebody else owns, and a table of flows that is full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from outgate.dataplane import netns
from outgate.dataplane.driver import DriverError
from support.driver_world import ALLOWED4, OTHER4, World, cidr_plan

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.timeout(240),
    # A test's sockets live as long as the test does.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

PLAN = cidr_plan(16, ("45.45.46.0/24", 20, None, 1, 65535))
WIDER = cidr_plan(16, ("45.45.46.0/23", 21, None, 1, 65535))
FLOWS_MAX = Path("/proc/sys/net/netfilter/nf_conntrack_max")


@contextmanager
def owned_table(namespace: str) -> Iterator[None]:
    """While it lasts, another process owns a table of our name: the kernel refuses everybody else's changes."""
    command = ["nsenter", f"--net=/run/netns/{namespace}", "nft", "-i"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as owner:
        assert owner.stdin is not None
        owner.stdin.write(b"delete table inet outgate\nadd table inet outgate { flags owner; }\n")
        probe = [*command[:-1], "add", "chain", "inet", "outgate", "probe"]
        try:
            for _ in range(200):
                if subprocess.run(probe, check=False, capture_output=True).returncode:
                    break
            yield
        finally:
            owner.stdin.close()
            owner.terminate()


def test_a_kernel_that_refuses_everything_leaves_everything_closed(world: World) -> None:
    """kernel, gone. Verdict: nothing passes, old or new. Warning: kernel_failing. Recovery: the next round."""
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    server = world.far.listen(ALLOWED4)
    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()
    with owned_table(world.layout.router_namespace):
        assert driver.observe_drift() != ()
        for _ in range(2):
            with pytest.raises(DriverError):
                driver.set(world.state(WIDER, boxes={0: 16}))
        server.settimeout(0.5)
        for address in (ALLOWED4, OTHER4):
            with suppress(OSError):
                world.connect(0, address, timeout_s=0.3).close()
        with pytest.raises(TimeoutError):
            server.accept()
    driver.set(world.state(PLAN, boxes={0: 16}))
    assert driver.observe_drift() == ()
    server.settimeout(20)
    world.connect(0, ALLOWED4).close()
    server.accept()[0].close()
    world.refused_within_s(0, OTHER4)


def fill(namespace: str, tmp_path: Path) -> None:
    """Fill the namespace's own count of flows to the kernel's bound, with entries that are not dropped early."""
    count = int(FLOWS_MAX.read_text())
    lines = (
        f"-I -t 3600 -u ASSURED,SEEN_REPLY -s 10.128.{number >> 16}.1 -d 10.254.0.1 -p udp "
        f"--sport {number & 0xFFFF} --dport 9\n"
        for number in range(count + 10)
    )
    path = tmp_path / "flows"
    path.write_text("".join(lines))
    with netns.entered(namespace):
        subprocess.run(["conntrack", "-R", str(path)], check=False, capture_output=True)
        held = int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
    assert held >= count, held


@pytest.mark.slow
def test_a_full_table_of_flows_closes_what_is_new_and_keeps_what_is_there(world: World, tmp_path: Path) -> None:
    """conntrack, full. Verdict: flows that are there go on, new ones are dropped. Recovery: as soon as there is room."""
    driver = world.driver()
    driver.set(world.state(PLAN, boxes={0: 16}))
    server = world.far.listen(ALLOWED4)
    held = world.connect(0, ALLOWED4)
    accepted, _ = server.accept()
    accepted.settimeout(20)
    fill(world.layout.router_namespace, tmp_path)
    for address in (ALLOWED4, OTHER4):
        with pytest.raises(OSError, match=r"timed out|refused|reset"):
            world.connect(0, address, timeout_s=1)
    held.sendall(b"still here")
    assert accepted.recv(100) == b"still here"
    with netns.entered(world.layout.router_namespace):
        subprocess.run(["conntrack", "-D", "-p", "udp"], check=True, capture_output=True)
    world.connect(0, ALLOWED4).close()
    world.refused_within_s(0, OTHER4)
