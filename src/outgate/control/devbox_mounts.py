"""Mounts as a caller gives them, and the documents that their host works from."""

import base64
import re
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import Connection

from outgate.control.calls import Call
from outgate.control.devbox_launch import COMMAND_LENGTH_MAX
from outgate.control.ids import IdPrefix, is_id
from outgate.control.objects import ContentType, ObjectState
from outgate.control.services import Services
from outgate.control.texts import parse_text
from outgate.errors import InvalidValueError
from outgate.model.desired import (
    CodeMountDocument,
    DevboxDocument,
    FileMountDocument,
    MountDocument,
    ObjectForm,
    ObjectMountDocument,
)
from outgate.store.objects import find_object

MOUNTS_MAX: Final = 100
PATH_LENGTH_MAX: Final = 4095
"""Linux takes no longer path (PATH_MAX, with its end)."""
CONTENT_LENGTH_MAX: Final = 1024 * 1024
"""As long as a body may be: it comes in one."""
REPOSITORY_PATTERN: Final = "^[A-Za-z0-9_.-]{1,100}$"
_REPOSITORY: Final = re.compile(REPOSITORY_PATTERN.removesuffix("$") + r"\Z", re.ASCII)
REF_PATTERN: Final = r"^(?!-)[^\x00-\x20\x7f~^:?*\[\\]{1,255}$"
_REF: Final = re.compile(REF_PATTERN.removesuffix("$") + r"\Z", re.ASCII)
"""No option, and none of what git-check-ref-format(1) rules out."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}\Z", re.ASCII)
"""One line, as git's credential protocol has it."""


@dataclass(frozen=True, slots=True)
class FileMountInput:
    """A file with this content. ``field`` is where in the body it stands, here and below."""

    field: str
    target: str
    content: str


@dataclass(frozen=True, slots=True)
class ObjectMountInput:
    """A stored object at this path."""

    field: str
    object_id: str
    object_path: str


@dataclass(frozen=True, slots=True)
class CodeMountInput:
    """A clone of a repository in the user's home."""

    field: str
    repo_owner: str
    repo_name: str
    git_ref: str | None = None
    token: str | None = None
    install_command: str | None = None


MountInput = FileMountInput | ObjectMountInput | CodeMountInput

_FORMS: Final = {
    ContentType.UNSPECIFIED: ObjectForm.FILE,
    ContentType.TEXT: ObjectForm.FILE,
    ContentType.BINARY: ObjectForm.FILE,
    ContentType.GZIP: ObjectForm.GZIP,
    ContentType.TAR: ObjectForm.TAR,
    ContentType.TGZ: ObjectForm.TGZ,
}


def parse_mounts(
    tx: Connection, services: Services, call: Call, mounts: tuple[MountInput, ...], owner_id: str
) -> tuple[MountDocument, ...]:
    """``mounts`` as documents of ``owner_id`` (a devbox or a blueprint), their tokens sealed.

    Raises InvalidValueError naming the field, also for an object that the account does not have.
    """
    check_mounts(mounts)
    return tuple(_parse_mount(tx, services, call, mount, owner_id) for mount in mounts)


def check_mounts(mounts: tuple[MountInput, ...]) -> None:
    """Raise InvalidValueError, naming the field, for what cannot be right whatever the account has."""
    if len(mounts) > MOUNTS_MAX:
        message = f"There are {len(mounts)} mounts; at most {MOUNTS_MAX} are allowed."
        raise InvalidValueError(message, field="mounts")
    for mount in mounts:
        if isinstance(mount, FileMountInput):
            _parse_file(mount)
        elif isinstance(mount, CodeMountInput):
            _check_code(mount)


def _parse_mount(tx: Connection, services: Services, call: Call, mount: MountInput, owner_id: str) -> MountDocument:
    match mount:
        case FileMountInput():
            return _parse_file(mount)
        case ObjectMountInput():
            return _parse_object(tx, call, mount)
        case CodeMountInput():
            return _parse_code(services, mount, owner_id)


def _parse_file(mount: FileMountInput) -> FileMountDocument:
    content = parse_text(mount.content, field=f"{mount.field}.content", length_max=CONTENT_LENGTH_MAX)
    return FileMountDocument(_parse_path(mount.target, f"{mount.field}.target", is_file=True), content)


