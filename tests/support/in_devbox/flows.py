"""Runs inside a devbox (standard library only): opens many flows, holds them, and says when each ended.

Argument: a JSON list of {"address", "port", "count", "talks", "ends"}. ``talks`` flows get an echo of every line they
send; others only listen. Makes /tmp/flows-open when all are up. Once /tmp/flows-check is there, waits for the end of
those that are to end; then sends a line on every flow that is still open and waits for its echo; then prints, per entry
of the list, {"opened", "ended_s": [when], "errors": [why], "ended_unasked": how many had ended before anything was sent
on them, "alive": how many are still there}.
"""

import json
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Any

OPEN, CHECK = Path("/tmp/flows-open"), Path("/tmp/flows-check")
END_S = 90.0
ECHO_S = 30.0
LOOK_EVERY_S = 0.05
ENDS_S_MAX = 30.0


class Flows:
    """All flows and what became of them."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self._entries = entries
        self._sockets: dict[socket.socket, int] = {}
        self._selector = selectors.DefaultSelector()
        self.results: list[dict[str, Any]] = [{"opened": 0, "ended_s": [], "errors": [], "alive": 0} for _ in entries]

    def open(self) -> None:
        """Open every flow; those that talk have had one echo."""
        for number, entry in enumerate(self._entries):
            for _ in range(entry["count"]):
                flow = socket.create_connection((entry["address"], entry["port"]), 10.0)
                if entry["talks"]:
                    flow.sendall(b"hello\n")
                    if flow.recv(100) != b"hello\n":
                        raise ConnectionError("no echo")
                flow.setblocking(False)
                self._selector.register(flow, selectors.EVENT_READ)
                self._sockets[flow] = number
                self.results[number]["opened"] += 1

    def hold(self) -> None:
        """Note what ends until the check."""
        end_s = time.monotonic() + END_S
        while not CHECK.exists() and time.monotonic() < end_s:
            self._look(LOOK_EVERY_S)

    def check(self) -> None:
        """Ask each flow that is left for one more echo; those that only listen count as they are."""
        end_s = time.monotonic() + ENDS_S_MAX
        while self._expects_ends() and time.monotonic() < end_s:
            self._look(LOOK_EVERY_S)
        for result in self.results:
            result["ended_unasked"] = len(result["ended_s"])
        for flow, number in list(self._sockets.items()):
            if not self._entries[number]["talks"]:
                self._is_alive(flow)
                continue
            try:
                flow.sendall(b"still?\n")
            except OSError as error:
                self._has_ended(flow, str(error))
        end_s = time.monotonic() + ECHO_S
        while self._sockets and time.monotonic() < end_s:
            self._look(LOOK_EVERY_S, is_check=True)

    def _expects_ends(self) -> bool:
        return any(self._entries[number].get("ends") for number in self._sockets.values())

    def _look(self, wait_s: float, *, is_check: bool = False) -> None:
        for key, _ in self._selector.select(wait_s):
            flow = key.fileobj
            if not isinstance(flow, socket.socket):
                continue
            try:
                received = flow.recv(1 << 20)
            except OSError as error:
                self._has_ended(flow, str(error))
                continue
            if not received:
                self._has_ended(flow, "closed")
            elif is_check:
                self._is_alive(flow)

    def _is_alive(self, flow: socket.socket) -> None:
        self.results[self._sockets.pop(flow)]["alive"] += 1
        self._selector.unregister(flow)

    def _has_ended(self, flow: socket.socket, why: str) -> None:
        result = self.results[self._sockets.pop(flow)]
        result["ended_s"].append(time.monotonic())
        result["errors"].append(why)
        self._selector.unregister(flow)
        flow.close()


def main() -> None:
    """Open, hold, check."""
    flows = Flows(json.loads(sys.argv[1]))
    flows.open()
    OPEN.touch()
    flows.hold()
    flows.check()
    for result in flows.results:
        result["errors"] = sorted(set(result["errors"]))
    print(json.dumps(flows.results))


if __name__ == "__main__":
    main()
