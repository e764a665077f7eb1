"""What the demo shows, step by step, through the official Python client and nothing else."""

import textwrap
import time
from dataclasses import dataclass

import httpx
from runloop_api_client import RunloopSDK
from runloop_api_client.sdk.devbox import Devbox
from runloop_api_client.sdk.execution_result import ExecutionResult
from runloop_api_client.sdk.network_policy import NetworkPolicy

from outgate import clock
from outgate.cli.demo.cast import CA_IN_DEVBOX, Cast
from outgate.cli.demo.journal import Closing
from outgate.cli.demo.narrator import Narrator
from outgate.cli.output import JsonObject

FAST_S = 2.0
"""A denied program must know within this time; without an answer it would wait for minutes."""
LATE_MS_MAX = 100
"""How long after the response a program may take to notice that a flow of its was revoked."""
_FLOWS_SHOWN_MAX = 40
_EXEC_TIMEOUT = 60.0
_RECORD_WAIT_S = 5.0

# Opens a TLS connection, asks for something long, reads until the end, and says how it ended.
_LASTING_PROGRAM = """
import socket, ssl, sys, time
name, path = sys.argv[1:3]
tcp = socket.create_connection((name, 443), 10)
# Without the last argument Python takes a reset in mid-stream for an orderly end.
tls = ssl.create_default_context().wrap_socket(tcp, server_hostname=name, suppress_ragged_eofs=False)
tls.sendall(f"GET {path} HTTP/1.1\\r\\nHost: {name}\\r\\n\\r\\n".encode())
received = 0
open("/tmp/lasting-is-open", "w").close()
try:
    while piece := tls.recv(65536):
        received += len(piece)
    print(f"ended after {received} bytes")
except OSError as error:
    # Python's TLS tells a reset as an end without goodbye; either way it was not the server's own doing.
    why = "broken off" if isinstance(error, ssl.SSLEOFError) else error
    print(f"cut after {received} bytes: {why}")
    print(time.monotonic())
"""


