import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from outgate.runtime.cgroups import holds_process
from outgate.runtime.proc import find_process
from outgate.runtime.proc_stat import parse_stat

_CALL_ITSELF = """
import ctypes, sys
name = bytes.fromhex(sys.argv[1])
ctypes.CDLL(None).prctl(15, name, 0, 0, 0)  # PR_SET_NAME
print("named", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("name", [b"sh", b") Z 1 (", b"\xff\xfe", b"a b\tc"])
def test_a_process_may_call_itself_what_it_likes(name: bytes) -> None:
    command = [sys.executable, "-c", _CALL_ITSELF, name.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"named\n"
        found = find_process(process.pid)
        assert found is not None
        assert found.start_ticks > 0
        group = next(line.split(":", 2)[2] for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines())
        assert holds_process(PurePosixPath(group), process.pid)
        process.communicate()


def test_the_fields_begin_behind_the_last_parenthesis() -> None:
    assert parse_stat(b"12 (a) Z 9 (\xff) R 1 2\n") == ["R", "1", "2"]
