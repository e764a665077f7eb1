"""This host's agent, over its unix socket: how it is. Needs root, as the socket does."""

from types import TracebackType
from typing import Self

import httpx
import msgspec

from outgate.client.transport import PeerUnreachableError, checked
from outgate.errors import OutgateError
from outgate.model.desired import HostReport
from outgate.settings import Settings

_ANSWER_WAIT_S = 10.0


class LocalAgent:
    """A client of the agent that ``settings`` belong to."""

    def __init__(self, settings: Settings) -> None:
        path = settings.host_token_file
        try:
            token = path.read_text("ascii").strip()
        except OSError as error:
            raise OutgateError(
                f"{path} cannot be read ({error.strerror}). Run this as root, with --state-dir of a server that ran.",
                code="no_host_token",
            ) from None
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(settings.agent_socket)),
            base_url="http://agent",
            headers={"authorization": f"Bearer {token}"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def read_status(self) -> HostReport:
        """Everything the agent knows of its host. Raises PeerUnreachableError when no agent runs."""
        return msgspec.json.decode(self._get("/v1/status", {}, 0.0), type=HostReport)

    def _get(self, path: str, params: dict[str, str], wait_s: float) -> bytes:
        try:
            return checked(self._client.get(path, params=params, timeout=_ANSWER_WAIT_S + wait_s))
        except httpx.HTTPError as error:
            raise PeerUnreachableError(
                f"This host's agent does not answer ({error}). Is `outgate serve` running with this --state-dir?"
            ) from error
