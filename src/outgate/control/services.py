"""What use-cases work with, bundled by the composition root."""

from dataclasses import dataclass, field
from functools import partial

from outgate.control.activity_notes import ActivityNotes
from outgate.control.attempts import Attempts
from outgate.control.callers import KnownKeys
from outgate.control.configuration import ApiSettings
from outgate.control.gateway import AgentGateway
from outgate.control.host_measures import HostMeasurements
from outgate.control.ids import IdMaker
from outgate.control.metrics import Metrics
from outgate.control.object_files import ObjectFiles
from outgate.control.presence import Presence
from outgate.control.secret_values import KeyRing
from outgate.control.telemetry import NoTelemetry, Telemetry
from outgate.control.waits import WaitLimit
from outgate.control.wakeups import Wakeups
from outgate.control.webhook_counters import WebhookCounters
from outgate.store.database import Database


@dataclass(frozen=True, slots=True)
class Services:
    """One api process's tools and short memory. Everything that must survive is in ``database``."""

    settings: ApiSettings
    database: Database
    gateway: AgentGateway
    keys: KeyRing
    objects: ObjectFiles
    ids: IdMaker = field(default_factory=IdMaker)
    wakeups: Wakeups = field(default_factory=Wakeups)
    presence: Presence = field(default_factory=Presence)
    fronts: Presence = field(default_factory=Presence)
    """The same of the hosts' tunnel fronts."""
    activity: ActivityNotes = field(default_factory=ActivityNotes)
    known_keys: KnownKeys = field(default_factory=KnownKeys)
    key_attempts: Attempts = field(default_factory=partial(Attempts, "API key"))
    host_attempts: Attempts = field(default_factory=partial(Attempts, "host token"))
    metrics_attempts: Attempts = field(default_factory=partial(Attempts, "metrics token"))
    terminal_attempts: Attempts = field(default_factory=partial(Attempts, "PTY token"))
    waits: WaitLimit = field(default_factory=WaitLimit)
    uploads: WaitLimit = field(default_factory=WaitLimit)
    metrics: Metrics = field(default_factory=Metrics)
    measurements: HostMeasurements = field(default_factory=HostMeasurements)
    telemetry: Telemetry = field(default_factory=NoTelemetry)
    webhooks: WebhookCounters = field(default_factory=WebhookCounters)

    @property
    def poll_s(self) -> float:
        """How often a wait looks at the store by itself: other processes' changes wake nobody here.

        50 ms where api processes share a database; on SQLite only command-line tools write besides us.
        """
        return 0.05 if self.database.is_shared else 1.0
