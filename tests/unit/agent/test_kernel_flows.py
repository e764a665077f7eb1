"""Flows of the kernel as records: whose they are, what let them pass, what ended them, and how many are read at once."""

import asyncio
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import structs

from outgate import clock
from outgate.agent import kernel_flows
from outgate.agent.flow_owners import FlowOwners, Granted, Owner
from outgate.agent.flowlog import FlowLog
from outgate.agent.kernel_flows import KernelFlows
from outgate.agent.prepared import PreparedDocuments
from outgate.agent.target import Placement, Target, prepare_enforcement
from outgate.dataplane.conntrack import TrackedFlow
from outgate.dataplane.conntrack_events import FlowBegan, FlowEnded, FlowEvent
from outgate.dataplane.fake import FakeFlowEvents
from outgate.model.addresses import IPAddress, parse_cidr
from outgate.model.desired import FlowBatch, FlowRecord, PolicyDocument
from outgate.model.flow import HostContext
from outgate.model.plan import MARK_RESET_SENT, grant_of_allow_all, grant_of_endpoints, grant_of_report
from outgate.model.policy import CidrRule
from outgate.model.verdict import Allow, AllowReason, ReportOnly
from support.agent_world import LAYOUT, World, make_devbox, make_document
from support.sim_time import SimulatedLoop, run_simulated

FAR = ip_address("45.45.46.1")
CIDRS = ("45.45.45.0/24", "45.45.46.0/24")
GRANT = 1000 * 17 + 1
"""Of the second of CIDRS under the policy npol_1 (see make_document)."""
CONTEXT = HostContext(mirror_cidrs=(CidrRule(parse_cidr("45.45.0.0/16"), ()),))


def flow(mark: int = GRANT, *, slot: int = 0, port: int = 443, protocol: int = 6, to: IPAddress = FAR) -> TrackedFlow:
    source = LAYOUT.address4(slot) if to.version == 4 else LAYOUT.address6(slot)
    assert source is not None
    return TrackedFlow(source, to, protocol, 40000 if port else 0, port, mark)


def ended(of: TrackedFlow, *, began_ms: int = 5_000, is_closed: bool = False, is_cut: bool = False) -> FlowEnded:
    return FlowEnded(of, began_ms, 1500, bytes_out=1200, bytes_in=34, is_closed=is_closed, is_cut=is_cut)


def target(*documents: PolicyDocument, boxes: dict[int, tuple[str, str]]) -> Target:
    """Boxes by slot: (devbox, policy)."""
    policies = {document.id: prepare_enforcement(document, CONTEXT) for document in documents}
    placements = {name: Placement(name, "acc_1", policy_id, slot) for slot, (name, policy_id) in boxes.items()}
    return Target(1, policies, placements)


@pytest.fixture
def owners() -> FlowOwners:
    return FlowOwners(LAYOUT, PreparedDocuments(CONTEXT), CONTEXT)


def owner_of(owners: FlowOwners, of: TrackedFlow, began_ms: int = 5_000) -> Owner:
    found = owners.find_owner(of.source, began_ms)
    assert found is not None
    return found


def granted(owners: FlowOwners, of: TrackedFlow) -> Granted:
    found = owners.find_grant(owner_of(owners, of), of)
    assert found is not None
    return found


ONE = {0: ("a", "npol_1")}


def test_the_mark_names_the_rule_that_let_the_flow_pass(owners: FlowOwners) -> None:
    # Both rules cover it: the mark says which of them was the first when it began.
    owners.learn(target(make_document(cidrs=("45.0.0.0/8", *CIDRS[1:])), boxes=ONE))
    for mark, rule in ((GRANT - 1, "allowed_cidrs[0] 45.0.0.0/8"), (GRANT, "allowed_cidrs[1] 45.45.46.0/24")):
        found = granted(owners, flow(mark))
        assert isinstance(found.verdict, Allow)
        assert (str(found.verdict.rule), found.verdict.reason, found.is_live) == (rule, AllowReason.CIDR, True)


def test_grants_of_flags_and_modes_are_decided_by_the_one_place_that_decides(owners: FlowOwners) -> None:
    everything = make_document("npol_2", allow_all=True)
    mirrors = make_document("npol_3", allow_runloop_mirrors=True)
    reporting = structs.replace(make_document("npol_4"), enforcement="report_only")
    boxes = {0: ("a", "npol_2"), 1: ("b", "npol_3"), 2: ("c", "npol_4")}
    owners.learn(target(everything, mirrors, reporting, boxes=boxes))

    by_all = granted(owners, flow(grant_of_allow_all(18), to=ip_address("2a0f::1"))).verdict
    by_flag = granted(owners, flow(grant_of_endpoints(19, 2, 0), slot=1)).verdict
    by_mode = granted(owners, flow(grant_of_report(20), slot=2, port=0, protocol=1)).verdict

    assert isinstance(by_all, Allow)
    assert by_all.reason is AllowReason.ALLOW_ALL
    assert isinstance(by_flag, Allow)
    assert str(by_flag.rule) == "allow_runloop_mirrors 45.45.0.0/16"
    assert isinstance(by_mode, ReportOnly)
    assert "ICMP to 45.45.46.1" in by_mode.would_be.sentence


