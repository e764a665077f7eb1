"""Policy documents: the way there and back, and what is refused with which field to blame."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.documents import document_from_policy, policy_from_document
from outgate.errors import InvalidValueError
from outgate.model.desired import CidrDocument, PolicyDocument, PortDocument
from outgate.model.plan import GRANT_LAST
from outgate.model.policy import EGRESS_FLAGS, EgressRules, NetworkPolicy
from support.policies import make_policy, make_rule
from support.strategies import cidr_rules, host_patterns


def document(
    *, hostnames: Sequence[str] = (), cidrs: Sequence[CidrDocument] = (), number: int = 16, allow_all: bool = False
) -> PolicyDocument:
    return PolicyDocument(
        "npol_1", "ci", number, 3, allow_all, allowed_hostnames=tuple(hostnames), allowed_cidrs=tuple(cidrs)
    )


def test_a_document_becomes_a_policy_and_its_grants() -> None:
    policy, grants = policy_from_document(
        document(
            hostnames=["PyPI.org.", "*.github.com"],
            cidrs=[
                CidrDocument("10.0.0.0/8", 100, (PortDocument(443, protocol="TCP"), PortDocument(1, 9, "UDP"))),
                CidrDocument("8.0.0.0/8", 101, (PortDocument(80),)),
                CidrDocument("9.0.0.0/8", GRANT_LAST),
            ],
        )
    )
    expected = make_policy(
        "pypi.org", "*.github.com", cidrs=["10.0.0.0/8 tcp/443 udp/1-9", "8.0.0.0/8 any/80", "9.0.0.0/8"]
    )
    assert policy == NetworkPolicy("npol_1", "ci", 16, 3, expected.egress)
    assert grants == (100, 101, GRANT_LAST)
    assert policy.egress.allowed_hostnames[0].spelling == "PyPI.org."
    assert [ports.end_port_given for ports in policy.egress.allowed_cidrs[0].ports] == [False, True]


@pytest.mark.parametrize("flag", EGRESS_FLAGS)
def test_each_flag_goes_there_and_back_by_itself(flag: str) -> None:
    sent = msgspec.structs.replace(document(), **{flag: True})
    policy, grants = policy_from_document(sent)
    assert [name for name in EGRESS_FLAGS if getattr(policy.egress, name)] == [flag]
    assert document_from_policy(policy, grants) == sent


REFUSALS: dict[str, tuple[PolicyDocument, str, str]] = {
    "a host name that is none": (
        document(hostnames=["a.example", "b..example"]),
        "allowed_hostnames[1]",
        "'b..example' has an empty label; remove the extra dot.",
    ),
    "too many host names": (
        document(hostnames=["a.example"] * 1001),
        "allowed_hostnames",
        "allowed_hostnames has 1,001 entries; it takes at most 1,000.",
    ),
    "too many networks": (
        document(cidrs=[CidrDocument("8.0.0.0/8", 100)] * 1001),
        "allowed_cidrs",
        "allowed_cidrs has 1,001 entries; it takes at most 1,000.",
    ),
    "too many ports": (
        document(cidrs=[CidrDocument("8.0.0.0/8", 100, (PortDocument(1),) * 101)]),
        "allowed_cidrs[0].ports",
        "allowed_cidrs[0].ports has 101 entries; it takes at most 100.",
    ),
    "a network with host bits": (
        document(cidrs=[CidrDocument("8.0.0.0/8", 100), CidrDocument("8.0.0.1/8", 101)]),
        "allowed_cidrs[1].cidr",
        "'8.0.0.1/8' has host bits set; write 8.0.0.0/8 instead.",
    ),
    "a port that is none": (
        document(cidrs=[CidrDocument("8.0.0.0/8", 100, (PortDocument(1), PortDocument(0)))]),
        "allowed_cidrs[0].ports[1].port",
        "port is 0; ports are 1 to 65535.",
    ),
    "an end before the start": (
        document(cidrs=[CidrDocument("8.0.0.0/8", 100, (PortDocument(2, 1),))]),
        "allowed_cidrs[0].ports[0].end_port",
        "end_port 1 lies before port 2; swap them, or leave end_port out for one port.",
    ),
    "a protocol that is none": (
        document(cidrs=[CidrDocument("8.0.0.0/8", 100, (PortDocument(2, protocol="tcp"),))]),
        "allowed_cidrs[0].ports[0].protocol",
        "protocol is 'tcp'; write TCP or UDP, or leave it out for both.",
    ),
    "a grant below the first": (
        document(cidrs=[CidrDocument("8.0.0.0/8", 15)]),
        "allowed_cidrs[0].grant",
        "grant is 15; it is 16 to 1073741823.",
    ),
    "a grant beyond the last": (
        document(cidrs=[CidrDocument("8.0.0.0/8", 1), CidrDocument("8.0.0.0/8", GRANT_LAST + 1)][1:]),
        "allowed_cidrs[0].grant",
        "grant is 1073741824; it is 16 to 1073741823.",
    ),
    "number 0": (document(number=0), "number", "number is 0; it is 1 to 2147483646."),
    "a number whose allow_all grant would be the mark of a reset flow": (
        document(number=0x7FFF_FFFF),
        "number",
        "number is 2147483647; it is 1 to 2147483646.",
    ),
}


@pytest.mark.parametrize(("sent", "field", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_naming_the_entry(sent: PolicyDocument, field: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as refusal:
        policy_from_document(sent)
    assert (refusal.value.field, refusal.value.message) == (field, message)


def test_a_thousand_entries_are_taken() -> None:
    policy, grants = policy_from_document(
        document(
            hostnames=["a.example"] * 1000, cidrs=[CidrDocument("8.0.0.0/8", 100, (PortDocument(1),) * 100)] * 1000
        )
    )
    assert (len(policy.egress.allowed_hostnames), len(grants)) == (1000, 1000)


def test_grants_must_be_parallel_to_the_rules() -> None:
    with pytest.raises(ValueError, match="shorter"):
        document_from_policy(make_policy(cidrs=["8.0.0.0/8", "9.0.0.0/8"]), (100,))


@given(
    st.builds(
        EgressRules,
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.booleans(),
        st.lists(host_patterns, max_size=3).map(tuple),
        st.lists(cidr_rules, max_size=3).map(tuple),
    ),
    st.integers(1, 0x7FFF_FFFE),
)
def test_there_and_back_through_json_keeps_everything(egress: EgressRules, number: int) -> None:
    policy = NetworkPolicy("npol_1", "ci", number, 7, egress)
    grants = tuple(range(100, 100 + len(egress.allowed_cidrs)))
    encoded = msgspec.json.encode(document_from_policy(policy, grants))
    back = policy_from_document(msgspec.json.decode(encoded, type=PolicyDocument))
    assert back == (policy, grants)
    spellings = [pattern.spelling for pattern in back[0].egress.allowed_hostnames]
    assert spellings == [pattern.spelling for pattern in egress.allowed_hostnames]


def test_one_port_given_as_a_range_is_echoed_as_given() -> None:
    rule = make_rule("8.0.0.0/8 tcp/80-80 tcp/80")
    assert document_from_policy(make_policy(cidrs=[rule]), (100,)).allowed_cidrs[0].ports == (
        PortDocument(80, 80, "TCP"),
        PortDocument(80, None, "TCP"),
    )
