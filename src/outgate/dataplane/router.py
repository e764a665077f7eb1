"""The router namespace of one instance: its sockets, and reading back what it holds."""

import errno
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from outgate.dataplane import netns
from outgate.dataplane.conntrack import Conntrack
from outgate.dataplane.driver import DevboxLink, RouterState
from outgate.dataplane.elements import STATE_SETS, set_elements
from outgate.dataplane.layout import LINK_INDEX_BASE, NetworkLayout
from outgate.dataplane.links import (
    Rtnetlink,
    box_end,
    link_alias,
    router_end,
    router_requests,
    router_sysctls,
)
from outgate.dataplane.netlink import NetlinkError, digest_messages
from outgate.dataplane.nfnetlink import Element, Nfnetlink, delete_elements, key_link
from outgate.dataplane.nft import Nft
from outgate.dataplane.nft_observe import (
    ChainPrint,
    digest_elements,
    digest_table,
    observe_chains,
    observe_rules,
    observe_set,
    observe_sets,
    observe_tables,
)
from outgate.dataplane.pin_elements import PINS4, PINS6, TABLE, Pin, dump_pins
from outgate.dataplane.routing import (
    Wanted,
    compare_addresses,
    compare_routes,
    compare_rules,
    remove_strangers,
    wanted_routing,
)
from outgate.dataplane.rtnetlink import Link
from outgate.dataplane.ruleset import (
    DENIED,
    DENIED_LOGGED,
    FLOOR4,
    FLOOR6,
    FLOWS,
    LIVE,
    SPECIAL4,
    SPECIAL6,
    address_map,
    cidr_map,
    policy_chain,
)
from outgate.dataplane.sysctl import ensure_sysctls, observe_differing

_TABLE, _ROUTES = "/table", "/routes"
_ALREADY_THERE: Final = frozenset({errno.EEXIST})
_DELETE_ATTEMPTS_MAX: Final = 5
"""An element that expires between reading and deleting fails the batch; a few rounds catch up with that."""


@dataclass(frozen=True, slots=True)
class TablePrint:
    """Fingerprint of the table: chains with their rules, what the sets are, and the elements that never change."""

    chains: dict[str, ChainPrint] = field(default_factory=dict)
    sets: dict[str, bytes] = field(default_factory=dict)
    floor: frozenset[tuple[str, Element]] = frozenset()

    def with_policies(self, netfilter: Nfnetlink, numbers: Iterable[int]) -> "TablePrint":
        """This one, and what the kernel has for these policies: only what we have just added is learnt.

        The rest stays as recorded, so that no drift is taken for ours. Raises NetlinkError.
        """
        chains, sets = dict(self.chains), dict(self.sets)
        for number in numbers:
            chain = policy_chain(number)
            chains[chain] = ChainPrint(b"", observe_rules(netfilter, TABLE, chain))
            for name in (cidr_map(number), address_map(number)):
                sets[name] = observe_set(netfilter, TABLE, name)
        return replace(self, chains=chains, sets=sets)

    def without_policies(self, numbers: Iterable[int]) -> "TablePrint":
        """This one without these policies."""
        gone = {name for number in numbers for name in (policy_chain(number), cidr_map(number), address_map(number))}
        return replace(
            self,
            chains={name: found for name, found in self.chains.items() if name not in gone},
            sets={name: found for name, found in self.sets.items() if name not in gone},
        )


