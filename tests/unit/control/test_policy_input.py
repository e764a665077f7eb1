"""Every refusal of a policy, by its exact words: what is wrong, where, and what to write instead."""

import pytest

from outgate.control.policy_input import CidrInput, PolicyInput, PortInput, check_complexity, parse_policy_input
from outgate.core.compile import PolicyTooComplexError
from outgate.errors import InvalidValueError
from outgate.model.addresses import Protocol
from outgate.model.flow import HostContext

HOSTNAMES = {
    "": "A host name must not be empty; leave the entry out instead.",
    ".": "A host name must not be empty; leave the entry out instead.",
    "*": "'*' would cover every name; set allow_all instead, or list the names.",
    "*.": "'*' would cover every name; set allow_all instead, or list the names.",
    "**.example.com": "'**.example.com': one '*' already covers every depth; write '*.' once.",
    "*.*.example.com": "'*.*.example.com': one '*' already covers every depth; write '*.' once.",
    "a.*.example.com": "'a.*.example.com' has a '*' inside; a wildcard is allowed only as the whole first label,"
    " as in *.example.com.",
    "foo*.example.com": "'foo*.example.com' has a '*' inside; a wildcard is allowed only as the whole first label,"
    " as in *.example.com.",
    "exa mple.com": "'exa mple.com' holds white space; write one bare host name per entry.",
    "example.com\n": "'example.com\\n' holds a control character; write the bare host name.",
    "https://example.com": "'https://example.com' is a URL; write only its host name, without scheme and path.",
    "example.com/x": "'example.com/x' holds a path; write only the host name. (Networks go into allowed_cidrs.)",
    "example.com:443": "'example.com:443' holds a port; host names cover every TCP port, so write it without one.",
    "[::1]": "'[::1]' is an IPv6 address or holds brackets; a host name has neither.",
    "user@example.com": "'user@example.com' holds user information; write only the host name.",
    "192.0.2.1": "'192.0.2.1' is an address, not a host name; put addresses into allowed_cidrs.",
    "0x7f.1": "'0x7f.1' is an address, not a host name; put addresses into allowed_cidrs.",
    "2130706433": "'2130706433' is an address, not a host name; put addresses into allowed_cidrs.",
    "a..example.com": "'a..example.com' has an empty label; remove the extra dot.",
    "bücher.example": "'bücher.example' is not ASCII; write 'xn--bcher-kva.example' instead.",
    "*.bücher.example": "'*.bücher.example' is not ASCII; write '*.xn--bcher-kva.example' instead.",
    "a" * 64 + ".com": repr("a" * 64 + ".com") + " has a label of 64 characters; a label has at most 63.",
    "-a.example.com": "'-a.example.com' has the label '-a'; labels are letters, digits and inner hyphens.",
    "a!.example.com": "'a!.example.com' has the label 'a!'; labels are letters, digits and inner hyphens.",
}


