"""pydantic's complaints in the words of this API: which field, what is wrong, what it should be."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic_core import ErrorDetails

from outgate.errors import InvalidValueError

_EXPECTED: Final = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "finite_number": "a finite number",
    "bool_parsing": "true or false",
    "int_parsing": "a whole number",
    "float_parsing": "a number",
}

_BOUNDS: Final = {
    "greater_than": "{field} must be more than {gt}.",
    "greater_than_equal": "{field} must be at least {ge}.",
    "less_than_equal": "{field} must be at most {le}.",
    "too_long": "{field} must have at most {max_length} entries.",
    "too_short": "{field} must have at least {min_length} entries.",
    "string_too_long": "{field} must have at most {max_length} characters.",
}


def describe_body_error(error: ErrorDetails) -> InvalidValueError:
    """The refusal of a JSON body, from pydantic's first error."""
    location = error["loc"]
    if error["type"] == "json_invalid":
        detail = error["ctx"]["error"]
        return InvalidValueError(f"The body is not valid JSON: {detail}.", code="invalid_json")
    if not location:
        return InvalidValueError("The body must be a JSON object.", code="invalid_json")
    return _describe(render_location(location), error)


def describe_parameter_error(error: Mapping[str, Any]) -> InvalidValueError:
    """The refusal of a path or query parameter, from FastAPI's first error."""
    # The first part says where it was found ("query"), the second its name.
    return _describe(render_location(error["loc"][1:]), error)


def render_location(location: Sequence[int | str]) -> str:
    """``allowed_cidrs[0].ports[1].port`` style."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def _describe(field: str, error: Mapping[str, Any]) -> InvalidValueError:
    kind = error["type"]
    code = CODES.get(kind)
    return InvalidValueError(_render(field, error), field=field, code=code)


CODES: Final = {"missing": "missing", "extra_forbidden": "unknown_field"} | dict.fromkeys(_EXPECTED, "wrong_type")
"""Kinds of pydantic's errors that have a code of their own."""


def _render(field: str, error: Mapping[str, Any]) -> str:
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "missing":
        return f"{field} is required."
    if kind == "extra_forbidden":
        return f"{field} is not a field of a rule; leaving it out silently could open more than was meant."
    if kind in _EXPECTED:
        return f"{field} must be {_EXPECTED[kind]}."
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(field=field, **context)
    if kind in ("enum", "literal_error"):
        return f"{field} must be one of {context['expected']}."
    return f"{field}: {error['msg']}."
