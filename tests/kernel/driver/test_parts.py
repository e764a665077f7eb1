"""The parts on their own: namespaces, transactions, sockets, the probe."""

import contextlib
import errno
import os
import resource
import secrets
import socket
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from outgate.dataplane import netns
from outgate.dataplane.netlink import NetlinkError
from outgate.dataplane.nfnetlink import Element, IfPresent, Nfnetlink, add_elements, delete_elements, mark
from outgate.dataplane.nft import Nft, NftError
from outgate.dataplane.probe import Check, probe_host, require_capable_host
from outgate.dataplane.sock_diag import SockDiag
from outgate.dataplane.sysctl import SysctlError, ensure_sysctls, observe_differing, read_sysctl, write_sysctl
from outgate.errors import HostNotCapableError

pytestmark = pytest.mark.kernel

TABLE = "table inet t { set live { type mark; }; set short { type mark; size 1; }; }"


def own_identity() -> tuple[int, int]:
    descriptor = netns.open_own_namespace()
    try:
        return netns.namespace_identity(descriptor)
    finally:
        os.close(descriptor)


def held_namespaces() -> list[str]:
    """The namespaces that this process keeps alive by a descriptor. Those with a name are every test's."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that reads the directory
            links.append(str(descriptor.readlink()))
    return sorted(link for link in links if link.startswith("net:"))


def test_a_namespace_is_made_entered_left_and_removed() -> None:
    name, home = f"ogt{secrets.token_hex(4)}", own_identity()
    assert not netns.has_namespace(name)
    with netns.created(name):
        made = own_identity()
    try:
        assert netns.has_namespace(name)
        assert name in netns.list_namespaces("ogt")
        assert (own_identity(), netns.namespace_identity(name)) == (home, made)
        with netns.entered(name):
            assert own_identity() == made
        with pytest.raises(RuntimeError, match="inside"), netns.entered(name):
            raise RuntimeError("inside")
        assert own_identity() == home
        with pytest.raises(netns.NamespaceError, match="exists"), netns.created(name):
            pass
        assert netns.has_namespace(name)
    finally:
        netns.remove_namespace(name)
    netns.remove_namespace(name)
    assert name not in netns.list_namespaces("ogt")
    for action in (netns.open_namespace, netns.namespace_identity):
        with pytest.raises(netns.NamespaceError):
            action(name)


def test_a_namespace_whose_making_fails_is_gone_and_a_left_over_file_is_no_obstacle() -> None:
    name, home = f"ogt{secrets.token_hex(4)}", own_identity()
    with pytest.raises(RuntimeError, match="half way"), netns.created(name):
        raise RuntimeError("half way")
    assert own_identity() == home
    assert name not in netns.list_namespaces("ogt")
    netns.namespace_path(name).touch()
    try:
        with netns.created(name):
            pass
        assert netns.has_namespace(name)
    finally:
        netns.remove_namespace(name)


def test_a_refused_transaction_leaves_nothing_and_says_which_message_is_to_blame() -> None:
    with netns.entered_fresh(), Nft() as nft, Nfnetlink() as netfilter:
        nft.run(TABLE)
        good = add_elements("t", "live", [Element(mark(1))])
        for bad, index, number in (
            (delete_elements("t", "live", [Element(mark(9))]), 1, errno.ENOENT),
            (add_elements("t", "missing", [Element(mark(9))]), 1, errno.ENOENT),
            (add_elements("t", "live", [Element(b"12345")]), 1, errno.EINVAL),
        ):
            with pytest.raises(NetlinkError) as caught:
                netfilter.batch([*good, *bad, *good])
            assert (caught.value.errno, caught.value.index) == (number, index)
            assert netfilter.dump_elements("t", "live") == []
        netfilter.batch(good)
        with pytest.raises(NetlinkError) as caught:
            netfilter.batch(add_elements("t", "live", [Element(mark(1))], IfPresent.REFUSE))
        assert caught.value.errno == errno.EEXIST
        netfilter.batch([])
        with pytest.raises(NetlinkError) as caught:
            netfilter.dump_elements("t", "missing")
        assert caught.value.errno == errno.ENOENT


def test_without_privilege_a_transaction_is_an_error_and_no_hang() -> None:
    with netns.entered_fresh(), Nfnetlink() as netfilter:
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            try:
                netfilter.batch(add_elements("t", "live", [Element(mark(1))]))
            except NetlinkError as error:
                os._exit(error.errno if error.index is None else 255)
            os._exit(254)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == errno.EPERM


def test_nft_says_what_it_did_not_like() -> None:
    with netns.entered_fresh(), Nft() as nft:
        nft.run(TABLE)
        assert "set live" in nft.run("list table inet t")
        with pytest.raises(NftError, match="rule inet t nowhere"):
            nft.run("add rule inet t nowhere accept")
        nft.close()
        with pytest.raises(NftError, match="closed"):
            nft.run("list ruleset")


def test_nft_refuses_to_be_made_where_it_would_end_the_process() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2048), before[1]))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        while (number := os.open(os.devnull, os.O_RDONLY)) < 1024:
            stack.callback(os.close, number)
        stack.callback(os.close, number)
        with pytest.raises(NftError, match="files are open"):
            Nft()


def test_sysctls_belong_to_the_namespace_and_missing_ones_are_left_out() -> None:
    with netns.entered_fresh():
        write_sysctl("ipv4/ip_forward", "1")
        assert read_sysctl("ipv4/ip_forward") == "1"
        wanted = {"ipv4/ip_forward": "0", "ipv4/no_such_setting": "1", "ipv4/ping_group_range": "0 100"}
        assert observe_differing(wanted) == ("ipv4/ip_forward", "ipv4/ping_group_range")
        ensure_sysctls(wanted)
        assert observe_differing(wanted) == ()
        assert read_sysctl("ipv4/no_such_setting") is None
        with pytest.raises(SysctlError, match="ip_forward"):
            write_sysctl("ipv4/ip_forward", "maybe")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_socket_is_destroyed_by_its_ends(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with netns.entered_fresh(), SockDiag() as sockets:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        with (
            socket.create_server((address, 0), family=family) as server,
            socket.create_connection(server.getsockname()[:2]) as client,
        ):
            accepted, _ = server.accept()
            own, peer = client.getsockname(), client.getpeername()
            ends = (ip_address(own[0]), own[1], ip_address(peer[0]), peer[1])
            nobody = [(ends[0], port, ends[2], ends[3]) for port in range(1, 601)]
            assert sockets.destroy_tcp([*nobody[:300], ends, *nobody[300:]]) == 1
            with pytest.raises(ConnectionAbortedError):
                client.recv(1)
            with accepted, pytest.raises(ConnectionResetError):
                accepted.recv(1)
            assert sockets.destroy_tcp([ends]) == 0
            assert sockets.destroy_tcp([]) == 0


def test_this_machine_can_do_what_is_needed() -> None:
    home, held = own_identity(), held_namespaces()
    checks = probe_host()
    require_capable_host(checks)
    assert {check.name for check in checks} >= {"nft tproxy", "conntrack netlink", "overlay", "cgroup controller pids"}
    assert all(check.why.endswith(".") and check.how for check in checks)
    assert (own_identity(), held_namespaces()) == (home, held)


def test_a_machine_that_cannot_is_told_why() -> None:
    lacking = Check("nft tproxy", ok=False, needed=True, why="W.", how="H", detail="ENOENT")
    optional = Check("IPv6", ok=False, needed=False, why="W.", how="H")
    with pytest.raises(HostNotCapableError, match=r"nft tproxy: no \(ENOENT\). W. Get it by H.") as caught:
        require_capable_host([lacking, optional])
    assert "IPv6" not in caught.value.message
