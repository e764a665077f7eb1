"""The warning of a table of tracked flows that is nearly full; with a gap between its beginning and its end."""

from outgate.agent.health import Health, WarningCode
from outgate.dataplane.flow_table import FULL_AT, WELL_BELOW, FlowTableFill


def note_flow_table(health: Health, fill: FlowTableFill) -> None:
    """Raise or clear it; between the two bounds it stays as it is."""
    if fill.share >= FULL_AT:
        # The bound and not the count: the text would change with each look, and be told each time.
        text = (
            f"More than {FULL_AT:.0%} of the {fill.limit} flows that this host can track are in use. At the bound new "
            "flows of every devbox are dropped; those that are open go on. Raise net.netfilter.nf_conntrack_max."
        )
        health.raise_warning(WarningCode.FLOW_TABLE_FILLING, text)
    elif fill.share < WELL_BELOW:
        health.clear(WarningCode.FLOW_TABLE_FILLING)
