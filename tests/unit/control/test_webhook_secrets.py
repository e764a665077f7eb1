"""Signatures: what the specification's own library verifies."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from outgate.control.webhook_secrets import make_headers

ONE, TWO = "whsec_" + "A" * 43 + "=", "whsec_" + "B" * 43 + "="


@given(st.text(max_size=2000))
def test_whatever_is_sent_is_verified_by_the_library(body: str) -> None:
    body = body.encode("utf-8", "replace").decode()
    headers = make_headers([ONE], "msg_1", body, time.time_ns() // 1_000_000)
    Webhook(ONE).verify(body, dict(headers), json_parse=False)


def test_each_of_two_secrets_signs() -> None:
    headers = dict(make_headers([TWO, ONE], "msg_1", "{}", time.time_ns() // 1_000_000))
    assert Webhook(ONE).verify("{}", headers) == Webhook(TWO).verify("{}", headers) == {}


@pytest.mark.parametrize(("name", "value"), [("webhook-id", "msg_2"), ("webhook-timestamp", "1"), ("body", "{ }")])
def test_what_was_changed_on_the_way_is_not_verified(name: str, value: str) -> None:
    headers = dict(make_headers([ONE], "msg_1", "{}", time.time_ns() // 1_000_000)) | {"body": "{}"}
    headers[name] = value
    with pytest.raises(WebhookVerificationError):
        Webhook(ONE).verify(headers.pop("body"), headers)
