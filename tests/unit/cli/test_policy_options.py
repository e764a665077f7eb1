import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.cli.policy_options import read_policy_file, summarise_policy
from outgate.core.cidr_lines import parse_cidr_line, render_cidr_line
from outgate.errors import InvalidValueError

_PORTS = st.tuples(st.integers(1, 65535), st.integers(1, 65535), st.sampled_from([None, "TCP", "UDP"])).map(
    lambda drawn: {
        "port": min(drawn[:2]),
        **({"end_port": max(drawn[:2])} if drawn[0] != drawn[1] else {}),
        **({"protocol": drawn[2]} if drawn[2] else {}),
    }
)


@given(st.lists(_PORTS, max_size=4))
def test_a_rendered_rule_reads_back(ports: list[dict[str, object]]) -> None:
    rule: dict[str, object] = {"cidr": "10.0.0.0/8", **({"ports": ports} if ports else {})}
    assert parse_cidr_line(render_cidr_line(rule)) == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("10.0.0.0/8", {"cidr": "10.0.0.0/8"}),
        ("10.0.0.0/8:443/tcp", {"cidr": "10.0.0.0/8", "ports": [{"port": 443, "protocol": "TCP"}]}),
        (
            "10.0.0.0/8:53,8000-8100/UDP",
            {"cidr": "10.0.0.0/8", "ports": [{"port": 53}, {"port": 8000, "end_port": 8100, "protocol": "UDP"}]},
        ),
        ("not a network", {"cidr": "not a network"}),
    ],
)
def test_a_network_option_becomes_the_apis_rule(text: str, rule: dict[str, object]) -> None:
    assert parse_cidr_line(text) == rule


@pytest.mark.parametrize("ports", ["", "x", "443/sctp", "443-", "-443", "443/tcp/udp", "1,,2", "٤٤٣"])
def test_ports_in_another_form_are_refused_with_the_form(ports: str) -> None:
    with pytest.raises(InvalidValueError, match="443/tcp,8000-8100"):
        parse_cidr_line(f"10.0.0.0/8:{ports}")


@pytest.mark.parametrize(
    ("egress", "summary"),
    [
        ({"allow_all": True, "allowed_hostnames": ["x.org"]}, "everything (allow_all)"),
        ({"allowed_hostnames": [], "allowed_cidrs": []}, "nothing"),
        ({"allowed_hostnames": ["x.org"], "allowed_cidrs": [{}, {}]}, "1 host, 2 networks"),
        ({"allow_mcp_gateway": True, "allowed_hostnames": ["x.org", "y.org"]}, "MCP gateway, 2 hosts"),
    ],
)
def test_a_summary_says_what_is_let_out(egress: dict[str, object], summary: str) -> None:
    assert summarise_policy({"egress": egress}) == summary


def test_a_policy_file_is_a_json_object(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"allowed_hostnames": ["x.org"]}))
    assert read_policy_file(path) == {"allowed_hostnames": ["x.org"]}
    for text, complaint in (("[]", "no JSON object"), ("{", "not JSON")):
        path.write_text(text)
        with pytest.raises(InvalidValueError, match=complaint):
            read_policy_file(path)
    with pytest.raises(InvalidValueError, match="cannot be read"):
        read_policy_file(tmp_path / "missing.json")