class Router:
    """The sockets that work in the router namespace. They stay with it when the name goes to another one."""

    def __init__(self, layout: NetworkLayout) -> None:
        self.layout = layout
        self.namespace = netns.open_namespace(layout.router_namespace)
        self.identity = netns.namespace_identity(self.namespace)
        self._verified: dict[str, tuple[object, bytes]] = {}
        """By set (or one of the names below): what it was held against, and the digest of what was read."""
        with netns.entered(self.namespace):
            self.links = Rtnetlink()
            self.netfilter = Nfnetlink()
            self.nft = Nft()
            self.conntrack = Conntrack()

    @classmethod
    def ensure(cls, layout: NetworkLayout) -> Self:
        """The router namespace, made if there is none."""
        if not netns.has_namespace(layout.router_namespace):
            with netns.created(layout.router_namespace):
                ensure_sysctls(router_sysctls())
        return cls(layout)

    def close(self) -> None:
        """Give the sockets back; the namespace stays."""
        self.links.close()
        self.netfilter.close()
        self.nft.close()
        self.conntrack.close()
        os.close(self.namespace)

    def is_current(self) -> bool:
        """Whether the namespace still goes by its name."""
        name = self.layout.router_namespace
        return netns.has_namespace(name) and netns.namespace_identity(name) == self.identity

    def ensure_settings(self) -> None:
        """Kernel settings, gateway addresses, the relay's route and rule."""
        with netns.entered(self.namespace):
            ensure_sysctls(router_sysctls())
        self.links.do(router_requests(self.layout), ignoring=_ALREADY_THERE)

    def remove_strangers(self, devboxes: Collection[DevboxLink]) -> None:
        """Remove rules, routes and addresses that do not belong there."""
        remove_strangers(self.links, wanted_routing(self.layout, devboxes))

    def observe_links(self) -> dict[int, Link]:
        """The devbox links by slot, whoever they belong to."""
        named = {link.name: link for link in self.links.links()}
        slots = {name: _slot(name) for name in named}
        return {slot: named[name] for name, slot in slots.items() if slot is not None}

    def observe_foreign_tables(self) -> tuple[str, ...]:
        """Tables of others, as ``family name``; their rules could grant what ours do not."""
        return tuple(sorted(observe_tables(self.netfilter) - {f"inet {TABLE}"}))

    def observe_live(self) -> frozenset[int]:
        """The grants that are live in the kernel; none when there is no table."""
        try:
            elements = self.netfilter.dump_elements(TABLE, LIVE)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return frozenset()
            raise
        return frozenset(int.from_bytes(element.key, sys.byteorder) for element in elements)

    def observe_pins(self) -> list[Pin]:
        """Every pin; none when there is no table."""
        try:
            return dump_pins(self.netfilter)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return []
            raise

    def observe_print(self) -> TablePrint:
        """The table's fingerprint as it is now."""
        sets = observe_sets(self.netfilter, TABLE)
        floor = {
            (name, element)
            for name in (FLOOR4, FLOOR6, SPECIAL4, SPECIAL6)
            if name in sets
            for element in self.netfilter.dump_elements(TABLE, name)
        }
        return TablePrint(observe_chains(self.netfilter, TABLE), sets, frozenset(floor))

    def forget_links(self, links: Iterable[str]) -> None:
        """Delete every pin of these links, and what was counted for them: the next devbox begins at nothing."""
        needles = [key_link(link) for link in links]
        if not needles:
            return
        for name in (PINS4, PINS6, FLOWS, DENIED, DENIED_LOGGED):
            self._forget_links(name, needles)

    def _forget_links(self, set_name: str, needles: list[bytes]) -> None:
        for _ in range(_DELETE_ATTEMPTS_MAX):
            elements = self.netfilter.dump_elements(
                TABLE, set_name, lambda payload: any(needle in payload for needle in needles)
            )
            doomed = [Element(element.key) for element in elements if element.key[:16] in needles]
            try:
                self.netfilter.batch(delete_elements(TABLE, set_name, doomed))
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
            else:
                return
        raise NetlinkError(errno.EAGAIN, f"deleting a link's elements out of {set_name}", index=None)

    def observe_drift(self, state: RouterState, expected: TablePrint) -> list[str]:
        """How the namespace differs from ``state``, a sentence each.

        Reading and parsing everything takes a second at 1,000 policies. So what the kernel sent is remembered by
        its digest: the same bytes need no second look as long as they are held against the same thing.
        """
        wanted = wanted_routing(self.layout, state.devboxes.values())
        return [
            *self._compare_table(expected),
            *self._compare_elements(state),
            *self._compare_settings(wanted),
            *self._compare_routes(state, wanted),
            *self._compare_links(state.devboxes.values()),
        ]

    def _compare_table(self, expected: TablePrint) -> Iterable[str]:
        digest = digest_table(self.netfilter, TABLE)
        if self._is_verified(_TABLE, expected, digest):
            return
        sentences = [
            *_compare_prints(expected, self.observe_print()),
            *(f"The table {table} does not belong there." for table in self.observe_foreign_tables()),
        ]
        if not sentences:
            self._verified[_TABLE] = (expected, digest)
        yield from sentences

    def _compare_elements(self, state: RouterState) -> Iterable[str]:
        sources: dict[str, object] = dict.fromkeys(STATE_SETS, state)
        for number, plan in state.plans.items():
            sources |= {cidr_map(number): plan, address_map(number): plan}
        for name in self._verified.keys() - sources.keys() - {_TABLE, _ROUTES}:
            del self._verified[name]
        for name, source in sources.items():
            try:
                digest = digest_elements(self.netfilter, TABLE, name)
                if self._is_verified(name, source, digest):
                    continue
                observed = frozenset(map(_comparable, self.netfilter.dump_elements(TABLE, name)))
            except NetlinkError as error:
                if error.errno != errno.ENOENT:
                    raise
                continue  # a set that is gone is told by the fingerprint
            expected = frozenset(map(_comparable, set_elements(state, name)))
            if observed == expected:
                self._verified[name] = (source, digest)
            else:
                missing, extra = len(expected - observed), len(observed - expected)
                yield f"Set {name} lacks {missing} elements and has {extra} that do not belong there."

    def _is_verified(self, name: str, source: object, digest: bytes) -> bool:
        known = self._verified.get(name)
        return known is not None and known[0] is source and known[1] == digest

    def _compare_settings(self, wanted: Wanted) -> Iterable[str]:
        with netns.entered(self.namespace):
            for name in observe_differing(router_sysctls()):
                yield f"net/{name} of the router namespace is not {router_sysctls()[name]}."
        yield from compare_rules(self.links.rule_messages(), wanted)
        yield from compare_addresses(self.links.address_messages(), wanted)

    def _compare_routes(self, state: RouterState, wanted: Wanted) -> Iterable[str]:
        messages = self.links.route_messages()
        digest = digest_messages(messages, 0)
        if self._is_verified(_ROUTES, state, digest):
            return
        sentences = list(compare_routes(messages, wanted))
        if not sentences:
            self._verified[_ROUTES] = (state, digest)
        yield from sentences

    def _compare_links(self, devboxes: Iterable[DevboxLink]) -> Iterable[str]:
        links = self.observe_links()
        neighbours = set(self.links.neighbours())
        for devbox in devboxes:
            link = links.get(devbox.slot)
            if link is None or not link.is_up or link.alias != link_alias(devbox):
                yield f"The link {devbox.link} of devbox {devbox.devbox_id} is gone or is not the devbox's own."
                continue
            if not netns.has_namespace(self.layout.devbox_namespace(devbox.slot)):
                yield f"The network namespace of devbox {devbox.devbox_id} is gone."
            index, hardware = router_end(self.layout, devbox.slot).index, box_end(devbox.slot).hardware_address
            for address in devbox.addresses:
                if (index, address, hardware) not in neighbours:
                    yield f"The neighbour {address} of devbox {devbox.devbox_id} is gone."


def _slot(name: str) -> int | None:
    digits = name.removeprefix("og")
    return int(digits) if digits != name and digits.isascii() and digits.isdigit() else None


def link_name(index: int) -> str:
    """Name of the devbox link with that interface index in a router namespace."""
    return f"og{index - LINK_INDEX_BASE}"


def _comparable(element: Element) -> tuple[bytes, bytes, object]:
    # A single value may come back without its end.
    return element.key, element.key if element.key_end is None else element.key_end, element.data


def _compare_prints(expected: TablePrint, observed: TablePrint) -> Iterable[str]:
    if not observed.chains and not observed.sets:
        yield "The table inet outgate is gone."
        return
    yield from _compare_named("Chain", expected.chains, observed.chains)
    yield from _compare_named("Set", expected.sets, observed.sets)
    if expected.floor != observed.floor:
        yield "The deny floor was changed."


def _compare_named(kind: str, wanted: Mapping[str, object], found: Mapping[str, object]) -> Iterable[str]:
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield f"{kind} {name} is gone."
        elif name not in wanted:
            yield f"{kind} {name} does not belong there."
        elif wanted[name] != found[name]:
            yield f"{kind} {name} was changed."
