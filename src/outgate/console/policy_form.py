"""The form of a policy: texts as somebody typed them, judged line by line by the parsers of the API."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import msgspec

from outgate.api.bodies import parse_body
from outgate.api.policy_bodies import NetworkPolicyUpdateParams
from outgate.console.visits import Form
from outgate.control.policy_input import PolicyInput, parse_policy_input
from outgate.core.cidr_lines import parse_cidr_line, render_cidr_line
from outgate.errors import InvalidValueError
from outgate.model.desired import CidrDocument, PolicyDocument
from outgate.model.names import parse_host_pattern
from outgate.model.policy import EGRESS_FLAGS, EnforcementMode

PROBLEMS_MAX: Final = 20
"""Shown at once: whoever pasted a page of something else need not read more."""
_INDEX: Final = re.compile(r"(?P<field>allowed_hostnames|allowed_cidrs)\[(?P<index>\d+)\]")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that cannot be stored. ``line`` counts from 1 in a field of several lines."""

    field: str
    message: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class PolicyForm:
    """A policy as it stands in the form's fields."""

    name: str = ""
    description: str = ""
    enforcement: str = EnforcementMode.ENFORCE.value
    flags: dict[str, bool] = field(default_factory=dict)
    allowed_hostnames: str = ""
    allowed_cidrs: str = ""

    @classmethod
    def of_document(cls, document: PolicyDocument, description: str | None) -> Self:
        """A stored policy."""
        return cls(
            name=document.name,
            description=description or "",
            enforcement=document.enforcement,
            flags={flag: getattr(document, flag) for flag in EGRESS_FLAGS},
            allowed_hostnames="".join(f"{text}\n" for text in document.allowed_hostnames),
            allowed_cidrs="".join(f"{render_rule(rule)}\n" for rule in document.allowed_cidrs),
        )

    @classmethod
    def of_proposal(
        cls,
        document: PolicyDocument,
        description: str | None,
        hostnames: tuple[str, ...],
        cidrs: tuple[CidrDocument, ...],
    ) -> Self:
        """A stored policy with other lists."""
        return cls.of_document(
            msgspec.structs.replace(document, allowed_hostnames=hostnames, allowed_cidrs=cidrs), description
        )

    @classmethod
    def of_posted(cls, posted: Form) -> Self:
        """What was posted."""
        return cls(
            name=posted.get("name", "").strip(),
            description=posted.get("description", "").strip(),
            enforcement=posted.get("enforcement", EnforcementMode.ENFORCE.value),
            flags={flag: flag in posted for flag in EGRESS_FLAGS},
            allowed_hostnames=posted.get("allowed_hostnames", ""),
            allowed_cidrs=posted.get("allowed_cidrs", ""),
        )

    def find_problems(self) -> tuple[Problem, ...]:
        """Everything that keeps it from being stored, as far as the form itself tells."""
        problems = [
            *_judge("name", lambda: parse_policy_input(PolicyInput(name=self.name))),
            *_judge("description", lambda: parse_policy_input(PolicyInput(description=self.description))),
            *_judge_lines("allowed_hostnames", self.allowed_hostnames, parse_host_pattern),
            *_judge_lines("allowed_cidrs", self.allowed_cidrs, _judge_rule),
        ]
        if not problems:
            # What no line shows by itself: how many there are, say.
            problems = [*_judge("", lambda: parse_policy_input(self.to_input()))]
        return tuple(problems[:PROBLEMS_MAX])

    def locate(self, error: InvalidValueError) -> Problem:
        """Where in the form an error of the API's use-cases belongs."""
        found = _INDEX.match(error.field or "")
        if found is None:
            return Problem((error.field or "").partition("[")[0], error.message)
        lines = _lines(getattr(self, found["field"]))
        index = int(found["index"])
        return Problem(found["field"], error.message, lines[index][0] if index < len(lines) else None)

    def to_input(self) -> PolicyInput:
        """The update that makes a policy just this. Raises InvalidValueError."""
        return parse_body(NetworkPolicyUpdateParams, msgspec.json.encode(self._body())).to_input()

    def to_rules(self) -> PolicyInput:
        """The update that gives a policy these rules, and leaves its name and description. Raises InvalidValueError."""
        return replace(self.to_input(), name=None, description=None)

    def digest(self, revision: int) -> str:
        """Stands for just this, as a change of that revision. Changes with anything that would be stored."""
        return hashlib.sha256(msgspec.json.encode((revision, msgspec.to_builtins(self)), order="sorted")).hexdigest()

    def _body(self) -> dict[str, Any]:
        return {
            **self.flags,
            "name": self.name,
            "description": self.description,
            "enforcement": self.enforcement,
            "allowed_hostnames": [text for _, text in _lines(self.allowed_hostnames)],
            "allowed_cidrs": [parse_cidr_line(text) for _, text in _lines(self.allowed_cidrs)],
        }


def render_rule(rule: CidrDocument) -> str:
    """The line of a CIDR rule."""
    ports = [msgspec.structs.asdict(ports) for ports in rule.ports]
    return render_cidr_line({"cidr": rule.cidr, "ports": ports})


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines that say something, and the number of each."""
    numbered = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in numbered if line]


def _judge(field_name: str, parse: Callable[[], object]) -> Iterator[Problem]:
    try:
        parse()
    except InvalidValueError as error:
        yield Problem(field_name or (error.field or "").partition("[")[0], error.message)


def _judge_lines(field_name: str, text: str, parse: Callable[[str], object]) -> Iterator[Problem]:
    for number, line in _lines(text):
        try:
            parse(line)
        except InvalidValueError as error:
            yield Problem(field_name, error.message, number)


def _judge_rule(line: str) -> None:
    rule = parse_cidr_line(line)
    parse_policy_input(parse_body(NetworkPolicyUpdateParams, msgspec.json.encode({"allowed_cidrs": [rule]})).to_input())
