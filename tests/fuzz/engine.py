"""One target under atheris, in a process of its own: libFuzzer guided by which lines of Outgate and h11 run.

``python -m fuzz.engine TARGET [libFuzzer's arguments]``. Slow to start: every module is rewritten as it is imported.
"""

import importlib
import sys
import warnings
from typing import Any

_INSTRUMENTED = (
    "outgate.wire",
    "outgate.model",
    "outgate.runtime",
    "outgate.front",
    "outgate.dataplane.netlink",
    "h11",
)


def main() -> None:
    """Fuzz until the time is up; ends with status 77 at a find."""
    name, *arguments = sys.argv[1:]
    # Imported by name: the package is there for `make fuzz` alone.
    atheris: Any = importlib.import_module("atheris")
    # What an instrumented module leaves to the collector is nobody's business here.
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=list(_INSTRUMENTED)):
        targets: Any = importlib.import_module("fuzz.registry").TARGETS
    target = next(target for target in targets if target.name == name)
    # The engine starts itself again, by a shell and by this name, when it merges corpora.
    itself = f"{sys.executable} -m fuzz.engine {name}"
    atheris.Setup([itself, *arguments], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
