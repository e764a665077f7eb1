"""Network namespaces that one bench run makes, and takes away again by name."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


def run(*command: str | Path, check: bool = True, text_in: str | None = None) -> str:
    """Standard output of ``command``; its standard error is part of the exception when it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, input=text_in, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@dataclass(slots=True)
class Namespace:
    """One namespace and the processes started in it."""

    name: str
    load_tool: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def command(self, *command: str | Path, cpu: int | None = None) -> list[str]:
        """``command`` as run inside; nsenter and not `ip netns exec`, which would remount /sys."""
        pin = [] if cpu is None else ["taskset", "-c", str(cpu)]
        return ["nsenter", f"--net=/run/netns/{self.name}", *pin, *map(str, command)]

    def run(self, *command: str | Path, cpu: int | None = None, check: bool = True) -> str:
        return run(*self.command(*command, cpu=cpu), check=check)

    def load(self, *arguments: str | Path, cpu: int | None = 0) -> dict[str, float]:
        """The JSON that one run of the load tool prints."""
        answer: dict[str, float] = json.loads(self.run(self.load_tool, *arguments, cpu=cpu))
        return answer

    def start(self, *command: str | Path, cpu: int | None = None, wait_for: str | None = None) -> subprocess.Popen[str]:
        """A process that lives until the run ends; returns once it has printed a line with ``wait_for``."""
        process = subprocess.Popen(
            self.command(*command, cpu=cpu),
            stdout=subprocess.PIPE if wait_for else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        if wait_for is not None:
            assert process.stdout is not None
            for line in process.stdout:
                if wait_for in line:
                    return process
            raise RuntimeError(f"{command[0]} ended before it printed {wait_for!r}")
        return process

    def sysctl(self, **values: int) -> None:
        """Set ``net.*`` values, written with ``__`` for the dots."""
        self.run("sysctl", "-qw", *(f"net.{k.replace('__', '.')}={v}" for k, v in values.items()))


@contextmanager
def namespaces(prefix: str, names: Sequence[str], load_tool: Path) -> Iterator[dict[str, Namespace]]:
    """Make ``prefix-name`` for each name, loopback up; kill what was started in them and remove them at the end."""
    made: dict[str, Namespace] = {}
    try:
        for name in names:
            run("ip", "netns", "add", f"{prefix}-{name}")
            made[name] = Namespace(f"{prefix}-{name}", load_tool)
            made[name].run("ip", "link", "set", "lo", "up")
        yield made
    finally:
        for namespace in made.values():
            for process in reversed(namespace.processes):
                process.terminate()
            for process in namespace.processes:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
            run("ip", "netns", "del", namespace.name, check=False)


def join(left: Namespace, right: Namespace, link: str, net: str) -> None:
    """A veth pair ``link`` (left, .1) and ``link`` (right, .2) in 10.80.``net``.0/30, up on both sides."""
    run("ip", "link", "add", link, "netns", left.name, "type", "veth", "peer", "name", link, "netns", right.name)
    for namespace, last in ((left, 1), (right, 2)):
        namespace.run("ip", "addr", "add", f"10.80.{net}.{last}/30", "dev", link)
        namespace.run("ip", "link", "set", link, "up")
