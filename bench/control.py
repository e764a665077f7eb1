"""Rows about the control path: updates, tightening, starting a devbox, the API."""

import json
import time
from collections.abc import Sequence
from statistics import median

from bench.report import Row
from bench.world import FAR, NAME, PORT_PLAIN, PORT_TLS, World, look_up, start_devbox

UPDATES = 20


def _update_ms(world: World, policy_id: str, body: dict[str, object]) -> float:
    """Milliseconds the server took to answer one update, i.e. until it was in force (its own access to a clock
    is not trusted: the time is the client's, one kept-alive connection, measured inside the host namespace)."""
    (took,) = timed_posts(world, f"/v1/network-policies/{policy_id}", [body])
    return took


CLIENT = """
import http.client, json, sys, time
port, key, path, bodies, gap_s = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), float(sys.argv[5])
c = http.client.HTTPConnection("127.0.0.1", port)
head = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
c.request("GET", "/healthz"); c.getresponse().read()
out = []
for body in bodies:
    time.sleep(gap_s)
    data = json.dumps(body)
    t = time.perf_counter()
    c.request("POST", path, data, head); r = c.getresponse(); text = r.read()
    out.append((time.perf_counter() - t) * 1e3)
    assert r.status == 200, text
print(json.dumps({"ms": out, "enforced": r.headers.get("x-outgate-enforced"), "started_s": time.monotonic() - out[-1] / 1e3}))
"""


def posts(world: World, path: str, bodies: Sequence[dict[str, object]], *, gap_s: float = 0) -> dict[str, object]:
    """POST each body in turn over one connection; ``ms`` of each, and the enforcement header of the last."""
    arguments = ("8080", world.outgate.key, path, json.dumps(list(bodies)), str(gap_s))
    text = world.host.run("python3", "-c", CLIENT, *arguments)
    answer: dict[str, object] = json.loads(text)
    return answer


def timed_posts(world: World, path: str, bodies: Sequence[dict[str, object]]) -> list[float]:
    times = posts(world, path, bodies)["ms"]
    assert isinstance(times, list)
    return times


def updates(world: World, counts: Sequence[tuple[int, float]]) -> list[Row]:
    """Update of a policy that 1, 100, … running devboxes use: answered, and so in force, within."""
    policy = world.outgate.call(
        "POST", "/v1/network-policies", {"name": "bench-many", "allowed_hostnames": ["a.example"]}
    )
    rows: list[Row] = []
    running: list[str] = []
    for count, owed_ms in counts:
        while len(running) < count:
            running.append(start_devbox(world.outgate, policy["id"]))
        bodies: list[dict[str, object]] = [
            {"allowed_hostnames": [f"h{i}.example"], "allowed_cidrs": [{"cidr": f"45.1.{i}.0/24"}]}
            for i in range(UPDATES)
        ]
        # One update's latency: what it still causes when it is in force (telling programs) is not the next one's.
        answer = posts(world, f"/v1/network-policies/{policy['id']}", bodies, gap_s=0.1)
        if answer["enforced"] != f"{count}/{count}":
            raise RuntimeError(f"enforced on {answer['enforced']}, not on all {count}")
        times = answer["ms"]
        assert isinstance(times, list)
        rows.append(
            Row(
                f"update accepted → in force, {count} devbox{'es' if count > 1 else ''}",
                median(times),
                owed_ms,
                at_least=False,
                unit="ms",
                detail=f"median of {UPDATES} updates, whole HTTP request; slowest {max(times):.1f} ms",
            )
        )
    for devbox_id in running:
        world.outgate.call("POST", f"/v1/devboxes/{devbox_id}/shutdown")
    return rows


