"""Policies in the console, without a script: made, changed, restored, deleted; what a change would do is shown first."""

import re
from pathlib import Path

import httpx
import pytest

from outgate.control.configuration import ApiSettings
from support.api_server import ApiServer
from support.console import POLICIES, Teller, Visitor, find_previewed, make_policy, plain, visiting

DENIED = {"verdict": "deny", "reason": "no_rule", "point": "dns"}


@pytest.fixture
def edit(policy_id: str) -> str:
    return f"{POLICIES}/{policy_id}/edit"


@pytest.fixture
def seen(policy_id: str, devbox_id: str, teller: Teller) -> None:
    """What the devbox did lately."""
    web = {"address": "1.2.3.4", "port": 443}
    teller.tell(
        devbox_id,
        policy_id,
        {"name": "kept.example", "count": 7, **web},
        {"name": "lost.example", "count": 3, **web},
        {"name": "wanted.example", "count": 2, **DENIED, "protocol": ""},
    )


def fields(**other: str) -> dict[str, str]:
    given = {
        "name": "ci",
        "revision": "1",
        "allowed_hostnames": "kept.example\r\nwanted.example\r\n",
        "allowed_cidrs": "",
    }
    return given | other


def test_the_effect_of_a_policy_stands_in_words_wherever_it_stands(visitor: Visitor, client: httpx.Client) -> None:
    rules = [{"cidr": "10.0.0.0/8", "ports": [{"port": 443, "protocol": "TCP"}, {"port": 8000, "end_port": 8100}]}]
    made = make_policy(client, name="words", allowed_hostnames=["github.com", "*.pypi.org"], allowed_cidrs=rules)
    for path in (POLICIES, f"{POLICIES}/{made}", f"{POLICIES}/{made}/revisions"):
        said = plain(visitor.see(path))
        assert "TCP to 2 hosts by name: github.com and *.pypi.org. *.pypi.org covers every name below pypi.org" in said
        assert "By address: 10.0.0.0/8 (443/tcp, 8000-8100)." in said
        assert "Everything else is denied." in said


def test_mistakes_stand_at_their_line_in_the_words_of_the_api(
    visitor: Visitor, edit: str, client: httpx.Client
) -> None:
    wrong = fields(
        allowed_hostnames="ok.example\nhttps://x.example/a\n\n*", allowed_cidrs="10.0.0.1/8\n10.0.0.0/8:x", name=""
    )
    answer = visitor.send(edit, **wrong)
    assert answer.status_code == 400
    said = plain(answer.text)
    assert "Line 2: 'https://x.example/a' is a URL; write only its host name" in said
    assert "Line 4: '*' would cover every name" in said
    assert "Line 1: '10.0.0.1/8' has host bits set; write 10.0.0.0/8 instead." in said
    assert "Line 2: '10.0.0.0/8:x': write ports as in" in said
    assert "A name must not be empty." in said
    assert answer.text.count('aria-invalid="true"') == 3
    assert "https://x.example/a\n\n*</textarea>" in answer.text, "what was typed is not lost"
    assert find_previewed(answer.text) is None
    body = {"allowed_hostnames": ["https://x.example/a"]}
    refused = client.post(f"/v1/network-policies/{edit.split('/')[3]}", json=body)
    assert refused.json()["message"].partition(": ")[2] in said.replace("\u201c", "'")


def test_what_a_change_would_do_is_shown_and_then_saved(
    visitor: Visitor, edit: str, policy_id: str, client: httpx.Client, seen: None
) -> None:
    shown = visitor.send(edit, **fields())
    assert shown.status_code == 200
    said = plain(shown.text)
    assert "Would be denied from now on 1 lost.example :443" in said
    assert "3 times by 1 devbox" in said
    assert "Would be allowed from now on 1 wanted.example" in said
    assert "12 decisions of the last 24 hours were judged anew." in said
    view = client.get(f"/v1/network-policies/{policy_id}").json()
    assert view["egress"]["allowed_hostnames"] == ["kept.example", "lost.example"], "nothing is changed yet"
    saved = visitor.send(edit, **fields(action="save", previewed=find_previewed(shown.text) or ""))
    assert (saved.status_code, saved.headers["location"]) == (303, f"{POLICIES}/{policy_id}?enforced=1%2F1")
    view = client.get(f"/v1/network-policies/{policy_id}").json()
    assert view["egress"]["allowed_hostnames"] == ["kept.example", "wanted.example"]
    assert view["egress"]["allowed_cidrs"] == []
    assert "Saved. In force on 1 of 1" in plain(visitor.see(saved.headers["location"]))


