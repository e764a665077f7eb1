"""``outgate``: the one program.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage; ``devbox exec`` passes on the command's own.
"""

import sys

import typer

from outgate.cli import account, devbox, doctor, image, policy
from outgate.cli.demo import command as demo
from outgate.cli.flows import flows
from outgate.cli.output import print_error
from outgate.cli.processes import agent, api, serve, teardown
from outgate.errors import OutgateError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="outgate",
    help="An egress policy that holds, for sandboxes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage; devbox exec passes on the command's own.",
)
app.command()(serve)
app.command()(api)
app.command()(agent)
app.command()(teardown)
app.add_typer(policy.app, name="policy")
app.add_typer(devbox.app, name="devbox")
app.add_typer(account.app, name="account")
app.add_typer(account.key_app, name="key")
app.add_typer(image.app, name="image")
app.command()(flows)
app.command()(doctor.doctor)
app.command()(demo.demo)


def main() -> None:
    """Run the command line; ends the process."""
    try:
        app()
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
