"""Desired state of one host, as the api hands it to the agent and the agent hands its part to the gate.

These are documents: plain strings and numbers, encoded by msgspec as JSON. :mod:`outgate.core.documents`
turns them into values and back, through the same parsers that judged them when they came in.
"""

from enum import StrEnum
from typing import Final

import msgspec

from outgate.model.measures import GateMeasures


class PortDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One port range; ``protocol`` is ``TCP``, ``UDP`` or None for both."""

    port: int
    end_port: int | None = None
    protocol: str | None = None


class CidrDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One CIDR rule and the grant its flows carry."""

    cidr: str
    grant: int
    ports: tuple[PortDocument, ...] = ()


class PolicyDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One policy revision. ``enforcement`` is an EnforcementMode; one that the reader does not know denies all."""

    id: str
    name: str
    number: int
    revision: int
    allow_all: bool = False
    allow_devbox_to_devbox: bool = False
    allow_agent_gateway: bool = False
    allow_mcp_gateway: bool = False
    allow_runloop_mirrors: bool = False
    allowed_hostnames: tuple[str, ...] = ()
    allowed_cidrs: tuple[CidrDocument, ...] = ()
    enforcement: str = "enforce"


class DesiredPhase(StrEnum):
    """What the api wants of a devbox."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    """No process, no link, no rule of it; its disk stays."""
    SHUTDOWN = "shutdown"


class ObjectForm(StrEnum):
    """What an object's bytes are, and so how they get into a devbox."""

    FILE = "file"
    GZIP = "gzip"
    TAR = "tar"
    TGZ = "tgz"


class FileMountDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="file"):
    """A file with ``content`` at ``target``, which is relative to the user's home unless it begins with ``/``."""

    target: str
    content: str


class ObjectMountDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="object"):
    """A stored object at ``target``: an archive is unpacked into that directory, anything else is that file."""

    object_id: str
    target: str
    form: ObjectForm


class CodeMountDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="code"):
    """A clone of the repository at ``url`` in directory ``target`` of the user's home.

    ``token`` is the credential that git is given for this one clone; in the store it is sealed.
    """

    url: str
    target: str
    ref: str | None = None
    token: str | None = None
    install_command: str | None = None


MountDocument = FileMountDocument | ObjectMountDocument | CodeMountDocument


BUILD_COMPLETE: Final = "build_complete"
"""The shutdown reason of a build that made its image."""


class BuildDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What makes a sandbox the build of a blueprint: first ``dockerfile``, then the mounts, then the commands.

    The image that it makes is named by the sandbox's id. ``context_object_id`` is a stored tgz archive.
    """

    dockerfile: str | None = None
    build_args: dict[str, str] = {}
    context_object_id: str | None = None
    setup_commands: tuple[str, ...] = ()
    time_limit_s: int = 3600


class DevboxDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One devbox as wanted. ``generation`` counts its boots; a higher one means boot again, on the same disk.

    ``mounts`` are made once, in the first boot. ``secrets`` gives environment variables the names of secrets; their
    values are in ``environment`` when a host reads this, and nowhere when it is stored.
    """

    id: str
    account_id: str
    policy_id: str
    phase: DesiredPhase
    image: str = "stock"
    generation: int = 1
    environment: dict[str, str] = {}
    username: str = "user"
    uid: int = 1000
    launch_commands: tuple[str, ...] = ()
    entrypoint: str | None = None
    cpu_cores: float = 1.0
    memory_mib: int = 2048
    secrets: dict[str, str] = {}
    mounts: tuple[MountDocument, ...] = ()
    suspend_commands: tuple[str, ...] = ()
    suspend_deadline_ms: int = 30_000
    build: BuildDocument | None = None


class DesiredState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What changed up to ``revision``; everything when ``full``.

    ``policies`` holds each changed policy that a devbox of this host uses, and the policy of every
    devbox in ``devboxes``. ``forgotten`` names devboxes that ended and need not be reported any more.
    """

    revision: int
    full: bool
    policies: tuple[PolicyDocument, ...] = ()
    devboxes: tuple[DevboxDocument, ...] = ()
    forgotten: tuple[str, ...] = ()


class ObservedPhase(StrEnum):
    """Where a devbox is, as its host sees it. The names are those of the API's states."""

    PROVISIONING = "provisioning"
    INITIALIZING = "initializing"
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    FAILURE = "failure"
    SHUTDOWN = "shutdown"


class ObservedDevbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One devbox as its host sees it. ``detail`` is a sentence when something went wrong."""

    id: str
    phase: ObservedPhase
    time_ms: int
    generation: int = 1
    failure_reason: str | None = None
    shutdown_reason: str | None = None
    detail: str = ""


class HostWarning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A degraded state, with advice. ``code`` is stable (docs/warnings.md lists them all)."""

    code: str
    text: str


class HostCapacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a host has. ``architecture`` as uname(2) names the machine."""

    architecture: str
    cpu_cores: int
    memory_mib: int


class HostReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the agent tells the api: the desired-state revision in force, and what changed on the host.

    ``boot_id`` changes whenever the agent starts anew, so that the api knows to take all states again.
    ``ready`` is false until the agent enforces; the api is not ready before.
    """

    boot_id: str
    url: str
    """Where the api reaches this agent: ``unix:/path`` or ``http://host:port``."""
    enforced: int
    ready: bool = True
    devboxes: tuple[ObservedDevbox, ...] = ()
    warnings: tuple[HostWarning, ...] = ()
    capacity: HostCapacity | None = None


class BuildLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line of a build's log."""

    time_ms: int
    message: str
    level: str = "info"


class BuildLogPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Lines of one attempt's log, in order. ``number`` counts the parts, so that one sent again is known again."""

    attempt: int
    number: int
    lines: tuple[BuildLine, ...]


class ExecutionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Run ``command`` by a login shell in the devbox, or in its lasting shell ``shell_name``.

    ``execution_id`` makes the call repeatable.
    """

    execution_id: str
    command: str
    attach_stdin: bool = False
    shell_name: str | None = None


class ExecutionState(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An execution as its host sees it; ``stdout`` and ``stderr`` are the last lines asked for."""

    execution_id: str
    status: str
    exit_status: int | None = None
    stdout: str = ""
    stderr: str = ""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    shell_name: str | None = None


class DevboxActivity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What runs in a devbox on somebody's behalf. ``last_end_ms`` (Unix) is when the last of it ended, if any has."""

    running: int
    last_end_ms: int | None = None


class GateApply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="apply"):
    """agent → gate: the table as of ``revision``; everything when ``full``. Answered by GateApplied."""

    revision: int
    full: bool
    policies: tuple[PolicyDocument, ...] = ()
    policies_removed: tuple[str, ...] = ()
    devboxes: tuple["GateDevbox", ...] = ()
    devboxes_removed: tuple[str, ...] = ()
    host_addresses: tuple[str, ...] | None = None
    """The host's own addresses; None keeps what the gate has."""


class GateDevbox(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the gate must know of a devbox: its link, its addresses and its policy."""

    id: str
    account_id: str
    policy_id: str
    link: str
    address4: str
    address6: str | None = None


class GateApplied(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="applied"):
    """gate → agent: the table is in force, ``flows_reset`` relayed flows lost their rule and are gone."""

    revision: int
    flows_reset: int = 0
    error: str | None = None


class GateReady(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="ready"):
    """gate → agent: listening. Sent once, before anything else."""

    relay_port: int


class FlowRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """One decision that was carried out, or one finished flow (``bytes_*`` and ``duration_ms`` set).

    ``count`` of the same kind may be told as one, from ``began_ms`` (``time_ms`` when None) to ``time_ms``; what they
    counted is added up then.
    """

    time_ms: int
    devbox_id: str
    policy_id: str
    revision: int
    verdict: str
    reason: str
    point: str
    sentence: str = ""
    rule: str = ""
    name: str = ""
    address: str = ""
    port: int = 0
    protocol: str = ""
    bytes_out: int | None = None
    bytes_in: int | None = None
    duration_ms: int | None = None
    count: int = 1
    began_ms: int | None = None


class FlowBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """agent → api: records since the last batch, and how many were dropped for want of room.

    ``number`` counts the batches of one life of the agent (``boot_id``), so that one sent again is known again.
    """

    boot_id: str
    number: int
    records: tuple[FlowRecord, ...] = ()
    dropped: int = 0


class GateRecords(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="records"):
    """gate → agent: decisions since the last batch, and how many were dropped for want of room."""

    records: tuple[FlowRecord, ...]
    dropped: int = 0


class GateWarning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="warning"):
    """gate → agent: something is degraded (or, with an empty text, is well again)."""

    code: str
    text: str


GateToAgent = GateReady | GateApplied | GateRecords | GateWarning | GateMeasures
