"""Signing in and out: who gets a session, how it is kept, and when it ends."""

from collections.abc import Iterator
from dataclasses import replace
from http.cookies import Morsel, SimpleCookie
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest

from outgate.clock import wall_ms
from outgate.control.accounts import NewKey, create_key, revoke_key
from outgate.control.configuration import ApiSettings
from outgate.control.ids import IdMaker
from outgate.model.flow import HostContext
from outgate.model.names import parse_domain_name
from support.api_server import ApiServer
from support.console import POLICIES, SIGN_IN, Visitor, plain, visiting

SESSION, GUARDED = "outgate_session", "__Host-outgate"


def cookies(answer: httpx.Response) -> dict[str, Morsel[str]]:
    found: dict[str, Morsel[str]] = {}
    for text in answer.headers.get_list("set-cookie"):
        found |= SimpleCookie(text)
    return found


def is_signed_in(visitor: Visitor) -> bool:
    return visitor.get(POLICIES).status_code == 200


def test_whoever_is_not_signed_in_is_asked_to_and_led_back(stranger: Visitor, key: NewKey) -> None:
    place = "/console/flows?verdict=deny"
    asked = stranger.get(place)
    assert (asked.status_code, asked.headers["location"]) == (
        303,
        f"{SIGN_IN}?next=%2Fconsole%2Fflows%3Fverdict%3Ddeny",
    )
    assert stranger.get("/console").headers["location"] == f"{SIGN_IN}?next=%2Fconsole"
    done = stranger.sign_in(key.api_key, next=place)
    assert (done.status_code, done.headers["location"]) == (303, place)
    assert is_signed_in(stranger)
    assert stranger.get(SIGN_IN).headers["location"] == POLICIES


def test_the_cookie_is_for_this_browser_alone_and_its_token_is_not_stored(
    server: ApiServer, stranger: Visitor, key: NewKey, tmp_path_factory: pytest.TempPathFactory
) -> None:
    session = cookies(stranger.sign_in(key.api_key))[SESSION]
    assert (session["httponly"], session["samesite"].lower(), session["path"], session["secure"]) == (
        True,
        "strict",
        "/",
        "",
    )
    assert session["domain"] == session["max-age"] == session["expires"] == ""
    assert len(session.value) >= 40
    path = Path(server.database_url.removeprefix("sqlite:///"))
    stored = b"".join(part.read_bytes() for part in path.parent.glob(f"{path.name}*"))
    assert session.value.encode() not in stored
    assert key.api_key.encode() not in stored
    assert key.key_id.encode() in stored, "this looks where sessions are"


@pytest.mark.parametrize(
    "place",
    ["//evil.example", "https://evil.example/console", "/v1/network-policies", "/console/../v1", "/\\evil.example",
     "/consolex", "javascript:alert(1)", "/console//evil.example", "/console\r\nx: y", "console", "/console/ü"],
)  # fmt: skip
def test_nobody_is_led_away_from_the_console(stranger: Visitor, key: NewKey, place: str) -> None:
    assert stranger.sign_in(key.api_key, next=place).headers["location"] == POLICIES


def test_wrong_keys_and_none(stranger: Visitor) -> None:
    wrong = stranger.sign_in("ogk_wrong")
    assert wrong.status_code == 401
    assert "This key is not valid" in plain(wrong.text)
    assert "ogk_wrong" not in wrong.text
    assert SESSION not in cookies(wrong)
    assert stranger.sign_in(" ").status_code == 400
    assert not is_signed_in(stranger)


def test_wrong_keys_count_towards_the_same_limit_as_those_of_the_api(tmp_path: Path) -> None:
    with ApiServer(tmp_path, ApiSettings(auth_failures_max=3)) as server, visiting(server) as visitor:
        key = server.new_account("own").api_key
        assert [visitor.sign_in(f"wrong-{n}").status_code for n in range(2)] == [401] * 2
        assert httpx.get(f"{server.base_url}/v1/accounts/me", headers={"authorization": "Bearer x"}).status_code == 401
        refused = visitor.sign_in(key)
        assert (refused.status_code, SESSION in cookies(refused)) == (429, False)
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert "was not looked at" in plain(refused.text)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:1"},
    ],
)
def test_forms_of_other_sites_sign_nobody_in(stranger: Visitor, key: NewKey, headers: dict[str, str]) -> None:
    fields = {"form_token": stranger.token(SIGN_IN), "api_key": key.api_key}
    refused = stranger.post(SIGN_IN, fields, **headers)
    assert (refused.status_code, SESSION in cookies(refused)) == (403, False)
    own = (
        {"origin": str(stranger.client.base_url).rstrip("/")}
        if "origin" in headers
        else {"sec_fetch_site": "same-origin"}
    )
    assert stranger.post(SIGN_IN, fields, **own).status_code == 303


def test_a_form_that_another_browser_fetched_signs_nobody_in(server: ApiServer, stranger: Visitor, key: NewKey) -> None:
    with visiting(server) as other:
        token = other.token(SIGN_IN)
    stranger.see(SIGN_IN)
    for shown in (token, "", "ü", "0" * 64):
        assert stranger.post(SIGN_IN, {"form_token": shown, "api_key": key.api_key}).status_code == 403
    assert not is_signed_in(stranger)


