"""The options of every command that talks to the server: where it is, the key to show, the form of the answer."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate

from outgate.cli.connection import ApiKey, Json, StateDir, Url, connect
from outgate.cli.output import print_json, print_note
from outgate.client.public import JsonObject, OutgateClient


@dataclass(frozen=True, slots=True)
class Server:
    """The server as the options name it, and whether its answers are wanted as JSON."""

    json: bool
    url: str | None
    api_key: str | None
    state_dir: Path | None

    def connect(self) -> OutgateClient:
        """A client of it. Raises NoKeyError or SettingError; nothing is sent yet."""
        return connect(self.url, self.api_key, self.state_dir)

    def note(self, view: JsonObject, sentence: str) -> None:
        """``view`` as JSON when that is wanted, else ``sentence`` for the person at the terminal."""
        if self.json:
            print_json(view)
        else:
            print_note(sentence)


def with_server(command: Callable[Concatenate[Server, ...], None]) -> Callable[..., None]:
    """``command`` for typer: with its own parameters and, in place of its first, the options that make a Server."""

    def run(
        *, json: Json = False, url: Url = None, api_key: ApiKey = None, state_dir: StateDir = None, **own: Any
    ) -> None:
        command(Server(json, url, api_key, state_dir), **own)

    added = [p for p in inspect.signature(run).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters = [*list(inspect.signature(command).parameters.values())[1:], *added]
    functools.update_wrapper(run, command)
    # typer reads the signature for what there is, and the annotations for what it means.
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
