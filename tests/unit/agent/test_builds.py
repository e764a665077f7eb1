"""Builds on simulated time: their order, their ends, and what a dead agent leaves to the next."""

from collections.abc import Coroutine
from pathlib import Path

import pytest

from outgate.model.desired import (
    BUILD_COMPLETE,
    BuildDocument,
    DevboxDocument,
    FileMountDocument,
    ObjectForm,
    ObjectMountDocument,
)
from outgate.runtime.base import SandboxError
from support.agent_world import World, make_devbox, make_document
from support.sim_time import run_simulated

BOX = "bpt_a"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(work: Coroutine[object, object, None]) -> None:
    run_simulated(work)


def make_build(
    *, environment: dict[str, str] | None = None, file: str | None = None, **build: object
) -> DevboxDocument:
    mounts = () if file is None else (FileMountDocument(file, "content"),)
    document = BuildDocument(**build)  # type: ignore[arg-type] # any field
    return make_devbox(BOX, build=document, environment=environment or {}, mounts=mounts)


def messages(world: World) -> list[str]:
    parts = world.api.build_logs.get(BOX, {})
    return [line.message for key in sorted(parts) for line in parts[key].lines]


def setup(command: str) -> str:
    return f"exec 2>&1\n{command}"


def test_setup_commands_run_filtered_one_after_the_other_and_become_an_image(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            build = make_build(setup_commands=("one", "two"), file="/etc/x", environment={"TOKEN": "t"})
            world.api.put(make_document(), build)
            await world.until_phase(BOX, "shutdown")

    run(scenario())
    order = [f"kernel +{BOX}", f"gate +{BOX}", f"start {BOX}"]
    order += [f"exec {BOX} {setup('one')}", f"exec {BOX} {setup('two')}", f"halt {BOX}"]
    order += [f"stop {BOX}", f"gate -{BOX}", f"kernel -{BOX}"]
    places = [world.journal.index(entry) for entry in order]
    assert places == sorted(places)
    assert world.api.observed[BOX].shutdown_reason == BUILD_COMPLETE
    assert world.runtime.images == {BOX: 4096}
    assert world.runtime.disks_made == {BOX: 1}
    spec = world.runtime.specs[BOX]
    assert (spec.is_builder, spec.environment) == (False, {"TOKEN": "t"})
    said = messages(world)
    assert (said[0], said[2]) == ("$ one", "$ two")
    assert len(said) == 4


def test_a_dockerfile_is_built_in_a_builder_and_the_rest_in_its_image(world: World) -> None:
    started: list[tuple[str, bool, dict[str, str]]] = []
    check = world.runtime.check_start

    def note(spec: object) -> None:
        check(spec)  # type: ignore[arg-type] # a SandboxSpec
        started.append((spec.image, spec.is_builder, dict(spec.environment)))  # type: ignore[attr-defined] # likewise

    world.runtime.check_start = note

    async def scenario() -> None:
        async with world.running_agent():
            world.api.objects["obj_1"] = b"packed"
            build = make_build(
                dockerfile="FROM a\n", context_object_id="obj_1", setup_commands=("one",), environment={"TOKEN": "hush"}
            )
            world.api.put(make_document(), build)
            await world.until_phase(BOX, "shutdown")

    run(scenario())
    assert started == [("stock", True, {}), (f"{BOX}-base", False, {"TOKEN": "hush"})]
    assert world.runtime.images == {BOX: 4096}
    fed = list(world.runtime.stdin.values())
    assert b"FROM a\n" in fed
    assert b"packed" in fed
    assert b"hush" in fed
    assert not any("hush" in entry for entry in world.journal)


def test_a_dockerfile_alone_is_started_once_to_see_that_it_can_be(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_build(dockerfile="FROM a\n"))
            await world.until_phase(BOX, "shutdown")

    run(scenario())
    assert world.journal.count(f"start {BOX}") == 2
    assert world.runtime.images == {BOX: 4096}
    assert world.runtime.specs[BOX].image == BOX


def test_an_image_that_cannot_be_started_is_none(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_build(dockerfile="FROM a\n"))
            await world.until(lambda: f"seal build {BOX}" in world.journal)
            world.runtime.start_errors[BOX] = SandboxError("no /bin/sh")
            await world.until_phase(BOX, "failure")

    run(scenario())
    assert "no /bin/sh" in world.api.observed[BOX].detail
    assert world.runtime.images == {}


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [((0, False), None), ((1, False), "out_of_memory"), ((0, True), "out_of_disk")],
)
def test_a_command_that_fails_ends_the_build(world: World, trouble: tuple[int, bool], reason: str | None) -> None:
    world.runtime.command_status[setup("bad")] = 3
    world.runtime.trouble = trouble

    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_build(setup_commands=("bad", "after")))
            await world.until_phase(BOX, "failure")
            await world.until(lambda: f"kernel -{BOX}" in world.journal)

    run(scenario())
    observed = world.api.observed[BOX]
    assert (observed.failure_reason, observed.detail) == (reason, "Setup command 'bad' ended with status 3.")
    assert messages(world)[-1] == observed.detail
    assert not any("after" in entry for entry in world.journal)
    assert world.runtime.images == {}
    assert world.runtime.sandboxes == {}


