"""``outgate demo``: sets the stage, lets the story be told, clears the stage again."""

import importlib.util
import signal
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from outgate.cli.demo.cast import Cast, little_cast, real_cast
from outgate.cli.demo.daemon import Daemon
from outgate.cli.demo.internet import Internet
from outgate.cli.demo.leftovers import clear_stale, state_directory
from outgate.cli.demo.narrator import Narrator
from outgate.cli.output import console
from outgate.dataplane.netns import entered, list_namespaces
from outgate.errors import OutgateError

_NEEDED = ("runloop_api_client", "trustme")
_LISTEN = "127.0.0.1:18080"
"""Not the default port: on the real network a server may be listening there already."""


def demo(
    *,
    host: Annotated[
        str | None, typer.Option("--host", envvar="DEMO_HOST", help="Use the real network, and this name on it.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option("--ca-file", help="An authority that devboxes are to trust besides their own.")
    ] = None,
) -> None:
    """Watch a policy hold on a running devbox: in a little internet of its own, or with --host against a real one."""
    for module in _NEEDED:
        if importlib.util.find_spec(module) is None:
            raise OutgateError(f"The demo needs {module}; install it with: pip install 'outgate[demo]'")
    signal.signal(signal.SIGTERM, _interrupt)
    narrator = Narrator(console)
    clear_stale()
    with state_directory() as state_dir:
        instance = _play(narrator, state_dir, host, ca_file)
        narrator.step("Everything is removed")
        left = list_namespaces(f"outgate-{instance}")
        narrator.expect("no namespace of it is left", holds=not left)
    narrator.title("the policy held" if narrator.failures == 0 else f"{narrator.failures} things did not behave")
    if narrator.failures:
        raise typer.Exit(1)


def _play(narrator: Narrator, state_dir: Path, host: str | None, ca_file: Path | None) -> str:
    """Run the story; the instance id that the server had."""
    # Only now: they need the optional modules, which no other command does.
    from runloop_api_client import APIError, RunloopSDK  # noqa: PLC0415 - see above

    from outgate.cli.demo.story import Story  # noqa: PLC0415 - see above

    with ExitStack() as stack:
        daemon, cast = _set_stage(narrator, stack, state_dir, host, ca_file)
        narrator.say(f"outgate serve is ready after {daemon.start_s:.1f} s; its log is {daemon.log_file}")
        if cast.internet is not None:
            stack.enter_context(entered(cast.internet.namespaces.host))
        with RunloopSDK(bearer_token=daemon.api_key, base_url=daemon.url) as client:
            try:
                Story(cast, client, narrator).tell()
            except (APIError, OutgateError) as error:
                narrator.expect(f"{type(error).__name__}: {error}", holds=False)
                narrator.say("the last lines of the server's log:")
                narrator.came(daemon.log_tail(), lines_max=15)
        return daemon.settings.instance_id


def _set_stage(
    narrator: Narrator, stack: ExitStack, state_dir: Path, host: str | None, ca_file: Path | None
) -> tuple[Daemon, Cast]:
    if host is not None:
        narrator.title(f"Outgate, against {host} on the real network")
        return stack.enter_context(Daemon(state_dir, listen=_LISTEN)), real_cast(host, ca_file)
    narrator.title("Outgate, on a little internet of its own")
    internet = stack.enter_context(Internet())
    narrator.say("Two network namespaces: one is this host, the other answers for every address there is.")
    cast = little_cast(internet)
    daemon = Daemon(
        state_dir,
        namespace=internet.namespaces.host_path,
        listen=_LISTEN,
        environment={"OUTGATE_UPSTREAM_DNS": internet.resolver},
    )
    return stack.enter_context(daemon), cast


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM clears the stage as Ctrl-C does."""
    raise KeyboardInterrupt
