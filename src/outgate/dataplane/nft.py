"""libnftables by ctypes, for what is text: tables, chains, rules. Elements go by :mod:`~outgate.dataplane.nfnetlink`.

A context belongs to the network namespace that the thread is in when it is made. Only our own tables are ever
listed through it: the library asserts on some rulesets that others wrote, and that would end the process.
"""

import ctypes
from types import TracebackType
from typing import Final, Self

from outgate.errors import HostNotCapableError, OutgateError

_LIBRARY: Final = "libnftables.so.1"
_OUTPUT_STATELESS: Final = 1 << 1


class NftError(OutgateError):
    """nftables refused a command; nothing of it is in force."""

    code = "nft"


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        raise HostNotCapableError(f"{_LIBRARY} is missing; install nftables (apt install nftables).") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
    library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_output_buffer.argtypes = [ctypes.c_void_p]
    library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
    library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


class Nft:
    """An nftables context in the calling thread's network namespace. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._library = _load()
        self._context: int | None = self._library.nft_ctx_new(0)
        if not self._context:
            raise HostNotCapableError("libnftables could not open a netlink socket.")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_output_set_flags(self._context, _OUTPUT_STATELESS)

    def close(self) -> None:
        """Give the context back. May be called twice."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(self, commands: str) -> str:
        """Run ``commands`` as one transaction and return what they print. Raises :class:`NftError`."""
        if not self._context:
            raise NftError("This nftables context is closed.")
        result = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output = self._library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
        complaint = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        if result != 0:
            raise NftError(f"nftables refused a command: {complaint.strip()}")
        return str(output)
