"""Sealing: a sandbox's disk as it is now becomes an image. Blocking.

The upper of a sandbox that does not run is renamed into the layer store and replaced by an empty one, whatever
its size. That of a running one is copied while the sandbox is frozen. Both carry the ids that the sandbox sees and
the kernel's overlay marks, which is what a layer is (:mod:`outgate.runtime.layers`); directories of the host that an
image presents take part as directories of the one upper (:mod:`outgate.runtime.rootfs`).

A crash at any point leaves the sandbox with the content it had, and either no image or the whole one:

* the record says where the upper is going before it goes (``sealing``), which keeps that layer from being collected
  and lets :meth:`Sealer.repair` finish the step;
* layers and catalogue change in one step, under the store's lock (:meth:`ImageStore.publish`);
* everything unfinished lies where the next start clears it away.
"""

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from outgate import clock
from outgate.runtime.base import SandboxError
from outgate.runtime.cgroups import CgroupLayout
from outgate.runtime.disk import SandboxDisk, SandboxDisks, SandboxRecord
from outgate.runtime.engine import read_last_words
from outgate.runtime.execution_files import SandboxPlace
from outgate.runtime.freezer import frozen
from outgate.runtime.images import ImageDocument, ImageStore, SealedLayer
from outgate.runtime.layers import is_sealed, make_sealed_name
from outgate.runtime.spawn import ENVIRONMENT
from outgate.runtime.syscalls import sync_filesystem

SEALED_LAYERS_MAX: Final = 64
"""Sealed layers that an image may have on top of the imported ones (of which it has at most
:data:`outgate.runtime.rootfs.LAYERS_MAX`); more are merged into one. The kernel takes 500, but each one costs every
lookup of a name that is not there."""
_SEAL_S_MAX: Final = 540.0
"""Clients wait 600 s for a snapshot. A sandbox that cannot be copied in this time goes on without one."""
_STEP_S: Final = 0.05
_ROOM_BYTES_MIN: Final = 1 << 30
"""What a copy leaves free on the host's disk for everybody else: sandboxes and the store write there too."""
_UNTIL_PARENT_DIES: Final = ("setpriv", "--pdeathsig", "KILL", "--")
"""Nobody waits for a command whose daemon was killed, and what it writes is being cleared away."""