def _parse_object(tx: Connection, call: Call, mount: ObjectMountInput) -> ObjectMountDocument:
    field = f"{mount.field}.object_id"
    found = find_object(tx, mount.object_id) if is_id(IdPrefix.OBJECT, mount.object_id) else None
    if found is None or found.account_id != call.account_id or found.state == ObjectState.DELETED:
        message = f"There is no object {mount.object_id[:80]!r} in this account; upload it first."
        raise InvalidValueError(message, field=field, code="unknown_object")
    if found.state != ObjectState.READ_ONLY:
        message = f"Object {found.id} is {found.state}; complete its upload first."
        raise InvalidValueError(message, field=field, code="object_not_ready")
    form = _FORMS[ContentType(found.content_type)]
    is_file = form in (ObjectForm.FILE, ObjectForm.GZIP)
    return ObjectMountDocument(found.id, _parse_path(mount.object_path, f"{mount.field}.object_path", is_file), form)


def _check_code(mount: CodeMountInput) -> None:
    for name, text in (("repo_owner", mount.repo_owner), ("repo_name", mount.repo_name)):
        if not _REPOSITORY.match(text) or text in (".", ".."):
            message = f"{text[:80]!r} is no repository's; use letters, digits, '_', '.' and '-', as in its URL."
            raise InvalidValueError(message, field=f"{mount.field}.{name}")
    if mount.git_ref is not None and not _REF.match(mount.git_ref):
        message = f"{mount.git_ref[:80]!r} is no git reference; name a branch, a tag or a commit."
        raise InvalidValueError(message, field=f"{mount.field}.git_ref")
    if mount.token is not None and not _TOKEN.match(mount.token):
        message = "This is no token; one line of printable ASCII without spaces, as the git host gave it."
        raise InvalidValueError(message, field=f"{mount.field}.token")
    if mount.install_command is not None:
        parse_text(mount.install_command, field=f"{mount.field}.install_command", length_max=COMMAND_LENGTH_MAX)


def _parse_code(services: Services, mount: CodeMountInput, owner_id: str) -> CodeMountDocument:
    return CodeMountDocument(
        url=f"{services.settings.git_url}/{mount.repo_owner}/{mount.repo_name}.git",
        target=mount.repo_name,
        ref=mount.git_ref,
        token=None if mount.token is None else _seal(services, mount.token, owner_id),
        install_command=mount.install_command,
    )


def _parse_path(path: str, field: str, is_file: bool) -> str:
    """``path``, relative to the user's home unless it begins with ``/``."""
    parse_text(path, field=field, length_max=PATH_LENGTH_MAX)
    path = path.removeprefix("~/")
    if not path or (is_file and path.endswith("/")):
        what = "file" if is_file else "directory"
        message = f"{path[:80]!r} names no {what}; write its path, as in /home/user/data."
        raise InvalidValueError(message, field=field)
    return path


def open_tokens(services: Services, document: DevboxDocument) -> DevboxDocument:
    """``document`` with its mounts' tokens as git wants them. Raises SealedValueError."""
    if not any(isinstance(mount, CodeMountDocument) and mount.token is not None for mount in document.mounts):
        return document
    opened = tuple(_open(services, mount, document.id) for mount in document.mounts)
    return msgspec.structs.replace(document, mounts=opened)


def close_tokens(document: DevboxDocument) -> DevboxDocument:
    """``document`` without its mounts' tokens."""
    mounts = tuple(
        msgspec.structs.replace(mount, token=None) if isinstance(mount, CodeMountDocument) else mount
        for mount in document.mounts
    )
    return msgspec.structs.replace(document, mounts=mounts)


def _open(services: Services, mount: MountDocument, owner_id: str) -> MountDocument:
    if not isinstance(mount, CodeMountDocument) or mount.token is None:
        return mount
    token = services.keys.open(base64.b64decode(mount.token), _belongs_to(owner_id))
    return msgspec.structs.replace(mount, token=token)


def _seal(services: Services, token: str, owner_id: str) -> str:
    return base64.b64encode(services.keys.seal(token, _belongs_to(owner_id))).decode()


def _belongs_to(owner_id: str) -> str:
    return f"{owner_id}/git token"
