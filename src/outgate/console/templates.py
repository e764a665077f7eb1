"""Templates and static files: read once, before the process gives up its privileges, and served from memory."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

from jinja2 import DictLoader, Environment, StrictUndefined, select_autoescape

_MEDIA_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_TOLD_MAX: Final = ((1_000_000_000, "G"), (1_000_000, "M"), (1000, "k"))
_BYTES: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file. ``version`` is made of its bytes: under a URL with it, it never changes."""

    content: bytes
    media_type: str
    version: str


def _load_assets() -> dict[str, Asset]:
    assets = {}
    for entry in (resources.files("outgate.console") / "static").iterdir():
        content = entry.read_bytes()
        media_type = _MEDIA_TYPES[entry.name.rpartition(".")[2]]
        assets[entry.name] = Asset(content, media_type, hashlib.sha256(content).hexdigest()[:16])
    return assets


def _load_environment() -> Environment:
    texts = {
        entry.name: entry.read_text("utf-8") for entry in (resources.files("outgate.console") / "templates").iterdir()
    }
    environment = Environment(
        loader=DictLoader(texts),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"utc": show_time, "iso": iso_time, "count": show_count, "bytes": show_bytes}
    environment.globals["asset"] = lambda name: f"/console/static/{ASSETS[name].version}/{name}"
    for name in texts:
        environment.get_template(name)
    return environment


def show_time(time_ms: int) -> str:
    """Unix milliseconds as ``2026-01-31 12:00:00``, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso_time(time_ms: int) -> str:
    """Unix milliseconds as HTML's ``datetime`` attribute takes them."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")


def show_count(count: int) -> str:
    """``count`` in at most four characters or so: 950, 1.2k, 34M."""
    for size, unit in _TOLD_MAX:
        if count >= size:
            return f"{count / size:.1f}{unit}" if count < 10 * size else f"{count // size}{unit}"
    return str(count)


def show_bytes(count: int) -> str:
    """``count`` bytes in a unit that leaves few digits."""
    for size, unit in _BYTES:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


ASSETS: Final = _load_assets()
_ENVIRONMENT: Final = _load_environment()


def render_template(name: str, **values: Any) -> str:
    """The page or fragment of that name. Every value is escaped."""
    return _ENVIRONMENT.get_template(name).render(values)
