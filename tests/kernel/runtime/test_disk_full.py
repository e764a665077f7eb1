"""A disk without room is seen as such, and only then."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from outgate.agent.outcome import command_failure
from support.sandbox_lab import Lab, open_lab

pytestmark = pytest.mark.kernel


@pytest.fixture
def cramped(tmp_path: Path) -> Iterator[Lab]:
    """A runtime whose state is on a file system of 48 MiB."""
    state = tmp_path / "state"
    state.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "outgate-test", state), check=True)
    try:
        with open_lab(state) as made:
            yield made
    finally:
        subprocess.run(("umount", state), check=True)


def test_a_full_disk_is_seen(cramped: Lab) -> None:
    cramped.start()
    assert not cramped.run(cramped.runtime.observe())["dbx_1"].is_disk_full
    filled = cramped.execute("cat /dev/zero >~/all")
    assert filled.exit_status != 0
    observed = cramped.run(cramped.runtime.observe())["dbx_1"]
    assert observed.is_disk_full
    # Outputs and statuses lie on the same file system, so that a command may end without leaving one.
    failure = command_failure("It", filled.exit_status, filled.stderr, observed, 1)
    assert failure.failure_reason == "out_of_disk"
    cramped.run(cramped.runtime.halt("dbx_1"))
    assert cramped.run(cramped.runtime.observe())["dbx_1"].is_disk_full, "a suspended one as well"
