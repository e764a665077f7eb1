"""A devbox's log: what was run in it and what that said, as its host still has it."""

from outgate.control.callers import Caller
from outgate.control.executions import check_execution_id
from outgate.control.host_places import locate_devbox, speaking_with
from outgate.control.services import Services
from outgate.model.executions import LogLine


async def read_logs(
    services: Services, caller: Caller, devbox_id: str, *, execution_id: str | None, shell_name: str | None
) -> tuple[LogLine, ...]:
    """The log, oldest entry first; of one execution or one lasting shell if asked for. Empty when the host has none.

    Raises NotFoundError, HostUnavailableError.
    """
    place = await locate_devbox(services, caller, devbox_id)
    if execution_id is not None:
        check_execution_id(execution_id)
    with speaking_with(place):
        page = await services.gateway.read_logs(place.url, devbox_id, execution_id, shell_name)
    return () if page is None else page.lines
