"""What is printed of verdicts."""

from typing import Any

from outgate.core.denials import gather_denials
from support.cli_rig import Run

FLOW: dict[str, Any] = {
    "number": 1,
    "time_ms": 1_000,
    "count": 1,
    "devbox_id": "dbx_1",
    "policy_id": "npol_1",
    "verdict": "deny",
    "reason": "no_rule",
    "enforcement_point": "dns",
    "rule": None,
    "sentence": "x.org is not covered: add it to allowed_hostnames.",
    "hostname": "x.org",
    "address": None,
    "port": None,
    "protocol": None,
    "bytes_out": None,
    "bytes_in": None,
}
ALLOWED = {"enforcement_point": "dns", "verdict": "allow", "reason": "hostname", "rule": "r", "sentence": "s"}
CHECK = {"enforcement_point": "dns", "verdict": "deny", "reason": "no_rule", "rule": None, "sentence": "because"}


def test_denials_of_one_kind_are_one_line_with_their_number_the_newest_last() -> None:
    flows = [FLOW | {"time_ms": 9_000}, FLOW | {"hostname": "y.org", "time_ms": 8_000}, FLOW | {"count": 4}]
    kinds = gather_denials(flows)
    assert [(kind["hostname"], kind["count"], kind["time_ms"]) for kind in kinds] == [
        ("y.org", 1, 8_000),
        ("x.org", 5, 9_000),
    ]


def test_why_asks_for_denials_of_the_devbox_and_says_what_to_change(run: Run) -> None:
    code, out, _, api = run(["devbox", "why", "dbx_1"], {"GET /v1/network-flows": {"network_flows": [FLOW]}})
    assert code == 0
    assert dict(api.queries["GET /v1/network-flows"]) == {"devbox_id": "dbx_1", "verdict": "deny", "limit": "200"}
    assert "add it to allowed_hostnames" in out


def test_a_dry_run_changes_nothing_and_shows_both_directions(run: Run) -> None:
    change = {
        "hostname": "x.org",
        "address": None,
        "port": 443,
        "protocol": "tls",
        "count": 3,
        "devbox_count": 2,
        "time_ms": 0,
        "was": CHECK,
        "becomes": CHECK,
    }
    said = {
        "opened": [change | {"becomes": ALLOWED}],
        "closed": [change | {"hostname": "y.org"}],
        "judged_count": 9,
        "undecided_count": 1,
        "since_ms": 0,
        "partial": False,
    }
    answers = {"POST /v1/network-policies/npol_000000000000000000000/simulate": said}
    arguments = ["policy", "update", "npol_000000000000000000000", "--dry-run", "--allow-host", "x.org", "--hours", "5"]
    code, out, err, api = run(arguments, answers)
    assert code == 0, err
    assert list(api.bodies.values()) == [{"allowed_hostnames": ["x.org"], "hours": 5}]
    assert [line.split("\t")[:2] for line in out.splitlines()[1:]] == [
        ["allowed", "x.org:443 tls"],
        ["denied", "y.org:443 tls"],
    ]
    assert "Nothing was changed" in err


def test_an_explanation_shows_its_checks(run: Run) -> None:
    said: dict[str, Any] = {"verdict": "deny", "rule": None, "revision": 7, "reason": "no_rule", "sentence": "because"}
    said["checks"] = [ALLOWED, CHECK]
    code, out, _, api = run(["devbox", "explain", "dbx_1", "8.8.8.8"], {"POST /v1/devboxes/dbx_1/explain": said})
    assert code == 0
    assert list(api.bodies.values()) == [{"address": "8.8.8.8", "port": 443, "protocol": "tcp"}]
    assert "because" in out
    assert "7" in out
    assert [line.split("\t")[:3] for line in out.splitlines()[-2:]] == [
        ["dns", "allow", "hostname"],
        ["dns", "deny", "no_rule"],
    ]


def test_denials_that_one_change_answers_are_one_line_with_every_port(run: Run) -> None:
    address = FLOW | {"hostname": None, "address": "45.45.45.20", "protocol": "tcp", "enforcement_point": "kernel"}
    flows = [address | {"port": port, "count": port, "time_ms": 9_000 - port} for port in (443, 22, 80)]
    flows.insert(1, FLOW | {"time_ms": 8_600})
    code, out, err, _ = run(["devbox", "why", "dbx_1"], {"GET /v1/network-flows": {"network_flows": flows}})
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    assert [(row[1], row[3]) for row in rows] == [("1", "x.org"), ("545", "45.45.45.20:22,80,443 tcp")]
    assert rows[1][0].endswith("00:00:08")
    assert "outgate policy update npol_1 … --dry-run" in err
