"""Denied packets of one router namespace, as :class:`~outgate.dataplane.driver.Denials` tells them."""

from outgate.dataplane.driver import Denial
from outgate.dataplane.nflog import LoggedPacket, NflogReader
from outgate.dataplane.router import link_name
from outgate.dataplane.ruleset import LOG_PREFIX_LIMIT


class LinuxDenials:
    """Denied packets of one router namespace."""

    def __init__(self, reader: NflogReader) -> None:
        self._reader = reader

    @property
    def lost(self) -> int:
        """Times the kernel's buffer overflowed."""
        return self._reader.lost

    def fileno(self) -> int:
        """Readable when there are some."""
        return self._reader.fileno()

    def read(self) -> tuple[Denial, ...]:
        """Those that are there now. Never blocks."""
        return tuple(map(_denial, self._reader.read()))

    def close(self) -> None:
        """Stop listening."""
        self._reader.close()


def _denial(packet: LoggedPacket) -> Denial:
    return Denial(
        link=link_name(packet.link_index),
        source=packet.source,
        destination=packet.destination,
        protocol=packet.protocol,
        source_port=packet.source_port,
        destination_port=packet.destination_port,
        is_over_limit=packet.prefix == LOG_PREFIX_LIMIT,
    )
