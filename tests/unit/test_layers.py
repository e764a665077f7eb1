"""The layers of the design are a test: see [tool.importlinter] in pyproject.toml for the contracts."""

from importlinter.cli import lint_imports


def test_every_module_imports_only_from_layers_below_its_own() -> None:
    assert lint_imports(no_cache=True) == 0
