"""``outgate teardown``: removes everything of one installation from this host. No server has to run, or may."""

import asyncio
import shutil

import structlog

from outgate import clock
from outgate.agent.record import Outcome, RecordStore, Stage
from outgate.dataplane.linux import teardown_instance
from outgate.logs import configure_logs
from outgate.model.desired import ObservedPhase
from outgate.runtime.oci import OciRuntime
from outgate.server.host_network import POOL_FILE, RECORDS
from outgate.server.identity import require_root
from outgate.server.places import locked
from outgate.server.sandboxes import open_runtime
from outgate.settings import Settings

_DETAIL = "The host was torn down."


def run_teardown(settings: Settings) -> int:
    """Remove devboxes, namespaces and tables; returns how many devboxes there were. The store is left alone.

    The api hears of it at the next start: the devboxes were shut down. Raises
    :class:`outgate.server.places.InstanceBusyError` while a server runs, SandboxError and OSError.
    """
    configure_logs(settings.log_level, settings.log_format, process="teardown")
    require_root("outgate teardown")
    with locked(settings, "serve", "A server"):
        return teardown_locked(settings)


def teardown_locked(settings: Settings) -> int:
    """As :func:`run_teardown`, by whoever holds the server's lock."""
    with locked(settings, "agent", "An agent"):
        removed = asyncio.run(_stop_sandboxes(open_runtime(settings))) if settings.runtime_dir.exists() else 0
        teardown_instance(settings.instance_id)
        if settings.agent_dir.exists():
            _end_records(RecordStore(settings.agent_dir / RECORDS))
            (settings.agent_dir / POOL_FILE).unlink(missing_ok=True)
        shutil.rmtree(settings.run_dir, ignore_errors=True)
    structlog.get_logger("teardown").info("torn_down", devboxes=removed)
    return removed


async def _stop_sandboxes(runtime: OciRuntime) -> int:
    try:
        await runtime.prepare()
        found = await runtime.observe()
        await runtime.teardown()
        return len(found)
    finally:
        await runtime.aclose()


def _end_records(records: RecordStore) -> None:
    now_ms = clock.wall_ms()
    for record in records.all():
        outcome = record.outcome or Outcome(ObservedPhase.SHUTDOWN, now_ms, detail=_DETAIL)
        records.put(
            type(record)(
                devbox_id=record.devbox_id,
                account_id=record.account_id,
                policy_id=record.policy_id,
                generation=record.generation,
                stage=Stage.ENDED,
                slot=None,
                time_ms=now_ms,
                outcome=outcome,
            )
        )
