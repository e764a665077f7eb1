"""Files in devboxes, as the agent's interface offers them. A thin shell over the runtime."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from outgate.runtime.base import Runtime


class Files:
    """Reads and writes as the devbox's own user, below whose home relative paths lie."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def open(self, devbox_id: str, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See :meth:`outgate.runtime.base.Runtime.read_file`."""
        return self._runtime.read_file(devbox_id, path)

    async def write(self, devbox_id: str, path: str, data: AsyncIterator[bytes]) -> None:
        """See :meth:`outgate.runtime.base.Runtime.write_file`."""
        await self._runtime.write_file(devbox_id, path, data)
