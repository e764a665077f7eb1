"""Who is behind a source address and what it may: the table that the DNS gate and the relay share.

The agent sends what changed (:class:`~outgate.model.desired.GateApply`); the table is swapped in one step,
between two turns of the loop, so that no query and no flow ever sees half an update.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from outgate.core.decide import PreparedPolicy, prepare_policy
from outgate.core.documents import policy_from_document
from outgate.core.pins import PinTable
from outgate.core.wildcard_budget import WildcardBudget
from outgate.errors import InvalidValueError
from outgate.model.desired import GateApply, GateDevbox
from outgate.model.flow import HostContext
from outgate.model.policy import NetworkPolicy


@dataclass(slots=True, eq=False)
class DevboxEntry:
    """One devbox as the gate knows it. ``policy`` and ``context`` are replaced when an update is applied."""

    id: str
    account_id: str
    link: str
    policy_id: str
    addresses: tuple[str, ...]
    policy: PreparedPolicy
    context: HostContext
    pins: PinTable
    """The host's one table of pins; this devbox's are found by ``id``."""


@dataclass(frozen=True, slots=True)
class TableChange:
    """What an update changed.

    ``policy_ids``: policies whose flows and pins have to be judged again, because the policy, the host's
    addresses or the policy of a devbox changed. ``removed``: entries that are gone, among them those of
    devboxes whose link or address changed.
    """

    policy_ids: frozenset[str]
    removed: tuple[DevboxEntry, ...]
    added: tuple[DevboxEntry, ...]

    @property
    def removed_devbox_ids(self) -> frozenset[str]:
        """Ids of the removed entries."""
        return frozenset(entry.id for entry in self.removed)


class GateTable:
    """Devboxes by source address, with their policies. Empty until the first :meth:`apply`."""

    def __init__(self, context: HostContext) -> None:
        self.pins = PinTable()
        self.wildcard_budget = WildcardBudget()
        self._context = context
        self._policies: dict[str, NetworkPolicy] = {}
        self._prepared: dict[str, PreparedPolicy] = {}
        self._entries: dict[str, DevboxEntry] = {}
        self._by_address: dict[str, DevboxEntry] = {}
        self._revision = 0

    @property
    def revision(self) -> int:
        """The desired-state revision last applied; 0 before the first."""
        return self._revision

    def find_devbox(self, source_address: str) -> DevboxEntry | None:
        """The devbox that was given ``source_address`` (as ``recvfrom`` and ``accept`` spell it), or None."""
        return self._by_address.get(source_address)

    def get_devbox(self, devbox_id: str) -> DevboxEntry | None:
        """The devbox with this id, or None."""
        return self._entries.get(devbox_id)

    def devboxes(self) -> Iterator[DevboxEntry]:
        """Every devbox."""
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def apply(self, update: GateApply) -> TableChange:
        """Put ``update`` in force and say what changed.

        Raises ValueError (mostly :class:`InvalidValueError`) for an update that makes no sense: a document that
        does not parse, a devbox of an unknown policy, one address given twice. Then nothing has changed.
        """
        context = self._next_context(update)
        policies = self._next_policies(update)
        prepared = {
            policy_id: self._prepared[policy_id]
            if self._policies.get(policy_id) == policy
            else prepare_policy(policy, context)
            for policy_id, policy in policies.items()
        }
        entries, moved = self._next_entries(update, prepared, context)
        by_address = _index_addresses(entries.values())
        # From here on nothing can fail.
        changed = {
            policy_id
            for policy_id in prepared
            if context != self._context or prepared[policy_id] is not self._prepared.get(policy_id)
        }
        for entry, policy_id in moved:
            entry.policy_id = policy_id
            changed.add(policy_id)
        for entry in entries.values():
            if entry.policy_id in changed:
                entry.policy, entry.context = prepared[entry.policy_id], context
        change = TableChange(
            policy_ids=frozenset(changed),
            removed=tuple(entry for entry in self._entries.values() if entries.get(entry.id) is not entry),
            added=tuple(entry for entry in entries.values() if self._entries.get(entry.id) is not entry),
        )
        self._context, self._policies, self._prepared = context, policies, prepared
        self._entries, self._by_address, self._revision = entries, by_address, update.revision
        return change

    def _next_context(self, update: GateApply) -> HostContext:
        if update.host_addresses is None:
            return self._context
        return replace(self._context, host_addresses=frozenset(ip_address(text) for text in update.host_addresses))

    def _next_policies(self, update: GateApply) -> dict[str, NetworkPolicy]:
        policies = {} if update.full else dict(self._policies)
        for policy_id in update.policies_removed:
            policies.pop(policy_id, None)
        for document in update.policies:
            policies[document.id], _grants = policy_from_document(document)
        return policies

    def _next_entries(
        self, update: GateApply, prepared: Mapping[str, PreparedPolicy], context: HostContext
    ) -> tuple[dict[str, DevboxEntry], list[tuple[DevboxEntry, str]]]:
        """The entries after ``update``, and the kept ones that get another policy."""
        entries = {} if update.full else dict(self._entries)
        for devbox_id in update.devboxes_removed:
            entries.pop(devbox_id, None)
        moved: list[tuple[DevboxEntry, str]] = []
        for document in update.devboxes:
            if document.policy_id not in prepared:
                raise InvalidValueError(f"devbox {document.id} has the unknown policy {document.policy_id}.")
            wanted = self._make_entry(document, prepared[document.policy_id], context)
            known = self._entries.get(document.id)
            if known is None or not _is_same_box(known, wanted):
                entries[document.id] = wanted
                continue
            entries[document.id] = known
            if known.policy_id != document.policy_id:
                moved.append((known, document.policy_id))
        moving = {entry.id for entry, _ in moved}
        for entry in entries.values():
            if entry.id not in moving and entry.policy_id not in prepared:
                raise InvalidValueError(f"policy {entry.policy_id} is gone, but devbox {entry.id} still has it.")
        return entries, moved

    def _make_entry(self, document: GateDevbox, policy: PreparedPolicy, context: HostContext) -> DevboxEntry:
        texts = (document.address4,) if document.address6 is None else (document.address4, document.address6)
        return DevboxEntry(
            id=document.id,
            account_id=document.account_id,
            link=document.link,
            policy_id=document.policy_id,
            addresses=tuple(str(ip_address(text)) for text in texts),
            policy=policy,
            context=context,
            pins=self.pins,
        )


def _is_same_box(known: DevboxEntry, wanted: DevboxEntry) -> bool:
    return (known.account_id, known.link, known.addresses) == (wanted.account_id, wanted.link, wanted.addresses)


def _index_addresses(entries: Iterable[DevboxEntry]) -> dict[str, DevboxEntry]:
    by_address: dict[str, DevboxEntry] = {}
    for entry in entries:
        for address in entry.addresses:
            other = by_address.setdefault(address, entry)
            if other is not entry:
                raise InvalidValueError(f"{address} was given to {other.id} and to {entry.id}.")
    return by_address
