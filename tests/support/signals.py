"""What this process does about signals, which its children inherit."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager


@contextmanager
def ignored(*numbers: signal.Signals) -> Iterator[None]:
    """Ignore these, as under nohup(1) and in the background of a script. For the main thread."""
    with ExitStack() as restore:
        for number in numbers:
            restore.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
        yield


def become_default() -> None:
    """Give every signal its default action back. For a child before its program begins."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)


def signal_set(status: str, field: str) -> set[int]:
    """Numbers in a field such as ``SigIgn`` of a ``/proc/PID/status``, without those that the C library keeps to itself.

    glibc's posix_spawn(3) leaves its two internal ones ignored; whoever uses them sets its own handler first.
    """
    (mask,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith(f"{field}:"))
    return {number for number in map(int, signal.valid_signals()) if mask >> (number - 1) & 1}
