"""TLS of the front: one certificate, four ways to use it."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from outgate.errors import SettingError


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """``outside`` turns into ``api`` or ``ssh`` for clients that ask for those names; ``inside`` is for devboxes."""

    outside: ssl.SSLContext
    api: ssl.SSLContext
    ssh: ssl.SSLContext
    inside: ssl.SSLContext


def load_contexts(certificate: Path, key: Path, api_name: str, ssh_name: str | None = None) -> TlsContexts:
    """The contexts. Tunnels speak HTTP/1.1; the API HTTP/2 as well (ALPN, RFC 7301); SSH has no name there.

    Raises :class:`SettingError` for files that cannot be used.
    """
    outside = _load(certificate, key, "http/1.1")
    api = _load(certificate, key, "h2", "http/1.1")
    shell = _load(certificate, key)

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
        if name is not None and name.lower() == api_name:
            connection.context = api
        elif name is not None and name.lower() == ssh_name:
            connection.context = shell

    outside.sni_callback = choose
    return TlsContexts(outside, api, shell, _load(certificate, key, "http/1.1"))


def _load(certificate: Path, key: Path, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise SettingError(f"The certificate {certificate} with the key {key} cannot be used: {error}.") from error
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context
