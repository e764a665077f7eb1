"""A record of the flow log as the API and webhooks tell it."""

import msgspec

from outgate.store.flows import FlowRow


class NetworkFlowView(msgspec.Struct, frozen=True):
    """One decision, or one finished flow (``bytes_*`` and ``duration_ms`` are not null then).

    Times are Unix milliseconds. ``count`` of the same kind, from ``began_ms`` to ``time_ms``, are told as one; what
    they counted is added up. ``number`` is its place in the log.
    """

    number: int
    time_ms: int
    began_ms: int
    count: int
    devbox_id: str
    policy_id: str
    revision: int
    verdict: str
    reason: str
    enforcement_point: str
    rule: str | None
    sentence: str
    hostname: str | None
    address: str | None
    port: int | None
    protocol: str | None
    bytes_out: int | None
    bytes_in: int | None
    duration_ms: int | None


def view_flow(row: FlowRow) -> NetworkFlowView:
    """The view of a record."""
    return NetworkFlowView(
        number=row.number,
        time_ms=row.time_ms,
        began_ms=row.began_ms,
        count=row.count,
        devbox_id=row.devbox_id,
        policy_id=row.policy_id,
        revision=row.revision,
        verdict=row.verdict,
        reason=row.reason,
        enforcement_point=row.point,
        rule=row.rule or None,
        sentence=row.sentence,
        hostname=row.name or None,
        address=row.address or None,
        port=row.port or None,
        protocol=row.protocol or None,
        bytes_out=row.bytes_out,
        bytes_in=row.bytes_in,
        duration_ms=row.duration_ms,
    )