@dataclass(slots=True)
class Story:
    """The demo's steps."""

    cast: Cast
    client: RunloopSDK
    narrator: Narrator

    def tell(self) -> None:
        """All of it. What does not behave is counted by the narrator."""
        policy = self._create_policy()
        devbox = self._start_devbox(policy)
        try:
            self._allowed_and_denied(devbox)
            self._turn_around(policy, devbox)
            self._cut(policy, devbox)
            self._decisions(devbox)
            self._far_side()
        finally:
            self.narrator.step("The devbox is shut down, the policy deleted")
            devbox.shutdown()
            deleted = policy.delete()
            self.narrator.expect("both are gone", holds=deleted is not None)

    def _create_policy(self) -> NetworkPolicy:
        self.narrator.step("A policy is created, through the official Python client")
        names = list(dict.fromkeys((self.cast.allowed, self.cast.lasting)))
        self.narrator.say(f"client.network_policy.create(name='demo', allowed_hostnames={names})")
        policy = self.client.network_policy.create(name="demo", allowed_hostnames=names)
        egress = policy.get_info().egress
        self.narrator.came(f"{policy.id}: {', '.join(egress.allowed_hostnames)}; everything else is denied")
        self.narrator.expect("the server stored exactly this", holds=list(egress.allowed_hostnames) == names)
        return policy

    def _start_devbox(self, policy: NetworkPolicy) -> Devbox:
        self.narrator.step("A devbox starts under it")
        environment, launch_commands = {}, []
        if self.cast.ca_file is not None:
            # The programs in the box must trust the demo's authority; nothing of Outgate does TLS.
            environment = {"CURL_CA_BUNDLE": CA_IN_DEVBOX, "SSL_CERT_FILE": CA_IN_DEVBOX}
            launch_commands = [f"cat > {CA_IN_DEVBOX} <<'PEM'\n{self.cast.ca_file.read_text('ascii')}PEM"]
        began_s = clock.monotonic_s()
        devbox = self.client.devbox.create(
            name="demo",
            environment_variables=environment,
            launch_parameters={"network_policy_id": policy.id, "launch_commands": launch_commands},
        )
        took_ms = (clock.monotonic_s() - began_s) * 1000
        view = devbox.get_info()
        self.narrator.came(f"{devbox.id} is {view.status} after {took_ms:.0f} ms")
        held = view.launch_parameters.network_policy_id == policy.id
        self.narrator.expect("it runs, under that policy", holds=held and view.status == "running")
        return devbox

    def _allowed_and_denied(self, devbox: Devbox) -> None:
        self.narrator.step("What the policy names can be reached, nothing else")
        self._reaches(devbox, self.cast.allowed)
        self._is_denied(devbox, self.cast.other)
        self.narrator.say("and a request that goes to an allowed address but names another host:")
        command = f"curl -sS --connect-to {self.cast.other}:80:{self.cast.allowed}:80 http://{self.cast.other}/"
        result = self._run(devbox, command)
        self.narrator.expect("is answered with the reason", holds=self.cast.other in result.stdout())

    def _turn_around(self, policy: NetworkPolicy, devbox: Devbox) -> None:
        self.narrator.step("The policy is updated while the devbox runs")
        names = list(dict.fromkeys((self.cast.other, self.cast.lasting)))
        if self.cast.lasting == self.cast.allowed:
            names = [self.cast.other]
        took_ms = self._update(policy, names)
        self.narrator.say("the same two requests, in the same devbox:")
        self._is_denied(devbox, self.cast.allowed)
        self._reaches(devbox, self.cast.other)
        self.narrator.expect(f"the verdicts turned around; the update took {took_ms:.1f} ms", holds=True)

    def _cut(self, policy: NetworkPolicy, devbox: Devbox) -> None:
        self.narrator.step("A long download is cut when its host is removed from the policy")
        if self.cast.lasting == self.cast.allowed:
            self._update(policy, [self.cast.lasting])
        path = "/endless" if self.cast.internet is not None else "/"
        program = textwrap.dedent(_LASTING_PROGRAM).strip()
        self._quiet(devbox, f"cat > /tmp/lasting.py <<'PY'\n{program}\nPY")
        self.narrator.ran(f"python3 /tmp/lasting.py {self.cast.lasting} {path} &")
        execution = devbox.cmd.exec_async(f"python3 /tmp/lasting.py {self.cast.lasting} {path}")
        waited = self._quiet(
            devbox, "for i in $(seq 200); do [ -e /tmp/lasting-is-open ] && sleep 1 && exit 0; sleep 0.05; done; exit 1"
        )
        self.narrator.expect("it is under way", holds=waited.exit_code == 0)
        self._update(policy, [])
        updated_s = clock.monotonic_s()
        said, _, cut_s = execution.result().stdout().partition("\n")
        self.narrator.came(said)
        self.narrator.expect("the program noticed at once", holds=said.startswith("cut after"))
        if cut_s.strip():
            # The devbox shares this machine's monotonic clock.
            late_ms = max(0.0, float(cut_s) - updated_s) * 1000
            late = f"{late_ms:.0f} ms after the update's response" if late_ms else "before the update's response came"
            self.narrator.expect(f"the connection ended {late}", holds=late_ms <= LATE_MS_MAX)
        if self.cast.internet is not None:
            lasting = self.cast.internet.journal(host=self.cast.lasting).connections
            ended = bool(lasting) and all(c.closing is not Closing.OPEN for c in lasting)
            self.narrator.expect("the far side saw it end too", holds=ended)

    def _decisions(self, devbox: Devbox) -> None:
        self.narrator.step("Every decision was logged, with the rule that made it")
        flows = self._read_flows(devbox.id)
        for flow in flows[-_FLOWS_SHOWN_MAX:]:
            self.narrator.decided(flow)
        for name, verdict in ((self.cast.allowed, "allow"), (self.cast.other, "deny"), (self.cast.lasting, "allow")):
            named = [flow for flow in flows if flow["hostname"] == name and flow["verdict"] == verdict]
            rule = next((flow["rule"] for flow in named if flow["rule"]), "")
            because = rule or "no rule covers it"
            self.narrator.expect(
                f"{verdict} {name}: {because}", holds=bool(named) and bool(rule) == (verdict == "allow")
            )

    def _far_side(self) -> None:
        if self.cast.internet is None:
            return
        self.narrator.step("What the far side saw")
        connections = self.cast.internet.journal().connections
        for connection in connections:
            name = connection.server_name or (connection.requests[0] if connection.requests else "no name")
            self.narrator.say(f"{connection.address}:{connection.port}  {name}  {connection.closing}")
        strangers = [c for c in connections if c.host == self.cast.other and c.port != 443]
        self.narrator.expect("nothing that was denied", holds=not strangers)

    def _update(self, policy: NetworkPolicy, names: list[str]) -> float:
        self.narrator.say(f"policy.update(allowed_hostnames={names})")
        began_s = clock.monotonic_s()
        policy.update(allowed_hostnames=names)
        took_ms = (clock.monotonic_s() - began_s) * 1000
        self.narrator.came(f"in force on every devbox when the response came, {took_ms:.1f} ms later")
        return took_ms

    def _reaches(self, devbox: Devbox, name: str) -> None:
        result = self._run(devbox, f"curl -sS -o /dev/null -w '%{{http_code}} from %{{remote_ip}}\\n' https://{name}/")
        self.narrator.expect(f"{name} answered", holds=result.exit_code == 0)

    def _is_denied(self, devbox: Devbox, name: str) -> None:
        began_s = clock.monotonic_s()
        result = self._run(devbox, f"curl -sS --max-time 20 https://{name}/")
        took_s = clock.monotonic_s() - began_s
        failed_fast = result.exit_code != 0 and took_s < FAST_S
        self.narrator.expect(f"{name} failed at once ({took_s * 1000:.0f} ms)", holds=failed_fast)
        denials = self._denials_of(devbox, name)
        reason = denials[-1]["sentence"] or denials[-1]["reason"] if denials else "no reason was logged"
        self.narrator.expect(f"because: {reason}", holds=bool(denials))

    def _denials_of(self, devbox: Devbox, name: str) -> list[JsonObject]:
        """Records come in batches, some half a second after the decision: the last may be on its way."""
        deadline_s = clock.monotonic_s() + _RECORD_WAIT_S
        while True:
            flows = self._read_flows(devbox.id)
            found = [flow for flow in flows if flow["hostname"] == name and flow["verdict"] == "deny"]
            if found or clock.monotonic_s() > deadline_s:
                return found
            time.sleep(0.02)

    def _run(self, devbox: Devbox, command: str) -> ExecutionResult:
        self.narrator.ran(command)
        result = self._quiet(devbox, command)
        self.narrator.came(result.stdout() + result.stderr())
        return result

    @staticmethod
    def _quiet(devbox: Devbox, command: str) -> ExecutionResult:
        return devbox.cmd.exec(command, timeout=_EXEC_TIMEOUT)

    def _read_flows(self, devbox_id: str) -> list[JsonObject]:
        """The devbox's decisions so far, oldest first."""
        params = {"devbox_id": devbox_id, "limit": "1000"}
        page = self.client.api.get("/v1/network-flows", cast_to=httpx.Response, options={"params": params}).json()
        return list(reversed(page["network_flows"]))
