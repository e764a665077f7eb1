"""Texts of rules: what the API takes, and what it then means. Needs Outgate's own API."""

from collections.abc import Iterable, Iterator
from typing import Any

import httpx

from attack.case import Group, case
from attack.scene import Ability, Rules, Scene
from attack.world import ALLOWED, ALSO, DENIED

OUTGATE = {Ability.OUTGATE}
PATH = "/v1/network-policies"


def _call(scene: Scene, path: str, body: str | dict[str, Any]) -> httpx.Response:
    daemon = scene.running.stage.daemon
    headers = {"Authorization": f"Bearer {daemon.api_key}", "Content-Type": "application/json"}
    content = {"content": body} if isinstance(body, str) else {"json": body}
    return httpx.post(daemon.url + path, headers=headers, timeout=30, **content)


def _named(scene: Scene, **egress: Any) -> dict[str, Any]:
    return {"name": scene.fresh_name().replace(".", "-"), **egress}


def a_policy_with_a_name_is_taken_and_opens_that_name(scene: Scene) -> bool:
    """The same call with a rule as it should be; and the shared box, whose policy came that way, reaches its host."""
    made = _call(scene, PATH, _named(scene, allowed_hostnames=[ALLOWED.name], allow_all=False))
    _call(scene, f"{PATH}/{made.json().get('id')}/delete", {})
    scene.python(f'http("{ALLOWED.address4}", "{ALLOWED.name}") if lookup("{ALLOWED.name}") else None')
    return made.status_code == 200 and any(scene.requests_naming(ALLOWED.name))


