"""The OCI driver: a :class:`outgate.runtime.base.Runtime` over runc, crun or runsc.

Everything it needs to know after a restart is on disk or in the kernel: a sandbox is its directory with
its record, and it runs if the process in its pid file is in its control group. Nothing is asked of the
OCI runtime but to run, to exec and to delete. Blocking work is done by a few threads.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from outgate.runtime import cgroups
from outgate.runtime.base import (
    ImageNotFoundError,
    ObservedSandbox,
    SandboxError,
    SandboxNotFoundError,
    SandboxPhase,
    SandboxSpec,
)
from outgate.runtime.boot import Booter
from outgate.runtime.build_images import find_bases, prepare_bases, take_built_image
from outgate.runtime.checks import check_sandbox
from outgate.runtime.disk import SandboxDisks, SandboxRecord, remove_tree
from outgate.runtime.engine import Engine
from outgate.runtime.execution_files import SandboxPlace
from outgate.runtime.freezer import thaw
from outgate.runtime.host import observe_host
from outgate.runtime.images import ImageStore, check_name
from outgate.runtime.oci_commands import CommandHost
from outgate.runtime.oci_terminals import OciTerminals
from outgate.runtime.rootfs import Staging, plan_overlays
from outgate.runtime.snapshots import Sealer
from outgate.runtime.stock import TrustedAuthority
from outgate.runtime.usermap import IdRange, UserMaps, choose_range

Result = TypeVar("Result")

_WORKERS: Final = 8
"""Threads for blocking work: most of them wait for an OCI runtime, whose own work keeps two cores busy."""
_LOCKS: Final = 256
"""Starts and stops of one sandbox exclude each other. Sandboxes share locks by their ids' hash, so none has to be made
or forgotten; the more there are, the rarer one waits for another's."""
_STARTS_MAX: Final = 4
"""Sandboxes that start at once; more would only wait for each other's turn on the processors."""


_SEALS_MAX: Final = 2
"""Disks copied at once: more would only share the disk's speed, and hold their sandboxes still for longer."""


@dataclass(frozen=True, slots=True)
class OciSettings:
    """``state_dir`` and ``run_dir`` are the runtime's own. ``instance`` tells several Outgates of one host apart.

    ``authority`` is what programs in the stock image trust besides the host's certificate authorities.
    """

    engine: Engine
    state_dir: Path
    run_dir: Path
    instance: str
    authority: TrustedAuthority | None = None


