"""The gate as a process: its privileges, its namespaces, its end, and what its successor finds."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dns.rcode
import pytest

from outgate.dataplane.gate_control import encode_frame
from outgate.model.desired import GateApply, GateReady
from support.gate_harness import devbox, document
from support.gate_world import WAIT_S, GateWorld, gate_world
from support.policies import make_policy

pytestmark = pytest.mark.kernel

ADDRESS, OTHER = "93.184.216.34", "93.184.216.35"
NET_ADMIN = 1 << 12


@pytest.fixture
def world() -> Iterator[GateWorld]:
    with gate_world() as made:
        made.resolver.add("example.com", "A", ADDRESS)
        made.resolver.add("other.example", "A", OTHER)
        yield made


def capabilities(thread: str) -> dict[str, int]:
    lines = (line.split() for line in Path(thread, "status").read_text().splitlines() if line.startswith("Cap"))
    return {name.rstrip(":"): int(value, 16) for name, value in lines}


def test_only_net_admin_is_kept_and_nothing_in_the_hosts_namespace(world: GateWorld) -> None:
    here = {name: Path("/run/netns", name).stat().st_ino for name in (world.host, world.router)}
    seen = {}
    for thread in world.gate.threads():
        namespace = Path(thread, "ns/net").stat().st_ino
        seen[namespace] = capabilities(thread)
        assert "NoNewPrivs:\t1" in Path(thread, "status").read_text()
    assert seen.keys() == set(here.values())
    keys = ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")
    assert [seen[here[world.router]][key] for key in keys] == [NET_ADMIN] * 3 + [0, 0]
    assert [seen[here[world.host]][key] for key in keys] == [0] * 5


def test_it_says_where_the_relay_listens(world: GateWorld) -> None:
    assert isinstance(world.gate.ready, GateReady)
    assert world.gate.ready.relay_port > 0


def test_it_tells_what_it_counted(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    for _ in range(4):
        world.ask("example.com")
    world.ask("denied.example")
    measured = world.gate.wait_for_measures(lambda measures: sum(measures.dns_denied.counts) > 0)
    assert sum(measured.dns_forwarded.counts) == 1
    # Ready within a second; a slow machine may take longer between two of them.
    assert sum(measured.dns_ready.counts) + sum(measured.dns_cached.counts) == 3
    assert 0 < measured.dns_forwarded.sum_s < WAIT_S
    assert (measured.pins, measured.devboxes, measured.lookups_open) == (1, 1, 0)


def test_it_ends_when_the_agent_does(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    world.gate.control.close()
    assert world.gate.process.wait(WAIT_S) == 0


def test_it_ends_when_the_agent_died_while_it_started(world: GateWorld) -> None:
    world.gate.close()
    late = world.start_gate(is_agent_alive=False)
    assert late.process.wait(WAIT_S) == 1


def test_it_ends_when_the_agent_talks_nonsense(world: GateWorld) -> None:
    world.gate.control.sendall(b"\0\0\0\2{}")
    assert world.gate.process.wait(WAIT_S) == 1


def test_the_first_update_must_be_a_full_one(world: GateWorld) -> None:
    applied = world.gate.apply(GateApply(revision=1, full=False))
    assert applied.error is not None
    world.gate.apply_policies(make_policy("example.com"))


def test_a_bad_update_changes_nothing_and_is_said_to_be_bad(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    applied = world.gate.apply(GateApply(revision=2, full=False, devboxes=(devbox(1, "npol_unknown"),)))
    assert applied.error is not None
    assert "npol_unknown" in applied.error
    assert world.ask("example.com").rcode() == dns.rcode.NOERROR


def test_after_a_kill_the_pins_live_on_and_the_next_gate_knows_their_names(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com", "other.example"))
    world.ask("example.com")
    world.ask("other.example")
    world.gate.close()
    assert world.pinned() == {ADDRESS, OTHER}
    world.start_gate()
    assert world.pinned() == {ADDRESS, OTHER}
    world.gate.apply_policies(make_policy("example.com"), revision=2)
    assert world.pinned() == {ADDRESS}
    world.gate.apply(GateApply(revision=3, full=False, policies=(document(make_policy("nothing.example")),)))
    assert world.pinned() == set()


def test_pins_of_a_link_whose_devbox_is_gone_are_deleted_by_the_next_gate(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    world.ask("example.com")
    world.gate.close()
    world.start_gate()
    world.gate.apply_policies(make_policy("example.com"), devboxes=())
    assert world.pins() == []


def test_a_full_update_writes_pins_again_that_the_kernel_lost(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    world.ask("example.com")
    world.remove_sets()
    world.make_sets()
    assert world.pinned() == set()
    world.gate.apply_policies(make_policy("example.com"))
    assert world.pinned() == {ADDRESS}


def test_a_devbox_that_ends_takes_its_pins_along(world: GateWorld) -> None:
    world.gate.apply_policies(make_policy("example.com"))
    world.ask("example.com")
    world.gate.apply(GateApply(revision=2, full=False, devboxes_removed=("dbx_1",)))
    assert world.pins() == []
    assert world.ask("example.com").rcode() == dns.rcode.REFUSED


def test_it_ends_without_a_configuration(world: GateWorld) -> None:
    world.gate.close()
    control, theirs = socket.socketpair()
    with control, theirs:
        control.sendall(encode_frame(GateApply(revision=1, full=True)))
        command = (sys.executable, "-m", "outgate.dataplane.gate", "--control-fd", str(theirs.fileno()))
        done = subprocess.run(
            command, check=False, pass_fds=(theirs.fileno(),), capture_output=True, text=True, timeout=WAIT_S
        )
    assert done.returncode == 1
    assert "configuration" in done.stderr
