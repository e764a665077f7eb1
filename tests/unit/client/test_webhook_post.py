"""One try of a delivery, against a real receiver on loopback."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
import trustme

from outgate.client import webhook_post
from outgate.client.webhook_post import Answer, Lookup, NotDeliveredError, WebhookPoster, is_own_address
from outgate.model.addresses import IPAddress
from outgate.model.webhooks import parse_webhook_url
from support.webhook_receiver import Receiver, Reply, run_receiver

NAME = "hooks.example"
LOOPBACK = (ip_network("127.0.0.0/8"),)
HERE = ip_address("127.0.0.1")


def answers(*addresses: IPAddress) -> Lookup:
    async def look_up(_host: str, _port: int) -> Sequence[IPAddress]:
        return addresses

    return look_up


def post(
    url: str,
    *,
    networks: Sequence[IPv4Network | IPv6Network] = LOOPBACK,
    tls: ssl.SSLContext | None = None,
    lookup: Lookup | None = None,
    try_s_max: float = 30.0,
) -> Answer:
    async def try_once() -> Answer:
        poster = WebhookPoster(networks, tls=tls or ssl.create_default_context(), lookup=lookup, try_s_max=try_s_max)
        return await poster.post(parse_webhook_url(url), {"webhook-id": "msg_1"}, b'{"a":1}')

    return asyncio.run(try_once())


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as running:
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Receiver]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    with run_receiver(context) as running:
        yield running


def test_a_name_is_delivered_to_at_its_address_by_its_name(receiver: Receiver) -> None:
    answer = post(f"http://{NAME}:{receiver.port}/a/b?c=d", lookup=answers(HERE))
    assert answer == Answer(204, None)
    (came,) = receiver.deliveries
    assert (came.path, came.body, came.headers["host"]) == ("/a/b?c=d", b'{"a":1}', f"{NAME}:{receiver.port}")
    assert came.headers["webhook-id"] == "msg_1"


def test_certificates_are_checked_for_the_name(secure: Receiver, trusting: ssl.SSLContext) -> None:
    assert post(f"https://{NAME}:{secure.port}/", tls=trusting, lookup=answers(HERE)).status == 204
    with pytest.raises(NotDeliveredError, match="CERTIFICATE_VERIFY_FAILED"):
        post(f"https://other.example:{secure.port}/", tls=trusting, lookup=answers(HERE))
    with pytest.raises(NotDeliveredError, match="CERTIFICATE_VERIFY_FAILED"):
        post(f"https://127.0.0.1:{secure.port}/", tls=trusting)
    with pytest.raises(NotDeliveredError, match="CERTIFICATE_VERIFY_FAILED"):
        post(f"https://{NAME}:{secure.port}/", lookup=answers(HERE))
    assert len(secure.deliveries) == 1


def test_a_name_that_leads_to_loopback_is_refused_without_the_setting(receiver: Receiver) -> None:
    """localhost is looked up by the system itself."""
    for url, lookup in (
        (f"http://localhost:{receiver.port}/", None),
        (f"http://{NAME}:{receiver.port}/", answers(HERE)),
        (f"http://{NAME}:{receiver.port}/", answers(ip_address("::ffff:127.0.0.1"))),
        (f"http://127.0.0.1:{receiver.port}/", None),
    ):
        with pytest.raises(NotDeliveredError, match="OUTGATE_WEBHOOK_NETWORKS"):
            post(url, networks=(), lookup=lookup)
    assert receiver.deliveries == []
    assert post(f"http://localhost:{receiver.port}/", networks=(*LOOPBACK, ip_network("::1"))).status == 204


def test_a_second_answer_of_the_name_server_means_nothing(receiver: Receiver) -> None:
    """The first answer is judged; only a connection to the second, which is never asked for, would arrive."""
    asked = []

    async def rebind(host: str, _port: int) -> Sequence[IPAddress]:
        asked.append(host)
        return [ip_address("10.255.255.1") if len(asked) == 1 else HERE]

    with pytest.raises(NotDeliveredError, match="may not reach"):
        post(f"http://{NAME}:{receiver.port}/", lookup=rebind)
    assert asked == [NAME]
    assert receiver.deliveries == []


def test_of_several_addresses_the_forbidden_are_left_out_and_one_that_is_dead_is_passed_over(
    receiver: Receiver,
) -> None:
    lookup = answers(ip_address("169.254.169.254"), ip_address("127.7.7.7"), HERE)
    assert post(f"http://{NAME}:{receiver.port}/", lookup=lookup).status == 204
    assert len(receiver.deliveries) == 1


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    with run_receiver() as other:
        receiver.replies = [Reply(307, {"location": other.url})]
        assert post(receiver.url).status == 307
        assert other.deliveries == []


def test_the_environments_proxies_are_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert post(receiver.url).status == 204
        assert proxy.deliveries == []


def test_a_receiver_that_keeps_silent_is_given_up(receiver: Receiver) -> None:
    silent = Reply(release=threading.Event())
    receiver.replies = [silent]
    with pytest.raises(NotDeliveredError, match=r"did not answer within 0\.5 s"):
        post(receiver.url, try_s_max=0.5)
    assert silent.release is not None
    silent.release.set()


def test_a_lookup_that_does_not_end_is_given_up() -> None:
    async def never(_host: str, _port: int) -> Sequence[IPAddress]:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(NotDeliveredError, match="did not answer within"):
        post(f"http://{NAME}/", lookup=never, try_s_max=0.2)


def test_an_answer_without_an_end_is_read_so_far_and_no_further() -> None:
    """The receiver writes until it is cut off: were all of it read, the try would last for ever."""
    written = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\n\r\n")
                    while True:
                        written.append(connection.send(b"x" * 65536))
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        assert post(f"http://127.0.0.1:{listener.getsockname()[1]}/").status == 200
        thread.join(30)
        assert not thread.is_alive()
    assert 0 < sum(written) < 64 * 1024 * 1024


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 999999 X\r\n\r\n",
        b"\x00" * 200_000,
    ],
)
def test_what_is_no_answer_is_a_failure_in_words(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(said)
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NotDeliveredError) as error:
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        thread.join(30)
    assert "broke off" in error.value.message
    assert len(error.value.message) < 400


def test_nobody_there_and_no_such_name() -> None:
    with socket.socket() as bound:
        # Held, so that nobody else takes the port, and not listened on.
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(NotDeliveredError, match=f"no connection to 127.0.0.1:{port}"):
            post(f"http://127.0.0.1:{port}/")
    with pytest.raises(NotDeliveredError, match="has no address"):
        post(f"http://{NAME}/", lookup=answers())

    async def fail(_host: str, _port: int) -> Sequence[IPAddress]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(NotDeliveredError, match="cannot be looked up"):
        post(f"http://{NAME}/", lookup=fail)


def test_the_machines_own_addresses_are_known() -> None:
    assert is_own_address(HERE)
    assert is_own_address(ip_address("127.200.3.4"))
    assert not is_own_address(ip_address("198.51.100.1"))
    assert not is_own_address(ip_address("2001:db8::2"))


def test_where_any_address_can_be_bound_the_own_ones_are_still_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_post, "_can_bind", lambda _address: True)
    assert is_own_address(HERE)
    assert not is_own_address(ip_address("198.51.100.1"))
