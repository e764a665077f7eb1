"""The command lines of each OCI runtime."""

from pathlib import Path

import pytest

from outgate.errors import HostNotCapableError
from outgate.runtime.base import SandboxError
from outgate.runtime.engine import Engine, EngineKind, find_engine, read_last_words, run_command


@pytest.mark.parametrize(
    ("kind", "descriptor"),
    [
        (EngineKind.RUNC, "--preserve-fds=1"),
        (EngineKind.CRUN, "--preserve-fds=1"),
        (EngineKind.RUNSC, "--pass-fd=3:3"),
    ],
)
def test_command_lines(kind: EngineKind, descriptor: str) -> None:
    engine = Engine(kind, Path("/usr/bin/engine"), Path("/run/o"))
    assert engine.run_arguments("dbx_1", Path("/b"), Path("/p")) == (
        "/usr/bin/engine",
        "--root=/run/o",
        "run",
        "--detach",
        "--bundle=/b",
        "--pid-file=/p",
        descriptor,
        "dbx_1",
    )
    assert engine.exec_arguments("dbx_1", Path("/j"), Path("/p"), Path("/l")) == (
        "/usr/bin/engine",
        "--root=/run/o",
        "--log=/l",
        "exec",
        "--detach",
        "--process=/j",
        "--pid-file=/p",
        descriptor,
        "dbx_1",
    )


@pytest.mark.parametrize("kind", [EngineKind.RUNC, EngineKind.CRUN])
def test_forgetting_removes_one_sandboxs_notes(tmp_path: Path, kind: EngineKind) -> None:
    for name in ("dbx_1", "dbx_2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").touch()
    engine = Engine(kind, Path("/bin/false"), tmp_path)
    for _ in range(2):
        engine.forget("dbx_1")
    assert [path.name for path in tmp_path.iterdir()] == ["dbx_2"]


def test_a_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostNotCapableError, match="install the package crun"):
        find_engine(EngineKind.CRUN, tmp_path)


def test_a_command_that_fails_is_quoted() -> None:
    with pytest.raises(SandboxError, match=r"/bin/ls failed: .*No such file"):
        run_command(("/bin/ls", "/absent/of/course"))


def test_last_words_are_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert read_last_words(log) == "it said nothing"
    log.write_bytes(b"x" * 100_000 + b"\n the \xff end\n")
    words = read_last_words(log)
    assert words.endswith("x the \ufffd end")
    assert len(words) < 4200
