"""Mounts of devboxes and of blueprints: ``mounts``, and the older ``file_mounts`` and ``code_mounts``."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field

from outgate.api.bodies import BODY_CONFIG
from outgate.api.field_types import Command, said
from outgate.control.devbox_mounts import (
    CONTENT_LENGTH_MAX,
    MOUNTS_MAX,
    PATH_LENGTH_MAX,
    REF_PATTERN,
    REPOSITORY_PATTERN,
    CodeMountInput,
    FileMountInput,
    MountInput,
    ObjectMountInput,
)
from outgate.control.ids import IdPrefix, id_pattern
from outgate.control.texts import TEXT_PATTERN
from outgate.errors import InvalidValueError

Path = Annotated[str, said(minLength=1, maxLength=PATH_LENGTH_MAX, pattern=TEXT_PATTERN)]
Content = Annotated[str, said(maxLength=CONTENT_LENGTH_MAX, pattern=TEXT_PATTERN)]
Repository = Annotated[str, said(pattern=REPOSITORY_PATTERN)]
GitReference = Annotated[str, said(pattern=REF_PATTERN)]
GitToken = Annotated[str, said(pattern="^[\\x21-\\x7e]{0,4096}$")]
FileMounts = Annotated[dict[str, str], said(maxProperties=MOUNTS_MAX)]


class FileMount(BaseModel):
    """A file of the devbox's user with this content. Relative paths begin at the user's home."""

    model_config = BODY_CONFIG

    type: Literal["file_mount"]
    target: Path
    content: Content


class ObjectMount(BaseModel):
    """A stored object: archives are unpacked into the directory ``object_path``, others become that file."""

    model_config = BODY_CONFIG

    type: Literal["object_mount"]
    object_id: Annotated[str, said(pattern=id_pattern(IdPrefix.OBJECT))]
    object_path: Path


class CodeMountParameters(BaseModel):
    """A clone of ``repo_owner/repo_name`` in the user's home, made inside the devbox under its policy."""

    model_config = BODY_CONFIG

    repo_name: Repository
    repo_owner: Repository
    token: GitToken | None = None
    git_ref: GitReference | None = None
    install_command: Command | None = None

    def to_input(self, field: str) -> CodeMountInput:
        """The value control judges."""
        return CodeMountInput(
            field, self.repo_owner, self.repo_name, self.git_ref, self.token or None, self.install_command
        )


class CodeMount(CodeMountParameters):
    """The same among ``mounts``."""

    type: Literal["code_mount"]


class BrokerMount(BaseModel):
    """Refused: there are no axons here that a broker could listen to."""

    model_config = BODY_CONFIG

    type: Literal["broker_mount"]
    axon_id: str


Mount = Annotated[FileMount | ObjectMount | CodeMount | BrokerMount, Field(discriminator="type")]
Mounts = Annotated[list[Mount], said(maxItems=MOUNTS_MAX)]
CodeMounts = Annotated[list[CodeMountParameters], said(maxItems=MOUNTS_MAX)]

_BROKER_REFUSED: Final = "This server has no axons, so no broker could be mounted; leave this mount out."


def to_mount_inputs(
    mounts: Sequence[Any] | None,
    file_mounts: Mapping[str, str] | None,
    code_mounts: Sequence[CodeMountParameters] | None,
) -> tuple[MountInput, ...]:
    """The values control judges, whichever of the three fields they came in. Raises InvalidValueError for brokers."""
    files = [FileMountInput(f"file_mounts[{path!r}]", path, text) for path, text in (file_mounts or {}).items()]
    codes = [mount.to_input(f"code_mounts[{index}]") for index, mount in enumerate(code_mounts or ())]
    return (*files, *codes, *(_to_input(mount, f"mounts[{index}]") for index, mount in enumerate(mounts or ())))


def _to_input(mount: Mount, field: str) -> MountInput:
    match mount:
        case FileMount():
            return FileMountInput(field, mount.target, mount.content)
        case ObjectMount():
            return ObjectMountInput(field, mount.object_id, mount.object_path)
        case CodeMount():
            return mount.to_input(field)
        case BrokerMount():
            raise InvalidValueError(_BROKER_REFUSED, field=field, code="not_served")
