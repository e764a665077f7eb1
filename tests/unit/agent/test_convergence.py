"""Whatever was left behind, and whatever dies when: the agent converges, and starts nothing that is not filtered.

(Each start of a sandbox is checked by the world itself.)
"""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outgate.agent.record import DevboxRecord, Outcome, RecordStore, Stage
from outgate.agent.target import Placement, Target, prepare_enforcement, router_state
from outgate.model.desired import DesiredPhase, ObservedPhase
from outgate.model.flow import HostContext
from outgate.runtime.base import ObservedSandbox, SandboxPhase
from support.agent_world import LAYOUT, World, make_devbox, make_document
from support.sim_time import run_simulated

NAMES = ("a", "b", "c", "d")
POLICIES = ("npol_1", "npol_2")


def settle(world: World) -> None:
    """What must be true of a host at rest."""
    records = {record.devbox_id: record for record in world.records().all()}
    wanted = {name for name, (_, devbox) in world.api.devboxes.items() if devbox.phase is DesiredPhase.RUNNING}
    running = {name for name, record in records.items() if record.stage is Stage.RUNNING}
    at_rest = {name for name, record in records.items() if record.stage is Stage.SUSPENDED}
    assert all(record.stage in (Stage.RUNNING, Stage.SUSPENDED, Stage.ENDED) for record in records.values())
    assert running <= wanted
    assert at_rest <= {
        name for name, (_, devbox) in world.api.devboxes.items() if devbox.phase is DesiredPhase.SUSPENDED
    }
    assert all(records[name].slot is None for name in at_rest)
    assert {
        name for name, sandbox in world.runtime.sandboxes.items() if sandbox.phase is SandboxPhase.RUNNING
    } == running
    assert set(world.driver.state.devboxes) == running
    assert world.gate is not None
    assert set(world.gate.devboxes) == running
    assert set(records) == set(world.api.devboxes), "forgotten devboxes leave no record, known ones are reported"
    for name in running:
        policy_id = world.api.devboxes[name][1].policy_id
        assert world.gate.devboxes[name].policy_id == policy_id
        assert world.gate.policies[policy_id] == world.api.policies[policy_id][1]
        assert world.driver.state.devboxes[name].policy_number == world.api.policies[policy_id][1].number
        assert world.driver.state.devboxes[name].slot == records[name].slot
    for name, record in records.items():
        expected = record.outcome.phase.value if record.outcome else record.stage.value
        assert world.phase(name) == expected
    assert world.api.enforced == world.api.revision


async def come_to_rest(world: World) -> None:
    """Long enough for every retry, observation and restart."""
    await asyncio.sleep(150)
    settle(world)


stages = st.sampled_from(list(Stage))
leftovers = st.fixed_dictionaries(
    {
        name: st.fixed_dictionaries(
            {
                "record": st.none() | st.tuples(stages, st.integers(1, 3), st.integers(0, 4)),
                "sandbox": st.none() | st.tuples(st.sampled_from(list(SandboxPhase)), st.integers(1, 3)),
                "is_linked": st.booleans(),
                "wanted": st.none() | st.tuples(st.sampled_from(list(DesiredPhase)), st.integers(1, 3)),
                "policy": st.sampled_from(POLICIES),
            }
        )
        for name in NAMES
    }
)


def leave(world: World, left: dict[str, dict[str, object]]) -> None:
    """Put the host into a state that no agent would have left on purpose."""
    records = world.records()
    links: dict[str, Placement] = {}
    world.api.put(*(make_document(policy_id, hosts=("allowed.example",)) for policy_id in POLICIES))
    for slot, (name, thing) in enumerate(left.items()):
        policy_id = str(thing["policy"])
        match thing["record"]:
            case (Stage() as stage, int(generation), int(attempts)):
                is_over = stage in (Stage.ENDING, Stage.ENDED)
                outcome = Outcome(ObservedPhase.FAILURE, 1, detail="before") if is_over else None
                taken = None if stage in (Stage.ENDED, Stage.SUSPENDED) else slot
                was_used = stage in (Stage.RUNNING, Stage.SUSPENDING, Stage.SUSPENDED)
                records.put(
                    DevboxRecord(name, "acc_1", policy_id, generation, stage, taken, 1, attempts, outcome, was_used)
                )
        match thing["sandbox"]:
            case (SandboxPhase() as phase, int(generation)):
                world.runtime.sandboxes[name] = ObservedSandbox(name, generation, phase, None, 0)
        match thing["wanted"]:
            case (DesiredPhase() as wanted, int(generation)):
                world.api.put(make_devbox(name, policy_id, phase=wanted, generation=generation))
        if thing["is_linked"]:
            links[name] = Placement(name, "acc_1", policy_id, slot)
    policies = {policy_id: prepare_enforcement(make_document(policy_id), HostContext()) for policy_id in POLICIES}
    world.driver.set(router_state(Target(1, policies, links), LAYOUT))
    world.driver.forget()
    world.journal.clear()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(left=leftovers)
