"""Documentation that cannot rot: what it names exists, and what exists is documented."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from outgate.cli.main import COMMANDS, build_app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MODULES = sorted((ROOT / "src/outgate").rglob("*.py"))
_COMMAND = re.compile(r"^\s*(?:\$ )?outgate (?P<rest>[^#\n]*)", re.MULTILINE)
_MAKE = re.compile(r"`?make (?P<target>[a-z][a-z-]*)\b")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)#\s]+)(?:#[^)]*)?\)")


def _commands(text: str) -> Iterator[list[str]]:
    """The outgate command lines in fenced blocks."""
    for block in text.split("```")[1::2]:
        for match in _COMMAND.finditer(block):
            yield shlex.split(match["rest"].replace("…", ""))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_in_the_docs_is_one_that_the_program_takes(page: Path) -> None:
    top = get_command(build_app())
    for words in _commands(page.read_text("utf-8")):
        command, rest = top, list(words)
        while rest and isinstance(command, typer.core.TyperGroup):
            assert rest[0] in command.commands, f"outgate {shlex.join(words)}"
            command = command.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        # What follows `--` is a command for a devbox.
        own = rest[: rest.index("--")] if "--" in rest else rest
        for word in own:
            if word.startswith("-"):
                assert word.partition("=")[0] in options | {"--help"}, f"outgate {shlex.join(words)}"


def test_the_readme_names_every_top_level_command_or_a_page_that_does() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    missing = [name for name in COMMANDS if not re.search(rf"`?outgate [^`\n]*\b{name}\b|`{name}`", pages)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_in_the_docs_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {match["target"] for match in _MAKE.finditer(page.read_text("utf-8")) if "`make" in match[0]}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    for match in _LINK.finditer(page.read_text("utf-8")):
        target = match["target"]
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]
    groups += project["dependency-groups"].values()
    named = {re.split(r"[\[<>=~ ]", requirement)[0] for group in groups for requirement in group}
    page = (ROOT / "docs/dependencies.md").read_text("utf-8")
    assert [name for name in sorted(named) if f"`{name}`" not in page] == []


def _undocumented(module: Path) -> Iterator[str]:
    """Public classes, functions and methods without a docstring, by ``file:line name``.

    A method that overrides one of a base class is documented there; ``__init__`` belongs to its class.
    """
    tree = ast.parse(module.read_text("utf-8"))
    place = module.relative_to(ROOT)
    if ast.get_docstring(tree) is None:
        yield f"{place}:1 module"
    bodies: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
    for prefix, body in bodies:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            is_overload = isinstance(node, ast.FunctionDef) and any(
                isinstance(mark, ast.Name) and mark.id in ("overload", "override") for mark in node.decorator_list
            )
            if ast.get_docstring(node) is None and not is_overload:
                yield f"{place}:{node.lineno} {prefix}{node.name}"
            if isinstance(node, ast.ClassDef) and not prefix:
                bodies.append((f"{node.name}.", node.body))


def test_everything_public_says_what_it_is() -> None:
    assert [place for module in MODULES for place in _undocumented(module)] == []
