"""Every way to a desired state ends in the same kernel text: in order, in random order, and with restarts between."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import pytest

from outgate.agent.gate_process import GateState
from outgate.core.ranges import always_denied_networks
from outgate.dataplane.ruleset import RulesetOptions, render_table
from outgate.model.desired import PolicyDocument
from support.agent_world import LAYOUT, make_document
from support.enforcement_model import Host, place
from support.sim_time import SimulatedLoop

OPTIONS = RulesetOptions(always_denied_networks())
ORDERS_MAX = 100
WALK = 30


@dataclass(frozen=True)
class Desired:
    """What is wanted of one host: policies, and devboxes by id with their policy and slot."""

    policies: Mapping[str, PolicyDocument] = field(default_factory=dict)
    devboxes: Mapping[str, tuple[str, int]] = field(default_factory=dict)


def desired(*policies: PolicyDocument, **devboxes: tuple[str, int]) -> Desired:
    return Desired({policy.id: policy for policy in policies}, devboxes)


NARROW = make_document("npol_1", hosts=("a.example",))
ADDRESSES = make_document("npol_1", revision=2, cidrs=("45.0.0.0/24", "46.0.0.0/8"))
OVERLAPPING = make_document("npol_1", revision=3, cidrs=("45.0.0.0/25", "45.0.0.0/24", "0.0.0.0/0"))
EVERYTHING = make_document("npol_1", revision=4, allow_all=True)
NOTHING = make_document("npol_1", revision=5)
OTHER = make_document("npol_2", hosts=("*.b.example",), cidrs=("47.1.2.3/32",))
STATES = (
    desired(),
    desired(NARROW, a=("npol_1", 0)),
    desired(ADDRESSES, OTHER, a=("npol_1", 0), b=("npol_2", 1)),
    desired(OVERLAPPING, OTHER, a=("npol_1", 0), b=("npol_1", 1), c=("npol_2", 2)),
    desired(EVERYTHING, OTHER, b=("npol_2", 1), d=("npol_1", 0)),
    desired(NOTHING, OTHER, a=("npol_2", 2), c=("npol_1", 7)),
    desired(ADDRESSES, OTHER, **{f"box{slot}": (f"npol_{1 + slot % 2}", slot) for slot in range(20)}),
)


class Walk:
    """One host that is taken from state to state."""

    def __init__(self) -> None:
        self.loop = SimulatedLoop()
        self.host = Host(self.loop)
        self.revision = 0
        self.devboxes: Mapping[str, tuple[str, int]] = {}

    def close(self) -> None:
        self.host.close()
        self.loop.close()

    def go_to(self, state: Desired) -> str:
        """The kernel's text in that state."""
        for name in self.devboxes:
            if state.devboxes.get(name) != self.devboxes[name]:
                self.host.enforcer.displace(name)
        self._tell(self.revision + 1, {**state.policies, **self._policies_of(self.devboxes)})
        self._tell(self.revision + 1, state.policies)
        for name, (policy_id, slot) in state.devboxes.items():
            self.host.enforcer.place(place(name, policy_id, slot))
        self.devboxes = state.devboxes
        self._come_to_rest()
        return render_table(LAYOUT, OPTIONS, self.host.driver.state)

    def _policies_of(self, devboxes: Mapping[str, tuple[str, int]]) -> Mapping[str, PolicyDocument]:
        known = self.host.enforcer._wanted_policies
        return {policy_id: known[policy_id] for policy_id, _ in devboxes.values()}

    def _tell(self, revision: int, policies: Mapping[str, PolicyDocument]) -> None:
        self.revision = revision
        self.host.enforcer.want(revision, policies)
        self._come_to_rest()

    def restart(self, *, is_committed: bool) -> None:
        """The agent dies and another takes over what it finds."""
        policies = self.host.enforcer._wanted_policies
        self.host.crash(is_committed=is_committed)
        for name, (policy_id, slot) in self.devboxes.items():
            self.host.enforcer.adopt(place(name, policy_id, slot))
        self.host.enforcer.want(self.revision, policies)

    def _come_to_rest(self) -> None:
        if self.host.gate.state is GateState.CLOSED:
            self.host.gate.open()
            self.host.enforcer.look_again()
        self.host.turn()
        for _ in range(ORDERS_MAX):
            if self.host.gate.pending:
                self.host.gate.carry_out(is_answered=True)
                self.host.turn()
            elif self.host.kernel.pending:
                self.host.commit(is_taken=True)
            else:
                return
        raise AssertionError("it does not come to rest")


def fresh_texts() -> list[str]:
    texts = []
    for state in STATES:
        walk = Walk()
        texts.append(walk.go_to(state))
        walk.close()
    return texts


@pytest.mark.parametrize("seed", range(6))
def test_every_way_to_a_state_gives_the_same_kernel_text(seed: int) -> None:
    """Seed 0 goes in order; each other one at random, with restarts."""
    expected = fresh_texts()
    assert len(set(expected)) == len(STATES)
    random = Random(seed)
    walk = Walk()
    places = range(len(STATES)) if seed == 0 else [random.randrange(len(STATES)) for _ in range(WALK)]
    for number in places:
        assert walk.go_to(STATES[number]) == expected[number], f"state {number} of seed {seed}"
        if seed and random.random() < 0.4:
            walk.restart(is_committed=random.random() < 0.5)
    walk.close()
