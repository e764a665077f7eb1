"""Pumps carry what an execution writes from pipes to files, and hold its standard input open.

A program is given pipes and no file of the host's, which it could fill. Its output has to be one anyway: with a file,
``echo oops >/dev/stderr`` would open that file anew and cut off everything before. A pipe needs a reader that
outlives the daemon: one tee(1) per stream, in the sandbox's own control groups. So its time and memory are the
sandbox's, it dies with the sandbox at the latest, and it ends by itself when the last process that could write is gone.

What a file may grow to is the tee's file size limit (setrlimit(2), RLIMIT_FSIZE), which also bounds it while
no daemon runs. With SIGXFSZ ignored a write beyond it fails, and tee goes on to its other output, /dev/null
(POSIX, tee: a failed write to one file does not end the others): the rest is dropped, and the program that
writes neither waits nor dies.

The exit status comes through a pipe as well: one dd(1) takes its few bytes, whatever else is written there.

Standard input is held open by a sleep(1) whose standard output is the pipe's writing end. Its end is the
end of input; whoever wants to write opens the pipe through it, so a daemon's death ends no input.
"""

import array
import fcntl
import os
import re
import resource
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from outgate.runtime.base import SandboxError
from outgate.runtime.proc import ProcessRef, find_process, has_ended, is_asleep, parse_process_ref
from outgate.runtime.spawn import read_until_end, spawn

# Descriptors: 3 and 4 the pipes to read, 5 the one to hold open (or /dev/null), 6 the one of the status. Arguments: the
# two files, whether to hold, their limit in blocks of 512 bytes (POSIX, ulimit), the status file, the groups. The
# helpers are started before they are moved: a sandbox that is full of processes must still be helped. Each closes what
# is the others', else no end would ever be seen. The shell that started them stays outside of the groups and waits for
# them: an ended process counts against a sandbox's limit until its parent takes note, and there are hosts whose first
# process, which would inherit them, does that every few seconds only (measured: 100 executions in 4 s filled a
# sandbox of 200 processes, and one command in 70 could not be started), or never.
_SCRIPT = """\
(
if [ "$3" = hold ]; then sleep 2147483647 >&5 2>/dev/null 3<&- 4<&- 5>&- 6<&- & held=$!; fi
dd bs=8 count=1 status=none <&6 >"$5" 2>/dev/null 3<&- 4<&- 5>&- 6<&- & told=$!
trap '' XFSZ
ulimit -f "$4" || exit 1
tee -a -- "$1" <&3 >/dev/null 2>&1 3<&- 4<&- 5>&- 6<&- & pids=$!
tee -a -- "$2" <&4 >/dev/null 2>&1 3<&- 4<&- 5>&- 6<&- & pids="$pids $! $told${held:+ $held}"
shift 5
has_ended() { case $(cut -d ' ' -f 3 "/proc/$1/stat" 2>/dev/null) in [ZX] | '') true ;; *) false ;; esac; }
for group; do for pid in $pids; do echo "$pid" >"$group/cgroup.procs" || has_ended "$pid" || exit 1; done; done
echo $pids
exec >/dev/null 2>&1 3<&- 4<&- 5>&- 6<&-
wait
) &
"""
_START_S_MAX: Final = 10.0
"""They start within 2 ms."""
_LIMIT_BLOCK_BYTES: Final = 512
_REPORT: Final = re.compile(r"^(\d+ \d+ \d+(?: \d+)?)\n\Z", re.MULTILINE)
"""The last line. A complaint may come before it: the one that takes the status ends when it has it."""
_REPORT_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Pumps:
    """The helpers of one execution. ``stdin`` is None where standard input is /dev/null."""

    stdout: ProcessRef
    stderr: ProcessRef
    status: ProcessRef
    stdin: ProcessRef | None


@dataclass(frozen=True, slots=True)
class PumpFiles:
    """This process's descriptors of the pipes' far ends (``stdin_pipe``: where to write), and the files to fill."""

    stdout_pipe: int
    stdout: Path
    stderr_pipe: int
    stderr: Path
    status_pipe: int
    status: Path
    stdin_pipe: int | None
    stream_bytes_max: int


