"""What one api process did for webhooks, counted."""

from dataclasses import dataclass


@dataclass(slots=True)
class WebhookCounters:
    """Counts since the process began, but for ``pending``, which is how many deliveries wait in the store now.

    ``delivered`` and ``failed`` (given up) count deliveries, ``retries`` tries that failed and are to be repeated,
    ``dropped`` denials that were left out of a delivery because it was full, ``switched_off`` webhooks.
    """

    delivered: int = 0
    failed: int = 0
    retries: int = 0
    dropped: int = 0
    switched_off: int = 0
    pending: int = 0
