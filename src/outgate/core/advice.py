"""What to think twice about in a policy. Advice changes no verdict."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from outgate.core.channels import find_channel
from outgate.model.names import HostPattern
from outgate.model.policy import EnforcementMode, NetworkPolicy


class AdviceCode(StrEnum):
    """What there is to think about. The codes are stable."""

    REPORT_ONLY = "report_only"
    """The policy holds nothing back."""
    EXFILTRATION = "exfiltration"
    """An entry opens a host that hands on what anybody gives it."""
    PUBLIC_SUFFIX = "public_suffix"
    """A wildcard covers names that belong to many different owners."""
    DNS_TUNNEL = "dns_tunnel"
    """Names that look as if they carried data."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to think about. ``field`` is the place in the policy, ``text`` a sentence with the reason."""

    code: AdviceCode
    field: str
    text: str


SharedCheck = Callable[[str], bool]
"""Whether names below this one belong to many owners: it is a public suffix, or such suffixes lie below it."""


def advise_policy(policy: NetworkPolicy, is_shared: SharedCheck) -> tuple[Advice, ...]:
    """What to think twice about in ``policy``, in the order of its fields."""
    return tuple(_advise(policy, is_shared))


def _advise(policy: NetworkPolicy, is_shared: SharedCheck) -> Iterator[Advice]:
    if policy.enforcement is EnforcementMode.REPORT_ONLY:
        text = "Nothing is held back under this policy but what the deny floor stops: it only reports."
        yield Advice(AdviceCode.REPORT_ONLY, "enforcement", text)
    for index, pattern in enumerate(policy.egress.allowed_hostnames):
        yield from advise_pattern(pattern, f"allowed_hostnames[{index}]", is_shared)


def advise_pattern(pattern: HostPattern, field: str, is_shared: SharedCheck) -> Iterable[Advice]:
    """What to think twice about before ``pattern`` is allowed."""
    if pattern.is_wildcard and is_shared(pattern.name):
        text = (
            f"{pattern} covers names of many different owners, since anybody can get a name below a public suffix: "
            "list the names that are meant."
        )
        yield Advice(AdviceCode.PUBLIC_SUFFIX, field, text)
    channel = find_channel(pattern)
    if channel is not None:
        yield Advice(AdviceCode.EXFILTRATION, field, f"{pattern} opens {channel.name}: {channel.why}.")
