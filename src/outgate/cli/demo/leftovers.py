"""State directories that know their maker, so that the next run can clear up after one that was killed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outgate.cli.demo.daemon import Daemon
from outgate.cli.demo.internet import FOLDER_PREFIX
from outgate.cli.demo.namespaces import remove_stale_namespaces

_PREFIX = "outgate-stage-"
STATE = "state"


@contextmanager
def state_directory() -> Iterator[Path]:
    """An empty state directory, which is removed afterwards. Sandboxes run as other users, who may pass through."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid():x}-"))
    folder.chmod(0o711)
    state_dir = folder / STATE
    state_dir.mkdir(mode=0o711)
    try:
        yield state_dir
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_stale() -> None:
    """Tear down what runs that were killed left behind: devboxes, namespaces, directories.

    Raises DaemonError when a teardown fails.
    """
    for folder in _stale_folders(_PREFIX):
        Daemon(folder / STATE).teardown()
        shutil.rmtree(folder, ignore_errors=True)
    for folder in _stale_folders(FOLDER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    remove_stale_namespaces()


def _stale_folders(prefix: str) -> list[Path]:
    found = Path(tempfile.gettempdir()).glob(f"{prefix}*")
    return [folder for folder in found if not Path(f"/proc/{_maker_of(folder, prefix)}").exists()]


def _maker_of(folder: Path, prefix: str) -> int:
    return int(folder.name.removeprefix(prefix).split("-")[0], 16)
