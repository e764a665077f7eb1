"""`python -m bench [--out DIR] [--only WORD] [--streams N]`: measure every row, print the table, write JSON and chart."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bench import control, flow_log, flows, names, packets, records, streams
from bench.namespaces import run
from bench.report import Row, show, write
from bench.world import World, gateway_of, world

UPDATE_COUNTS = ((1, 5.0), (100, 10.0), (1000, 50.0))


def gate_rss_kib(serve_pid: int) -> int:
    """Resident memory of the gate, which the agent started, which `outgate serve` started."""
    (agent,) = run("pgrep", "-P", str(serve_pid), "-f", "outgate.server.agent_process").split()
    (gate,) = run("pgrep", "-P", agent, "-f", "outgate.dataplane.gate").split()
    status = Path(f"/proc/{gate}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def measures(seen: World, stream_count: int) -> dict[str, Callable[[], list[Row]]]:
    """The groups of rows by name, in the order in which they disturb each other least."""
    return {
        "kernel": lambda: flows.kernel_flows(seen),
        "relay": lambda: flows.relayed_flows(seen),
        "idle": lambda: flows.idle_flows(seen, lambda: gate_rss_kib(seen.outgate.process.pid)),
        "names": lambda: names.name_lookups(seen, gateway_of(seen.devbox)),
        "packets": lambda: packets.many_devboxes(seen),
        "records": lambda: records.kernel_records(seen),
        "log": lambda: flow_log.long_log(seen.folder),
        "api": lambda: control.api(seen),
        "start": lambda: control.starts(seen),
        "tighten": lambda: control.tighten(seen),
        "streams": lambda: streams.streams(seen, stream_count),
        "update": lambda: control.updates(seen, UPDATE_COUNTS),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--only", action="append", default=[], help="a group of rows; may be repeated")
    parser.add_argument("--streams", type=int, default=50, help="devboxes of the group streams")
    arguments = parser.parse_args()
    console = Console()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="outgate-bench-") as folder:
        Path(folder).chmod(0o711)  # the api, which is nobody in particular, must pass
        with world(Path(folder)) as seen:
            for name, measure in measures(seen, arguments.streams).items():
                if not arguments.only or name in arguments.only:
                    console.print(f"measuring {name} …")
                    found = measure()
                    # A run that is interrupted has shown what it had.
                    for row in found:
                        console.print(f"  {row.name}: {row.measured:.3g} {row.unit} ({row.detail})")
                    rows += found
    show(rows, console)
    write(rows, arguments.out)
    console.print(f"wrote {arguments.out}/bench.json and bench.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
