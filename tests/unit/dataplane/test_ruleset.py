"""The ruleset, compared as a whole. To accept a change: ``OUTGATE_WRITE_GOLDEN=1 pytest``, then read the diff."""

import os
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import pytest

from outgate.core.ranges import embedding_networks
from outgate.dataplane.driver import RouterState, link_devbox
from outgate.dataplane.layout import choose_layout
from outgate.dataplane.pin_elements import Pin
from outgate.dataplane.ruleset import (
    RulesetOptions,
    floor_networks,
    render_new_policies,
    render_removed_policies,
    render_replacement,
)
from outgate.model.addresses import Protocol
from outgate.model.plan import AddressCell, PolicyPlan, PortCell, grant_of_allow_all, grant_of_report

GOLDEN = Path(__file__).parent / "golden"
LAYOUT = choose_layout("abc123", ())
OPTIONS = RulesetOptions(
    always_denied=(ip_network("127.0.0.0/8"), ip_network("169.254.0.0/16"), ip_network("fe80::/10")),
)


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("OUTGATE_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def address(text: str) -> int:
    return int(IPv4Address(text))


CIDR_PLAN = PolicyPlan(
    number=16,
    grant_all=grant_of_allow_all(16),
    live=frozenset({20, 21}),
    port_cells=(
        PortCell(address("45.45.46.0"), address("45.45.46.255"), Protocol.TCP, 443, 443, 20),
        PortCell(address("45.45.47.1"), address("45.45.47.1"), Protocol.UDP, 1, 65535, 21),
    ),
    address_cells=(AddressCell(address("45.45.47.1"), address("45.45.47.1"), 21),),
)
EVERYTHING_PLAN = PolicyPlan(17, grant_of_allow_all(17), frozenset({grant_of_allow_all(17)}), (), ())
REPORTING_PLAN = replace(CIDR_PLAN, live=frozenset({20, 21, grant_of_report(16)}))
FULL = RouterState(
    plans={17: EVERYTHING_PLAN, 16: CIDR_PLAN},
    devboxes={box.devbox_id: box for box in (link_devbox(LAYOUT, 1, "dbx_b", 17), link_devbox(LAYOUT, 0, "dbx_a", 16))},
    host_addresses=frozenset({ip_address("2a0f:4444::1"), ip_address("45.45.45.1")}),
)
PINS = (
    Pin("og0", ip_address("45.45.48.1"), 60_000, ("a.example.com", "b.example.com")),
    Pin("og0", ip_address("2a0f:4444:1::1"), 5_500, ("a.example.com",), has_more_names=True),
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("empty.nft", render_replacement(LAYOUT, OPTIONS, RouterState())),
        ("full.nft", render_replacement(LAYOUT, OPTIONS, FULL, PINS)),
        ("tunnels.nft", render_replacement(LAYOUT, replace(OPTIONS, has_tunnels=True), FULL, PINS)),
        ("reporting.nft", render_replacement(LAYOUT, OPTIONS, replace(FULL, plans={**FULL.plans, 16: REPORTING_PLAN}))),
        ("new_policies.nft", render_new_policies([18, 17])),
        ("removed_policies.nft", render_removed_policies([18, 17])),
    ],
    ids=lambda value: value.removesuffix(".nft") if value.endswith(".nft") else "",
)
def test_the_whole_text(name: str, text: str) -> None:
    check_golden(name, text)


def test_tunnels_add_four_lines_and_change_none() -> None:
    without = (GOLDEN / "full.nft").read_text(encoding="utf-8").splitlines()
    added = (GOLDEN / "tunnels.nft").read_text(encoding="utf-8").splitlines()
    for line in without:
        added.remove(line)
    assert [line.strip() for line in added] == [
        f"ip daddr {LAYOUT.gateway4} tcp dport {{ 80, 443 }} goto name_bound",
        f"ip6 daddr {LAYOUT.gateway6} tcp dport {{ 80, 443 }} goto name_bound",
        f"ip daddr {LAYOUT.gateway4} tcp dport {{ 80, 443 }} goto relay4",
        f"ip6 daddr {LAYOUT.gateway6} tcp dport {{ 80, 443 }} goto relay6",
    ]


def test_a_policy_that_only_reports_differs_by_one_live_grant() -> None:
    enforcing = render_replacement(LAYOUT, OPTIONS, FULL).splitlines()
    reporting = (GOLDEN / "reporting.nft").read_text(encoding="utf-8").splitlines()
    # Elements of a set end in commas but for the last one.
    assert {line.rstrip(",") for line in reporting} - {line.rstrip(",") for line in enforcing} == {
        f"            0x{grant_of_report(16):08x}"
    }


def test_the_text_does_not_depend_on_the_order_of_what_it_is_made_of() -> None:
    turned = RouterState(
        dict(reversed(list(FULL.plans.items()))),
        dict(reversed(list(FULL.devboxes.items()))),
        frozenset(FULL.host_addresses),
    )
    assert render_replacement(LAYOUT, OPTIONS, turned, PINS) == render_replacement(LAYOUT, OPTIONS, FULL, PINS)


def test_the_pools_are_part_of_the_floor_and_overlaps_are_joined() -> None:
    options = RulesetOptions((ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"), ip_network("fe80::/10")))

    floor4, floor6 = floor_networks(LAYOUT, options)

    assert floor4 == (ip_network("10.0.0.0/8"),)
    # A translator or tunnel end on the way would turn these forms back into a devbox's IPv4 address.
    assert set(floor6) == {LAYOUT.pool6, ip_network("fe80::/10"), *embedding_networks(LAYOUT.pool4)}
