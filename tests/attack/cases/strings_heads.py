"""What a request names: heads that two parsers read differently, and the authority's many spellings."""

from collections.abc import Iterator

from attack.case import Group, case
from attack.flights import Flight, send, send_by_port
from attack.readings import a_plain_request, requests_read
from attack.scene import Scene
from attack.world import TAPE, TENANT

GOOD, BAD = TAPE.name.encode(), TENANT.encode()


def _get(*lines: bytes, target: bytes = b"/", end: bytes = b"\r\n") -> bytes:
    return end.join((b"GET " + target + b" HTTP/1.1", *lines, b"", b""))


def _good(*lines: bytes) -> bytes:
    return _get(b"Host: " + GOOD, *lines)


def _bad(*lines: bytes) -> bytes:
    return _get(b"Host: " + BAD, *lines)


def _nothing_read(scene: Scene, flights: list[Flight], *, is_answered: bool = False) -> Iterator[str]:
    send(scene, flights, 80, is_answered=is_answered)
    yield from requests_read(scene)


def _nothing_arrives(scene: Scene, flights: list[Flight]) -> Iterator[str]:
    send(scene, flights, 80)
    yield from scene.bytes_to(TAPE.address4, TAPE.address6, port=80)


@case(Group.STRINGS, control=a_plain_request)
def every_request_of_a_kept_connection_is_judged(scene: Scene) -> Iterator[str]:
    """The first one was allowed, so the connection is: the later ones go to whichever site they name."""
    flights: list[Flight] = [[_good(), _bad()], [_good(), _good(), _bad()], [_good(), b"\r\n" + _bad()]]
    send(scene, flights, 80, 8080, is_answered=True)
    yield from requests_read(scene)


@case(Group.STRINGS, control=a_plain_request)
def a_pipelined_request_is_judged_like_any_other(scene: Scene) -> Iterator[str]:
    """Several requests in one segment, or cut anywhere: a reader that looks at the start of segments misses the second."""
    both = _good() + _bad()
    cut = len(_good())
    flights: list[Flight] = [
        both,
        _good() * 5 + _bad(),
        [both[: cut + 3], both[cut + 3 :]],
        [both[: cut - 2], both[cut - 2 :]],
    ]
    body = b"POST / HTTP/1.1\r\nHost: " + GOOD + b"\r\nContent-Length: 5\r\n\r\nhello"
    yield from _nothing_read(scene, [*flights, body + _bad(), [body[:-3], body[-3:] + _bad()]])


@case(Group.STRINGS, control=a_plain_request)
def two_hosts_are_not_read_as_the_nicer_one(scene: Scene) -> Iterator[str]:
    """Host twice: first or last? RFC 9112 §3.2 wants a 400, and servers have done everything else."""
    good, bad = b"Host: " + GOOD, b"Host: " + BAD
    fields = (
        (good, bad),
        (bad, good),
        (good, b"host: " + BAD),
        (good, b"X: y", b"HOST:" + BAD),
        (good, b"Host : " + BAD),
        (good, b" Host: " + BAD),
        (b"Host:", bad, good),
    )
    yield from _nothing_read(scene, [_get(*lines) for lines in fields])


@case(Group.STRINGS, control=a_plain_request)
def an_absolute_target_does_not_differ_from_the_host(scene: Scene) -> Iterator[str]:
    """``GET http://other/`` with an allowed Host: servers go by the target, judges by the header (RFC 9112 §3.2.2)."""
    bad, good = b"http://" + BAD, b"http://" + GOOD
    targets = (
        bad + b"/",
        bad,
        b"HTTP://" + BAD + b":80/",
        b"http://" + GOOD + b"@" + BAD + b"/",
        b"https://" + BAD + b"/",
    )
    flights: list[Flight] = [_get(b"Host: " + GOOD, target=target) for target in targets]
    flights += [
        _get(b"Host: " + BAD, target=good + b"/"),
        _get(target=bad + b"/"),
        [_good(), _get(b"Host: " + GOOD, target=bad)],
    ]
    flights.append(_get(b"Host: " + GOOD, target=b"//" + BAD + b"/"))
    send(scene, flights, 80, is_answered=True)
    for told in requests_read(scene):
        if f"GET //{TENANT}/" not in told:
            yield told


