"""Which pattern covers a name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outgate.core.match import prepare_patterns
from outgate.model.names import DomainName, HostPattern, parse_domain_name, parse_host_pattern

CASES: dict[str, tuple[list[str], str, int | None]] = {
    "no pattern covers nothing": ([], "pypi.org", None),
    "an exact entry covers itself": (["pypi.org"], "pypi.org", 0),
    "an exact entry ignores case and the trailing dot": (["PyPI.org."], "pypi.org", 0),
    "an exact entry covers nothing below itself": (["pypi.org"], "files.pypi.org", None),
    "an exact entry covers nothing above itself": (["files.pypi.org"], "pypi.org", None),
    "a wildcard covers one label below": (["*.pypi.org"], "files.pypi.org", 0),
    "a wildcard covers any depth": (["*.pypi.org"], "a.b.c.d.pypi.org", 0),
    "a wildcard does not cover its apex": (["*.pypi.org"], "pypi.org", None),
    "a wildcard does not cover a name that merely ends alike": (["*.pypi.org"], "evilpypi.org", None),
    "a wildcard does not cover a look-alike with a hyphen": (["*.pypi.org"], "files-pypi.org", None),
    "a wildcard does not cover its own name as a prefix": (["*.pypi.org"], "pypi.org.evil.example", None),
    "a wildcard does not cover its sibling": (["*.pypi.org"], "files.pypi.com", None),
    "a wildcard over a top-level domain covers all below": (["*.com"], "a.b.com", 0),
    "an exact entry beats a wildcard that is listed first": (["*.pypi.org", "files.pypi.org"], "files.pypi.org", 1),
    "the longest wildcard wins": (["*.org", "*.b.pypi.org", "*.pypi.org"], "a.b.pypi.org", 1),
    "a shorter wildcard serves where the longer does not reach": (["*.b.pypi.org", "*.org"], "b.pypi.org", 1),
    "of equal entries the first listed wins": (["a.b", "A.b", "a.b."], "a.b", 0),
    "of equal wildcards the first listed wins": (["*.a.b", "*.A.b"], "x.a.b", 0),
    "exact and wildcard of one name stand side by side": (["*.a.b", "a.b"], "a.b", 1),
    "a single label": (["localhost"], "localhost", 0),
}


@pytest.mark.parametrize(("patterns", "name", "position"), CASES.values(), ids=CASES.keys())
def test_find(patterns: list[str], name: str, position: int | None) -> None:
    index = prepare_patterns(map(parse_host_pattern, patterns))
    assert index.find(parse_domain_name(name)) == position


labels = st.sampled_from(["a", "b", "c", "ab", "a-b"])
domain_names = st.lists(labels, min_size=1, max_size=4).map(lambda parts: parse_domain_name(".".join(parts)))
patterns_of_names = st.builds(
    lambda name, is_wildcard: HostPattern(name, is_wildcard, spelling=name), domain_names, st.booleans()
)


def covers(pattern: HostPattern, name: DomainName) -> bool:
    """The definition, label by label."""
    own, asked = pattern.name.split("."), name.split(".")
    return len(asked) > len(own) and asked[-len(own) :] == own if pattern.is_wildcard else asked == own


@given(st.lists(patterns_of_names, max_size=8), domain_names)
def test_found_exactly_when_the_definition_covers_it_and_then_the_most_specific(
    patterns: list[HostPattern], name: DomainName
) -> None:
    position = prepare_patterns(patterns).find(name)
    covering = [i for i, pattern in enumerate(patterns) if covers(pattern, name)]
    best = min(covering, key=lambda i: (patterns[i].is_wildcard, -len(patterns[i].name), i), default=None)
    assert position == best


@given(domain_names, st.text(alphabet="abcxyz019-", min_size=1, max_size=8))
def test_no_pattern_covers_a_name_that_only_looks_alike(name: DomainName, glued: str) -> None:
    """``evil`` + ``pypi.org`` has the letters of ``*.pypi.org`` at its end, not its labels."""
    index = prepare_patterns([parse_host_pattern(name), parse_host_pattern(f"*.{name}")])
    assert index.find(DomainName(glued + name)) is None
    assert index.find(DomainName(f"{name}.{glued}")) is None or f"{name}.{glued}".endswith(f".{name}")
