"""One decision, as text."""

from collections.abc import Mapping

from outgate.cli.output import render_time

COLUMNS = ("time", "devbox", "verdict", "at", "to", "out/in", "rule", "why")


def render_flow(flow: Mapping[str, object]) -> tuple[str, ...]:
    """The cells of one record as the API tells it, in the order of :data:`COLUMNS`."""
    times = flow["count"]
    return (
        render_time(flow["time_ms"]),
        str(flow["devbox_id"]),
        f"{flow['verdict']}" if times == 1 else f"{flow['verdict']} x{times}",
        str(flow["enforcement_point"]),
        render_target(flow),
        "" if flow["bytes_out"] is None else f"{flow['bytes_out']}/{flow['bytes_in']}",
        str(flow["rule"] or ""),
        str(flow["sentence"] or flow["reason"]),
    )


def render_place(flow: Mapping[str, object]) -> str:
    """Where to: the name or else the address, and the port if there is one."""
    port = flow["port"]
    return f"{flow['hostname'] or flow['address'] or ''}{f':{port}' if port else ''}"


def render_target(flow: Mapping[str, object]) -> str:
    """Where to, and by which protocol if that is known."""
    return f"{render_place(flow)} {flow['protocol'] or ''}".strip()
