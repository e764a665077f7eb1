"""How the demo speaks: numbered steps, what was run, what came of it, and whether that was as it should be."""

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from outgate.cli.flow_lines import render_place
from outgate.cli.output import JsonObject, clean


class Narrator:
    """Prints the story and counts what did not behave."""

    def __init__(self, console: Console) -> None:
        """Speaks to ``console``."""
        self._console = console
        self._step = 0
        self.failures = 0

    def title(self, text: str) -> None:
        """A heading for the whole."""
        self._console.print(Rule(Text(text, style="bold")))

    def step(self, text: str) -> None:
        """Begin the next step."""
        self._step += 1
        self._console.print()
        self._console.print(Text(f"{self._step}. {text}", style="bold cyan"))

    def say(self, text: str) -> None:
        """A remark."""
        self._line("  ", text, "dim")

    def ran(self, command: str) -> None:
        """What is run inside the devbox."""
        self._line("  devbox$ ", command, "yellow")

    def came(self, output: str, *, lines_max: int = 6) -> None:
        """What it printed."""
        for line in output.strip().splitlines()[:lines_max]:
            self._line("    ", line, "")

    def expect(self, text: str, *, holds: bool) -> None:
        """A promise, and whether it held."""
        if not holds:
            self.failures += 1
        mark, style = ("  ✔ ", "green") if holds else ("  ✘ ", "bold red")
        self._line(mark, text, style)

    def decided(self, flow: JsonObject) -> None:
        """A decision out of the log: what, where, by which rule; of a flow that ended, how much it moved."""
        out, back = flow["bytes_out"], flow["bytes_in"]
        moved = "" if out is None else f"  ended, {out} bytes out, {back} in"
        verdict, point = str(flow["verdict"]), str(flow["enforcement_point"])
        style = "red" if verdict == "deny" else "green"
        line = f"{verdict.ljust(5)} {point.ljust(6)} {render_place(flow)}  {flow['rule'] or flow['sentence']}{moved}"
        self._line("  ", line, style)

    def _line(self, lead: str, text: str, style: str) -> None:
        self._console.print(Text(lead + clean(text), style=style), soft_wrap=True)
