"""What the agent asks of a sandbox runtime, and the values it speaks in.

A runtime turns a :class:`SandboxSpec` into one running sandbox whose network namespace was made and
filtered beforehand by somebody else. Sandboxes and executions live on when the daemon that started
them dies; a new :class:`Runtime` object finds them again. All methods are safe to call again.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from pathlib import Path
from typing import Protocol

from outgate.errors import OutgateError
from outgate.model.executions import FileProblem, LogLine
from outgate.model.terminals import TerminalSize

EXIT_STATUS_KILLED = 137
"""128 + SIGKILL: what an execution is given that vanished without leaving a status (shells do the same)."""


class SandboxError(OutgateError):
    """The sandbox runtime could not do what it was asked; the message holds what it said."""

    code = "sandbox_failed"


class SandboxNotFoundError(SandboxError):
    """There is no such sandbox, or its first process is gone."""

    code = "sandbox_not_found"


class SandboxBusyError(SandboxError):
    """The sandbox has as much under way as it may; the same will succeed when some of it has ended."""

    code = "devbox_busy"


class StdinUnreadError(SandboxError):
    """Nobody reads the execution's standard input: it was closed, or the program has ended or does something else."""

    code = "stdin_unread"


class StdinNotAttachedError(SandboxError):
    """The execution was started without a standard input to write to."""

    code = "stdin_not_attached"


