"""The table of special addresses: each range at both ends and just outside, and what hides in IPv6."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.ranges import (
    ALWAYS_DENIED,
    always_denied_networks,
    classify,
    conditional_range,
    embedded_addresses,
    embedding_networks,
    lies_in_conditional_range,
    normalise_address,
    open_spans,
)
from outgate.model.verdict import DenyReason

UNSPECIFIED = DenyReason.FLOOR_UNSPECIFIED
LOOPBACK = DenyReason.FLOOR_LOOPBACK
LINK_LOCAL = DenyReason.FLOOR_LINK_LOCAL
METADATA = DenyReason.FLOOR_METADATA
MULTICAST = DenyReason.FLOOR_MULTICAST
BROADCAST = DenyReason.FLOOR_BROADCAST
PRIVATE = DenyReason.FLOOR_PRIVATE
SHARED = DenyReason.FLOOR_SHARED
LOCAL = DenyReason.FLOOR_UNIQUE_LOCAL
RESERVED = DenyReason.FLOOR_RESERVED
EMBEDDED = DenyReason.FLOOR_EMBEDDED

CLASSES: dict[DenyReason | None, tuple[str, ...]] = {
    None: (
        "1.0.0.0", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255",
        "128.0.0.0", "168.63.129.15", "168.63.129.17", "169.253.255.255", "169.255.0.0", "172.15.255.255",
        "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0", "192.31.196.1", "192.52.193.1", "192.88.98.255",
        "192.88.100.0", "192.167.255.255", "192.169.0.0", "192.175.48.1", "198.17.255.255", "198.20.0.0",
        "198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255",
        "2000::1", "2001:200::1", "2001:3::1", "2001:4:112::1", "2001:db7:ffff::1", "2001:db9::", "2003::1",
        "2606:4700:4700::1111", "2620:4f:8000::1", "2a00:1450::1", "3ffe::1", "3fff:1000::1",
        "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1",
    ),
    UNSPECIFIED: (
        "0.0.0.0", "0.0.0.1", "0.255.255.255", "::", "::ffff:0.0.0.0", "::2", "64:ff9b::", "2002::1",
        "2001:0:0:1:0:f:f7f7:f7f7",  # Teredo, server 0.0.0.1
    ),
    LOOPBACK: (
        "127.0.0.0", "127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
        "2002:7f00:1::1", "64:ff9b:1::7f00:1",
        "2001:0:7f00:1:0:0:f7f7:f7f7",  # Teredo, server 127.0.0.1, client 8.8.8.8
        "2001:0:808:808:0:0:80ff:fffe",  # Teredo, server 8.8.8.8, client 127.0.0.1
    ),
    LINK_LOCAL: (
        "169.254.0.0", "169.254.169.253", "169.254.255.255", "fe80::", "fe80::1%eth0", "febf:ffff::1",
        "::ffff:169.254.1.1", "::169.254.1.1", "64:ff9b::a9fe:101", "2002:a9fe:101::",
    ),
    METADATA: (
        "169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.42.42", "169.254.0.23", "100.100.100.200",
        "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd00:ec2:ffff::1", "fd20:ce::254",
        "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd00:a9fe:a9fe::1", "fd00:100::100:200", "fe80::a9fe:a9fe",
        "::ffff:169.254.169.254", "::ffff:168.63.129.16", "::169.254.169.254", "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1", "64:ff9b:1::a9fe:a9fe",
        "2001:0:808:808:0:0:5601:5601",  # Teredo, client 169.254.169.254
    ),
    MULTICAST: ("224.0.0.0", "224.0.0.251", "239.255.255.255", "ff00::", "ff02::1", "ffff::1", "::ffff:224.0.0.1"),
    BROADCAST: ("255.255.255.255", "::ffff:255.255.255.255", "64:ff9b::ffff:ffff", "2002:ffff:ffff::"),
    EMBEDDED: (
        "64:ff9b:1::808:808", "64:ff9b:1:ffff::1.2.3.4", "64:ff9b:1::a00:1",
        "2001:0:808:808:0:0:f7f7:f7f7",  # Teredo, server and client 8.8.8.8
        "2001:0:808:808:0:0:f5ff:fffe",  # Teredo, client 10.0.0.1
    ),
    PRIVATE: (
        "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255",
        "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1", "2002:c0a8:101::",
    ),
    SHARED: ("100.64.0.0", "100.100.100.199", "100.100.100.201", "100.127.255.255", "::ffff:100.64.0.1"),
    LOCAL: ("fc00::", "fd00::1", "fd00:ec1::254", "fd00:ec3::254", "fd20:ce::253", "fdff:ffff::1"),
    RESERVED: (
        "192.0.0.0", "192.0.0.9", "192.0.0.191", "192.0.0.193", "192.0.0.255", "192.0.2.0", "192.0.2.255",
        "192.88.99.0", "192.88.99.255", "198.18.0.0", "198.19.255.255", "198.51.100.0", "198.51.100.255",
        "203.0.113.0", "203.0.113.255", "240.0.0.0", "255.255.255.254", "::ffff:192.0.2.1", "2002:c000:201::",
        "::8.8.8.8", "::10.0.0.1", "::ffff:0:8.8.8.8", "100::1", "100:0:0:1::1", "1fff:ffff::1", "2001:1::1",
        "2001:2::1", "2001:5::1", "2001:10::1", "2001:20::1", "2001:1ff:ffff::1", "2001:db8::", "2001:db8:ffff::1",
        "3fff::1", "3fff:fff::1", "4000::1", "5f00::1", "8000::1", "fec0::1", "feff::1", "fbff::1", "fe00::1",
        "64:ff9b:0:0:0:1::", "64:ff9b:2::1", "63::1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"), [(text, reason) for reason, texts in CLASSES.items() for text in texts], ids=lambda value: value
)
def test_classify(text: str, reason: DenyReason | None) -> None:
    assert classify(ip_address(text)) is reason


def test_every_floor_class_of_the_table_has_examples_and_a_side() -> None:
    in_context = {DenyReason.FLOOR_HOST, DenyReason.FLOOR_DEVBOX}
    floor = {reason for reason in DenyReason if reason.value.startswith("floor_")}
    assert set(CLASSES) - {None} == floor - in_context
    assert floor - ALWAYS_DENIED == {PRIVATE, SHARED, LOCAL, RESERVED}


addresses4 = st.integers(0, 2**32 - 1).map(IPv4Address)
near_edges4 = st.builds(
    lambda text, offset: IPv4Address((int(IPv4Address(text)) + offset) % 2**32),
    st.sampled_from([text for texts in CLASSES.values() for text in texts if "." in text and ":" not in text]),
    st.integers(-300, 300),
)
any_address4 = addresses4 | near_edges4
addresses6 = st.integers(0, 2**128 - 1).map(IPv6Address)


def at(prefix: str, address: IPv4Address, shift: int = 0) -> IPv6Address:
    return IPv6Address(int(IPv6Address(prefix)) | int(address) << shift)


@given(any_address4)
def test_mapped_nat64_and_6to4_addresses_are_judged_like_the_one_inside(address: IPv4Address) -> None:
    expected = classify(address)
    assert classify(at("::ffff:0:0", address)) is expected
    assert classify(at("64:ff9b::", address)) is expected
    assert classify(at("2002::", address, 80)) is expected


@given(any_address4, any_address4, st.integers(0, 0xFFFF_FFFF))
def test_teredo_is_never_open_and_shows_what_it_hides(server: IPv4Address, client: IPv4Address, flags: int) -> None:
    value = int(IPv6Address("2001::")) | int(server) << 64 | flags << 32 | (int(client) ^ 0xFFFF_FFFF)
    assert embedded_addresses(IPv6Address(value)) == (server, client)
    inside = [reason for reason in (classify(server), classify(client)) if reason in ALWAYS_DENIED]
    assert classify(IPv6Address(value)) is (inside[0] if inside else EMBEDDED)


@given(any_address4)
def test_compatible_and_local_nat64_addresses_are_never_open(address: IPv4Address) -> None:
    inside = classify(address)
    compatible, local = at("::", address), at("64:ff9b:1::", address)
    assert embedded_addresses(compatible) == embedded_addresses(local) == (address,)
    assert classify(local) is (inside if inside in ALWAYS_DENIED else EMBEDDED)
    if int(address) > 1:  # :: and ::1 have entries of their own
        assert classify(compatible) is (inside if inside in ALWAYS_DENIED else RESERVED)


@given(addresses4, addresses6)
def test_addresses_that_carry_nothing(address4: IPv4Address, address6: IPv6Address) -> None:
    assert embedded_addresses(address4) == ()
    forms = [IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")]
    forms += [IPv6Network("2002::/16"), IPv6Network("2001::/32")]
    assert bool(embedded_addresses(address6)) is any(address6 in form for form in forms)


@pytest.mark.parametrize("text", ["64:ff9b:0:0:0:1::", "64:ff9b:2::1", "::ffff:0:1.2.3.4", "2001:1::1", "2003::1"])
def test_neighbours_of_the_embedding_forms_carry_nothing(text: str) -> None:
    assert embedded_addresses(IPv6Address(text)) == ()


@given(any_address4)
def test_normalising_unwraps_mapped_addresses_only(address: IPv4Address) -> None:
    assert normalise_address(address) is address
    assert normalise_address(at("::ffff:0:0", address)) == address
    for other in (at("64:ff9b::", address), at("2002::", address, 80), at("::", address)):
        assert normalise_address(other) is other


def test_always_denied_networks_are_disjoint_and_sorted_by_family() -> None:
    networks = always_denied_networks()
    four = [network for network in networks if isinstance(network, IPv4Network)]
    six = [network for network in networks if isinstance(network, IPv6Network)]
    assert networks == (*four, *six)
    assert list(collapse_addresses(four)) == four
    assert list(collapse_addresses(six)) == six


carrying = st.one_of(
    any_address4,
    addresses6,
    any_address4.map(lambda address: at("::ffff:0:0", address)),
    any_address4.map(lambda address: at("::", address)),
    any_address4.map(lambda address: at("64:ff9b::", address)),
    any_address4.map(lambda address: at("64:ff9b:1::", address)),
    any_address4.map(lambda address: at("2002::", address, 80)),
    st.builds(
        lambda server, client: IPv6Address(int(at("2001::", server, 64)) | int(client)), any_address4, any_address4
    ),
    st.sampled_from([ip_address(text.partition("%")[0]) for texts in CLASSES.values() for text in texts]),
)


@given(carrying)
def test_the_kernels_networks_hold_exactly_the_addresses_of_the_always_denied_classes(
    address: IPv4Address | IPv6Address,
) -> None:
    held = any(address in network for network in always_denied_networks())
    assert held is (classify(address) in ALWAYS_DENIED)


@given(any_address4, st.integers(0, 32), any_address4)
def test_embedding_networks_hold_exactly_what_carries_the_network(
    base: IPv4Address, length: int, address: IPv4Address
) -> None:
    network = IPv4Network((base, length), strict=False)
    forms = embedding_networks(network)
    for carrier in (
        at("::ffff:0:0", address),
        at("::", address),
        at("64:ff9b::", address),
        at("2002::", address, 80),
    ):
        assert any(carrier in form for form in forms) is (address in network)


INSIDE = {
    "10.0.0.0/8": True, "10.1.0.0/16": True, "10.0.0.1/32": True, "172.16.0.0/12": True, "192.168.4.0/22": True,
    "100.64.0.0/10": True, "100.100.100.200/32": True, "198.18.0.0/15": True, "192.0.2.0/24": True,
    "192.0.0.0/24": True, "240.0.0.0/4": True, "255.255.255.255/32": True,
    "0.0.0.0/0": False, "8.0.0.0/7": False, "10.0.0.0/7": False, "172.0.0.0/8": False, "192.0.0.0/16": False,
    "192.168.0.0/15": False, "198.0.0.0/8": False, "224.0.0.0/3": False, "8.8.8.0/24": False, "9.0.0.0/8": False,
    "127.0.0.0/8": False, "169.254.0.0/16": False, "0.0.0.0/8": False, "1.1.1.1/32": False,
}  # fmt: skip


@pytest.mark.parametrize(("text", "is_inside"), INSIDE.items(), ids=INSIDE.keys())
def test_a_network_opens_a_special_range_only_from_wholly_inside(text: str, *, is_inside: bool) -> None:
    # 10.0.0.0/7 has host bits; what counts is the network it would be.
    assert lies_in_conditional_range(IPv4Network(text, strict=False)) is is_inside


RANGES = {
    "10.1.2.3": "10.0.0.0/8", "172.31.0.1": "172.16.0.0/12", "192.168.1.1": "192.168.0.0/16",
    "100.64.0.1": "100.64.0.0/10", "192.0.2.1": "192.0.2.0/24", "250.0.0.1": "240.0.0.0/4", "fd12::1": "fc00::/7",
    "8.8.8.8": None, "11.0.0.0": None, "0.0.0.1": None, "2001:db8::1": None, "2606::1": None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "range_text"), RANGES.items(), ids=RANGES.keys())
def test_conditional_range(text: str, range_text: str | None) -> None:
    found = conditional_range(ip_address(text))
    assert (None if found is None else str(found)) == range_text


@given(any_address4, any_address4, any_address4)
def test_open_spans_partition_what_can_be_opened(one: IPv4Address, two: IPv4Address, probe: IPv4Address) -> None:
    first, last = sorted((int(one), int(two)))
    ordinary = open_spans(first, last, conditional=False)
    conditional = open_spans(first, last, conditional=True)
    for spans in (ordinary, conditional):
        assert all(start <= end for start, end in spans)
        assert list(spans) == sorted(spans)
    value, reason = int(probe), classify(probe)
    within = first <= value <= last
    assert any(start <= value <= end for start, end in ordinary) is (within and reason is None)
    opened = within and reason is not None and reason not in ALWAYS_DENIED
    assert any(start <= value <= end for start, end in conditional) is opened


def test_open_spans_of_nothing_are_nothing() -> None:
    assert open_spans(0, -1, conditional=False) == ()
    assert open_spans(0, 0, conditional=True) == ()
