"""``outgate``: the one program.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage; ``devbox exec`` passes on the command's own.
"""

import sys
from importlib import import_module
from typing import Annotated, Final

import typer

from outgate import __version__
from outgate.cli.output import print_error, print_line
from outgate.errors import OutgateError

EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

COMMANDS: Final = {
    "serve": "serve:serve",
    "api": "api:api",
    "agent": "agent:agent",
    "teardown": "teardown:teardown",
    "policy": "policy:app",
    "devbox": "devbox:app",
    "blueprint": "blueprint:app",
    "snapshot": "snapshot:app",
    "account": "account:app",
    "key": "account:key_app",
    "image": "image:app",
    "object": "object:app",
    "secret": "secret:app",
    "webhook": "webhook:app",
    "flows": "flows:flows",
    "tls": "tls:app",
    "doctor": "doctor.command:doctor",
    "demo": "demo.command:demo",
}
"""Where each command is. Only the one that is asked for is loaded: all of them take a second, most of them none."""


def build_app(wanted: str | None = None) -> typer.Typer:
    """The program with the command ``wanted``; with all of them when there is no such command (help, completion)."""
    app = typer.Typer(
        name="outgate",
        no_args_is_help=True,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage; devbox exec passes on the command's own.",
    )
    app.callback()(_outgate)
    for name in (wanted,) if wanted in COMMANDS else COMMANDS:
        module, _, attribute = COMMANDS[str(name)].partition(":")
        command = getattr(import_module(f"outgate.cli.{module}"), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _outgate(
    *, version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and end.")] = False
) -> None:
    """An egress policy that holds, for sandboxes."""
    if version:
        print_line(f"outgate {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; ends the process."""
    try:
        build_app(sys.argv[1] if len(sys.argv) > 1 else None)()
    except OutgateError as error:
        print_error(error.message)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe (head, say) has had enough; nothing is wrong.
        sys.stderr.close()
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
