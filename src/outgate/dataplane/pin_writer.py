"""Pins on their way into the kernel: everything one turn of the loop taught goes in one transaction.

An answer that teaches an address leaves only after the kernel has the pin, so that the devbox's first packet finds
it. If the kernel refuses, the answer is withheld: the pin is forgotten and the query fails.
"""

import errno
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from outgate.core.pins import PinChange, PinWrite
from outgate.dataplane.gate_table import DevboxEntry
from outgate.dataplane.netlink import NetlinkError
from outgate.dataplane.nfnetlink import Nfnetlink
from outgate.dataplane.pin_elements import Pin, add_pins, delete_pins, dump_pins
from outgate.model.addresses import IPAddress

PinPlace = tuple[str, IPAddress]
"""Link and address: the key of a pin in the kernel."""
CommitCallback = Callable[[Collection[PinPlace]], None]
"""Called with the places that the kernel refused; empty when all went well."""
WARNING_CODE = "pins_not_written"


class PinSets(Protocol):
    """The kernel's pin sets."""

    def change(self, adds: Sequence[Pin], deletes: Sequence[PinPlace]) -> None:
        """Delete, then add, in one transaction. Raises :class:`NetlinkError`; then nothing was done."""
        ...

    def dump(self) -> list[Pin]:
        """Every pin there is. Raises :class:`NetlinkError`."""
        ...


class KernelPinSets:
    """The pin sets of the network namespace that the calling thread is in when this is made."""

    def __init__(self) -> None:
        self._netfilter = Nfnetlink()

    def change(self, adds: Sequence[Pin], deletes: Sequence[PinPlace]) -> None:
        """Delete, then add, in one transaction. Raises :class:`NetlinkError`; then nothing was done."""
        self._netfilter.batch([*delete_pins(deletes), *add_pins(adds)])

    def dump(self) -> list[Pin]:
        """Every pin there is. Raises :class:`NetlinkError`."""
        return dump_pins(self._netfilter)

    def close(self) -> None:
        """Give the socket back."""
        self._netfilter.close()


class PinWriter:
    """Collects changes and commits them; call :meth:`commit` at the end of each turn.

    ``on_warning(code, text)`` hears when the kernel begins to refuse pins and, with an empty text, when it
    takes them again.
    """

    def __init__(self, sets: PinSets, on_warning: Callable[[str, str], None]) -> None:
        self._sets = sets
        self._on_warning = on_warning
        self._adds: dict[PinPlace, Pin] = {}
        self._deletes: set[PinPlace] = set()
        self._waiting: list[CommitCallback] = []
        self._is_refused = False

    @property
    def is_idle(self) -> bool:
        """Whether everything submitted is in the kernel."""
        return not self._adds and not self._deletes

    def submit(self, entry: DevboxEntry, change: PinChange) -> None:
        """Have ``change`` (of this devbox's pins) committed at the end of the turn."""
        for key in change.deletes:
            place = (entry.link, key.address)
            self._adds.pop(place, None)
            self._deletes.add(place)
        if change.write is not None:
            self.submit_write(entry, change.write)

    def submit_write(self, entry: DevboxEntry, write: PinWrite) -> None:
        """Have one pin written (or its life renewed) at the end of the turn."""
        address = write.key.address
        place = (entry.link, address)
        if not write.is_new and place not in self._adds:
            # The kernel keeps an element's names, and before 6.12 its timeout too, when it is added again.
            self._deletes.add(place)
        self._adds[place] = Pin(entry.link, address, int(write.timeout_s * 1000), write.names)

    def after_commit(self, callback: CommitCallback) -> None:
        """Call ``callback`` once everything submitted so far is in the kernel: at once when it is."""
        if self.is_idle:
            callback(())
        else:
            self._waiting.append(callback)

    def commit(self) -> None:
        """Bring everything submitted into the kernel and call who waits for it."""
        adds, deletes, waiting = tuple(self._adds.values()), tuple(self._deletes), self._waiting
        if not adds and not deletes and not waiting:
            return
        self._adds, self._deletes, self._waiting = {}, set(), []
        refused = self._change(adds, deletes)
        for callback in waiting:
            callback(refused)

    def delete(self, places: Iterable[PinPlace]) -> None:
        """Take pins out of the kernel now; those that are gone already do no harm."""
        places = tuple(places)
        for place in places:
            self._adds.pop(place, None)
        if places:
            self._change((), places)

    def dump(self) -> list[Pin]:
        """Every pin in the kernel. Raises :class:`NetlinkError`."""
        return self._sets.dump()

    def _change(self, adds: Sequence[Pin], deletes: Sequence[PinPlace]) -> frozenset[PinPlace]:
        try:
            self._sets.change(adds, deletes)
        except NetlinkError:
            # One bad element takes the whole transaction down (a deletion of what just ended does): one by one, then.
            refused, text = self._change_singly(adds, deletes)
        else:
            refused, text = frozenset[PinPlace](), ""
        if bool(refused) != self._is_refused:
            self._is_refused = bool(refused)
            self._on_warning(WARNING_CODE, text)
        return refused

    def _change_singly(self, adds: Sequence[Pin], deletes: Sequence[PinPlace]) -> tuple[frozenset[PinPlace], str]:
        refused: set[PinPlace] = set()
        text = ""
        for place in deletes:
            try:
                self._sets.change((), (place,))
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    refused.add(place)
                    text = f"The kernel does not let go of a pin: {error.message}"
        for pin in adds:
            try:
                self._sets.change((pin,), ())
            except NetlinkError as error:
                refused.add((pin.link, pin.address))
                text = f"The kernel does not take a pin, so lookups of new addresses fail: {error.message}"
        return frozenset(refused), text