def test_what_was_not_shown_is_not_saved(
    visitor: Visitor, edit: str, policy_id: str, client: httpx.Client, seen: None
) -> None:
    previewed = find_previewed(visitor.send(edit, **fields()).text) or ""
    for changed in (
        fields(allowed_hostnames="kept.example\n"),
        fields(allow_all="on"),
        fields(enforcement="report_only"),
        fields(name="other"),
        fields(description="other"),
    ):
        answer = visitor.send(edit, **changed, action="save", previewed=previewed)
        assert answer.status_code == 400
        assert "This is not what was shown" in plain(answer.text)
    assert visitor.send(edit, **fields(), action="save").status_code == 400
    assert client.get(f"/v1/network-policies/{policy_id}/revisions").json()["revisions"][0]["revision"] == 1


def test_what_somebody_else_saved_meanwhile_is_not_overwritten_unseen(
    visitor: Visitor, edit: str, policy_id: str, client: httpx.Client
) -> None:
    previewed = find_previewed(visitor.send(edit, **fields()).text) or ""
    client.post(f"/v1/network-policies/{policy_id}", json={"description": "theirs"})
    answer = visitor.send(edit, **fields(), action="save", previewed=previewed)
    assert "it is at revision 2 now, and you began from 1" in plain(answer.text)
    again = visitor.send(edit, **fields(), action="save", previewed=find_previewed(answer.text) or "")
    assert again.status_code == 303


def test_a_script_gets_the_part_that_changes(visitor: Visitor, edit: str, seen: None) -> None:
    posted = {"form_token": visitor.token(), **fields()}
    part = visitor.post(edit, posted, x_outgate_fragment="1")
    assert "<html" not in part.text
    assert "Would be denied from now on" in plain(part.text)
    wrong = visitor.post(edit, {**posted, "allowed_hostnames": "*"}, x_outgate_fragment="1")
    assert (wrong.status_code, "Line 1:" in plain(wrong.text)) == (200, True)
    visitor.client.cookies.clear()
    assert visitor.post(edit, posted, x_outgate_fragment="1").status_code == 401


def test_a_policy_is_made(visitor: Visitor, client: httpx.Client, policy_id: str) -> None:
    new = f"{POLICIES}/new"
    given = fields(
        name="mine", description="First line\r\nsecond", allow_devbox_to_devbox="on", allowed_cidrs="9.9.9.0/24:53"
    )
    shown = visitor.send(new, **given)
    assert "Nothing: this policy is new" in plain(shown.text)
    made = visitor.send(new, **given, action="save", previewed=find_previewed(shown.text) or "")
    assert made.status_code == 303
    view = client.get(f"/v1/network-policies/{made.headers['location'].rpartition('/')[2]}").json()
    assert (view["name"], view["description"]) == ("mine", "First line\nsecond")
    assert view["egress"]["allow_devbox_to_devbox"] is True
    assert view["egress"]["allowed_cidrs"] == [
        {"cidr": "9.9.9.0/24", "ports": [{"port": 53, "end_port": None, "protocol": None}]}
    ]
    taken = visitor.send(new, **fields(name="ci"))
    refused = visitor.send(new, **fields(name="ci"), action="save", previewed=find_previewed(taken.text) or "")
    assert refused.status_code == 400
    assert f"A network policy named 'ci' already exists: {policy_id}." in plain(refused.text)


def test_the_limit_of_the_account_is_told_above_the_form(tmp_path: Path) -> None:
    with ApiServer(tmp_path, ApiSettings(policies_max=1)) as server, visiting(server) as visitor:
        key = server.new_account("own").api_key
        visitor.sign_in(key)
        with server.client(key) as client:
            make_policy(client, name="only")
        shown = visitor.send(f"{POLICIES}/new", **fields(name="more"))
        given = fields(name="more", action="save", previewed=find_previewed(shown.text) or "")
        refused = visitor.send(f"{POLICIES}/new", **given)
        assert refused.status_code == 400
        assert "already has 1 network policies, the most it may have; delete one first" in plain(refused.text)