@case(Group.STRINGS, control=a_plain_request)
def a_host_with_decoration_is_the_host_it_names_or_none(scene: Scene) -> Iterator[str]:
    """Ports, user information, dots, case and blanks: whatever the server strips must have been judged without it."""
    spellings = (
        BAD + b":80",
        BAD + b".",
        BAD.upper(),
        b"  " + BAD + b"\t",
        GOOD + b"@" + BAD,
        GOOD + b":80@" + BAD,
        GOOD + b":x@" + BAD + b":80",
        BAD + b":",
        b"\t" + BAD,
    )
    yield from _nothing_read(scene, [_get(b"Host: " + spelling) for spelling in spellings])


@case(Group.STRINGS, control=a_plain_request)
def a_host_that_is_no_host_name_goes_nowhere(scene: Scene) -> Iterator[str]:
    """Percent-encoding, lists, paths, brackets, URLs: URL parsers disagree about each (Orange Tsai, "A New Era of SSRF", 2017)."""
    odd = (
        GOOD.replace(b".", b"%2e"),
        b"%74" + GOOD[1:],
        GOOD + b"%00." + BAD,
        GOOD + b"/." + BAD,
        GOOD + b"#@" + BAD,
        GOOD + b"?" + BAD,
        GOOD + b"\\@" + BAD,
        GOOD + b" " + BAD,
        GOOD + b"," + BAD,
        b"http://" + GOOD,
        b"[" + GOOD + b"]",
        b"[::ffff:2d2d:2d29]",
        b"[fe80::1%25eth0]",
        GOOD + b":99999",
        GOOD + b":-1",
        GOOD + b":8o",
        GOOD + b"..",
        b"." + GOOD,
        b"-" + GOOD,
        b"",
        b"*",
    )
    yield from _nothing_arrives(scene, [_get(b"Host: " + host) for host in odd])


@case(Group.STRINGS, control=a_plain_request)
def a_request_without_a_host_goes_nowhere(scene: Scene) -> Iterator[str]:
    """HTTP/1.0 and 0.9 need none, and a server then answers as its default site: nothing was named, nothing is allowed."""
    flights: list[Flight] = [
        _get(),
        _get().replace(b"1.1", b"1.0"),
        b"GET /\r\n",
        b"GET /\r\n\r\n",
        b"GET http://" + BAD + b"/\r\n\r\n",
        _get(b"Hos\x74\x20: " + GOOD),
        _get(b"X-Host: " + GOOD),
        _get(b"Host"),
    ]
    yield from _nothing_arrives(scene, flights)