def test_a_rule_that_is_gone_is_still_named_as_it_was(owners: FlowOwners) -> None:
    owners.learn(target(make_document(revision=1, cidrs=CIDRS), boxes=ONE))
    owners.learn(target(make_document(revision=2, cidrs=CIDRS[:1]), boxes=ONE))
    owners.learn(target(make_document(revision=3), boxes=ONE))
    for mark in (GRANT, MARK_RESET_SENT):
        found = granted(owners, flow(mark))
        assert isinstance(found.verdict, Allow)
        assert (found.policy.revision, str(found.verdict.rule)) == (1, "allowed_cidrs[1] 45.45.46.0/24")
        assert not found.is_live
    # Allowed anew since: the flow that was reset is still of the rule of its time.
    owners.learn(target(make_document(revision=4, cidrs=("45.0.0.0/8",)), boxes=ONE))
    assert granted(owners, flow(MARK_RESET_SENT)).policy.revision == 1


def test_of_what_nobody_remembers_only_the_policy_is_told(owners: FlowOwners) -> None:
    owners.learn(target(make_document(revision=7), boxes=ONE))
    for mark in (GRANT, MARK_RESET_SENT):
        found = granted(owners, flow(mark))
        assert isinstance(found.verdict, Allow)
        assert (found.verdict.reason, str(found.verdict.rule), found.is_live) == (AllowReason.FORMER_RULE, "", False)
        assert found.policy.revision == 7


def test_revisions_and_former_policies_are_kept_up_to_a_bound(owners: FlowOwners) -> None:
    owners.learn(target(make_document(revision=1, cidrs=CIDRS), boxes=ONE))
    for revision in range(2, 6):
        owners.learn(target(make_document(revision=revision), boxes=ONE))
    found = granted(owners, flow()).verdict
    assert isinstance(found, Allow)
    assert found.reason is AllowReason.FORMER_RULE
    for number in range(2, 400):
        policy = make_document(f"npol_{number}")
        owners.learn(target(policy, boxes={1: ("b", policy.id)}))
    assert owners.find_grant(Owner("a", ("npol_1",), 0), flow()) is None
    assert owners.find_grant(Owner("b", ("npol_390",), 0), flow()) is not None


def test_a_devbox_that_is_gone_keeps_the_flows_of_its_time(owners: FlowOwners, monkeypatch: pytest.MonkeyPatch) -> None:
    document = make_document(cidrs=CIDRS)
    owners.learn(target(document, boxes=ONE))
    assert owner_of(owners, flow()).is_linked
    owners.learn(target(document, boxes={}))
    assert (owner_of(owners, flow()).devbox_id, owner_of(owners, flow()).is_linked) == ("a", False)
    monkeypatch.setattr(clock, "wall_ms", lambda: 7_000)
    owners.learn(target(document, boxes={0: ("b", "npol_1")}))
    assert [owner_of(owners, flow(), began_ms).devbox_id for began_ms in (6_999, 7_000)] == ["a", "b"]
    monkeypatch.setattr(clock, "wall_ms", lambda: 9_000)
    owners.learn(target(document, boxes={0: ("c", "npol_1")}))
    # A clock that jumped leaves the oldest of whom anything is known.
    assert [owner_of(owners, flow(), began_ms).devbox_id for began_ms in (0, 8_999, 9_000)] == ["b", "b", "c"]


def test_what_no_devbox_has_is_nobodys(owners: FlowOwners) -> None:
    owners.learn(target(make_document(cidrs=CIDRS), boxes=ONE))
    for source in (
        LAYOUT.address4(1),
        LAYOUT.gateway4,
        LAYOUT.uplink_router4,
        LAYOUT.gateway6,
        ip_address("192.0.2.1"),
    ):
        assert owners.find_owner(source, 5_000) is None
    address6 = LAYOUT.address6(0)
    assert address6 is not None
    assert owners.find_owner(address6, 5_000) == owner_of(owners, flow())


