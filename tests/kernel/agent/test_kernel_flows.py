"""Records of kernel flows, from the devbox's packets to the api, with the kernel, the agent and the far side as they are."""

import asyncio
import subprocess
from collections.abc import Callable

import pytest

from outgate.model.desired import FlowRecord
from support.agent_rig import HOST_ADDRESS, OTHER_ADDRESS, AgentRig, open_agent_rig
from support.agent_world import make_devbox, make_document

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

OUT = 30_000
SIZES = (100, 999, 10)
IPV4, UDP_HEAD = 20, 8
TCP = f"""
import socket
s = socket.create_connection(("{OTHER_ADDRESS}", 7), 10)
s.sendall(bytes({OUT}))
left = {OUT}
while left: left -= len(s.recv(65536))
"""
UDP = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(10)
s.connect(("{OTHER_ADDRESS}", 7))
for size in {SIZES}:
    s.send(bytes(size)); assert len(s.recv(4096)) == size
"""


def in_router(rig: AgentRig, *arguments: str) -> str:
    namespace = f"outgate-{rig.settings.instance_id}"
    command = ("nsenter", f"--net=/run/netns/{namespace}", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def until_told(rig: AgentRig, wanted: Callable[[FlowRecord], bool], *, since: int = 0) -> FlowRecord:
    """The first record, from the ``since``-th on, that is wanted."""
    found: list[FlowRecord] = []

    def is_told() -> bool:
        # Reading the table makes the kernel forget what has had its time; by itself it looks every minute.
        in_router(rig, "conntrack", "-L")
        found[:] = filter(wanted, rig.api.flows[since:])
        return bool(found)

    await rig.until(is_told)
    return found[0]


def begun_by(protocol: str) -> Callable[[FlowRecord], bool]:
    return lambda record: record.protocol == protocol and record.bytes_out is None


def ended(protocol: str) -> Callable[[FlowRecord], bool]:
    return lambda record: record.protocol == protocol and record.bytes_out is not None


def test_kernel_flows_are_told_whatever_ends_them() -> None:
    async def scenario() -> None:
        async with open_agent_rig() as rig:
            rig.start()
            wide = make_document(cidrs=(f"{OTHER_ADDRESS}/32", f"{HOST_ADDRESS}/32"))
            rig.api.put(wide, make_devbox("dbx_a"))
            await rig.until_phase("dbx_a", "running")
            await finished(rig)
            await restarted(rig)
            await revoked(rig)
            await torn_down(rig)

    asyncio.run(scenario())


async def finished(rig: AgentRig) -> None:
    """Bytes are those of the far side's journal, and their headers."""
    done = await rig.run("dbx_a", f"python3 -c '{TCP}' && python3 -c '{UDP}'")
    assert done.exit_status == 0, done
    for protocol in ("tcp", "udp"):
        begun = await until_told(rig, begun_by(protocol))
        assert begun.rule == f"allowed_cidrs[0] {OTHER_ADDRESS}/32"
        assert (begun.devbox_id, begun.verdict, begun.reason, begun.point) == ("dbx_a", "allow", "cidr", "kernel")
        assert (begun.address, begun.port, begun.count) == (OTHER_ADDRESS, 7, 1)
    in_router(rig, "conntrack", "-D", "-d", OTHER_ADDRESS)
    tcp, udp = await until_told(rig, ended("tcp")), await until_told(rig, ended("udp"))
    journal = rig.internet.journal(address=OTHER_ADDRESS)
    (connection,) = journal.connections
    assert connection.bytes_in == connection.bytes_out == OUT
    assert tcp.bytes_out is not None
    assert tcp.bytes_in is not None
    assert OUT < tcp.bytes_out < 2 * OUT
    assert OUT < tcp.bytes_in < 2 * OUT
    received = [datagram.size for datagram in journal.datagrams if datagram.port == 7]
    assert received == list(SIZES)
    assert udp.bytes_out == udp.bytes_in == sum(received) + len(received) * (IPV4 + UDP_HEAD)


HOLD = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 7), 10)
s.sendall(b"x" * 500)
left = 500
while left: left -= len(s.recv(500))
open("/tmp/held", "w").close()
time.sleep(600)
"""


async def hold(rig: AgentRig, address: str) -> None:
    """Have the devbox hold a connection on which 500 bytes went out and in."""
    script = f"rm -f /tmp/held; python3 -c '{HOLD}' {address} & while [ ! -e /tmp/held ]; do sleep 0.05; done"
    assert (await rig.run("dbx_a", script)).exit_status == 0


async def restarted(rig: AgentRig) -> None:
    """A flow that ran before this agent did is told with its true beginning."""
    seen = len(rig.api.flows)
    await hold(rig, OTHER_ADDRESS)
    begun = await until_told(rig, lambda record: record.protocol == "tcp", since=seen)
    assert begun.bytes_out is None
    rig.kill()
    reports = len(rig.api.reports)
    rig.start()
    await rig.until(lambda: len(rig.api.reports) > reports and rig.api.reports[-1].ready)
    in_router(rig, "conntrack", "-D", "-d", OTHER_ADDRESS, "-p", "tcp")
    over = await until_told(rig, ended("tcp"), since=seen)
    assert (over.devbox_id, over.rule, over.count) == ("dbx_a", begun.rule, 1)
    assert over.began_ms is not None
    assert over.duration_ms is not None
    assert over.began_ms <= begun.time_ms, "it began before it was told"
    assert over.bytes_out is not None
    assert over.bytes_out > 500 + IPV4


async def revoked(rig: AgentRig) -> None:
    """A flow whose rule is taken away ends with that said, under the revision that allowed it."""
    seen = len(rig.api.flows)
    await hold(rig, HOST_ADDRESS)
    in_router(rig, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_close=1")
    revision = rig.api.put(make_document(revision=2, cidrs=(f"{OTHER_ADDRESS}/32",)))
    await rig.until_enforced(revision)
    over = await until_told(rig, ended("tcp"), since=seen)
    assert (over.address, over.rule) == (HOST_ADDRESS, f"allowed_cidrs[1] {HOST_ADDRESS}/32")
    assert (over.verdict, over.revision) == ("allow", 1)
    assert over.sentence.endswith("(Ended: the rule that allowed it was taken away.)")


async def torn_down(rig: AgentRig) -> None:
    """What ends with its devbox carries the devbox's id."""
    seen = len(rig.api.flows)
    await hold(rig, OTHER_ADDRESS)
    rig.api.shut_down("dbx_a")
    await rig.until_phase("dbx_a", "shutdown")
    over = await until_told(rig, ended("tcp"), since=seen)
    assert (over.devbox_id, over.address) == ("dbx_a", OTHER_ADDRESS)
