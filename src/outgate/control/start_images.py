"""What a devbox starts from, as devbox creation needs it: the stock image, a blueprint or a snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class StartImage:
    """The image and what comes with it.

    ``image`` is the name of an image on ``host_id`` (None: every host has it); blueprints and snapshots store theirs
    under their own id. ``launch_parameters`` are the blueprint's, as given, and are used where the devbox says
    nothing itself. ``policy_id`` is the policy that the devbox inherits when neither its own nor the blueprint's
    launch parameters name one: that of a snapshot's source devbox (design decision 16). ``environment``, ``secrets``
    and ``metadata`` are inherited likewise, entry by entry.
    """

    image: str
    host_id: str | None = None
    blueprint_id: str | None = None
    snapshot_id: str | None = None
    policy_id: str | None = None
    launch_parameters: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


STOCK_START = StartImage("stock")
