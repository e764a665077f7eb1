"""What holds for each page: its headers, whose things it shows, what a restricted key may, and that texts stay texts."""

import re
from collections.abc import Iterator

import httpx
import pytest

from outgate.clock import wall_ms
from outgate.console.app import _PLACES
from outgate.console.templates import ASSETS
from outgate.control.accounts import NewKey
from support.api_server import ApiServer
from support.console import POLICIES, SIGN_IN, Teller, Visitor, make_devbox, make_policy, plain, visiting

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7*7 }}"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PAGES = (
    "/console/policies", "/console/policies/new", "/console/policies/{policy}", "/console/policies/{policy}/edit",
    "/console/policies/{policy}/delete", "/console/policies/{policy}/suggestions", "/console/policies/{policy}/revisions",
    "/console/policies/{policy}/revisions/1", "/console/devboxes", "/console/devboxes/{devbox}", "/console/flows",
    "/console/picture", "/console/health",
)  # fmt: skip
FORMS = (
    "/console/sign-out", "/console/policies/new", "/console/policies/{policy}/edit", "/console/policies/{policy}/delete",
    "/console/policies/{policy}/revisions/1",
)  # fmt: skip


def check_headers(answer: httpx.Response) -> None:
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["x-frame-options"] == "DENY"
    if not (answer.status_code == 200 and "/static/" in answer.url.path):
        assert answer.headers["cache-control"] == "no-store", answer.url


def test_these_are_all_pages_and_forms() -> None:
    reading = {path for path, place in _PLACES.items() if place.get is not None}
    others = {"/console", SIGN_IN, "/console/static/{version}/{name}", "/console/flows/stream"}
    assert reading - others == {template(path) for path in PAGES}
    assert {path for path, place in _PLACES.items() if place.post is not None} - {SIGN_IN} == {
        template(path) for path in FORMS
    }


def template(path: str) -> str:
    return re.sub(r"revisions/1", "revisions/{revision}", path.replace("{policy}", "{id}").replace("{devbox}", "{id}"))


@pytest.fixture
def filled(policy_id: str, devbox_id: str, teller: Teller) -> dict[str, str]:
    """Where an account has a policy, a devbox, and something that it was denied."""
    teller.tell(
        devbox_id, policy_id, {"name": "never.example", "verdict": "deny", "point": "dns", "sentence": "Because."}
    )
    return {"policy": policy_id, "devbox": devbox_id}


def test_every_answer_has_the_same_headers(visitor: Visitor, stranger: Visitor, filled: dict[str, str]) -> None:
    for who in (visitor, stranger):
        for path in (*PAGES, *FORMS, "/console", SIGN_IN, "/console/nope", "/console/static/0/console.css"):
            place = path.format_map(filled)
            for answer in (who.get(place), who.post(place, {}), who.client.put(place), who.client.head(place)):
                check_headers(answer)
                assert answer.status_code in (200, 303, 400, 401, 403, 404, 405), (place, answer.status_code)
                if who is stranger and place != SIGN_IN:
                    assert answer.status_code != 200 or "/sign-in" in str(answer.url)


def test_pages_are_there_and_name_nothing_from_elsewhere(visitor: Visitor, filled: dict[str, str]) -> None:
    for path in PAGES:
        page = visitor.see(path.format_map(filled))
        assert page.count("<h1") == 1, path
        assert '<a class="skip" href="#main">' in page
        assert "<script>" not in page
        assert " style=" not in page
        assert not re.search(r"""(?:src|href)=["']?(?:https?:|//)""", page), path
        identifiers = re.findall(r'\bid="([^"]+)"', page)
        assert len(identifiers) == len(set(identifiers)), path
        for label in re.findall(r'<label for="([^"]+)"', page):
            assert label in identifiers, (path, label)


def test_static_files_never_change_under_their_name(stranger: Visitor) -> None:
    for name, asset in ASSETS.items():
        answer = stranger.get(f"/console/static/{asset.version}/{name}")
        assert (answer.status_code, answer.content) == (200, asset.content)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"].startswith(asset.media_type)
        check_headers(answer)
    assert stranger.get("/console/static/0000000000000000/console.css").status_code == 404
    assert stranger.get(f"/console/static/{asset.version}/..%2fapp.py").status_code == 404


