"""``doctor --probe``: a devbox, one connection that passes and one that does not, by the API as a user would."""

import contextlib
import secrets
import shlex
import time
from collections.abc import Iterator
from typing import Final

from outgate import clock
from outgate.cli.devbox_states import FINAL, DevboxFailedError, await_status
from outgate.cli.doctor.findings import Finding, Group
from outgate.client.public import JsonObject, OutgateClient
from outgate.client.transport import PeerRefusedError, PeerUnreachableError

PROBE: Final = Group("probe")
DENIED_ADDRESS: Final = "192.0.2.1"
"""TEST-NET-1 (RFC 5737): should the policy not hold, nobody is reached by it."""
_DENIED: Final = f"curl -sS --max-time 20 -o /dev/null http://{DENIED_ADDRESS}/"
_REFUSED: Final = 7  # curl(1): failed to connect
_RECORD_WAIT_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.5


def probe_server(client: OutgateClient, host: str) -> Iterator[Finding]:
    """All steps, and everything that was made removed again, whatever happens."""
    mark = f"doctor-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        try:
            policy = client.create_policy({"name": mark, "allowed_hostnames": [host]})
            stack.callback(_delete_policy, client, str(policy["id"]))
            view = client.create_devbox({"name": mark, "launch_parameters": {"network_policy_id": policy["id"]}})
            stack.callback(_end_devbox, client, str(view["id"]))
            devbox = await_status(client, view, "running", doing="starting")
            yield PROBE.passed("devbox", f"{devbox['id']} started under {mark}")
            yield _try_allowed(client, devbox, host)
            yield _try_denied(client, devbox)
            yield _find_record(client, devbox)
        except (PeerUnreachableError, PeerRefusedError, DevboxFailedError) as error:
            yield PROBE.failed("devbox", error.message, "see the checks above and the server's log")
    yield PROBE.passed("removal", "devbox and policy are removed")


def _try_allowed(client: OutgateClient, devbox: JsonObject, host: str) -> Finding:
    url = shlex.quote(f"https://{host}/")
    ran = client.execute(str(devbox["id"]), f"curl -skS --max-time 20 -o /dev/null -w '%{{http_code}}' {url}")
    if ran.get("exit_status") == 0:
        return PROBE.passed("allowed connection", f"{host} answered with {ran.get('stdout')}")
    return PROBE.failed(
        "allowed connection",
        f"{host} was not reached: {str(ran.get('stderr') or '').strip()}",
        "see resolvers, uplink and forwarding above; or name a host that this one can reach, by --probe-host",
    )


def _try_denied(client: OutgateClient, devbox: JsonObject) -> Finding:
    ran = client.execute(str(devbox["id"]), _DENIED)
    if ran.get("exit_status") == _REFUSED:
        return PROBE.passed("denied connection", f"{DENIED_ADDRESS} was refused at once")
    return PROBE.failed(
        "denied connection",
        f"{DENIED_ADDRESS} was not refused but ended with status {ran.get('exit_status')}: {ran.get('stderr') or ''}",
        "THE POLICY MAY NOT HOLD on this host: stop its devboxes, and report what outgate doctor prints",
    )


def _find_record(client: OutgateClient, devbox: JsonObject) -> Finding:
    """The denial comes to the flow log about half a second later."""
    deadline_s = clock.monotonic_s() + _RECORD_WAIT_S
    while True:
        page = client.list_flows(devbox_id=str(devbox["id"]), verdict="deny", limit="50")
        found = next((flow for flow in page["network_flows"] if flow["address"] == DENIED_ADDRESS), None)
        if found is not None:
            return PROBE.passed("its record", str(found["sentence"]))
        if clock.monotonic_s() > deadline_s:
            return PROBE.warned(
                "its record", "The denial is not in the flow log.", "see the warnings and the server's log"
            )
        time.sleep(_LOOK_EVERY_S)


def _end_devbox(client: OutgateClient, devbox_id: str) -> None:
    with contextlib.suppress(PeerUnreachableError, PeerRefusedError):
        view = client.shutdown_devbox(devbox_id)
        while view["status"] not in FINAL:
            view = client.wait_for_devbox(devbox_id, *FINAL) or view


def _delete_policy(client: OutgateClient, policy_id: str) -> None:
    with contextlib.suppress(PeerUnreachableError, PeerRefusedError):
        client.delete_policy(policy_id)
