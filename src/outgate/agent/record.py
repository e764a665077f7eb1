"""What the agent remembers of a devbox across its own death: one small file each, replaced atomically.

The file says how far the devbox came, so that an agent that starts anew neither boots a devbox twice nor
takes one for running that never was. Everything else (links, rules, processes) is observed afresh.
"""

import contextlib
import os
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from outgate.model.desired import ObservedPhase

_SUFFIX: Final = ".json"
_NEW_SUFFIX: Final = ".new"


class Stage(StrEnum):
    """How far a devbox came. Written before the step it names is begun."""

    PLACED = "placed"
    """It has a slot. Nothing was started in this generation."""
    STARTING = "starting"
    """Its sandbox is being started, or its launch commands run. Nobody has used it yet."""
    RUNNING = "running"
    SUSPENDING = "suspending"
    """Its suspend commands run, or its processes and its link are being taken away. Its disk stays."""
    SUSPENDED = "suspended"
    """Nothing of it is left but its disk and this record. It has no slot."""
    ENDING = "ending"
    """Its outcome is decided; it is being taken apart. It still has its slot."""
    ENDED = "ended"
    """Nothing of it is left but this record, which is reported until the api forgets the devbox."""


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a devbox ended: ``phase`` is ``failure`` or ``shutdown``."""

    phase: ObservedPhase
    time_ms: int
    failure_reason: str | None = None
    shutdown_reason: str | None = None
    detail: str = ""


class DevboxRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One devbox of this host. ``attempts`` counts the starts of this generation.

    ``keeps_disk``: it was used, so what is on its disk must outlive every new start.
    """

    devbox_id: str
    account_id: str
    policy_id: str
    generation: int
    stage: Stage
    slot: int | None
    time_ms: int
    """When ``stage`` was reached, Unix milliseconds."""
    attempts: int = 0
    outcome: Outcome | None = None
    keeps_disk: bool = False
    is_build: bool = False


class RecordStore:
    """The records of one host, in memory and as files under ``directory``.

    Used from one thread. A write is one small file and a rename: 0.1 ms; no fsync, because after a power
    cut no sandbox runs that the file could be wrong about.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._records: dict[str, DevboxRecord] = {}
        self.unreadable: tuple[str, ...] = tuple(self._load())

    def _load(self) -> Iterable[str]:
        for path in sorted(self._directory.iterdir()):
            if path.suffix != _SUFFIX:
                path.unlink(missing_ok=True)
                continue
            try:
                record = msgspec.json.decode(path.read_bytes(), type=DevboxRecord)
            except (msgspec.DecodeError, OSError):
                yield path.stem
                continue
            self._records[record.devbox_id] = record

    def get(self, devbox_id: str) -> DevboxRecord | None:
        """The record of a devbox, if there is one."""
        return self._records.get(devbox_id)

    def all(self) -> tuple[DevboxRecord, ...]:
        """Every record."""
        return tuple(self._records.values())

    def put(self, record: DevboxRecord) -> None:
        """Store ``record``: in the file first, then in memory. Raises OSError; nothing has changed then."""
        path = self._path(record.devbox_id)
        new = path.with_suffix(_NEW_SUFFIX)
        try:
            new.write_bytes(msgspec.json.encode(record))
            new.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        self._records[record.devbox_id] = record

    def remove(self, devbox_id: str) -> None:
        """Forget a devbox. Does nothing when there is no such record. Raises OSError."""
        self._path(devbox_id).unlink(missing_ok=True)
        self._records.pop(devbox_id, None)

    def find_free_slot(self, slots_max: int) -> int | None:
        """The lowest slot that no record holds, or None when all of ``slots_max`` are taken."""
        taken = {record.slot for record in self._records.values()}
        return next((slot for slot in range(slots_max) if slot not in taken), None)

    def _path(self, devbox_id: str) -> Path:
        if not devbox_id or os.sep in devbox_id or devbox_id.startswith("."):
            raise OSError(f"{devbox_id!r} cannot be a file name")
        return self._directory / (devbox_id + _SUFFIX)
