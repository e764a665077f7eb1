"""What the processes of a real ``outgate serve`` may do, and whom their sockets serve."""

import json
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from outgate.model.tunnels import INSIDE_LENGTH_BYTES, DialRequest, InsideHello
from outgate.privileges import Capability
from outgate.server.capabilities import AGENT_CAPABILITIES, SUPERVISOR_CAPABILITIES
from outgate.server.identity import find_api_identity, find_front_identity, find_gate_identity
from support.stage import Stage, open_stage, run

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

DOCS = Path(__file__).parents[3] / "docs" / "hardening.md"
STRANGER = 5  # games, on Debian; nobody of ours
WAIT_S = 30.0
HTTP = b"GET /nothing HTTP/1.1\r\nHost: a.tunnel.boundary.test\r\n\r\n"
HELLO = msgspec.json.encode(InsideHello("dbx_none", "acc_none", "a.tunnel.boundary.test", is_tls=False))
REQUESTS = {
    "dial.sock": (socket.SOCK_SEQPACKET, msgspec.json.encode(DialRequest("dbx_none", 80))),
    "terminals.sock": (socket.SOCK_SEQPACKET, b"{}"),
    "inside.sock": (socket.SOCK_STREAM, len(HELLO).to_bytes(INSIDE_LENGTH_BYTES, "big") + HELLO + HTTP),
}
MODULES = {
    "api": b"outgate.server.api_process",
    "agent": b"outgate.server.agent_process",
    "front": b"outgate.server.front_process",
    "gate": b"outgate.dataplane.gate",
}


@dataclass(frozen=True, slots=True)
class Rights:
    """What /proc says of one thread."""

    uids: frozenset[int]
    groups: str
    effective: frozenset[int]
    permitted: frozenset[int]
    bounding: frozenset[int]
    inherited: frozenset[int]
    has_no_new_privileges: bool


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with open_stage(environment={"OUTGATE_TUNNEL_DOMAIN": "tunnel.boundary.test"}) as made:
        yield made


def find_processes(stage: Stage) -> dict[str, int]:
    """The supervisor and its descendants, by name."""
    found, pending = {"supervisor": stage.daemon.pid}, [stage.daemon.pid]
    while pending:
        pid = pending.pop()
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            for name, module in MODULES.items():
                if module in words:
                    found[name] = child
                    pending.append(child)
    return found


def read_rights(pid: int) -> set[Rights]:
    """Those of each of its threads."""
    return {_rights(thread / "status") for thread in Path(f"/proc/{pid}/task").iterdir()}


def _rights(status: Path) -> Rights:
    said = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)

    def numbers(key: str) -> frozenset[int]:
        return frozenset(number for number in range(64) if int(said[key], 16) >> number & 1)

    return Rights(
        frozenset(map(int, said["Uid"].split())),
        said["Groups"].strip(),
        numbers("CapEff"),
        numbers("CapPrm"),
        numbers("CapBnd"),
        numbers("CapInh") | numbers("CapAmb"),
        said["NoNewPrivs"].strip() == "1",
    )


def documented(process: str) -> frozenset[int]:
    """The capabilities that docs/hardening.md gives a reason for."""
    rows = re.findall(r"^\| `CAP_(\w+)` \|([^|]*)\| [^|]{15,} \|$", DOCS.read_text(), re.MULTILINE)
    return frozenset(Capability[name] for name, holders in rows if process in holders.split())


def granted_here() -> frozenset[int]:
    """What this host grants to root at all."""
    return next(iter(read_rights(os.getpid()))).permitted


def test_the_documents_table_is_what_the_code_keeps() -> None:
    assert documented("agent") == AGENT_CAPABILITIES
    assert documented("supervisor") == SUPERVISOR_CAPABILITIES
    assert documented("gate") == {Capability.NET_ADMIN}
    assert documented("api") | documented("front") == frozenset()


@pytest.mark.parametrize("name", ["supervisor", "agent"])
def test_who_stays_root_holds_what_is_documented_and_no_more(stage: Stage, name: str) -> None:
    expected = documented(name) & granted_here()
    assert Capability.SYS_ADMIN in expected
    for rights in read_rights(find_processes(stage)[name]):
        assert rights.uids == {0}
        assert rights.effective == rights.permitted == rights.bounding == expected
        assert rights.inherited == frozenset()
        assert rights.has_no_new_privileges


