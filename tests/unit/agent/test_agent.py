"""The agent as a whole, on simulated time, with a kernel, a gate, a runtime and an api in memory."""

import asyncio
from collections.abc import Coroutine
from ipaddress import ip_address
from pathlib import Path

import pytest

from outgate.agent.record import Stage
from outgate.dataplane.driver import Denial
from outgate.model.desired import DesiredPhase
from support.agent_world import LAYOUT, World, make_devbox, make_document
from support.sim_time import run_simulated


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(work: Coroutine[object, object, None]) -> None:
    run_simulated(work)


def index_of(journal: list[str], entry: str) -> int:
    assert entry in journal, "\n".join(journal)
    return journal.index(entry)


def test_a_devbox_comes_in_order_and_goes_in_reverse(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(hosts=("allowed.example",)), make_devbox("a", launch_commands=("true", "id")))
            await world.until_phase("a", "running")
            world.api.shut_down("a")
            await world.until_phase("a", "shutdown")

    run(scenario())
    order = ["kernel +a", "gate +a", "start a", "exec a true", "exec a id", "stop a", "gate -a", "kernel -a"]
    places = [index_of(world.journal, entry) for entry in order]
    assert places == sorted(places)
    record = world.records().get("a")
    assert record is not None
    assert (record.stage, record.slot) == (Stage.ENDED, None)


def test_each_phase_is_reported_once_in_order(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a", launch_commands=("true",)))
            await world.until_phase("a", "running")

    run(scenario())
    phases = [devbox.phase.value for report in world.api.reports for devbox in report.devboxes]
    assert list(dict.fromkeys(phases)) == phases
    assert phases[-1] == "running"


def test_an_update_is_gate_then_kernel_then_reported(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(cidrs=("192.0.2.0/24",)), make_devbox("a"))
            await world.until_phase("a", "running")
            world.journal.clear()
            revision = world.api.put(make_document(revision=2))
            await world.until(lambda: world.api.enforced == revision)
            assert world.journal == ["gate applied", "kernel set"]
            await asyncio.sleep(0.1)

    run(scenario())
    assert world.journal == ["gate applied", "kernel set", "kernel abort [17000] ['a']"]


def test_sockets_of_quick_updates_are_aborted_together_and_those_allowed_again_not_at_all(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(allow_all=True), make_document("npol_2", cidrs=("192.0.2.0/24",)))
            world.api.put(make_devbox("a"), make_devbox("b", "npol_2"))
            await world.until_phase("a", "running")
            await world.until_phase("b", "running")
            world.journal.clear()
            world.api.put(make_document(revision=2))
            await asyncio.sleep(0.002)
            world.api.put(make_document("npol_2", revision=2))
            await asyncio.sleep(0.002)
            revision = world.api.put(make_document(revision=3, allow_all=True))
            await world.until(lambda: world.api.enforced == revision)
            await asyncio.sleep(0.1)

    run(scenario())
    assert [entry for entry in world.journal if "abort" in entry] == ["kernel abort [18000] ['a', 'b']"]


def test_ten_devboxes_that_start_do_not_delay_an_update(world: World) -> None:
    async def scenario() -> None:
        world.runtime.start_s = 30.0  # a runtime as slow as it can get
        async with world.running_agent():
            world.api.put(make_document("npol_1"), make_document("npol_2", cidrs=("192.0.2.0/24",)))
            world.api.put(make_devbox("old", "npol_2"))
            await world.until_phase("old", "running")
            world.api.put(*(make_devbox(f"d{number}") for number in range(10)))
            await asyncio.sleep(1)
            loop = asyncio.get_running_loop()
            sent_s = loop.time()
            revision = world.api.put(make_document("npol_2", revision=2))
            await world.until(lambda: world.api.enforced >= revision)
            assert world.api.enforced_at_s[revision] - sent_s < 0.01
            assert not any(world.phase(f"d{number}") == "running" for number in range(10))
            await world.until(
                lambda: all(world.phase(f"d{number}") == "running" for number in range(10)), timeout_s=600
            )

    run(scenario())


def test_many_new_links_are_made_a_few_at_a_time(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), *(make_devbox(f"d{number}") for number in range(30)))
            await world.until(lambda: all(world.phase(f"d{number}") == "running" for number in range(30)))

    run(scenario())
    counts = [len(state.devboxes) for state in world.driver.history]
    assert max(after - before for before, after in zip([0, *counts], counts, strict=False)) <= 8
    assert len({link.slot for link in world.driver.state.devboxes.values()}) == 30


