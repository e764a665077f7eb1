"""What runs in a devbox for the subsystem ``sftp``: the image's own server, or ours where there is a python3.

SFTP is answered inside the devbox, as its user. No path that a client names is ever looked up outside.
"""

import shlex
from pathlib import Path
from typing import Final

# Where Debian, Fedora, Alpine and Arch put OpenSSH's.
_PLACES: Final = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
)
# Read while that is still allowed: the api gives its privileges up after it is loaded.
_PROGRAM: Final = (Path(__file__).with_name("in_devbox") / "sftp_server.py").read_text("utf-8")

SFTP_COMMAND: Final = (
    f'for server in {" ".join(_PLACES)}; do [ -x "$server" ] && exec "$server"; done; '
    f"command -v python3 >/dev/null && exec python3 -I -c {shlex.quote(_PROGRAM)}; "
    "echo 'This image has neither sftp-server nor python3; use scp -O if it has scp.' >&2; exit 127"
)