def _each_refused(scene: Scene, bodies: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Every one of ``bodies`` must be refused by a 400; what was taken is told, and deleted."""
    for body in bodies:
        made = _call(scene, PATH, _named(scene, **body))
        if made.status_code != 400:
            yield f"{body} was answered by {made.status_code} {made.text}"
            _call(scene, f"{PATH}/{made.json().get('id')}/delete", {})


@case(Group.STRINGS, control=a_policy_with_a_name_is_taken_and_opens_that_name, needs=OUTGATE)
def an_empty_list_means_nothing_and_not_everything(scene: Scene) -> Iterator[str]:
    """No rules, so nothing to check, so everything passes: allow lists that are off while they are empty."""
    box = scene.box_under(Rules(names=()))
    scene.begin()
    scene.python(
        f"""
        for name in ("{ALLOWED.name}", "{DENIED.name}"):
            lookup(name)
        for address in ("{ALLOWED.address4}", "{DENIED.address4}", "{DENIED.address6}"):
            tls(address, "{ALLOWED.name}", wait_s=1)
            http(address, "{DENIED.name}")
            udp(address, 7, wait_s=0.05)
        """,
        box=box,
    )
    yield from scene.packets_to(ALLOWED.address4, DENIED.address4, DENIED.address6)
    yield from scene.queries_for(ALLOWED.name)
    yield from scene.queries_for(DENIED.name)


@case(Group.STRINGS, control=a_policy_with_a_name_is_taken_and_opens_that_name, needs=OUTGATE)
def removing_the_last_name_closes_it_in_every_spelling(scene: Scene) -> Iterator[str]:
    """One name listed in two spellings, then in one, then in none: what was removed by text lives on in normal form."""
    twice = Rules(names=(ALLOWED.name.upper() + ".", ALLOWED.name, ALSO.name))
    box = scene.box_under(twice, fresh=True)
    scene.python(f'lookup("{ALLOWED.name}")', box=box)
    box.apply(Rules(names=(ALSO.name.upper(),)))
    scene.begin()
    scene.python(
        f"""
        lookup("{ALLOWED.name}")
        for name in ("{ALLOWED.name}", "{ALLOWED.name.upper()}."):
            tls("{ALLOWED.address4}", name, wait_s=1)
            http("{ALLOWED.address4}", name)
        """,
        box=box,
    )
    yield from scene.packets_to(ALLOWED.address4, ALLOWED.address6)
    yield from scene.queries_for(ALLOWED.name)


@case(Group.STRINGS, control=a_policy_with_a_name_is_taken_and_opens_that_name, needs=OUTGATE)
def a_rule_that_would_cover_everything_is_refused(scene: Scene) -> Iterator[str]:
    """Stars that some matchers expand to any name: everything must be asked for by its own word."""
    stars: tuple[str, ...] = (
        "*",
        "*.",
        "**",
        "*.*",
        "**.org",
        "*.*.org",
        "a.*.org",
        "foo*.org",
        "*org",
        ".org",
        "*..org",
        "?.org",
        "[a-z].org",
        ".",
        "",
    )
    yield from _each_refused(scene, ({"allowed_hostnames": [ALLOWED.name, star]} for star in stars))


@case(Group.STRINGS, control=a_policy_with_a_name_is_taken_and_opens_that_name, needs=OUTGATE)
def a_value_of_another_type_is_not_taken_for_true(scene: Scene) -> Iterator[str]:
    """Coercion: "false" is true in half of all languages, and a text is a list of its letters."""
    no_booleans: tuple[Any, ...] = ("false", "true", 1, 0, [], {}, "no", 1.0)
    bodies: list[dict[str, Any]] = [{"allow_all": value} for value in no_booleans]
    bodies += [
        {"allowed_hostnames": value}
        for value in (ALLOWED.name, {"0": ALLOWED.name}, [None], [[ALLOWED.name]], [1], True)
    ]
    bodies += [{"allow_devbox_to_devbox": "false"}, {"allowed_cidrs": ["45.45.45.20/32"]}, {"allowed_cidrs": {}}]
    yield from _each_refused(scene, bodies)


@case(Group.STRINGS, control=a_policy_with_a_name_is_taken_and_opens_that_name, needs=OUTGATE)
def a_misspelled_key_is_refused_and_not_dropped(scene: Scene) -> Iterator[str]:
    """A key that nobody reads is a rule that nobody enforces, or a restriction that silently is none."""
    keys: tuple[str, ...] = (
        "allow_hostnames",
        "allowed_hosts",
        "allowed_hostname",
        "allow_All",
        "allowAll",
        "allowed_hostnames ",
        "allowed_ports",
    )
    yield from _each_refused(scene, ({key: [ALLOWED.name]} for key in keys))


@case(Group.STRINGS, control=a_policy_with_a_name_is_taken_and_opens_that_name, needs=OUTGATE)
def a_rule_that_is_no_host_name_is_refused(scene: Scene) -> Iterator[str]:
    """URLs, ports, addresses in any spelling, letters beyond ASCII, control bytes: what another part would read differently."""
    texts: tuple[str, ...] = (
        f"https://{ALLOWED.name}",
        f"{ALLOWED.name}:443",
        f"{ALLOWED.name}/x",
        f"u@{ALLOWED.name}",
        f"{ALLOWED.name}..",
    )
    texts += (
        "45.45.45.20",
        "2a0f:4444::20",
        "[2a0f:4444::20]",
        "0x2d.0x2d.0x2d.0x14",
        "757935380",
        "0x2d2d2d14",
        "45.45.11540",
    )
    texts += (
        "\uff41llowed.example.org",
        "allowed\u3002example.org",
        "\u212aelvin.example.org",
        "b\u00fccher.example.org",
    )
    texts += (
        f"{ALLOWED.name}\0",
        f"{ALLOWED.name}\n",
        f" {ALLOWED.name}",
        f"{ALLOWED.name}\t{DENIED.name}",
        f"{ALLOWED.name},{DENIED.name}",
    )
    yield from _each_refused(scene, ({"allowed_hostnames": [text]} for text in texts))


@case(Group.STRINGS, control=a_policy_with_a_name_is_taken_and_opens_that_name, needs=OUTGATE)
def a_network_that_is_spelled_oddly_is_refused(scene: Scene) -> Iterator[str]:
    """Host bits, leading zeros, netmasks, short forms, IPv4 inside IPv6: read wider, or as another network, elsewhere."""
    odd: tuple[str, ...] = (
        "45.45.45.20/0",
        "45.45.45.20/24",
        "045.45.45.20/32",
        "45.45.45/24",
        "45.45.45.0/255.255.255.0",
        "45.45.45.0/0.0.0.255",
    )
    odd += (
        "45.45.45.0/+24",
        "45.45.45.0/ 24",
        "45.45.45.0/-1",
        "45.45.45.0/33",
        "::ffff:45.45.45.0/120",
        "0x2d.45.45.0/24",
        "757935380/32",
    )
    odd += (
        "",
        "/0",
        "any",
        "0/0",
        "*",
        "45.45.45.0-45.45.45.255",
        "45.45.45.0/24,0.0.0.0/0",
        "\u0664\u0665.45.45.0/24",
    )
    yield from _each_refused(scene, ({"allowed_cidrs": [{"cidr": text}]} for text in odd))


@case(Group.STRINGS, control=a_policy_with_a_name_is_taken_and_opens_that_name, needs=OUTGATE)
def a_key_that_comes_twice_is_shown_as_it_is_enforced(scene: Scene) -> Iterator[str]:
    """Duplicate keys in JSON (RFC 8259 §4): whoever checks reads the first, whoever stores the last."""
    bodies = (
        '{"name": "NAME", "allow_all": false, "allow_all": true}',
        '{"name": "NAME", "allow_all": true, "allow_all": false}',
        '{"name": "NAME", "allowed_hostnames": [], "allowed_hostnames": ["*"]}',
    )
    for body in bodies:
        made = _call(scene, PATH, body.replace("NAME", _named(scene)["name"]))
        if made.status_code == 400:
            continue
        policy = made.json()
        explained = _call(scene, f"{PATH}/{policy['id']}/explain", {"hostname": DENIED.name, "port": 443})
        is_shown_open = policy["egress"]["allow_all"]
        if (
            explained.json()["verdict"] != ("allow" if is_shown_open else "deny")
            or "*" in policy["egress"]["allowed_hostnames"]
        ):
            yield f"{body} became {policy['egress']}, and {explained.text}"
        _call(scene, f"{PATH}/{policy['id']}/delete", {})
