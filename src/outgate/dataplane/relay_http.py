"""The pumps of a connection whose requests are read: bodies of known length pass unread, the rest comes by."""

from typing import TYPE_CHECKING, Final

from outgate.dataplane.relay_pump import Channel, Pumped
from outgate.wire.relay_flow import FlowPhase

if TYPE_CHECKING:
    from collections.abc import Callable

    from outgate.dataplane.relay_connection import Connection

_ROUNDS_MAX: Final = 32
"""Messages handled per event, so that one busy connection starves nobody."""
_SPLICE_BYTES_MIN: Final = 16 * 1024
"""Below this, copying costs less than a way through a pipe."""


def pump_requests(connection: "Connection") -> None:
    """Client to server."""
    _pump(connection, connection.up, _pump_request)


def pump_watched(connection: "Connection") -> None:
    """Client to server, as it is."""
    _pump(connection, connection.up, _pump_watched)


def pump_responses(connection: "Connection") -> None:
    """Server to client."""
    _pump(connection, connection.down, _pump_response)


def _pump(connection: "Connection", channel: Channel, step: "Callable[[Connection], bool]") -> None:
    """Take steps, each of which says whether to go on at once; after many of them, let others have their turn."""
    try:
        for _ in range(_ROUNDS_MAX):
            if not step(connection):
                return
    except OSError as error:
        connection.fail(error.strerror or "broken")
        return
    connection.schedule(channel)


def _pump_request(connection: "Connection") -> bool:
    flow, up, requests = connection.flow, connection.up, connection.flow.requests
    if _is_held_up(connection):
        return False
    if up.is_source_done:
        connection.settle_up()
        return False
    if requests is None or not flow.wants_client:
        connection.is_client_ready = True
        if requests is not None and up.is_ending and (requests.is_refusing or connection.is_client_spent()):
            # It waits for a response that the server may never give; the server is to know that it left.
            up.is_source_done = True
            connection.settle_up()
        return False
    if not requests.passable_up:
        return _read(connection)
    return _pass_up(
        connection, requests.passable_up, requests.passed_up, lambda: connection.run(flow.client_finished())
    )


def _pump_watched(connection: "Connection") -> bool:
    up, watched = connection.up, connection.flow.watched
    if _is_held_up(connection):
        return False
    if up.is_source_done or watched is None:
        connection.settle_up()
        return False
    if not watched.passable:
        return _read(connection)
    return _pass_up(connection, watched.passable, watched.passed, connection.settle_up)


def _is_held_up(connection: "Connection") -> bool:
    """Whether the server does not take yet what was read before."""
    up = connection.up
    if not up.is_empty:
        up.move(connection.context.pool, 0)
        if not up.is_empty:
            connection.is_client_ready = True
            return True
    return False


def _read(connection: "Connection") -> bool:
    data = connection.receive_client()
    if data is None:
        connection.is_client_ready = False
        return False
    flow = connection.flow
    connection.run(flow.receive(data, connection.context.loop.now()) if data else flow.client_finished())
    return _goes_on(connection)


def _pass_up(
    connection: "Connection", passable: int, passed: "Callable[[int], None]", finish: "Callable[[], None]"
) -> bool:
    """Move as much as may pass unread. ``passed`` is told how much did, and ``finish`` called at the client's end."""
    up = connection.up
    why, taken = up.move(connection.context.pool, passable)
    passed(taken)
    if up.is_source_done:
        finish()
        return False
    if why is Pumped.WORK_CAP:
        connection.schedule(connection.up)
        return False
    connection.is_client_ready = taken > 0
    return taken > 0


def _pump_response(connection: "Connection") -> bool:
    flow, down, requests = connection.flow, connection.down, connection.flow.requests
    if not down.is_empty:
        down.move(connection.context.pool, 0)
        if not down.is_empty:
            connection.watch_client_out()
            return False
    if down.is_source_done or requests is None:
        connection.settle_down()
        return False
    if requests.passable_down >= _SPLICE_BYTES_MIN:
        return _pass_response(connection, requests.passable_down)
    data = connection.receive_upstream()
    if data is None:
        return False
    if data:
        down.send(data)
        connection.run(flow.responded(data))
    else:
        down.is_source_done = True
    return _after_response(connection)


def _pass_response(connection: "Connection", passable: int) -> bool:
    why, taken = connection.down.move(connection.context.pool, passable)
    if taken:
        connection.run(connection.flow.passed_down(taken))
    if why is Pumped.WORK_CAP and connection.is_live:
        connection.schedule(connection.down)
        return False
    return (taken > 0 or connection.down.is_source_done) and _after_response(connection)


def _after_response(connection: "Connection") -> bool:
    if connection.is_live and connection.is_client_ready and connection.flow.wants_client:
        connection.pump_up()  # it had to wait for this response
    return _goes_on(connection)


def _goes_on(connection: "Connection") -> bool:
    """Whether requests are still read; hands over when a 101 ended that."""
    if not connection.is_live:
        return False
    if connection.flow.phase is FlowPhase.PASSING:
        connection.pump_up()
        if connection.is_live:
            connection.pump_down()
        return False
    return True
