"""The relay's questions to :mod:`outgate.core.decide`."""

from collections.abc import Callable, Collection
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from outgate.core.decide import decide_answer, decide_flow, decide_tunnel_flow
from outgate.dataplane.gate_table import DevboxEntry
from outgate.model.addresses import IPAddress, Protocol
from outgate.model.flow import Flow, Handshake, Opaque
from outgate.model.names import DomainName
from outgate.model.verdict import Deny, Verdict

_OPAQUE: Final = Opaque()
_VERDICTS_MAX: Final = 16_384
"""Verdicts remembered, some 400 bytes each. Beyond it all are forgotten: they are cheap to find again."""
_ADDRESSES_CACHED: Final = 4096
"""Original destinations, of which a devbox uses few; an entry is below 300 bytes."""

parse_address: Final[Callable[[str], IPAddress]] = lru_cache(maxsize=_ADDRESSES_CACHED)(ip_address)
"""The address that a socket call gave as text."""


def judge_flow(
    entry: DevboxEntry, address: IPAddress, port: int, handshake: Handshake, taught: Collection[DomainName]
) -> Verdict:
    """The verdict on a TCP flow of ``entry``'s devbox to ``address`` that began with ``handshake``."""
    if address in entry.context.tunnel_addresses:
        return decide_tunnel_flow(entry.policy, entry.account_id, port, handshake, entry.context)
    return decide_flow(entry.policy, Flow(Protocol.TCP, address, port, handshake), taught, entry.context)


def may_open_early(entry: DevboxEntry, address: IPAddress, port: int, taught: Collection[DomainName]) -> Verdict:
    """Whether the address may be dialled before the client has spoken: whether it may pass whatever it says."""
    return judge_flow(entry, address, port, _OPAQUE, taught)


def may_dial(entry: DevboxEntry, name: DomainName, address: IPAddress, port: int) -> Deny | None:
    """Why ``address`` may not be dialled for ``name``; None when it may."""
    verdict = decide_answer(entry.policy, name, address, entry.context, port=port)
    return verdict if isinstance(verdict, Deny) else None


class VerdictCache:
    """Remembers verdicts: most flows go to the same few places, and a decision depends on nothing but its arguments.

    Policies and contexts stand in it by identity (they are immutable and are replaced as a whole), and it
    keeps those it knows, so that an identity is never another one's.
    """

    __slots__ = ("_dials", "_known", "_verdicts")

    def __init__(self) -> None:
        self._verdicts: dict[tuple[int, int, str, IPAddress, int, Handshake, tuple[DomainName, ...]], Verdict] = {}
        self._dials: dict[tuple[int, int, DomainName, IPAddress, int], Deny | None] = {}
        self._known: dict[int, object] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._verdicts.clear()
        self._dials.clear()
        self._known.clear()

    def judge(
        self, entry: DevboxEntry, address: IPAddress, port: int, handshake: Handshake, taught: tuple[DomainName, ...]
    ) -> Verdict:
        """:func:`judge_flow`."""
        key = (id(entry.policy), id(entry.context), entry.account_id, address, port, handshake, taught)
        verdict = self._verdicts.get(key)
        if verdict is None:
            self._make_room(entry)
            verdict = self._verdicts[key] = judge_flow(entry, address, port, handshake, taught)
        return verdict

    def may_dial(self, entry: DevboxEntry, name: DomainName, address: IPAddress, port: int) -> Deny | None:
        """:func:`may_dial`."""
        key = (id(entry.policy), id(entry.context), name, address, port)
        if key not in self._dials:
            self._make_room(entry)
            self._dials[key] = may_dial(entry, name, address, port)
        return self._dials[key]

    def _make_room(self, entry: DevboxEntry) -> None:
        if len(self._verdicts) + len(self._dials) >= _VERDICTS_MAX:
            self.clear()
        self._known[id(entry.policy)] = entry.policy
        self._known[id(entry.context)] = entry.context
