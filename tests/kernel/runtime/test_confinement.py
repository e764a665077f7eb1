"""What nobody in a sandbox can do, root of it included. Asked from inside, with the programs people use."""

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from support.sandbox_lab import Finished, Lab
from support.signals import ignored, signal_set

pytestmark = pytest.mark.kernel

_TRY_SOCKETS = """
import json, socket, sys
for family, kind, protocol in json.loads(sys.argv[1]):
    try:
        socket.socket(family, kind, protocol)
        print("made")
    except OSError as error:
        print(error.errno)
"""
_FULL_CAPABILITIES = """
import ctypes, socket, struct
# All capability bits that this process may still raise: there are none beyond the bounding set.
libc = ctypes.CDLL(None)
header = struct.pack("=Ii", 0x20080522, 0)
libc.capset(header, struct.pack("=6I", *(0xFFFFFFFF,) * 6))
for family, kind in ((2, 3), (10, 3), (17, 3)):
    try:
        socket.socket(family, kind, 255)
        print("made")
    except OSError as error:
        print("refused")
"""


def test_the_sandboxs_user_is_who_it_should_be(shared: Lab) -> None:
    done = shared.execute("id; pwd; echo $HOME $USER; umask")
    assert done.stdout == "uid=1000(user) gid=1000(user) groups=1000(user)\n/home/user\n/home/user user\n0022\n"


def test_root_by_parameter(shared: Lab) -> None:
    done = shared.execute("id; pwd", root=True)
    assert done.stdout == "uid=0(root) gid=0(root) groups=0(root)\n/root\n"


def test_root_inside_is_an_id_of_its_own_outside(shared: Lab) -> None:
    pid = shared.run(shared.runtime.observe())["dbx_1"].pid
    assert pid is not None
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t1879048192\t1879048192\t1879048192\t1879048192\n" in status
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", "1879048192", "65536"]


def test_its_programs_ignore_no_signal_that_the_host_ignores(lab: Lab) -> None:
    with ignored(signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        lab.start()
        first, own = (lab.execute(f"cat /proc/{process}/status").stdout for process in ("1", "self"))
    assert (signal_set(first, "SigIgn"), signal_set(own, "SigIgn")) == (set(), set())


def test_its_network_namespace_is_the_one_given_and_belongs_to_the_host(shared: Lab) -> None:
    pid = shared.run(shared.runtime.observe())["dbx_1"].pid
    inside = Path(f"/proc/{pid}/ns/net").stat()
    assert inside.st_ino == shared.netns.stat().st_ino
    execution = shared.begin("sleep 20")
    pid_file = shared.settings.state_dir / "sandboxes" / "dbx_1" / "exec" / execution / "pid"
    assert Path(f"/proc/{pid_file.read_text()}/ns/net").stat().st_ino == inside.st_ino
    shared.run(shared.runtime.exec_kill("dbx_1", execution))


def test_no_raw_packet_or_foreign_socket_even_for_root(shared: Lab) -> None:
    refused = [
        (2, 3, 255),
        (2, 3, 1),
        (10, 3, 58),
        (10, 3, 255),
        (17, 3, 3),
        (17, 2, 0),
        (40, 1, 0),
        (16, 3, 9),
        (38, 5, 0),
    ]
    command = f"python3 -c '{_TRY_SOCKETS}' '{json.dumps(refused)}'"
    assert set(shared.execute(command, root=True).stdout.split()) == {"1", "97"}


def test_ordinary_sockets_work(shared: Lab) -> None:
    ordinary = [(1, 1, 0), (2, 1, 0), (2, 1, 6), (2, 2, 0), (2, 2, 17), (2, 2, 1), (10, 1, 0), (10, 2, 58), (16, 3, 0)]
    command = f"python3 -c '{_TRY_SOCKETS}' '{json.dumps(ordinary)}'"
    assert shared.execute(command).stdout.split() == ["made"] * len(ordinary)


def test_capabilities_cannot_be_raised_to_a_raw_socket(shared: Lab) -> None:
    done = shared.execute(f"python3 -c '{_FULL_CAPABILITIES}'", root=True)
    assert done.stdout.split() == ["refused"] * 3


def test_full_capabilities_over_the_user_namespace_give_no_raw_socket(shared: Lab) -> None:
    """The second lock alone, without seccomp and bounding set: a process of the host's, put into the user namespace."""
    pid = shared.run(shared.runtime.observe())["dbx_1"].pid
    script = (
        "import socket\n"
        "for family, kind in ((2, 3), (10, 3), (17, 3)):\n"
        "    try: socket.socket(family, kind, 255); print('made')\n"
        "    except PermissionError: print('refused')\n"
    )
    done = subprocess.run(
        ("nsenter", f"--target={pid}", "--user", "--net", "--setuid=0", "--setgid=0", "/usr/bin/python3", "-c", script),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["refused"] * 3


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /mnt",
        "mount --bind /etc /mnt",
        "umount /proc/sys",
        "unshare --user true",
        "unshare --mount true",
        "unshare --net true",
        "nsenter --target=1 --mount true",
        "mknod /tmp/null c 1 3",
        "ip link add dummy0 type dummy",
        "ip route add default dev lo",
        "ip addr add 10.1.1.1/8 dev lo",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
        "echo 1 >/proc/sys/kernel/panic",
        "echo x >/sys/class/net/lo/mtu",
        "hostname other",
        "dmesg",
        "chroot / mount -t proc proc /mnt",
        "cat /proc/1/root/../etc/shadow",
        "cat /etc/shadow",
        "ls /var/lib/dpkg",
        "cat /dev/vda",
        "echo 1 >/sys/fs/cgroup/pids/pids.max",
        "mkdir /sys/fs/cgroup/pids/mine",
        "date --set=2000-01-01",
        "kill -9 1",
    ],
)
def test_root_inside_cannot(shared: Lab, command: str) -> None:
    done = shared.execute(f"type {command.split(maxsplit=1)[0]} && {{ {command}; }} && echo it could", root=True)
    assert " is " in done.stdout
    if command != "kill -9 1":
        # The kernel takes a signal to a namespace's first process from inside, and drops it.
        assert "it could" not in done.stdout
    assert shared.execute("echo alive").stdout == "alive\n"


