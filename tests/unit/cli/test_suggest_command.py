"""``outgate policy suggest``, and policies that only report, on the command line."""

from typing import Any

import pytest

from support.cli_rig import Run

POLICY = "npol_000000000000000000000"
PLACE = f"/v1/network-policies/{POLICY}"
EVIDENCE = {
    "count": 3,
    "denied_count": 1,
    "reported_count": 2,
    "allowed_count": 0,
    "devbox_ids": ["dbx_1"],
    "first_ms": 0,
    "last_ms": 0,
    "name_count": 1,
    "names": ["x.org"],
    "examples": ["TCP x.org:443"],
}
WARNING = {"code": "exfiltration", "field": "allowed_hostnames", "text": "x.org hands things on."}
CIDR = {"cidr": "9.9.9.9/32", "ports": [{"port": 53, "end_port": None, "protocol": "UDP"}]}
PROPOSED = {"allowed_hostnames": ["old.org", "x.org"], "allowed_cidrs": [CIDR]}
SAID: dict[str, Any] = {
    "judged_count": 9,
    "since_ms": 0,
    "partial": False,
    "allowed_hostnames": [{"hostname": "x.org", "is_covered": False, "evidence": EVIDENCE, "warnings": [WARNING]}],
    "allowed_cidrs": [{"cidr": CIDR, "is_covered": True, "evidence": EVIDENCE}],
    "left_out": [{"what": "TCP 10.0.0.1:80", "reason": "floor", "evidence": EVIDENCE}],
    "unused": [{"field": "allowed_hostnames", "index": 0, "entry": "old.org"}],
    "warnings": [],
    "proposed": PROPOSED,
}
SIMULATED = {"opened": [], "closed": [], "judged_count": 9, "undecided_count": 0, "since_ms": 0, "partial": False}
VIEW: dict[str, Any] = {
    "id": POLICY,
    "name": "web",
    "update_time_ms": 0,
    "enforcement": "report_only",
    "warnings": [{"code": "report_only", "field": "enforcement", "text": "Nothing is held back."}],
    "egress": {"allowed_hostnames": ["x.org"], "allowed_cidrs": []},
}


def test_entries_evidence_and_what_is_left_out_are_printed(run: Run) -> None:
    arguments = ["policy", "suggest", POLICY, "--hours", "5", "--devbox", "dbx_1", "--without-denied"]
    code, out, err, api = run(arguments, {f"POST {PLACE}/suggest": SAID})
    assert code == 0, err
    assert list(api.bodies.values()) == [{"hours": 5, "devbox_ids": ["dbx_1"], "include_denied": False}]
    lines = [line.split("\t")[:5] for line in out.splitlines()]
    assert ["+", "x.org", "3", "1", "2"] in lines
    assert ["=", "9.9.9.9/32:53/udp", "3", "1", "2"] in lines
    assert "TCP 10.0.0.1:80\tfloor" in out
    assert "unused: allowed_hostnames[0] old.org" in out
    assert "warning: x.org hands things on." in err
    assert "Nothing was changed" in err


@pytest.mark.parametrize("answer", [True, False])
def test_it_is_applied_only_when_somebody_says_yes(run: Run, monkeypatch: pytest.MonkeyPatch, answer: bool) -> None:
    asked: list[str] = []

    def confirm(text: str, **_options: object) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr("typer.confirm", confirm)
    answers = {f"POST {PLACE}/suggest": SAID, f"POST {PLACE}/simulate": SIMULATED, f"POST {PLACE}": VIEW}
    code, _, err, api = run(["policy", "suggest", POLICY, "--apply"], answers)
    assert code == 0, err
    assert asked == ["Add 1 entry to the policy?"]
    assert api.bodies[f"POST {PLACE}/simulate"] == {**PROPOSED, "hours": 24}
    assert api.bodies.get(f"POST {PLACE}") == (PROPOSED if answer else None)


def test_what_is_printed_for_programs_is_never_applied(run: Run) -> None:
    code, _, err, api = run(["policy", "suggest", POLICY, "--apply", "--json"], {})
    assert (code, api.bodies) == (2, {})
    assert "--apply" in err


@pytest.mark.parametrize(("option", "mode"), [("--report-only", "report_only"), ("--enforce", "enforce")])
def test_the_mode_is_one_option(run: Run, option: str, mode: str) -> None:
    _, _, _, api = run(["policy", "update", POLICY, option], {f"POST {PLACE}": VIEW})
    assert api.bodies[f"POST {PLACE}"] == {"enforcement": mode}


def test_that_nothing_is_held_back_is_said_wherever_the_policy_is_shown(run: Run) -> None:
    devbox = {
        "id": "dbx_1",
        "status": "running",
        "create_time_ms": 0,
        "launch_parameters": {"network_policy_id": POLICY},
    }
    page = {"network_policies": [VIEW], "has_more": False}
    _, listed, _, _ = run(["policy", "list"], {"GET /v1/network-policies": page})
    _, shown, warned, _ = run(["policy", "get", POLICY], {f"GET {PLACE}": VIEW})
    _, box, _, _ = run(["devbox", "get", "dbx_1"], {"GET /v1/devboxes/dbx_1": devbox, f"GET {PLACE}": VIEW})
    assert all("EVERYTHING: REPORT ONLY" in text for text in (listed, shown, box))
    assert "warning: Nothing is held back." in warned
