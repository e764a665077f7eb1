"""Messages that two parsers read differently, or that a resolver has no business to pass on."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.lab import LAB, an_allowed_lookup_is_answered, name_of, run, token_of
from attack.scene import Scene
from attack.world import ALLOWED, DENIED_ZONE


def _asked_and_still_answering(scene: Scene, source: str, name: str) -> Iterator[str]:
    """Run ``source``; what of ``name`` reached a server, and whether the box's resolver survived it."""
    run(scene, source)
    yield from scene.dns_messages_with(token_of(name))
    if not an_allowed_lookup_is_answered(scene):
        yield "the resolver answers nobody any more"


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def a_second_question_does_not_ride_along(scene: Scene) -> Iterator[str]:
    """QDCOUNT of two: the filter judges the first question, the resolver behind it answers the other.

    RFC 9619 had to say in 2024 what everybody did: one question.
    """
    name, fine = scene.fresh_name(DENIED_ZONE), name_of(scene)
    yield from _asked_and_still_answering(
        scene,
        f"""
        allowed, denied = question("{fine}"), question("{name}")
        sent = [message(allowed + denied, (2, 0, 0, 0)), message(denied + allowed, (2, 0, 0, 0)),
                message(allowed + denied, (1, 0, 0, 0)), message(allowed + denied, (65535, 0, 0, 0))]
        ask_all(sent, wait_s=0.5)
        ask_tcp(b"".join(struct.pack("!H", len(one)) + one for one in sent))
        """,
        name,
    )


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def records_in_a_query_carry_nothing(scene: Scene) -> Iterator[str]:
    """Queries with no question, or with records in sections that a query has none in: names in owners and in data."""
    name, fine = scene.fresh_name(DENIED_ZONE), name_of(scene)
    yield from _asked_and_still_answering(
        scene,
        f"""
        record = question("{name}", 16) + struct.pack("!IH", 60, 4) + b"\\3abc"
        sent = [message(record, (0, 1, 0, 0)), message(record, (0, 0, 1, 0)), message(record, (0, 0, 0, 1)),
                message(question("{fine}") + record, (1, 1, 0, 0)), message(question("{fine}") + record, (1, 0, 1, 0)),
                message(question("{fine}") + record, (1, 0, 0, 1)),
                message(question("{fine}") + opt() + record, (1, 0, 0, 2)), message(b"", (0, 0, 0, 0))]
        ask_all(sent, wait_s=0.5)
        ask_tcp(b"".join(struct.pack("!H", len(one)) + one for one in sent))
        """,
        name,
    )


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def an_answer_that_nobody_asked_for_goes_nowhere(scene: Scene) -> Iterator[str]:
    """Messages with the answer bit: filters that look at queries alone let them pass, and they carry data like any other."""
    name = scene.fresh_name(DENIED_ZONE)
    yield from _asked_and_still_answering(
        scene,
        f"""
        for server in (*resolvers(), "{ALLOWED.address4}"):
            ask_all([dns_query("{name}", flags=flags) for flags in (0x8180, 0x8583, 0x8000)], server, wait_s=0.3)
        """,
        name,
    )


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def other_operations_than_queries_do_not_leave(scene: Scene) -> Iterator[str]:
    """Opcodes: IQUERY, STATUS, NOTIFY (RFC 1996), UPDATE (RFC 2136), DSO (RFC 8490) and those without a name.

    A dynamic update for an allowed zone writes data where anybody can read it.
    """
    names = [scene.fresh_name(DENIED_ZONE), name_of(scene)]
    run(
        scene,
        f"""
        sent = [dns_query(name, 6, flags=opcode << 11) for name in {names} for opcode in range(1, 16)]
        for server in resolvers()[:1]:
            ask_all(sent, server, wait_s=0.5)
            ask_tcp(b"".join(struct.pack("!H", len(one)) + one for one in sent), server)
        """,
    )
    for name in names:
        yield from scene.dns_messages_with(token_of(name))


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def other_classes_than_internet_do_not_leave(scene: Scene) -> Iterator[str]:
    """CHAOS, HESIOD, NONE, ANY and unassigned classes, of denied and of allowed names: rules are written for class IN."""
    names = [scene.fresh_name(DENIED_ZONE), name_of(scene)]
    run(
        scene,
        f"""
        ask_all([dns_query(name, t, class_=c) for name in {names} for t in (1, 16) for c in (0, 3, 4, 254, 255, 4242)])
        """,
    )
    for name in names:
        yield from scene.dns_messages_with(token_of(name))


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def a_dot_or_a_zero_inside_a_label_does_not_disguise_a_name(scene: Scene) -> Iterator[str]:
    """One label that spells several, or ends early: text and wire form of a name disagree.

    "Injection Attacks Reloaded" (Jeitner and Shulman, USENIX Security 2021) found them all over resolvers and libraries.
    A coding agent's sandbox once took ``attacker.example\\0.allowed.example`` for an allowed host.
    """
    name = scene.fresh_name(DENIED_ZONE)
    token, zone = token_of(name), DENIED_ZONE.encode()
    allowed, lab = ALLOWED.name.encode(), LAB.encode()
    spelled = [
        [token, lab],
        [token + b"." + lab],
        [token, b"lab.example", b"com"],
        [token, b"lab.example.com"],
        [token + b"." + zone + b"\0", *lab.split(b".")],
        [*name.encode().split(b"."), b"\0", *lab.split(b".")],
        [token + b"\n", *lab.split(b".")],
        [token + b" ", *lab.split(b".")],
        [b"\0" + token, *lab.split(b".")],
        [token + b"@", *lab.split(b".")],
        [token + b"\\", *lab.split(b".")],
        [token, allowed],
        [token, *allowed.split(b"."), b"\0"],
        [token, b"lab\0", b"example", b"com"],
        [token, b"lab\xad", b"example", b"com"],
        [token, b"\xff\xfe", *lab.split(b".")],
    ]
    yield from _asked_and_still_answering(
        scene, f"ask_all([message(question(labels(*parts))) for parts in {spelled}], wait_s=0.5)", name
    )


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def broken_names_are_not_passed_on(scene: Scene) -> Iterator[str]:
    """Compression in a question, label types that do not exist, names and labels that are too long or never end.

    RFC 9267 lists how such names broke one implementation after the other.
    """
    name = scene.fresh_name(DENIED_ZONE)
    token = token_of(name)
    first = bytes([len(token)]) + token
    tail = b"".join(bytes([len(label)]) + label.encode() for label in LAB.split("."))
    names = [
        first + b"\xc0\x0c",
        first + b"\xc0\x00",
        first + b"\xc0" + bytes([12 + len(first)]),
        first + b"\x40" + tail + b"\0",
        first + b"\x80" + tail + b"\0",
        first + b"\x41\x08" + tail + b"\0",
        (b"\x3f" + b"a" * 63) * 4 + first + tail + b"\0",
        first + b"\x01a" * 130 + tail + b"\0",
        first + tail,
        first * 3 + b"\x7f" + tail,
    ]
    yield from _asked_and_still_answering(
        scene, f"ask_all([message(question(name)) for name in {names}], wait_s=0.5)", name
    )


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def the_framing_of_tcp_hides_nothing(scene: Scene) -> Iterator[str]:
    """Lengths that lie: zero, one, too long, too short; a query inside another's length; 200 at once; byte by byte.

    What a filter of packets or first messages sees is not what the resolver reads from the stream.
    """
    name, fine = scene.fresh_name(DENIED_ZONE), name_of(scene)
    yield from _asked_and_still_answering(
        scene,
        f"""
        denied, allowed = dns_query("{name}"), dns_query("{fine}")
        framed, good = (struct.pack("!H", len(one)) + one for one in (denied, allowed))
        for stream in (
            b"\\0\\0" + framed,
            b"\\0\\1x" + framed,
            good + framed,
            good * 200 + framed,
            struct.pack("!H", len(allowed) + len(framed)) + allowed + framed,
            struct.pack("!H", len(denied) - 5) + denied + framed,
            struct.pack("!H", 65535) + denied,
            b"\\0\\0" * 500 + framed,
        ):
            ask_tcp(stream, wait_s=0.5)
        with refused(), socket.create_connection((resolvers()[0], 53), 2) as flow:
            flow.settimeout(1)
            for byte in framed:
                flow.sendall(bytes((byte,)))
                time.sleep(0.002)
            flow.recv(100)
        """,
        name,
    )


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def queries_too_big_for_a_packet_are_not_passed_on(scene: Scene) -> Iterator[str]:
    """Queries of some kilobytes, in fragments: a filter that reads the first fragment, or a buffer that cuts, is blind."""
    name, fine = scene.fresh_name(DENIED_ZONE), name_of(scene)
    yield from _asked_and_still_answering(
        scene,
        f"""
        sent = [dns_query("{name}") + bytes(3000),
                message(question("{name}") + opt(option(12, bytes(2500))), (1, 0, 0, 1)),
                message(question("{fine}") + opt(option(12, bytes(2500) + b"{token_of(name).decode()}")), (1, 0, 0, 1))]
        for one in sent:
            for server in resolvers():
                ask(one, server, wait_s=0.2)
        """,
        name,
    )
