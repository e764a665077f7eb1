"""Runs inside a devbox (standard library only): tries the same targets over and over, until /tmp/stop-traffic exists.

Argument: a JSON list of attempts as attempts.py takes them, beside which this program lies; without an address the
name is looked up each time. Each is tried by a thread of its own. Prints {"tries": …, "answers": [per target]}.
"""

import json
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

from attempts import attempt  # type: ignore[import-not-found]  # lies beside this in the devbox, not on our path

STOP = Path("/tmp/stop-traffic")
END_S = 600.0
PAUSE_S = 0.01
WAIT_S = 1.0


def once(spec: dict[str, Any]) -> str:
    """One try. Raises OSError."""
    if "address" in spec:
        return str(attempt(spec))
    found = socket.getaddrinfo(spec["name"], 443, socket.AF_INET, socket.SOCK_STREAM)
    return str(attempt({**spec, "address": found[0][4][0]}))


def main() -> None:
    """All targets at once."""
    specs = [{"port": 443, "wait_s": WAIT_S, **spec} for spec in json.loads(sys.argv[1])]
    tries, answers = [0] * len(specs), [0] * len(specs)
    end_s = time.monotonic() + END_S

    def work(number: int) -> None:
        while not STOP.exists() and time.monotonic() < end_s:
            tries[number] += 1
            try:
                answers[number] += bool(once(specs[number]))
            except (OSError, UnicodeError):
                time.sleep(PAUSE_S)
            time.sleep(PAUSE_S)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(specs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"tries": tries, "answers": answers}))


if __name__ == "__main__":
    main()
