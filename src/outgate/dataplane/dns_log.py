"""What of the lookups is recorded: every denial and the first permission, repeats gathered into one record."""

from collections import OrderedDict
from typing import Final

from outgate.dataplane.gate_table import DevboxEntry
from outgate.dataplane.loop import Loop
from outgate.dataplane.records import Recorder, decision_record
from outgate.model.verdict import Allow, EnforcementPoint, Verdict
from outgate.wire.dns import shown_name

_SEEN_MAX: Final = 32_768
"""Names remembered over all devboxes (some 150 bytes each). Forgetting one means an extra record, not a lost one."""
_DENIED_REPEAT_S: Final = 10.0
"""A program that tries again and again shows once in this time, with the number of tries."""
_ALLOWED_REPEAT_S: Final = 3600.0


class LookupLog:
    """Records decisions on lookups through ``recorder``."""

    def __init__(self, loop: Loop, recorder: Recorder) -> None:
        self._loop = loop
        self._recorder = recorder
        self._seen: OrderedDict[tuple[str, bytes, type[Verdict], int], list[float]] = OrderedDict()
        """(devbox, name, verdict, revision) → [when to record again, repeats since]."""

    def record(self, entry: DevboxEntry, verdict: Verdict, wire_name: bytes, *, address: str = "") -> None:
        """Record ``verdict`` unless the same was recorded a short time ago; an empty name means none in particular."""
        self._recorder.decisions.decided(EnforcementPoint.DNS, verdict)
        key = (entry.id, wire_name, type(verdict), entry.policy.policy.revision)
        now_s = self._loop.now()
        seen = self._seen.get(key)
        if seen is not None and now_s < seen[0]:
            seen[1] += 1
            return
        repeats = 0 if seen is None else int(seen[1])
        if seen is None and len(self._seen) >= _SEEN_MAX:
            self._seen.popitem(last=False)
        self._seen[key] = [now_s + (_ALLOWED_REPEAT_S if isinstance(verdict, Allow) else _DENIED_REPEAT_S), 0]
        if not self._recorder.has_room(entry.id):
            self._recorder.drop()
            return
        sentence = None
        if repeats and not isinstance(verdict, Allow):
            sentence = f"{verdict.sentence} (And {repeats} more lookups since the last record of it.)"
        self._recorder.record(
            decision_record(
                entry,
                verdict,
                EnforcementPoint.DNS,
                sentence=sentence,
                name=shown_name(wire_name) if wire_name else "",
                address=address,
            )
        )
