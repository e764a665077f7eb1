"""Names that come second: in another hello, or inside what the first one opened."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.cases.names_hello import a_well_formed_hello
from attack.flights import CONTROL_S_MAX, send
from attack.scene import Scene
from attack.world import SHARED_ALLOWED, SHARED_DENIED, TAPE, TENANT
from support.hellos import extension, hello_message, records, server_name

TLS13_ONLY = extension(43, b"\x02\x03\x04")
X25519_ONLY = extension(10, b"\x00\x02\x00\x1d") + extension(13, b"\x00\x08\x08\x04\x04\x03\x08\x05\x08\x06")
NO_SHARE = extension(51, b"\x00\x00")
A_SHARE = extension(51, b"\x00\x24\x00\x1d\x00\x20" + b"\x09".ljust(32, b"\0"))
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"


def _hello13(name: str, share: bytes) -> bytes:
    """A hello that wants TLS 1.3; without a share of its key, the server asks for another."""
    return records(hello_message(server_name(name.encode()) + TLS13_ONLY + X25519_ONLY + share))


def a_second_hello_for_the_same_name(scene: Scene) -> bool:
    """A handshake that takes two hellos, as one does whose first offers no key that the server takes."""
    first, second = (_hello13(SHARED_ALLOWED.name, share) for share in (NO_SHARE, A_SHARE))
    asked = [[first, second], [first, CHANGE_CIPHER_SPEC + second]]
    send(scene, asked, 443, host=SHARED_ALLOWED, is_answered=True, wait_s=CONTROL_S_MAX)
    arrived = [c for c in scene.journal().connections if c.server_name == SHARED_ALLOWED.name]
    return len(arrived) == 4 and all(c.bytes_in >= len(first) + len(second) for c in arrived)


@case(Group.NAMES, control=a_second_hello_for_the_same_name)
def a_second_hello_that_the_server_asked_for_does_not_name_another_host(scene: Scene) -> Iterator[str]:
    """HelloRetryRequest: the first hello names an allowed host and offers no key, the second names the host that is meant.

    RFC 8446 §4.1.2 forbids the client to change the name; OpenSSL's servers take the second one (openssl/openssl#32472),
    with the second one's certificate, and whoever reads only the first packet never sees it.
    """
    first, second = _hello13(SHARED_ALLOWED.name, NO_SHARE), _hello13(SHARED_DENIED.name, A_SHARE)
    cut = records(second[5:], fragment=9)
    send(scene, [first + second, first + CHANGE_CIPHER_SPEC + second, first + cut], 443, host=SHARED_ALLOWED)
    asked = [[first, second], [first, CHANGE_CIPHER_SPEC + second], [first, cut]]
    send(scene, asked, 443, host=SHARED_ALLOWED, is_answered=True)
    yield from scene.requests_naming(SHARED_DENIED.name)


@case(Group.NAMES, control=a_well_formed_hello)
def a_second_hello_sent_along_with_the_first_does_not_count(scene: Scene) -> Iterator[str]:
    """Two hellos at once, in one record or in two: which one the server reads last is its own affair."""
    good, bad = hello_message(server_name(TAPE.name.encode())), hello_message(server_name(TENANT.encode()))
    send(scene, [records(good + bad), records(good) + records(bad), records(good + bad, fragment=len(good) + 5)], 443)
    for connection in scene.journal().connections:
        if TENANT.encode() in connection.kept:
            yield f"{connection.kept!r} at {connection.address}"
