"""Records of the flows that the kernel lets pass without the relay: one when a flow begins, one when it is over.

They are read in the agent's event loop, a bounded number in each turn and with a pause in between when there are more:
a devbox that opens flows as fast as it can costs the loop a share of its time, and itself its records.
"""

import asyncio
from typing import Final

from msgspec import structs

from outgate import clock
from outgate.agent.flow_owners import FlowOwners, Granted, Owner
from outgate.agent.flowlog import FlowLog
from outgate.agent.target import Target
from outgate.dataplane.conntrack_events import FlowBegan, FlowEnded, FlowEvent
from outgate.dataplane.driver import FlowEvents
from outgate.dataplane.records import record_verdict
from outgate.model.addresses import protocol_word
from outgate.model.desired import FlowRecord
from outgate.model.plan import MARK_RESET_SENT
from outgate.model.verdict import EnforcementPoint

_PAUSE_S: Final = 0.005
"""The least between two turns while there is more to read."""
_PAUSE_PER_TURN: Final = 3
"""How much longer than a turn the pause after it is: a flood takes a quarter of a core, however slow the core is. On
full cores a turn was measured to take twice as long as on quiet ones."""


class KernelFlows:
    """Belongs to the event loop's thread. Begins to read once it knows whose flows there may be."""

    def __init__(self, owners: FlowOwners, log: FlowLog) -> None:
        self.events = 0
        """Events read so far, of all listeners."""
        self.dropped = 0
        """Events lost so far, as far as that is known."""
        self._owners, self._log = owners, log
        self._listener: FlowEvents | None = None
        self._seen = (0, 0)
        """What the listener's counts were at the last look."""
        self._is_reading = False
        self._knows_owners = False
        self._pause: asyncio.TimerHandle | None = None

    def learn(self, target: Target) -> None:
        """``target`` is about to be enforced."""
        self._owners.learn(target)
        if not self._knows_owners:
            self._knows_owners = True
            self._resume()

    def listen(self, listener: FlowEvents) -> None:
        """Read from ``listener`` from now on, and close it in the end."""
        self.stop()
        self._listener, self._seen = listener, (0, 0)
        self._resume()

    def stop(self) -> None:
        """Close the listener, if there is one."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._listener is not None:
            self._hold()
            self._listener.close()
            self._listener = None

    def _resume(self) -> None:
        self._pause = None
        if self._listener is not None and self._knows_owners and not self._is_reading:
            self._is_reading = True
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._read)

    def _hold(self) -> None:
        if self._listener is not None and self._is_reading:
            self._is_reading = False
            asyncio.get_running_loop().remove_reader(self._listener.fileno())

    def _read(self) -> None:
        listener = self._listener
        if listener is None:
            return
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        events, has_more = listener.read()
        read, lost = listener.events - self._seen[0], listener.dropped - self._seen[1]
        self._seen = listener.events, listener.dropped
        self.events += read
        self.dropped += lost
        records: list[FlowRecord] = []
        now_ms = clock.wall_ms()
        for event in events:
            began_ms = now_ms if isinstance(event, FlowBegan) else event.began_ms
            owner = self._owners.find_owner(event.flow.source, began_ms)
            if owner is None:
                continue
            if not self._log.has_room(owner.devbox_id):
                lost += 1
                continue
            record = self._record(owner, event, now_ms)
            if record is not None:
                records.append(record)
        if records or lost:
            self._log.add(records, dropped=lost)
        if has_more:
            self._hold()
            pause_s = max(_PAUSE_S, _PAUSE_PER_TURN * (loop.time() - began_s))
            self._pause = loop.call_later(pause_s, self._resume)

    def _record(self, owner: Owner, event: FlowEvent, now_ms: int) -> FlowRecord | None:
        flow = event.flow
        granted = self._owners.find_grant(owner, flow)
        if granted is None:
            return None
        record = record_verdict(
            granted.verdict,
            EnforcementPoint.KERNEL,
            time_ms=now_ms,
            devbox_id=owner.devbox_id,
            policy=granted.policy,
            address=str(flow.destination),
            port=flow.destination_port,
            protocol=protocol_word(flow.protocol),
        )
        return record if isinstance(event, FlowBegan) else _finish(record, event, _why_ended(owner, granted, event))


def _finish(record: FlowRecord, event: FlowEnded, why: str) -> FlowRecord:
    return structs.replace(
        record,
        began_ms=min(event.began_ms, record.time_ms),
        bytes_out=event.bytes_out,
        bytes_in=event.bytes_in,
        duration_ms=event.duration_ms,
        sentence=f"{record.sentence} (Ended: {why}.)" if why else record.sentence,
    )


def _why_ended(owner: Owner, granted: Granted, event: FlowEnded) -> str:
    """What ended the flow, if it was neither of its ends."""
    if event.flow.mark == MARK_RESET_SENT:
        return "the rule that allowed it was taken away"
    if event.is_closed:
        return ""
    if event.is_cut and not owner.is_linked:
        return "the devbox's link was taken away"
    if event.is_cut and granted.policy.id != owner.policy_ids[0]:
        return "the devbox came under another policy"
    return "" if granted.is_live else "the rule that allowed it was taken away"
