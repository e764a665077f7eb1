"""SIGKILL of the agent after each step of each apply, gate, kernel and runtime as they are.

Verdict, at every such moment: what both revisions deny does not pass, names do not pass at all (the gate dies with
its agent), what the kernel granted under both goes on. Warning: ``api``'s answers carry ``x-outgate-enforced`` short
of the host; nobody is there to raise one. Recovery: the next agent, by itself, to the very same kernel state.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dns.message
import pytest

from outgate.dataplane import netns
from outgate.model.desired import PolicyDocument
from support.agent_rig import OTHER_ADDRESS, AgentRig, open_agent_rig
from support.agent_world import make_devbox, make_document
from support.internet import EVERYTHING
from support.kernel_text import observe_everything
from support.stepped_agent import ORDER, STEPS

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(400)]

THIRD_ADDRESS, DENIED_ADDRESS, METADATA = "45.45.54.1", "45.45.55.1", "169.254.169.254"
NAME = "allowed.example"
STAYS, COMES = "dbx_stays", "dbx_comes"
ATTEMPT_S, CONTROL_S = 0.5, 10.0
STEPS_MAX = 40


def document(*, hosts: tuple[str, ...] = (NAME,), third: bool = False, everything: bool = False) -> PolicyDocument:
    """The devboxes' policy; OTHER_ADDRESS is open in every one of them."""
    cidrs = (f"{OTHER_ADDRESS}/32", *((f"{THIRD_ADDRESS}/32",) if third else ()))
    return make_document(hosts=hosts, cidrs=() if everything else cidrs, allow_all=everything)


@dataclass(frozen=True)
class Apply:
    """One kind of apply: what is put before it, and what it is."""

    before: Callable[[AgentRig, str], int]
    change: Callable[[AgentRig, str], int]
    phase: str | None = None
    """That the devbox which comes or goes has in the end."""
    denied: tuple[str, ...] = (DENIED_ADDRESS, METADATA)


revisions = iter(range(2, 1_000_000))


def puts(policy: PolicyDocument) -> Callable[[AgentRig, str], int]:
    """Puts the policy as a new revision."""
    fields = {name: getattr(policy, name) for name in policy.__struct_fields__ if name != "revision"}
    return lambda rig, _name: rig.api.put(PolicyDocument(revision=next(revisions), **fields))


APPLIES = {
    "an update loosens": Apply(puts(document(hosts=())), puts(document(third=True))),
    "an update tightens": Apply(puts(document(third=True)), puts(document(hosts=()))),
    "allow_all becomes narrower": Apply(puts(document(everything=True)), puts(document()), denied=(METADATA,)),
    "a devbox starts": Apply(puts(document()), lambda rig, name: rig.api.put(make_devbox(name)), phase="running"),
    "a devbox ends": Apply(
        lambda rig, name: rig.api.put(make_devbox(name)), lambda rig, name: rig.api.shut_down(name), phase="shutdown"
    ),
}
SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in APPLIES if kind != "an update tightens"]


@pytest.mark.parametrize("kind", ["an update tightens", *SLOW])
def test_an_agent_that_is_killed_after_any_step_opens_nothing_and_the_next_ends_the_same(
    kind: str, tmp_path: Path
) -> None:
    """Each step once; the first round, without a death, says which steps there are."""
    asyncio.run(_try_each_step(APPLIES[kind], tmp_path))


async def _try_each_step(apply: Apply, orders: Path) -> None:
    async with open_agent_rig() as rig:
        rig.internet.add_host("third.example", addresses=(THIRD_ADDRESS,), services=EVERYTHING)
        rig.internet.add_host("denied.example", addresses=(DENIED_ADDRESS, METADATA), services=EVERYTHING)
        _start(rig, orders)
        rig.api.put(document(), make_devbox(STAYS))
        await rig.until_phase(STAYS, "running")
        expected = await _live_through(rig, apply, orders, 0)
        for number in range(1, STEPS_MAX):
            ended = await _live_through(rig, apply, orders, number)
            assert ended.text == expected.text, ended.steps
            if not ended.has_died:
                break
            assert len(ended.steps) == number
        assert number > len(set(expected.steps)), "each of the steps that an undisturbed apply makes was died after"
        journal = rig.internet.journal()
        assert not [c for c in journal.connections if c.address in apply.denied]
        assert "denied.example" not in {query.name for query in journal.queries}


