"""The whole bundle, compared as a whole: a field too many is as wrong as one too few."""

import json
from pathlib import Path, PurePosixPath

from outgate.runtime.base import ROOT, ExecSpec, SandboxSpec, SandboxUser
from outgate.runtime.bundle import BundlePaths, Document, HostFacts, render_config, render_execution
from outgate.runtime.seccomp import allowed_names, render_seccomp
from outgate.runtime.usermap import IdRange

GOLDEN = Path(__file__).parent / "golden"

SPEC = SandboxSpec(
    devbox_id="dbx_1",
    netns=Path("/run/netns/outgate-abc123-1"),
    nameservers=("10.213.0.1",),
    user=SandboxUser("user", 1000),
    hostname="devbox",
    environment={"GREETING": "hello there", "PATH": "/opt/bin:/bin"},
    cpu_cores=1.5,
    memory_mib=2048,
    pids_max=512,
)
FACTS = HostFacts(
    machine="x86_64", limits=frozenset({"cpu", "memory", "pids"}), swap_limit=True, open_files_max=1_048_576
)
PATHS = BundlePaths(
    rootfs=Path("/run/outgate/abc123/sandbox/rootfs"),
    sys=Path("/run/outgate/abc123/sandbox/sys"),
    resolv_conf=Path("/var/lib/outgate/sandboxes/dbx_1/etc/resolv.conf"),
    hosts=Path("/var/lib/outgate/sandboxes/dbx_1/etc/hosts"),
    hostname=Path("/var/lib/outgate/sandboxes/dbx_1/etc/hostname"),
    cgroup=PurePosixPath("/outgate-abc123/dbx_1"),
)


def assert_golden(document: Document, name: str) -> None:
    assert json.dumps(document, indent=1) + "\n" == (GOLDEN / name).read_text()


def test_config_is_the_golden_one() -> None:
    assert_golden(render_config(SPEC, IdRange(3), PATHS, FACTS), "config.json")


def test_execution_as_the_sandboxs_user_is_the_golden_one() -> None:
    assert_golden(render_execution(SPEC, ExecSpec("e1", "echo hi; exit 3"), FACTS), "execution-user.json")


def test_execution_as_root_is_the_golden_one() -> None:
    assert_golden(render_execution(SPEC, ExecSpec("e1", "id", user=ROOT), FACTS), "execution-root.json")


def test_limits_that_the_host_cannot_enforce_are_left_out() -> None:
    facts = HostFacts(machine="x86_64", limits=frozenset({"memory"}), swap_limit=False, open_files_max=512)
    linux = render_config(SPEC, IdRange(3), PATHS, facts)["linux"]
    assert isinstance(linux, dict)
    assert linux["resources"] == {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": 2048 << 20},
    }


# Each of these opens a way around the sandbox or a large part of the kernel to anybody in it.
FORBIDDEN = set(
    """
    add_key bpf clone clone3 delete_module fanotify_init finit_module fsconfig fsmount fsopen fspick init_module
    io_uring_enter io_uring_register io_uring_setup ioperm iopl kexec_file_load kexec_load keyctl lookup_dcookie mount
    mount_setattr move_mount move_pages name_to_handle_at open_by_handle_at open_tree perf_event_open personality
    pivot_root quotactl reboot request_key setdomainname sethostname setns settimeofday clock_settime clock_adjtime
    adjtimex socket socketpair swapoff swapon syslog umount2 unshare userfaultfd uselib ustat vhangup acct
    """.split()  # noqa: SIM905 - a list of fifty literals reads worse
)


def test_seccomp_allows_none_of_the_forbidden_calls_unconditionally() -> None:
    assert FORBIDDEN.isdisjoint(allowed_names())


def test_seccomp_is_the_same_but_for_the_architecture() -> None:
    x86, arm = render_seccomp("x86_64"), render_seccomp("aarch64")
    assert x86["architectures"] == ["SCMP_ARCH_X86_64"]
    assert {**x86, "architectures": arm["architectures"]} == arm