class OciRuntime(OciTerminals):
    """See :class:`outgate.runtime.base.Runtime` for what each method promises."""

    def __init__(self, settings: OciSettings) -> None:
        self._layout = cgroups.observe_layout()
        self._parent = PurePosixPath("/") / f"outgate-{settings.instance}"
        self._disks = SandboxDisks(settings.state_dir)
        self._images = ImageStore(settings.state_dir)
        self._authority = settings.authority
        self._sealer = Sealer(self._images, self._disks, self._layout)
        self._seal_turns = asyncio.Semaphore(_SEALS_MAX)
        self._staging = Staging(settings.run_dir / "sandbox")
        self._maps = UserMaps()
        self._ranges: dict[str, IdRange] = {}
        facts = observe_host(self._layout)
        self._engine = settings.engine
        self._booter = Booter(settings.engine, facts, self._layout, self._staging, self._maps)
        self._locks = tuple(asyncio.Lock() for _ in range(_LOCKS))
        self._starts = asyncio.Semaphore(_STARTS_MAX)
        self._workers = ThreadPoolExecutor(_WORKERS + _SEALS_MAX, thread_name_prefix="runtime")
        super().__init__(
            CommandHost(
                settings.engine, facts, self._layout, self._parent, self._disks, settings.run_dir, self._workers
            )
        )

    async def prepare(self) -> None:
        """Make the directories and the stock image, clear what an interrupted removal left, take up what there is.

        Call once, before anything else. Raises :class:`SandboxError` and OSError.
        """
        await self._in_worker(self._prepare)
        await self._recover_shells()

    def _prepare(self) -> None:
        for devbox_id, disk in self._disks:
            # A daemon may have been killed while it sealed this disk.
            thaw(self._layout, self._parent / devbox_id)
            self._sealer.repair(disk)
        self._disks.ensure()
        self._staging.ensure()
        self._engine.root.mkdir(parents=True, exist_ok=True)
        self._images.ensure()
        self._images.refresh_stock(self._authority)
        for devbox_id, disk in self._disks:
            record = disk.read_record()
            if record is not None:
                self._ranges[devbox_id] = record.ids

    async def start(self, spec: SandboxSpec) -> None:
        """See :meth:`outgate.runtime.base.Runtime.start`."""
        check_sandbox(spec)
        place = self._place(spec.devbox_id)
        await self._uninterrupted(self._start_alone(place, spec))

    async def _start_alone(self, place: SandboxPlace, spec: SandboxSpec) -> None:
        async with self._alone(spec.devbox_id), self._starts:
            is_new = spec.devbox_id not in self._ranges
            if is_new:
                # Chosen and entered here, without an await in between: no two sandboxes get one range.
                self._ranges[spec.devbox_id] = choose_range({taken.index for taken in self._ranges.values()})
            try:
                await self._in_worker(lambda: self._start(place, spec, self._ranges[spec.devbox_id]))
            except BaseException:
                if is_new:
                    del self._ranges[spec.devbox_id]
                raise

    def _start(self, place: SandboxPlace, spec: SandboxSpec, ids: IdRange) -> None:
        observed = self._observe(place)
        if observed is not None:
            if observed.phase is SandboxPhase.RUNNING and observed.generation == spec.generation:
                return
            # An earlier boot: its processes go, its disk is what the new one runs on.
            self._booter.halt(place)
        try:
            record = self._record_boot(place, spec) if observed is not None else self._make_disk(spec, ids)
            directories = tuple(map(PurePosixPath, record.host_directories))
            self._booter.boot(place, record, plan_overlays(record.layers, directories))
        except BaseException:
            if observed is None:
                self._disks.remove(spec.devbox_id)
            raise

    def _make_disk(self, spec: SandboxSpec, ids: IdRange) -> SandboxRecord:
        with self._images.resolve(spec.image) as image:
            known = replace(spec, environment={**image.environment, **spec.environment})
            directories = tuple(map(str, image.host_directories))
            bases = find_bases(self._images) if spec.is_builder else ()
            record = SandboxRecord(known, ids, image.layers, directories, image.environment, bases=bases)
            self._disks.create(spec.devbox_id, record)
        prepare_bases(bases)
        return record

    def _record_boot(self, place: SandboxPlace, spec: SandboxSpec) -> SandboxRecord:
        """The disk's own layers stay what they are, whatever became of the image since."""
        record = place.disk.read_record()
        if record is None:
            raise SandboxNotFoundError(f"Devbox {place.devbox_id} is being removed.")
        known = replace(spec, environment={**record.image_environment, **spec.environment})
        booted = replace(record, spec=known)
        place.disk.write_record(booted)
        return booted

    async def halt(self, devbox_id: str) -> None:
        """See :meth:`outgate.runtime.base.Runtime.halt`."""
        await self._uninterrupted(self._halt_alone(self._place(devbox_id)))

    async def _halt_alone(self, place: SandboxPlace) -> None:
        async with self._alone(place.devbox_id):
            await self._in_worker(lambda: self._booter.halt(place))

    async def seal(self, devbox_id: str, image_name: str) -> int:
        """See :meth:`outgate.runtime.base.Runtime.seal`."""
        check_name(image_name)
        sizes: list[int] = []
        await self._uninterrupted(self._seal_alone(self._place(devbox_id), image_name, sizes))
        return sizes[0]

    async def _seal_alone(self, place: SandboxPlace, image_name: str, sizes: list[int]) -> None:
        async with self._seal_turns:
            async with self._alone(place.devbox_id):
                # The lock is shared with others, and this may take minutes: everybody asks for seals as well.
                stop = self._seals.begin(place.devbox_id)
            try:
                starting = [start for (box, _), start in self._exec_starts.items() if box == place.devbox_id]
                if starting:
                    # A process that is frozen while it enters the sandbox would keep its starter waiting.
                    await asyncio.wait(starting)
                sizes.append(await self._in_worker(lambda: self._seal(place, image_name, stop)))
            finally:
                self._seals.end(place.devbox_id)

    def _seal(self, place: SandboxPlace, image_name: str, stop: threading.Event) -> int:
        made = self._images.find_sealed_size(image_name)
        if made is not None:
            return made
        observed, record = self._observe(place), place.disk.read_record()
        if observed is None or record is None:
            raise SandboxNotFoundError(f"Devbox {place.devbox_id} is not on this host.")
        try:
            if observed.phase is SandboxPhase.RUNNING:
                return self._sealer.seal_running(place, record, image_name, stop)
            self._booter.halt(place)
            return self._sealer.seal_halted(place, record, image_name, stop)
        except OSError as error:
            raise SandboxError(f"The disk could not be kept: {error}.") from error

    async def seal_build(self, devbox_id: str, image_name: str) -> int:
        """See :meth:`outgate.runtime.base.Runtime.seal_build`."""
        sizes: list[int] = []
        await self._uninterrupted(self._seal_build_alone(self._place(devbox_id), image_name, sizes))
        return sizes[0]

    async def _seal_build_alone(self, place: SandboxPlace, image_name: str, sizes: list[int]) -> None:
        async with self._alone(place.devbox_id):
            sizes.append(await self._in_worker(lambda: self._seal_build(place, image_name)))

    def _seal_build(self, place: SandboxPlace, image_name: str) -> int:
        record = place.disk.read_record()
        if record is None or not record.spec.is_builder:
            raise SandboxNotFoundError(f"{place.devbox_id} builds nothing on this host.")
        self._booter.halt(place)
        return take_built_image(self._images, place.disk.overlay, record.bases, image_name)

    async def find_image_size(self, image_name: str) -> int | None:
        """See :meth:`outgate.runtime.base.Runtime.find_image_size`."""
        return await self._in_worker(lambda: self._images.find_sealed_size(image_name))

    async def remove_image(self, image_name: str) -> None:
        """See :meth:`outgate.runtime.base.Runtime.remove_image`."""
        await self._uninterrupted(self._in_worker(lambda: self._remove_image(image_name)))

    def _remove_image(self, image_name: str) -> None:
        with suppress(ImageNotFoundError):
            self._images.remove(image_name)

    async def stop(self, devbox_id: str) -> None:
        """See :meth:`outgate.runtime.base.Runtime.stop`."""
        self._seals.break_off(devbox_id)
        await self._uninterrupted(self._stop_alone(self._place(devbox_id)))

    async def _stop_alone(self, place: SandboxPlace) -> None:
        async with self._alone(place.devbox_id):
            await self._in_worker(lambda: self._stop(place))
            self._ranges.pop(place.devbox_id, None)

    def _stop(self, place: SandboxPlace) -> None:
        self._booter.halt(place)
        record = place.disk.read_record()
        self._disks.remove(place.devbox_id)
        self._budget.forget(place.devbox_id)
        if record is not None and not self._images.is_known(record.layers):
            # Their image was removed, and this may have been the last that used them.
            self._images.collect()

    async def observe(self) -> Mapping[str, ObservedSandbox]:
        """See :meth:`outgate.runtime.base.Runtime.observe`."""
        return await self._in_worker(self._observe_all)

    def _observe_all(self) -> Mapping[str, ObservedSandbox]:
        places = [SandboxPlace(name, disk, self._parent / name) for name, disk in self._disks]
        for place in places:
            self._budget.enforce(place)
        observed = (self._observe(place) for place in places)
        return {sandbox.devbox_id: sandbox for sandbox in observed if sandbox is not None}

    def _observe(self, place: SandboxPlace) -> ObservedSandbox | None:
        record = place.disk.read_record()
        if record is None:
            return None
        pid = place.disk.read_pid()
        # The control group is the proof: a number alone may be another process's by now.
        running = pid is not None and cgroups.holds_process(place.group, pid)
        return ObservedSandbox(
            devbox_id=place.devbox_id,
            generation=record.spec.generation,
            phase=SandboxPhase.RUNNING if running else SandboxPhase.EXITED,
            pid=pid if running else None,
            oom_kills=cgroups.count_oom_kills(self._layout, place.group),
            is_disk_full=place.disk.is_full(),
        )

    def _running_record(self, place: SandboxPlace) -> SandboxRecord:
        observed = self._observe(place)
        record = place.disk.read_record()
        if observed is None or record is None or observed.phase is not SandboxPhase.RUNNING:
            raise SandboxNotFoundError(f"Devbox {place.devbox_id} is not running on this host.")
        return record

    async def teardown(self) -> None:
        """See :meth:`outgate.runtime.base.Runtime.teardown`."""
        names = await self._in_worker(lambda: [name for name, _ in self._disks])
        outcomes = await asyncio.gather(*(self.stop(name) for name in names), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            raise failures[0]
        await self._in_worker(self._remove_common)

    def _remove_common(self) -> None:
        if stuck := cgroups.remove_groups(self._layout.directories(self._parent)):
            raise SandboxError(f"Control groups are still in use: {', '.join(map(str, stuck))}.")
        self._staging.remove()
        remove_tree(self._engine.root)

    async def aclose(self) -> None:
        """See :meth:`outgate.runtime.base.Runtime.aclose`."""
        # Nobody could be told how they end.
        self._seals.break_off_all()
        await self._close_commands()
        self._workers.shutdown(wait=True)
        self._maps.close()

    @asynccontextmanager
    async def _alone(self, devbox_id: str) -> AsyncIterator[None]:
        """Nobody else starts, ends or seals the sandbox meanwhile."""
        while True:
            await self._seals.wait_until_over(devbox_id)
            async with self._locks[hash(devbox_id) % _LOCKS]:
                if not self._seals.is_under_way(devbox_id):
                    yield
                    return