def test_a_session_that_was_planted_is_never_the_one_that_begins(stranger: Visitor, key: NewKey) -> None:
    planted = "planted-by-somebody-else-who-knows-it"
    stranger.client.cookies.set(SESSION, planted)
    assert not is_signed_in(stranger)
    begun = cookies(stranger.sign_in(key.api_key))[SESSION].value
    assert begun != planted
    stranger.client.cookies.clear()
    stranger.client.cookies.set(SESSION, planted)
    assert not is_signed_in(stranger)


def test_signing_in_anew_ends_the_session_of_this_browser_alone(server: ApiServer, key: NewKey) -> None:
    with visiting(server) as first, visiting(server) as elsewhere, visiting(server) as again:
        first.sign_in(key.api_key)
        elsewhere.sign_in(key.api_key)
        token = again.token(SIGN_IN)
        form = again.client.cookies["outgate_sign_in"]
        sent = f"outgate_sign_in={form}; {SESSION}={first.client.cookies[SESSION]}"
        again.client.cookies.clear()
        assert again.post(SIGN_IN, {"form_token": token, "api_key": key.api_key}, cookie=sent).status_code == 303
        assert [is_signed_in(each) for each in (first, elsewhere, again)] == [False, True, True]


def test_signing_out_ends_the_session_itself(visitor: Visitor) -> None:
    session = visitor.client.cookies[SESSION]
    assert visitor.post("/console/sign-out", {}).status_code == 403, "another site cannot sign anybody out"
    assert is_signed_in(visitor)
    left = visitor.send("/console/sign-out")
    assert (left.status_code, left.headers["location"], cookies(left)[SESSION]["max-age"]) == (303, SIGN_IN, "0")
    visitor.client.cookies.set(SESSION, session)
    assert not is_signed_in(visitor)


def test_a_session_ends_with_its_key(server: ApiServer, stranger: Visitor, key: NewKey) -> None:
    other = create_key(server.database, IdMaker(), key.account_id, "console", wall_ms())
    stranger.sign_in(other.api_key)
    assert is_signed_in(stranger)
    revoke_key(server.database, other.key_id, wall_ms())
    assert not is_signed_in(stranger)
    assert stranger.post(f"{POLICIES}/new", {"name": "x"}).headers["location"] == SIGN_IN


def test_a_link_on_another_site_leads_on_where_the_cookie_is_sent(stranger: Visitor) -> None:
    arrived = stranger.get("/console/health?x=%22%3E", sec_fetch_site="cross-site")
    assert arrived.status_code == 200
    assert 'content="0;url=/console/health?x=%22%3E"' in arrived.text
    assert stranger.get("/console/health", sec_fetch_site="same-origin").status_code == 303


@pytest.fixture
def behind_proxy(tmp_path: Path) -> Iterator[ApiServer]:
    settings = ApiSettings(proxies=(ip_network("127.0.0.1/32"),))
    with ApiServer(tmp_path, settings) as server:
        yield server


def test_where_there_is_tls_the_browser_guards_the_cookie(behind_proxy: ApiServer, server: ApiServer) -> None:
    tls = {"x_forwarded_proto": "https"}
    with visiting(behind_proxy) as visitor:
        key = behind_proxy.new_account("own").api_key
        found = cookies(visitor.get(SIGN_IN, **tls))
        assert found["__Host-outgate-sign-in"]["secure"] is True
        # The client keeps back guarded cookies on plain HTTP, as it should; they are sent by hand.
        sign_in = f"__Host-outgate-sign-in={found['__Host-outgate-sign-in'].value}"
        token = find_token_with(visitor, sign_in)
        done = visitor.post(SIGN_IN, {"form_token": token, "api_key": key}, cookie=sign_in, **tls)
        session = cookies(done)[GUARDED]
        assert (session["secure"], session["httponly"], session["path"], session["domain"]) == (True, True, "/", "")
        assert visitor.get(POLICIES, cookie=f"{GUARDED}={session.value}", **tls).status_code == 200
        assert visitor.get(POLICIES, cookie=f"{SESSION}={session.value}", **tls).status_code == 303
    with visiting(server) as visitor:
        assert SESSION.replace("session", "sign_in") in cookies(visitor.get(SIGN_IN, **tls)), "anybody can say so"


def find_token_with(visitor: Visitor, cookie: str) -> str:
    page = visitor.get(SIGN_IN, cookie=cookie, x_forwarded_proto="https").text
    return page.partition('name="form_token" value="')[2].partition('"')[0]


def test_the_tunnel_front_is_tls(tmp_path: Path) -> None:
    context = replace(HostContext(), tunnel_domain=parse_domain_name("tunnel.example.com"))
    with ApiServer(tmp_path, ApiSettings(context=context)) as server, visiting(server) as visitor:
        assert "__Host-outgate-sign-in" in cookies(visitor.get(SIGN_IN, host="api.tunnel.example.com"))
        assert "outgate_sign_in" in cookies(visitor.get(SIGN_IN, host="evil.tunnel.example.com"))
