"""Networks and ports: what is taken, and the exact words of every refusal."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.errors import InvalidValueError
from outgate.model.addresses import CidrError, PortRange, Protocol, parse_cidr, parse_port_range

NO_LENGTH = "has no valid prefix length; write /0 to /32 after the address."
NO_NETWORK = "is not an IPv4 network; write it as in 192.0.2.0/24."
IPV6 = "is IPv6; allowed_cidrs takes IPv4 networks only."

REFUSALS = {
    "host bits": ("10.1.2.3/8", "'10.1.2.3/8' has host bits set; write 10.0.0.0/8 instead."),
    "host bits in the last octet": (
        "192.0.2.1/31",
        "'192.0.2.1/31' has host bits set; write 192.0.2.0/31 instead.",
    ),
    "bare address": (
        "192.0.2.1",
        "'192.0.2.1' lacks a prefix length; write 192.0.2.1/32 for this one address.",
    ),
    "IPv6": ("2001:db8::/32", f"'2001:db8::/32' {IPV6}"),
    "IPv6, mapped": ("::ffff:10.0.0.0/104", f"'::ffff:10.0.0.0/104' {IPV6}"),
    "prefix over 32": ("10.0.0.0/33", f"'10.0.0.0/33' {NO_LENGTH}"),
    "negative prefix": ("10.0.0.0/-1", f"'10.0.0.0/-1' {NO_LENGTH}"),
    "no digits after the slash": ("10.0.0.0/", f"'10.0.0.0/' {NO_LENGTH}"),
    "leading zero": ("10.0.0.0/08", f"'10.0.0.0/08' {NO_LENGTH}"),
    "netmask": ("10.0.0.0/255.0.0.0", f"'10.0.0.0/255.0.0.0' {NO_LENGTH}"),
    "two slashes": ("10.0.0.0/8/8", f"'10.0.0.0/8/8' {NO_LENGTH}"),
    "space behind": ("10.0.0.0/8 ", f"'10.0.0.0/8 ' {NO_LENGTH}"),
    "superscript": ("10.0.0.0/²", f"'10.0.0.0/²' {NO_LENGTH}"),
    "more digits than int() takes": ("10.0.0.0/" + "9" * 5000, f"'10.0.0.0/{'9' * 68}...' {NO_LENGTH}"),
    "space in front": (" 10.0.0.0/8", f"' 10.0.0.0/8' {NO_NETWORK}"),
    "octal": ("010.0.0.0/8", f"'010.0.0.0/8' {NO_NETWORK}"),
    "short": ("10/8", f"'10/8' {NO_NETWORK}"),
    "foreign digits": ("٣.0.0.0/8", f"'٣.0.0.0/8' {NO_NETWORK}"),
    "name": ("example.com", f"'example.com' {NO_NETWORK}"),
    "empty": ("", f"'' {NO_NETWORK}"),
    "long": ("x" * 1_000_000, f"'{'x' * 77}...' {NO_NETWORK}"),
}


@pytest.mark.parametrize(("text", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_network_refused_with_its_canonical_form_where_it_has_one(text: str, message: str) -> None:
    with pytest.raises(CidrError) as refusal:
        parse_cidr(text)
    assert refusal.value.message == message
    assert refusal.value.code == "invalid_cidr"


@pytest.mark.parametrize("text", ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "255.255.255.254/31"])
def test_canonical_network_is_taken(text: str) -> None:
    assert parse_cidr(text) == IPv4Network(text)
    assert str(parse_cidr(text)) == text


@given(st.text(alphabet="0123456789./: ", max_size=25))
def test_any_text_is_a_canonical_network_or_a_refusal(text: str) -> None:
    try:
        network = parse_cidr(text)
    except CidrError:
        return
    assert str(network) == text


PORT_REFUSALS = {
    "port 0": (0, None, "port", "port is 0; ports are 1 to 65535."),
    "negative port": (-1, None, "port", "port is -1; ports are 1 to 65535."),
    "port 65536": (65536, None, "port", "port is 65536; ports are 1 to 65535."),
    "end_port 0": (1, 0, "end_port", "end_port is 0; ports are 1 to 65535."),
    "end_port 65536": (1, 65536, "end_port", "end_port is 65536; ports are 1 to 65535."),
    "end before start": (
        443,
        80,
        "end_port",
        "end_port 80 lies before port 443; swap them, or leave end_port out for one port.",
    ),
}


@pytest.mark.parametrize(("first", "last", "field", "message"), PORT_REFUSALS.values(), ids=PORT_REFUSALS.keys())
def test_port_range_refused_naming_the_field(first: int, last: int | None, field: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as refusal:
        parse_port_range(first, last, None)
    assert (refusal.value.field, refusal.value.message) == (field, message)


def test_a_port_range_remembers_whether_its_end_was_given() -> None:
    alone, given_twice = parse_port_range(443, None, Protocol.TCP), parse_port_range(443, 443, Protocol.TCP)
    assert (alone.first, alone.last, alone.end_port_given) == (443, 443, False)
    assert given_twice.end_port_given is True
    assert alone == given_twice


COVERS = {
    "first port": (PortRange(10, 20, Protocol.TCP), Protocol.TCP, 10, True),
    "last port": (PortRange(10, 20, Protocol.TCP), Protocol.TCP, 20, True),
    "before": (PortRange(10, 20, Protocol.TCP), Protocol.TCP, 9, False),
    "behind": (PortRange(10, 20, Protocol.TCP), Protocol.TCP, 21, False),
    "other protocol": (PortRange(10, 20, Protocol.TCP), Protocol.UDP, 10, False),
    "both protocols: TCP": (PortRange(10, 20, None), Protocol.TCP, 15, True),
    "both protocols: UDP": (PortRange(10, 20, None), Protocol.UDP, 15, True),
    "both protocols, but no third": (PortRange(10, 20, None), Protocol.ICMP, 15, False),
}


@pytest.mark.parametrize(("ports", "protocol", "port", "is_covered"), COVERS.values(), ids=COVERS.keys())
def test_a_port_range_covers(ports: PortRange, protocol: Protocol, port: int, *, is_covered: bool) -> None:
    assert ports.covers(protocol, port) is is_covered