def tighten(world: World) -> list[Row]:
    """1,000 open flows, relayed and then kernel: from the update's request to the last flow dead in the box."""
    rows = []
    cases: tuple[tuple[str, int, dict[str, object]], ...] = (
        ("relayed", PORT_TLS, {"allowed_hostnames": ["other.example"]}),
        ("kernel", PORT_PLAIN, {"allowed_cidrs": []}),
    )
    for kind, port, narrow in cases:
        look_up(world.devbox, NAME)
        before = world.outgate.call("GET", f"/v1/network-policies/{world.policy_id}")["egress"]
        holder = world.devbox.start(
            world.load_tool, "hold", FAR, str(port), world.hello, "1000", cpu=0, wait_for="held"
        )
        started = posts(world, f"/v1/network-policies/{world.policy_id}", [narrow])["started_s"]
        assert isinstance(started, float)
        time.sleep(0.5)
        answer, _ = holder.communicate("done\n", timeout=30)
        seen = json.loads(answer.strip().splitlines()[-1])
        if seen["dead"] != 1000:
            raise RuntimeError(f"{seen['dead']} of 1000 {kind} flows died")
        rows.append(
            Row(
                f"tighten: 1,000 open {kind} flows dead",
                (seen["last_dead_s"] - started) * 1e3,
                50,
                at_least=False,
                unit="ms",
                detail="from the update's request to the last reset seen in the box",
            )
        )
        posts(world, f"/v1/network-policies/{world.policy_id}", [{k: before[k] for k in narrow}])
    return rows


STARTER = """
import http.client, json, sys, time
port, key, policy, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
c = http.client.HTTPConnection("127.0.0.1", port)
head = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
def post(path, body):
    c.request("POST", path, json.dumps(body), head); r = c.getresponse(); text = r.read()
    assert r.status == 200, text
    return json.loads(text)
out = []
for _ in range(count):
    t = time.perf_counter()
    box = post("/v1/devboxes", {"launch_parameters": {"network_policy_id": policy}})
    box = post(f"/v1/devboxes/{box['id']}/wait_for_status", {"statuses": ["running", "failure"], "timeout_seconds": 30})
    out.append((time.perf_counter() - t) * 1e3)
    assert box["status"] == "running", box
    post(f"/v1/devboxes/{box['id']}/shutdown", {})
    time.sleep(0.3)  # its end shall not be measured with the next one's start
print(json.dumps(out))
"""


def starts(world: World) -> list[Row]:
    """A devbox from request to running, one after the other, each shut down before the next."""
    text = world.host.run("python3", "-c", STARTER, "8080", world.outgate.key, world.policy_id, "15")
    times = json.loads(text)
    detail = f"median of {len(times)}, POST to wait_for_status answered; slowest {max(times):.0f} ms"
    return [Row("devbox start, whole", median(times), 60, at_least=False, unit="ms", detail=detail)]


def api(world: World) -> list[Row]:
    """Updates of a policy that no devbox uses: latency of one client, and how many a second wrk gets through."""
    policy = world.outgate.call(
        "POST", "/v1/network-policies", {"name": "bench-idle", "allowed_hostnames": ["a.example"]}
    )
    path = f"/v1/network-policies/{policy['id']}"
    times = timed_posts(world, path, [{"allowed_hostnames": [f"h{i}.example", "*.h.example"]} for i in range(300)])
    script = world.folder / "update.lua"
    script.write_text(
        "local n = 0\nrequest = function()\n  n = n + 1\n"
        f"  return wrk.format('POST', '{path}', {{['Authorization'] = 'Bearer {world.outgate.key}', "
        "['Content-Type'] = 'application/json'}, '{\"allowed_hostnames\": [\"h' .. n .. '.example\"]}')\nend\n"
        'done = function(summary)\n  io.write(string.format(\'{"requests": %d, "us": %d, "bad": %d}\\n\', '
        "summary.requests, summary.duration, summary.errors.status))\nend\n"
    )
    text = world.host.run("wrk", "-t1", "-c8", "-d5s", "-s", script, "http://127.0.0.1:8080", cpu=0)
    seen = json.loads(text.strip().splitlines()[-1])
    if seen["bad"]:
        raise RuntimeError(f"{seen['bad']} updates were refused:\n{text}")
    rate = seen["requests"] / seen["us"] * 1e6
    return [
        Row(
            "API: policy update, no devbox, p50",
            median(times),
            3,
            at_least=False,
            unit="ms",
            detail="300 updates, one connection",
        ),
        Row(
            "API: policy updates a second",
            rate,
            1000,
            at_least=True,
            unit="/s",
            detail="wrk on one core, the server on the other",
        ),
    ]
