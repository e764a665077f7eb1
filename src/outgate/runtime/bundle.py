"""The OCI bundle of a sandbox, rendered by pure functions: what is asked for in, the whole document out.

Who may do what in a sandbox is decided here and in :mod:`outgate.runtime.seccomp`, nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from outgate.runtime.base import ROOT, ExecSpec, SandboxSpec, SandboxUser, TerminalSpec
from outgate.runtime.seccomp import render_seccomp
from outgate.runtime.shell_script import EXECUTION_SCRIPT, render_lasting_shell
from outgate.runtime.usermap import IDS_PER_SANDBOX, IdRange

Document = dict[str, object]

READY_DESCRIPTOR: Final = 3
"""Where the first process says that the sandbox is prepared."""
STATUS_DESCRIPTOR: Final = 3
"""Where an execution's shell leaves the command's exit status."""

CAPABILITIES: Final = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What root in a sandbox may do, inside its own user namespace. Package managers need these.

No NET_RAW, NET_ADMIN or SYS_ADMIN; and since the network namespace belongs to the host's user
namespace, even having them here would not give a raw socket or a route.
"""

BUILDER_CAPABILITIES: Final = (*CAPABILITIES, "CAP_SYS_ADMIN")
"""The same for buildah, which mounts the file systems that it builds, in the sandbox's own user namespace."""

MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/cmdline",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/dmi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/module",
)
READONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/pressure", "/proc/sys", "/proc/sysrq-trigger")

_CPU_PERIOD_US: Final = 100_000
_SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXECUTION_OOM_SCORE: Final = 500
"""Added to the kernel's score of executions, so that they are killed for want of memory before PID 1 is.

Only ever raised: lowering needs CAP_SYS_RESOURCE, which hosts in virtual machines often lack."""

# The first process: enters the user where the image does not have it, says that it is ready, then waits for
# ever. wait also collects the processes that others leave behind, which is a PID 1's duty. Only sh is needed,
# and mkdir, chown and chmod where the image lacks a home or a /tmp.
_INIT_SCRIPT: Final = """\
trap 'exit 0' TERM
umask 022
listed() { while IFS=: read -r entry _; do [ "$entry" = "$1" ] && return 0; done <"$2"; return 1; } 2>/dev/null
listed "$1" /etc/group || echo "$1:x:$2:" >>/etc/group
listed "$1" /etc/passwd || echo "$1:x:$2:$2::$3:/bin/sh" >>/etc/passwd
[ -d "$3" ] || { mkdir -p "$3" && chown "$2:$2" "$3"; } || exit 1
[ -k /tmp ] || { mkdir -p /tmp && chmod 1777 /tmp; } || exit 1
echo ready >&3
exec 3>&- >/dev/null 2>&1
while :; do sleep 2147483647 & wait; done
"""

