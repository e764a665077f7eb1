"""How a ClientHello comes: cut up, preceded, padded, in old versions. The name in it is not allowed."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.flights import CONTROL_S_MAX, Flight, send
from attack.scene import Scene
from attack.world import TAPE, TENANT
from support.hellos import extension, hello, hello_message, records, server_name

GOOD = TAPE.name.encode()
BAD = TENANT.encode()
BAD_MESSAGE = hello_message(server_name(BAD) + extension(0x0A0A, b""))
GOOD_MESSAGE = hello_message(server_name(GOOD) + extension(0x0A0A, b""))
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
WARNING = b"\x15\x03\x01\x00\x02\x01\x70"
"""unrecognized_name, as a warning."""


def hellos_cut_as_clients_cut_them(scene: Scene) -> bool:
    """The allowed name in two segments, in two records, and in a hello as long as post-quantum key shares make it."""
    whole, long = hello(TAPE.name), hello(TAPE.name, pad=3000)
    flights: list[Flight] = [[whole[:40], whole[40:]], hello(TAPE.name, fragment=60), [long[:1400], long[1400:]]]
    send(scene, flights, 443, wait_s=CONTROL_S_MAX)
    arrived = [c.address for c in scene.journal().connections if c.bytes_in >= len(whole)]
    return sorted(arrived) == sorted([TAPE.address4, TAPE.address6] * 3)


def _no_hello_arrives(scene: Scene, flights: list[Flight], *ports: int) -> Iterator[str]:
    send(scene, flights, *ports or (443,))
    yield from scene.bytes_to(TAPE.address4, TAPE.address6)


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def a_hello_in_many_segments_is_read_to_its_end(scene: Scene) -> Iterator[str]:
    """The filter looks at the first packet of a flow, finds no name in it, and lets the flow go.

    What circumvention tools such as GoodbyeDPI and zapret have long done to censors, and what happens by accident to
    every hello that a post-quantum key share has made longer than a segment.
    """
    whole = records(BAD_MESSAGE)
    at = whole.index(BAD)
    bytewise = [whole[i : i + 1] for i in range(len(whole))]
    yield from _no_hello_arrives(
        scene, [bytewise, [whole[:1], whole[1:]], [whole[:5], whole[5:]], [whole[: at + 4], whole[at + 4 :]]]
    )


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def a_hello_in_many_records_is_read_to_its_end(scene: Scene) -> Iterator[str]:
    """One handshake message may be spread over TLS records of one byte each (RFC 8446 §5.1); few filters join them.

    "TLS record fragmentation" gets round name-based censors for this reason (DPYProxy; net4people/bbs#308).
    """
    cuts = (1, 2, 7, BAD_MESSAGE.index(BAD) + 3)
    yield from _no_hello_arrives(scene, [records(BAD_MESSAGE, fragment=cut) for cut in cuts])


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def a_first_record_that_looks_like_a_whole_hello_is_not_taken_for_one(scene: Scene) -> Iterator[str]:
    """The first record holds something that reads as an allowed name; the message goes on, and its true name follows.

    For a reader that scans one record for an extension instead of reading the message that it is part of.
    """
    decoy = server_name(GOOD)
    inside = extension(21, decoy + b"\0" * 16) + server_name(BAD)
    in_session = hello_message(server_name(BAD), session_id=decoy[:32])
    flights: list[Flight] = []
    for message in (hello_message(inside), in_session):
        cut = message.index(decoy[:32]) + len(decoy)
        flights += [records(message), records(message, fragment=cut), [*_each_record(message, cut)]]
    yield from _no_hello_arrives(scene, flights)


def _each_record(message: bytes, cut: int) -> Iterator[bytes]:
    yield records(message[:cut])
    yield records(message[cut:])


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def a_name_far_behind_in_a_long_hello_is_found_or_the_hello_is_refused(scene: Scene) -> Iterator[str]:
    """A reader with a buffer gives up beyond it, and giving up must not mean letting pass.

    In front of the name stand 4, 15 and 17 KiB of other extensions, and 60 KiB, which no program sends.
    """
    flights: list[Flight] = [
        records(hello_message(b"".join(extension(0x1A1A + i, b"k" * size) for i in range(parts)) + server_name(name)))
        for size, parts, name in ((4096, 1, BAD), (15000, 1, BAD), (8600, 2, BAD), (15000, 4, BAD), (15000, 4, GOOD))
    ]
    yield from _no_hello_arrives(scene, flights)


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def a_hello_that_is_never_complete_sends_nothing_on(scene: Scene) -> Iterator[str]:
    """A filter that forwards while it still waits has already let a message out: the bytes so far are the message."""
    whole = records(GOOD_MESSAGE)
    yield from _no_hello_arrives(scene, [whole[:-1], whole[: whole.index(GOOD) + len(GOOD)], whole[:6], whole[:1]])


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def a_hello_behind_another_record_is_not_waved_through(scene: Scene) -> Iterator[str]:
    """Some servers skip an alert or a change_cipher_spec before the hello; a filter that takes the flow for "not TLS"
    lets it pass by whatever rule it has for unknown protocols."""
    bad = records(BAD_MESSAGE)
    empty = b"\x16\x03\x01\x00\x00"
    heartbeat = b"\x18\x03\x01\x00\x03\x01\x00\x00"
    flights = [CHANGE_CIPHER_SPEC + bad, WARNING + bad, empty + bad, heartbeat + bad, WARNING + records(GOOD_MESSAGE)]
    yield from _no_hello_arrives(scene, [*flights, bad], 443, 8080)


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def an_sslv2_compatible_hello_is_not_waved_through(scene: Scene) -> Iterator[str]:
    """The hello of SSLv2 begins otherwise and carries no name (RFC 5246 §E.2): unknown to the filter, known to old
    servers."""
    body = b"\x01\x03\x01" + b"\x00\x03\x00\x00\x00\x10" + b"\x00\x00\x2f" + b"c" * 16
    hello2 = (0x8000 | len(body)).to_bytes(2, "big") + body
    version2 = hello2.replace(b"\x01\x03\x01", b"\x01\x00\x02", 1)
    yield from _no_hello_arrives(scene, [hello2, version2, [hello2[:3], hello2[3:]]], 443, 8080)


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def no_version_number_changes_which_name_counts(scene: Scene) -> Iterator[str]:
    """SSL 3.0 to 1.3 and beyond, in the record and in the message: a reader that knows two of them lets the rest go."""
    versions = (b"\x03\x00", b"\x03\x01", b"\x03\x02", b"\x03\x03", b"\x03\x04", b"\x03\xff", b"\x7f\x1c", b"\x02\x00")
    flights: list[Flight] = [records(BAD_MESSAGE, version=version) for version in versions]
    flights += [records(BAD_MESSAGE[:4] + version + BAD_MESSAGE[6:]) for version in versions]
    yield from _no_hello_arrives(scene, flights)


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def an_encrypted_hello_is_judged_by_its_outer_name(scene: Scene) -> Iterator[str]:
    """With ECH (type 0xfe0d) the inner name cannot be seen, so the outer one must be allowed; its presence opens nothing.

    The outer name is not allowed, or there is none; the extension is well-formed, of the inner kind, or nonsense.
    """
    outer = b"\x00" + b"\x00\x01\x00\x01" + b"\x07" + b"\x00\x20" + b"e" * 32 + b"\x00\x40" + b"p" * 64
    encrypted = [extension(0xFE0D, content) for content in (outer, b"\x01", b"", GOOD)]
    blocks = [ech + server_name(BAD) for ech in encrypted] + [server_name(BAD) + ech for ech in encrypted] + encrypted
    yield from _no_hello_arrives(scene, [records(hello_message(block)) for block in blocks])


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def early_data_does_not_travel_ahead_of_the_decision(scene: Scene) -> Iterator[str]:
    """0-RTT: data that follows the hello at once (RFC 8446 §4.2.10) is out before a slow filter has decided."""
    early = extension(42, b"") + extension(
        41, b"\x00\x26" + b"\x00\x20" + b"t" * 32 + b"\0" * 4 + b"\x00\x21\x20" + b"b" * 32
    )
    data = b"\x17\x03\x03\x00\x20" + b"d" * 32
    flight = records(hello_message(server_name(BAD) + early)) + CHANGE_CIPHER_SPEC + data
    yield from _no_hello_arrives(scene, [flight, [flight[:-37], flight[-37:]]])


@case(Group.NAMES, control=hellos_cut_as_clients_cut_them)
def grease_and_order_do_not_hide_the_name(scene: Scene) -> Iterator[str]:
    """Values that mean nothing (RFC 8701) before, behind and around the name, and the name as the very last extension."""
    grease = [extension(0x0A0A + 0x1010 * i, b"" if i % 2 else b"\0") for i in range(16)]
    name, all_of_it = server_name(BAD), b"".join(grease)
    blocks = (all_of_it + name, name + all_of_it, grease[0] + name + grease[1])
    yield from _no_hello_arrives(scene, [records(hello_message(block)) for block in blocks])
