"""The whole corpus: importing this module registers every case."""

import importlib
import pkgutil

from attack import cases
from attack.case import CORPUS, Case, Group

for module in pkgutil.iter_modules(cases.__path__):
    importlib.import_module(f"{cases.__name__}.{module.name}")


def whole() -> tuple[Case, ...]:
    """Every case, group by group."""
    order = list(Group)
    return tuple(sorted(CORPUS.values(), key=lambda case: (order.index(case.group), case.name)))
