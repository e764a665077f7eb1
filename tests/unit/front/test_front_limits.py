"""What a stranger or a devbox can do to the front by wrong tokens, by connections, and by saying who it is."""

import contextlib
import socket
import ssl
from dataclasses import dataclass

import pytest
import structlog

from outgate.front import listeners, places
from outgate.front.places import Places
from outgate.front.sources import find_source
from outgate.model.tunnels import InsideHello
from support.front_rig import ACCOUNT, FAILURES_MAX, OPEN_KEY, TOKEN, TOKEN_KEY, FrontRig, ask, name_of, seen

OPEN, WITH_TOKEN = name_of(OPEN_KEY), name_of(TOKEN_KEY)
WAIT_S = 30.0
RIGHT = f"Bearer {TOKEN}"


@dataclass
class Clock:
    now_s: float = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The proxy's, which stands still unless the test moves it."""
    made = Clock()
    monkeypatch.setattr("outgate.front.proxy.monotonic_s", lambda: made.now_s)
    return made


def from_address(rig: FrontRig, source: str) -> socket.socket:
    return socket.create_connection(rig.http.getsockname(), WAIT_S, source_address=(source, 0))


def show(connection: socket.socket, authorization: str) -> tuple[int, str | None]:
    """The status, and what Retry-After says."""
    response = ask(connection, WITH_TOKEN, Authorization=authorization)
    response.read()
    return response.status, response.getheader("Retry-After")


def test_after_some_wrong_tokens_none_of_that_client_is_looked_at(rig: FrontRig, clock: Clock) -> None:
    with from_address(rig, "127.0.0.41") as attacker, from_address(rig, "127.0.0.42") as honest:
        with structlog.testing.capture_logs() as lines:
            answers = [show(attacker, f"Bearer wrong-{number}")[0] for number in range(FAILURES_MAX + 3)]
        assert answers == [401] * FAILURES_MAX + [429] * 3
        assert show(attacker, RIGHT) == (429, "3")
        assert show(honest, RIGHT) == (200, None)
        clock.now_s += 3
        assert show(attacker, RIGHT) == (200, None)
        told = [line for line in lines if line["event"] == "too_many_wrong_tokens"]
        assert [line["client"] for line in told] == ["127.0.0.41"]
        assert "wrong-" not in str(lines)


def test_whoever_used_the_tunnel_before_goes_on_whatever_comes_from_the_same_address(
    rig: FrontRig, clock: Clock
) -> None:
    del clock
    with from_address(rig, "127.0.0.43") as connection:
        assert show(connection, RIGHT)[0] == 200
        for number in range(FAILURES_MAX + 3):
            show(connection, f"Bearer wrong-{number}")
        assert show(connection, "Bearer wrong")[0] == 429
        assert show(connection, RIGHT)[0] == 200
        assert ask(connection, OPEN).status == 200, "an open tunnel wants no token, and is not closed by this"


def test_requests_without_a_token_are_no_attempts(rig: FrontRig, clock: Clock) -> None:
    del clock
    with from_address(rig, "127.0.0.44") as connection:
        for _ in range(2 * FAILURES_MAX):
            response = ask(connection, WITH_TOKEN)
            assert response.status == 401
            response.read()
        assert show(connection, RIGHT)[0] == 200


def test_one_devbox_that_guesses_does_not_lock_out_another(rig: FrontRig, clock: Clock) -> None:
    del clock
    with rig.connect_inside(InsideHello("dbx_guessing", ACCOUNT, WITH_TOKEN, is_tls=False)) as guessing:
        answers = [show(guessing, f"Bearer wrong-{number}")[0] for number in range(FAILURES_MAX + 1)]
    assert answers[-1] == 429
    with rig.connect_inside(InsideHello("dbx_honest", ACCOUNT, WITH_TOKEN, is_tls=False)) as honest:
        assert show(honest, RIGHT)[0] == 200


def test_a_devbox_cannot_say_that_it_asks_for_somebody_else(rig: FrontRig) -> None:
    with rig.connect_inside(InsideHello("dbx_asking", ACCOUNT, OPEN, is_tls=False)) as connection:
        headers = seen(ask(connection, OPEN, X_Forwarded_For="192.0.2.1"))
    assert "x-forwarded-for" not in headers


def test_terminals_are_told_which_devbox_asks(rig: FrontRig) -> None:
    """The api bounds wrong tokens by it, and a devbox must not be able to use up another's."""
    key, path = "b" * 24, rig.directory / "pty.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(WAIT_S)
        try:
            with rig.connect_inside(InsideHello("dbx_asking", ACCOUNT, name_of(key), is_tls=False)) as connection:
                head = f"GET /pty/x HTTP/1.1\r\nHost: {name_of(key)}\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
                connection.sendall(head.encode())
                accepted, _ = listening.accept()
                with accepted:
                    said = b""
                    while b"\r\n\r\n" not in said:
                        said += accepted.recv(4096)
        finally:
            path.unlink()
    assert b"X-Forwarded-For: 192.0.2.1, dbx_asking\r\n" in said


