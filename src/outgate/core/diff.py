"""What changes in the kernel between two plans of one policy."""

from dataclasses import dataclass

from outgate.model.plan import AddressCell, PolicyPlan, PortCell


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Elements to add and to remove; every tuple is sorted, so that equal changes give equal transactions."""

    number: int
    live_added: tuple[int, ...]
    live_removed: tuple[int, ...]
    port_cells_added: tuple[PortCell, ...]
    port_cells_removed: tuple[PortCell, ...]
    address_cells_added: tuple[AddressCell, ...]
    address_cells_removed: tuple[AddressCell, ...]

    @property
    def is_empty(self) -> bool:
        """Whether nothing changes."""
        return not (
            self.live_added
            or self.live_removed
            or self.port_cells_added
            or self.port_cells_removed
            or self.address_cells_added
            or self.address_cells_removed
        )


def diff_plans(old: PolicyPlan | None, new: PolicyPlan | None) -> PlanDiff:
    """What turns ``old`` into ``new``; None stands for a policy that is not there.

    Raises ValueError when there is no plan at all, or when the two are plans of different policies.
    """
    numbers = {plan.number for plan in (old, new) if plan is not None}
    if len(numbers) != 1:
        raise ValueError(f"a difference is between two plans of one policy, not of {sorted(numbers) or 'none'}")
    live_old, live_new = _live(old), _live(new)
    ports_old, ports_new = _port_cells(old), _port_cells(new)
    addresses_old, addresses_new = _address_cells(old), _address_cells(new)
    return PlanDiff(
        number=numbers.pop(),
        live_added=tuple(sorted(live_new - live_old)),
        live_removed=tuple(sorted(live_old - live_new)),
        port_cells_added=tuple(sorted(ports_new - ports_old)),
        port_cells_removed=tuple(sorted(ports_old - ports_new)),
        address_cells_added=tuple(sorted(addresses_new - addresses_old)),
        address_cells_removed=tuple(sorted(addresses_old - addresses_new)),
    )


def _live(plan: PolicyPlan | None) -> frozenset[int]:
    return plan.live if plan is not None else frozenset()


def _port_cells(plan: PolicyPlan | None) -> frozenset[PortCell]:
    return frozenset(plan.port_cells) if plan is not None else frozenset()


def _address_cells(plan: PolicyPlan | None) -> frozenset[AddressCell]:
    return frozenset(plan.address_cells) if plan is not None else frozenset()
