"""OpenTelemetry, where the operator has a collector. Without one nothing of its packages is imported."""

from typing import TYPE_CHECKING

from outgate.errors import SettingError

if TYPE_CHECKING:
    from outgate.api.otel_export import OtelTelemetry


def load_otel() -> "type[OtelTelemetry]":
    """What exports, with all of its code in memory. Raises :class:`SettingError` where the extra is not installed."""
    try:
        from outgate.api.otel_export import OtelTelemetry  # noqa: PLC0415 - its packages are an extra
    except ImportError as error:
        raise SettingError(
            f"OUTGATE_OTEL_ENDPOINT needs OpenTelemetry, which is not installed ({error.name} is missing); run"
            " `pip install outgate[otel]`, or unset it."
        ) from None
    return OtelTelemetry
