"""What may reach a file name, a command line or a sandbox."""

from dataclasses import replace
from pathlib import Path

import pytest

from outgate.errors import InvalidValueError
from outgate.runtime.base import ExecSpec, SandboxSpec, SandboxUser
from outgate.runtime.checks import check_execution, check_id, check_sandbox

SPEC = SandboxSpec("dbx_1", Path("/run/netns/x"), ("10.0.0.1", "fd00::1"), SandboxUser("user", 1000))


@pytest.mark.parametrize("text", ["dbx_30Vq", "a", "launch-1.2", "9" * 100])
def test_ids(text: str) -> None:
    assert check_id(text) == text


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "-rf", ".hidden", "a b", "a\n", "é", "x" * 101, "a\0"])
def test_no_ids(text: str) -> None:
    with pytest.raises(InvalidValueError, match="is not an id"):
        check_id(text)


def test_an_ordinary_sandbox_passes() -> None:
    check_sandbox(SPEC)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("username", replace(SPEC, user=SandboxUser("../proc/self/fd/7", 1000))),
        ("username", replace(SPEC, user=SandboxUser("a:b", 1000))),
        ("username", replace(SPEC, user=SandboxUser("", 1000))),
        ("uid", replace(SPEC, user=SandboxUser("user", 65536))),
        ("uid", replace(SPEC, user=SandboxUser("user", -1))),
        ("hostname", replace(SPEC, hostname="a\nb")),
        ("nameservers", replace(SPEC, nameservers=("10.0.0.1\noptions ndots:9",))),
        ("environment_variables", replace(SPEC, environment={"A=B": "c"})),
        ("environment_variables", replace(SPEC, environment={"": "c"})),
        ("environment_variables", replace(SPEC, environment={"A": "c\0"})),
        ("cpu_cores", replace(SPEC, cpu_cores=0.0)),
        ("memory_mib", replace(SPEC, memory_mib=0)),
        ("pids_max", replace(SPEC, pids_max=0)),
    ],
)
def test_sandboxes_that_are_refused_name_the_field(field: str, bad: SandboxSpec) -> None:
    with pytest.raises(InvalidValueError) as refusal:
        check_sandbox(bad)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("command", ExecSpec("e1", "echo \0")),
        ("command", ExecSpec("e1", "x" * 131072)),
        ("username", ExecSpec("e1", "id", user=SandboxUser("a b", 1))),
    ],
)
def test_executions_that_are_refused_name_the_field(field: str, bad: ExecSpec) -> None:
    with pytest.raises(InvalidValueError) as refusal:
        check_execution(bad)
    assert refusal.value.field == field


def test_the_longest_command_passes() -> None:
    check_execution(ExecSpec("e1", "x" * 131071))
