"""libnftables by ctypes, for what is text: tables, chains, rules. Elements go by :mod:`~outgate.dataplane.nfnetlink`.

A context belongs to the network namespace that the thread is in when it is made, and is best made early: see
:func:`_check_descriptor_room`. Only our own tables are ever
listed through it: the library asserts on some rulesets that others wrote, and that would end the process.
"""

import ctypes
import os
from types import TracebackType
from typing import Final, Self

from outgate.errors import HostNotCapableError, OutgateError

_LIBRARY: Final = "libnftables.so.1"
_OUTPUT_STATELESS: Final = 1 << 1
_FD_SETSIZE: Final = 1024


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


def _check_descriptor_room() -> None:
    """The library waits with select(), which ends the process when its socket's number is 1024 or more."""
    next_number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(next_number)
    if next_number >= _FD_SETSIZE:
        raise NftError("More than 1,000 files are open, so nftables cannot be used by this process any more.")


class Nft:
    """An nftables context in the calling thread's network namespace. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._library = _load()
        _check_descriptor_room()
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
