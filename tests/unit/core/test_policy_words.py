"""What a policy does, in words."""

import pytest

from outgate.core.policy_words import describe_policy
from outgate.model.desired import CidrDocument, PolicyDocument, PortDocument


def words(**fields: object) -> str:
    return " ".join(describe_policy(PolicyDocument("npol_1", "ci", 16, 1, **fields)))  # type: ignore[arg-type] # fields of any kind


def test_nothing_and_everything() -> None:
    assert words() == "Nothing is allowed: lookups and connections are denied at once, with the reason."
    assert words(allow_all=True, allowed_hostnames=("x.example",)).startswith("Everything is allowed, private networks")
    assert "denied" not in words(allow_all=True)


def test_names_are_counted_and_a_wildcard_explained() -> None:
    assert words(allowed_hostnames=("x.example",)) == "TCP to a host by name: x.example. Everything else is denied."
    many = words(allowed_hostnames=tuple(f"h{n}.example" for n in range(1000)))
    assert (
        "TCP to 1,000 hosts by name: h0.example, h1.example, h2.example, h3.example, h4.example, h5.example and 994 more."
        in many
    )
    assert "*.x.example covers every name below x.example, at any depth, and not x.example itself." in words(
        allowed_hostnames=("y.example", "*.x.example")
    )


def test_networks_stand_with_their_ports() -> None:
    ports = (PortDocument(443, protocol="TCP"), PortDocument(8000, 8100), PortDocument(53, 53, "UDP"))
    said = words(allowed_cidrs=(CidrDocument("10.0.0.0/8", 7, ports), CidrDocument("9.9.9.0/24", 8)))
    assert "By address: 10.0.0.0/8 (443/tcp, 8000-8100, 53/udp) and 9.9.9.0/24 (every port and protocol)." in said


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["allow_devbox_to_devbox"], "Tunnels of devboxes of the same account are open."),
        (["allow_mcp_gateway"], "What the operator lists as the MCP gateway is open."),
        (
            ["allow_agent_gateway", "allow_runloop_mirrors"],
            "What the operator lists as the agent gateway and the package mirrors is open.",
        ),
        (
            ["allow_agent_gateway", "allow_mcp_gateway", "allow_runloop_mirrors"],
            "What the operator lists as the agent gateway, the MCP gateway and the package mirrors is open.",
        ),
    ],
)
def test_flags(flags: list[str], expected: str) -> None:
    assert words(**dict.fromkeys(flags, True)) == f"{expected} Everything else is denied."


def test_report_only_comes_first_and_denies_nothing() -> None:
    said = words(enforcement="report_only", allowed_hostnames=("x.example",))
    assert said.startswith("Report only: what no rule allows is let through all the same, and recorded.")
    assert said.endswith("x.example.")
    assert words(enforcement="report_only").endswith("No rule allows anything.")
