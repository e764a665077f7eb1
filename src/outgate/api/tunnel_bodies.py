"""Bodies of the tunnel routes, and what they mean to control."""

from pydantic import BaseModel

from outgate.api.bodies import BODY_CONFIG
from outgate.control.tunnel_input import TunnelInput
from outgate.model.tunnels import TunnelAuthMode


class TunnelParams(BaseModel):
    """A tunnel: open to everybody unless said otherwise."""

    model_config = BODY_CONFIG

    auth_mode: TunnelAuthMode | None = None
    http_keep_alive: bool | None = None
    wake_on_http: bool | None = None

    def to_input(self) -> TunnelInput:
        """The value control judges."""
        return TunnelInput(self.auth_mode, self.http_keep_alive, self.wake_on_http)


class DevboxEnableTunnelParams(TunnelParams):
    """The tunnel to open; an empty body takes the defaults."""
