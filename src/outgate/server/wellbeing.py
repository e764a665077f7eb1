"""Whether the processes of this installation answer: what a watchdog asks.

Any answer counts. An api whose store is away, or an agent that cannot enforce, says so by itself and is not made
well by a new start; one that hangs is.
"""

import asyncio
from typing import Final

import httpx

from outgate.client.transport import open_async_client, unix_url
from outgate.server.context import reachable
from outgate.server.places import ensure_host_token
from outgate.settings import Settings

_API_PATH: Final = "/v1/accounts/me"
"""Asked without a key: refused before the store is looked at."""
_AGENT_PATH: Final = "/v1/status"


async def is_api_answering(settings: Settings, timeout_s: float) -> bool:
    """Whether the api answers where clients ask it."""
    client = open_async_client(f"http://{reachable(settings.listen)}", None, timeout_s=timeout_s)
    return await _is_answering(client, _API_PATH, timeout_s)


async def is_agent_answering(settings: Settings, timeout_s: float) -> bool:
    """Whether the agent answers where the api asks it. For root, who may read the host's token."""
    client = open_async_client(unix_url(settings.agent_socket), ensure_host_token(settings), timeout_s=timeout_s)
    return await _is_answering(client, _AGENT_PATH, timeout_s)


async def are_all_answering(settings: Settings, timeout_s: float) -> bool:
    """Whether both of them do."""
    answers = await asyncio.gather(is_api_answering(settings, timeout_s), is_agent_answering(settings, timeout_s))
    return all(answers)


async def _is_answering(client: httpx.AsyncClient, path: str, timeout_s: float) -> bool:
    try:
        async with client, asyncio.timeout(timeout_s):
            await client.get(path)
    except (httpx.HTTPError, OSError):  # a TimeoutError is an OSError
        return False
    return True