class StartingPumps:
    """Pumps on their way, so that the command can be started meanwhile; :meth:`finish` must be called."""

    def __init__(self, files: PumpFiles, groups: Sequence[Path]) -> None:
        mode = "drop" if files.stdin_pipe is None else "hold"
        blocks = str(files.stream_bytes_max // _LIMIT_BLOCK_BYTES)
        with Path(os.devnull).open("r+b") as nothing:
            self._report, told = os.pipe2(os.O_CLOEXEC)
            script = ("/bin/sh", "-c", _SCRIPT, "outgate-pumps")
            try:
                self._command = spawn(
                    (*script, files.stdout, files.stderr, mode, blocks, files.status, *groups),
                    {
                        0: nothing.fileno(),
                        1: told,
                        2: told,
                        3: files.stdout_pipe,
                        4: files.stderr_pipe,
                        5: nothing.fileno() if files.stdin_pipe is None else files.stdin_pipe,
                        6: files.status_pipe,
                    },
                )
            except BaseException:
                os.close(self._report)
                raise
            finally:
                os.close(told)

    def finish(self) -> Pumps:
        """The pumps, in the control groups ``groups``. They belong to nobody here: their starter's parent has ended.

        The caller holds the pipes' writing ends until then. Raises :class:`SandboxError`; those that run
        end when the pipes do.
        """
        try:
            self._command.wait(_START_S_MAX)
            said = read_until_end(self._report, _REPORT_BYTES_MAX, _START_S_MAX).decode(errors="replace")
        finally:
            os.close(self._report)
        pids = _REPORT.search(said)
        if pids is None:
            raise SandboxError(f"The helpers of an execution could not be started: {said}")
        return _pumps([find_process(int(pid)) for pid in pids[1].split()])


def _pumps(references: Sequence[ProcessRef | None]) -> Pumps:
    stdout, stderr, status, *rest = (reference or ProcessRef(0, 0) for reference in references)
    return Pumps(stdout, stderr, status, rest[0] if rest else None)


def render_pumps(pumps: Pumps) -> str:
    """The text by which :func:`parse_pumps` knows them again."""
    return "".join(f"{pump}\n" for pump in (pumps.stdout, pumps.stderr, pumps.status, pumps.stdin) if pump is not None)


def parse_pumps(text: str) -> Pumps:
    """What :func:`render_pumps` was given. Raises ValueError."""
    return _pumps([parse_process_ref(line) for line in text.splitlines()])


def stop_keeping(pump: ProcessRef) -> None:
    """Let the pump drop whatever it reads from now on. Does nothing when it is gone."""
    if find_process(pump.pid) == pump:
        with suppress(ProcessLookupError):
            resource.prlimit(pump.pid, resource.RLIMIT_FSIZE, (0, 0))


def is_drained(pump: ProcessRef) -> bool:
    """Whether everything that was in the pipe when this was called is in the file. False as long as nobody can tell.

    It is when the pump has ended, since it ends after its input; or when the pipe is empty and the pump sleeps
    afterwards: between reading and having written to a disk it does not sleep interruptibly. Until the shell that
    becomes the pump has put the pipe in its place, its standard input is nothing or /dev/null, and that says nothing.
    """
    if has_ended(pump):
        return True
    try:
        pipe = os.open(f"/proc/{pump.pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        waiting = array.array("i", [0])
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)
    except OSError:
        return False
    else:
        return waiting[0] == 0 and is_asleep(pump)
    finally:
        os.close(pipe)


def open_stdin(holder: ProcessRef) -> int | None:
    """A non-blocking descriptor to write an execution's input to, or None when its end was reached."""
    try:
        pipe = os.open(f"/proc/{holder.pid}/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if find_process(holder.pid) == holder:
        return pipe
    os.close(pipe)
    return None
