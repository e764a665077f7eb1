"""The driver of a Linux kernel: desired state in, one nft transaction out.

``set`` keeps to one order. What closes comes first: grants, cells and the links of devboxes that go leave the
table in one transaction, together with what the new policies add. Then links go and come. Links of new
devboxes are opened last, when everything about them is in place. The first ``set`` of a driver's life, and one
after drift, writes the whole table anew (one transaction as well) and carries the pins over.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final

from outgate.dataplane import netns
from outgate.dataplane.apply_steps import ApplyStep, StepObserver, ignore_step
from outgate.dataplane.conntrack import Conntrack
from outgate.dataplane.conntrack_events import FlowEventReader
from outgate.dataplane.denials import LinuxDenials
from outgate.dataplane.driver import (
    Applied,
    DevboxLink,
    DriverError,
    RouterState,
    check_state,
)
from outgate.dataplane.elements import (
    change_policies,
    close_devboxes,
    live_grants,
    move_devboxes,
    open_devboxes,
)
from outgate.dataplane.flow_ends import abort_revoked, addresses_of, find_strangers, is_of_pool
from outgate.dataplane.layout import NetworkLayout, uplink_host_name
from outgate.dataplane.links import (
    box_end,
    create_devbox,
    link_alias,
    remove_devboxes,
    router_end,
    router_side_requests,
)
from outgate.dataplane.nflog import NflogReader
from outgate.dataplane.nft_observe import observe_chains, observe_counters
from outgate.dataplane.pin_elements import TABLE, Pin
from outgate.dataplane.router import Router, TablePrint
from outgate.dataplane.ruleset import (
    DENIED,
    LOG_GROUP,
    RulesetOptions,
    render_new_policies,
    render_removed_policies,
    render_replacement,
)
from outgate.dataplane.uplink import HostNetwork, observe_ipv6_obstacle
from outgate.errors import OutgateError
from outgate.model.addresses import IPAddress
from outgate.model.plan import PolicyPlan

_EMPTY: Final = RouterState()


class LinuxDriver:
    """One instance's part of this kernel. The host is the network namespace the thread is in when it is made.

    ``layout.has_ipv6`` is what is wanted; :meth:`ensure_router` says what the host allows.
    """

    def __init__(self, layout: NetworkLayout, options: RulesetOptions, on_step: StepObserver = ignore_step) -> None:
        self._layout = layout
        self._options = options
        self._on_step = on_step
        self._host = HostNetwork()
        self._host_conntrack = Conntrack()
        self._router: Router | None = None
        self._state: RouterState | None = None
        """What the kernel's table holds; None when that is not known and it must be written anew."""
        self._print = TablePrint()

    def close(self) -> None:
        """Give the sockets back. Everything in the kernel stays in force."""
        self._host.close()
        self._host_conntrack.close()
        if self._router is not None:
            self._router.close()
            self._router = None
        self._state = None

    def ensure_router(self) -> NetworkLayout:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        routes = self._host.observe_routes()
        if self._router is None and self._layout.has_ipv6 and observe_ipv6_obstacle(routes) is not None:
            # Decided once in a driver's life: devboxes that have IPv6 keep it.
            self._layout = replace(self._layout, has_ipv6=False)
        try:
            router = self._open_router()
            # The table is there before anything can reach it.
            if not observe_chains(router.netfilter, TABLE):
                router.nft.run(render_replacement(self._layout, self._options, _EMPTY))
                self._state = None
            router.ensure_settings()
            self._host.ensure_uplink(self._layout, router.links, routes.mtu)
            self._host.ensure_forwarding(self._layout, routes)
        except (OutgateError, OSError) as error:
            raise DriverError(f"The router namespace cannot be made: {error}") from error
        return self._layout

    def _open_router(self) -> Router:
        if self._router is not None and not self._router.is_current():
            self._router.close()
            self._router, self._state = None, None
        if self._router is None:
            self._router = Router.ensure(self._layout)
        return self._router

    def _opened(self) -> Router:
        if self._router is None:
            self.ensure_router()
        if self._router is None:  # pragma: no cover - ensure_router raises instead
            raise DriverError("There is no router namespace.")
        return self._router

    def set(self, state: RouterState) -> Applied:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        check_state(state, self._layout, self._state)
        router, old = self._opened(), self._state
        try:
            if old is None:
                return self._replace(state)
            try:
                return self._update(router, old, state)
            except (OutgateError, OSError):
                # The kernel is not in the state we knew; write all of it.
                applied = self._replace(state)
                lost = live_grants(old.plans.values()) - live_grants(state.plans.values())
                return replace(applied, revoked_grants=applied.revoked_grants | lost)
        except (OutgateError, OSError) as error:
            self._state = None
            raise DriverError(f"The rules could not be changed: {error}") from error

    def _update(self, router: Router, old: RouterState, new: RouterState) -> Applied:
        added_policies = new.plans.keys() - old.plans.keys()
        removed_policies = old.plans.keys() - new.plans.keys()
        kept = {
            name: devbox
            for name, devbox in old.devboxes.items()
            if name in new.devboxes and new.devboxes[name].is_in_place_of(devbox)
        }
        gone = [devbox for name, devbox in old.devboxes.items() if name not in kept]
        moved = [name for name, devbox in kept.items() if devbox != new.devboxes[name]]
        revoked = live_grants(old.plans.values()) - live_grants(new.plans.values())
        if added_policies:
            router.nft.run(render_new_policies(added_policies))
            self._on_step(ApplyStep.POLICIES_ADDED)
            self._print = self._print.with_policies(router.netfilter, added_policies)
        messages = [*close_devboxes(gone), *change_policies(old, new)]
        # A policy's maps may change a moment after the set of its devboxes does, and so a devbox that comes to a
        # policy which changes at the same time is shut out until both have happened.
        shut = [name for name in moved if _old_plan(old, new, name) not in (None, _plan(new, name))]
        closing = close_devboxes(kept[name] for name in shut)
        moving = [name for name in moved if name not in shut]
        messages += closing + move_devboxes((kept[name] for name in moving), (new.devboxes[name] for name in moving))
        router.netfilter.batch(messages)
        self._on_step(ApplyStep.ELEMENTS_CHANGED)
        if shut:
            router.netfilter.batch(open_devboxes(new.devboxes[name] for name in shut))
            self._on_step(ApplyStep.MOVED_OPENED)
        self._state = replace(new, devboxes={name: new.devboxes[name] for name in kept})
        # The grants of the former policy may be live for others, so a moved devbox keeps no flow.
        self._forget(router, (kept[name] for name in moved))
        self._remove(router, gone)
        if removed_policies:
            router.nft.run(render_removed_policies(removed_policies))
            self._on_step(ApplyStep.POLICIES_REMOVED)
            self._print = self._print.without_policies(removed_policies)
        failures = self._create(router, new)
        return Applied(revoked, failures)

    def _replace(self, state: RouterState) -> Applied:
        self.ensure_router()
        self._on_step(ApplyStep.ROUTER_ENSURED)
        router = self._opened()
        links = router.observe_links()
        kept = {
            name: devbox
            for name, devbox in state.devboxes.items()
            if devbox.slot in links
            and links[devbox.slot].alias == link_alias(devbox)
            and netns.has_namespace(self._layout.devbox_namespace(devbox.slot))
        }
        kept_links = {devbox.link for devbox in kept.values()}
        live_before = router.observe_live()
        pins = [pin for pin in router.observe_pins() if pin.link in kept_links]
        current = replace(state, devboxes=kept)
        foreign = "".join(f"delete table {table}\n" for table in router.observe_foreign_tables())
        router.nft.run(foreign + render_replacement(self._layout, self._options, current, pins))
        self._on_step(ApplyStep.TABLE_REPLACED)
        # First: with a link's last address, the kernel removes all its routes.
        router.remove_strangers(kept.values())
        self._print = router.observe_print()
        self._state = current
        for devbox in kept.values():
            near, far = router_end(self._layout, devbox.slot), box_end(devbox.slot)
            router.links.do(router_side_requests(devbox, near, far))
        self._on_step(ApplyStep.LINKS_SET)
        self._remove_leftovers(router, links.keys(), {devbox.slot for devbox in kept.values()})
        self._on_step(ApplyStep.LEFTOVERS_REMOVED)
        self._forget_strangers(router, current)
        self._on_step(ApplyStep.STRANGERS_FORGOTTEN)
        failures = self._create(router, state)
        return Applied(live_before - live_grants(state.plans.values()), failures, is_replaced=True)

    def _create(self, router: Router, wanted: RouterState) -> Mapping[str, str]:
        """Give the devboxes that lack them namespace and link, then open all of them at once."""
        state = self._state or _EMPTY
        missing = [devbox for name, devbox in wanted.devboxes.items() if name not in state.devboxes]
        if not missing:
            return {}
        mtu = self._host.observe_routes().mtu
        failures: dict[str, str] = {}
        created: list[DevboxLink] = []
        remove_devboxes(router.links, self._layout, [devbox.slot for devbox in missing])
        self._on_step(ApplyStep.PLACES_CLEARED)
        for devbox in missing:
            try:
                create_devbox(router.links, self._layout, devbox, mtu)
            except (OutgateError, OSError) as error:
                failures[devbox.devbox_id] = f"Devbox {devbox.devbox_id} got no link: {error}"
            else:
                created.append(devbox)
                self._on_step(ApplyStep.LINK_MADE)
        router.netfilter.batch(open_devboxes(created))
        self._on_step(ApplyStep.DEVBOXES_OPENED)
        opened = {devbox.devbox_id: devbox for devbox in created}
        self._state = replace(state, devboxes={**state.devboxes, **opened})
        return failures

    def _remove(self, router: Router, devboxes: Collection[DevboxLink]) -> None:
        """Remove links, namespaces, pins, counters and tracked flows of devboxes that are closed already."""
        if not devboxes:
            return
        remove_devboxes(router.links, self._layout, [devbox.slot for devbox in devboxes])
        self._on_step(ApplyStep.LINKS_REMOVED)
        router.forget_links(devbox.link for devbox in devboxes)
        self._on_step(ApplyStep.PINS_FORGOTTEN)
        self._forget(router, devboxes)

    def _remove_leftovers(self, router: Router, slots: Iterable[int], kept: Collection[int]) -> None:
        prefix = self._layout.devbox_namespace(0).removesuffix("0")
        named = (name.removeprefix(prefix) for name in netns.list_namespaces(prefix))
        slots = {*slots, *(int(text) for text in named if text.isdigit())}
        remove_devboxes(router.links, self._layout, slots - set(kept))

    def _forget(self, router: Router, devboxes: Iterable[DevboxLink]) -> None:
        addresses = addresses_of(devboxes)
        if not addresses:
            return
        router.conntrack.forget_by_sources(addresses)
        self._host_conntrack.forget_by_sources(addresses)
        self._on_step(ApplyStep.FLOWS_FORGOTTEN)

    def _forget_strangers(self, router: Router, state: RouterState) -> None:
        doomed = find_strangers(router.conntrack.flows(), self._layout, state)
        router.conntrack.forget_by_sources(doomed)
        self._host_conntrack.forget_by_sources(doomed)

    def abort_revoked(self, grants: Collection[int], devboxes: Collection[str]) -> int:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        # May run beside all else: it works with what is set at this moment and with sockets of its own.
        state, router = self._state, self._router
        if state is None or router is None or not grants:
            return 0
        try:
            return abort_revoked(self._layout, router.namespace, state, grants, devboxes)
        except (OutgateError, OSError) as error:
            raise DriverError(f"Sockets of revoked flows could not be destroyed: {error}") from error

    def observe_drift(self) -> tuple[str, ...]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        if self._router is None or self._state is None:
            return ()
        if not self._router.is_current():
            self._state = None
            return (f"The network namespace {self._layout.router_namespace} is gone.",)
        try:
            sentences = (
                *self._router.observe_drift(self._state, self._print),
                *self._host.observe_drift(self._layout, self._host.observe_routes()),
            )
        except OutgateError as error:
            raise DriverError(f"The kernel could not be read: {error.message}") from error
        if sentences:
            self._state = None
        return sentences

    def observe_obstacles(self) -> tuple[str, ...]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        return self._host.observe_obstacles(self._layout)

    def observe_host_addresses(self) -> frozenset[IPAddress]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        return self._host.observe_addresses()

    def pins(self) -> tuple[Pin, ...]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        return tuple(self._opened().observe_pins())

    def denials(self) -> LinuxDenials:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        with netns.entered(self._opened().namespace):
            return LinuxDenials(NflogReader(LOG_GROUP))

    def flow_events(self) -> FlowEventReader:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        with netns.entered(self._opened().namespace):
            return FlowEventReader()

    def denied_packets(self) -> Mapping[str, int]:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        counters = observe_counters(self._opened().netfilter, TABLE, DENIED)
        return {key.rstrip(b"\0").decode("ascii", "replace"): packets for key, packets in counters.items()}

    def teardown(self) -> None:
        """See :class:`~outgate.dataplane.driver.Driver`."""
        if self._router is not None:
            self._router.close()
            self._router = None
        self._state = None
        teardown_instance(self._layout.instance)
        own = {address for address in self._host_conntrack.sources() if is_of_pool(self._layout, address)}
        self._host_conntrack.forget_by_sources(own)


def teardown_instance(instance: str) -> None:
    """Remove everything of an instance from the host the thread is in, by its id alone. May be repeated."""
    host = HostNetwork()
    try:
        host.remove(uplink_host_name(instance))
    finally:
        host.close()
    prefix = f"outgate-{instance}"
    for name in netns.list_namespaces(prefix):
        if name == prefix or name.startswith(f"{prefix}-"):
            netns.remove_namespace(name)


def _plan(state: RouterState, devbox_id: str) -> PolicyPlan:
    return state.plans[state.devboxes[devbox_id].policy_number]


def _old_plan(old: RouterState, new: RouterState, devbox_id: str) -> PolicyPlan | None:
    """What the policy that a devbox comes to was before."""
    return old.plans.get(new.devboxes[devbox_id].policy_number)