def is_refused(connection: socket.socket) -> bool:
    """Whether the front closes it at once; a served one answers."""
    try:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {OPEN}\r\n\r\n".encode())
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_one_client_cannot_take_all_connections(rig: FrontRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PER_CLIENT_MAX", 5)
    with contextlib.ExitStack() as opened:
        many = [opened.enter_context(from_address(rig, "127.0.0.45")) for _ in range(8)]
        assert sorted(is_refused(connection) for connection in many) == [False] * 5 + [True] * 3
        assert not is_refused(opened.enter_context(from_address(rig, "127.0.0.46")))
    # Their places are given back; the front learns of it in its own time.
    for _ in range(1000):
        with from_address(rig, "127.0.0.45") as again:
            if not is_refused(again):
                return
    pytest.fail("no place was given back")


def test_a_handshake_that_does_not_come_takes_a_place_and_gives_it_back(
    rig: FrontRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "TLS_HANDSHAKE_S_MAX", 0.5)
    monkeypatch.setattr(places, "PER_CLIENT_MAX", 4)
    source = ("127.0.0.47", 0)
    with contextlib.ExitStack() as opened:
        silent = [
            opened.enter_context(socket.create_connection(rig.https.getsockname(), WAIT_S, source_address=source))
            for _ in range(4)
        ]
        for connection in silent:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(1) == b"", "closed, after its time"
    context = ssl.create_default_context(cafile=str(rig.authority))
    with (
        socket.create_connection(rig.https.getsockname(), WAIT_S, source_address=source) as plain,
        context.wrap_socket(plain, server_hostname=OPEN) as connection,
    ):
        monkeypatch.undo()
        assert ask(connection, OPEN).status == 200


def test_a_head_that_does_not_come_to_its_end_is_closed(rig: FrontRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(listeners._SERVER_OPTIONS, "keepalive_timeout", 0.5)
    with from_address(rig, "127.0.0.48") as nothing, from_address(rig, "127.0.0.48") as half:
        half.sendall(f"GET / HTTP/1.1\r\nHost: {OPEN}\r\nX-Long: ".encode())
        half.settimeout(0.05)
        is_open, sent = True, 0
        while is_open:
            with contextlib.suppress(TimeoutError):
                try:
                    half.sendall(b"a")
                    is_open = half.recv(100) != b""
                except ConnectionError:
                    is_open = False
            sent += 1
            assert sent < 2000
        assert nothing.recv(1) == b""


@pytest.mark.parametrize(
    "head", [b"X: " + b"a" * 40_000 + b"\r\n", b"".join(b"X-%d: y\r\n" % number for number in range(300))]
)
def test_a_head_that_is_too_long_is_refused(rig: FrontRig, head: bytes) -> None:
    with from_address(rig, "127.0.0.49") as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {OPEN}\r\n".encode() + head + b"\r\n")
        with contextlib.suppress(ConnectionResetError):
            answer = connection.recv(100)
            assert answer.startswith(b"HTTP/1.0 400 ") or not answer


def test_places_are_counted_all_in_all_and_by_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PER_CLIENT_MAX", 2)
    monkeypatch.setattr(places, "CONNECTIONS_MAX", 4)
    taken = Places()
    first, second = taken.take("a"), taken.take("a")
    assert first is not None
    assert second is not None
    assert taken.take("a") is None
    assert taken.take(None) is not None
    assert taken.take("b") is not None
    assert taken.take("c") is None
    first.free()
    first.free()
    assert taken.take("c") is not None, "a place is given back"
    assert taken.take("a") is None, "and once only"


def test_the_api_sees_each_client_of_the_front_at_an_address_of_its_own() -> None:
    one, again = find_source("127.0.0.1", ("192.0.2.1", 5)), find_source("127.0.0.1", ("192.0.2.1", 6))
    assert one == again
    others = {find_source("127.0.0.1", (f"192.0.2.{number}", 5)) for number in range(2, 200)}
    assert len({one, *others}) == 199
    for source in (one, *others):
        assert source is not None
        with (
            socket.create_server(("127.0.0.1", 0)) as listening,
            socket.create_connection(listening.getsockname(), WAIT_S, source_address=source) as client,
        ):
            assert client.getsockname()[0] == source[0]
    assert find_source("::1", ("192.0.2.1", 5)) is None
    assert find_source("127.0.0.1", "") is None
