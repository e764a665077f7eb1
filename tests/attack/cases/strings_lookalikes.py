"""Names that look allowed: to a filter that compares text, to a person, or after somebody has tidied them up."""

from collections.abc import Iterable, Iterator

from attack.case import Group, case
from attack.flights import ATTACK_S_MAX, CONTROL_S_MAX, send_by_port
from attack.lab import run
from attack.scene import Scene
from attack.world import APEX, BELOW, TAPE, WILD
from support.hellos import hello_message, records, server_name


def the_allowed_name_in_any_case(scene: Scene) -> bool:
    """The allowed name with its case mixed and with one dot at its end, by DNS, TLS and HTTP."""
    mixed = "".join(c.upper() if i % 2 else c for i, c in enumerate(TAPE.name))
    asked = _wire(mixed.encode().split(b"."))
    run(scene, f"assert addresses(ask(message({asked!r} + struct.pack('!2H', 1, 1))))", box=scene.box)
    _send_names(scene, [mixed.encode(), TAPE.name.encode() + b"."], is_answered=True, wait_s=CONTROL_S_MAX)
    return sorted(c.port for c in scene.journal().connections if c.bytes_in) == [80] * 4 + [443] * 4


def _wire(labels: Iterable[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _asked(scene: Scene, wires: list[bytes]) -> Iterator[str]:
    """Ask the box's resolver about each of these names, A and AAAA; those that any server heard of."""
    run(
        scene,
        f"""
        ask_all([message(wire + struct.pack("!2H", type_, 1)) for wire in {wires!r} for type_ in (1, 28)], wait_s=0.5)
        """,
        box=scene.box,
    )
    heard = [query.message.lower() for query in scene.journal().queries]
    yield from (f"a question for {wire!r}" for wire in wires if any(wire.lower() in message for message in heard))


def _named(scene: Scene, names: list[bytes]) -> Iterator[str]:
    """Name each of these in a handshake and in a request to an allowed address; what arrived."""
    _send_names(scene, names, wait_s=ATTACK_S_MAX)
    yield from scene.bytes_to(TAPE.address4, TAPE.address6)


def _send_names(scene: Scene, names: list[bytes], wait_s: float, *, is_answered: bool = False) -> None:
    hellos = [records(hello_message(server_name(name))) for name in names]
    requests = [b"GET / HTTP/1.1\r\nHost: " + name + b"\r\n\r\n" for name in names]
    send_by_port(scene, {443: hellos, 80: requests}, is_answered=is_answered, wait_s=wait_s)


def _everywhere(scene: Scene, names: list[str]) -> Iterator[str]:
    spelled = [name.encode() for name in names]
    yield from _asked(scene, [_wire(name.rstrip(b".").split(b".")) for name in spelled])
    yield from _named(scene, spelled)


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def a_name_that_ends_like_an_allowed_one_is_another_name(scene: Scene) -> Iterator[str]:
    """``endswith`` without the dot: eviltape-desk.example.org for tape-desk.example.org, xwild.example.com for *.wild."""
    yield from _everywhere(scene, [f"evil{TAPE.name}", f"x{WILD}", f"a.x{WILD}", f"evil-{TAPE.name}"])


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def a_name_that_begins_like_an_allowed_one_is_another_name(scene: Scene) -> Iterator[str]:
    """``startswith`` and patterns that nobody anchored: tape-desk.example.org.evil.example.net."""
    yield from _everywhere(
        scene,
        [
            f"{TAPE.name}.evil.example.net",
            f"a.{WILD}.example.net",
            f"{TAPE.name}x",
            f"{TAPE.name}.org",
            f"a.{WILD}munity",
        ],
    )


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def a_dot_stands_for_a_dot_and_not_for_any_letter(scene: Scene) -> Iterator[str]:
    """Patterns that became regular expressions with their dots unescaped: tape-deskXexample.org."""
    first, rest = TAPE.name.split(".", 1)
    names = [f"{first}x{rest}", f"{first}-{rest}", f"{first}_{rest}", f"a{WILD.replace('.', 'x')}"]
    yield from _everywhere(scene, [*names, f"a.{WILD.replace('.', '-', 1)}"])


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def a_wildcard_does_not_cover_the_name_above_it(scene: Scene) -> Iterator[str]:
    """``*.x`` and x itself, the name above x, and the star as a letter: off by one label."""
    above = WILD.split(".", 1)[1]
    yield from _asked(
        scene, [_wire(name.split(b".")) for name in (WILD.encode(), above.encode(), b"*." + WILD.encode(), b"*")]
    )
    run(
        scene,
        f"""
        lookup("{BELOW.name}")
        for address in ("{APEX.address4}", "{APEX.address6}", "{BELOW.address4}", "{BELOW.address6}"):
            for name in ("{WILD}", "{above}"):
                tls(address, name)
                http(address, name)
        """,
        box=scene.box,
    )
    yield from scene.bytes_to(APEX.address4, APEX.address6, BELOW.address4, BELOW.address6)


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def letters_of_other_alphabets_make_another_name(scene: Scene) -> Iterator[str]:
    """Homographs as their A-labels, and A-labels of plain ASCII: punycode that decodes to the very name that is allowed.

    "xn--" and a trailing hyphen around ASCII is no A-label (RFC 5891 §5.4); a tool that decodes before it compares takes it.
    """
    first, rest = TAPE.name.split(".", 1)
    homographs = [TAPE.name.replace("a", "\u0430"), TAPE.name.replace("e", "\u0435"), TAPE.name.replace("o", "\u03bf")]
    encoded = [name.encode("idna").decode() for name in homographs]
    yield from _everywhere(
        scene, [*encoded, f"xn--{first}-.{rest}", f"xn--xn--{first}--.{rest}", f"XN--{first.upper()}-.{rest}"]
    )


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def letters_that_fold_into_ascii_make_another_name(scene: Scene) -> Iterator[str]:
    """Full-width letters and dots, the Kelvin sign, the long s, soft hyphens: tidied up, they spell an allowed name.

    "Host/Split" (Jonathan Birch, Black Hat 2019) got other hosts out of such letters.
    """
    name = TAPE.name
    odd = [
        name.replace("k", "\u212a"),
        name.replace("s", "\u017f"),
        name.replace(".", "\u3002"),
        name.replace("t", "\uff54"),
    ]
    odd += [
        name.replace(".", "\uff0e"),
        name.replace("-", "\u00ad-"),
        f"evil.example.net\u2044.{name}",
        f"evil\u2100.{name}",
    ]
    yield from _everywhere(scene, odd)


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def dots_too_many_make_no_name(scene: Scene) -> Iterator[str]:
    """Two dots at the end, or an empty label: one side strips what the other compares."""
    name = TAPE.name.encode()
    yield from _named(
        scene, [name + b"..", b"." + name, name.replace(b".", b"..", 1), b"evil.example.net.." + name, b"."]
    )


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def a_dot_inside_a_label_is_no_border_between_labels(scene: Scene) -> Iterator[str]:
    r"""One label ``exfil.wild`` below example.com prints as exfil.wild.example.com, which the wildcard seems to cover.

    Length bytes are the borders (RFC 1035 §3.1); "Injection Attacks Reloaded: Tunnelling Malicious Payloads over DNS" (Jeitner and
    Shulman, USENIX Security 2021) found resolvers and libraries that lose the difference.
    """
    apex = WILD.encode().split(b".")
    name = TAPE.name.encode()
    wires = [
        _wire([b"exfil." + apex[0], *apex[1:]]),
        _wire([b"exfil." + WILD.encode()]),
        _wire([name]),
        _wire([name.rsplit(b".", 1)[0], b"org"]),
        _wire([name + b".evil", b"example", b"net"]),
        _wire([b"evil", b"example", b"net." + name]),
        _wire([b"a\\.b." + apex[0], *apex[1:]]),
    ]
    yield from _asked(scene, wires)


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def bytes_that_are_no_letters_make_no_host_name(scene: Scene) -> Iterator[str]:
    """NUL, blanks, controls, high bytes, at signs and slashes in labels: DNS carries any byte, host names are LDH.

    Below an allowed wildcard too, where they would be a channel of eight bits a byte, or an injection into a log.
    """
    odd = (
        b"evil\0",
        b"\0",
        b"a b",
        b"a\nb",
        b"\xff\xfe",
        b"a@b",
        b"a/b",
        b"%2e",
        b"a\\046b",
        b"\x1b[31m",
        b"-a",
        b"a-",
        b"a:b",
        b"\x7f",
    )
    below = [_wire([label, *WILD.encode().split(b".")]) for label in odd]
    first, rest = TAPE.name.encode().split(b".", 1)
    yield from _asked(
        scene, [*below, _wire([first + b"\0", *rest.split(b".")]), _wire([first, *rest.split(b"."), b"\0"])]
    )


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def names_longer_than_names_are_cut_nowhere(scene: Scene) -> Iterator[str]:
    """Names beyond 255 bytes that end in an allowed one, and labels beyond 63: buffers that keep the end, or the start."""
    tail = WILD.encode().split(b".")
    wires = [
        _wire([b"a" * 63] * 4 + tail),
        _wire([b"a" * 60] * 4 + tail),
        _wire([b"a"] * 125 + tail),
        b"\x40" + b"a" * 64 + _wire(tail),
        b"\x7f" + b"a" * 127 + _wire(tail),
        b"\x80" + b"a" * 128 + _wire(tail),
    ]
    yield from _asked(scene, wires)


@case(Group.STRINGS, control=the_allowed_name_in_any_case)
def a_star_is_a_letter_of_rules_and_not_of_names(scene: Scene) -> Iterator[str]:
    """A literal ``*`` where a name belongs: compared as text it equals the rule, matched as a pattern it is any name."""
    yield from _named(scene, [f"*.{WILD}".encode(), b"*", b"*.*", b"*." + TAPE.name.encode(), b"**." + WILD.encode()])
