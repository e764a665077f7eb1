"""The nft features that the ruleset uses, each as a small table body that a capable kernel loads."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RuleProbe:
    """A table body to try, why its feature is needed, and the kernel options it takes."""

    name: str
    why: str
    options: str
    body: str


RULE_PROBES: Final = (
    RuleProbe("nftables", "Rules are nftables rules.", "NF_TABLES, NF_TABLES_INET", ""),
    RuleProbe(
        "nft sets and verdict maps",
        "A devbox's policy and its pinned addresses are looked up in them.",
        "NF_TABLES",
        """
        map m { type ifname : verdict; }
        set s { type ifname . ipv4_addr; flags timeout; }
        chain c {
            iifname vmap @m
            iifname . ip saddr @s accept
        }
        """,
    ),
    RuleProbe(
        "nft concatenated intervals",
        "CIDR rules are looked up in them.",
        "NF_TABLES, NFT_CT (Linux 5.6 or later)",
        """
        map m { type ipv4_addr . inet_proto . inet_service : mark; flags interval; }
        chain c {
            meta l4proto tcp ct mark set ct original ip daddr . meta l4proto . ct original proto-dst map @m accept
        }
        """,
    ),
    RuleProbe(
        "nft ct mark",
        "A flow's mark says which rule allowed it.",
        "NFT_CT, NF_CONNTRACK_MARK",
        """
        set s { type mark; }
        chain c {
            ct mark @s accept
            ct state invalid,untracked drop
            ct status ! confirmed drop
        }
        """,
    ),
    RuleProbe(
        "nft tproxy",
        "Connections to names are handed to the relay by it.",
        "NFT_TPROXY",
        """
        chain c {
            type filter hook prerouting priority mangle; policy accept;
            meta l4proto tcp tproxy ip to :15001 meta mark set 0x1 accept
            meta l4proto tcp tproxy ip6 to :15001 meta mark set 0x1 accept
        }
        """,
    ),
    RuleProbe(
        "nft socket",
        "The relay's connections are recognised by it.",
        "NFT_SOCKET (Linux 5.12 or later)",
        """
        chain c {
            type filter hook prerouting priority mangle; policy accept;
            socket wildcard 0 socket transparent 1 accept
        }
        """,
    ),
    RuleProbe(
        "nft ct count",
        "It bounds the flows of one devbox.",
        "NFT_CONNLIMIT, NETFILTER_CONNCOUNT",
        """
        set s { type ifname; size 64; flags dynamic; }
        chain c {
            type filter hook prerouting priority mangle; policy accept;
            add @s { iifname ct count over 5 } drop
        }
        """,
    ),
    RuleProbe(
        "nft nat",
        "Lookups are brought to the gate, and devboxes leave with the host's address.",
        "NFT_NAT, NFT_MASQ",
        """
        chain d {
            type nat hook prerouting priority dstnat; policy accept;
            udp dport 53 dnat ip to 192.0.2.1
        }
        chain s {
            type nat hook postrouting priority srcnat; policy accept;
            iifname "x" masquerade
        }
        """,
    ),
    RuleProbe(
        "nft reject",
        "Denied connections fail at once because of it.",
        "NFT_REJECT_INET (Linux 5.9 or later)",
        """
        chain c {
            type filter hook prerouting priority mangle; policy accept;
            meta l4proto tcp reject with tcp reset
            reject with icmpx admin-prohibited
        }
        """,
    ),
    RuleProbe(
        "nft notrack",
        "Lookups at the gate take no room in the flow table.",
        "NFT_CT",
        """
        chain c {
            type filter hook prerouting priority raw; policy accept;
            udp dport 53 notrack
        }
        """,
    ),
    RuleProbe(
        "nft log and limit",
        "Denied packets are logged, each devbox's up to a limit.",
        "NFT_LOG, NFT_LIMIT",
        """
        set s { type ifname; size 64; flags dynamic,timeout; timeout 1m; }
        chain c {
            update @s { iifname limit rate 10/second burst 5 packets } log prefix "x" group 1
        }
        """,
    ),
)
