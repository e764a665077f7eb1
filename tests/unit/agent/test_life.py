"""Suspending and resuming, mounts and their failures: what the agent does about one devbox."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from outgate.model.desired import (
    CodeMountDocument,
    DevboxActivity,
    FileMountDocument,
    ObjectForm,
    ObjectMountDocument,
)
from outgate.runtime.base import SandboxError, SandboxPhase
from support.agent_world import World, make_devbox, make_document
from support.sim_time import run_simulated


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    run_simulated(scenario)


async def boot(world: World, **more: Any) -> None:
    world.api.put(make_document(), make_devbox("a", **more))
    await world.until_phase("a", "running")


async def suspend(world: World) -> None:
    world.api.suspend("a")
    await world.until_phase("a", "suspended")


def ran(world: World) -> list[str]:
    """What happened to the devbox and its network, in order."""
    wanted = ("start", "halt", "stop", "exec", "kernel +", "kernel -", "gate +", "gate -")
    return [entry for entry in world.journal if entry.startswith(wanted)]


def test_a_suspended_devbox_has_no_process_and_no_network(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            await boot(world, suspend_commands=("sync", "false"))
            world.runtime.command_status["false"] = 1
            del world.journal[:]
            await suspend(world)
            assert ran(world) == ["exec a sync", "exec a false", "halt a", "gate -a", "kernel -a", "halt a"]
            assert world.runtime.sandboxes["a"].phase is SandboxPhase.EXITED
            assert "a" not in world.driver.state.devboxes
            record = world.records().get("a")
            assert record is not None
            assert record.slot is None, "another devbox may have it"

    run(scenario())


def test_a_resumed_devbox_is_filtered_before_it_starts_on_its_disk(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            await boot(world, launch_commands=("prepare",))
            await suspend(world)
            world.api.put(make_document(revision=2, hosts=("new.example",)))
            del world.journal[:]
            world.api.resume("a")
            await world.until(lambda: world.phase("a") == "running" and world.api.observed["a"].generation == 2)
            assert ran(world) == ["kernel +a", "gate +a", "start a", "exec a prepare"]
            assert world.runtime.disks_made == {"a": 1}
            assert world.gate is not None
            assert world.gate.policies["npol_1"].allowed_hostnames == ("new.example",)

    run(scenario())


@pytest.mark.parametrize("stage", ["commands", "halt"])
def test_an_agent_that_dies_while_suspending_goes_on(world: World, stage: str) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.runtime.endless.add("slow")
            await boot(world, suspend_commands=("slow",) if stage == "commands" else ())
            world.api.suspend("a")
            await world.until(
                lambda: "exec a slow" in world.journal if stage == "commands" else "halt a" in world.journal
            )
        async with world.running_agent():
            await world.until_phase("a", "suspended")
            world.api.resume("a")
            await world.until_phase("a", "running")
        assert world.journal.count("exec a slow") == (stage == "commands")
        assert world.runtime.disks_made == {"a": 1}

    run(scenario())


def test_suspend_commands_have_a_deadline(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.runtime.endless.add("slow")
            await boot(world, suspend_commands=("slow", "late"), suspend_deadline_ms=5000)
            began_s = asyncio.get_running_loop().time()
            await suspend(world)
            assert 5 <= asyncio.get_running_loop().time() - began_s < 7
            assert "exec a late" not in world.journal

    run(scenario())


def test_a_shutdown_does_not_wait_for_suspend_commands(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.runtime.endless.add("slow")
            await boot(world, suspend_commands=("slow",), suspend_deadline_ms=60_000)
            world.api.suspend("a")
            await world.until(lambda: "exec a slow" in world.journal)
            began_s = asyncio.get_running_loop().time()
            world.api.shut_down("a")
            await world.until_phase("a", "shutdown")
            assert asyncio.get_running_loop().time() - began_s < 5
            assert world.runtime.sandboxes == {}

    run(scenario())


def test_a_suspended_devbox_can_be_shut_down(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            await boot(world)
            await suspend(world)
            world.api.shut_down("a")
            await world.until_phase("a", "shutdown")
            assert world.runtime.sandboxes == {}
            assert world.api.observed["a"].shutdown_reason is None

    run(scenario())


def test_a_resume_that_fails_is_tried_again_and_keeps_the_disk(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            await boot(world)
            await suspend(world)
            world.runtime.refuse["a"] = "the host is busy"
            world.api.resume("a")
            await world.until(lambda: world.journal.count("start a") == 3)
            assert world.runtime.sandboxes["a"].phase is SandboxPhase.EXITED
            del world.runtime.refuse["a"]
            await world.until_phase("a", "running")
            assert world.runtime.disks_made == {"a": 1}

    run(scenario())


def test_a_resume_that_always_fails_is_given_up(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            await boot(world)
            await suspend(world)
            world.runtime.refuse["a"] = "no such thing"
            world.api.resume("a")
            await world.until_phase("a", "failure")
            assert "no such thing" in world.api.observed["a"].detail

    run(scenario())


def test_a_disk_that_is_gone_is_a_failure_and_no_fresh_devbox(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            await boot(world)
            await suspend(world)
            del world.runtime.sandboxes["a"]
            await world.until_phase("a", "failure")
            assert world.api.observed["a"].failure_reason == "health_check_failed"
            assert world.runtime.disks_made == {"a": 1}

    run(scenario())


MOUNTS = (
    FileMountDocument("notes/a b.txt", "hello"),
    ObjectMountDocument("obj_1", "/srv/data", ObjectForm.TGZ),
    CodeMountDocument("https://git.example/o/r.git", "r", ref="main", token="t0ken", install_command="make"),
)


def test_mounts_are_made_once_and_before_the_launch_commands(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.objects["obj_1"] = b"an archive"
            await boot(world, mounts=MOUNTS, launch_commands=("launch",))
            given = {key[1].split("-")[-1]: data for key, data in world.runtime.stdin.items()}
            assert given == {"0": b"hello", "1": b"an archive", "2": b"t0ken\n"}
            said = [entry for entry in world.journal if entry.startswith("exec")]
            assert len(said) == 6  # one file; a folder and its archive; a clone and its installation; the launch
            assert "'/home/user/notes/a b.txt'" in said[0]
            assert "tar -x -z --no-same-owner -f - -C /srv/data" in said[2]
            assert "clone --quiet -- https://git.example/o/r.git /home/user/r" in said[3]
            assert said[4].endswith("cd -- /home/user/r || exit\nmake")
            assert said[5] == "exec a launch"
            assert not any("t0ken" in entry for entry in said)
            await suspend(world)
            world.api.resume("a")
            await world.until(lambda: world.phase("a") == "running" and world.api.observed["a"].generation == 2)
            assert world.journal.count("exec a launch") == 2
            assert len([entry for entry in world.journal if "clone" in entry]) == 1

    run(scenario())


def test_a_mount_that_fails_says_which(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            mounts = (ObjectMountDocument("obj_9", "/srv/data", ObjectForm.TAR),)
            world.api.put(make_document(), make_devbox("a", mounts=mounts))
            await world.until_phase("a", "failure")
            assert world.api.observed["a"].detail == "An object could not be read. there is no object obj_9"

    run(scenario())


@pytest.mark.parametrize(
    ("status", "oom_kills", "is_disk_full", "reason"),
    [
        (1, 0, False, "execution_failed"),
        (137, 0, False, "execution_failed"),
        (137, 1, False, "out_of_memory"),
        (1, 1, False, "execution_failed"),
        (1, 0, True, "out_of_disk"),
    ],
)
def test_why_a_launch_command_failed(
    world: World, status: int, oom_kills: int, is_disk_full: bool, reason: str
) -> None:
    async def scenario() -> None:
        world.runtime.command_status["fill"] = status
        world.runtime.trouble = (oom_kills, is_disk_full)
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a", launch_commands=("fill",)))
            await world.until_phase("a", "failure")
            assert world.api.observed["a"].failure_reason == reason
            assert world.api.observed["a"].detail.startswith(f"Launch command 'fill' ended with status {status}.")

    run(scenario())


def test_an_entrypoint_that_needs_too_much_memory_is_a_failure(world: World) -> None:
    async def scenario() -> None:
        world.runtime.endless.add("serve")
        async with world.running_agent():
            await boot(world, entrypoint="serve")
            world.runtime.trouble = (1, False)
            world.runtime.end_execution("a", "entrypoint-1-1", 137)
            await world.until_phase("a", "failure")
            assert world.api.observed["a"].failure_reason == "out_of_memory"

    run(scenario())


def test_a_host_without_room_is_out_of_disk(world: World) -> None:
    async def scenario() -> None:
        full = SandboxError("The sandbox's file system could not be made.")
        full.__cause__ = OSError(28, "No space left on device")
        world.runtime.start_errors["a"] = full
        async with world.running_agent():
            world.api.put(make_document(), make_devbox("a"))
            await world.until_phase("a", "failure")
            assert world.api.observed["a"].failure_reason == "out_of_disk"

    run(scenario())


def test_only_what_users_run_is_activity(world: World) -> None:
    async def scenario() -> None:
        world.runtime.endless |= {"serve", "work"}
        async with world.running_agent() as agent:
            await boot(world, entrypoint="serve", launch_commands=("prepare",))
            executions = agent.executions
            assert await executions.read_activity("a") == DevboxActivity(0)
            for number, command in enumerate(("work", "done")):
                await world.run_command("a", f"exec_{number}", command)
            assert await executions.read_activity("a") == DevboxActivity(1, world.runtime.end_time_ms)
            world.runtime.end_execution("a", "exec_0", 0)
            assert await executions.read_activity("a") == DevboxActivity(0, world.runtime.end_time_ms)

    run(scenario())