def test_the_gate_is_a_user_of_its_own_with_one_capability_in_one_namespace(stage: Stage) -> None:
    """Root without capabilities would still own the host's files."""
    user = find_gate_identity(stage.daemon.settings)
    pid = find_processes(stage)["gate"]
    own = Path(f"/proc/{pid}/ns/net").stat().st_ino
    for thread in Path(f"/proc/{pid}/task").iterdir():
        rights = _rights(thread / "status")
        assert rights.uids == {user.uid}
        assert rights.groups == ""
        is_in_router = Path(thread, "ns/net").stat().st_ino == own
        expected = frozenset({Capability.NET_ADMIN}) if is_in_router else frozenset[int]()
        assert rights.effective == rights.permitted == rights.bounding == expected
        assert rights.inherited == frozenset()
        assert rights.has_no_new_privileges


def test_api_and_front_are_two_users_with_nothing(stage: Stage) -> None:
    settings, pids = stage.daemon.settings, find_processes(stage)
    users = {"api": find_api_identity(settings), "front": find_front_identity(settings)}
    assert len({user.uid for user in users.values()} | {find_gate_identity(settings).uid, 0}) == 4
    for name, user in users.items():
        for rights in read_rights(pids[name]):
            assert rights.uids == {user.uid}
            assert rights.groups == ""
            assert rights.effective | rights.permitted | rights.bounding | rights.inherited == frozenset()
            assert rights.has_no_new_privileges


def test_none_of_them_may_write_the_hosts_files(stage: Stage) -> None:
    """With the rights that each has now: try what a taken-over process would."""
    for name in ("api", "front", "gate"):
        (rights,) = {rights.uids for rights in read_rights(find_processes(stage)[name])}
        (uid,) = rights
        for path in ("/etc/passwd", "/etc/cron.d/outgate", "/usr/bin/outgate-probe", "/root/outgate-probe"):
            assert _as_user(uid, _open_for_writing, Path(path)) == "PermissionError", path


def test_each_socket_is_closed_to_whom_it_is_not_for(stage: Stage) -> None:
    settings = stage.daemon.settings
    api, front, gate = (find(settings).uid for find in (find_api_identity, find_front_identity, find_gate_identity))
    meant_for = {
        settings.api_socket: {0},
        settings.agent_socket: {api},
        settings.terminal_socket: {api},
        settings.dial_socket: {api, front},
        settings.front_api_socket: {front},
        settings.pty_socket: {front},
        settings.inside_socket: {gate},
    }
    assert set(meant_for) == {path for path in settings.run_dir.iterdir() if path.is_socket()}
    for path, users in meant_for.items():
        for uid in (api, front, gate, STRANGER):
            outcome = _as_user(uid, _ask, path)
            assert (outcome == "served") == (uid in users), (path.name, uid, outcome)


def test_what_a_devbox_is_is_believed_of_the_gate_alone(stage: Stage) -> None:
    """Root passes every mode; it is the peer's user that is looked at."""
    path = stage.daemon.settings.inside_socket
    assert _ask(path) == "closed"
    assert _as_user(find_gate_identity(stage.daemon.settings).uid, _ask, path) == "served"


def test_all_of_it_is_enough_for_a_devbox(stage: Stage) -> None:
    assert run(stage.devbox(None), "echo $((6 * 7)); touch /tmp/x && stat -c %U /tmp/x").stdout == "42\nuser\n"


def _ask(path: Path) -> str:
    """Ask for something; ``served`` when there is an answer, ``closed`` when the other end hangs up without one."""
    kind, request = REQUESTS.get(path.name, (socket.SOCK_STREAM, HTTP))
    with socket.socket(socket.AF_UNIX, kind) as asking:
        asking.settimeout(WAIT_S)
        asking.connect(str(path))
        try:
            asking.sendall(request)
            return "served" if asking.recv(1) else "closed"
        except (BrokenPipeError, ConnectionResetError):
            return "closed"


def _open_for_writing(path: Path) -> object:
    return os.open(path, os.O_WRONLY | os.O_CREAT)


def _as_user(uid: int, work: Callable[[Path], object], path: Path) -> str:
    """What ``work`` returned, or the name of its error, in a process of that user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            said = str(work(path))
        except OSError as error:
            said = type(error).__name__
        except BaseException as error:  # noqa: BLE001 - a child must not go on as pytest
            said = repr(error)
        os.write(writing, json.dumps(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = json.loads(answer.read())
    os.waitpid(child, 0)
    return str(said)
