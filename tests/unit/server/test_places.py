"""Directories, keys and locks on disk."""

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.errors import SettingError
from outgate.privileges import Identity
from outgate.server.places import (
    InstanceBusyError,
    ensure_api_directory,
    ensure_directories,
    ensure_host_token,
    locked,
    make_first_key,
    read_api_key,
)
from outgate.settings import Settings, load_settings

ME = Identity(os.getuid(), os.getgid())


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.delenv("OUTGATE_API_KEY", raising=False)
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setattr("outgate.settings._RUN_ROOT", Path(directory) / "run")
        yield load_settings(state_dir=Path(directory) / "state")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_directories_are_made_with_their_owners_and_modes(settings: Settings) -> None:
    for _ in range(2):
        ensure_directories(settings)
        ensure_api_directory(settings, ME)
    assert mode(settings.state_dir) == mode(settings.run_dir) == 0o711
    for path in (settings.api_dir, settings.agent_dir, settings.runtime_dir):
        assert mode(path) == 0o700


def test_a_directory_that_was_there_keeps_its_mode(settings: Settings) -> None:
    settings.state_dir.mkdir(mode=0o755)
    settings.state_dir.chmod(0o755)
    ensure_directories(settings)
    assert mode(settings.state_dir) == 0o755


@pytest.mark.skipif(os.getuid() != 0, reason="only root can hand the directory to somebody else")
def test_a_place_that_the_api_cannot_reach_is_refused_by_name(settings: Settings) -> None:
    settings.state_dir.mkdir(mode=0o700)
    settings.state_dir.chmod(0o700)
    ensure_directories(settings)
    with pytest.raises(SettingError, match=f"cannot pass .*; allow it \\(chmod o\\+x .*{settings.state_dir.name}"):
        ensure_api_directory(settings, Identity(12345, 12345))


def test_the_token_is_made_once_for_root_alone(settings: Settings) -> None:
    settings.state_dir.mkdir()
    token = ensure_host_token(settings)
    assert ensure_host_token(settings) == token
    assert len(token) >= 43
    assert mode(settings.host_token_file) == 0o600


def test_the_first_key_is_made_at_the_first_start_only(settings: Settings) -> None:
    key = make_first_key(settings)
    assert key is not None
    assert read_api_key(settings) == key
    assert mode(settings.api_key_file) == 0o600
    assert make_first_key(settings) is None
    ensure_directories(settings)
    ensure_api_directory(settings, ME)
    settings.api_key_file.unlink()
    assert make_first_key(settings) is None, "whoever removes the file does not get another key by that"
    assert read_api_key(settings) is None


def test_an_agent_or_an_image_that_comes_first_does_not_cost_the_key(settings: Settings) -> None:
    ensure_directories(settings)
    ensure_host_token(settings)
    assert make_first_key(settings) is not None


def test_a_chosen_key_is_written_down_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTGATE_API_KEY", "a-key-of-my-own-choice")
    assert make_first_key(load_settings(state_dir=settings.state_dir)) == "a-key-of-my-own-choice"
    assert read_api_key(settings) == "a-key-of-my-own-choice"


def test_nothing_half_written_is_left(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("outgate.server.places.os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        make_first_key(settings)
    assert list(settings.state_dir.iterdir()) == []


def test_a_lock_keeps_others_out_until_its_holder_ends(settings: Settings) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nimport outgate.settings as s\n"
        f"s._RUN_ROOT = Path({str(settings.run_dir.parent)!r})\n"
        "from outgate.server.places import locked\n"
        f"with locked(s.load_settings(state_dir={str(settings.state_dir)!r}), 'serve', 'A server'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InstanceBusyError, match="A server runs already on"), locked(settings, "serve", "A server"):
            pass
        with locked(settings, "agent", "An agent"):
            pass
        holder.kill()
    with locked(settings, "serve", "A server"):
        pass


def test_a_lock_file_that_was_removed_meanwhile_is_nobodys_lock(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settings.run_dir / "serve.lock"
    real = fcntl.flock
    calls: list[int] = []

    def remove_first(descriptor: int, how: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            path.unlink()
        real(descriptor, how)

    monkeypatch.setattr("outgate.server.places.fcntl.flock", remove_first)
    with locked(settings, "serve", "A server"):
        assert len(calls) == 2
        with pytest.raises(InstanceBusyError), locked(settings, "serve", "A server"):
            pass
