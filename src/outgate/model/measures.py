"""What gate and agent count, on its way to the api: totals since their start, and latencies in fixed buckets.

A reader must not trust the writer: the gate reads what devboxes send, and a host may be anybody's. So each number has
bounds, each list a length, and there is no text but that of a reason, which the api compares with those that there are.
"""

from typing import Annotated, Final

import msgspec

from outgate.model.verdict import EnforcementPoint

LATENCY_BOUNDS_S: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Upper bounds of the buckets, in seconds; one more bucket holds what took longer. From a look into a dictionary to the
longest that anything here waits."""
_BUCKETS: Final = len(LATENCY_BOUNDS_S) + 1
DECISION_KINDS_MAX: Final = 512
"""Points, verdicts and reasons have some 200 combinations, most of which never happen."""
_COUNT_MAX: Final = 2**53
"""What JSON's readers tell apart; a million a second for 285 years."""

Count = Annotated[int, msgspec.Meta(ge=0, le=_COUNT_MAX)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=_COUNT_MAX)]


class LatencyMeasure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many took how long since the start: ``counts`` by bucket (none includes another), and the sum of all."""

    counts: Annotated[tuple[Count, ...], msgspec.Meta(min_length=_BUCKETS, max_length=_BUCKETS)]
    sum_s: Seconds


class DecisionMeasure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often there was this verdict for this reason at this point."""

    point: EnforcementPoint
    verdict: Annotated[str, msgspec.Meta(max_length=32)]
    reason: Annotated[str, msgspec.Meta(max_length=64)]
    count: Count


DecisionMeasures = Annotated[tuple[DecisionMeasure, ...], msgspec.Meta(max_length=DECISION_KINDS_MAX)]


class GateMeasures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="measures"):
    """gate → agent, every few seconds: totals since the gate started, and what is so right now.

    Answers to lookups by what they cost: ``dns_ready`` were rendered a moment ago, ``dns_cached`` came from the gate's
    own memory, ``dns_forwarded`` from upstream, ``dns_denied`` are denials. ``relay_decision`` lasts from a flow's
    first byte to the verdict, ``relay_dial`` until the far side has answered.
    """

    decisions: DecisionMeasures
    dns_ready: LatencyMeasure
    dns_cached: LatencyMeasure
    dns_forwarded: LatencyMeasure
    dns_denied: LatencyMeasure
    relay_decision: LatencyMeasure
    relay_dial: LatencyMeasure
    lookups_open: Count
    flows_open: Count
    pins: Count
    devboxes: Count
    records_queued: Count
    records_dropped: Count


class AgentMeasures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the agent itself counts since its start. ``decisions`` are those that the kernel carried out.

    ``apply_gate`` and ``apply_kernel`` are the two halves of ``apply_round``, a whole round of reconciliation that
    changed something.
    """

    decisions: DecisionMeasures
    apply_gate: LatencyMeasure
    apply_kernel: LatencyMeasure
    apply_round: LatencyMeasure
    rounds_failed: Count
    gate_restarts: Count
    drift_repairs: Count
    kernel_records_dropped: Count
    """What the kernel told of and nobody read in time, or had room for."""
    records_queued: Count
    records_sent: Count
    records_dropped: Count


class HostMeasures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """agent → api. ``number`` counts them within one life of the agent (``boot_id``), so that late ones are known.

    ``gate`` is None while there is no gate that has spoken.
    """

    boot_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    number: Count
    agent: AgentMeasures
    gate: GateMeasures | None
