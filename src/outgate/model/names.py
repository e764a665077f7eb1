"""Host names and host patterns: the one parser and the one normaliser.

A :class:`DomainName` is always in normal form: lower case, no trailing dot, LDH labels (plus ``_``,
which service names use), at most 253 characters (RFC 1035 §2.3.4). A :class:`HostPattern` is a name
with an optional ``*.`` in front of it and remembers how it was spelled, because views echo the
spelling while matching ignores case and one trailing dot (design decisions 4 to 6).
"""

# Looked up by their names when a devbox first sends such a name: too late for a gate that may not read files any more.
import encodings.idna
import encodings.punycode  # noqa: F401 - see above
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NewType

from outgate.errors import InvalidValueError
from outgate.model.shown import show_text

NAME_LENGTH_MAX = 253
LABEL_LENGTH_MAX = 63

DomainName = NewType("DomainName", str)
"""A name in normal form. Made only by :func:`parse_domain_name` (or by code that holds one already)."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z", re.ASCII)
_IPV4_LIKE = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*\Z", re.ASCII)


class HostNameError(InvalidValueError):
    """A text is not a host name or pattern; the message says what to write instead."""

    code = "invalid_hostname"


def parse_domain_name(text: str) -> DomainName:
    """``text`` in normal form.

    Accepts any case and one trailing dot. Raises :class:`HostNameError`, whose message says what to
    write instead, for everything that is not a host name: an address, a URL, a port, an empty or
    over-long label, a name longer than 253 characters, anything beyond ASCII letters, digits, ``-``
    and ``_``.
    """
    return _parse(text, text)


def _parse(text: str, written: str) -> DomainName:
    """``text`` in normal form; complaints show what was ``written``, which may have a ``*.`` in front."""
    shown = show_text(written)
    _refuse_foreign_syntax(text, written, shown)
    name = text.lower().removesuffix(".")
    if len(name) > NAME_LENGTH_MAX:
        raise HostNameError(f"{shown} is {len(name)} characters long; a host name has at most {NAME_LENGTH_MAX}.")
    for label in name.split("."):
        _check_label(label, shown)
    if _IPV4_LIKE.match(name):
        raise HostNameError(f"{shown} is an address, not a host name; put addresses into allowed_cidrs.")
    return DomainName(name)


def _check_label(label: str, shown: str) -> None:
    if not label:
        raise HostNameError(f"{shown} has an empty label; remove the extra dot.")
    if len(label) > LABEL_LENGTH_MAX:
        raise HostNameError(f"{shown} has a label of {len(label)} characters; a label has at most {LABEL_LENGTH_MAX}.")
    if not _LABEL.match(label):
        raise HostNameError(f"{shown} has the label {label!r}; labels are letters, digits and inner hyphens.")


def _refuse_foreign_syntax(text: str, written: str, shown: str) -> None:
    """Name the mistakes that people make, in the order in which they explain the most."""
    if text in ("", "."):
        raise HostNameError("A host name must not be empty; leave the entry out instead.")
    for is_mistake, complaint in _MISTAKES:
        if is_mistake(text):
            raise HostNameError(f"{shown} {complaint}")
    if not text.isascii():
        raise HostNameError(f"{shown} is not ASCII; {_a_label_advice(text, written)}")


_MISTAKES: Final[tuple[tuple[Callable[[str], bool], str], ...]] = (
    (lambda t: any(ord(c) < 0x20 or ord(c) == 0x7F for c in t), "holds a control character; write the bare host name."),
    (lambda t: any(c.isspace() for c in t), "holds white space; write one bare host name per entry."),
    (lambda t: "://" in t, "is a URL; write only its host name, without scheme and path."),
    (
        lambda t: "[" in t or "]" in t or t.count(":") > 1,
        "is an IPv6 address or holds brackets; a host name has neither.",
    ),
    (
        lambda t: any(c in t for c in "/\\?#"),
        "holds a path; write only the host name. (Networks go into allowed_cidrs.)",
    ),
    (lambda t: ":" in t, "holds a port; host names cover every TCP port, so write it without one."),
    (lambda t: "@" in t, "holds user information; write only the host name."),
    (lambda t: "*" in t, "has a '*' inside; a wildcard is allowed only as the whole first label, as in *.example.com."),
)


_AMBIGUOUS_IN_IDNA: Final = frozenset("ßẞς\u200c\u200d")
"""Letters that IDNA 2003 and 2008 encode differently (RFC 5894 §7.2): no advice could be right for everybody."""


def _a_label_advice(text: str, written: str) -> str:
    """What to write instead of a name with letters beyond ASCII, where that can be said for certain."""
    vague = "write the name's ASCII form (its A-label, xn--…)."
    if len(text) > NAME_LENGTH_MAX or _AMBIGUOUS_IN_IDNA & set(text):
        return vague
    try:
        # Folding full-width letters and the like can give anything, a path or an address among them.
        name = parse_domain_name(text.encode("idna").decode("ascii"))
    except (UnicodeError, HostNameError):
        return vague
    return f"write {written.removesuffix(text) + name!r} instead."


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One entry of ``allowed_hostnames``.

    ``*.x`` covers every name below x at any depth and never x itself; an exact pattern covers only
    itself. Equality ignores the spelling: two patterns are equal when they cover the same names.
    """

    name: DomainName
    is_wildcard: bool
    spelling: str = field(compare=False)

    def __str__(self) -> str:
        return f"*.{self.name}" if self.is_wildcard else self.name


def parse_host_pattern(text: str) -> HostPattern:
    """The pattern that ``text`` spells. Raises :class:`HostNameError` saying what to write instead."""
    if text in ("*", "*."):
        raise HostNameError("'*' would cover every name; set allow_all instead, or list the names.")
    rest = text.removeprefix("*.")
    if text.startswith("**") or (rest != text and rest.startswith("*")):
        raise HostNameError(f"{show_text(text)}: one '*' already covers every depth; write '*.' once.")
    return HostPattern(name=_parse(rest, text), is_wildcard=rest != text, spelling=text)
