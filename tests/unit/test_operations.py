"""What operators are given fits the program: documentation, dashboard and alerts name metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.process_collector import ProcessCollector

from outgate.control.metric_table import METRICS, MetricKind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text("utf-8")
DASHBOARD = json.loads((ROOT / "ops/grafana/outgate.json").read_text("utf-8"))
ALERTS = (ROOT / "ops/prometheus/alerts.yml").read_text("utf-8")
_METRIC = re.compile(r"\b(?:outgate|process)_[a-z0-9_]+\b")
_LABELS = re.compile(r"(?:by|without) \(([a-z_, ]+)\)|[{,](\w+)=~?\"")


def _series() -> dict[str, frozenset[str]]:
    """Every name that can be asked for, with its labels."""
    series: dict[str, frozenset[str]] = {}
    for metric in METRICS:
        labels = frozenset(metric.labels)
        if metric.kind is MetricKind.HISTOGRAM:
            series[f"{metric.name}_bucket"] = labels | {"le"}
            series |= dict.fromkeys((f"{metric.name}_sum", f"{metric.name}_count"), labels)
        else:
            series[metric.shown_name] = labels
    return series | dict.fromkeys(_process_metrics(), frozenset())


def _process_metrics() -> set[str]:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return {sample.name for family in registry.collect() for sample in family.samples}


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def _expressions() -> Iterator[str]:
    for panel in _panels():
        for target in panel["targets"]:
            yield target["expr"]
    yield from re.findall(r"^        expr: (?:>-\n)?((?:.+\n?)+?)        \w+:", ALERTS, re.MULTILINE)


def test_every_metric_is_documented_as_it_is_and_no_other() -> None:
    rows = re.findall(r"^\| `(outgate_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [
        (metric.shown_name, metric.kind.value, ", ".join(f"`{label}`" for label in metric.labels), metric.about)
        for metric in METRICS
    ]
    assert _process_metrics() <= set(_METRIC.findall(PAGE))


def test_expressions_ask_for_series_that_there_are_by_labels_that_they_have() -> None:
    series = _series()
    expressions = list(_expressions())
    assert len(expressions) > 50
    for expression in expressions:
        named = set(_METRIC.findall(expression))
        assert named <= series.keys(), expression
        assert named, expression
        labels = frozenset().union(*(series[name] for name in named)) | {"instance", "job"}
        used = {label.strip() for pair in _LABELS.findall(expression) for part in pair for label in part.split(",")}
        assert used - {""} <= labels, expression


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set(_METRIC.findall(" ".join(target["expr"] for panel in _panels() for target in panel["targets"])))
    missing = {
        metric.shown_name
        for metric in METRICS
        if not shown & {metric.shown_name, f"{metric.name}_bucket", f"{metric.name}_count"}
    }
    assert missing == {"outgate_build_info"}  # the alert of its absence is what it is for


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    identifiers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Enforcement and health", "Decisions", "DNS", "Relay", "Flow log", "API"]
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "host"]
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    for panel in _panels():
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_alerts_have_a_severity_and_say_what_is_wrong() -> None:
    rules = ALERTS.split("      - alert: ")[1:]
    names = [rule.splitlines()[0] for rule in rules]
    assert len(set(names)) == len(names) > 5
    for rule in rules:
        assert re.search(r"^        labels: \{severity: (critical|warning)\}$", rule, re.MULTILINE), rule
        assert re.search(r"^          summary: .{20,}$", rule, re.MULTILINE), rule
        for label in re.findall(r"\$labels\.(\w+)", rule):
            assert label == "instance" or any(label in metric.labels for metric in METRICS), rule
