"""Reading nf_tables back by hand-made netlink: chains and rules as fingerprints, and counters of sets.

A rule's expressions come back from the kernel the same as long as nobody replaces it, so comparing what was
read after writing with what is read later finds every change, at some µs a rule and without any text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from outgate.dataplane.netlink import Message, digest_messages, list_attributes, parse_attributes, text
from outgate.dataplane.nfnetlink import Nfnetlink

_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS = 1, 4, 7, 10, 13
_FAMILY_UNSPEC, _FAMILY_INET, _FAMILY_IPV4, _FAMILY_IPV6 = 0, 1, 2, 10
_FAMILY_NAMES: Final = {_FAMILY_INET: "inet", _FAMILY_IPV4: "ip", _FAMILY_IPV6: "ip6"}
_ALL_FAMILY_NAMES: Final = {**_FAMILY_NAMES, 3: "arp", 5: "netdev", 7: "bridge"}
_TABLE_NAME: Final = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER: Final = 1
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_LENGTH, _SET_DATA_TYPE = 1, 2, 3, 5, 6
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEM_KEY, _ELEM_EXPRESSION, _DATA_VALUE = 1, 7, 1
_EXPRESSION_DATA, _COUNTER_PACKETS = 2, 2
_HOOK_FORWARD: Final = 2
_GENERATION_BYTES: Final = 4
"""Messages begin with the generation of the rules, which every transaction changes."""
_POLICY_DROP: Final = 0


@dataclass(frozen=True, slots=True)
class ChainPrint:
    """What a chain is: hook, priority and policy as the kernel tells them (empty without hook), and its rules."""

    base: bytes
    rules: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DroppingChain:
    """A chain in the forward hook, not ours, that drops what none of its table's rules accepts."""

    family: str
    table: str
    chain: str
    names_link: bool
    """Whether some rule of the table speaks of the link that was asked for."""


def observe_chains(netfilter: Nfnetlink, table: str) -> dict[str, ChainPrint]:
    """The chains of a table (family inet), by name; empty when there is no such table. Raises NetlinkError."""
    bases: dict[str, bytes] = {}
    for message in netfilter.dump(_GET_CHAIN, b"", doing="reading chains"):
        parts = parse_attributes(message.payload[4:])
        if _text(parts, _CHAIN_TABLE) == table:
            base = (parts.get(_CHAIN_HOOK, b""), parts.get(_CHAIN_POLICY, b""), parts.get(_CHAIN_TYPE, b""))
            bases[_text(parts, _CHAIN_NAME)] = b"".join(base)
    rules: dict[str, list[bytes]] = {name: [] for name in bases}
    if bases:
        for message in _rules(netfilter, _FAMILY_INET, table):
            parts = parse_attributes(message.payload[4:])
            rules.setdefault(_text(parts, _RULE_CHAIN), []).append(parts.get(_RULE_EXPRESSIONS, b""))
    return {name: ChainPrint(bases.get(name, b""), tuple(listed)) for name, listed in rules.items()}


def observe_tables(netfilter: Nfnetlink) -> frozenset[str]:
    """Every table of the namespace, as ``family name``. Raises NetlinkError."""
    messages = netfilter.dump(_GET_TABLE, b"", doing="reading tables", family=_FAMILY_UNSPEC)
    return frozenset(
        f"{_ALL_FAMILY_NAMES[message.payload[0]]} {_text(parse_attributes(message.payload[4:]), _TABLE_NAME)}"
        for message in messages
        if message.payload[0] in _ALL_FAMILY_NAMES
    )


def observe_sets(netfilter: Nfnetlink, table: str) -> dict[str, bytes]:
    """What the sets of a table (family inet) are, by name: flags, key length and data type. Raises NetlinkError.

    Sets without a name of their own (``__set0``) belong to rules and are left out.
    """
    sets: dict[str, bytes] = {}
    for message in netfilter.dump(_GET_SET, b"", doing="reading sets"):
        parts = parse_attributes(message.payload[4:])
        name = _text(parts, _SET_NAME)
        if _text(parts, _SET_TABLE) == table and not name.startswith("__"):
            sets[name] = _set_print(parts)
    return sets


def observe_rules(netfilter: Nfnetlink, table: str, chain: str) -> tuple[bytes, ...]:
    """The rules of one chain (family inet), as in :class:`ChainPrint`. Raises NetlinkError."""
    payload = text(_RULE_TABLE, table) + text(_RULE_CHAIN, chain)
    messages = netfilter.dump(_GET_RULE, payload, doing=f"reading chain {chain}")
    return tuple(parse_attributes(message.payload[4:]).get(_RULE_EXPRESSIONS, b"") for message in messages)


