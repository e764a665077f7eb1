"""SSH keys: made here, handed out once; what is stored tells a key again and opens nothing."""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sqlalchemy import Connection

from outgate.control.calls import Call
from outgate.control.devbox_states import decode_devbox
from outgate.control.devboxes import devbox_not_found
from outgate.control.ids import IdPrefix, is_id
from outgate.control.services import Services
from outgate.control.terminal_access import TerminalPlace, check_is_running, find_running
from outgate.control.transactions import write_as
from outgate.errors import InvalidValueError
from outgate.store.devboxes import find_devbox_locked
from outgate.store.terminal_access import SshKeyRow, find_ssh_key, insert_ssh_key

KEYS_PER_DEVBOX_MAX: Final = 64
"""Clients make a key for each connection; of a devbox's keys the oldest go first."""


@dataclass(frozen=True, slots=True)
class NewSshKey:
    """A key as it is shown once. ``host`` is where the SSH server is reached, ``username`` whom it lets in."""

    devbox_id: str
    private_key: str = field(repr=False)
    username: str
    host: str


async def create_ssh_key(services: Services, call: Call, devbox_id: str) -> NewSshKey:
    """A new key that opens the running devbox.

    Raises NotFoundError, and InvalidValueError when the devbox does not run or the SSH server is off.
    """
    if not is_id(IdPrefix.DEVBOX, devbox_id):
        raise devbox_not_found(devbox_id)
    private = Ed25519PrivateKey.generate()
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()

    def create(tx: Connection) -> tuple[str, str]:
        row = find_devbox_locked(tx, call.account_id, devbox_id)
        if row is None:
            raise devbox_not_found(devbox_id)
        check_is_running(row)
        host = services.settings.ssh_host
        if host is None:
            message = "The SSH server is off on this installation; its operator can turn it on by OUTGATE_SSH_LISTEN."
            raise InvalidValueError(message, code="ssh_off")
        key = SshKeyRow(digest, call.account_id, devbox_id, call.now_ms)
        insert_ssh_key(tx, key, keep_max=KEYS_PER_DEVBOX_MAX)
        return decode_devbox(row.document).username, host

    username, host = await write_as(services, call.caller, create)
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii")
    return NewSshKey(devbox_id, text, username, host)


async def find_ssh_place(services: Services, public_key: bytes) -> TerminalPlace | None:
    """What the key whose public part is ``public_key`` (RFC 4253 §6.6) opens, or None when it is not known.

    Raises ConflictError when the devbox does not run, and HostUnavailableError.
    """
    digest = hashlib.sha256(public_key).digest()
    row = await services.database.read(lambda tx: find_ssh_key(tx, digest))
    return None if row is None else await find_running(services, row.account_id, row.devbox_id)
