"""The bench's topology: four ways from a box to one far server, all through the same host namespace.

    box-plain  — router-plain ─┐
    box-nat    — router-nat   ─┤
    box-nginx  — router-nginx ─┤ host — far
    devbox(es) — Outgate ──────┘

``plain`` only forwards (no table, no conntrack in its router); ``nat`` does so too, but the host masquerades it, as
it must any box with a private address; ``nginx`` is `ssl_preread` behind a
REDIRECT; Outgate is `outgate serve`, started in the host namespace and used through its API.
"""

import contextlib
import hashlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.namespaces import Namespace, join, namespaces, run

NAME = "far.bench.example"
FAR = "45.45.45.10"
PORT_TLS = 443
PORT_PLAIN = 9000
API = "http://127.0.0.1:8080"


def client_hello(name: str) -> bytes:
    """A true ClientHello for ``name``, as OpenSSL writes it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@dataclass(slots=True)
class Outgate:
    """A running `outgate serve` and its API."""

    host: Namespace
    process: subprocess.Popen[str]
    key: str
    state_dir: Path

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One API call, made inside the host namespace."""
        command = ["curl", "-sS", "--fail-with-body", "-X", method, "-H", f"Authorization: Bearer {self.key}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        answer: dict[str, Any] = json.loads(self.host.run(*command, API + path))
        return answer


@dataclass(slots=True)
class World:
    """Everything a row may use. ``devbox`` is the namespace of a devbox whose policy allows NAME and FAR/32."""

    far: Namespace
    host: Namespace
    plain: Namespace
    nat: Namespace
    router_plain: Namespace
    nginx: Namespace
    devbox: Namespace
    outgate: Outgate
    policy_id: str
    devbox_id: str
    hello: Path
    load_tool: Path
    folder: Path


def build_load_tool(folder: Path) -> Path:
    """load.c, compiled into ``folder``."""
    tool = folder / "load"
    run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", tool, Path(__file__).with_name("load.c"))
    return tool


def _wire(made: dict[str, Namespace], prefix: str) -> None:
    """Links, addresses and routes of the plain parts of the topology."""
    host, far = made["host"], made["far"]
    join(host, far, f"{prefix}up", "0")
    far.run("ip", "addr", "add", f"{FAR}/32", "dev", "lo")
    far.run("ip", "route", "add", "default", "via", "10.80.0.1")
    host.run("ip", "route", "add", "default", "via", "10.80.0.2")
    host.sysctl(ipv4__conf__all__forwarding=1)
    for number, kind in ((1, "plain"), (3, "nginx"), (5, "nat")):
        box, router = made[f"box-{kind}"], made[f"router-{kind}"]
        join(router, box, f"{prefix}b{number}", str(number))
        join(host, router, f"{prefix}r{number}", str(number + 1))
        box.run("ip", "route", "add", "default", "via", f"10.80.{number}.1")
        router.run("ip", "route", "add", "default", "via", f"10.80.{number + 1}.1")
        host.run("ip", "route", "add", f"10.80.{number}.0/30", "via", f"10.80.{number + 1}.2")
        router.sysctl(ipv4__conf__all__forwarding=1)


def _masquerade(host: Namespace, network: str) -> None:
    rule = f"table ip bench {{ chain post {{ type nat hook postrouting priority srcnat; ip saddr {network} masquerade; }}; }}"
    run(*host.command("nft", "-f", "-"), text_in=rule)


def many_ports(where: Namespace) -> None:
    """Let ``where`` open thousands of short connections to one far port.

    A client's closed connections keep their ports for a minute. With the kernel's defaults each ``connect`` soon
    spends 8 ms looking for a free one (measured), and a row about connections would measure that.
    """
    where.sysctl(ipv4__tcp_tw_reuse=1)
    where.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=16384 65535")


def _start_far_servers(far: Namespace, hello: Path, folder: Path) -> None:
    """The load servers and an unbound that answers for NAME (and 1,000 names below bench.example)."""
    for port in (PORT_TLS, PORT_PLAIN):
        far.start(far.load_tool, "serve", str(port), hello, cpu=1, wait_for="serving")
    far.start(far.load_tool, "udpsink", "9001", cpu=1, wait_for="serving")
    start_unbound(far, FAR, folder)


def start_unbound(where: Namespace, address: str, folder: Path) -> None:
    """unbound on ``address``:53, answering NAME and n0…n999.bench.example from local data, one thread."""
    data = "".join(f'  local-data: "n{i}.bench.example. 300 IN A 45.45.46.{i % 250 + 1}"\n' for i in range(1000))
    config = folder / f"unbound-{where.name}.conf"
    config.write_text(
        f'server:\n  interface: {address}\n  port: 53\n  do-daemonize: no\n  username: ""\n  chroot: ""\n'
        f'  pidfile: ""\n  use-syslog: no\n  num-threads: 1\n  access-control: 0.0.0.0/0 allow\n  module-config: iterator\n'
        f'  local-zone: "bench.example." static\n  local-data: "{NAME}. 300 IN A {FAR}"\n{data}'
        f'  local-zone: "wild.example." redirect\n  local-data: "wild.example. 300 IN A {FAR}"\n'
        "remote-control:\n  control-enable: no\n"
    )
    where.start("unbound", "-d", "-c", config, cpu=1)
    wait_until(lambda: "53" in where.run("ss", "-Hlun", "sport", "=", "53"), "unbound listens")


def _start_nginx(router: Namespace, folder: Path) -> None:
    """nginx `ssl_preread` on the router, behind a REDIRECT of port 443, as the SNI gateways of the field do it."""
    config = folder / "nginx.conf"
    config.write_text(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n"
        f"pid {folder}/nginx.pid;\nerror_log {folder}/nginx.log error;\ndaemon off;\nworker_processes 1;\n"
        "worker_rlimit_nofile 20000;\nevents { worker_connections 9000; }\n"
        "stream {\n"
        f"  map $ssl_preread_server_name $far {{ {NAME} {FAR}:{PORT_TLS}; }}\n"
        "  server { listen 8443 backlog=16384; ssl_preread on; proxy_buffer_size 256k; tcp_nodelay on; proxy_pass $far; }\n"
        "}\n"
    )
    router.start("nginx", "-c", config, "-e", f"{folder}/nginx.log")
    run(
        *router.command("nft", "-f", "-"),
        text_in="table ip sni { chain pre { type nat hook prerouting priority dstnat; tcp dport 443 redirect to :8443; }; }\n",
    )
    wait_until(lambda: "8443" in router.run("ss", "-Hltn", "sport", "=", "8443"), "nginx listens")


def wait_until(condition: Any, what: str, *, seconds: float = 20) -> None:
    """Poll ``condition`` until it is true; RuntimeError naming ``what`` after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {seconds:g} s in vain until {what}")
        time.sleep(0.05)


def _start_outgate(host: Namespace, folder: Path) -> Outgate:
    state = folder / "state"
    environment = os.environ | {
        "OUTGATE_UPSTREAM_DNS": FAR,
        "OUTGATE_DEFAULT_POLICY": "deny_all",
        "OUTGATE_FLOWS_PER_DEVBOX": "16384",  # one devbox holds the 5,000 idle flows
    }
    log = (folder / "serve.log").open("w")
    process = subprocess.Popen(
        host.command(sys.executable, "-m", "outgate.cli.main", "serve", "--ephemeral", "--state-dir", str(state)),
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("outgate ready"):
            break
    else:
        raise RuntimeError(f"outgate serve ended; see {log.name}: {Path(log.name).read_text()[-2000:]}")
    return Outgate(host, process, (state / "api-key").read_text().strip(), state)


def start_devbox(outgate: Outgate, policy_id: str) -> str:
    """The id of a running devbox under ``policy_id``."""
    box = outgate.call("POST", "/v1/devboxes", {"launch_parameters": {"network_policy_id": policy_id}})
    wait_until(lambda: outgate.call("GET", f"/v1/devboxes/{box['id']}")["status"] == "running", "the devbox runs")
    return str(box["id"])


LOOK_UP = """
import socket, struct, sys
labels = b"".join(bytes([len(l)]) + l.encode() for l in sys.argv[2].split(".")) + b"\\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">HH", 1, 1), (sys.argv[1], 53))
answer = s.recv(4096)
assert answer[3] & 15 == 0 and answer[7], answer
"""


def gateway_of(devbox: Namespace) -> str:
    """The address of the DNS gate, which is the devbox's default gateway."""
    return devbox.run("ip", "-4", "route", "show", "default").split()[2]


def look_up(devbox: Namespace, name: str) -> None:
    """What any program in the box does first, and what teaches the gate the address."""
    devbox.run("python3", "-c", LOOK_UP, gateway_of(devbox), name)


def devbox_namespaces(outgate: Outgate) -> set[str]:
    """Names of the network namespaces that belong to devboxes of this instance."""
    names = {line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()}
    instance = instance_id(outgate.state_dir)
    return {name for name in names if name.startswith(f"outgate-{instance}-")}


def instance_id(state_dir: Path) -> str:
    """As the server computes it: how its namespaces and links are named."""
    return hashlib.sha256(os.path.realpath(state_dir).encode()).hexdigest()[:6]


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Build it all, and take all of it away again."""
    prefix = f"bn{os.getpid() % 10000}"
    hello = folder / "hello.bin"
    hello.write_bytes(client_hello(NAME))
    tool = build_load_tool(folder)
    with ExitStack() as stack:
        names = ("far", "host", "router-plain", "box-plain", "router-nginx", "box-nginx", "router-nat", "box-nat")
        made = stack.enter_context(namespaces(prefix, names, tool))
        _wire(made, prefix)
        _masquerade(made["host"], "10.80.5.0/30")
        _start_far_servers(made["far"], hello, folder)
        _start_nginx(made["router-nginx"], folder)
        outgate = _start_outgate(made["host"], folder)
        stack.callback(_stop, outgate)
        policy = outgate.call(
            "POST",
            "/v1/network-policies",
            {
                "name": "bench",
                "allowed_hostnames": [NAME, "*.bench.example"],
                "allowed_cidrs": [{"cidr": f"{FAR}/32", "ports": [{"port": 9000, "end_port": 9100}]}],
            },
        )
        devbox_id = start_devbox(outgate, policy["id"])
        (devbox_name,) = devbox_namespaces(outgate)
        devbox = Namespace(devbox_name, tool)
        for where in (made["box-plain"], made["box-nat"], made["box-nginx"], made["router-nginx"], devbox):
            many_ports(where)  # Outgate's router has this by itself
        yield World(
            far=made["far"],
            host=made["host"],
            plain=made["box-plain"],
            router_plain=made["router-plain"],
            nat=made["box-nat"],
            nginx=made["box-nginx"],
            devbox=devbox,
            outgate=outgate,
            policy_id=policy["id"],
            devbox_id=devbox_id,
            hello=hello,
            load_tool=tool,
            folder=folder,
        )


def _stop(outgate: Outgate) -> None:
    outgate.process.terminate()
    outgate.process.wait(30)