def test_a_devbox_under_another_policy_has_flows_of_the_former_one(owners: FlowOwners) -> None:
    before, after = make_document(cidrs=CIDRS), make_document("npol_2")
    owners.learn(target(before, boxes=ONE))
    owners.learn(target(after, boxes={0: ("a", "npol_2")}))
    found = granted(owners, flow())
    assert (found.policy.id, found.is_live) == ("npol_1", False)
    assert owner_of(owners, flow()).policy_ids == ("npol_2", "npol_1")


class Rig:
    """KernelFlows with a listener and a log that is not sent unless a test says so."""

    def __init__(self, owners: FlowOwners) -> None:
        self.batches: list[FlowBatch] = []
        self.log = FlowLog(self, "boot")
        self.flows = KernelFlows(owners, self.log)
        self.listener = FakeFlowEvents()

    async def store_flows(self, batch: FlowBatch) -> None:
        await asyncio.sleep(0)
        self.batches.append(batch)

    async def sent(self) -> list[FlowRecord]:
        """All records so far, sent."""
        task = asyncio.ensure_future(self.log.run())
        await asyncio.sleep(60)
        task.cancel()
        return [record for batch in self.batches for record in batch.records]


DOCUMENT = make_document(cidrs=CIDRS)


def test_a_flow_is_told_when_it_begins_and_when_it_ends(owners: FlowOwners) -> None:
    async def scenario() -> None:
        rig = Rig(owners)
        rig.flows.listen(rig.listener)
        rig.listener.put(FlowBegan(flow()), ended(flow(), is_closed=True))
        await asyncio.sleep(1)
        assert rig.listener.events == 0, "read before anybody could know whose it is"
        rig.flows.learn(target(DOCUMENT, boxes=ONE))
        began, over = await rig.sent()
        for record in (began, over):
            assert (record.devbox_id, record.policy_id, record.revision) == ("a", "npol_1", 1)
            assert (record.verdict, record.reason, record.point) == ("allow", "cidr", "kernel")
            assert record.rule == "allowed_cidrs[1] 45.45.46.0/24"
            assert (record.name, record.address, record.port, record.protocol) == ("", "45.45.46.1", 443, "tcp")
        assert (began.bytes_out, began.bytes_in, began.duration_ms) == (None, None, None)
        assert (over.bytes_out, over.bytes_in, over.duration_ms, over.began_ms) == (1200, 34, 1500, 5_000)
        assert over.sentence == began.sentence
        assert (rig.flows.events, rig.flows.dropped) == (2, 0)
        rig.flows.stop()

    run_simulated(scenario())


@pytest.mark.parametrize(
    ("mark", "now", "why", "is_closed", "is_cut"),
    [
        pytest.param(GRANT, [DOCUMENT], "", False, False, id="forgotten in its time"),
        pytest.param(GRANT, [DOCUMENT], "", False, True, id="forgotten by somebody's order"),
        pytest.param(MARK_RESET_SENT, [], "the rule that allowed it was taken away", False, False, id="reset"),
        pytest.param(GRANT, [], "the rule that allowed it was taken away", False, False, id="silent without a rule"),
        pytest.param(GRANT, [], "", True, False, id="closed before its rule went"),
    ],
)  # fmt: skip
def test_why_a_flow_ended(
    owners: FlowOwners, mark: int, now: list[PolicyDocument], why: str, *, is_closed: bool, is_cut: bool
) -> None:
    async def scenario() -> None:
        rig = Rig(owners)
        rig.flows.listen(rig.listener)
        rig.flows.learn(target(DOCUMENT, boxes=ONE))
        rig.flows.learn(target(*(now or [make_document(revision=2)]), boxes=ONE))
        rig.listener.put(ended(flow(mark), is_closed=is_closed, is_cut=is_cut))
        (record,) = await rig.sent()
        assert (record.verdict, record.rule) == ("allow", "allowed_cidrs[1] 45.45.46.0/24")
        assert record.sentence.partition(" (Ended: ")[2].removesuffix(".)") == why
        rig.flows.stop()

    run_simulated(scenario())


def test_a_flow_that_went_with_its_link_or_its_policy_says_so(owners: FlowOwners) -> None:
    async def scenario() -> None:
        rig = Rig(owners)
        rig.flows.listen(rig.listener)
        rig.flows.learn(target(DOCUMENT, boxes={0: ("a", "npol_1"), 1: ("b", "npol_1")}))
        rig.flows.learn(target(DOCUMENT, make_document("npol_2"), boxes={1: ("b", "npol_2")}))
        rig.listener.put(ended(flow(), is_cut=True), ended(flow(slot=1), is_cut=True))
        gone, moved = await rig.sent()
        assert (gone.devbox_id, moved.devbox_id) == ("a", "b")
        assert gone.sentence.endswith("(Ended: the devbox's link was taken away.)")
        assert moved.sentence.endswith("(Ended: the devbox came under another policy.)")
        assert moved.policy_id == "npol_1"
        rig.flows.stop()

    run_simulated(scenario())