def _start(rig: AgentRig, orders: Path) -> None:
    rig.start("support.stepped_agent", "--orders", str(orders))


@dataclass(frozen=True)
class Ended:
    """How one round went."""

    has_died: bool
    steps: list[str]
    text: list[str]


async def _live_through(rig: AgentRig, apply: Apply, orders: Path, number: int) -> Ended:
    """Before, change, death after step ``number`` (0: none), probes, restart, end."""
    name = f"{COMES}_{number}"
    await _until_enforced(rig, apply.before(rig, name))
    if apply.phase == "shutdown":
        await rig.until_phase(name, "running")
    (orders / STEPS).write_text("", "ascii")
    (orders / ORDER).write_text(str(number), "ascii")
    revision = apply.change(rig, name)
    await rig.until(lambda: _is_dead(rig) or _is_done(rig, apply, name, revision))
    # Something may be left to do after the last report.
    with contextlib.suppress(AssertionError):
        await rig.until(lambda: _is_dead(rig), timeout_s=0.5)
    has_died = _is_dead(rig)
    (orders / ORDER).unlink()
    steps = (orders / STEPS).read_text("ascii").split()
    if has_died:
        _probe(rig, apply)
        _start(rig, orders)
    await rig.until(lambda: _is_done(rig, apply, name, revision) and rig.api.reports[-1].ready)
    text = observe_everything(rig.layout())
    await _tidy_up(rig, apply, name)
    return Ended(has_died, steps, text)


def _is_dead(rig: AgentRig) -> bool:
    assert rig.process is not None
    return rig.process.poll() is not None


def _is_done(rig: AgentRig, apply: Apply, name: str, revision: int) -> bool:
    seen = rig.api.observed.get(name)
    is_there = apply.phase is None or (seen is not None and seen.phase.value == apply.phase)
    return rig.api.enforced >= revision and is_there


async def _until_enforced(rig: AgentRig, revision: int) -> None:
    await rig.until(lambda: rig.api.enforced >= revision and rig.api.reports[-1].ready)


async def _tidy_up(rig: AgentRig, apply: Apply, name: str) -> None:
    if apply.phase is None:
        return
    if apply.phase == "running":
        rig.api.shut_down(name)
        await rig.until_phase(name, "shutdown")
    rig.api.forget(name)
    await rig.until(lambda: not (rig.settings.agent_dir / "devboxes" / f"{name}.json").exists())


def _probe(rig: AgentRig, apply: Apply) -> None:
    """From every devbox's place, while no agent lives: everything denied, and the control that is allowed."""
    layout, gateway = rig.layout(), str(rig.layout().gateway4)
    before = rig.internet.now_s()
    for slot in (0, 1):
        if not netns.has_namespace(layout.devbox_namespace(slot)):
            continue
        with netns.entered(layout.devbox_namespace(slot)):
            for address in (*apply.denied, str(layout.address4(1 - slot))):
                assert not _connects(address, 8080), address
            for name in ("denied.example", NAME):
                assert not _resolves(name, gateway), "the gate dies with its agent"
            if slot == 0:
                assert _connects(OTHER_ADDRESS, 8080), "the control: what both revisions allow"
    assert rig.internet.journal(since_s=before).reached(OTHER_ADDRESS)


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), CONTROL_S if address == OTHER_ADDRESS else ATTEMPT_S).close()
    except OSError:
        return False
    return True


def _resolves(name: str, gateway: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(ATTEMPT_S)
        asking.connect((gateway, 53))
        try:
            asking.send(dns.message.make_query(name, "A").to_wire())
            return bool(dns.message.from_wire(asking.recv(4096)).answer)
        except OSError:
            return False
