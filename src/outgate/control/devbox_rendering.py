"""A stored devbox as its host reads it."""

from typing import Final

import msgspec
import structlog
from sqlalchemy import Connection

from outgate.control.devbox_mounts import close_tokens, open_tokens
from outgate.control.devbox_states import decode_devbox
from outgate.control.secret_values import SealedValueError
from outgate.control.secrets import render_secrets
from outgate.control.services import Services
from outgate.model.desired import DevboxDocument

_log: Final = structlog.get_logger(__name__)


def render_devbox(tx: Connection, services: Services, stored: str) -> DevboxDocument:
    """The document with the values of its secrets, and with its mounts' tokens as long as they are to be made.

    What cannot be opened is left out and logged: one devbox must not keep policies of others from its host.
    """
    document = decode_devbox(stored)
    if document.generation > 1:
        # Mounts are made in the first boot alone.
        return render_secrets(tx, services, msgspec.structs.replace(document, mounts=()))
    try:
        document = open_tokens(services, document)
    except SealedValueError as error:
        _log.error("git token left out", devbox_id=document.id, why=error.message)
        document = close_tokens(document)
    return render_secrets(tx, services, document)
