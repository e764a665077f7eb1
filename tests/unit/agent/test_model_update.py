"""A model of update, verdict and restart: whatever happens when, nothing passes that every revision in question denies.

Enforcer, gate table, pins and decisions are the real ones (:mod:`support.enforcement_model`); hypothesis plays api,
devboxes, clock and fate: it commits revisions, has orders carried out, refused or lost, kills agent and gate between
any two of them, takes the kernel's pins away, moves devboxes in and out of a slot, looks names up, opens flows.

Held after every step:

* what passes, newly or still, is allowed by the revision last reported as enforced or by one that was taken since;
* the gate's table is never older than the kernel's (narrow first);
* a devbox that counts as filtered has its link in the kernel and its own entry in the gate;
* a pin is on the link of the devbox that learnt it.

And in the end, when nobody is in the way: exactly what the wanted revision allows passes, and every pin has a name that
it covers.

Each of these changes to the product was tried, and fails here: the kernel's transaction before the gate's table
(``Enforcer._round``); a revision reported before the kernel took it; a gate that does not judge its flows again
(``Gate._enforce``), or keeps the pins of names that lost their rule (``rejudge_pins``), or believes those that a gate
before it left (``reconcile_pins``); an enforcer that takes the next gate for the one it told (``_known_gate_view``), a
changed policy for the one it compiled (``_prepare``), or a table that was written anew for the one it was
(``_set_kernel``); updates that leave the policies out (``gate_delta``); a devbox that counts as filtered by its link
alone (``is_filtered``). A link's next devbox is kept from its forerunner's pins by gate and kernel alike, so that the
lack of one does not show here; the drivers' own tests show it.
"""

from ipaddress import ip_address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from outgate.agent.gate_process import GateState
from outgate.core.decide import decide_lookup
from outgate.model.desired import CidrDocument, PolicyDocument
from outgate.model.flow import HostContext, HttpRequest, Opaque, TlsHello
from outgate.model.names import DomainName
from outgate.model.verdict import Deny
from support.enforcement_model import ADDRESSES, Host, Probe, allows, place, plan_of, prepare
from support.sim_time import SimulatedLoop

POLICIES = {"npol_1": 17, "npol_2": 18}
BOXES = {"dbx_a": ("npol_1", 0), "dbx_b": ("npol_2", 1), "dbx_c": ("npol_1", 1)}
"""Policy and slot. Two share a slot, one after the other."""
HOSTS = ("a.example", "b.example", "*.w.example")
CIDRS = ("45.0.0.0/30", "45.0.0.3/32", "46.0.0.0/8")
UNTRIED_CIDR = "47.0.0.0/24"
NAMES = tuple(ADDRESSES)
PROBES = (
    *(
        Probe(address, 443, TlsHello(name))
        for name in NAMES
        for address in {each for addresses in ADDRESSES.values() for each in addresses}
    ),
    *(Probe(address, 9000, Opaque()) for addresses in ADDRESSES.values() for address in addresses),
    Probe(ip_address("45.0.0.3"), 80, HttpRequest(DomainName("b.example"))),
    Probe(ip_address("46.1.1.1"), 22, Opaque()),
)
ORDERS_MAX = 100
RESTS = 3
"""How often nothing was to be done; a failure is tried again within 2 s."""


class UpdateModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = SimulatedLoop()
        self.host = Host(self.loop)
        self.revision = 0
        self.taken = 0
        self.documents: dict[str, list[tuple[int, PolicyDocument]]] = {policy_id: [] for policy_id in POLICIES}
        self.grants: dict[tuple[str, str], int] = {}
        self.running: set[str] = set()
        """Devboxes whose programs have been started: they were filtered then."""
        self.placed: set[str] = set()
        self.leaving: set[str] = set()
        """Those whose link may still be there."""
        self.taught: set[tuple[str, object]] = set()

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.host.close()
            self.loop.close()

    # The api

    @initialize()
    def begin(self) -> None:
        for policy_id in POLICIES:
            self.commit(policy_id, {"a.example"}, set(), allow_all=False)
        self.gate_opens()
        for box in ("dbx_a", "dbx_b"):
            self.place_devbox(box)
        self.come_to_rest()
        for box in ("dbx_a", "dbx_b"):
            self.start_devbox(box)
            self.look_up(box, NAMES[0])
            self.open_flows(box)

    @rule(
        policy_id=st.sampled_from(list(POLICIES)),
        hosts=st.sets(st.sampled_from(HOSTS)),
        cidrs=st.sets(st.sampled_from(CIDRS)),
        allow_all=st.sampled_from([False, False, False, True]),
    )
    def commit(self, policy_id: str, hosts: set[str], cidrs: set[str], *, allow_all: bool) -> None:
        """A new revision. A rule keeps its grant for as long as it stands, and no other ever gets it."""
        self.revision += 1
        for cidr in CIDRS:
            if cidr not in cidrs:
                self.grants.pop((policy_id, cidr), None)
            else:
                self.grants.setdefault((policy_id, cidr), 1000 + 10 * self.revision + CIDRS.index(cidr))
        document = PolicyDocument(
            id=policy_id,
            name=policy_id,
            number=POLICIES[policy_id],
            revision=self.revision,
            allow_all=allow_all,
            allowed_hostnames=tuple(sorted(hosts)),
            allowed_cidrs=(
                *(CidrDocument(cidr, self.grants[policy_id, cidr]) for cidr in sorted(cidrs)),
                # So that the kernel's table tells which revision it is.
                CidrDocument(UNTRIED_CIDR, 100_000 + self.revision),
            ),
        )
        self.documents[policy_id].append((self.revision, document))

    @rule(policy_id=st.sampled_from(list(POLICIES)), hosts=st.sets(st.sampled_from(HOSTS)))
    def narrow(self, policy_id: str, hosts: set[str]) -> None:
        """An update that the agent hears of at once, and that leaves no address open."""
        self.commit(policy_id, hosts, set(), allow_all=False)
        self.take()

    # The agent

    @rule()
    def take(self) -> None:
        self.taken = self.revision
        newest = {policy_id: documents[-1][1] for policy_id, documents in self.documents.items()}
        self.host.enforcer.want(self.revision, newest)
        self.host.turn()

    @rule(box=st.sampled_from(list(BOXES)))
    def place_devbox(self, box: str) -> None:
        policy_id, slot = BOXES[box]
        if slot not in {BOXES[other][1] for other in self.placed | self.leaving}:
            self.placed.add(box)
            self.host.enforcer.place(place(box, policy_id, slot))
            self.host.turn()

    @rule(box=st.sampled_from(list(BOXES)))
    def start_devbox(self, box: str) -> None:
        """Its programs begin once it counts as filtered, and not before."""
        if box in self.placed and self.host.enforcer.is_filtered(place(box, *BOXES[box])):
            self.running.add(box)

    @rule(box=st.sampled_from(list(BOXES)))
    def displace_devbox(self, box: str) -> None:
        """It ends: first its programs, then its link; its slot is free when both halves have let go of it."""
        self.running.discard(box)
        self.host.flows = [flow for flow in self.host.flows if flow.devbox_id != box]
        self.leaving |= {box} & self.placed
        self.placed.discard(box)
        self.host.enforcer.displace(box)
        self.host.turn()
        self.let_go()

    @rule()
    def let_go(self) -> None:
        for box in [box for box in self.leaving if not self.host.enforcer.is_linked(box)]:
            self.leaving.discard(box)
            self.taught = {lesson for lesson in self.taught if lesson[0] != box}

    # Orders, and who dies over them

    @precondition(lambda self: self.host.gate.pending)
    @rule(is_answered=st.sampled_from([True, True, True, False]))
    def gate_applies(self, *, is_answered: bool) -> None:
        self.host.gate.carry_out(is_answered=is_answered)
        self.host.turn()

    @precondition(lambda self: self.host.kernel.pending)
    @rule(is_taken=st.sampled_from([True, True, True, False]))
    def kernel_commits(self, *, is_taken: bool) -> None:
        self.host.commit(is_taken=is_taken)

    @rule()
    def gate_dies(self) -> None:
        self.host.gate.kill()
        self.host.enforcer.look_again()
        self.host.turn()

    @precondition(lambda self: self.host.gate.state is GateState.CLOSED)
    @rule()
    def gate_opens(self) -> None:
        self.host.gate.open()
        self.host.enforcer.look_again()
        self.host.turn()

    @rule(is_committed=st.booleans())
    def agent_dies(self, *, is_committed: bool) -> None:
        self.host.crash(is_committed=is_committed)
        for box in sorted(self.placed):
            self.host.enforcer.adopt(place(box, *BOXES[box]))

    @rule()
    def pins_are_lost(self) -> None:
        """Somebody else changes the kernel's table; the agent sees it and has it written anew."""
        self.host.driver._pins.clear()
        self.host.driver._is_known = False
        self.host.enforcer.set_again()
        self.host.turn()

    @rule(seconds=st.sampled_from([0.1, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.host.pass_time(seconds)

    # Devboxes

    @rule(box=st.sampled_from(list(BOXES)), name=st.sampled_from(NAMES))
    def look_up(self, box: str, name: DomainName) -> None:
        if box in self.running:
            self.learn(box, name)

    def learn(self, box: str, name: DomainName) -> None:
        self.host.teach(box, name)
        self.taught |= {(box, address) for address in ADDRESSES[name]}

    @rule(box=st.sampled_from(list(BOXES)))
    def open_flows(self, box: str) -> None:
        """Whatever passes."""
        for probe in PROBES:
            if box in self.running:
                self.host.open_flow(box, probe)

    # What holds

    def _in_question(self, policy_id: str) -> list[PolicyDocument]:
        """The revision in force when the last one was reported, and those taken since."""
        known = self.documents[policy_id]
        before = [document for revision, document in known if revision <= self.host.enforced]
        since = [document for revision, document in known if self.host.enforced < revision <= self.taken]
        return [*before[-1:], *since]

    @invariant()
    def nothing_passes_that_all_deny(self) -> None:
        for box in self.running:
            documents = self._in_question(BOXES[box][0])
            flows = [probe for probe in PROBES if self.host.passes(box, probe)]
            flows += [flow.probe for flow in self.host.flows if flow.devbox_id == box and self.host.is_alive(flow)]
            for probe in flows:
                assert any(allows(document, probe) for document in documents), (box, probe, documents)

    @invariant()
    def the_gate_is_never_behind_the_kernel(self) -> None:
        process = self.host.gate.process
        if process is None or self.host.gate.relay is None:
            return
        plans = self.host.driver.state.plans
        for policy_id, policy in process._table._policies.items():
            plan = plans.get(POLICIES[policy_id])
            if plan is not None:
                revisions = [revision for revision, each in self.documents[policy_id] if plan_of(each) == plan]
                assert policy.revision >= max(revisions, default=0), f"{policy_id}: the kernel has a newer revision"

    @invariant()
    def what_counts_as_filtered_is(self) -> None:
        for box, (policy_id, slot) in BOXES.items():
            if self.host.enforcer.is_filtered(place(box, policy_id, slot)):
                link, entry = self.host.driver.state.devboxes.get(box), self.host.gate.find(box)
                assert link is not None
                assert link.policy_number == POLICIES[policy_id]
                assert entry is not None
                assert (entry.link, entry.policy_id) == (link.link, policy_id)

    @invariant()
    def pins_belong_to_who_learnt_them(self) -> None:
        boxes = {devbox.link: name for name, devbox in self.host.driver.state.devboxes.items()}
        for pin in self.host.driver.pins():
            assert (boxes.get(pin.link), pin.address) in self.taught, f"{pin} is nobody's"

    @rule()
    def come_to_rest(self) -> None:
        """Nobody is in the way any more."""
        if self.host.gate.state is GateState.CLOSED:
            self.gate_opens()
        self.take()
        rests = 0
        for _ in range(ORDERS_MAX):
            if self.host.gate.pending:
                self.gate_applies(is_answered=True)
            elif self.host.kernel.pending:
                self.kernel_commits(is_taken=True)
            else:
                self.time_passes(3.0)
                rests += 1
            if rests == RESTS:
                break
        assert rests == RESTS, "it does not come to rest"
        assert self.host.enforcer.enforced == self.revision
        assert set(self.host.driver.state.devboxes) == self.placed
        for box in self.placed:
            self._check_at_rest(box, self.documents[BOXES[box][0]][-1][1])

    def _check_at_rest(self, box: str, document: PolicyDocument) -> None:
        assert self.host.enforcer.is_filtered(place(box, *BOXES[box]))
        assert self.host.driver.state.plans[document.number] == plan_of(document)
        policy = prepare(document)
        link = self.host.driver.state.devboxes[box].link
        for pin in self.host.driver.pins():
            names = [DomainName(name) for name in pin.names]
            covered = [name for name in names if not isinstance(decide_lookup(policy, name, HostContext()), Deny)]
            assert pin.link != link or covered, f"{pin} outlived its rule"
        for name in NAMES:
            self.learn(box, name)
        for probe in PROBES:
            assert self.host.passes(box, probe) == allows(document, probe), (box, probe, document)


TestUpdateModel = UpdateModel.TestCase
TestUpdateModel.settings = settings(max_examples=60, stateful_step_count=40, derandomize=True)
