import asyncio

import pytest

from outgate.control.accounts import create_account
from outgate.control.callers import Caller
from outgate.control.calls import Call
from outgate.control.devbox_creation import create_devbox
from outgate.control.devbox_input import DevboxInput
from outgate.control.errors import NotFoundError
from outgate.control.explain import Explanation, Question, explain
from outgate.control.hosts import ensure_host
from outgate.control.policies import create_policy
from outgate.control.policy_input import CidrInput, PolicyInput, PortInput
from outgate.control.services import Services
from outgate.errors import InvalidValueError
from outgate.model.addresses import Protocol
from outgate.model.verdict import Allow, AllowReason, Deny, DenyReason

NOW_MS = 1_795_000_000_000
POLICY = PolicyInput(
    name="p",
    allowed_hostnames=("github.com", "*.pypi.org"),
    allowed_cidrs=(CidrInput("8.8.8.0/24", (PortInput(53, None, Protocol.UDP),)),),
)


def ask(services: Services, given: PolicyInput, question: Question) -> Explanation:
    made = create_account(services.database, services.ids, "one", NOW_MS)
    caller = Caller(made.account_id, made.key_id)

    async def run() -> Explanation:
        policy = await create_policy(services, Call(caller, NOW_MS), given)
        return await explain(services, caller, policy.id, question)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("question", "reason", "rule"),
    [
        (Question(hostname="GitHub.com."), AllowReason.HOSTNAME, "allowed_hostnames[0] github.com"),
        (Question(hostname="files.pypi.org", port=80), AllowReason.HOSTNAME, "allowed_hostnames[1] *.pypi.org"),
        (Question(address="8.8.8.8", port=53, protocol=Protocol.UDP), AllowReason.CIDR, None),
        (Question(hostname="github.com", address="140.82.121.3"), AllowReason.HOSTNAME, None),
    ],
)
def test_what_is_allowed_names_its_rule(
    services: Services, question: Question, reason: AllowReason, rule: str | None
) -> None:
    verdict = ask(services, POLICY, question).verdict
    assert isinstance(verdict, Allow)
    assert verdict.reason is reason
    assert verdict.sentence
    assert rule is None or str(verdict.rule) == rule


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Question(hostname="pypi.org"), DenyReason.NAME_NOT_ALLOWED),
        (Question(hostname="evil.example"), DenyReason.NAME_NOT_ALLOWED),
        (Question(address="8.8.8.8", port=53), DenyReason.NOT_RESOLVED),
        (Question(address="8.8.8.8", port=54, protocol=Protocol.UDP), DenyReason.NO_RULE),
        (Question(address="169.254.169.254"), DenyReason.FLOOR_METADATA),
        (Question(hostname="github.com", address="10.0.0.1"), DenyReason.FLOOR_PRIVATE),
        (Question(hostname="github.com", address="140.82.121.3", protocol=Protocol.UDP), DenyReason.PROTOCOL),
        (Question(hostname="github.com", address="140.82.121.3", port=853), DenyReason.ENCRYPTED_DNS),
        (Question(address="8.8.8.8", protocol=Protocol.ICMP), DenyReason.NO_RULE),
    ],
)
def test_what_is_denied_says_why(services: Services, question: Question, reason: DenyReason) -> None:
    verdict = ask(services, POLICY, question).verdict
    assert isinstance(verdict, Deny)
    assert verdict.reason is reason
    assert verdict.sentence


def test_allow_all_is_named_and_the_floor_holds(services: Services) -> None:
    everything = PolicyInput(name="p", allow_all=True)
    verdict = ask(services, everything, Question(hostname="any.example", address="10.0.0.1")).verdict
    assert isinstance(verdict, Allow)
    assert verdict.reason is AllowReason.ALLOW_ALL


@pytest.mark.parametrize(
    ("question", "field"),
    [
        (Question(), "hostname"),
        (Question(hostname="https://x"), "hostname"),
        (Question(address="x"), "address"),
        (Question(hostname="github.com", protocol=Protocol.UDP), "address"),
        (Question(hostname="github.com", port=853), "address"),
        (Question(hostname="github.com", port=0), "port"),
        (Question(hostname="github.com", port=70000), "port"),
    ],
)
def test_questions_that_make_no_sense_are_refused(services: Services, question: Question, field: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        ask(services, POLICY, question)
    assert caught.value.field == field


def test_a_devbox_must_be_under_the_policy(services: Services) -> None:
    ensure_host(services, "local", "token", NOW_MS)
    made = create_account(services.database, services.ids, "two", NOW_MS)
    caller = Caller(made.account_id, made.key_id)

    async def run() -> None:
        policy = await create_policy(services, Call(caller, NOW_MS), POLICY)
        box = await create_devbox(services, Call(caller, NOW_MS), DevboxInput())
        with pytest.raises(InvalidValueError, match="is under policy npol_default_allow_all"):
            await explain(services, caller, policy.id, Question(hostname="github.com", devbox_id=box.id))
        with pytest.raises(NotFoundError):
            await explain(services, caller, policy.id, Question(hostname="github.com", devbox_id="dbx_none"))

    asyncio.run(run())
