"""Where the SSH server listens, and what keys are told of it."""

import socket
from pathlib import Path

import pytest

from outgate.errors import SettingError
from outgate.server.api_process import find_ssh_host
from outgate.server.sockets import bind_ssh
from outgate.settings import Settings, SocketAddress, SshListen, load_settings


def settings(tmp_path: Path, **given: object) -> Settings:
    return load_settings(state_dir=tmp_path, listen="127.0.0.1:8080", **given)


def test_off_is_off(tmp_path: Path) -> None:
    assert bind_ssh(settings(tmp_path, ssh_listen="off")) is None
    assert find_ssh_host(settings(tmp_path, ssh_listen="off", ssh_host="ssh.example.com"), None) is None


def test_auto_is_any_free_port_of_the_apis_address(tmp_path: Path) -> None:
    given = settings(tmp_path)
    assert given.ssh_listen is SshListen.AUTO
    first, second = bind_ssh(given), bind_ssh(given)
    assert first is not None
    assert second is not None
    with first, second:
        assert first.getsockname()[0] == second.getsockname()[0] == "127.0.0.1"
        assert first.getsockname()[1] != second.getsockname()[1]
        assert find_ssh_host(given, second) == f"127.0.0.1:{second.getsockname()[1]}"


def test_an_address_that_is_taken_is_refused_by_name(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingError, match=f"OUTGATE_SSH_LISTEN is {address}"):
            bind_ssh(settings(tmp_path, ssh_listen=address))


def test_what_keys_are_told(tmp_path: Path) -> None:
    everywhere = settings(tmp_path, ssh_listen="0.0.0.0:2299")
    assert everywhere.ssh_listen == SocketAddress("0.0.0.0", 2299)
    with socket.create_server(("0.0.0.0", 0)) as bound:
        port = bound.getsockname()[1]
        assert find_ssh_host(everywhere, bound) == f"127.0.0.1:{port}"
        named = settings(tmp_path, tunnel_domain="tunnel.example.com")
        assert find_ssh_host(named, bound) == "ssh.example.com"
        told = settings(tmp_path, tunnel_domain="tunnel.example.com", ssh_host="jump.example.com:22")
        assert find_ssh_host(told, bound) == "jump.example.com:22"


@pytest.mark.parametrize("bad", ["yes", "2222", "127.0.0.1", "host:22", "127.0.0.1:0", "127.0.0.1:70000"])
def test_nonsense_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(SettingError, match="OUTGATE_SSH_LISTEN"):
        settings(tmp_path, ssh_listen=bad)
