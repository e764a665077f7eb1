"""/proc, /sys, control groups, devices and mounts as root in a devbox sees them."""

from pathlib import Path

import pytest

from kernel.boundary.conftest import run_program
from support.sandbox_lab import Lab

pytestmark = pytest.mark.kernel

NODES = (
    ("memory", "c", 1, 1),
    ("kernel memory", "c", 1, 2),
    ("ports", "c", 1, 4),
    ("kernel log", "c", 1, 11),
    ("console", "c", 5, 1),
    ("virtual terminal", "c", 4, 0),
    ("tun", "c", 10, 200),
    ("fuse", "c", 10, 229),
    ("kvm", "c", 10, 232),
    ("loop control", "c", 10, 237),
    ("vhost-vsock", "c", 10, 241),
    ("vhost-net", "c", 10, 238),
    ("uinput", "c", 10, 223),
    ("userfaultfd", "c", 10, 126),
    ("disk of a virtual machine", "b", 254, 0),
    ("disk", "b", 8, 0),
    ("loop", "b", 7, 0),
    ("device mapper", "b", 253, 0),
    ("memory disk", "b", 1, 0),
    ("null", "c", 1, 3),
)
SECRET = (
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/cmdline",
    "/proc/timer_list",
    "/proc/interrupts",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/vmallocinfo",
    "/proc/slabinfo",
    "/proc/sched_debug",
    "/proc/sys/kernel/cad_pid",
    "/proc/sys/vm/mmap_rnd_bits",
    "/sys/firmware/acpi/tables/DSDT",
    "/sys/firmware/dmi/tables/DMI",
    "/sys/kernel/debug/sched/debug",
    "/sys/kernel/tracing/trace",
    "/sys/kernel/security/lsm",
)


@pytest.mark.parametrize("is_root", [True, False], ids=["root", "user"])
def test_nothing_of_the_kernel_can_be_written_to(lab: Lab, is_root: bool) -> None:
    """sysrq, core_pattern, modprobe, sysctls, release_agent, cgroup.procs, uevent_helper: none opens for writing."""
    found = run_program(lab, "files.py", ["/proc", "/sys"], root=is_root)
    assert found["seen"] > 2000
    assert found["writable"] == []
    # Version 1's hierarchies hang in a memory file system of the sandbox's own.
    assert found["made"] in ([], ["/sys/fs/cgroup"])
    own = run_program(lab, "files.py", ["/tmp", "/dev/shm"], root=is_root)
    assert own["made"] == ["/tmp", "/dev/shm"], "the control: the same program finds what is the sandbox's own"


def test_no_control_group_but_the_own_one_is_in_sight(lab: Lab) -> None:
    """Nor the agent that a host starts as root when a group is left by all (CVE-2022-0492)."""
    done = lab.execute(
        "cat /proc/[0-9]*/cgroup | cut -d: -f3 | sort -u; find /sys/fs/cgroup -name release_agent; "
        "find /sys/fs/cgroup -mindepth 2 -type d",
        root=True,
    )
    assert done.stdout == "/\n"


def test_there_are_no_devices_but_the_seven_of_every_container(lab: Lab) -> None:
    found = run_program(lab, "devices.py", NODES, root=True)
    assert found["there"] == [f"/dev/{name}" for name in ("full", "pts/ptmx", "random", "tty", "urandom", "zero")]
    assert found["made"] == []
    assert found["fifo"]


@pytest.mark.parametrize("path", [path for path in SECRET if Path(path).exists()])
def test_what_tells_of_the_host_is_empty_or_closed(lab: Lab, path: str) -> None:
    done = lab.execute(f"head -c 64 {path}", root=True)
    assert done.stdout == ""


def test_addresses_of_the_kernel_are_not_told(lab: Lab) -> None:
    done = lab.execute("cut -d' ' -f1 /proc/kallsyms /proc/modules 2>/dev/null | grep -c '[1-9a-f]'", root=True)
    assert done.stdout == "0\n"


def test_no_path_of_the_host_is_told(lab: Lab) -> None:
    """/proc/PID/mountinfo names the place of a bound file in its own file system (as in Docker, to this day)."""
    told = lab.execute(
        "cat /proc/self/mountinfo /proc/1/mountinfo /proc/self/mounts /proc/self/mountstats /proc/[0-9]*/cmdline "
        "/proc/[0-9]*/environ /proc/1/cgroup | tr '\\0' '\\n'",
        root=True,
    ).stdout
    assert " /etc/resolv.conf " in told
    for part in (
        lab.settings.state_dir.name,
        lab.settings.state_dir.parent.name,
        lab.settings.run_dir.name,
        "sandboxes",
    ):
        assert part not in told


def test_its_own_files_in_etc_cannot_fill_the_hosts_disk(lab: Lab) -> None:
    done = lab.execute("cp /etc/hosts /tmp/hosts; cat /dev/zero >>/etc/hosts; stat -c %s /etc/hosts", root=True)
    lab.execute("cat /tmp/hosts >/etc/hosts", root=True)
    assert "No space left" in done.stderr
    assert int(done.stdout) <= 1 << 20
