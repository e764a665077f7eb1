"""Pins after an update of the table: judged anew, forgotten with their devbox, or read back after a restart."""

from collections import defaultdict

from outgate.core.decide import PreparedPolicy, decide_lookup
from outgate.dataplane.gate_table import GateTable, TableChange
from outgate.dataplane.pin_elements import Pin
from outgate.dataplane.pin_writer import PinPlace, PinWriter
from outgate.model.addresses import IPAddress
from outgate.model.flow import HostContext
from outgate.model.names import DomainName, HostNameError, parse_domain_name
from outgate.model.verdict import Deny


class _Coverage:
    """Which names a policy covers; each name is asked for once, though a thousand devboxes know it."""

    def __init__(self, policy: PreparedPolicy, context: HostContext) -> None:
        self._policy = policy
        self._context = context
        self._known: dict[DomainName, bool] = {}

    def covers(self, name: DomainName) -> bool:
        known = self._known.get(name)
        if known is None:
            known = not isinstance(decide_lookup(self._policy, name, self._context), Deny)
            self._known[name] = known
        return known

    def names_of(self, pin: Pin) -> tuple[DomainName, ...]:
        """Those names of a pin of the kernel that the policy covers."""
        return tuple(name for text in pin.names if (name := _parse_name(text)) is not None and self.covers(name))


def _parse_name(text: str) -> DomainName | None:
    try:
        return parse_domain_name(text)
    except HostNameError:
        return None  # the kernel's memory is not ours alone; what is no name teaches nothing


def rejudge_pins(table: GateTable, writer: PinWriter, change: TableChange, now_s: float) -> None:
    """Take away what the devboxes of changed policies, and removed devboxes, may not use any more."""
    places: list[PinPlace] = []
    for entry in change.removed:
        places += [(entry.link, key.address) for key in table.pins.forget_devbox(entry.id, now_s)]
        table.wildcard_budget.forget_devbox(entry.id)
    coverages: dict[str, _Coverage] = {}
    for entry in table.devboxes():
        if entry.policy_id in change.policy_ids:
            coverage = coverages.setdefault(entry.policy_id, _Coverage(entry.policy, entry.context))
            places += [(entry.link, key.address) for key in table.pins.rejudge(entry.id, coverage.covers, now_s)]
    writer.delete(places)


def reconcile_pins(table: GateTable, writer: PinWriter, now_s: float) -> None:
    """Make table and kernel agree: after a restart, and after the kernel's table was written anew.

    The kernel's pins are taken over; what belongs to no devbox, or names nothing that its policy covers, is deleted.
    Pins that only the table knows are written again. Raises
    :class:`~outgate.dataplane.netlink.NetlinkError` when the kernel's cannot be read.
    """
    by_link = {entry.link: entry for entry in table.devboxes()}
    coverages: dict[str, _Coverage] = {}
    present = defaultdict[str, set[IPAddress]](set)
    unwanted: list[PinPlace] = []
    for pin in writer.dump():
        entry = by_link.get(pin.link)
        if entry is None:
            unwanted.append((pin.link, pin.address))
            continue
        present[entry.id].add(pin.address)
        coverage = coverages.setdefault(entry.policy_id, _Coverage(entry.policy, entry.context))
        change = table.pins.restore(entry.id, pin.address, coverage.names_of(pin), pin.remaining_ms / 1000, now_s)
        # The element remembers the names it was written with; the table may know newer ones.
        if change.deletes and not table.pins.names_of(entry.id, pin.address, now_s):
            unwanted.append((entry.link, pin.address))
    writer.delete(unwanted)
    for entry in by_link.values():
        for write in table.pins.rewrite(entry.id, present[entry.id], now_s):
            writer.submit_write(entry, write)
    writer.commit()
