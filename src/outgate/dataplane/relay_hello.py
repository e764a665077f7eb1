"""The pumps of a TLS connection while a second hello may follow: see :mod:`outgate.wire.second_hello`.

The server's first bytes come by to be looked at, and so do the client's until those have come.
"""

from typing import TYPE_CHECKING

from outgate.dataplane.relay_upstream import READ_BYTES
from outgate.wire.relay_flow import FlowPhase

if TYPE_CHECKING:
    from outgate.dataplane.relay_connection import Connection


def pump_answer(connection: "Connection") -> None:
    """Server to client."""
    flow, down = connection.flow, connection.down
    is_drained = False
    try:
        if not down.is_empty:
            down.move(connection.context.pool, 0)
        while flow.phase is FlowPhase.HELLO_SENT and connection.is_live:
            data = None if is_drained else connection.receive_upstream()
            if data is None:
                return
            if data and not down.send(data):
                connection.watch_client_out()
            is_drained = 0 < len(data) < READ_BYTES and not down.is_ending
            connection.run(flow.responded(data) if data else flow.server_finished())
    except OSError as error:
        connection.fail(error.strerror or "broken")
        return
    if connection.is_live and connection.is_client_ready:
        connection.pump_up()
    if connection.is_live and not is_drained:
        connection.pump_down()


def pump_behind_hello(connection: "Connection") -> None:
    """Client to server."""
    flow, up = connection.flow, connection.up
    try:
        while flow.phase is FlowPhase.HELLO_SENT and connection.is_live:
            if not up.is_empty:
                up.move(connection.context.pool, 0)
            data = connection.receive_client() if up.is_empty and not up.is_source_done else None
            if data is None:
                connection.is_client_ready = not up.is_empty
                connection.settle_up()
                return
            connection.run(flow.receive(data, connection.context.loop.now()) if data else flow.client_finished())
    except OSError as error:
        connection.fail(error.strerror or "broken")
        return
    if connection.is_live:
        connection.pump_up()