def test_it_converges_from_any_leftover_state(left: dict[str, dict[str, object]]) -> None:
    async def scenario(world: World) -> None:
        leave(world, left)
        async with world.running_agent():
            await come_to_rest(world)

    with tempfile.TemporaryDirectory() as directory:
        run_simulated(scenario(World(Path(directory))))


actions = st.one_of(
    st.tuples(st.just("boot"), st.sampled_from(NAMES), st.sampled_from(POLICIES)),
    st.tuples(st.just("reboot"), st.sampled_from(NAMES)),
    st.tuples(st.just("suspend"), st.sampled_from(NAMES)),
    st.tuples(st.just("resume"), st.sampled_from(NAMES)),
    st.tuples(st.just("shutdown"), st.sampled_from(NAMES)),
    st.tuples(st.just("forget"), st.sampled_from(NAMES)),
    st.tuples(st.just("update"), st.sampled_from(POLICIES)),
    st.tuples(st.just("kill gate")),
    st.tuples(st.just("lose sandbox"), st.sampled_from(NAMES)),
    st.tuples(st.just("kernel refuses")),
    st.tuples(st.just("kernel takes")),
    st.tuples(st.just("api down")),
    st.tuples(st.just("api up")),
    st.tuples(st.just("drift")),
    st.tuples(st.just("wait"), st.sampled_from([0.0005, 0.01, 0.03, 1.0, 7.0])),
)


def act(world: World, action: tuple[str, ...], revisions: dict[str, int]) -> None:
    """One thing happens."""
    match action:
        case ("boot", name, policy_id) if name not in world.api.devboxes:
            world.api.put(make_devbox(name, policy_id, launch_commands=("true",)))
        case ("update", policy_id):
            revisions[policy_id] += 1
            hosts = (f"h{revisions[policy_id]}.example",)
            world.api.put(make_document(policy_id, revision=revisions[policy_id], hosts=hosts))
        case (verb, name) if name in world.api.devboxes:
            act_on_devbox(world, verb, name)
        case (event,):
            happen(world, event)


def act_on_devbox(world: World, verb: str, name: str) -> None:
    api = world.api
    document = api.devboxes[name][1]
    is_wanted = document.phase is DesiredPhase.RUNNING
    if (verb == "reboot" and is_wanted) or (verb == "resume" and document.phase is DesiredPhase.SUSPENDED):
        api.resume(name)
    elif verb == "suspend" and is_wanted:
        api.suspend(name)
    elif verb == "shutdown":
        api.shut_down(name)
    elif verb == "forget" and document.phase is DesiredPhase.SHUTDOWN and world.phase(name) in ("shutdown", "failure"):
        api.forget(name)
        del api.observed[name]
    elif verb == "lose sandbox" and name in world.runtime.sandboxes:
        world.runtime.lose(name)


def happen(world: World, event: str) -> None:
    match event:
        case "kill gate" if world.gate is not None:
            world.gate.kill()
        case "kernel refuses" | "kernel takes":
            world.driver.refuse_with = "busy" if event == "kernel refuses" else None
        case "api down" | "api up":
            world.api.is_down = event == "api down"
        case "drift":
            world.driver.damage("somebody was here")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lives=st.lists(st.lists(actions, max_size=25), min_size=1, max_size=4))
def test_it_converges_through_deaths_and_refusals(lives: list[list[tuple[str, ...]]]) -> None:
    async def scenario(world: World) -> None:
        revisions = dict.fromkeys(POLICIES, 1)
        world.api.put(*(make_document(policy_id) for policy_id in POLICIES))
        for life in lives:
            async with world.running_agent():
                for action in life:
                    if action[0] == "wait":
                        await asyncio.sleep(float(action[1]))
                    act(world, action, revisions)
        world.driver.refuse_with = None
        world.api.is_down = False
        async with world.running_agent():
            await come_to_rest(world)

    with tempfile.TemporaryDirectory() as directory:
        run_simulated(scenario(World(Path(directory))))


def test_a_record_that_cannot_be_read_ends_its_devbox(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
        (tmp_path / "devboxes" / "a.json").write_bytes(b"\0\0\0")
        async with world.running_agent():
            await world.until_phase("a", "failure")
            assert "record_unreadable" in world.api.warnings()
            await world.until(lambda: "a" not in world.driver.state.devboxes)

    run_simulated(scenario())
    assert "stop a" in world.journal
    assert RecordStore(tmp_path / "devboxes").unreadable == ()
