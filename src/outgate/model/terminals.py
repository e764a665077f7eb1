"""Terminals, as api and agent speak of them: one packet is one document.

A terminal is a program in a devbox with somebody outside at its streams: a pseudo terminal, or three pipes. The
agent starts it and hands the streams over as descriptors; the connection on which it was asked for stays open
beside them for signals and the exit status, and its end is the hang-up. A *PTY session* is a terminal with a name
that outlives its connections for a while.
"""

from enum import StrEnum

import msgspec

SIZE_MAX = 1000
"""Character cells a side, as the founding contract has it."""
COLS_DEFAULT = 80
ROWS_DEFAULT = 24
SESSION_IDLE_S_MAX = 1800
"""How long a PTY session is kept after the last client left it."""


class TerminalSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Character cells, 1 to SIZE_MAX each."""

    cols: int
    rows: int


SIZE_DEFAULT = TerminalSize(COLS_DEFAULT, ROWS_DEFAULT)


class PtyAction(StrEnum):
    """What can be done to a PTY session from beside it."""

    RESIZE = "resize"
    SIGNAL = "signal"
    CLOSE = "close"


class RunProgram(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="run"):
    """Run ``command`` (None: a login shell), on a pseudo terminal of ``size``, or on three pipes without one.

    Answered by TerminalOpened with one or three descriptors, later by TerminalEnded; or by Refused.
    """

    token: str
    devbox_id: str
    command: str | None = None
    environment: dict[str, str] = {}
    size: TerminalSize | None = None


class OpenPty(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="open_pty"):
    """Make the PTY session if it is not there. Answered by PtyState or Refused."""

    token: str
    devbox_id: str
    name: str
    size: TerminalSize | None = None


class AttachPty(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="attach_pty"):
    """Attach to the PTY session, made if it is not there. Answered as RunProgram is."""

    token: str
    devbox_id: str
    name: str
    size: TerminalSize | None = None


class ControlPty(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="control_pty"):
    """Do ``action`` to a PTY session that is there. Answered by PtyState or Refused."""

    token: str
    devbox_id: str
    name: str
    action: PtyAction
    size: TerminalSize | None = None
    signal: int = 0


class SendSignal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="signal"):
    """Send signal number ``signal`` to the foreground. Not answered."""

    signal: int


class RefusalCode(StrEnum):
    """Why the agent does not do it."""

    UNAUTHORIZED = "unauthorized"
    INVALID = "invalid"
    NOT_RUNNING = "devbox_not_running"
    NOT_FOUND = "pty_session_not_found"
    ATTACHED = "pty_session_attached"
    NO_FOREGROUND = "no_foreground"
    TOO_MANY = "too_many_terminals"
    FAILED = "terminal_failed"


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="refused"):
    """It was not done; ``message`` is a sentence."""

    code: RefusalCode
    message: str


class TerminalOpened(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="opened"):
    """The terminal runs; its descriptors come along. ``has_replay``: a packet of missed output follows."""

    has_replay: bool = False


class PtyState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="pty"):
    """A PTY session. ``is_created``: this very request made it."""

    size: TerminalSize
    is_created: bool = False
    is_attached: bool = False


class TerminalEnded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="ended"):
    """The program ended: 0 to 255, 128 + n after signal n."""

    exit_status: int


TerminalRequest = RunProgram | OpenPty | AttachPty | ControlPty
TerminalAnswer = Refused | TerminalOpened | PtyState | TerminalEnded
