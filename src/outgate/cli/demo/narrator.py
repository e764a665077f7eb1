"""How the demo speaks: numbered steps, what was run, what came of it, and whether that was as it should be."""

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from outgate.cli.output import clean
from outgate.model.desired import FlowRecord


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

    def decided(self, record: FlowRecord) -> None:
        """A decision out of the log: what, where, by which rule; of a flow that ended, how much it moved."""
        place = f"{record.name or record.address}{f':{record.port}' if record.port else ''}"
        moved = "" if record.bytes_out is None else f"  ended, {record.bytes_out} bytes out, {record.bytes_in} in"
        style = "red" if record.verdict == "deny" else "green"
        why = record.rule or record.sentence
        line = f"{record.verdict.ljust(5)} {record.point.ljust(6)} {place}  {why}{moved}"
        self._line("  ", line, style)

    def _line(self, lead: str, text: str, style: str) -> None:
        self._console.print(Text(lead + clean(text), style=style), soft_wrap=True)
