"""Which error codes the API can answer with, and by which status: read from the source that raises them."""

import ast
import importlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from outgate.api.errors import find_rendering
from outgate.api.validation import CODES
from outgate.control.configs import ConfigKind
from outgate.errors import InvalidValueError, OutgateError
from outgate.model.executions import FileProblem
from outgate.model.terminals import RefusalCode

SOURCE = Path(__file__).parents[2] / "src"
LAYERS = ("api", "control", "store", "core", "model")
"""Whose errors reach clients as they are."""
RAISING_FUNCTIONS: dict[str, type[OutgateError]] = {"refuse_while_used": InvalidValueError}
NEVER_ANSWERED = frozenset({"bad_setting", "host_not_capable"})
"""They end the process at its start."""
RENDERED_AT_ONCE = {
    "no_such_route": {404},
    "method_not_allowed": {405},
    # Whatever else the HTTP library refuses by itself.
    "http_error": {400},
    "internal": {500},
}
PASSED_ON: dict[str, set[int]] = {
    # Of hosts: control/host_places.py and api/pty_server.py say which of them clients see.
    **{problem.value: {400} for problem in FileProblem},
    FileProblem.MISSING.value: {404},
    "execution_not_found": {404},
    "stdin_not_attached": {400},
    "devbox_busy": {409},
    # The api's own token is never the wrong one.
    **{code.value: {400} for code in RefusalCode if code is not RefusalCode.UNAUTHORIZED},
    RefusalCode.NOT_FOUND.value: {404},
    RefusalCode.ATTACHED.value: {409},
    RefusalCode.FAILED.value: {503},
}


def find_codes() -> dict[str, set[int]]:
    """Every code with its statuses."""
    codes: defaultdict[str, set[int]] = defaultdict(set)
    for code in CODES.values():
        codes[code].add(400)
    for configured in ConfigKind:
        codes[f"{configured}_config_not_found"].add(404)
    for known in (RENDERED_AT_ONCE, PASSED_ON):
        for code, statuses in known.items():
            codes[code] |= statuses
    for path in _modules():
        module = importlib.import_module(".".join(path.relative_to(SOURCE).with_suffix("").parts))
        for code, kind in _raised(ast.parse(path.read_text("utf-8")), module):
            codes[code].add(find_rendering(kind).status)
    return {code: statuses for code, statuses in codes.items() if code not in NEVER_ANSWERED}


def _modules() -> Iterator[Path]:
    package = SOURCE / "outgate"
    yield package / "errors.py"
    for layer in LAYERS:
        yield from sorted(path for path in (package / layer).rglob("*.py") if "migrations" not in path.parts)


def _raised(tree: ast.Module, module: ModuleType) -> Iterator[tuple[str, type[OutgateError]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            kind = getattr(module, node.name, None)
            if isinstance(kind, type) and issubclass(kind, OutgateError):
                yield kind.code, kind
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found = RAISING_FUNCTIONS.get(node.func.id) or getattr(module, node.func.id, None)
            code = next((keyword.value for keyword in node.keywords if keyword.arg == "code"), None)
            is_error = isinstance(found, type) and issubclass(found, OutgateError)
            if is_error and isinstance(code, ast.Constant) and isinstance(code.value, str):
                assert isinstance(found, type)
                yield code.value, found
