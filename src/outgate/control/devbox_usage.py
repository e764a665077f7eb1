"""What a devbox has used so far, in resource-seconds."""

import json
import math
from dataclasses import dataclass

from outgate.control.devbox_launch import parse_launch
from outgate.control.devbox_states import DevboxStatus, decode_devbox
from outgate.store.devboxes import DevboxRow


@dataclass(frozen=True, slots=True)
class DevboxUsage:
    """Whole seconds. The disk counts for all of the devbox's time, cores and memory while it runs."""

    devbox_id: str
    status: DevboxStatus
    start_time_ms: int
    end_time_ms: int | None
    elapsed_s: int
    active_s: int
    vcpu_s: int
    memory_gib_s: int
    disk_gib_s: int


def measure_usage(row: DevboxRow, now_ms: int) -> DevboxUsage:
    """The use of a devbox up to ``now_ms``, or to its end."""
    until_ms = now_ms if row.end_time_ms is None else row.end_time_ms
    elapsed_ms = max(0, until_ms - row.create_time_ms)
    running_ms = 0 if row.run_since_ms is None else max(0, until_ms - row.run_since_ms)
    active_ms = row.run_ms + running_ms
    document = decode_devbox(row.document)
    disk_gib = parse_launch(json.loads(row.launch_parameters)).resources.disk_gib
    return DevboxUsage(
        devbox_id=row.id,
        status=DevboxStatus(row.status),
        start_time_ms=row.create_time_ms,
        end_time_ms=row.end_time_ms,
        elapsed_s=elapsed_ms // 1000,
        active_s=active_ms // 1000,
        vcpu_s=math.floor(active_ms * document.cpu_cores / 1000),
        memory_gib_s=active_ms * document.memory_mib // 1024 // 1000,
        disk_gib_s=elapsed_ms * disk_gib // 1000,
    )