def test_a_flood_is_read_a_few_at_a_time_and_costs_its_devbox_alone(owners: FlowOwners) -> None:
    async def scenario() -> None:
        rig = Rig(owners)
        rig.flows.listen(rig.listener)
        rig.flows.learn(target(DOCUMENT, boxes={0: ("a", "npol_1"), 1: ("b", "npol_1")}))
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        flood = 20 * rig.listener.batch_max
        rig.listener.put(*(FlowBegan(flow(port=port)) for port in range(1, flood)), FlowBegan(flow(slot=1)))
        turns, read = 0, 0
        while rig.flows.events < flood:
            await asyncio.sleep(kernel_flows._PAUSE_S / 10)
            assert rig.flows.events - read <= rig.listener.batch_max
            turns, read = turns + (rig.flows.events > read), rig.flows.events
        assert turns == 20
        assert loop.time() - began_s >= 19 * kernel_flows._PAUSE_S, "the loop had no time of its own between the turns"
        records = await rig.sent()
        told = [record.devbox_id for record in records]
        assert 0 < told.count("a") < flood - 1, "the flood took more than a devbox's share"
        assert told.count("b") == 1
        assert sum(batch.dropped for batch in rig.batches) == flood - len(told)
        rig.flows.stop()

    run_simulated(scenario())


def test_turns_that_take_long_are_followed_by_longer_pauses(
    owners: FlowOwners, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_s = 0.1

    async def scenario() -> None:
        rig = Rig(owners)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        quick = rig.listener.read
        began_s: list[float] = []

        def read_slowly() -> tuple[tuple[FlowEvent, ...], bool]:
            began_s.append(loop.now_s)
            loop.now_s += turn_s
            return quick()

        monkeypatch.setattr(rig.listener, "read", read_slowly)
        rig.listener.put(*(FlowBegan(flow(port=port)) for port in range(1, 3 * rig.listener.batch_max + 1)))
        rig.flows.listen(rig.listener)
        rig.flows.learn(target(DOCUMENT, boxes=ONE))
        for _ in range(200):  # in small steps: simulated time jumps to the next timer before it looks at descriptors
            await asyncio.sleep(kernel_flows._PAUSE_S)
        assert [later - earlier for earlier, later in pairwise(began_s)] == pytest.approx([4 * turn_s] * 2, rel=0.1)
        rig.flows.stop()

    run_simulated(scenario())


def test_what_the_kernel_lost_is_counted_and_sent_on(owners: FlowOwners) -> None:
    async def scenario() -> None:
        rig = Rig(owners)
        rig.flows.listen(rig.listener)
        rig.flows.learn(target(DOCUMENT, boxes=ONE))
        rig.listener.dropped = 5
        rig.listener.put()
        assert await rig.sent() == []
        second = FakeFlowEvents()
        rig.flows.listen(second)
        second.dropped = 2
        second.put()
        await rig.sent()
        assert rig.flows.dropped == sum(batch.dropped for batch in rig.batches) == 7
        assert rig.listener.fileno() == -1, "the first listener was left open"
        rig.flows.stop()

    run_simulated(scenario())


def test_the_agent_tells_of_flows_and_listens_in_the_router_that_is_there(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scenario() -> None:
        async with world.running_agent():
            world.api.put(DOCUMENT, make_devbox("a"))
            await world.until_phase("a", "running")
            slot = world.driver.state.devboxes["a"].slot
            world.driver.tell_flows(FlowBegan(flow(slot=slot)))
            await world.until(lambda: len(world.api.flows) == 1)
            world.api.put(make_document(revision=2))
            await world.until(lambda: world.api.enforced == world.api.revision)
            assert world.gate is not None
            epoch = world.gate.epoch
            world.router = "second"
            await world.until(lambda: world.gate is not None and world.gate.epoch == epoch + 1)
            world.driver.tell_flows(ended(flow(MARK_RESET_SENT, slot=slot), began_ms=clock.wall_ms()))
            await world.until(lambda: len(world.api.flows) == 2)
        began, over = world.api.flows
        assert (began.devbox_id, began.bytes_out, began.revision) == ("a", None, 1)
        assert (over.devbox_id, over.bytes_out, over.revision) == ("a", 1200, 1)
        assert "taken away" in over.sentence

    run_simulated(scenario())
