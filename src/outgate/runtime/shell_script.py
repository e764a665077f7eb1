"""The programs that run commands in a sandbox: an execution's own shell, and what makes a named shell last.

A named shell is not one process that waits for commands: each command has a shell of its own, which begins with
what the one before it left in a file of the sandbox's memory file system. So a command can be killed, streamed and
read as any other, a daemon that dies takes no shell along, and (as with processes) a suspended box forgets them.
"""

import hashlib
from typing import Final

from outgate.runtime.base import SandboxUser

# Arguments: the home, the OOM score, then what the login shell is given after -c. Signals that are caught, not
# ignored, are back at their default in the command; this shell itself outlives them, so that a group which is
# interrupted still leaves its status. The status descriptor is not handed on. The home is entered here and not by the
# OCI runtime, which would follow a link that the sandbox put there with descriptors of the host's still open
# (CVE-2024-21626).
EXECUTION_SCRIPT: Final = """\
trap : HUP INT QUIT TERM
echo "$2" 2>/dev/null >/proc/self/oom_score_adj
cd -- "$1" 2>/dev/null || cd /
shift 2
if [ -x /bin/bash ]; then shell=/bin/bash; else shell=/bin/sh; fi
"$shell" -l -c "$@" 3>&-
echo $? >&3
"""

# What bash keeps: variables (declare -p), functions, working directory and umask; another sh: what it exports. What
# cannot be set again, like UID, is refused by the shell without harm. The file counts only if it is the user's own.
# $1 is the command. It runs with no arguments of its own; an EXIT trap that it sets replaces the one that keeps.
_LASTING: Final = """\
if [ -f {state} ] && [ -O {state} ]; then . {state} 2>/dev/null; fi
trap '{{ set +x; }} 2>/dev/null
(
  mask=$(umask)
  umask 077
  {{
    if [ -n "$BASH_VERSION" ]; then declare -p; declare -f; else export -p; fi
    echo "cd -- \\"\\$PWD\\" || cd"
    echo "umask $mask"
  }} >{state}.new && mv -f {state}.new {state}
) 2>/dev/null' EXIT
eval "set --
$1"
"""


def render_lasting_shell(name: str, user: SandboxUser, command: str) -> tuple[str, ...]:
    """What the login shell is given after ``-c`` to run ``command`` in the shell of that name."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    # A name that no quoting can break: hexadecimal digits.
    state = f"/dev/shm/.shell-{user.uid}-{digest}"  # noqa: S108 - inside the sandbox
    return (_LASTING.format(state=state), "shell", command)
