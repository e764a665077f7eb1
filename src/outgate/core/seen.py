"""What devboxes did, as the flow log has it, added up."""

from dataclasses import dataclass

from outgate.model.addresses import IPAddress
from outgate.model.names import DomainName


@dataclass(frozen=True, slots=True)
class Seen:
    """Decisions of one kind of one devbox, ``count`` of them. ``is_lookup``: by the DNS gate, nothing was connected.

    ``verdict`` and ``reason`` are those on record (``allow``, ``deny``, ``report_only``). Times are Unix milliseconds.
    """

    name: DomainName | None
    address: IPAddress | None
    port: int | None
    protocol: int
    is_lookup: bool
    verdict: str
    reason: str
    devbox_id: str
    count: int
    first_ms: int
    last_ms: int