@pytest.mark.parametrize("text", HOSTNAMES, ids=repr)
def test_refused_hostnames(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_policy_input(PolicyInput(allowed_hostnames=("ok.example", text)))
    assert caught.value.message == HOSTNAMES[text]
    assert caught.value.field == "allowed_hostnames[1]"
    assert caught.value.code == "invalid_hostname"


def test_a_name_of_254_characters_is_refused() -> None:
    name = ".".join(["a" * 63] * 3 + ["b" * 62])
    assert len(name) == 254
    with pytest.raises(InvalidValueError, match="is 254 characters long; a host name has at most 253"):
        parse_policy_input(PolicyInput(allowed_hostnames=(name,)))
    parse_policy_input(PolicyInput(allowed_hostnames=("*." + name[1:] + ".",)))


CIDRS = {
    "10.0.0.1/8": "'10.0.0.1/8' has host bits set; write 10.0.0.0/8 instead.",
    "10.0.0.1": "'10.0.0.1' lacks a prefix length; write 10.0.0.1/32 for this one address.",
    "2001:db8::/32": "'2001:db8::/32' is IPv6; allowed_cidrs takes IPv4 networks only.",
    "example.com/8": "'example.com/8' is not an IPv4 network; write it as in 192.0.2.0/24.",
    "10.0.0.0/33": "'10.0.0.0/33' has no valid prefix length; write /0 to /32 after the address.",
    "10.0.0.0/08": "'10.0.0.0/08' has no valid prefix length; write /0 to /32 after the address.",
    "10.0.0.0/255.0.0.0": "'10.0.0.0/255.0.0.0' has no valid prefix length; write /0 to /32 after the address.",
    "010.0.0.0/8": "'010.0.0.0/8' is not an IPv4 network; write it as in 192.0.2.0/24.",
    "": "'' is not an IPv4 network; write it as in 192.0.2.0/24.",
}


@pytest.mark.parametrize("text", CIDRS, ids=repr)
def test_refused_networks(text: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_policy_input(PolicyInput(allowed_cidrs=(CidrInput("192.0.2.0/24"), CidrInput(text))))
    assert (caught.value.message, caught.value.field) == (CIDRS[text], "allowed_cidrs[1].cidr")


@pytest.mark.parametrize(
    ("port", "field", "message"),
    [
        (PortInput(0), "port", "port is 0; ports are 1 to 65535."),
        (PortInput(65536), "port", "port is 65536; ports are 1 to 65535."),
        (PortInput(-1), "port", "port is -1; ports are 1 to 65535."),
        (PortInput(1, 65536), "end_port", "end_port is 65536; ports are 1 to 65535."),
        (
            PortInput(443, 80),
            "end_port",
            "end_port 80 lies before port 443; swap them, or leave end_port out for one port.",
        ),
    ],
)
def test_refused_ports(port: PortInput, field: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_policy_input(PolicyInput(allowed_cidrs=(CidrInput("192.0.2.0/24", (PortInput(1), port)),)))
    assert (caught.value.message, caught.value.field) == (message, f"allowed_cidrs[0].ports[1].{field}")


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        (
            PolicyInput(allowed_hostnames=("a.example",) * 1001),
            "allowed_hostnames",
            "allowed_hostnames has 1,001 entries; it takes at most 1,000.",
        ),
        (
            PolicyInput(allowed_cidrs=(CidrInput("192.0.2.0/24"),) * 1001),
            "allowed_cidrs",
            "allowed_cidrs has 1,001 entries; it takes at most 1,000.",
        ),
        (
            PolicyInput(allowed_cidrs=(CidrInput("192.0.2.0/24", (PortInput(1),) * 101),)),
            "allowed_cidrs[0].ports",
            "allowed_cidrs[0].ports has 101 entries; it takes at most 100.",
        ),
    ],
)
def test_refused_lengths(given: PolicyInput, field: str, message: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_policy_input(given)
    assert (caught.value.message, caught.value.field) == (message, field)


def test_absent_fields_stay_absent_and_empty_lists_do_not() -> None:
    absent = parse_policy_input(PolicyInput())
    assert (absent.name, absent.description, absent.flags) == (None, None, {})
    assert (absent.allowed_hostnames, absent.allowed_cidrs) == (None, None)
    empty = parse_policy_input(PolicyInput(description="", allow_all=False, allowed_hostnames=(), allowed_cidrs=()))
    assert (empty.description, empty.flags) == ("", {"allow_all": False})
    assert (empty.allowed_hostnames, empty.allowed_cidrs) == ((), ())


def test_rules_that_no_kernel_table_holds_are_refused() -> None:
    # 1,000 networks with 100 port ranges each: more cells than a policy may have.
    ports = tuple(PortInput(2 * n + 1, None, Protocol.TCP) for n in range(100))
    entries = tuple(CidrInput(f"{n // 250 + 20}.{n % 250}.0.0/16", ports) for n in range(1000))
    change = parse_policy_input(PolicyInput(allowed_cidrs=entries))
    assert change.allowed_cidrs is not None
    with pytest.raises(InvalidValueError) as caught:
        check_complexity(change.allowed_cidrs, HostContext())
    assert (caught.value.field, caught.value.code) == ("allowed_cidrs", PolicyTooComplexError.code)
    check_complexity(change.allowed_cidrs[:100], HostContext())
