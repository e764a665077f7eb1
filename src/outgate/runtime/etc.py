"""The three files in /etc that belong to one sandbox and not to its image."""

import os
from collections.abc import Mapping
from pathlib import Path

from outgate.runtime.base import SandboxSpec


def render_own_files(spec: SandboxSpec) -> Mapping[str, str]:
    """The content of resolv.conf, hosts and hostname."""
    return {
        "resolv.conf": "".join(f"nameserver {address}\n" for address in spec.nameservers),
        "hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{spec.hostname}\n",
        "hostname": f"{spec.hostname}\n",
    }


def write_own_files(directory: Path, spec: SandboxSpec, owner: int) -> None:
    """Write them to the empty ``directory``, for the host's id ``owner`` (the sandbox's root, who may edit them)."""
    for name, text in render_own_files(spec).items():
        file = directory / name
        file.write_text(text)
        file.chmod(0o644)
        os.chown(file, owner, owner)
