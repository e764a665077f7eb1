"""A blueprint as one Dockerfile: what its build does, in a language that people know."""

import json

from outgate.control.blueprint_input import BlueprintInput, parse_blueprint_input
from outgate.control.devbox_mounts import CodeMountInput, FileMountInput, check_mounts
from outgate.control.ids import IdPrefix, is_id
from outgate.control.texts import parse_short_text
from outgate.errors import InvalidValueError

_STOCK = "stock"


def render_preview(given: BlueprintInput) -> str:
    """The text. Raises InvalidValueError for a blueprint that could not be created.

    Secrets, tokens and the contents of files are not in it.
    """
    parse_blueprint_input(given)
    check_mounts(given.mounts)
    _check_id(IdPrefix.BLUEPRINT, given.base_blueprint_id, "base_blueprint_id")
    if given.base_blueprint_name is not None:
        parse_short_text(given.base_blueprint_name, field="base_blueprint_name")
    _check_id(IdPrefix.OBJECT, given.context_object_id, "build_context.object_id")
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


def _check_id(prefix: IdPrefix, given: str | None, field: str) -> None:
    if given is not None and not is_id(prefix, given):
        raise InvalidValueError(f"{given[:80]!r} is no id as in {prefix}….", field=field)
