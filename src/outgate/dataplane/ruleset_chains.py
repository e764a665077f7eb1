"""The chains of the table, as templates. What they mean, hook by hook, is told in :mod:`outgate.dataplane.ruleset`.

nft takes the comments along without storing them; they are here for the one who reads the golden files.
"""

from string import Template
from typing import Final

# A policy's chain is the same text for good: what the policy allows is in its two maps and in @live. It looks at
# the original direction of the flow, so that it judges the packets of either end alike.
POLICY_CHAIN: Final = Template("""\
    chain $chain {
        meta l4proto { tcp, udp } ct mark set \\
            ct original ip daddr . meta l4proto . ct original proto-dst map @$cidr accept
        meta l4proto != { tcp, udp } ct mark set ct original ip daddr . meta l4proto map @$net accept
        meta mark set $grant_all
        meta mark @live ct mark set meta mark meta mark set $forward_mark accept
        meta mark set $grant_report
        meta mark @live goto report
        meta mark set $forward_mark
    }
""")

CHAINS: Final = Template("""\
    chain check_source {
        type filter hook prerouting priority raw; policy drop;
        iifname { "lo", "uplink" } accept
        iifname . ip saddr @source4 goto own_source4
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } goto neighbour
        # What conntrack leaves untracked besides neighbour discovery; devboxes need none of it.
        icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } drop
        icmpv6 type { nd-router-solicit, nd-router-advert, nd-redirect } drop
        iifname . ip6 saddr @source6 goto own_source6
        update @denied { iifname }
    }

    chain own_source4 {
        # Every kernel announces its groups when a link comes up; that is nobody's attempt at anything.
        ip protocol igmp drop
        ip daddr $gateway4 meta l4proto { tcp, udp } th dport 53 notrack
        meta mark set $forward_mark accept
    }

    chain own_source6 {
        ip6 daddr $gateway6 meta l4proto { tcp, udp } th dport 53 notrack
        meta mark set $forward_mark accept
    }

    chain neighbour {
        # RFC 4861 §7.1: a hop limit of 255 proves that nobody forwarded it.
        ip6 hoplimit != 255 drop
        ip6 saddr fe80::/10 accept
        iifname . ip6 saddr @source6 accept
        drop
    }

    chain judge {
        type filter hook prerouting priority mangle; policy drop;
        iifname { "lo", "uplink" } accept
        # Granted once: the forward hook asks whether the grant is still live, and judges the flow again if not.
        ct mark != 0x00000000 accept
        ct state invalid drop
        # Only neighbour discovery and lookups at the gateway are untracked; the forward hook refuses them.
        ct state untracked accept
        meta l4proto tcp ct state established socket wildcard 0 socket transparent 1 \\
            meta mark set $relay_mark accept
        # An ICMP error about a flow that no grant covers must not have that flow judged again.
        ct state related drop
        ct status dnat goto lookup
        meta l4proto tcp ct state new tcp flags & (fin | syn | rst | ack) != syn goto deny
        # An answer to a SYN cookie belongs to the relay; any other orphan is reset there.
        ct state established goto name_bound
        meta l4proto { tcp, udp } th dport 53 goto lookup
$tunnels_judge        ip daddr @floor4 goto deny
        ip daddr @host4 goto deny
        ip6 daddr @floor6 goto deny
        ip6 daddr @host6 goto deny
        ip6 daddr & ffff:ffff:ffff:: @host6to4 goto deny
        iifname vmap @devbox_policy
        goto name_bound
    }

    # The policy only reports, and no cell covers the flow: it passes under the grant in the packet's mark, by which
    # the flow log knows it.
    chain report {
        ct original ip daddr @special4 goto no_report
        ct original ip6 daddr @special6 goto no_report
        # By its name, which the relay reads; but no flow that the kernel carries already goes there.
        ct mark 0x00000000 meta l4proto tcp tcp dport != 853 iifname . ip daddr @pins4 goto no_report
        ct mark 0x00000000 meta l4proto tcp tcp dport != 853 iifname . ip6 daddr @pins6 goto no_report
        ct mark set meta mark meta mark set $forward_mark accept
    }

    chain no_report {
        meta mark set $forward_mark
    }

    chain lookup {
        ct status ! confirmed add @flows { iifname ct count over $flows_max } goto deny_limit
        # Marks the answer as one that has to go back through NAT.
        meta l4proto { tcp, udp } update @redirected4 { ip saddr . meta l4proto . th sport } accept
        meta l4proto { tcp, udp } update @redirected6 { ip6 saddr . meta l4proto . th sport } accept
        drop
    }

    chain redirect_lookups {
        type nat hook prerouting priority dstnat; policy accept;
        iifname { "lo", "uplink" } accept
        meta l4proto { tcp, udp } th dport 53 dnat ip to $gateway4
        meta l4proto { tcp, udp } th dport 53 dnat ip6 to $gateway6
    }

    chain untrack_answers {
        type filter hook output priority raw; policy accept;
        oifname { "lo", "uplink" } accept
        meta l4proto { tcp, udp } th sport != 53 accept
        meta l4proto { tcp, udp } ip daddr . meta l4proto . th dport @redirected4 accept
        meta l4proto { tcp, udp } ip6 daddr . meta l4proto . th dport @redirected6 accept
        ip saddr $gateway4 meta l4proto { tcp, udp } notrack
        ip6 saddr $gateway6 meta l4proto { tcp, udp } notrack
    }

    chain name_bound {
$tunnels_relay        # DNS over TLS and QUIC (RFC 7858, RFC 9250) would take lookups past the gate.
        meta l4proto { tcp, udp } th dport 853 goto deny
        meta l4proto tcp iifname . ip daddr @pins4 goto relay4
        meta l4proto tcp iifname . ip6 daddr @pins6 goto relay6
        # What QUIC clients understand best: they turn to TCP at once.
        udp dport 443 goto deny_quic
        goto deny
    }

    chain relay4 {
        ct status ! confirmed add @flows { iifname ct count over $flows_max } goto deny_limit
        meta l4proto tcp tproxy ip to :$relay_port meta mark set $relay_mark accept
        # Without a listener tproxy lets the packet pass, and it would be forwarded.
        drop
    }

    chain relay6 {
        ct status ! confirmed add @flows { iifname ct count over $flows_max } goto deny_limit
        meta l4proto tcp tproxy ip6 to :$relay_port meta mark set $relay_mark accept
        drop
    }

    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid,untracked drop
        ct status confirmed ct mark @live accept
        # A lock of its own: whatever the sets say, nothing goes from link to link.
        iifname != "uplink" oifname != "uplink" goto deny
        ct status ! confirmed ct mark @live add @flows { iifname ct count over $flows_max } goto deny_limit
        ct mark @live accept
        iifname "uplink" ct mark 0x00000000 drop
        ct mark 0x00000000 goto deny
        # The grant is dead. Flows of an allow_all were never inspected and die with it; others may have
        # another rule by now.
        ct mark & 0x80000000 == 0x00000000 jump judge_again
        iifname "uplink" goto refuse
        ct mark != 0xffffffff tcp flags & rst == rst jump bare_reset
        goto deny
    }

    chain judge_again {
        ct original ip daddr @floor4 return
        ct original ip daddr @host4 return
        ct original ip6 daddr @floor6 return
        ct original ip6 daddr @host6 return
        ct original ip6 daddr & ffff:ffff:ffff:: @host6to4 return
        iifname vmap @devbox_policy
        oifname vmap @devbox_policy
    }

    # One reset without a single byte of payload may leave each revoked flow, so that the far side learns of it.
    chain bare_reset {
$bare_resets
    }

    chain last_reset {
        ct mark set 0xffffffff
        accept
    }

    chain input {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept
        iifname "uplink" ct state established,related accept
        iifname "uplink" drop
        meta l4proto tcp meta mark $relay_mark accept
        ip daddr $gateway4 meta l4proto { tcp, udp } th dport 53 accept
        ip6 daddr $gateway6 meta l4proto { tcp, udp } th dport 53 accept
        goto deny
    }

    chain output {
        type filter hook output priority filter; policy accept;
        oifname != "uplink" accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        ip daddr @floor4 goto refuse
        ip daddr @host4 goto refuse
        ip6 daddr @floor6 goto refuse
        ip6 daddr @host6 goto refuse
        ip6 daddr & ffff:ffff:ffff:: @host6to4 goto refuse
    }

    chain deny {
        update @denied { iifname }
        update @denied_logged { iifname limit rate 10/second burst 50 packets } log prefix "denied" group 1
        goto refuse
    }

    chain deny_limit {
        update @denied { iifname }
        update @denied_logged { iifname limit rate 10/second burst 50 packets } log prefix "limit" group 1
        goto refuse
    }

    chain deny_quic {
        update @denied { iifname }
        update @denied_logged { iifname limit rate 10/second burst 50 packets } log prefix "denied" group 1
        reject with icmpx port-unreachable
    }

    chain refuse {
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }
""")

# Tunnels are found at the gateway, on the two ports of the web and nowhere else. The relay judges their names.
TUNNELS_JUDGE: Final = Template("""\
        ip daddr $gateway4 tcp dport { 80, 443 } goto name_bound
        ip6 daddr $gateway6 tcp dport { 80, 443 } goto name_bound
""")
TUNNELS_RELAY: Final = Template("""\
        ip daddr $gateway4 tcp dport { 80, 443 } goto relay4
        ip6 daddr $gateway6 tcp dport { 80, 443 } goto relay6
""")
