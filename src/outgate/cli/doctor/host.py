"""What this machine can do: kernel, programs, limits."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from outgate.cli.doctor.findings import Finding, Group
from outgate.dataplane.probe import Check, probe_host

HOST: Final = Group("host")
_PROGRAMS: Final = {"nft": "nftables", "ip": "iproute2", "nsenter": "util-linux"}
_CORE_PATTERN: Final = Path("/proc/sys/kernel/core_pattern")
_HARMLESS_PIPE: Final = "|/bin/false"
DESCRIPTORS_MIN: Final = 65_536
"""A relayed flow takes four; a thousand devboxes with a few flows each are well below."""


def check_host(runtime: str) -> Iterator[Finding]:
    """All of it, as root. Leaves nothing behind."""
    for check in probe_host():
        yield _grade(check)
    if shutil.which(runtime) is None:
        why = "Not installed; it makes the sandboxes."
        yield HOST.failed(
            f"OCI runtime {runtime}", why, f"apt-get install {runtime}, or another one by OUTGATE_RUNTIME"
        )
    else:
        yield HOST.passed(f"OCI runtime {runtime}")
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            why = "Not installed; the demo and people looking for a fault use it."
            yield HOST.warned(f"program {program}", why, f"apt-get install {package}")
    yield check_core_pattern(_CORE_PATTERN.read_text("ascii", "replace").strip())
    yield check_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def _grade(check: Check) -> Finding:
    if check.ok:
        return HOST.passed(check.name)
    seen = f"{check.why} ({check.detail})" if check.detail else check.why
    return (HOST.failed if check.needed else HOST.warned)(check.name, seen, f"get it by {check.how}")


def check_core_pattern(pattern: str) -> Finding:
    """Whether a crash in a devbox starts a program as the host's root."""
    if not pattern.startswith("|") or pattern.startswith(_HARMLESS_PIPE):
        return HOST.passed("core dumps", pattern)
    return HOST.warned(
        "core dumps",
        f"kernel.core_pattern is {pattern!r}: a crash in a devbox starts that program as the host's root.",
        "sysctl kernel.core_pattern=core, or '|/bin/false' (docs/hardening.md)",
    )


def check_descriptors(hard_limit: int) -> Finding:
    """Whether a process started from here could hold enough flows open."""
    if hard_limit == resource.RLIM_INFINITY or hard_limit >= DESCRIPTORS_MIN:
        return HOST.passed("file descriptors", "unlimited" if hard_limit < 0 else str(hard_limit))
    return HOST.warned(
        "file descriptors",
        f"A process may have {hard_limit}; a server that may not raise that relays that many flows by four.",
        "start it by its unit (LimitNOFILE=1048576), or raise ulimit -Hn",
    )
