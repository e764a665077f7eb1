"""Nothing that is secret is in a log, in the answer to a refused request, or in a file of the store."""

import base64
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from outgate.settings import LogFormat

PROGRAM = Path(__file__).parents[2] / "support" / "secret_walk.py"
WALK_S_MAX = 170


@dataclass(frozen=True)
class Walked:
    """What a walk left behind."""

    log: str
    hidden: dict[str, str]
    plain: dict[str, str]
    refusals: list[str]
    files: dict[str, bytes]


@pytest.fixture(scope="module", params=list(LogFormat))
def walked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Walked:
    """One walk in each form that logs have."""
    directory = tmp_path_factory.mktemp("walk")
    paths = os.pathsep.join([str(PROGRAM.parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(directory), request.param],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=WALK_S_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads((directory / "walk.json").read_text())
    world = directory / "world"
    files = {str(path.relative_to(world)): path.read_bytes() for path in world.rglob("*") if path.is_file()}
    return Walked(done.stderr + done.stdout, found["hidden"], found["plain"], found["refusals"], files)


def spellings(secret: str) -> list[bytes]:
    """As it is, and as headers, URLs and digests of bytes might spell it."""
    encoded = base64.b64encode(secret.encode()).decode().rstrip("=")
    return [text.encode() for text in (secret, secret.encode().hex(), encoded)]


def found_in(text: bytes, secrets: dict[str, str]) -> list[str]:
    return [what for what, secret in secrets.items() if any(spelling in text for spelling in spellings(secret))]


@pytest.mark.timeout(180)
def test_no_line_of_the_log_holds_a_secret(walked: Walked) -> None:
    assert found_in(walked.log.encode(), walked.hidden | walked.plain) == []


@pytest.mark.timeout(180)
def test_the_log_was_there_to_be_looked_at(walked: Walked) -> None:
    """A log that says nothing holds no secret either."""
    for event in ("defect", "too many wrong keys", "login"):
        assert event in walked.log
    assert "RuntimeError: a defect beside" in walked.log


@pytest.mark.timeout(180)
def test_no_refusal_repeats_a_secret(walked: Walked) -> None:
    assert len(walked.refusals) > 60
    assert found_in("\n".join(walked.refusals).encode(), walked.hidden | walked.plain) == []


@pytest.mark.timeout(180)
def test_no_file_of_the_store_holds_what_is_hashed_or_sealed(walked: Walked) -> None:
    held = {name: found_in(data, walked.hidden) for name, data in walked.files.items()}
    assert {name: what for name, what in held.items() if what} == {}


@pytest.mark.timeout(180)
def test_the_store_was_there_to_be_looked_at(walked: Walked) -> None:
    """What is documented to be stored as it is, is found."""
    stored = b"".join(data for name, data in walked.files.items() if name.startswith("outgate.db"))
    assert sorted(found_in(stored, walked.plain)) == ["environment", "tunnel token", "webhook path"]
