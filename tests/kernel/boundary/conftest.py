import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from outgate.runtime.base import ROOT
from support.sandbox_lab import Lab, open_lab

PROGRAMS = Path(__file__).parent / "in_box"
Probe = Callable[..., Any]


def put_program(lab: Lab, name: str, *, box: str = "dbx_1") -> str:
    """Put a program of ``in_box`` into a sandbox; where it is there."""

    async def data() -> AsyncIterator[bytes]:
        yield (PROGRAMS / name).read_bytes()

    target = f"/tmp/{name}"
    lab.run(lab.runtime.write_file(box, target, data(), ROOT))
    return target


def run_program(lab: Lab, name: str, *arguments: object, root: bool, box: str = "dbx_1") -> Any:
    """What a program of ``in_box`` printed, as JSON; ``arguments`` reach it as JSON, too."""
    words = " ".join("'" + json.dumps(argument).replace("'", r"'\''") + "'" for argument in arguments)
    done = lab.execute(f"python3 {put_program(lab, name, box=box)} {words}", root=root, box=box)
    assert done.exit_status == 0, done
    return json.loads(done.stdout)


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A runtime with the sandbox ``dbx_1``, for tests that leave it as it was."""
    with open_lab(tmp_path_factory.mktemp("boundary")) as made:
        made.start()
        yield made
