"""buildah's command line, and what is made of its words."""

import shlex

import pytest

from outgate.agent.build_dockerfile import MISSING, find_reason, render_script


def _command(script: str) -> list[str]:
    words = shlex.split(script[script.index("buildah build") :])
    return words[: words.index("&&")]


def test_values_of_callers_are_arguments_and_nothing_else() -> None:
    words = _command(render_script({"A": "x'; rm -rf / #", "B": "$(id)\n--pull"}, {"TOKEN": "hush"}))
    assert words[:2] == ["buildah", "build"]
    assert "--build-arg=A=x'; rm -rf / #" in words
    assert "--secret=id=TOKEN,src=/build/secrets/TOKEN" in words
    assert not any("hush" in word for word in words)


def test_nothing_is_pulled_and_steps_run_in_the_builder_itself() -> None:
    words = _command(render_script({}, {}))
    assert {"--pull-never", "--isolation=chroot", "--network=host"} < set(words)


@pytest.mark.parametrize("name", ["ubuntu:24.04", "registry.example:5000/a/b:1"])
def test_an_unknown_base_says_how_to_make_it_known(name: str) -> None:
    reason = find_reason(f"Error: creating build container: {name}: image not known")
    assert reason is not None
    assert f"outgate image import PATH --name {name}" in reason
    assert f"outgate image alias {name}" in reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('Error: building at STEP "RUN false": exit status 1', 'building at STEP "RUN false": exit status 1'),
        (MISSING, MISSING),
        ("STEP 1/1: FROM nope", None),
        ("", None),
    ],
)
def test_the_last_error_is_the_reason(line: str, reason: str | None) -> None:
    assert find_reason(line) == reason
