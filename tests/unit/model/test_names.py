"""Host names and patterns: what is taken, in which normal form, and the exact words of every refusal."""

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from outgate.model.names import HostNameError, HostPattern, parse_domain_name, parse_host_pattern

EMPTY = "A host name must not be empty; leave the entry out instead."
LONE_WILDCARD = "'*' would cover every name; set allow_all instead, or list the names."
INNER_WILDCARD = "has a '*' inside; a wildcard is allowed only as the whole first label, as in *.example.com."
DOUBLE_WILDCARD = "one '*' already covers every depth; write '*.' once."
CONTROL = "holds a control character; write the bare host name."
SPACE = "holds white space; write one bare host name per entry."
URL = "is a URL; write only its host name, without scheme and path."
BRACKETS = "is an IPv6 address or holds brackets; a host name has neither."
PATH = "holds a path; write only the host name. (Networks go into allowed_cidrs.)"
PORT = "holds a port; host names cover every TCP port, so write it without one."
USER = "holds user information; write only the host name."
ADDRESS = "is an address, not a host name; put addresses into allowed_cidrs."
EMPTY_LABEL = "has an empty label; remove the extra dot."
NO_ADVICE = "is not ASCII; write the name's ASCII form (its A-label, xn--…)."
LABEL_63, LABEL_64 = "a" * 63, "a" * 64
NAME_253 = ".".join([LABEL_63, LABEL_63, LABEL_63, "a" * 61])
NAME_254 = ".".join([LABEL_63, LABEL_63, LABEL_63, "a" * 62])

