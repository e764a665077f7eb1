"""Answers as responses."""

from collections.abc import Mapping
from typing import Final

import msgspec
from fastapi import Response

_ENCODER: Final = msgspec.json.Encoder()


def respond(view: msgspec.Struct, headers: Mapping[str, str] | None = None) -> Response:
    """200 with ``view`` as JSON."""
    return Response(_ENCODER.encode(view), headers=headers, media_type="application/json")