# As an execution's script, for a program with somebody at its streams. An interactive shell has a group of its own, so
# what is typed interrupts the command and not this shell. Signals that arrive from outside leave this shell out.
_TERMINAL_SCRIPT: Final = """\
trap : HUP INT QUIT TERM
echo "$3" 2>/dev/null >/proc/self/oom_score_adj
cd -- "$2" 2>/dev/null || cd /
if [ -x /bin/bash ]; then SHELL=/bin/bash; else SHELL=/bin/sh; fi
export SHELL
if [ "$4" = login ]; then "$SHELL" -l 3>&-; else "$SHELL" -l -c "$1" 3>&-; fi
echo $? >&3
"""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What a bundle must know of the host. ``limits``: controllers that work (``cpu``, ``memory``, ``pids``).

    ``swap_limit``: memory and swap can be limited together. ``open_files_max``: the daemon's own hard limit,
    which a host without CAP_SYS_RESOURCE cannot exceed.
    """

    machine: str
    limits: frozenset[str]
    swap_limit: bool
    open_files_max: int


@dataclass(frozen=True, slots=True)
class BundlePaths:
    """Where the parts of one sandbox lie on the host. ``sys`` is a sysfs mounted for its network namespace."""

    rootfs: Path
    sys: Path
    resolv_conf: Path
    hosts: Path
    hostname: Path
    cgroup: PurePosixPath


def render_config(spec: SandboxSpec, ids: IdRange, paths: BundlePaths, facts: HostFacts) -> Document:
    """The whole ``config.json`` of ``spec`` (OCI runtime specification 1.0)."""
    return {
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": {"path": str(paths.rootfs), "readonly": False},
        "process": _process(
            arguments=("/bin/sh", "-c", _INIT_SCRIPT, "init", spec.user.name, str(spec.user.uid), spec.user.home),
            user=ROOT,
            environment={},
            facts=facts,
            capabilities=_capabilities(spec),
        ),
        "mounts": _mounts(paths),
        "linux": {
            "namespaces": [
                {"type": "user"},
                {"type": "mount"},
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "cgroup"},
                # No entry for the network namespace: it is inherited. See outgate.runtime.staging.
            ],
            "uidMappings": [{"containerID": 0, "hostID": ids.first_id, "size": IDS_PER_SANDBOX}],
            "gidMappings": [{"containerID": 0, "hostID": ids.first_id, "size": IDS_PER_SANDBOX}],
            "cgroupsPath": str(paths.cgroup),
            "resources": _resources(spec, facts),
            "seccomp": render_seccomp(facts.machine, is_builder=spec.is_builder),
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }


def render_execution(sandbox: SandboxSpec, spec: ExecSpec, facts: HostFacts) -> Document:
    """The ``process.json`` of one execution."""
    user = spec.user or sandbox.user
    program = (spec.command,) if spec.shell is None else render_lasting_shell(spec.shell, user, spec.command)
    return _process(
        arguments=("/bin/sh", "-c", EXECUTION_SCRIPT, "execution", user.home, str(_EXECUTION_OOM_SCORE), *program),
        user=user,
        environment=sandbox.environment,
        facts=facts,
        capabilities=_capabilities(sandbox),
    )


def render_helper(sandbox: SandboxSpec, user: SandboxUser, script: str, *arguments: str, facts: HostFacts) -> Document:
    """The ``process.json`` of a script of Outgate's own, which nothing in the sandbox's environment changes."""
    return _process(
        arguments=("/bin/sh", "-c", script, "helper", *arguments),
        user=user,
        environment={"LC_ALL": "C"},
        facts=facts,
        capabilities=_capabilities(sandbox),
    )


def _capabilities(sandbox: SandboxSpec) -> tuple[str, ...]:
    return BUILDER_CAPABILITIES if sandbox.is_builder else CAPABILITIES


def render_terminal(sandbox: SandboxSpec, spec: TerminalSpec, facts: HostFacts) -> Document:
    """The ``process.json`` of one terminal; run as an execution is."""
    user = sandbox.user
    mode = "login" if spec.command is None else "command"
    settings = (spec.command or "", user.home, str(_EXECUTION_OOM_SCORE), mode)
    process = _process(
        arguments=("/bin/sh", "-c", _TERMINAL_SCRIPT, "terminal", *settings),
        user=user,
        environment={**spec.environment, **sandbox.environment},
        facts=facts,
    )
    if spec.size is not None:
        process |= {"terminal": True, "consoleSize": {"width": spec.size.cols, "height": spec.size.rows}}
    return process


def _process(
    *,
    arguments: tuple[str, ...],
    user: SandboxUser,
    environment: Mapping[str, str],
    facts: HostFacts,
    capabilities: tuple[str, ...] = CAPABILITIES,
) -> Document:
    variables = {
        "PATH": _SEARCH_PATH,
        "HOME": user.home,
        "USER": user.name,
        "LOGNAME": user.name,
        "LANG": "C.UTF-8",
        **environment,
    }
    granted = list(capabilities) if user.uid == 0 else []
    return {
        "terminal": False,
        "user": {"uid": user.uid, "gid": user.uid, "umask": 0o022},
        "args": list(arguments),
        "env": [f"{name}={value}" for name, value in variables.items()],
        "cwd": "/",
        "capabilities": {
            "bounding": list(capabilities),
            "effective": granted,
            "permitted": granted,
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": True,
        "rlimits": [
            {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
            {"type": "RLIMIT_NOFILE", "hard": facts.open_files_max, "soft": min(1024, facts.open_files_max)},
        ],
    }


def _mounts(paths: BundlePaths) -> list[Document]:
    quiet = ["nosuid", "noexec", "nodev"]
    own_files = (
        ("/etc/resolv.conf", paths.resolv_conf),
        ("/etc/hosts", paths.hosts),
        ("/etc/hostname", paths.hostname),
    )
    return [
        _mount("/proc", "proc", "proc", quiet),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount(
            "/dev/pts",
            "devpts",
            "devpts",
            ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        _mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", "size=65536k"]),  # noqa: S108 - inside the sandbox
        # A sysfs cannot be mounted in there: its network namespace belongs to another user namespace.
        _mount("/sys", "bind", str(paths.sys), ["bind", "ro", *quiet]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", *quiet]),
        *(_mount(target, "bind", str(source), ["bind", "rw", *quiet]) for target, source in own_files),
    ]


def _mount(destination: str, kind: str, source: str, options: list[str]) -> Document:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def _resources(spec: SandboxSpec, facts: HostFacts) -> Document:
    limits: Document = {"devices": [{"allow": False, "access": "rwm"}]}
    if "cpu" in facts.limits:
        limits["cpu"] = {"quota": int(spec.cpu_cores * _CPU_PERIOD_US), "period": _CPU_PERIOD_US}
    if "memory" in facts.limits:
        memory_bytes = spec.memory_mib << 20
        # With "swap" as large as "limit" (it counts both) a sandbox does not push the host into swapping.
        limits["memory"] = {"limit": memory_bytes, **({"swap": memory_bytes} if facts.swap_limit else {})}
    if "pids" in facts.limits:
        limits["pids"] = {"limit": spec.pids_max}
    return limits