def observe_set(netfilter: Nfnetlink, table: str, name: str) -> bytes:
    """What one set (family inet) is, as in :func:`observe_sets`. Raises NetlinkError."""
    payload = text(_SET_TABLE, table) + text(_SET_NAME, name)
    (message,) = netfilter.query(_GET_SET, payload, doing=f"reading set {name}")
    return _set_print(parse_attributes(message.payload[4:]))


def _set_print(parts: Mapping[int, bytes]) -> bytes:
    return b"".join(parts.get(kind, b"-") for kind in (_SET_FLAGS, _SET_KEY_LENGTH, _SET_DATA_TYPE))


def digest_table(netfilter: Nfnetlink, table: str) -> bytes:
    """A digest of all tables, chains and sets of the namespace and of the rules of ``table``. Raises NetlinkError."""
    messages = [
        *netfilter.dump(_GET_TABLE, b"", doing="reading tables", family=_FAMILY_UNSPEC),
        *netfilter.dump(_GET_CHAIN, b"", doing="reading chains"),
        *netfilter.dump(_GET_SET, b"", doing="reading sets"),
        *netfilter.dump(_GET_RULE, text(_RULE_TABLE, table), doing="reading rules"),
    ]
    return digest_messages(messages, _GENERATION_BYTES)


def digest_elements(netfilter: Nfnetlink, table: str, set_name: str) -> bytes:
    """A digest of the elements of a set (family inet) as read now. Raises NetlinkError (ENOENT: no such set)."""
    payload = text(_LIST_TABLE, table) + text(_LIST_SET, set_name)
    messages = netfilter.dump(_GET_ELEMENTS, payload, doing=f"reading set {set_name}")
    return digest_messages(messages, _GENERATION_BYTES)


def observe_foreign_drops(netfilter: Nfnetlink, own_tables: frozenset[str], link: str) -> tuple[DroppingChain, ...]:
    """Chains of others that drop forwarded packets by policy. Raises NetlinkError."""
    found: list[DroppingChain] = []
    for message in netfilter.dump(_GET_CHAIN, b"", doing="reading chains", family=_FAMILY_UNSPEC):
        family = _FAMILY_NAMES.get(message.payload[0])
        parts = parse_attributes(message.payload[4:])
        table = _text(parts, _CHAIN_TABLE)
        if family is None or table in own_tables or _CHAIN_HOOK not in parts or _CHAIN_POLICY not in parts:
            continue
        hook = _number(parse_attributes(parts[_CHAIN_HOOK]).get(_HOOK_NUMBER, b""))
        if hook != _HOOK_FORWARD or _number(parts[_CHAIN_POLICY]) != _POLICY_DROP:
            continue
        rules = _rules(netfilter, message.payload[0], table)
        names_link = any(link.encode() in rule.payload for rule in rules)
        found.append(DroppingChain(family, table, _text(parts, _CHAIN_NAME), names_link))
    return tuple(found)


def observe_counters(netfilter: Nfnetlink, table: str, set_name: str) -> Mapping[bytes, int]:
    """Packets counted for each key of a set (family inet) whose elements have a counter. Raises NetlinkError."""
    payload = text(_LIST_TABLE, table) + text(_LIST_SET, set_name)
    counters: dict[bytes, int] = {}
    for message in netfilter.dump(_GET_ELEMENTS, payload, doing=f"reading set {set_name}"):
        listed = parse_attributes(message.payload[4:]).get(_LIST_ELEMENTS, b"")
        for _, content in list_attributes(listed):
            parts = parse_attributes(content)
            key = parse_attributes(parts.get(_ELEM_KEY, b"")).get(_DATA_VALUE, b"")
            expression = parse_attributes(parts.get(_ELEM_EXPRESSION, b""))
            counter = parse_attributes(expression.get(_EXPRESSION_DATA, b""))
            counters[key] = _number(counter.get(_COUNTER_PACKETS, b""))
    return counters


def _rules(netfilter: Nfnetlink, family: int, table: str) -> list[Message]:
    messages = netfilter.dump(_GET_RULE, text(_RULE_TABLE, table), doing="reading rules", family=family)
    # Kernels before 4.7 send the rules of all tables.
    return [m for m in messages if _text(parse_attributes(m.payload[4:]), _RULE_TABLE) == table]


def _text(parts: Mapping[int, bytes], kind: int) -> str:
    return parts.get(kind, b"").rstrip(b"\0").decode("utf-8", "replace")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
