"""What the name in a ClientHello may look like: hellos that two readers would read differently."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.flights import CONTROL_S_MAX, send
from attack.scene import Scene
from attack.world import TAPE, TENANT
from support.hellos import extension, hello, hello_message, records, server_name

GOOD = TAPE.name.encode()
BAD = TENANT.encode()


def a_well_formed_hello(scene: Scene) -> bool:
    """A hello that names the allowed host once."""
    send(scene, [hello(TAPE.name)], 443, wait_s=CONTROL_S_MAX)
    kept = {c.address for c in scene.journal().connections if GOOD in c.kept}
    return kept == {TAPE.address4, TAPE.address6}


def _entry(name: bytes, name_type: int = 0) -> bytes:
    return bytes([name_type]) + len(name).to_bytes(2, "big") + name


def _listed(entries: bytes, *, claimed: int | None = None) -> bytes:
    """The SNI extension around ``entries``, which claims another length of its list if told so."""
    return extension(0, (len(entries) if claimed is None else claimed).to_bytes(2, "big") + entries)


def _hellos_with(*extensions: bytes) -> list[bytes]:
    return [records(hello_message(block)) for block in extensions]


def _named(*names: bytes) -> list[bytes]:
    return _hellos_with(*(server_name(name) for name in names))


def _no_hello_arrives(scene: Scene, flights: list[bytes]) -> Iterator[str]:
    """Whoever lives at the address: no byte of such a hello may reach it."""
    send(scene, flights, 443)
    yield from scene.bytes_to(TAPE.address4, TAPE.address6, port=443)


@case(Group.NAMES, control=a_well_formed_hello)
def a_hello_without_a_name_does_not_reach_an_address_that_others_share(scene: Scene) -> Iterator[str]:
    """No SNI at all: a filter with nothing to compare lets it pass, and the server answers as its default host.

    Squid's documentation of peek and splice says plainly that clients may omit the SNI; a splice rule by name has then
    only the address left.
    """
    yield from _no_hello_arrives(scene, [records(hello_message(None)), *_hellos_with(b"", extension(23, b""))])


@case(Group.NAMES, control=a_well_formed_hello)
def an_empty_name_is_no_name(scene: Scene) -> Iterator[str]:
    """The extension is there and says nothing: empty name, empty list, empty extension.

    Code that asks whether the extension is present, or compares a suffix of the empty text, takes it as a match.
    """
    yield from _no_hello_arrives(
        scene, _hellos_with(_listed(_entry(b"")), _listed(b""), extension(0, b""), _listed(_entry(b".")))
    )


@case(Group.NAMES, control=a_well_formed_hello)
def an_address_in_place_of_the_name_is_no_name(scene: Scene) -> Iterator[str]:
    """RFC 6066 §3 forbids literals; servers take one as "no name given" and answer as their default host."""
    literals = (TAPE.address4, TAPE.address6, f"[{TAPE.address6}]", "45.45.45.41.", "0x2d.45.11561", "757935401")
    yield from _no_hello_arrives(scene, _named(*(literal.encode() for literal in literals)))


@case(Group.NAMES, control=a_well_formed_hello)
def two_names_in_two_extensions_are_not_read_as_the_nicer_one(scene: Scene) -> Iterator[str]:
    """Duplicate extensions: the filter reads the first, the server the last, or the other way round.

    RFC 8446 §4.2 forbids them and not every reader checks, least of all one that was written to find one field.
    """
    good, bad = server_name(GOOD), server_name(BAD)
    yield from _no_hello_arrives(scene, _hellos_with(good + bad, bad + good, good + good, good + _listed(b"") + bad))


@case(Group.NAMES, control=a_well_formed_hello)
def two_names_in_one_extension_are_not_read_as_the_nicer_one(scene: Scene) -> Iterator[str]:
    """The ServerNameList is a list, so there can be two in it; RFC 6066 §3 allows one of each type.

    A parser that stops at the first entry and one that keeps the last see different hosts.
    """
    yield from _no_hello_arrives(
        scene,
        _hellos_with(
            _listed(_entry(GOOD) + _entry(BAD)),
            _listed(_entry(BAD) + _entry(GOOD)),
            _listed(_entry(GOOD, 1) + _entry(BAD)),
            _listed(_entry(BAD) + _entry(GOOD, 1)),
        ),
    )


@case(Group.NAMES, control=a_well_formed_hello)
def a_name_of_another_type_does_not_count(scene: Scene) -> Iterator[str]:
    """name_type other than host_name: one reader ignores the type and takes the text, the other sees no name."""
    yield from _no_hello_arrives(scene, _hellos_with(*(_listed(_entry(GOOD, kind)) for kind in (1, 2, 0x0A, 0xFF))))


@case(Group.NAMES, control=a_well_formed_hello)
def lengths_that_lie_do_not_hide_a_second_name(scene: Scene) -> Iterator[str]:
    """List, entry, extension and block each have a length; a reader that trusts one and skips by another sees two names.

    What lies between two lengths that disagree is the classic room for a second name in any nested format.
    """
    entries = _entry(GOOD) + _entry(BAD)
    long_name = b"\0" + (len(GOOD) + 3).to_bytes(2, "big") + GOOD
    yield from _no_hello_arrives(
        scene,
        [
            *_hellos_with(
                _listed(entries, claimed=len(_entry(GOOD))),
                _listed(_entry(GOOD), claimed=len(_entry(GOOD)) + 40) + server_name(BAD),
                _listed(_entry(GOOD), claimed=0),
                _listed(long_name),
            ),
            records(hello_message(server_name(GOOD)) + server_name(BAD))[:-1],
            records(hello_message(server_name(GOOD)).replace(b"\x01\x00", b"\x00", 1)),
            records(hello_message(server_name(GOOD), session_id=server_name(BAD)[:40].ljust(40, b"s"))),
        ],
    )


@case(Group.NAMES, control=a_well_formed_hello)
def a_nul_byte_does_not_end_the_name_early(scene: Scene) -> Iterator[str]:
    """C reads up to the NUL, everybody else beyond it.

    The class that gave certificates for ``good.example\\0.evil.example`` (Marlinspike, Black Hat 2009), here in the SNI.
    """
    yield from _no_hello_arrives(
        scene, _named(GOOD + b"\0", GOOD + b"\0." + BAD, BAD + b"\0." + GOOD, b"\0" + GOOD, GOOD + b"\0" + BAD)
    )


@case(Group.NAMES, control=a_well_formed_hello)
def white_space_and_control_bytes_do_not_make_another_name_fit(scene: Scene) -> Iterator[str]:
    """Trimming: one side strips blanks, the other takes the name as it is. And line ends forge entries of a log."""
    odd = (
        b" " + GOOD,
        GOOD + b" ",
        GOOD + b"\t",
        GOOD + b"\r\n",
        GOOD + b"\n" + BAD,
        BAD + b" " + GOOD,
        b"\x7f" + GOOD,
    )
    yield from _no_hello_arrives(scene, _named(*odd))


@case(Group.NAMES, control=a_well_formed_hello)
def labels_and_names_beyond_their_length_are_not_cut_to_fit(scene: Scene) -> Iterator[str]:
    """A label of more than 63 bytes, a name of more than 253: whoever copies into a buffer compares a part of it."""
    tail = b"." + GOOD
    yield from _no_hello_arrives(
        scene,
        _named(
            b"a" * 64 + tail, b"a" * 65 + tail, b"a." * 130 + GOOD, GOOD + b"." * 240, GOOD + b"x" * 4000, b"." + GOOD
        ),
    )


@case(Group.NAMES, control=a_well_formed_hello)
def a_name_beyond_ascii_is_not_folded_into_an_allowed_one(scene: Scene) -> Iterator[str]:
    """Letters that lower-casing, Unicode normal forms or IDNA turn into ASCII ones, raw in the SNI.

    U+212A, the Kelvin sign, is k in lower case; full-width letters and dots become plain ones under NFKC (UTS #46).
    """
    text = TAPE.name
    odd = (
        text.replace(".", "\uff0e"),
        text.replace(".", "\u3002"),
        text.replace("t", "\uff54", 1),
        text.replace("s", "\u017f"),
        text.replace("a", "\u0430"),
        text + "\u00ad",
        text.replace("e", "e\u200b", 1),
        text.replace("k", "\u212a"),
        text.replace("-", "\u2010"),
    )
    high = bytes([GOOD[0] | 0x80]) + GOOD[1:]
    yield from _no_hello_arrives(scene, _named(*(name.encode() for name in odd), high))
