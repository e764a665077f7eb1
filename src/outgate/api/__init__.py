"""The REST surface: thin routers, one per noun, over :mod:`outgate.control`.

Bodies are pydantic models (``*_bodies``), answers are msgspec structs (``*_views``); the OpenAPI document is made
from both (``openapi``). Errors leave as JSON with a ``message`` (``errors``).
"""
