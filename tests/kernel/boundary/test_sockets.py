"""Which sockets there are in a devbox: every family, type and protocol is tried."""

from typing import Any

import pytest

from kernel.boundary.conftest import run_program
from support.sandbox_lab import Lab

pytestmark = pytest.mark.kernel

UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, DGRAM, RAW = 1, 2, 3
TCP, UDP, PING, PING6 = 6, 17, 1, 58


@pytest.fixture(scope="module", params=[True, False], ids=["root", "user"])
def found(lab: Lab, request: pytest.FixtureRequest) -> Any:
    return run_program(lab, "sockets.py", root=request.param)


def test_only_tcp_udp_ping_unix_and_the_routing_netlink_can_be_made(found: Any) -> None:
    """No raw, packet or vsock socket; no netlink family but the one that ``ip`` reads; no SCTP, MPTCP or AF_ALG."""
    made = {tuple(row) for row in found["made"] if row[0] != UNIX}
    internet = {
        (family, *pair)
        for family, ping in ((INET, PING), (INET6, PING6))
        for pair in ((STREAM, 0), (STREAM, TCP), (DGRAM, 0), (DGRAM, UDP), (DGRAM, ping))
    }
    assert made == internet | {(NETLINK, RAW, 0), (NETLINK, DGRAM, 0)}
    assert {UNIX} == {row[0] for row in found["made"]} - {INET, INET6, NETLINK}


def test_pairs_are_of_unix_sockets(found: Any) -> None:
    assert found["pairs"] == [UNIX]


def test_bits_that_the_kernel_drops_deceive_no_rule(found: Any) -> None:
    """A filter compares 64 bits of each argument, the kernel takes an int (CVE-2015-8543 was a check of that kind)."""
    assert "made" not in found["wide"]
    assert len(found["wide"]) == 15
