"""The packet filter that the filtering gateways share: nothing is forwarded but what a box's own chains accept.

As a careful operator would write it: both families, default drop, DNS to any server redirected to the gateway's own,
established flows first, nothing but DNS and what was redirected may speak to the gateway itself. What is not accepted is refused at once.
"""

from collections.abc import Iterable

from attack.scene import CidrRule, Rules
from attack.systems.namespace_box import Link, call

TABLE = "inet gateway"
SPECIAL4 = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4"),
    "240.0.0.0/4",
)
SPECIAL6 = ("::/127", "64:ff9b::/96", "2001:db8::/32", "fc00::/7", "fe80::/10", "ff00::/8")
"""Ranges of the registries of special-purpose addresses (RFC 6890): no name leads there."""

MAPPED = "::ffff:0:0/96"
"""Another of them; squid takes it for the whole of IPv4."""

_BASE = f"""
table {TABLE} {{
  map nat_of_box {{
    type ifname : verdict
  }}
  map forward_of_box {{
    type ifname : verdict
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat
    iifname "box*" meta l4proto {{ tcp, udp }} th dport 53 redirect
    iifname vmap @nat_of_box
  }}
  chain input {{
    type filter hook input priority filter; policy drop
    iifname != "box*" accept
    ct state established,related accept
    ct state invalid drop
    meta l4proto {{ tcp, udp }} th dport 53 accept
    ct status dnat accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    meta l4proto tcp reject with tcp reset
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop
    ct state invalid drop
    ct state established,related accept
    iifname vmap @forward_of_box
    iifname "box*" meta l4proto tcp reject with tcp reset
    iifname "box*" reject with icmpx admin-prohibited
  }}
}}
"""


def load() -> None:
    """Put the part that does not depend on boxes in force, in the calling thread's namespace."""
    call("nft", "-f", "-", given=_BASE)


def put_in_force(link: Link, *, nat: Iterable[str] = (), forward: Iterable[str] = (), sets: Iterable[str] = ()) -> None:
    """Replace the chains of the box behind ``link`` in one transaction: ``nat`` for what is redirected to the gateway
    instead of being forwarded, ``forward`` for what is accepted. ``sets`` are definitions that may be there already.
    """
    lines = [f"add set {TABLE} {definition}" for definition in sets]
    for kind, rules in (("nat", nat), ("forward", forward)):
        chain = f"{kind}_{link.interface}"
        lines += [f"add chain {TABLE} {chain}", f"flush chain {TABLE} {chain}"]
        lines += [f"add rule {TABLE} {chain} {rule}" for rule in rules]
        lines.append(f"add element {TABLE} {kind}_of_box {{ {link.interface} : jump {chain} }}")
    call("nft", "-f", "-", given="\n".join(lines) + "\n")


def accepted(rules: Rules) -> list[str]:
    """What ``rules`` allow by address or altogether."""
    return ["accept"] if rules.everything else [f"{match} accept" for rule in rules.cidrs for match in _matches(rule)]


def _matches(rule: CidrRule) -> Iterable[str]:
    address = f"{'ip6' if ':' in rule.cidr else 'ip'} daddr {rule.cidr}"
    protocols = ("tcp", "udp") if rule.protocol is None else (rule.protocol.lower(),)
    if not rule.ports:
        yield address if rule.protocol is None else f"{address} meta l4proto {protocols[0]}"
        return
    ports = ", ".join(str(port) for port in rule.ports)
    for protocol in protocols:
        yield f"{address} {protocol} dport {{ {ports} }}"
