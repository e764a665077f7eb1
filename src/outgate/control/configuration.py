"""What the api is told by its composition root. Nothing here is read from the environment."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from outgate.model.flow import HostContext

BODY_BYTES_MAX: Final = 1024 * 1024
REPORT_BYTES_MAX: Final = 16 * 1024 * 1024
"""A report names each devbox of a host with some 200 bytes; this is room for 50,000 and more."""


class DefaultPolicy(StrEnum):
    """What a devbox may reach when nobody gave it a policy."""

    ALLOW_ALL = "allow_all"
    DENY_ALL = "deny_all"


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Limits and choices of the api. The defaults are those of an installation without settings.

    ``enforce_wait_s_max``: how long an update's response waits for hosts to enforce it. ``context``: the
    operator's lists, for explanations (hosts judge with their own). ``waits_max``: long polls that one
    account may hold open at once.
    """

    default_policy: DefaultPolicy = DefaultPolicy.ALLOW_ALL
    policies_max: int = 100
    devboxes_max: int = 10_000
    enforce_wait_s_max: float = 2.0
    body_bytes_max: int = BODY_BYTES_MAX
    waits_max: int = 1000
    context: HostContext = field(default_factory=HostContext)