_Layers = tuple[tuple[str, Path], ...]
"""Names and directories of layers, topmost first."""


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where one seal works: a directory of its own, the event that breaks it off, and when it has to be over."""

    directory: Path
    stop: threading.Event
    deadline_s: float = field(default_factory=lambda: clock.monotonic_s() + _SEAL_S_MAX)

    def run(self, *arguments: str | Path) -> str:
        """Run a command to its end; the last words of its output. Raises :class:`SandboxError`, also when stopped."""
        output, complaints = self.directory / "output", self.directory / "complaints"
        with (
            output.open("wb") as out,
            complaints.open("wb") as err,
            subprocess.Popen(
                (*_UNTIL_PARENT_DIES, *arguments), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=ENVIRONMENT
            ) as command,
        ):
            try:
                while command.poll() is None:
                    if self.stop.wait(_STEP_S):
                        raise SandboxError("The devbox, or its host's agent, ended while the disk was being copied.")
                    if clock.monotonic_s() > self.deadline_s:
                        raise SandboxError(f"The disk could not be copied within {_SEAL_S_MAX:.0f} s.")
            finally:
                command.kill()
        if command.returncode != 0:
            raise SandboxError(f"The disk could not be copied: {read_last_words(complaints)}")
        return read_last_words(output)

    def copy(self, upper: Path) -> Path:
        """A copy of an upper: ids, links, holes and all extended attributes kept, blocks shared where that can be."""
        room_bytes = shutil.disk_usage(self.directory).free - _ROOM_BYTES_MIN
        size_bytes = self.measure(upper)
        if size_bytes > room_bytes:
            raise SandboxError(f"The host's disk has not enough room for another copy of {size_bytes >> 20} MiB.")
        copied = self.directory / "layer"
        self.run("cp", "--archive", "--one-file-system", "--reflink=auto", "--sparse=auto", "--", upper, copied)
        return copied

    def merge(self, sealed: _Layers, base: Sequence[Path], host_directories: Sequence[str]) -> _Layers:
        """One layer that says the same as ``sealed`` above ``base``."""
        merged = self.directory / "merged"
        merge: tuple[str | Path, ...] = (sys.executable, "-I", "-m", "outgate.runtime.merging", merged)
        directories = (directory for _, directory in sealed)
        self.run(*merge, "--layers", *directories, "--below", *base, "--host", *host_directories)
        return ((make_sealed_name(), merged),)

    def measure(self, layer: Path) -> int:
        """How many bytes a layer takes up on the disk."""
        return int(self.run("du", "--summarize", "--block-size=1", "--one-file-system", "--", layer).split()[0])


@dataclass(frozen=True, slots=True)
class Sealer:
    """Makes images out of the disks of this host's sandboxes."""

    images: ImageStore
    disks: SandboxDisks
    layout: CgroupLayout

    def seal_running(self, place: SandboxPlace, record: SandboxRecord, name: str, stop: threading.Event) -> int:
        """Image ``name`` out of a running sandbox; how many bytes its sealed layers hold.

        Raises :class:`SandboxError`, also when ``stop`` is set meanwhile.
        """
        with self.disks.scratch() as scratch:
            bench = _Bench(scratch, stop)
            with frozen(self.layout, place.group):
                copied = bench.copy(place.disk.upper)
            sealed = ((make_sealed_name(), copied), *self._sealed_layers(record))
            return self._publish(name, record, sealed, bench)

    def seal_halted(self, place: SandboxPlace, record: SandboxRecord, name: str, stop: threading.Event) -> int:
        """The same for a sandbox none of whose processes is left; it goes on with an empty upper above the new layer.

        An upper that holds nothing makes no layer.
        """
        if any(place.disk.upper.iterdir()):
            record = self._push_upper(place.disk, record)
        with self.disks.scratch() as scratch:
            return self._publish(name, record, self._sealed_layers(record), _Bench(scratch, stop), place.disk)

    def repair(self, disk: SandboxDisk) -> None:
        """Finish the step that a crash in :meth:`seal_halted` left undone. Does nothing when there is none."""
        record = disk.read_record()
        if record is None or not record.sealing:
            return
        if record.sealing[0].is_dir():
            record = replace(record, layers=(*record.sealing, *record.layers))
        _ensure_upper(disk, record.layers)
        disk.write_record(replace(record, sealing=()))

    def _push_upper(self, disk: SandboxDisk, record: SandboxRecord) -> SandboxRecord:
        """Rename the upper into a layer of the sandbox's own; the record as it is then."""
        layer = self.images.layers.path(make_sealed_name())
        pushed = replace(record, layers=(layer, *record.layers))
        with self.images.layers.locked(exclusive=True):
            disk.write_record(replace(record, sealing=(layer,)))
            disk.upper.rename(layer)
            _ensure_upper(disk, pushed.layers)
            disk.write_record(pushed)
        return pushed

    def _sealed_layers(self, record: SandboxRecord) -> _Layers:
        named = ((self.images.layers.name_of(layer), layer) for layer in record.layers)
        return tuple((name, layer) for name, layer in named if is_sealed(name))

    def _publish(
        self, name: str, record: SandboxRecord, sealed: _Layers, bench: _Bench, disk: SandboxDisk | None = None
    ) -> int:
        """Register ``sealed`` above the record's other layers; a halted sandbox's ``disk`` moves to merged ones."""
        store, known = self.images.layers, self.images.read_sizes()
        base = tuple(layer for layer in record.layers if not is_sealed(store.name_of(layer)))
        is_merged = len(sealed) > SEALED_LAYERS_MAX
        if is_merged:
            sealed = bench.merge(sealed, base, record.host_directories)
        contents = {
            layer: SealedLayer(directory, known[layer] if layer in known else bench.measure(directory))
            for layer, directory in sealed
        }
        # What is called complete has to survive a power cut, as the api's own store does.
        sync_filesystem(bench.directory)
        image = ImageDocument(
            digest=make_sealed_name(),
            layers=(*(store.name_of(layer) for layer in reversed(base)), *reversed(contents)),
            environment=dict(record.image_environment),
            host_directories=record.host_directories,
        )

        def adopt() -> None:
            if disk is not None and is_merged:
                disk.write_record(replace(record, layers=(*map(store.path, contents), *base)))

        self.images.publish(name, image, contents, adopt)
        return sum(content.size_bytes for content in contents.values())


def _ensure_upper(disk: SandboxDisk, layers: Sequence[Path]) -> None:
    """An upper, whose root looks as that of the topmost layer did."""
    disk.upper.mkdir(exist_ok=True)
    status = layers[0].stat()
    os.chown(disk.upper, status.st_uid, status.st_gid)
    disk.upper.chmod(stat.S_IMODE(status.st_mode))
