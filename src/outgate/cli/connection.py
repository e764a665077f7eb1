"""Where the server is and which key to show it: options, then environment, then this host's state directory."""

from pathlib import Path
from typing import Annotated

import typer

from outgate.client.public import OutgateClient
from outgate.errors import OutgateError
from outgate.settings import Settings, load_settings

Url = Annotated[
    str | None, typer.Option("--url", envvar="OUTGATE_URL", help="The server. \\[default: where this host's listens]")
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="OUTGATE_API_KEY", help="\\[default: the key in the state directory]"),
]
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", envvar="OUTGATE_STATE_DIR", help="This host's state. \\[default: /var/lib/outgate]"),
]
Listen = Annotated[
    str | None,
    typer.Option("--listen", metavar="HOST:PORT", envvar="OUTGATE_LISTEN", help="\\[default: 127.0.0.1:8080]"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class NoKeyError(OutgateError):
    """No API key was given and none was found."""

    code = "no_api_key"


def connect(url: str | None, api_key: str | None, state_dir: Path | None) -> OutgateClient:
    """A client of the server. Raises :class:`NoKeyError` or SettingError; nothing is sent yet."""
    settings = load_settings(state_dir=state_dir)
    return OutgateClient(url or f"http://{settings.listen}", api_key or read_key(settings))


def read_key(settings: Settings) -> str:
    """The key that the first start of this host's server wrote down. Raises :class:`NoKeyError`."""
    path = settings.api_key_file
    try:
        key = path.read_text("ascii").strip()
    except (OSError, UnicodeError) as error:
        raise NoKeyError(
            f"No API key: {path} cannot be read ({_reason(error)}). Give --api-key, or --state-dir of the server."
        ) from None
    return key


def _reason(error: Exception) -> str:
    return (error.strerror or "unreadable") if isinstance(error, OSError) else "not text"
