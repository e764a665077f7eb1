"""URLs of webhooks, taken apart."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.errors import InvalidValueError
from outgate.model.webhooks import WebhookTarget, parse_webhook_url


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority"),
    [
        ("https://hooks.example.com", "hooks.example.com", 443, "/", "hooks.example.com"),
        ("https://Hooks.Example.COM./x", "hooks.example.com", 443, "/x", "hooks.example.com"),
        ("https://hooks.example.com:443/x?a=b", "hooks.example.com", 443, "/x?a=b", "hooks.example.com"),
        ("https://hooks.example.com:8443?a", "hooks.example.com", 8443, "/?a", "hooks.example.com:8443"),
        ("http://hooks.example.com:443/", "hooks.example.com", 443, "/", "hooks.example.com:443"),
        ("https://192.0.2.7/", ip_address("192.0.2.7"), 443, "/", "192.0.2.7"),
        ("https://[2001:DB8::7]:444/", ip_address("2001:db8::7"), 444, "/", "[2001:db8::7]:444"),
        ("https://localhost/", "localhost", 443, "/", "localhost"),
    ],
)
def test_urls(url: str, host: object, port: int, path: str, authority: str) -> None:
    target = parse_webhook_url(url)
    assert (target.host, target.port, target.path, target.authority) == (host, port, path, authority)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https:",
        "//hooks.example.com/",
        "https://",
        "https://@hooks.example.com/",
        "https://user@hooks.example.com/",
        "https://:pass@hooks.example.com/",
        "https://a@b@hooks.example.com/",
        "https://hooks.example.com\\@10.0.0.1/",
        "https://hooks.example.com /",
        "https://hooks.example.com/\t",
        "https://hooks.example.com/#",
        "https://hooks.example.com:0x50/",
        "https://hooks.example.com:-1/",
        "https://hooks.example.com:65536/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://0x7f.1/",
        "https://017700000001/",
        "https://*.example.com/",
        "https://höoks.example/",
        "gopher://hooks.example.com/",
        "HTTPS//hooks.example.com/",
    ],
)
def test_what_is_none(url: str) -> None:
    with pytest.raises(InvalidValueError) as error:
        parse_webhook_url(url)
    assert error.value.field == "url"
    assert "https://" in error.value.message


@given(st.text(st.sampled_from("htps:/@.[]#?%\\ 0129az-_:\n\x00é"), max_size=60))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    try:
        target = parse_webhook_url(text)
    except InvalidValueError:
        return
    assert isinstance(target, WebhookTarget)
    assert target.path.startswith("/")
    assert not set(target.authority + target.path) & set(" \r\n\x00@#\\") - set("@" if "@" in target.path else "")
    assert "@" not in target.authority
