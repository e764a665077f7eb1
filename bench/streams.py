"""Rows about many devboxes whose commands talk at once: nothing of it is lost, the API answers meanwhile, nothing stays."""

import json
import time
from collections.abc import Sequence

from bench.namespaces import run
from bench.report import Row
from bench.world import World, devbox_namespaces, start_devbox, wait_until

LINES = 2000
PAUSES = 25
PAUSE_S = 0.2
"""Twenty-five pieces of eighty lines in five seconds; a pause costs the box one process."""
WATCHED_S = 3.0
"""How long the API is asked meanwhile: less than the commands take."""

COMMAND = (
    f"n=0; while [ $n -lt {LINES} ]; do "
    f"m=$((n+{LINES // PAUSES})); while [ $n -lt $m ]; do n=$((n+1)); echo line $n; done; sleep {PAUSE_S}; done"
)

FOLLOWER = """
import http.client, json, sys, threading
port, key, command, lines, ids = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:]
head = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
texts, begun, waiting = {}, threading.Semaphore(0), threading.Lock()
def ask(method, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    c.request(method, path, body, head)
    return c.getresponse()
def follow(devbox):
    texts[devbox] = ""
    made = ask("POST", f"/v1/devboxes/{devbox}/execute_async", json.dumps({"command": command}))
    execution = json.loads(made.read())["execution_id"]
    offset, is_over, is_first = 0, False, True
    while not is_over:
        answer = ask("GET", f"/v1/devboxes/{devbox}/executions/{execution}/stream_stdout_updates?offset={offset}")
        assert answer.status == 200, answer.read()
        is_over = True
        for line in answer:
            if line.startswith(b"event: error"):
                is_over = False  # come again from the last offset
            elif line.startswith(b"data: ") and is_over:
                event = json.loads(line[6:])
                texts[devbox] += event["output"]
                offset = event["offset"]
                if is_first:
                    is_first = False
                    begun.release()
threads = [threading.Thread(target=follow, args=(one,), daemon=True) for one in ids]
for one in threads: one.start()
for one in threads: assert begun.acquire(timeout=60), "a stream never began"
print("streaming", flush=True)
for one in threads: one.join(120)
whole = "".join(f"line {n}\\n" for n in range(1, lines + 1))
print(json.dumps({one: text.count("\\n") if text != whole else None for one, text in texts.items()}), flush=True)
"""
"""Prints, for each devbox, null when its output came whole, else how many lines came."""

ASKER = """
import http.client, json, sys, time
port, key, path, seconds = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
c = http.client.HTTPConnection("127.0.0.1", port)
c.request("GET", "/healthz"); c.getresponse().read()
out, end = [], time.perf_counter() + seconds
while time.perf_counter() < end:
    t = time.perf_counter()
    c.request("GET", path, headers={"Authorization": "Bearer " + key}); r = c.getresponse(); r.read()
    out.append((time.perf_counter() - t) * 1e3)
    assert r.status == 200
    time.sleep(0.005)
print(json.dumps(out))
"""


def _p99_ms(world: World, seconds: float) -> float:
    """The 99th percentile of one client that reads a policy now and again for ``seconds``."""
    path = f"/v1/network-policies/{world.policy_id}"
    times = json.loads(world.host.run("python3", "-c", ASKER, "8080", world.outgate.key, path, str(seconds)))
    return float(sorted(times)[len(times) * 99 // 100])


def _traces(world: World, ids: Sequence[str]) -> list[str]:
    """What the host still has of these devboxes: directories of the server's state, and control groups."""
    places = (world.outgate.state_dir, "/sys/fs/cgroup")
    found = run("find", *places, "-maxdepth", "5", "-name", "*dbx_*", check=False).splitlines()
    return [path for path in found if any(one in path for one in ids)]


def streams(world: World, count: int) -> list[Row]:
    """``count`` devboxes, each with a command whose output one client follows while it runs."""
    before = devbox_namespaces(world.outgate)
    idle_p99_ms = _p99_ms(world, 1.0)
    ids = [start_devbox(world.outgate, world.policy_id) for _ in range(count)]
    follower = world.host.start(
        "python3", "-c", FOLLOWER, "8080", world.outgate.key, COMMAND, str(LINES), *ids, wait_for="streaming"
    )
    p99_ms = _p99_ms(world, WATCHED_S)
    is_running = follower.poll() is None
    answer, _ = follower.communicate(timeout=180)
    if not is_running:
        raise RuntimeError("the commands had ended before the API's latency was measured")
    seen: dict[str, int | None] = json.loads(answer)
    cut = {one: lines for one, lines in seen.items() if lines is not None}
    if cut or len(seen) != count:
        raise RuntimeError(f"of {count} streams with {LINES} lines, these came otherwise: {cut}")
    if len(devbox_namespaces(world.outgate) - before) != count or not _traces(world, ids):
        raise RuntimeError("running devboxes are not found by what they would leave behind")
    for one in ids:
        world.outgate.call("POST", f"/v1/devboxes/{one}/shutdown")
    started = time.monotonic()
    wait_until(lambda: devbox_namespaces(world.outgate) <= before, "the devboxes' namespaces are gone", seconds=60)
    wait_until(lambda: not _traces(world, ids), "the devboxes' directories and control groups are gone", seconds=60)
    gone_s = time.monotonic() - started
    what = f"{count} devboxes stream"
    return [
        Row(
            f"{what}: lines lost",
            0,
            0,
            at_least=False,
            unit="lines",
            detail=f"{count * LINES:,} lines, each followed while its command ran; compared as text",
        ),
        Row(
            f"{what}: API p99 meanwhile",
            p99_ms,
            None,
            at_least=False,
            unit="ms",
            detail=f"GET of a policy, one client, for {WATCHED_S:g} s; {idle_p99_ms:.2f} ms before they began",
        ),
        Row(
            f"{what}: left behind",
            0,
            0,
            at_least=False,
            unit="things",
            detail=f"namespaces, directories, control groups; all gone {gone_s:.1f} s after the last shutdown",
        ),
    ]
