"""A blueprint as one Dockerfile: what its build does, in a language that people know."""

import json

from outgate.control.blueprint_input import BlueprintInput, parse_blueprint_input
from outgate.control.devbox_mounts import CodeMountInput, FileMountInput

_STOCK = "stock"


def render_preview(given: BlueprintInput) -> str:
    """The text. Raises InvalidValueError for a blueprint that could not be created.

    Secrets, tokens and the contents of files are not in it.
    """
    parse_blueprint_input(given)
    base = given.base_blueprint_id or given.base_blueprint_name or _STOCK
    lines = [given.dockerfile.rstrip("\n")] if given.dockerfile is not None else [f"FROM {base}"]
    if given.mounts or given.setup_commands:
        lines.append("USER root")
    for mount in given.mounts:
        match mount:
            case FileMountInput():
                lines.append(f"# {len(mount.content.encode())} bytes, given as a file mount")
                lines.append(f"COPY {json.dumps([mount.target, mount.target])}")
            case CodeMountInput():
                lines.append(f"# a clone of {mount.repo_owner}/{mount.repo_name} in the user's home")
                lines.append(f"ADD {mount.repo_owner}/{mount.repo_name} {mount.repo_name}")
                if mount.install_command is not None:
                    lines.append(f"RUN cd {mount.repo_name} && {mount.install_command}")
            case _:
                raise TypeError(f"a blueprint has no mount like {mount!r}")
    lines.extend(f"RUN {command}" for command in given.setup_commands)
    return "\n".join(lines) + "\n"
