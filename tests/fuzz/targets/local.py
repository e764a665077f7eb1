"""Requests between Outgate's own processes, which name what a devbox or a client chose."""

import contextlib

import msgspec

from outgate.agent.dial_service import _REQUEST as DIAL_REQUEST
from outgate.agent.terminals import _REQUEST as TERMINAL_REQUEST
from outgate.model.names import DomainName
from outgate.model.tunnels import InsideHello, parse_tunnel_name

_DOMAIN = DomainName("tunnel.example.com")


def read_local(data: bytes) -> None:
    """Documents are taken or refused, and those that are taken come back as they were."""
    for decoder in (DIAL_REQUEST, TERMINAL_REQUEST, msgspec.json.Decoder(InsideHello)):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            request = decoder.decode(data)
            assert decoder.decode(msgspec.json.encode(request)) == request


def read_tunnel_name(data: bytes) -> None:
    text = data.decode("latin-1")
    said = parse_tunnel_name(text, _DOMAIN)
    if said is None:
        return
    assert 1 <= said.port <= 65535
    assert text.lower().removesuffix(".") == f"{said.port}-{said.key}.{_DOMAIN}", "another spelling of the same tunnel"
