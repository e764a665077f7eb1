"""The pin table beside a model of the kernel's sets: any sequence of calls keeps the two in step."""

from ipaddress import ip_address

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from outgate.core.pins import GRACE_S, PinKey, PinTable, PinWrite, clamp_ttl_s
from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName, parse_domain_name

BOXES = ("dbx_1", "dbx_2")
ADDRESSES = tuple(map(ip_address, ("8.8.8.8", "8.8.8.9", "2606::1")))
NAMES = tuple(map(parse_domain_name, ("a.example", "b.example", "c.example")))
boxes, addresses, names = st.sampled_from(BOXES), st.sampled_from(ADDRESSES), st.sampled_from(NAMES)


class PinsAndKernel(RuleBasedStateMachine):
    """``kernel`` is what a set with timeouts would hold; ``lessons`` is what the table must know, kept naively."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PinTable()
        self.now_s = 0.0
        self.kernel: dict[PinKey, float] = {}
        self.lessons: dict[tuple[PinKey, DomainName], float] = {}

    def carry_out(self, write: PinWrite | None = None, deletes: tuple[PinKey, ...] = ()) -> None:
        for key in deletes:
            assert self.kernel.get(key, 0.0) > self.now_s, "the deletion of what is gone fails the whole transaction"
            del self.kernel[key]
        if write is not None:
            has_it = self.kernel.get(write.key, 0.0) > self.now_s
            assert write.is_new is not has_it
            assert set(write.names) == self.known(write.key)
            self.kernel[write.key] = self.now_s + write.timeout_s

    def known(self, key: PinKey) -> set[DomainName]:
        return {name for (owner, name), until_s in self.lessons.items() if owner == key and until_s > self.now_s}

    @rule(box=boxes, name=names, address=addresses, ttl_s=st.sampled_from([0, 5, 60, 300, 3600, 10_000]))
    def teach(self, box: str, name: DomainName, address: IPAddress, ttl_s: float) -> None:
        lesson = (PinKey(box, address), name)
        until_s = self.now_s + clamp_ttl_s(ttl_s) + GRACE_S
        self.lessons[lesson] = max(until_s, self.lessons.get(lesson, 0.0))
        change = self.table.teach(box, name, address, ttl_s, self.now_s)
        self.carry_out(change.write, change.deletes)

    @rule(box=boxes, address=addresses)
    def touch(self, box: str, address: IPAddress) -> None:
        key = PinKey(box, address)
        for name in self.known(key):
            self.lessons[key, name] = max(self.lessons[key, name], self.now_s + GRACE_S)
        self.carry_out(self.table.touch(box, address, self.now_s))

    @rule(delta_s=st.sampled_from([0.5, 5.0, 60.0, 119.5, 300.0, 3600.0]))
    def wait(self, delta_s: float) -> None:
        self.now_s += delta_s

    @rule()
    def expire(self) -> None:
        self.carry_out(deletes=self.table.expire(self.now_s))
        for key, until_s in self.kernel.items():
            assert self.known(key) or until_s <= self.now_s + 1.0, "the kernel lets in what the table has forgotten"

    @rule(box=boxes, covered=st.sets(names))
    def rejudge(self, box: str, covered: set[DomainName]) -> None:
        self.carry_out(deletes=self.table.rejudge(box, covered.__contains__, self.now_s))
        for key, name in list(self.lessons):
            if key.devbox_id == box and name not in covered:
                del self.lessons[key, name]

    @rule(box=boxes)
    def forget(self, box: str) -> None:
        self.carry_out(deletes=self.table.forget_devbox(box, self.now_s))
        self.lessons = {lesson: until_s for lesson, until_s in self.lessons.items() if lesson[0].devbox_id != box}

    @rule(box=boxes, lost=st.sets(addresses))
    def lose_elements_and_rewrite(self, box: str, lost: set[IPAddress]) -> None:
        for address in lost:
            self.kernel.pop(PinKey(box, address), None)
        present = {address for address in ADDRESSES if self.kernel.get(PinKey(box, address), 0.0) > self.now_s}
        for write in self.table.rewrite(box, present, self.now_s):
            self.carry_out(write)

    @invariant()
    def the_table_knows_exactly_what_was_taught_and_has_not_ended(self) -> None:
        for box in BOXES:
            for address in ADDRESSES:
                assert set(self.table.names_of(box, address, self.now_s)) == self.known(PinKey(box, address))

    @invariant()
    def whatever_the_table_knows_the_kernel_lets_in(self) -> None:
        for key, name in self.lessons:
            if name in self.known(key):
                assert self.kernel.get(key, 0.0) > self.now_s


PinsAndKernel.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestPinsAndKernel = PinsAndKernel.TestCase
