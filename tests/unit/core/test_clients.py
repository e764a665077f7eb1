"""Who a client is for limits, and how many wrong keys it may show."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.clients import LOCAL, WINDOW_S, AttemptLimit, client_of, find_client

PROXIES = (ip_network("10.0.0.7/32"), ip_network("fd00::/64"))


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", LOCAL),
        ("dbx_1", "dbx_1"),
    ],
)
def test_a_client_is_an_ipv4_address_or_a_network_of_ipv6(address: str, client: str) -> None:
    assert client_of(address) == client


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("192.0.2.1", "198.51.100.9", "192.0.2.1"),
        ("10.0.0.7", "198.51.100.9", "198.51.100.9"),
        ("::ffff:10.0.0.7", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.7", "203.0.113.1, 198.51.100.9", "198.51.100.9"),
        ("10.0.0.7", "203.0.113.1, 198.51.100.9, 10.0.0.7", "198.51.100.9"),
        ("10.0.0.7", "198.51.100.9, fd00::3", "198.51.100.9"),
        ("10.0.0.7", "", "10.0.0.7"),
        ("10.0.0.7", "unknown", "10.0.0.7"),
        ("10.0.0.7", "198.51.100.9, ", "10.0.0.7"),
        ("10.0.0.7", "10.0.0.7, 10.0.0.7", "10.0.0.7"),
        ("", "198.51.100.9", LOCAL),
    ],
)
def test_only_what_a_trusted_proxy_wrote_is_believed(peer: str, forwarded_for: str, client: str) -> None:
    assert find_client(peer, forwarded_for, PROXIES) == client


def test_without_a_setting_nobody_is_believed() -> None:
    assert find_client("10.0.0.7", "198.51.100.9", ()) == "10.0.0.7"


def test_a_client_waits_after_its_last_wrong_key_and_as_long_as_it_is_told() -> None:
    limit = AttemptLimit()
    for _ in range(60):
        assert limit.wait_s("a", b"x", 60, 0.0) == 0
        limit.fail("a", 60, 0.0)
    assert limit.wait_s("a", b"x", 60, 0.0) == 1
    assert limit.wait_s("a", b"x", 60, 0.9) == 1
    assert limit.wait_s("a", b"x", 60, 1.0) == 0
    limit.fail("a", 60, 1.0)
    assert limit.wait_s("a", b"x", 60, 1.0) == 1
    assert limit.wait_s("a", b"x", 60, 1.0 + WINDOW_S) == 0
    assert limit.wait_s("b", b"x", 60, 0.0) == 0, "another client is not told to wait"


def test_a_key_that_was_right_before_is_looked_at_from_there_and_only_from_there() -> None:
    limit = AttemptLimit()
    limit.prove("a", b"right")
    limit.prove("b", b"right too")
    for _ in range(3):
        limit.fail("a", 2, 0.0)
    assert limit.wait_s("a", b"right", 2, 0.0) == 0
    assert limit.wait_s("a", b"right too", 2, 0.0) == 30


def test_zero_means_any_number() -> None:
    limit = AttemptLimit()
    for _ in range(1000):
        limit.fail("a", 0, 0.0)
    assert limit.wait_s("a", b"x", 0, 0.0) == 0
    assert not limit.is_news("a")


def test_a_limit_that_is_reached_is_told_once_until_a_minute_of_peace() -> None:
    limit = AttemptLimit()
    limit.fail("a", 2, 0.0)
    assert not limit.is_news("a")
    limit.fail("a", 2, 0.0)
    assert limit.is_news("a")
    limit.fail("a", 2, 1.0)
    assert not limit.is_news("a")
    for _ in range(2):
        limit.fail("a", 2, 100.0)
    assert limit.is_news("a")


def test_what_turns_out_right_is_not_counted() -> None:
    limit = AttemptLimit()
    for _ in range(100):
        limit.fail("a", 2, 0.0)
        limit.forgive("a", 2)
    assert limit.wait_s("a", b"x", 2, 0.0) == 0


def test_memory_is_bounded_and_the_ones_heard_of_last_stay() -> None:
    limit = AttemptLimit(clients_max=10, proofs_max=10)
    for number in range(1000):
        limit.prove(f"c{number}", b"x")
        limit.fail(f"c{number}", 1, 0.0)
        limit.prove("own", b"own")
        limit.fail("own", 1, 0.0)
    assert len(limit._failures) == len(limit._proofs) == 10
    assert limit.wait_s("own", b"x", 1, 0.0) == 60
    assert limit.wait_s("own", b"own", 1, 0.0) == 0


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 20))
def test_in_no_minute_more_wrong_keys_are_looked_at_than_twice_the_limit(pauses_s: list[float], most: int) -> None:
    limit, now_s, looked = AttemptLimit(), 0.0, []
    for pause_s in pauses_s:
        now_s += pause_s
        if limit.wait_s("a", b"x", most, now_s) == 0:
            limit.fail("a", most, now_s)
            looked.append(now_s)
    # A full bucket, and what grows back meanwhile.
    assert all(sum(1 for t in looked if start <= t < start + WINDOW_S) <= 2 * most for start in looked)