REFUSALS = {
    "empty": ("", EMPTY),
    "only a dot": (".", EMPTY),
    "a wildcard over the root": ("*..", EMPTY),
    "lone star": ("*", LONE_WILDCARD),
    "lone star with a dot": ("*.", LONE_WILDCARD),
    "double star": ("**", f"'**': {DOUBLE_WILDCARD}"),
    "double star label": ("**.example.com", f"'**.example.com': {DOUBLE_WILDCARD}"),
    "two wildcard labels": ("*.*.example.com", f"'*.*.example.com': {DOUBLE_WILDCARD}"),
    "star in the middle": ("a.*.b", f"'a.*.b' {INNER_WILDCARD}"),
    "star behind a wildcard": ("*.a.*.b", f"'*.a.*.b' {INNER_WILDCARD}"),
    "star inside the first label": ("foo*.b", f"'foo*.b' {INNER_WILDCARD}"),
    "star without a dot": ("*foo.b", f"'*foo.b' {INNER_WILDCARD}"),
    "star at the end": ("foo.*", f"'foo.*' {INNER_WILDCARD}"),
    "space inside": ("a b.example", f"'a b.example' {SPACE}"),
    "space in front": (" a.example", f"' a.example' {SPACE}"),
    "no-break space": ("a\u00a0b.example", f"'a\\xa0b.example' {SPACE}"),
    "tab": ("a\tb", f"'a\\tb' {CONTROL}"),
    "line feed at the end": ("a.example\n", f"'a.example\\n' {CONTROL}"),
    "NUL": ("a.example\0.b", f"'a.example\\x00.b' {CONTROL}"),
    "delete": ("a\x7f", f"'a\\x7f' {CONTROL}"),
    "scheme": ("https://pypi.org", f"'https://pypi.org' {URL}"),
    "scheme behind a wildcard": ("*.https://pypi.org", f"'*.https://pypi.org' {URL}"),
    "path": ("pypi.org/simple", f"'pypi.org/simple' {PATH}"),
    "query": ("pypi.org?x", f"'pypi.org?x' {PATH}"),
    "fragment": ("pypi.org#x", f"'pypi.org#x' {PATH}"),
    "backslash": ("pypi.org\\x", f"'pypi.org\\\\x' {PATH}"),
    "network": ("10.0.0.0/8", f"'10.0.0.0/8' {PATH}"),
    "port": ("pypi.org:443", f"'pypi.org:443' {PORT}"),
    "port behind a wildcard": ("*.pypi.org:443", f"'*.pypi.org:443' {PORT}"),
    "address with port": ("192.0.2.1:80", f"'192.0.2.1:80' {PORT}"),
    "user information": ("me@pypi.org", f"'me@pypi.org' {USER}"),
    "IPv6 address": ("2001:db8::1", f"'2001:db8::1' {BRACKETS}"),
    "brackets": ("[::1]", f"'[::1]' {BRACKETS}"),
    "IPv4 address": ("192.0.2.1", f"'192.0.2.1' {ADDRESS}"),
    "IPv4 address with a trailing dot": ("192.0.2.1.", f"'192.0.2.1.' {ADDRESS}"),
    "IPv4 address as one number": ("3221225985", f"'3221225985' {ADDRESS}"),
    "IPv4 address in hexadecimal": ("0xC0.0.2.1", f"'0xC0.0.2.1' {ADDRESS}"),
    "short IPv4 address": ("127.1", f"'127.1' {ADDRESS}"),
    "IPv4 address behind a wildcard": ("*.192.0.2.1", f"'*.192.0.2.1' {ADDRESS}"),
    "umlaut": ("bücher.example", "'bücher.example' is not ASCII; write 'xn--bcher-kva.example' instead."),
    "umlaut behind a wildcard": (
        "*.bücher.example",
        "'*.bücher.example' is not ASCII; write '*.xn--bcher-kva.example' instead.",
    ),
    "ideographic full stop": ("pypi。org", "'pypi。org' is not ASCII; write 'pypi.org' instead."),
    "a letter that the two IDNA standards take differently": ("straße.example", f"'straße.example' {NO_ADVICE}"),
    "an address in full-width digits": ("\uff11\uff12\uff17.1", f"'\uff11\uff12\uff17.1' {NO_ADVICE}"),
    "a full-width slash": ("pypi.org\uff0fx", f"'pypi.org\uff0fx' {NO_ADVICE}"),
    "a lone surrogate": ("a\ud800.example", f"'a\\ud800.example' {NO_ADVICE}"),
    "a direction override": ("a\u202e.example", f"'a\\u202e.example' {NO_ADVICE}"),
    "too long for advice": ("é" * 254, f"'{'é' * 77}...' {NO_ADVICE}"),
    "two dots": ("a..example", f"'a..example' {EMPTY_LABEL}"),
    "leading dot": (".example.com", f"'.example.com' {EMPTY_LABEL}"),
    "two trailing dots": ("example.com..", f"'example.com..' {EMPTY_LABEL}"),
    "leading hyphen": ("-a.b", "'-a.b' has the label '-a'; labels are letters, digits and inner hyphens."),
    "trailing hyphen": ("a-.b", "'a-.b' has the label 'a-'; labels are letters, digits and inner hyphens."),
    "percent": ("a%2e.b", "'a%2e.b' has the label 'a%2e'; labels are letters, digits and inner hyphens."),
    "comma": ("a,b", "'a,b' has the label 'a,b'; labels are letters, digits and inner hyphens."),
    "label of 64": (LABEL_64, f"'{LABEL_64}' has a label of 64 characters; a label has at most 63."),
    "name of 254": (NAME_254, f"'{NAME_254[:77]}...' is 254 characters long; a host name has at most 253."),
    "wildcard before a name of 254": (
        f"*.{NAME_254}",
        f"'*.{NAME_254[:75]}...' is 254 characters long; a host name has at most 253.",
    ),
}


