"""A PostgreSQL server of the test's own: in a temporary directory, on a unix socket, as an unprivileged user."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


def find_postgres() -> Path | None:
    """The newest installed server's binaries."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parent if found else None


@contextmanager
def run_postgres(binaries: Path) -> Iterator[str]:
    """A running server; its URL with a place for the database's name."""
    directory = Path(tempfile.mkdtemp(prefix="outgate-pg-"))
    data = str(directory / "data")
    try:
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
        _run(directory, binaries / "initdb", "-D", data, "-U", "outgate", "-A", "trust", "-N", "--locale=C.UTF-8")
        options = f"-k {directory} -c listen_addresses= -c fsync=off -c max_connections=50"
        log = str(directory / "log")
        _run(directory, binaries / "pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
        try:
            yield f"postgresql://outgate@/%s?host={directory}"
        finally:
            _run(directory, binaries / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory)


def create_database(binaries: Path, url: str, name: str) -> str:
    """A fresh, empty database; its URL."""
    host = url.rsplit("host=", 1)[1]
    _run(Path(host), binaries / "createdb", "-h", host, "-U", "outgate", name)
    return url % name


def _run(directory: Path, program: Path, *arguments: str) -> None:
    # The server refuses to run as root; its tools may as well be somebody else.
    user = NOBODY if os.geteuid() == 0 else None
    groups: list[int] | None = [] if os.geteuid() == 0 else None
    command = [str(program), *arguments]
    # Not by pipes: pg_ctl's server would inherit them and keep them open.
    with (directory / "setup.log").open("ab") as log:
        done = subprocess.run(
            command, check=False, stdout=log, stderr=log, cwd=directory, user=user, group=user, extra_groups=groups
        )
    assert done.returncode == 0, (directory / "setup.log").read_text()
