"""Where a devbox is: its host's agent and its status, and what becomes of the agent's refusals."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from outgate.client.transport import PeerRefusedError
from outgate.control.callers import Caller
from outgate.control.devbox_states import DevboxStatus
from outgate.control.devboxes import devbox_not_found
from outgate.control.errors import ConflictError, HostUnavailableError, NotFoundError
from outgate.control.ids import IdPrefix, is_id
from outgate.control.services import Services
from outgate.control.transactions import read_as
from outgate.errors import InvalidValueError
from outgate.model.executions import FileProblem
from outgate.store.devboxes import find_devbox
from outgate.store.hosts import find_host


@dataclass(frozen=True, slots=True)
class HostPlace:
    """A devbox, where its agent is, and the devbox's status."""

    devbox_id: str
    url: str
    status: str

    def check_running(self, what: str) -> None:
        """Raise ConflictError unless the devbox runs; ``what`` is what is done in running ones only."""
        if self.status != DevboxStatus.RUNNING:
            message = f"Devbox {self.devbox_id} is {self.status}; {what} in running devboxes only."
            raise ConflictError(message, code="devbox_not_running")


async def locate_devbox(services: Services, caller: Caller, devbox_id: str) -> HostPlace:
    """Where a devbox of the caller's account is. Raises NotFoundError, HostUnavailableError."""
    if not is_id(IdPrefix.DEVBOX, devbox_id):
        raise devbox_not_found(devbox_id)
    found = await read_as(services, caller, lambda tx: _read_place(tx, caller, devbox_id))
    if found is None:
        raise devbox_not_found(devbox_id)
    return found


@contextmanager
def speaking_with(place: HostPlace, *, field: str | None = None) -> Iterator[None]:
    """The agent's refusals, as the errors they mean to the caller, who gave the path of a file as ``field``."""
    try:
        yield
    except PeerRefusedError as error:
        raise _translate(error, place, field) from error
    except OSError as error:
        message = f"The host of devbox {place.devbox_id} does not answer; try again in a moment."
        raise HostUnavailableError(message) from error


def not_there_yet(place: HostPlace) -> HostUnavailableError:
    """The devbox runs, as far as is known here, and its host does not have it."""
    message = f"The host of devbox {place.devbox_id} does not have it running; try again in a moment."
    return HostUnavailableError(message)


def _translate(error: PeerRefusedError, place: HostPlace, field: str | None) -> Exception:
    match error.code:
        case FileProblem.MISSING | "execution_not_found":
            return NotFoundError(error.message, code=error.code)
        case "stdin_not_attached" | "invalid_value":
            return InvalidValueError(error.message, code=error.code)
        case "devbox_busy":
            return ConflictError(error.message, code=error.code)
        case "sandbox_not_found":
            return not_there_yet(place)
        case code if code in tuple(FileProblem):
            return InvalidValueError(error.message, field=field, code=error.code)
        case _:
            return HostUnavailableError(f"The host of devbox {place.devbox_id} could not do it: {error.message}")


def _read_place(tx: Connection, caller: Caller, devbox_id: str) -> HostPlace | None:
    row = find_devbox(tx, caller.account_id, devbox_id)
    if row is None:
        return None
    host = find_host(tx, row.host_id)
    if host is None or host.url is None:
        raise HostUnavailableError(f"The host of devbox {devbox_id} has not reported yet; try again in a moment.")
    return HostPlace(devbox_id, host.url, row.status)
