"""The SSH server, by the system's own ssh, scp, sftp and rsync, with programs of this machine behind it."""

import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from support.local_terminals import LocalRuntime
from support.ssh_client import run_ssh, ssh_options
from support.terminal_world import TerminalWorld

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="openssh-client is not installed")


def test_a_command_with_its_streams_and_its_status(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    done = run_ssh(key, "cat; echo to-stderr >&2; exit 7", stdin=b"typed\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"typed\n", b"to-stderr\n")


def test_a_shell_without_a_terminal(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    done = run_ssh(key, options=["-T"], stdin=b"echo one; echo $((1+1)); exit 3\n")
    assert (done.returncode, done.stdout) == (3, b"one\n2\n")


def test_a_shell_on_a_terminal(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    done = run_ssh(key, options=["-tt"], stdin=b"tty; exit 4\n")
    assert done.returncode == 4
    assert b"/dev/pts/" in done.stdout


def test_large_binary_output_and_input_arrive_whole(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    payload = os.urandom(5_000_000)
    done = run_ssh(key, "cat", stdin=payload)
    assert done.returncode == 0
    assert done.stdout == payload


def test_a_program_that_does_not_read_makes_the_client_wait(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    payload = os.urandom(8_000_000)
    done = run_ssh(key, "sleep 1; sha256sum", stdin=payload)
    assert done.stdout.split()[0].decode() == __import__("hashlib").sha256(payload).hexdigest()


def test_a_program_killed_by_a_signal_tells_so(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    assert run_ssh(key, "kill -TERM $$").returncode == 143


def test_environment_and_terminal_type_go_along(world: TerminalWorld, runtime: LocalRuntime) -> None:
    key = world.ssh_key(world.devbox())
    done = run_ssh(key, 'echo "$LC_MINE"', options=["-oSetEnv=LC_MINE=along"])
    assert done.stdout == b"along\n"
    env = {**os.environ, "TERM": "vt220"}
    words = ["ssh", *ssh_options(key), "-tt", "-p", str(key.port), f"{key.username}@{key.host}", "echo $TERM"]
    done = subprocess.run(words, capture_output=True, timeout=20, check=False, env=env, stdin=subprocess.DEVNULL)
    assert done.stdout == b"vt220\r\n"
    assert runtime.specs[-1].size is not None


def test_the_end_of_the_client_hangs_the_command_up(world: TerminalWorld, runtime: LocalRuntime) -> None:
    key = world.ssh_key(world.devbox())
    words = ["ssh", *ssh_options(key), "-p", str(key.port), f"{key.username}@{key.host}", "echo up; exec sleep 1000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        client.kill()
    (process,) = runtime.running.values()
    assert process.wait(10) != 0


def test_a_background_process_does_not_hold_the_command_up(world: TerminalWorld, runtime: LocalRuntime) -> None:
    key = world.ssh_key(world.devbox())
    done = run_ssh(key, "sleep 1000 & echo done", timeout_s=10)
    assert (done.returncode, done.stdout) == (0, b"done\n")


def test_scp_copies_both_ways(world: TerminalWorld, runtime: LocalRuntime, tmp_path: Path) -> None:
    key = world.ssh_key(world.devbox())
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "big file").write_bytes(os.urandom(1_000_000))
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    place = f"{key.username}@{key.host}"
    scp = ["scp", *ssh_options(key), "-P", str(key.port), "-q", "-r", "-p"]
    subprocess.run([*scp, str(tree), f"{place}:there"], check=True, timeout=30)
    there = runtime.home / "there"
    assert (there / "inner" / "big file").read_bytes() == (tree / "inner" / "big file").read_bytes()
    assert (there / "run.sh").stat().st_mode & 0o777 == 0o755
    assert int((there / "run.sh").stat().st_mtime) == int((tree / "run.sh").stat().st_mtime)
    subprocess.run([*scp, f"{place}:there", str(tmp_path / "back")], check=True, timeout=30)
    assert (tmp_path / "back" / "inner" / "big file").read_bytes() == (tree / "inner" / "big file").read_bytes()
    missing = subprocess.run([*scp, f"{place}:none", str(tmp_path)], check=False, timeout=30, capture_output=True)
    assert missing.returncode == 1
    assert b"No such file" in missing.stderr


def test_sftp_session(world: TerminalWorld, runtime: LocalRuntime, tmp_path: Path) -> None:
    key = world.ssh_key(world.devbox())
    (tmp_path / "one").write_text("first")
    script = f"""
        pwd
        mkdir sub
        put {tmp_path}/one sub/one
        chmod 600 sub/one
        ln -s one sub/link
        rename sub/one sub/two
        ls -l sub
        get sub/two {tmp_path}/two
        rm sub/link
        rm sub/two
        rmdir sub
    """
    words = ["sftp", *ssh_options(key), "-P", str(key.port), "-b", "-", f"{key.username}@{key.host}"]
    done = subprocess.run(words, input=script.encode(), capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert str(runtime.home).encode() in done.stdout
    assert b"-rw-------" in done.stdout
    assert (tmp_path / "two").read_text() == "first"
    assert not (runtime.home / "sub").exists()


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
def test_rsync_where_the_image_has_it(world: TerminalWorld, runtime: LocalRuntime, tmp_path: Path) -> None:
    key = world.ssh_key(world.devbox())
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a").write_bytes(os.urandom(300_000))
    shell = " ".join(["ssh", *ssh_options(key), "-p", str(key.port)])
    place = f"{key.username}@{key.host}:copy"
    subprocess.run(["rsync", "-a", "-e", shell, f"{tmp_path}/src/", place], check=True, timeout=30)
    assert (runtime.home / "copy" / "a").read_bytes() == (tmp_path / "src" / "a").read_bytes()


def test_a_port_is_forwarded_to_the_devboxs_own_loopback(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    with socket.create_server(("127.0.0.1", 0)) as service:
        port = service.getsockname()[1]

        def answer() -> None:
            peer, _ = service.accept()
            with peer:
                data = b""
                while more := peer.recv(65536):
                    data += more
                peer.sendall(b"got %d" % len(data))

        threading.Thread(target=answer, daemon=True).start()
        done = run_ssh(key, options=["-W", f"localhost:{port}"], stdin=b"x" * 3_000_000)
        assert done.stdout == b"got 3000000"
        assert [request.port for request in world.dials.asked] == [port]


@pytest.mark.parametrize("target", ["192.0.2.1:80", "example.com:443", "169.254.169.254:80", "[2001:db8::1]:80"])
def test_no_other_destination_is_forwarded_to(world: TerminalWorld, target: str) -> None:
    key = world.ssh_key(world.devbox())
    done = run_ssh(key, options=["-v", "-W", target, "-oLogLevel=DEBUG1"])
    assert done.returncode != 0
    assert b"Only the devbox's own ports" in done.stderr
    assert world.dials.asked == []


def test_a_port_where_nobody_listens(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    done = run_ssh(key, options=["-v", "-W", f"127.0.0.1:{port}", "-oLogLevel=DEBUG1"])
    assert done.returncode != 0
    assert b"refused" in done.stderr


def test_listening_outside_for_the_devbox_is_refused(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    options = ["-oExitOnForwardFailure=yes", "-R", "0:localhost:1", "-oLogLevel=INFO"]
    done = run_ssh(key, "echo reached", options=options)
    assert done.returncode == 255
    assert b"remote port forwarding failed" in done.stderr
    said = run_ssh(key, "true", options=["-v", "-R", "0:localhost:1", "-oLogLevel=DEBUG1"])
    assert b"does not forward ports of yours" in said.stderr


def test_agent_and_x11_forwarding_are_refused(world: TerminalWorld) -> None:
    key = world.ssh_key(world.devbox())
    done = run_ssh(key, 'echo "[$SSH_AUTH_SOCK$DISPLAY]"', options=["-A", "-oForwardX11=yes"])
    assert done.stdout == b"[]\n"
