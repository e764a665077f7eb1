"""The page of a refused request: complete, plain, and not to be forged by names."""

import pytest

from outgate.model.verdict import Deny, DenyReason, RuleRef
from outgate.wire.http1_page import RefusalStatus, render_refusal

DENY = Deny(DenyReason.NAME_NOT_ALLOWED, "No rule covers b.test.", RuleRef("allowed_hostnames", 2, "*.c.test"))


def parse(page: bytes) -> tuple[bytes, dict[bytes, bytes], str]:
    head, _, body = page.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    return first, dict(line.split(b": ", 1) for line in lines), body.decode()


def test_the_page_names_policy_host_reason_and_rule() -> None:
    first, fields, body = parse(render_refusal(RefusalStatus.FORBIDDEN, "web only", DENY, "b.test", with_body=True))
    assert first == b"HTTP/1.1 403 Forbidden"
    assert (fields[b"connection"], fields[b"x-outgate-reason"]) == (b"close", b"name_not_allowed")
    assert int(fields[b"content-length"]) == len(body.encode())
    assert body == (
        "Outgate refused this request.\n\n"
        "policy: web only\nhost:   b.test\nreason: name_not_allowed\nrule:   allowed_hostnames[2] *.c.test\n\n"
        "No rule covers b.test.\n"
    )


def test_without_a_body_the_length_is_still_the_pages() -> None:
    whole = render_refusal(RefusalStatus.MISDIRECTED, "p", DENY, None, with_body=True)
    head = render_refusal(RefusalStatus.MISDIRECTED, "p", DENY, None, with_body=False)
    assert whole.startswith(head)
    assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("name", ["two\nlines", "a\r\n\r\nHTTP/1.1 200 OK", "\x1b[2J"])
def test_a_policys_name_cannot_add_lines(name: str) -> None:
    page = render_refusal(RefusalStatus.FORBIDDEN, name, Deny(DenyReason.NO_RULE, "No."), None, with_body=True)
    _, _, body = parse(page)
    assert len(body.split("\n")) == len(
        parse(render_refusal(RefusalStatus.FORBIDDEN, "p", Deny(DenyReason.NO_RULE, "No."), None, with_body=True))[
            2
        ].split("\n")
    )
    assert "\r" not in body
    assert "\x1b" not in body