def test_a_build_that_takes_too_long_is_ended(world: World) -> None:
    world.runtime.endless.add(setup("forever"))

    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_build(setup_commands=("forever",), time_limit_s=60))
            await world.until_phase(BOX, "failure")
            await world.until(lambda: not world.runtime.sandboxes)

    run(scenario())
    assert messages(world)[-1] == "The build took longer than 60 seconds, the most it may take."
    assert world.runtime.open_streams == 0


def test_a_build_that_is_not_wanted_any_more_is_ended_at_once_and_leaves_nothing(world: World) -> None:
    world.runtime.endless.add(setup("forever"))

    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_build(setup_commands=("forever",)))
            await world.until(lambda: f"exec {BOX} {setup('forever')}" in world.journal)
            world.api.shut_down(BOX)
            await world.until_phase(BOX, "shutdown")
            world.api.forget(BOX)
            await world.until(lambda: world.records().get(BOX) is None)

    run(scenario())
    assert world.api.observed[BOX].shutdown_reason is None
    assert (world.runtime.images, world.runtime.sandboxes) == ({}, {})


def test_the_image_lives_until_the_blueprint_is_forgotten(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(make_document(), make_build(setup_commands=("one",)))
            await world.until_phase(BOX, "shutdown")
        async with world.running_agent():
            await world.until(lambda: world.api.enforced >= world.api.revision)
            assert world.runtime.images == {BOX: 4096}
            world.api.forget(BOX)
            await world.until(lambda: world.records().get(BOX) is None)
            assert world.runtime.images == {}

    run(scenario())


def test_a_build_begins_anew_after_the_agent_died_and_is_given_up_in_the_end(world: World) -> None:
    world.runtime.endless.add(setup("forever"))

    async def scenario() -> None:
        world.api.put(make_document(), make_build(setup_commands=("forever",)))
        for attempt in range(1, 4):
            async with world.running_agent():
                entry = f"exec {BOX} {setup('forever')}"
                await world.until(lambda wanted=attempt, entry=entry: world.journal.count(entry) == wanted)  # type: ignore[misc] # bound early
        async with world.running_agent():
            await world.until_phase(BOX, "failure")

    run(scenario())
    assert world.runtime.disks_made == {BOX: 3}
    assert "too often" in world.api.observed[BOX].detail
    assert world.runtime.sandboxes == {}


def test_an_object_that_is_gone_ends_the_build(world: World) -> None:
    async def scenario() -> None:
        async with world.running_agent():
            mounted = ObjectMountDocument("obj_gone", "x", ObjectForm.FILE)
            world.api.put(make_document(), make_devbox(BOX, build=BuildDocument(), mounts=(mounted,)))
            await world.until_phase(BOX, "failure")

    run(scenario())
    assert "obj_gone" in world.api.observed[BOX].detail
