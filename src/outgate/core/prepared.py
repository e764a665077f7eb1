"""A policy made ready for decisions: patterns and networks indexed, the verdicts of its rules made once."""

from collections.abc import Iterator
from dataclasses import dataclass

from outgate.core import sentences
from outgate.core.cidr_index import CidrIndex, index_cidrs
from outgate.core.match import PatternIndex, prepare_patterns
from outgate.model.flow import HostContext
from outgate.model.names import DomainName, HostPattern
from outgate.model.policy import NetworkPolicy
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
    host_rules: tuple[HostRule, ...]
    host_index: PatternIndex
    cidr_allows: tuple[Allow, ...]
    """The verdict of each entry of ``allowed_cidrs``, in their order."""
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

    Of ``context`` only the ``*_hosts`` are read: the hosts behind the policy's flags. When those change,
    prepare anew; the rest of the context is an argument of each decision.
    """
    host_rules = tuple(
        HostRule(pattern, Allow(AllowReason.HOSTNAME, ref, sentences.covered_by(policy, ref)))
        for ref, pattern in _host_patterns(policy, context)
    )
    cidr_refs = (RuleRef("allowed_cidrs", i, str(rule)) for i, rule in enumerate(policy.egress.allowed_cidrs))
    return PreparedPolicy(
        policy=policy,
        is_allow_all=policy.egress.allow_all,
        allow_all=Allow(AllowReason.ALLOW_ALL, RuleRef("allow_all"), sentences.allowed_by_all(policy)),
        host_rules=host_rules,
        host_index=prepare_patterns(rule.pattern for rule in host_rules),
        cidr_allows=tuple(Allow(AllowReason.CIDR, ref, sentences.covered_by(policy, ref)) for ref in cidr_refs),
        cidr_index=index_cidrs(policy.egress.allowed_cidrs),
    )


def _host_patterns(policy: NetworkPolicy, context: HostContext) -> Iterator[tuple[RuleRef, HostPattern]]:
    """The account's own entries first: of equal patterns they are the ones to be named."""
    egress = policy.egress
    for position, pattern in enumerate(egress.allowed_hostnames):
        yield RuleRef("allowed_hostnames", position, pattern.spelling), pattern
    flags = (
        ("allow_agent_gateway", egress.allow_agent_gateway, context.agent_gateway_hosts),
        ("allow_mcp_gateway", egress.allow_mcp_gateway, context.mcp_gateway_hosts),
        ("allow_runloop_mirrors", egress.allow_runloop_mirrors, context.mirror_hosts),
    )
    for field, is_on, patterns in flags:
        if is_on:
            for pattern in patterns:
                yield RuleRef(field, None, pattern.spelling), pattern