def test_the_list_comes_in_pages_and_is_searched(
    visitor: Visitor, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outgate.console.policies.PAGE", 4)
    for number in range(6):
        make_policy(client, name=f"p{number}")
    newest = visitor.see(POLICIES)
    assert re.findall(r">(p\d)</a>", newest) == ["p5", "p4", "p3", "p2"]
    older = re.search(r'href="(\?after=[^"]+)"', newest)
    assert older is not None
    assert re.findall(r">(p\d)</a>", visitor.see(POLICIES + older[1].replace("&amp;", "&"))) == ["p1", "p0"]
    assert re.findall(r">(p\d)</a>", visitor.see(f"{POLICIES}?search=P3")) == ["p3"]
    assert "No policy has that in its name" in visitor.see(f"{POLICIES}?search=none")


def test_report_only_is_loud_and_can_be_turned_off(visitor: Visitor, client: httpx.Client) -> None:
    made = make_policy(client, name="learning", enforcement="report_only", allowed_hostnames=["a.example"])
    assert "Report only: this policy holds nothing back." in plain(visitor.see(f"{POLICIES}/{made}"))
    assert "report only" in plain(visitor.see(POLICIES))
    assert "Everything else is denied" not in plain(visitor.see(f"{POLICIES}/{made}"))
    edit = f"{POLICIES}/{made}/edit"
    assert 'value="report_only" checked' in visitor.see(edit)
    given = fields(name="learning", enforcement="enforce")
    shown = visitor.send(edit, **given)
    visitor.send(edit, **given, action="save", previewed=find_previewed(shown.text) or "")
    assert client.get(f"/v1/network-policies/{made}").json()["enforcement"] == "enforce"
    assert "holds nothing back" not in visitor.see(f"{POLICIES}/{made}")
    assert "enforcement must be" in plain(visitor.send(edit, **fields(enforcement="perhaps")).text)


def test_the_history_is_compared_and_restored(
    visitor: Visitor, client: httpx.Client, policy_id: str, seen: None
) -> None:
    change = {"allowed_hostnames": ["kept.example", "wanted.example"], "allow_mcp_gateway": True, "name": "renamed"}
    client.post(f"/v1/network-policies/{policy_id}", json=change)
    place = f"{POLICIES}/{policy_id}/revisions"
    history = plain(visitor.see(place))
    assert history.index("Revision 2 in force") < history.index("Revision 1")
    newest = plain(visitor.see(f"{place}/2"))
    for line in (
        "- removed allowed_hostnames lost.example",
        "+ added allowed_hostnames wanted.example",
        "+ added allow_mcp_gateway on",
    ):
        assert line in newest
    assert "This revision is in force." in newest
    first = plain(visitor.see(f"{place}/1?against=2"))
    assert "+ added allowed_hostnames lost.example" in first
    assert "Would be denied from now on 1 wanted.example" in first
    restored = visitor.send(f"{place}/1")
    assert (restored.status_code, restored.headers["location"]) == (303, f"{POLICIES}/{policy_id}?enforced=1%2F1")
    view = client.get(f"/v1/network-policies/{policy_id}").json()
    assert (view["name"], view["egress"]["allowed_hostnames"]) == ("renamed", ["kept.example", "lost.example"])
    for number in ("9", "0", "x", "٣", "9" * 30):
        assert visitor.get(f"{place}/{number}").status_code == 404
        assert visitor.send(f"{place}/{number}").status_code == 404


def test_deleting_asks_first_and_says_who_needs_it(
    visitor: Visitor, client: httpx.Client, policy_id: str, devbox_id: str
) -> None:
    place = f"{POLICIES}/{policy_id}/delete"
    assert "1 devboxes" in plain(visitor.see(place))
    assert devbox_id in visitor.see(f"{POLICIES}/{policy_id}"), "who uses it"
    refused = visitor.send(place)
    assert refused.status_code == 400
    assert f"is in use by 1 devbox ({devbox_id}); shut them down first" in plain(refused.text)
    client.post(f"/v1/devboxes/{devbox_id}/shutdown")
    assert "Nothing uses ci" in plain(visitor.see(place))
    gone = visitor.send(place)
    assert (gone.status_code, gone.headers["location"]) == (303, POLICIES)
    assert visitor.get(f"{POLICIES}/{policy_id}").status_code == 404


def test_suggestions_are_taken_into_the_editor(visitor: Visitor, policy_id: str, edit: str, seen: None) -> None:
    page = visitor.see(f"{POLICIES}/{policy_id}/suggestions")
    said = plain(page)
    assert "+ wanted.example 2 times by 1 devbox" in said
    assert "kept.example 7 times" in said
    assert "Nothing: it covers all that was seen." in plain(
        visitor.see(f"{POLICIES}/{policy_id}/suggestions?denied=no")
    )
    proposed = page.partition('<textarea name="allowed_hostnames" hidden>')[2].partition("</textarea>")[0].strip()
    assert proposed.split() == ["kept.example", "lost.example", "wanted.example"]
    opened = visitor.send(edit, **fields(allowed_hostnames=proposed, allowed_cidrs="8.8.8.0/24"))
    assert "Would be allowed from now on 1 wanted.example" in plain(opened.text)
    assert "Would be denied" not in plain(opened.text)


def test_what_to_think_twice_about_is_shown_before_saving(visitor: Visitor, edit: str, policy_id: str) -> None:
    shown = visitor.send(edit, **fields(allowed_hostnames="*.github.io"))
    assert "Think twice allowed_hostnames[0] *.github.io covers names of many different owners" in plain(shown.text)
    visitor.send(
        edit, **fields(allowed_hostnames="*.github.io"), action="save", previewed=find_previewed(shown.text) or ""
    )
    assert "many different owners" in plain(visitor.see(f"{POLICIES}/{policy_id}"))