def test_the_hosts_processes_are_not_there(shared: Lab) -> None:
    with subprocess.Popen(("sleep", "4242.4242")) as outside:
        listing = shared.execute("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'; echo /proc/[0-9]*", root=True).stdout
        outside.kill()
    assert "sleep" in listing
    assert "4242.4242" not in listing
    assert f"/proc/{outside.pid} " not in listing


def test_the_hosts_paths_are_not_there(shared: Lab) -> None:
    listing = set(shared.execute("ls -A / /root /home /etc", root=True).stdout.split())
    assert listing.isdisjoint(
        {"work", "shadow", "gshadow", "ssh", "boot", "lost+found", "machine-id", ".ssh", ".bashrc~"}
    )
    assert shared.execute("ls -A /home").stdout == "user\n"
    assert shared.execute("ls -A /root", root=True).stdout == ""


def test_nothing_on_the_host_is_changed_by_writing_to_its_directories(shared: Lab) -> None:
    assert shared.execute("touch /usr/bin/outgate-mark && rm /usr/bin/cal; ls /usr/bin/outgate-mark", root=True).stdout
    assert not Path("/usr/bin/outgate-mark").exists()
    upper = shared.settings.state_dir / "sandboxes/dbx_1/disk/upper"
    assert (upper / "usr/bin/outgate-mark").stat().st_uid == 0


def test_no_mount_of_a_sandbox_is_on_the_host(shared: Lab) -> None:
    assert str(shared.settings.state_dir) not in Path("/proc/self/mountinfo").read_text()


def test_only_its_own_links_are_in_sysfs(shared: Lab) -> None:
    assert shared.execute("ls /sys/class/net") == Finished(0, "lo\n", "")


def test_own_files_name_what_they_should(shared: Lab) -> None:
    assert shared.execute("cat /etc/resolv.conf /etc/hostname; hostname").stdout == (
        "nameserver 10.9.8.7\ndevbox\ndevbox\n"
    )
    assert (
        shared.execute("echo 10.0.0.9 other >>/etc/hosts && tail -n1 /etc/hosts", root=True).stdout
        == "10.0.0.9 other\n"
    )


def test_no_descriptor_of_the_host_is_open(shared: Lab) -> None:
    # ls itself holds the fourth; 0 to 2 are the null device and the execution's own pipes.
    links = shared.execute("ls -l /proc/self/fd | grep -o -- '-> .*'").stdout.splitlines()
    assert [link.split(":")[0] for link in links[:3]] == ["-> /dev/null", "-> pipe", "-> pipe"]
    assert len(links) == 4
    assert shared.execute("ls /proc/1/fd", root=True).stdout.split() == ["0", "1", "2"]


def test_nothing_of_the_daemons_environment_is_there(shared: Lab) -> None:
    names = {
        line.partition("=")[0]
        for line in shared.execute("cat /proc/[0-9]*/environ | tr '\\0' '\\n'", root=True).stdout.splitlines()
    }
    assert names <= {"", "PATH", "HOME", "USER", "LOGNAME", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}


def test_a_link_in_place_of_the_home_leads_nowhere(shared: Lab) -> None:
    """runc of before 1.1.12 entered a home that is a link to one of its own descriptors (CVE-2024-21626)."""
    shared.execute("mv /home/user /home/kept && ln -s /proc/self/fd/7 /home/user", root=True)
    try:
        assert shared.execute("pwd -P").stdout == "/\n"
    finally:
        shared.execute("rm /home/user && mv /home/kept /home/user", root=True)


def test_the_stock_image_has_what_is_promised(shared: Lab) -> None:
    done = shared.execute(
        "bash --version | head -n1; python3 -c 'import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 50)'"
        "; curl --version >/dev/null && touch /tmp/here && echo curl; sh -c 'echo sh'; stat -c %a /tmp"
    )
    assert done.stdout.splitlines()[1:] == ["True", "curl", "sh", "1777"]


def test_a_server_on_a_low_port_can_be_reached_inside(shared: Lab) -> None:
    server = shared.begin("python3 -m http.server 80 --bind 127.0.0.1")
    done = shared.execute(
        "curl -s --retry 20 --retry-connrefused --retry-delay 1 -o /dev/null -w %{http_code} http://127.0.0.1/"
    )
    shared.run(shared.runtime.exec_kill("dbx_1", server))
    assert done.stdout == "200"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", 80), timeout=1)
