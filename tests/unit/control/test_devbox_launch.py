"""Launch parameters: what a devbox takes over from its blueprint, and what they come to."""

from collections.abc import Mapping

import pytest

from outgate.control.devbox_launch import (
    AfterIdle,
    Resources,
    merge_launch,
    parse_launch,
)
from outgate.control.devbox_states import OnIdle
from outgate.errors import InvalidValueError

IDLE = {"idle_time_seconds": 60, "on_idle": "suspend"}
OTHER_IDLE = {"idle_time_seconds": 90, "on_idle": "shutdown"}
HOOKS = {"suspend_commands": ["sync"]}


@pytest.mark.parametrize(
    ("own", "inherited", "expected"),
    [
        ({}, {"launch_commands": ["a"]}, {"launch_commands": ["a"]}),
        (
            {"launch_commands": ["b"]},
            {"launch_commands": ["a"], "architecture": "x86_64"},
            {"launch_commands": ["b"], "architecture": "x86_64"},
        ),
        ({"network_policy_id": None}, {"network_policy_id": "npol_a"}, {"network_policy_id": "npol_a"}),
        ({"network_policy_id": "npol_b"}, {"network_policy_id": "npol_a"}, {"network_policy_id": "npol_b"}),
        (
            {"resource_size_request": "LARGE"},
            {"resource_size_request": "CUSTOM_SIZE", "custom_cpu_cores": 3},
            {"resource_size_request": "LARGE"},
        ),
        (
            {"custom_cpu_cores": 4},
            {"resource_size_request": "CUSTOM_SIZE", "custom_cpu_cores": 3, "custom_gb_memory": 6},
            {"resource_size_request": "CUSTOM_SIZE", "custom_cpu_cores": 4, "custom_gb_memory": 6},
        ),
        ({"lifecycle": {"after_idle": OTHER_IDLE}}, {"after_idle": IDLE}, {"lifecycle": {"after_idle": OTHER_IDLE}}),
        (
            {"after_idle": OTHER_IDLE},
            {"lifecycle": {"after_idle": IDLE, "lifecycle_hooks": HOOKS}},
            {"after_idle": OTHER_IDLE, "lifecycle": {"lifecycle_hooks": HOOKS}},
        ),
        (
            {"lifecycle": {"lifecycle_hooks": HOOKS}},
            {"lifecycle": {"after_idle": IDLE}},
            {"lifecycle": {"lifecycle_hooks": HOOKS, "after_idle": IDLE}},
        ),
    ],
)
def test_merging(own: Mapping[str, object], inherited: Mapping[str, object], expected: Mapping[str, object]) -> None:
    merged = merge_launch(own, inherited)
    assert merged == expected
    launch = parse_launch(merged)
    if own.get("after_idle") == OTHER_IDLE or own.get("lifecycle") == {"after_idle": OTHER_IDLE}:
        assert launch.after_idle == AfterIdle(90, OnIdle.SHUTDOWN)


def test_both_places_of_after_idle_may_say_the_same() -> None:
    launch = parse_launch({"after_idle": IDLE, "lifecycle": {"after_idle": IDLE, "lifecycle_hooks": HOOKS}})
    assert launch.after_idle == AfterIdle(60, OnIdle.SUSPEND)
    assert (launch.suspend_commands, launch.suspend_deadline_ms) == (("sync",), 30_000)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, Resources(1.0, 2048, 4)),
        ({"resource_size_request": "XX_LARGE"}, Resources(8.0, 32_768, 16)),
        ({"resource_size_request": "CUSTOM_SIZE"}, Resources(1.0, 2048, 4)),
        (
            {
                "resource_size_request": "CUSTOM_SIZE",
                "custom_cpu_cores": 0.5,
                "custom_gb_memory": 1,
                "custom_disk_size": 2,
            },
            Resources(0.5, 1024, 2),
        ),
    ],
)
def test_sizes(given: Mapping[str, object], expected: Resources) -> None:
    assert parse_launch(given).resources == expected


def test_the_view_shows_what_holds() -> None:
    view = parse_launch({"launch_commands": ["a"], "available_ports": [80]}).view
    assert view == {
        "launch_commands": ["a"],
        "available_ports": [80],
        "resource_size_request": "SMALL",
        "keep_alive_time_seconds": 3600,
    }


def test_stored_parameters_of_a_wrong_type_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="cannot be used"):
        parse_launch({"launch_commands": 1})