def test_nothing_is_touched_before_the_api_was_heard(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
        world.journal.clear()
        world.api.is_down = True
        async with world.running_agent():
            await asyncio.sleep(60)
            assert world.journal == []
            assert "a" in world.driver.state.devboxes
            assert "a" in world.runtime.sandboxes
            world.api.is_down = False
            await world.until(lambda: world.api.enforced == world.api.revision)
            await world.until(lambda: "a" in (world.gate.devboxes if world.gate else {}))

    run(scenario())
    assert not [entry for entry in world.journal if entry.startswith(("start", "stop", "kernel -"))]


def test_an_adopted_devbox_is_in_the_first_table_of_the_gate(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
        async with world.running_agent():
            await world.until(lambda: bool(world.gate and world.gate.frames))
            assert world.gate is not None
            assert [devbox.id for devbox in world.gate.frames[0].devboxes] == ["a"]

    run(scenario())


def test_while_the_api_is_silent_what_was_wanted_stays_in_force(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent() as agent:
            world.api.put(make_document(hosts=("allowed.example",)), make_devbox("a"))
            await world.until_phase("a", "running")
            world.api.is_down = True
            world.api.put(make_document(revision=2))
            await asyncio.sleep(120)
            assert world.gate is not None
            assert world.gate.policies["npol_1"].revision == 1
            assert "api_unreachable" in {warning.code for warning in agent.warnings()}
            world.api.is_down = False
            await world.until(lambda: world.api.enforced == world.api.revision)
            assert world.gate.policies["npol_1"].revision == 2
            await world.until(lambda: "api_unreachable" not in world.api.warnings())

    run(scenario())
    # The api may be another process by now: it hears of every devbox again.
    assert [devbox.id for devbox in world.api.reports[-1].devboxes or world.api.reports[-2].devboxes] == ["a"]


@pytest.mark.parametrize("when_s", [0.0, 0.001, 0.0025, 0.004, 0.02])
def test_a_gate_that_dies_at_any_moment_opens_nothing_and_is_given_everything(world: World, when_s: float) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            gate = world.gate
            assert gate is not None
            gate.apply_s = 0.003
            revision = world.api.put(make_document(revision=2, hosts=("new.example",)), make_devbox("b"))
            await asyncio.sleep(when_s)
            gate.kill()
            await world.until(lambda: world.api.enforced >= revision)
            await world.until_phase("b", "running")
            await world.until(lambda: set(gate.devboxes) == {"a", "b"})
            assert gate.policies["npol_1"].revision == 2
            await world.until(lambda: "gate_down" not in world.api.warnings())

    run(scenario())


def test_while_the_gate_is_down_updates_are_enforced_and_nothing_starts(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent() as agent:
            world.api.put(make_document(cidrs=("192.0.2.0/24",)), make_devbox("a"))
            await world.until_phase("a", "running")
            gate = world.gate
            assert gate is not None
            gate.is_stopped = True
            gate.kill()
            revision = world.api.put(make_document(revision=2), make_devbox("b"))
            await world.until(lambda: world.api.enforced == revision)
            assert not world.driver.state.plans[17].live
            await asyncio.sleep(60)
            assert world.phase("b") == "provisioning"
            assert not agent.is_ready()
            assert world.api.warnings() == {"gate_down"}
            assert world.api.reports[-1].ready is False
            gate.is_stopped = False
            await world.until_phase("b", "running")
            assert agent.is_ready()

    run(scenario())


def test_a_start_that_waited_for_its_turn_is_given_up_when_the_gate_is_gone(world: World) -> None:
    async def scenario() -> None:
        world.runtime.start_s = 5.0
        async with world.running_agent():
            world.api.put(make_document(), *(make_devbox(f"d{number}") for number in range(20)))
            await world.until(lambda: any(entry.startswith("start") for entry in world.journal))
            gate = world.gate
            assert gate is not None
            await world.until(lambda: len(gate.devboxes) == 20)
            gate.restart_s = 30.0
            gate.kill()
            await asyncio.sleep(25)
            assert sum(entry.startswith("start") for entry in world.journal) < 20
            await world.until(
                lambda: all(world.phase(f"d{number}") == "running" for number in range(20)), timeout_s=300
            )

    run(scenario())


def test_a_gate_that_refuses_its_table_is_replaced_and_told_everything(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            gate = world.gate
            assert gate is not None
            gate.refuse_with = "no"
            revision = world.api.put(make_document(revision=2))
            await world.until(lambda: world.api.enforced == revision)
            gate.refuse_with = None
            await world.until(lambda: gate.policies.get("npol_1") == make_document(revision=2))

    run(scenario())


def test_a_kernel_that_refuses_keeps_the_old_revision_unenforced_until_it_takes_it(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(cidrs=("192.0.2.0/24",)), make_devbox("a"))
            await world.until_phase("a", "running")
            before = world.api.enforced
            world.driver.refuse_with = "no memory"
            world.api.put(make_document(revision=2), make_devbox("b"))
            await asyncio.sleep(20)
            assert world.api.enforced == before
            assert "kernel_failing" in world.api.warnings()
            assert world.phase("b") == "provisioning"
            world.driver.refuse_with = None
            await world.until(lambda: world.api.enforced == world.api.revision)
            await world.until_phase("b", "running")
            await world.until(lambda: world.api.warnings() == set())

    run(scenario())


def test_an_update_that_the_kernel_keeps_refusing_cuts_its_policy_off(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(
                make_document("npol_1", cidrs=("192.0.2.0/24",)),
                make_document("npol_2", cidrs=("198.51.100.0/24",)),
                make_devbox("a", "npol_1"),
                make_devbox("b", "npol_2"),
            )
            await world.until_phase("a", "running")
            await world.until_phase("b", "running")
            world.driver.refuse_cells_of = 17
            world.api.put(make_document("npol_1", revision=2, cidrs=("192.0.2.0/24", "203.0.113.0/24")))
            await world.until(lambda: "policy_cut_off" in world.api.warnings())
            assert not world.driver.state.plans[17].live
            assert world.driver.state.plans[18].live
            assert world.gate is not None
            assert world.gate.policies["npol_1"].allowed_cidrs == ()
            world.driver.refuse_cells_of = None
            await world.until(lambda: len(world.driver.state.plans[17].live) == 2)
            await world.until(lambda: world.api.warnings() == set())

    run(scenario())


def test_a_policy_that_cannot_be_enforced_denies_everything_and_says_so(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(cidrs=("192.0.2.0/24",)), make_devbox("a"))
            await world.until_phase("a", "running")
            revision = world.api.put(make_document(revision=2, cidrs=("192.0.2.7/24",), hosts=("allowed.example",)))
            await world.until(lambda: world.api.enforced == revision)
            await world.until(lambda: world.api.warnings() == {"policy_denied"})
            assert not world.driver.state.plans[17].live
            assert world.gate is not None
            assert world.gate.policies["npol_1"].allowed_hostnames == ()

    run(scenario())


def test_a_policy_that_only_reports_is_warned_of_and_one_of_an_unknown_mode_denies_everything(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            cidrs = ("192.0.2.0/24",)
            world.api.put(make_document(cidrs=cidrs, enforcement="report_only"), make_devbox("a"))
            await world.until_phase("a", "running")
            await world.until(lambda: world.api.warnings() == {"policy_report_only"})
            assert world.driver.state.plans[17].is_report_only
            revision = world.api.put(make_document(revision=2, cidrs=cidrs, enforcement="audit"))
            await world.until(lambda: world.api.enforced == revision)
            await world.until(lambda: world.api.warnings() == {"policy_denied"})
            assert not world.driver.state.plans[17].live
            assert world.gate is not None
            assert world.gate.policies["npol_1"].enforcement == "enforce"

    run(scenario())


def test_a_link_that_cannot_be_made_ends_its_devbox_and_no_other(world: World) -> None:
    async def scenario() -> None:
        world.driver.refuse_links = {"a"}
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"), make_devbox("b"))
            await world.until_phase("b", "running")
            await world.until_phase("a", "failure")
            assert "link could not be made" in world.api.observed["a"].detail
            await world.until(lambda: "a" not in world.driver.history[-1].devboxes)

    run(scenario())
    assert "start a" not in world.journal


def test_a_sandbox_that_does_not_start_is_a_failure_with_its_reason(world: World) -> None:
    async def scenario() -> None:
        world.runtime.refuse["a"] = "no such image"
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "failure")
            assert world.api.observed["a"].detail == "Its sandbox did not start. no such image"
            await world.until(lambda: "a" not in world.driver.state.devboxes)

    run(scenario())


def test_a_failing_launch_command_is_a_failure_with_its_last_words(world: World) -> None:
    async def scenario() -> None:
        world.runtime.command_status["make all"] = 2
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a", launch_commands=("true", "make all", "never")))
            await world.until_phase("a", "failure")

    run(scenario())
    observed = world.api.observed["a"]
    assert observed.failure_reason == "execution_failed"
    assert "'make all' ended with status 2. stderr of launch-1-1" in observed.detail
    assert "exec a never" not in world.journal
    assert "stop a" in world.journal


def test_a_devbox_that_is_not_wanted_any_more_is_not_launched_to_the_end(world: World) -> None:
    async def scenario() -> None:
        world.runtime.endless.add("sleep infinity")
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a", launch_commands=("sleep infinity",)))
            await world.until(lambda: "exec a sleep infinity" in world.journal)
            world.api.shut_down("a")
            await world.until_phase("a", "shutdown")

    run(scenario())


def test_the_end_of_the_entrypoint_is_the_end_of_the_devbox(world: World) -> None:
    async def scenario() -> None:
        world.runtime.endless.add("serve")
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a", entrypoint="serve"))
            await world.until_phase("a", "running")
        async with world.running_agent():
            # Followed by the next agent as well.
            await asyncio.sleep(30)
            assert world.phase("a") == "running"
            world.runtime.end_execution("a", "entrypoint-1-1", 0)
            await world.until_phase("a", "shutdown")

    run(scenario())
    assert world.api.observed["a"].shutdown_reason == "entrypoint_exit"


@pytest.mark.parametrize(("oom_kills", "reason"), [(0, "health_check_failed"), (1, "out_of_memory")])
def test_a_sandbox_that_is_gone_is_noticed(world: World, oom_kills: int, reason: str) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            world.runtime.lose("a", oom_kills=oom_kills)
            await world.until_phase("a", "failure")
            await world.until(lambda: "a" not in world.driver.state.devboxes)

    run(scenario())
    assert world.api.observed["a"].failure_reason == reason


def test_a_sandbox_outside_of_its_filtered_namespace_is_ended(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            world.is_namespace_own = False
            await world.until_phase("a", "failure")

    run(scenario())
    assert "stop a" in world.journal


def test_a_higher_generation_boots_again_in_the_same_place(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            slot = world.driver.state.devboxes["a"].slot
            world.api.put(make_devbox("a", generation=2))
            await world.until(lambda: world.api.observed["a"].generation == 2 and world.phase("a") == "running")
            assert world.driver.state.devboxes["a"].slot == slot
            assert world.runtime.specs["a"].generation == 2

    run(scenario())
    assert world.journal.count("start a") == 2


def test_a_forgotten_devbox_leaves_nothing(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            world.api.shut_down("a")
            await world.until_phase("a", "shutdown")
            world.api.forget("a")
            await world.until(lambda: not list((world.state_dir / "devboxes").iterdir()))

    run(scenario())
    assert not world.driver.state.devboxes
    assert not world.driver.state.plans


def test_a_devbox_that_is_shut_down_before_this_host_knew_it_is_reported(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a", phase=DesiredPhase.SHUTDOWN))
            await world.until_phase("a", "shutdown")

    run(scenario())
    assert "start a" not in world.journal


def test_a_slot_is_given_again_only_after_its_link_is_gone(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            world.driver.refuse_with = "busy"
            world.api.shut_down("a")
            world.api.put(make_devbox("b"))
            await asyncio.sleep(30)
            record = world.records().get("b")
            assert record is not None
            assert record.slot == 1
            world.driver.refuse_with = None
            await world.until_phase("a", "shutdown")
            world.api.put(make_devbox("c"))
            await world.until_phase("c", "running")
            assert world.driver.state.devboxes["c"].slot == 0

    run(scenario())


def test_drift_is_repaired_and_shown(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            sets = len(world.driver.history)
            world.driver.damage("The chain forward is gone.")
            await world.until(lambda: "drift_repaired" in world.api.warnings(), timeout_s=6)
            await world.until(lambda: len(world.driver.history) == sets + 1)
            await world.until(lambda: world.api.warnings() == set(), timeout_s=120)

    run(scenario())


def test_a_new_router_namespace_gets_a_new_gate(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            assert world.gate is not None
            epoch = world.gate.epoch
            world.router = "second"
            await world.until(lambda: world.gate is not None and world.gate.epoch == epoch + 1)
            await world.until(lambda: world.gate is not None and set(world.gate.devboxes) == {"a"})

    run(scenario())


def test_new_addresses_of_the_host_reach_gate_and_kernel(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            world.driver.host_addresses = frozenset({ip_address("198.51.100.7")})
            await world.until(lambda: world.driver.state.host_addresses == world.driver.host_addresses)
            assert world.gate is not None
            assert world.gate.frames[-1].host_addresses == ("198.51.100.7",)

    run(scenario())


def test_a_denied_packet_becomes_a_record_with_rule_and_reason(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            link = world.driver.state.devboxes["a"]
            world.driver.deny(Denial(link.link, link.address4, ip_address("169.254.169.254"), 6, 40000, 80))
            world.driver.deny(Denial("og4000", LAYOUT.address4(9), ip_address("192.0.2.1"), 6, 40000, 80))
            await world.until(lambda: bool(world.api.flows))
            (record,) = world.api.flows
            assert record.devbox_id == "a"
            assert (record.verdict, record.reason, record.point) == ("deny", "floor_metadata", "kernel")
            assert (record.address, record.port, record.protocol) == ("169.254.169.254", 80, "tcp")

    run(scenario())


def test_when_the_state_cannot_be_written_nothing_starts_and_it_is_said(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document())
            await world.until(lambda: world.api.enforced == world.api.revision)
            directory = world.state_dir / "devboxes"
            moved = directory.with_name("moved")
            directory.rename(moved)
            world.api.put(make_devbox("a"))
            await world.until(lambda: "state_unwritable" in world.api.warnings())
            await asyncio.sleep(20)
            assert "start a" not in world.journal
            moved.rename(directory)
            await world.until_phase("a", "running")
            await world.until(lambda: world.api.warnings() == set())

    run(scenario())


def test_a_runtime_that_cannot_stop_a_sandbox_keeps_its_slot_and_says_so(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "running")
            world.runtime.stop_failures = 5
            world.api.shut_down("a")
            await world.until(lambda: "runtime_failing" in world.api.warnings())
            assert "a" in world.driver.state.devboxes
            await world.until_phase("a", "shutdown")
            await world.until(lambda: world.api.warnings() == set())

    run(scenario())
