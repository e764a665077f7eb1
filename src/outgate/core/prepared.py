"""A policy made ready for decisions: patterns and networks indexed, the verdicts of its rules made once."""

from collections.abc import Iterator
from dataclasses import dataclass

from outgate.core import sentences
from outgate.core.cidr_index import CidrIndex, index_cidrs
from outgate.core.endpoints import opened_endpoints
from outgate.core.match import PatternIndex, prepare_patterns
from outgate.model.flow import HostContext
from outgate.model.names import DomainName, HostPattern
from outgate.model.policy import CidrRule, EnforcementMode, NetworkPolicy
from outgate.model.verdict import Allow, AllowReason, RuleRef


@dataclass(frozen=True, slots=True)
class HostRule:
    """One pattern that opens names: an ``allowed_hostnames`` entry, or an operator's host behind a flag."""

    pattern: HostPattern
    allow: Allow
    """The verdict on every name it covers; ``allow.rule`` says where the rule stands."""


@dataclass(frozen=True, slots=True)
class PreparedPolicy:
    """A policy with its look-up structures. Made by :func:`prepare_policy`; immutable like the policy."""

    policy: NetworkPolicy
    is_allow_all: bool
    allow_all: Allow
    """The verdict on whatever passes while ``is_allow_all``."""
    is_devbox_to_devbox: bool
    devbox_to_devbox: Allow
    """The verdict on tunnels of the own account while ``is_devbox_to_devbox``."""
    is_report_only: bool
    """Whether what no rule allows passes, and is on record."""
    host_rules: tuple[HostRule, ...]
    host_index: PatternIndex
    cidr_allows: tuple[Allow, ...]
    """The verdict of each entry of ``allowed_cidrs``, in their order, then of the operator's networks."""
    cidr_index: CidrIndex

    def find_host_rule(self, name: DomainName) -> HostRule | None:
        """The rule that covers ``name``, or None. ``allow_all`` is no host rule."""
        position = self.host_index.find(name)
        return None if position is None else self.host_rules[position]

    def find_apex_wildcard(self, name: DomainName) -> RuleRef | None:
        """The wildcard entry that covers every name below ``name`` but not ``name`` itself, or None."""
        position = self.host_index.wildcards.get(name)
        return None if position is None else self.host_rules[position].allow.rule


def prepare_policy(policy: NetworkPolicy, context: HostContext) -> PreparedPolicy:
    """``policy`` ready for decisions.

    Of ``context`` only ``*_hosts`` and ``*_cidrs`` are read: what is behind the policy's flags. When those change,
    prepare anew; the rest of the context is an argument of each decision.
    """
    host_rules = tuple(
        HostRule(pattern, Allow(AllowReason.HOSTNAME, ref, sentences.covered_by(policy, ref)))
        for ref, pattern in _host_patterns(policy, context)
    )
    cidr_rules = tuple(_cidr_rules(policy, context))
    return PreparedPolicy(
        policy=policy,
        is_allow_all=policy.egress.allow_all,
        allow_all=Allow(AllowReason.ALLOW_ALL, RuleRef("allow_all"), sentences.allowed_by_all(policy)),
        is_devbox_to_devbox=policy.egress.allow_all or policy.egress.allow_devbox_to_devbox,
        devbox_to_devbox=_allow_devbox_to_devbox(policy),
        is_report_only=policy.enforcement is EnforcementMode.REPORT_ONLY,
        host_rules=host_rules,
        host_index=prepare_patterns(rule.pattern for rule in host_rules),
        cidr_allows=tuple(Allow(AllowReason.CIDR, ref, sentences.covered_by(policy, ref)) for ref, _ in cidr_rules),
        cidr_index=index_cidrs([rule for _, rule in cidr_rules]),
    )


def _allow_devbox_to_devbox(policy: NetworkPolicy) -> Allow:
    # While allow_all is on it is what includes the flag.
    ref = RuleRef("allow_all" if policy.egress.allow_all else "allow_devbox_to_devbox")
    return Allow(AllowReason.DEVBOX_TO_DEVBOX, ref, sentences.allowed_own_tunnel(policy, ref))


def _host_patterns(policy: NetworkPolicy, context: HostContext) -> Iterator[tuple[RuleRef, HostPattern]]:
    """The account's own entries first: of equal patterns they are the ones to be named."""
    for position, pattern in enumerate(policy.egress.allowed_hostnames):
        yield RuleRef("allowed_hostnames", position, pattern.spelling), pattern
    for opened in opened_endpoints(policy.egress, context):
        for pattern in opened.hosts:
            yield RuleRef(opened.field, None, pattern.spelling), pattern


def _cidr_rules(policy: NetworkPolicy, context: HostContext) -> Iterator[tuple[RuleRef, CidrRule]]:
    """Likewise, in the order of :func:`outgate.core.compile.compile_policy`."""
    for position, rule in enumerate(policy.egress.allowed_cidrs):
        yield RuleRef("allowed_cidrs", position, str(rule)), rule
    for opened in opened_endpoints(policy.egress, context):
        for rule in opened.cidrs:
            yield RuleRef(opened.field, None, str(rule)), rule
