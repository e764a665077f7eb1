"""The system's own ssh client, told nothing of the tester's own configuration, keys or known hosts."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SshKey:
    """What ``create_ssh_key`` answered, with the key in a file."""

    devbox_id: str
    username: str
    host: str
    port: int
    file: Path


def ssh_options(key: SshKey) -> list[str]:
    """Options of ssh, scp and sftp: this key, and no questions."""
    options = {
        "IdentityFile": str(key.file),
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
        "ConnectTimeout": "10",
    }
    return ["-F", "none", *(f"-o{name}={value}" for name, value in options.items())]


def run_ssh(
    key: SshKey, *command: str, options: Sequence[str] = (), stdin: bytes = b"", timeout_s: float = 30
) -> subprocess.CompletedProcess[bytes]:
    """Run ssh to its end."""
    place = ["-p", str(key.port), f"{key.username}@{key.host}"]
    words = ["ssh", *ssh_options(key), *options, *place, *command]
    return subprocess.run(words, input=stdin, capture_output=True, timeout=timeout_s, check=False)