def test_methods_that_a_place_does_not_take(visitor: Visitor) -> None:
    answer = visitor.post("/console/health", {})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    answer = visitor.get("/console/sign-out")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_defect_is_told_without_details_and_with_the_headers(
    visitor: Visitor, policy_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_document: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("outgate.console.policies.describe_policy", fail)
    answer = visitor.get(f"/console/policies/{policy_id}")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.headers["x-outgate-request-id"] in answer.text
    check_headers(answer)


def test_forms_without_the_sessions_own_token_change_nothing(
    server: ApiServer, visitor: Visitor, client: httpx.Client, filled: dict[str, str]
) -> None:
    with visiting(server) as other:
        other.sign_in(server.new_account(f"other of {filled['policy']}").api_key)
        tokens = ("", "0" * 64, other.token(), visitor.client.cookies["outgate_session"])
    before = client.get(f"/v1/network-policies/{filled['policy']}").json()
    for path in FORMS:
        fields = {"name": "changed", "action": "save", "allowed_hostnames": "x.example"}
        for token in tokens:
            assert visitor.post(path.format_map(filled), {"form_token": token, **fields}).status_code == 403
        right = {"form_token": visitor.token(), **fields}
        for header in ({"sec_fetch_site": "cross-site"}, {"origin": "https://evil.example"}):
            assert visitor.post(path.format_map(filled), right, **header).status_code == 403
    assert client.get(f"/v1/network-policies/{filled['policy']}").json() == before
    assert visitor.get(POLICIES).status_code == 200


def test_what_another_account_has_is_not_there(server: ApiServer, filled: dict[str, str], visitor: Visitor) -> None:
    with visiting(server) as other:
        other.sign_in(server.new_account(f"strangers {wall_ms()}").api_key)
        token = other.token()
        for path in (*PAGES, *FORMS):
            place = path.format_map(filled)
            if "{" not in path:
                continue
            if path in PAGES:
                assert other.get(place).status_code == 404, place
            if path in FORMS:
                answer = other.post(place, {"form_token": token, "name": "mine", "action": "save"})
                assert answer.status_code == 404, place
        for path in ("/console/policies", "/console/devboxes", "/console/flows", "/console/picture"):
            page = other.see(path)
            assert filled["policy"] not in page
            assert filled["devbox"] not in page
            assert "never.example" not in page
        for name in ("devbox_id", "policy_id"):
            query = f"{name}={filled[name.removesuffix('_id')]}"
            assert "never.example" not in other.see(f"/console/flows?{query}")
    assert "never.example" in visitor.see("/console/flows")


@pytest.mark.parametrize("id_", ["x", "npol_x", "npol_" + "0" * 21, "dbx_" + "0" * 21, "..", "%00", "ü", "new%2f"])
def test_ids_of_nothing(visitor: Visitor, id_: str) -> None:
    for path in (f"/console/policies/{id_}", f"/console/devboxes/{id_}", f"/console/policies/{id_}/edit"):
        answer = visitor.get(path)
        assert answer.status_code in (404, 303), path
        check_headers(answer)


@pytest.mark.parametrize("query", ["before=x", "before=-1", "before=99999999999999999999", "after=%00", "hostname=%00%ff",
                                   "verdict=x", "range=x", "since=1&until=2", "since=5&until=9e9", "hours=x", "status=x",
                                   "against=0", "search=%25_%27%00", "until=9007199254740992&since=1"])  # fmt: skip
def test_queries_of_anything(visitor: Visitor, filled: dict[str, str], query: str) -> None:
    for path in PAGES:
        assert visitor.get(f"{path.format_map(filled)}?{query}").status_code in (200, 404), (path, query)


def test_texts_stay_texts(visitor: Visitor, client: httpx.Client, teller: Teller) -> None:
    policy = make_policy(client, name=HOSTILE, description=HOSTILE, allowed_hostnames=["a.example"])
    devbox = make_devbox(client, policy, name=HOSTILE)
    denied = {
        "verdict": "deny",
        "point": "dns",
        "name": HOSTILE,
        "sentence": HOSTILE,
        "rule": HOSTILE,
        "address": HOSTILE,
    }
    teller.tell(devbox, policy, denied, {**denied, "verdict": "allow", "point": HOSTILE[:16]})
    ids = {"policy": policy, "devbox": devbox}
    pages = [visitor.see(path.format_map(ids)) for path in PAGES]
    asked = (f"/console/policies?search={HOSTILE}", f"/console/flows?hostname={HOSTILE}&devbox_id={HOSTILE}")
    pages += [visitor.see(path.replace("#", "").replace("&amp;", "")) for path in asked]
    pages.append(visitor.send("/console/policies/new", name="x", allowed_hostnames=HOSTILE, allowed_cidrs=HOSTILE).text)
    pages.append(visitor.get(f"/console/{HOSTILE}").text)
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "49" not in re.findall(r"&amp;amp;(\d+)", page)
    assert all("&lt;script&gt;alert(1)" in page for page in (pages[0], pages[2], pages[9], pages[10]))


def restricted(client: httpx.Client, resource: str, level: str) -> str:
    scopes = [{"resource_type": f"RESOURCE_TYPE_{resource}", "access_level": f"ACCESS_LEVEL_{level}"}]
    made = client.post("/v1/restricted_keys", json={"name": "restricted", "scopes": scopes})
    assert made.status_code == 200, made.text
    return str(made.json()["key_secret"])


@pytest.fixture
def reader(server: ApiServer, client: httpx.Client) -> Iterator[Visitor]:
    with visiting(server) as signed_in:
        signed_in.sign_in(restricted(client, "DEVBOXES", "READ"))
        yield signed_in


def test_a_key_that_may_only_read_sees_everything_and_changes_nothing(
    reader: Visitor, visitor: Visitor, client: httpx.Client, filled: dict[str, str]
) -> None:
    refused = {path for path in PAGES if reader.get(path.format_map(filled)).status_code == 403}
    assert refused == {"/console/policies/new", "/console/policies/{policy}/delete"}
    page = reader.see(f"/console/policies/{filled['policy']}")
    assert "Delete" not in page
    assert "New policy" not in reader.see(POLICIES)
    assert "New policy" in visitor.see(POLICIES)
    before = client.get(f"/v1/network-policies/{filled['policy']}").json()
    edit = f"/console/policies/{filled['policy']}/edit"
    fields = {"name": "changed", "allowed_hostnames": "other.example", "revision": "1"}
    shown = visitor.send(edit, **fields).text
    previewed = re.search(r'name="previewed" value="([0-9a-f]+)"', shown)
    assert previewed is not None
    assert 'name="previewed"' not in reader.send(edit, **fields).text
    for path in FORMS[1:]:
        answer = reader.send(path.format_map(filled), **fields, previewed=previewed[1], action="save")
        assert answer.status_code == 403, path
        assert "This key is restricted" in plain(answer.text)
    assert client.get(f"/v1/network-policies/{filled['policy']}").json() == before


def test_a_key_for_other_things_sees_health_alone(
    server: ApiServer, client: httpx.Client, filled: dict[str, str]
) -> None:
    with visiting(server) as visitor:
        assert visitor.sign_in(restricted(client, "OBJECTS", "WRITE")).status_code == 303
        for path in PAGES:
            expected = 200 if path == "/console/health" else 403
            assert visitor.get(path.format_map(filled)).status_code == expected, path
        assert visitor.get("/console/flows/stream").status_code == 403


def test_who_has_nothing_yet_is_told_how_to_begin(visitor: Visitor, key: NewKey) -> None:
    assert key.account_id
    assert "outgate policy create ci --allow-host github.com" in plain(visitor.see(POLICIES))
    assert "outgate devbox create --policy NAME" in plain(visitor.see("/console/devboxes"))
    for path in ("/console/flows", "/console/picture"):
        assert "outgate devbox exec DEVBOX" in plain(visitor.see(path))


def test_bodies_that_are_no_forms(visitor: Visitor) -> None:
    for content in (b"\xff\xfe", b"a=%ff", b"&" * 5000 + b"=".join([b"a"] * 200), b"{}"):
        answer = visitor.client.post("/console/policies/new", content=content)
        assert answer.status_code in (400, 403), content[:20]
        check_headers(answer)
    assert visitor.client.post("/console/policies/new", content=b"a" * 2_000_000).status_code == 413
