"""What is left of root's capabilities to the processes that stay root; docs/hardening.md has the reason for each.

A process that runs inside a sandbox has those of its user namespace, whatever its starter had (user_namespaces(7)).
"""

from typing import Final

from outgate.privileges import Capability

AGENT_CAPABILITIES: Final = frozenset(
    {
        Capability.CHOWN,
        Capability.DAC_OVERRIDE,
        Capability.FOWNER,
        Capability.FSETID,
        Capability.KILL,
        Capability.SETGID,
        Capability.SETUID,
        Capability.SETPCAP,
        Capability.NET_ADMIN,
        Capability.SYS_CHROOT,
        Capability.SYS_PTRACE,
        Capability.SYS_ADMIN,
        Capability.SYS_RESOURCE,
        Capability.SETFCAP,
    }
)
"""Also what the OCI runtimes, buildah's sandbox and the programs of the network start with."""
SUPERVISOR_CAPABILITIES: Final = AGENT_CAPABILITIES | {Capability.NET_BIND_SERVICE}
"""It starts the agent, binds the listeners, and tears down after ``serve --ephemeral``."""