class BoxFileError(SandboxError):
    """A file in the sandbox cannot be read or written; ``problem`` is why, the message a sentence about it."""

    code = "file_failed"

    def __init__(self, problem: FileProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


class ExecutionNotFoundError(SandboxError):
    """The sandbox knows no execution of that id."""

    code = "execution_not_found"


class ImageNotFoundError(SandboxError):
    """No image or alias of that name was imported."""

    code = "image_not_found"


@dataclass(frozen=True, slots=True)
class SandboxUser:
    """Who runs things in the sandbox. ``name`` is entered in its /etc/passwd if it is not there."""

    name: str
    uid: int

    @property
    def home(self) -> str:
        """The home directory, where executions begin."""
        return "/root" if self.uid == 0 else f"/home/{self.name}"


ROOT = SandboxUser("root", 0)


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """One sandbox as wanted.

    ``generation`` counts the boots of the devbox and is given back by :meth:`Runtime.observe`.
    ``netns`` is the path of a network namespace owned by the host's user namespace. ``image`` is
    ``stock`` or the name, alias or digest of an imported image. A builder may mount inside itself, and finds
    what :mod:`outgate.runtime.build_stage` gives it to build images with.
    """

    devbox_id: str
    netns: Path
    nameservers: tuple[str, ...]
    user: SandboxUser
    image: str = "stock"
    generation: int = 1
    hostname: str = "devbox"
    environment: Mapping[str, str] = field(default_factory=dict)
    cpu_cores: float = 1.0
    memory_mib: int = 2048
    pids_max: int = 4096
    is_builder: bool = False


class SandboxPhase(StrEnum):
    """Whether the sandbox's first process lives."""

    RUNNING = "running"
    EXITED = "exited"
    """The first process is gone, or never ran; :meth:`Runtime.stop` clears away what is left."""


@dataclass(frozen=True, slots=True)
class ObservedSandbox:
    """One sandbox as it is. ``pid`` is the host's number of its first process while that runs.

    ``oom_kills`` counts the processes that the kernel killed because the memory limit was reached, in this boot.
    ``is_disk_full``: it can write nothing more, for want of bytes or of inodes.
    """

    devbox_id: str
    generation: int
    phase: SandboxPhase
    pid: int | None
    oom_kills: int
    is_disk_full: bool = False


class StdinMode(Enum):
    """What an execution reads from."""

    NULL = "null"
    PIPE = "pipe"
    """Whatever :meth:`Runtime.exec_write_stdin` is given, until :meth:`Runtime.exec_close_stdin`."""


class OutputStream(StrEnum):
    """One of the two streams that are kept."""

    STDOUT = "stdout"
    STDERR = "stderr"


class KillScope(Enum):
    """How far a kill reaches."""

    COMMAND = "command"
    """The command's own process; what it started in the background lives on."""
    GROUP = "group"
    """Its whole process group."""


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """Run ``command`` by a login shell in the user's home directory, in a process group of its own.

    ``user`` None means the sandbox's own user. ``shell`` names a shell that lasts: its commands run one after the
    other, each where the one before ended, with its variables and functions.
    """

    execution_id: str
    command: str
    stdin: StdinMode = StdinMode.NULL
    user: SandboxUser | None = None
    shell: str | None = None


@dataclass(frozen=True, slots=True)
class TerminalSpec:
    """Run ``command`` by a login shell in the user's home directory (None: that shell itself, interactively).

    ``size``: on a pseudo terminal of that size; None: on three pipes. ``environment`` is what whoever sits there
    brings along; what the sandbox was given wins.
    """

    command: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    size: TerminalSize | None = None


class ExecStatus(StrEnum):
    """Where an execution is. The names are those of the API."""

    QUEUED = "queued"
    """Its shell has other commands to run first."""
    RUNNING = "running"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class ExecState:
    """An execution. ``exit_status`` is set when completed: 0 to 255, 128 + n after signal n. ``shell``: its shell."""

    execution_id: str
    status: ExecStatus
    exit_status: int | None = None
    shell: str | None = None


@dataclass(frozen=True, slots=True)
class ExecOutput:
    """The last lines of one stream, bytes that are not UTF-8 replaced.

    ``truncated``: there was more, before them or after what the host had room to keep.
    """

    text: str
    truncated: bool


class Runtime(Protocol):
    """Desired state, one sandbox at a time."""

    async def start(self, spec: SandboxSpec) -> None:
        """Make the sandbox run; returns when its first process does.

        Does nothing when it runs already in this generation. Raises :class:`ImageNotFoundError` and
        :class:`SandboxError`; nothing is left behind then.
        """

    async def stop(self, devbox_id: str) -> None:
        """Kill everything in the sandbox and remove every trace of it, its disk and outputs included.

        Does nothing when there is none. Raises :class:`SandboxError` if something could not be removed.
        """

    async def halt(self, devbox_id: str) -> None:
        """Kill everything in the sandbox and keep its disk; it is observed as :attr:`SandboxPhase.EXITED` then.

        :meth:`start` with a higher generation boots it again on that disk. Does nothing when there is no
        such sandbox. Raises :class:`SandboxError` if something would not die.
        """

    async def seal(self, devbox_id: str, image_name: str) -> int:
        """Make image ``image_name`` out of the sandbox's disk as it is now; returns how many bytes it adds.

        That is what the image holds besides the one that the sandbox was first started from. A sandbox that
        runs is held still meanwhile; executions and stops wait (a :meth:`stop` breaks the sealing off).
        Does nothing when there is an image of that name. Raises :class:`SandboxNotFoundError`, and
        :class:`SandboxError` when it could not be done: no image is made then, and the sandbox is as it was.
        """

    async def seal_build(self, devbox_id: str, image_name: str) -> int:
        """Make image ``image_name`` out of what buildah left in a builder; returns how many bytes its new layers hold.

        Everything in the builder is killed first. Raises :class:`SandboxNotFoundError`, and :class:`SandboxError`
        when it left nothing that could be an image.
        """

    async def find_image_size(self, image_name: str) -> int | None:
        """What :meth:`seal` returned for that image; None when there is no such image."""

    async def remove_image(self, image_name: str) -> None:
        """Remove an image that :meth:`seal` made. Does nothing when there is none.

        Sandboxes that run on it, and images made from it, keep all they need.
        """

    async def observe(self) -> Mapping[str, ObservedSandbox]:
        """All sandboxes of this host by devbox id, as they are now, whoever started them."""

    async def exec_start(self, devbox_id: str, spec: ExecSpec) -> None:
        """Start an execution; returns when its process runs, or when it waits for its turn in a shell.

        Does nothing when the sandbox has an execution of that id already, running or completed.
        Raises :class:`SandboxNotFoundError`, :class:`SandboxBusyError` and :class:`SandboxError`.
        """

    async def exec_state(self, devbox_id: str, execution_id: str) -> ExecState:
        """The execution as it is now. Raises :class:`ExecutionNotFoundError`."""

    async def exec_wait(self, devbox_id: str, execution_id: str, timeout_s: float) -> ExecState:
        """The execution once it is completed, or as it is after ``timeout_s``.

        Everything that the command wrote is in its output when this says completed. Processes that it
        left in the background do not hold it up. Raises :class:`ExecutionNotFoundError`.
        """

    async def exec_ends(self, devbox_id: str) -> Mapping[str, int | None]:
        """All executions of the sandbox: when each ended, in Unix milliseconds; None while it runs. {} without any."""

    async def exec_output(self, devbox_id: str, execution_id: str, stream: OutputStream, last_n: int) -> ExecOutput:
        """The last ``last_n`` lines of a stream. Raises :class:`ExecutionNotFoundError`."""

    async def exec_stream(
        self, devbox_id: str, execution_id: str, stream: OutputStream, offset: int
    ) -> AsyncGenerator[bytes, None]:
        """A stream's bytes from ``offset`` on, as they come; ends with the execution, once all of them were given.

        To be closed (``aclose``) by whoever stops early. Raises :class:`ExecutionNotFoundError`.
        """

    async def exec_logs(self, devbox_id: str, execution_id: str | None, shell: str | None) -> tuple[LogLine, ...]:
        """What was run and what it said, oldest first, of one execution, of one shell's, or of all; bounded.

        Raises :class:`ExecutionNotFoundError` for an ``execution_id`` that is not known.
        """

    async def exec_kill(self, devbox_id: str, execution_id: str, scope: KillScope = KillScope.GROUP) -> None:
        """SIGKILL. Does nothing when it is completed. Raises :class:`ExecutionNotFoundError`."""

    async def exec_interrupt(self, devbox_id: str, execution_id: str) -> None:
        """SIGINT to the execution's process group, as Control-C on a terminal does. Raises as exec_write_stdin does."""

    async def exec_write_stdin(self, devbox_id: str, execution_id: str, data: bytes) -> None:
        """Hand ``data`` to an execution that was started with :attr:`StdinMode.PIPE`.

        Waits while the program does not read. Raises :class:`StdinUnreadError` when nobody can read it any more,
        :class:`StdinNotAttachedError`, :class:`ExecutionNotFoundError`.
        """

    async def exec_close_stdin(self, devbox_id: str, execution_id: str) -> None:
        """End of input for an execution that was started with :attr:`StdinMode.PIPE`. May be called twice."""

    def read_file(
        self, devbox_id: str, path: str, user: SandboxUser | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A file's bytes, read inside the sandbox as ``user`` (None: its own); relative to that user's home.

        Raises :class:`BoxFileError`, also from the iterator when the file cannot be read to its end, and
        :class:`SandboxNotFoundError`.
        """

    async def write_file(
        self, devbox_id: str, path: str, data: AsyncIterator[bytes], user: SandboxUser | None = None
    ) -> None:
        """Make ``path`` a file of ``data``, written inside the sandbox as ``user``, directories above it included.

        A file that is there keeps its mode and owner. One that was not is gone again when ``data`` breaks off.
        Raises :class:`BoxFileError`, :class:`SandboxNotFoundError`, and what ``data`` raises.
        """

    async def teardown(self) -> None:
        """Stop every sandbox and remove what this runtime made on the host, images excepted.

        Raises :class:`SandboxError` if something could not be removed; the rest is gone then all the same.
        """

    async def aclose(self) -> None:
        """Let go of what this object holds. Sandboxes and executions go on."""