@pytest.mark.parametrize(("text", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_with_the_reason_and_what_to_write_instead(text: str, message: str) -> None:
    with pytest.raises(HostNameError) as refusal:
        parse_host_pattern(text)
    assert refusal.value.message == message
    assert refusal.value.code == "invalid_hostname"


@pytest.mark.parametrize("text", ["*", "*.example.com", "a.*.b", "", "192.0.2.1", "bücher.example"])
def test_a_name_is_no_pattern_and_no_address(text: str) -> None:
    with pytest.raises(HostNameError):
        parse_domain_name(text)


TAKEN = {
    "lower case": ("pypi.org", "pypi.org", False),
    "any case": ("PyPI.org", "pypi.org", False),
    "one trailing dot": ("pypi.org.", "pypi.org", False),
    "single label": ("string", "string", False),
    "wildcard": ("*.GitHub.com.", "github.com", True),
    "wildcard over a top-level domain": ("*.com", "com", True),
    "underscore": ("_acme.example.com", "_acme.example.com", False),
    "digits first": ("3com.example", "3com.example", False),
    "digits as a first label": ("1.example", "1.example", False),
    "inner hyphens": ("a--b.example", "a--b.example", False),
    "A-label": ("xn--bcher-kva.example", "xn--bcher-kva.example", False),
    "label of 63": (LABEL_63, LABEL_63, False),
    "name of 253": (NAME_253, NAME_253, False),
    "name of 253 with a trailing dot": (f"{NAME_253}.", NAME_253, False),
}


@pytest.mark.parametrize(("text", "name", "is_wildcard"), TAKEN.values(), ids=TAKEN.keys())
def test_taken_in_normal_form_with_the_spelling_kept(text: str, name: str, *, is_wildcard: bool) -> None:
    pattern = parse_host_pattern(text)
    assert (pattern.name, pattern.is_wildcard, pattern.spelling) == (name, is_wildcard, text)
    assert str(pattern) == ("*." if is_wildcard else "") + name


def test_patterns_are_equal_when_they_cover_the_same_names() -> None:
    assert parse_host_pattern("*.PyPI.org.") == parse_host_pattern("*.pypi.org")
    assert hash(parse_host_pattern("PyPI.org")) == hash(parse_host_pattern("pypi.org."))
    assert parse_host_pattern("*.pypi.org") != parse_host_pattern("pypi.org")


@given(st.text(max_size=300) | st.text(alphabet="a1-_.*:/[]@ xX", max_size=40))
@example("*.\ud800")
@example("xn--a")
def test_any_text_is_a_pattern_or_a_refusal_of_bounded_length(text: str) -> None:
    outcome = _parse_or_refuse(text)
    if isinstance(outcome, HostNameError):
        assert 0 < len(outcome.message) < 1000
        assert "\n" not in outcome.message
    else:
        assert outcome.spelling == text
        # The normal form is a fixed point, and it survives the round trip through text.
        assert parse_domain_name(outcome.name) == outcome.name
        assert parse_host_pattern(str(outcome)) == outcome


def _parse_or_refuse(text: str) -> HostPattern | HostNameError:
    try:
        return parse_host_pattern(text)
    except HostNameError as refusal:
        return refusal


@given(st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,10}[a-zA-Z0-9])?(\.[a-z]{2,5}){1,3}\.?", fullmatch=True))
def test_the_normal_form_is_idempotent_and_ignores_case_and_one_dot(text: str) -> None:
    name = parse_domain_name(text)
    assert parse_domain_name(name) == name
    assert parse_domain_name(text.upper()) == name
    assert parse_domain_name(text.removesuffix(".")) == name
    assert name == name.lower()
    assert not name.endswith(".")


def test_a_pattern_made_by_hand_reads_like_a_parsed_one() -> None:
    assert HostPattern(parse_domain_name("a.b"), is_wildcard=True, spelling="*.A.b") == parse_host_pattern("*.a.b")


def test_a_process_that_cannot_read_files_any_more_refuses_foreign_letters_all_the_same() -> None:
    program = """
import sys
from outgate.model.names import HostNameError, parse_domain_name
sys.meta_path.clear()
try:
    parse_domain_name("bücher.example")
except HostNameError as error:
    print(error.message)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "xn--bcher-kva.example" in ran.stdout
