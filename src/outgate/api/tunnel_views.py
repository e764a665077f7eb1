"""Answers of the tunnel routes."""

import msgspec

from outgate.model.tunnels import TunnelAuthMode, TunnelDocument


class TunnelView(msgspec.Struct, frozen=True):
    """A tunnel. ``auth_token`` is what authenticated ones want to see; null for open ones."""

    tunnel_key: str
    auth_mode: TunnelAuthMode
    create_time_ms: int
    http_keep_alive: bool
    wake_on_http: bool
    auth_token: str | None


def view_tunnel(tunnel: TunnelDocument) -> TunnelView:
    """The view of a tunnel."""
    return TunnelView(
        tunnel_key=tunnel.tunnel_key,
        auth_mode=tunnel.auth_mode,
        create_time_ms=tunnel.create_time_ms,
        http_keep_alive=tunnel.http_keep_alive,
        wake_on_http=tunnel.wake_on_http,
        auth_token=tunnel.auth_token,
    )
