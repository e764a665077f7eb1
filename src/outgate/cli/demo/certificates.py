"""TLS of the far side: certificates for any name, by the little internet's own authority.

It runs over memory buffers instead of asyncio's own TLS, because a connection has to be in the journal from its
first packet on, also when the handshake never completes.
"""

import ssl
from pathlib import Path

import trustme

FALLBACK_NAME = "no-name.invalid"
"""Named by the certificate for a client that says no name (RFC 6761: never a real host)."""


class Certificates:
    """Server contexts by SNI, made when first asked for."""

    def __init__(self, ca_file: Path) -> None:
        """A fresh authority whose certificate is written to ``ca_file``."""
        self._authority = trustme.CA(organization_name="Outgate's little internet")
        self._authority.cert_pem.write_to_path(str(ca_file))
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._names: dict[ssl.SSLObject | ssl.SSLSocket, str] = {}
        self._entry = self._context(FALLBACK_NAME)
        self._entry.sni_callback = self._choose

    def wrap(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """The server's side of one connection."""
        return self._entry.wrap_bio(incoming, outgoing, server_side=True)

    def take_name(self, tls: ssl.SSLObject) -> str | None:
        """The SNI that ``tls`` received (empty for a hello without one); None before, and the second time."""
        return self._names.pop(tls, None)

    def _choose(self, tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
        self._names[tls] = name or ""
        if name:
            tls.context = self._context(name)

    def _context(self, name: str) -> ssl.SSLContext:
        known = self._contexts.get(name)
        if known is None:
            known = self._contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(name).configure_cert(known)
        return known


class TlsLayer:
    """Cipher text in, plain text out, and the other way round."""

    def __init__(self, certificates: Certificates) -> None:
        """The server's side of one connection."""
        self._certificates = certificates
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = certificates.wrap(self._incoming, self._outgoing)
        self.is_up = False

    def receive(self, data: bytes) -> bytes:
        """The plain text that ``data`` completes. Raises ssl.SSLError on what is not TLS."""
        self._incoming.write(data)
        if not self.is_up:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return b""
            self.is_up = True
        plain = bytearray()
        while True:
            try:
                piece = self._tls.read(65536)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return bytes(plain)
            if not piece:
                return bytes(plain)
            plain += piece

    def encrypt(self, plain: bytes) -> None:
        """Queue ``plain``; :meth:`take_output` has what to send."""
        self._tls.write(plain)

    def take_output(self) -> bytes:
        """What has to be sent now."""
        return self._outgoing.read()

    def take_name(self) -> str | None:
        """The SNI, once, when it has arrived."""
        return self._certificates.take_name(self._tls)
