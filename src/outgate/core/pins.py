"""Pins: which addresses an allowed lookup taught which devbox, for how long, and what the kernel must be told.

The kernel's pin sets decide which new TCP flows reach the relay at all; this table says *why* (the names), which
is what :func:`outgate.core.decide.decide_flow` wants to know. A pin lives as long as the answer's TTL and a grace,
longer while a flow uses it. Every method returns what the kernel has to be told; the caller does it before the
devbox can act on it.

The kernel's elements are given twice the life that is needed, and are written again only once less than what is
needed remains: a refresh costs 26 µs, and popular names would pay it with each answer. The table's own clock
stays exact, and :meth:`PinTable.expire` takes elements back early, so the kernel never outlives the table for long.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count

import msgspec

from outgate.core.ranges import normalise_address
from outgate.core.wildcard_budget import WildcardBudget
from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName

__all__ = ["PinChange", "PinKey", "PinTable", "PinWrite", "WildcardBudget", "clamp_ttl_s"]

TTL_S_MIN = 5.0
"""A shorter TTL would make a devbox ask again for each connection."""
TTL_S_MAX = 3600.0
"""A longer one would keep addresses open that the name left long ago."""
GRACE_S = 120.0
"""Programs connect for some time to what they looked up once: Linux gives up on a silent address after 127 s."""
TOUCH_S_MAX = GRACE_S / 2
"""A flow that goes on touches its pin at least this often."""
ADDRESSES_PER_DEVBOX_MAX = 4096
"""Some 4 MB of table for a devbox that collects addresses on purpose. Beyond it the pin that would end first goes."""
NAMES_PER_PIN_MAX = 32
"""Large hosts share an address among many names, but a devbox uses few of them. Beyond it the name that would
end first goes; at worst a flow is then denied until its name is looked up again."""

_KERNEL_LIFE_FACTOR = 2.0
_KERNEL_SLACK_S = 1.0
"""An element this close to its end in the kernel may be gone by the time a deletion arrives, and the deletion of
what is gone fails its whole transaction. The kernel ends it by itself."""


class PinKey(msgspec.Struct, frozen=True, gc=False):
    """One pin: ``devbox_id`` learnt ``address``."""

    devbox_id: str
    address: IPAddress


class PinWrite(msgspec.Struct, frozen=True, gc=False):
    """Write this element to the kernel, to live ``timeout_s`` from now.

    ``is_new``: the kernel does not have it; otherwise its life is renewed. ``names``: what to keep with the
    element so that a restarted gate can read it back. (Names that are learnt between two writes are not in the
    kernel; a restart forgets them, which denies at worst until the next lookup.)
    """

    key: PinKey
    timeout_s: float
    names: tuple[DomainName, ...]
    is_new: bool


class PinChange(msgspec.Struct, frozen=True, gc=False):
    """What one lesson asks of the kernel: at most one write, and the deletion of a pin that made room."""

    write: PinWrite | None = None
    deletes: tuple[PinKey, ...] = ()


def clamp_ttl_s(ttl_s: float) -> float:
    """The TTL that an answer to a devbox carries: 5 s to 1 h."""
    return min(max(ttl_s, TTL_S_MIN), TTL_S_MAX)


@dataclass(slots=True, eq=False)
class _Pin:
    address: IPAddress
    kernel_until_s: float
    names: dict[DomainName, float] = field(default_factory=dict)
    """Name → when it ends."""

    @property
    def ends_s(self) -> float:
        return max(self.names.values())

    def forget_ended(self, now_s: float) -> None:
        """So that what is kept in the kernel does not bring an ended name back."""
        self.names = {name: until_s for name, until_s in self.names.items() if until_s > now_s}

    def learn(self, name: DomainName, until_s: float) -> None:
        known_s = self.names.get(name)
        if known_s is None and len(self.names) >= NAMES_PER_PIN_MAX:
            del self.names[min(self.names, key=self.names.__getitem__)]
        self.names[name] = until_s if known_s is None else max(known_s, until_s)


@dataclass(slots=True, eq=False)
class _Box:
    """The pins of one devbox, and a heap with exactly one entry for each of them.

    An entry may name a time before the pin's end (the pin was renewed since); it is put right when it surfaces.
    """

    pins: dict[IPAddress, _Pin] = field(default_factory=dict)
    ends: list[tuple[float, int, _Pin]] = field(default_factory=list)

    def surface(self) -> _Pin:
        """The pin that ends first. There must be one."""
        while True:
            noted_s, serial, pin = self.ends[0]
            if pin.ends_s <= noted_s:
                return pin
            heapreplace(self.ends, (pin.ends_s, serial, pin))

    def take_first(self) -> _Pin:
        """Remove and return the pin that ends first."""
        pin = self.surface()
        heappop(self.ends)
        del self.pins[pin.address]
        return pin

    def drop(self, addresses: Collection[IPAddress]) -> None:
        """Remove pins that are there."""
        for address in addresses:
            del self.pins[address]
        self.ends = [entry for entry in self.ends if entry[2].address in self.pins]
        heapify(self.ends)


class PinTable:
    """The pins of all devboxes of one host. Times are seconds on the caller's monotonic clock."""

    def __init__(self) -> None:
        self._boxes: dict[str, _Box] = {}
        self._serials = count()

    def __len__(self) -> int:
        """How many pins there are, ended ones that were not taken away yet included."""
        return sum(len(box.pins) for box in self._boxes.values())

    def teach(self, devbox_id: str, name: DomainName, address: IPAddress, ttl_s: float, now_s: float) -> PinChange:
        """``name`` resolved to ``address`` for this devbox, for ``ttl_s`` (clamped).

        Carry the change out in the kernel BEFORE the answer goes to the devbox; if that fails, :meth:`drop` the
        key and withhold the answer.
        """
        address = normalise_address(address)
        box = self._boxes.setdefault(devbox_id, _Box())
        until_s = now_s + clamp_ttl_s(ttl_s) + GRACE_S
        pin = box.pins.get(address)
        if pin is not None:
            pin.forget_ended(now_s)
            pin.learn(name, until_s)
            return PinChange(self._renew(devbox_id, pin, until_s, now_s))
        evicted = (box.take_first(),) if len(box.pins) >= ADDRESSES_PER_DEVBOX_MAX else ()
        pin = self._add(box, address, (name,), until_s, kernel_until_s=now_s)
        write = self._renew(devbox_id, pin, until_s, now_s)
        return PinChange(write, _deletable(devbox_id, evicted, now_s))

    def _add(
        self, box: _Box, address: IPAddress, names: Iterable[DomainName], until_s: float, *, kernel_until_s: float
    ) -> _Pin:
        pin = _Pin(address, kernel_until_s, dict.fromkeys(names, until_s))
        box.pins[address] = pin
        heappush(box.ends, (until_s, next(self._serials), pin))
        return pin

    def _renew(self, devbox_id: str, pin: _Pin, until_s: float, now_s: float) -> PinWrite | None:
        """The write that makes the kernel's element last until ``until_s``, if it does not already."""
        if pin.kernel_until_s >= until_s:
            return None
        return self._write(devbox_id, pin, until_s, now_s, is_new=pin.kernel_until_s <= now_s)

    @staticmethod
    def _write(devbox_id: str, pin: _Pin, until_s: float, now_s: float, *, is_new: bool) -> PinWrite:
        timeout_s = _KERNEL_LIFE_FACTOR * (until_s - now_s)
        pin.kernel_until_s = now_s + timeout_s
        return PinWrite(PinKey(devbox_id, pin.address), timeout_s, tuple(pin.names), is_new)

    def names_of(self, devbox_id: str, address: IPAddress, now_s: float) -> tuple[DomainName, ...]:
        """The names by which this devbox learnt ``address`` and that have not ended: ``taught`` of ``decide_flow``."""
        pin = self._find(devbox_id, address)
        if pin is None:
            return ()
        return tuple(name for name, until_s in pin.names.items() if until_s > now_s)

    def _find(self, devbox_id: str, address: IPAddress) -> _Pin | None:
        box = self._boxes.get(devbox_id)
        return None if box is None else box.pins.get(normalise_address(address))

    def touch(self, devbox_id: str, address: IPAddress, now_s: float) -> PinWrite | None:
        """A flow uses the pin: it and its names last at least GRACE_S more. Call every TOUCH_S_MAX or oftener.

        Returns the write that the kernel needs, if any. A pin that ended stays ended.
        """
        pin = self._find(devbox_id, address)
        if pin is None or pin.ends_s <= now_s:
            return None
        until_s = now_s + GRACE_S
        pin.forget_ended(now_s)
        for name in list(pin.names):
            pin.learn(name, until_s)
        return self._renew(devbox_id, pin, until_s, now_s)

    def expire(self, now_s: float) -> tuple[PinKey, ...]:
        """Drop the pins that ended; returns those whose elements the kernel still has, to be deleted there."""
        gone: list[PinKey] = []
        for devbox_id, box in list(self._boxes.items()):
            ended: list[_Pin] = []
            while box.pins and box.surface().ends_s <= now_s:
                ended.append(box.take_first())
            gone += _deletable(devbox_id, ended, now_s)
            if not box.pins:
                del self._boxes[devbox_id]
        return tuple(gone)

    def rejudge(self, devbox_id: str, covers: Callable[[DomainName], bool], now_s: float) -> tuple[PinKey, ...]:
        """Forget the names that ``covers`` does not confirm, asking once for each.

        Call it for every devbox whose policy changed. Returns the pins that have no name left, to be deleted
        from the kernel.
        """
        box = self._boxes.get(devbox_id)
        if box is None:
            return ()
        names = {name for pin in box.pins.values() for name in pin.names}
        lost = {name for name in names if not covers(name)}
        if not lost:
            return ()
        bare = [pin for pin in box.pins.values() if pin.names.keys() <= lost]
        box.drop([pin.address for pin in bare])
        for pin in box.pins.values():
            for name in lost & pin.names.keys():
                del pin.names[name]
        # Without a lost name a pin may end earlier than the heap has noted.
        box.ends = [(pin.ends_s, serial, pin) for _, serial, pin in box.ends]
        heapify(box.ends)
        return _deletable(devbox_id, bare, now_s)

    def drop(self, keys: Iterable[PinKey]) -> None:
        """Forget pins that the kernel did not take, so that the next lesson writes them anew."""
        by_devbox: dict[str, set[IPAddress]] = {}
        for key in keys:
            by_devbox.setdefault(key.devbox_id, set()).add(key.address)
        for devbox_id, addresses in by_devbox.items():
            box = self._boxes.get(devbox_id)
            if box is not None:
                box.drop(addresses & box.pins.keys())

    def forget_devbox(self, devbox_id: str, now_s: float) -> tuple[PinKey, ...]:
        """Drop all pins of a devbox; returns those whose elements the kernel still has, to be deleted there."""
        box = self._boxes.pop(devbox_id, None)
        return () if box is None else _deletable(devbox_id, box.pins.values(), now_s)

    def rewrite(self, devbox_id: str, present: Collection[IPAddress], now_s: float) -> tuple[PinWrite, ...]:
        """The writes that bring back what the kernel lost of a devbox's pins; ``present`` is what it still has."""
        box = self._boxes.get(devbox_id)
        if box is None:
            return ()
        writes: list[PinWrite] = []
        for pin in box.pins.values():
            if pin.address in present:
                continue
            # Whatever becomes of the pin: this element is gone, and must not be deleted a second time.
            pin.kernel_until_s = now_s
            if pin.ends_s > now_s:
                pin.forget_ended(now_s)
                writes.append(self._write(devbox_id, pin, pin.ends_s, now_s, is_new=True))
        return tuple(writes)

    def restore(
        self, devbox_id: str, address: IPAddress, names: Collection[DomainName], timeout_s: float, now_s: float
    ) -> PinChange:
        """Take over a pin that was read back from the kernel, where it has ``timeout_s`` left.

        A pin without names, or beyond the bounds, is of no use: the change then deletes it.
        """
        address = normalise_address(address)
        key = PinKey(devbox_id, address)
        box = self._boxes.setdefault(devbox_id, _Box())
        until_s = now_s + min(timeout_s, TTL_S_MAX + GRACE_S)
        if not names or (address not in box.pins and len(box.pins) >= ADDRESSES_PER_DEVBOX_MAX):
            return PinChange(deletes=(key,) if timeout_s > _KERNEL_SLACK_S else ())
        pin = box.pins.get(address)
        if pin is None:
            pin = self._add(box, address, (), until_s, kernel_until_s=now_s + timeout_s)
        for name in names:
            pin.learn(name, until_s)
        return PinChange()


def _deletable(devbox_id: str, pins: Iterable[_Pin], now_s: float) -> tuple[PinKey, ...]:
    """The keys of those ``pins`` that the kernel surely still has."""
    return tuple(PinKey(devbox_id, pin.address) for pin in pins if pin.kernel_until_s > now_s + _KERNEL_SLACK_S)