@case(Group.STRINGS, control=a_plain_request)
def line_ends_of_other_kinds_do_not_hide_a_field(scene: Scene) -> Iterator[str]:
    """Bare LF, bare CR and NUL: an end of line for one side, a part of the value for the other (RFC 9112 §2.2)."""
    ends = (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\x00\r\n", b"\x00")
    hidden: list[Flight] = [_good(b"X: y" + end + b"Host: " + BAD) for end in ends[:4]]
    ended: list[Flight] = [_get(b"Host: " + GOOD, b"X: y" + end * 2 + _bad()) for end in (b"\n", b"\r")]
    whole: list[Flight] = [_get(b"Host: " + BAD, end=end) for end in (b"\n", b"\r", b"\r\r\n")]
    named: list[Flight] = [_get(b"Host: " + GOOD + b"\x00" + BAD), _get(b"Host: " + BAD + b"\x00" + GOOD)]
    send(scene, [*hidden, *ended, *whole, *named], 80)
    yield from (f"{c.kept!r} at {c.address}" for c in scene.journal().connections if BAD in c.kept)


@case(Group.STRINGS, control=a_plain_request)
def a_folded_line_does_not_hide_a_field(scene: Scene) -> Iterator[str]:
    """obs-fold (RFC 9112 §5.2): a continuation for one side, a field of its own for the other."""
    folds = (b"\r\n ", b"\r\n\t", b"\n ", b"\r\n \r\n ")
    flights: list[Flight] = [_good(b"X: y" + fold + b"Host: " + BAD) for fold in folds]
    flights += [_get(b"Host:" + fold + BAD) for fold in folds]
    flights += [_get(b" Host: " + BAD, b"Host: " + GOOD), _get(b"Host: " + GOOD + folds[0] + BAD)]
    send(scene, flights, 80)
    yield from (f"{c.kept!r} at {c.address}" for c in scene.journal().connections if BAD in c.kept)


@case(Group.STRINGS, control=a_plain_request)
def odd_bytes_in_a_fields_name_do_not_hide_it(scene: Scene) -> Iterator[str]:
    """A blank before the colon, control bytes, high bytes, no colon: dropped by one side, trimmed by the other (RFC 9112 §5.1)."""
    names = (b"Host ", b"Host\t", b"\x0bHost", b"Host\x00", b"\xefHost", b"Ho\x01st", b'"Host"', b"Host\x7f", b"(Host)")
    yield from _nothing_read(scene, [_good(name + b": " + BAD) for name in names])


@case(Group.STRINGS, control=a_plain_request)
def empty_lines_before_a_request_do_not_hide_it(scene: Scene) -> Iterator[str]:
    """Servers skip an empty line before a request (RFC 9112 §2.2), judges may take it for something else than HTTP."""
    before = (b"\r\n", b"\n", b"\r\n" * 50, b" ", b"\t\r\n", b"\x00", b"\r")
    flights: list[Flight] = [lines + _bad() for lines in before[:5]]
    flights += [[lines, _bad()] for lines in before[:3]]
    flights += [_good() + lines + _bad() for lines in before]
    send(scene, flights, 80, 8080)
    yield from (f"{c.kept!r} at {c.address}" for c in scene.journal().connections if BAD in c.kept)


@case(Group.STRINGS, control=a_plain_request)
def a_request_line_of_odd_parts_names_nobody_else(scene: Scene) -> Iterator[str]:
    """Tabs and runs of blanks between the parts, blanks within, lower case: split differently, they move the target."""
    lines: tuple[bytes, ...] = (
        b"GET\t/\tHTTP/1.1",
        b"GET  /  HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"get / http/1.1",
        b"GET /\x0bHTTP/1.1",
        b"GET / HTTP/1.1 x",
    )
    lines += (b"GET http://" + BAD + b"/ / HTTP/1.1", b"GET / http://" + BAD + b"/ HTTP/1.1", b"GET /\x00 HTTP/1.1")
    flights: list[Flight] = [line + b"\r\nHost: " + BAD + b"\r\n\r\n" for line in lines]
    flights += [line + b"\r\nHost: " + GOOD + b"\r\n\r\n" for line in lines if BAD in line]
    send_by_port(scene, {80: flights, 8080: flights[:4]})
    yield from (f"{c.kept!r} at {c.address}" for c in scene.journal().connections if BAD in c.kept)


@case(Group.STRINGS, control=a_plain_request)
def a_name_behind_a_long_head_is_found_or_the_head_is_refused(scene: Scene) -> Iterator[str]:
    """A judge's buffer ends, the server's does not: the field behind it is read by one of them only."""
    flights: list[Flight] = [
        _get(b"X: " + b"x" * size, b"Host: " + BAD) for size in (4000, 8180, 16300, 17 * 1024, 40000)
    ]
    flights += [_good(b"X: " + b"x" * size, b"Host: " + BAD) for size in (8180, 16300, 40000)]
    flights += [_good(*[b"a%d: b" % i for i in range(1200)], b"Host: " + BAD), b"\r\n" * 9000 + _bad()]
    yield from _nothing_read(scene, flights)
