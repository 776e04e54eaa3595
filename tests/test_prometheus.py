"""The metrics over HTTP match the ledgers, and the dashboard and alerts use only existing metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("prometheus_client", reason="needs kevents[prometheus]")

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import kevents
import kevents.prometheus
from kevents.testing import FakeSink

POD = kevents.ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="secret-name", uid="u-1")
ROOT = Path(__file__).parent.parent
DASHBOARD = ROOT / "examples/grafana-dashboard.json"
ALERTS = ROOT / "examples/prometheus-alerts.yaml"
PAGE = ROOT / "docs/metrics.md"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def registry() -> CollectorRegistry:
    """An empty registry."""
    return CollectorRegistry()


@pytest.fixture
def url(registry: CollectorRegistry) -> Iterator[str]:
    """The URL at which Prometheus scrapes the registry."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


def scrape(url: str) -> Samples:
    """All samples, by name and labels. Each occurs once."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    assert len(families) == len({family.name for family in families})
    samples = [(s.name, frozenset(s.labels.items()), s.value) for family in families for s in family.samples]
    found = {(name, labels): value for name, labels, value in samples}
    assert len(found) == len(samples)
    return found


def of_name(samples: Samples, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one metric, by label values without broadcaster and watcher."""
    return {
        tuple(value for key, value in sorted(labels) if key not in ("broadcaster", "watcher")): value
        for (sample, labels), value in samples.items()
        if sample == name
    }


def record(broadcaster: kevents.EventBroadcaster) -> None:
    """Record 60 identical events and a refused one."""
    recorder = broadcaster.new_recorder("a-test")
    for _ in range(60):
        recorder.event(POD, "Normal", "Identical", "m")
    recorder.event(POD, "Weird", "Refused", "m")
    assert broadcaster.flush(10)


@pytest.fixture
def scraped(registry: CollectorRegistry, url: str) -> Samples:
    """A scrape after some events."""
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(FakeSink())
        kevents.prometheus.register(broadcaster, registry=registry)
        record(broadcaster)
        return scrape(url)


# -- samples of a scrape ---------------------------------------------------------------------------------------------


def test_scraped_over_http(registry: CollectorRegistry, url: str) -> None:
    """Every ledger has metrics with its name and unit that agree with the statistics."""
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(FakeSink())
        kevents.prometheus.register(broadcaster, registry=registry)
        record(broadcaster)
        samples = scrape(url)
        sink = broadcaster.statistics().watchers[0].sink
    assert sink is not None
    assert of_name(samples, "kevents_recorded_events_total") == {(): 61.0}
    assert of_name(samples, "kevents_published_events_total") == {(): 60.0}
    assert of_name(samples, "kevents_watcher_offered_events_total") == {(): 60.0}
    assert of_name(samples, "kevents_watcher_handled_events_total") == {(): 60.0}
    assert of_name(samples, "kevents_watcher_waiting_events") == {(): 0.0}
    assert of_name(samples, "kevents_sink_accepted_events_total") == {(): 60.0}
    assert of_name(samples, "kevents_sink_delivered_events_total") == {(): 25.0}
    assert of_name(samples, "kevents_sink_backlog_events") == {(): 0.0}
    writes = {("create",): float(sink.created), ("patch",): float(sink.patched)}
    assert of_name(samples, "kevents_sink_writes_total") == writes
    assert of_name(samples, "kevents_sink_server_available") == {(): 1.0}
    assert of_name(samples, "kevents_sink_oldest_age_seconds") == {(): 0.0}
    keys = {(cache,): float(size) for cache, size in sink.cache_sizes.items()}
    assert of_name(samples, "kevents_sink_cache_keys") == keys


def test_reasons_begin_with_zero(scraped: Samples) -> None:
    """Each possible reason has a sample of 0 before its first loss, so that Prometheus sees the increase."""
    refused = dict.fromkeys(
        ("invalid_reference", "invalid_message", "recursion", "shutdown", "no_watcher", "internal"), 0.0
    )
    lost = dict.fromkeys(("backlog_full", "rejected", "retries_exhausted", "expired", "internal", "shutdown"), 0.0)
    by_watcher = dict.fromkeys(("queue_full", "handler_failed", "shutdown"), 0.0)
    every = {(r,): v for r, v in {**refused, "invalid_type": 1.0}.items()}
    assert of_name(scraped, "kevents_refused_events_total") == every
    assert of_name(scraped, "kevents_watcher_dropped_events_total") == {(r,): v for r, v in by_watcher.items()}
    every = {(r,): v for r, v in {**lost, "spam_filtered": 35.0}.items()}
    assert of_name(scraped, "kevents_sink_dropped_events_total") == every
    told = {r for (r,) in of_name(scraped, "kevents_refused_events_total")} | set(lost) | set(by_watcher)
    assert told | {"spam_filtered"} == {reason.value for reason in kevents.DropReason}


def test_rejections_by_code(registry: CollectorRegistry, url: str) -> None:
    """Events that the server refuses are counted by HTTP status."""
    sink = FakeSink(faults=lambda request: kevents.StatusError(418, "Teapot"))
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(sink)
        kevents.prometheus.register(broadcaster, registry=registry)
        broadcaster.new_recorder("a-test").event(POD, "Normal", "R", "m")
        assert broadcaster.flush(10)
        rejected = of_name(scrape(url), "kevents_sink_rejected_events_total")
    assert rejected == {("400",): 0.0, ("403",): 0.0, ("404",): 0.0, ("418",): 1.0, ("422",): 0.0}


def test_closed_gate(registry: CollectorRegistry, url: str) -> None:
    """While the server is unreachable ``server_available`` is 0, and the age of the oldest write grows."""
    shut = FakeSink(faults=lambda request: kevents.UnavailableError("nobody there"))
    broadcaster = kevents.EventBroadcaster(sleep_duration=0.05)
    broadcaster.start_recording_to_sink(shut)
    kevents.prometheus.register(broadcaster, registry=registry)
    recorder = broadcaster.new_recorder("a-test")
    for number in range(20):
        recorder.event(kevents.ObjectReference(kind="Pod", name=f"p-{number}"), "Normal", "R", "m")
    broadcaster.flush(1.0)
    samples = scrape(url)
    broadcaster.shutdown(0.1)
    assert of_name(samples, "kevents_sink_server_available") == {(): 0.0}
    assert of_name(samples, "kevents_sink_backlog_events") == {(): 20.0}
    assert of_name(samples, "kevents_sink_oldest_age_seconds")[()] > 0


def test_no_object_in_a_label(scraped: Samples) -> None:
    """No label has the name of an object, because the number of objects is unbounded."""
    labels = {pair for _, labels in scraped for pair in labels}
    assert {key for key, _ in labels} == {"broadcaster", "watcher", "reason", "verb", "code", "cache"}
    assert [value for _, value in labels if POD.name in value] == []


def test_names_follow_the_conventions(registry: CollectorRegistry) -> None:
    """Counters end in _total and ages in _seconds. Every metric has the prefix and a help text."""
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(FakeSink())
        kevents.prometheus.register(broadcaster, registry=registry)
        record(broadcaster)
        families: list[Any] = list(registry.collect())
    assert [f.name for f in families if not re.fullmatch(r"kevents_[a-z]+(_[a-z]+)+", f.name)] == []
    assert [f.name for f in families if not f.documentation.endswith(".")] == []
    assert [s.name for f in families if f.type == "counter" for s in f.samples if not s.name.endswith("_total")] == []
    assert [f.name for f in families if "age" in f.name.split("_") and not f.name.endswith("_seconds")] == []


# -- registering -----------------------------------------------------------------------------------------------------


def test_several_broadcasters(registry: CollectorRegistry, url: str) -> None:
    """Broadcasters in one registry are distinguished by name, until they are removed."""
    with kevents.EventBroadcaster() as one, kevents.EventBroadcaster() as two:
        collector = kevents.prometheus.register(one, name="one", registry=registry)
        collector.add(two, "two")
        two.start_event_watcher(lambda event: None)
        two.new_recorder("a-test").event(POD, "Normal", "R", "m")
        both = {
            dict(labels)["broadcaster"]: v
            for (n, labels), v in scrape(url).items()
            if n.endswith("recorded_events_total")
        }
        collector.remove("two")
        collector.remove("never there")
        left = {dict(labels)["broadcaster"] for _, labels in scrape(url)}
    assert both == {"one": 0.0, "two": 1.0}
    assert left == {"one"}


def test_twice(registry: CollectorRegistry) -> None:
    """A second collector in a registry, or a second broadcaster with the same name, is refused."""
    with kevents.EventBroadcaster() as one, kevents.EventBroadcaster() as two:
        collector = kevents.prometheus.register(one, registry=registry)
        with pytest.raises(ValueError, match="add"):
            kevents.prometheus.register(two, registry=registry)
        with pytest.raises(ValueError, match="another broadcaster is registered as 'default'"):
            collector.add(two)
        collector.add(one)
        registry.unregister(collector)
        kevents.prometheus.register(two, registry=registry)


@pytest.mark.parametrize(
    "thing", [None, kevents.EventBroadcaster().new_recorder("c"), kevents.EventBroadcaster().start_event_watcher(print)]
)
def test_no_broadcaster(thing: Any, registry: CollectorRegistry) -> None:
    """An object without statistics is refused when it is added, because it would break every scrape."""
    with pytest.raises(TypeError, match="broadcaster must be one of kevents, not "):
        kevents.prometheus.register(thing, registry=registry)
    assert generate_latest(registry) == b""


@pytest.mark.parametrize("name", [None, 5, b"one"])
def test_no_name(name: Any, registry: CollectorRegistry) -> None:
    """A name that is not a string is refused when it is given."""
    with (
        kevents.EventBroadcaster() as broadcaster,
        pytest.raises(TypeError, match="name must be a text, not "),
    ):
        kevents.prometheus.register(broadcaster, name=name, registry=registry)
    assert generate_latest(registry) == b""


def test_half_a_character(registry: CollectorRegistry) -> None:
    """A name that cannot be encoded as UTF-8 is refused when it is given."""
    with kevents.EventBroadcaster() as broadcaster, pytest.raises(ValueError, match="is not valid Unicode"):
        kevents.prometheus.register(broadcaster, name="\ud800", registry=registry)
    assert generate_latest(registry) == b""


def test_after_shutdown(registry: CollectorRegistry, url: str) -> None:
    """The last figures remain after the broadcaster has ended."""
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(FakeSink())
        kevents.prometheus.register(broadcaster, registry=registry)
        record(broadcaster)
    assert of_name(scrape(url), "kevents_sink_delivered_events_total") == {(): 25.0}


def test_without_prometheus_client() -> None:
    """Without prometheus_client the import names the extra."""
    code = "import sys; sys.modules['prometheus_client'] = None; import kevents.prometheus"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "ImportError: kevents.prometheus needs prometheus_client: pip install 'kevents[prometheus]'" in done.stderr


# -- the dashboard, the alerts and the page --------------------------------------------------------------------------

LABELS = {"broadcaster", "watcher", "reason", "verb", "code", "cache"} | {"namespace", "pod"}
TOKEN = re.compile(
    r"""\s+ | [-+*/%^(){},@:] | [=!]~ | [=!<>]= | [=<>]
    | \[(?:\d+[smhdw]|\$__rate_interval)\] | "(?:[^"\\]|\\.)*" | \d+(?:\.\d+)? | [A-Za-z_]\w*""",
    re.VERBOSE,
)
WORDS = {"sum", "min", "max", "rate", "increase", "by", "or", "unless", "and"}
TEMPLATED = re.compile(r"\{\{[^}]*\}\}")


def panels() -> list[dict[str, Any]]:
    """The panels of the dashboard."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return found


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def expressions() -> list[str]:
    """Each PromQL expression of the dashboard and the alerts."""
    return [t["expr"] for panel in panels() for t in panel["targets"]] + [rule["expr"] for rule in rules()]


def tokens(expression: str) -> list[str]:
    """The tokens of a PromQL expression. Fails on leftover text or unbalanced brackets."""
    found = [match[0] for match in TOKEN.finditer(expression)]
    assert "".join(found) == expression
    depth: list[str] = []
    for token in found:
        if token in "({":
            depth.append({"(": ")", "{": "}"}[token])
        elif token in ")}":
            assert depth.pop() == token
    assert depth == []
    return [token for token in found if not token.isspace()]


@pytest.mark.parametrize("expression", expressions())
def test_expression(expression: str, scraped: Samples) -> None:
    """Each expression can be parsed, and uses only metrics and labels of a scrape."""
    words = {token for token in tokens(expression) if re.fullmatch(r"[A-Za-z_]\w*", token)}
    metrics = {word for word in words if word.startswith("kevents_")}
    assert metrics
    assert metrics - {name for name, _ in scraped} == set()
    assert words - metrics - WORDS - LABELS == set()
    for counter in re.findall(r"kevents_\w+_total", expression):
        assert re.search(rf"(?:rate|increase)\({counter}\b", expression), "a counter must be used with rate or increase"


@pytest.mark.parametrize("expression", expressions())
def test_expression_by_a_parser(expression: str) -> None:
    """An independent parser accepts each expression as PromQL."""
    parser = pytest.importorskip("promql_parser", reason="needs promql-parser")
    parser.parse(expression.replace("$__rate_interval", "1m"))


def test_dashboard() -> None:
    """Panels do not overlap, and all data comes from the selected data source."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert dashboard["schemaVersion"] >= 36
    assert [v["name"] for v in dashboard["templating"]["list"]] == ["datasource", "namespace", "broadcaster"]
    squares = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(squares) == len(set(squares))
    assert max(x for x, _ in squares) < 24
    assert len(dashboard["panels"]) == len({panel["id"] for panel in dashboard["panels"]})
    parts = [dashboard, *dashboard["panels"], *dashboard["templating"]["list"]]
    parts += [target for panel in dashboard["panels"] for target in panel["targets"]]
    sources = [part["datasource"] for part in parts if "datasource" in part]
    assert [s for s in sources if s != {"type": "prometheus", "uid": "${datasource}"}] == []
    queries = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    names = [v["name"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert queries == [f"label_values(kevents_recorded_events_total, {name})" for name in names]


def test_alerts() -> None:
    """Every alert has a severity and a description. Its templates use labels that its expression keeps."""
    assert len(rules()) == len({rule["alert"] for rule in rules()})
    for rule in rules():
        assert {"warning", "info"} >= {rule["labels"]["severity"]}
        text = " ".join(rule["annotations"].values())
        used = set(re.findall(r"\$labels\.(\w+)", text))
        assert used <= set(re.split(r"[,\s]+", re.search(r"by \(([^)]*)\)", rule["expr"])[1]))  # type: ignore[index]
        assert all(
            re.fullmatch(r"\{\{ \$(labels\.\w+|value \| humanizeDuration) \}\}", t) for t in TEMPLATED.findall(text)
        )
        assert set(rule["annotations"]) == {"summary", "description"}


def test_page(registry: CollectorRegistry) -> None:
    """The page lists every metric with its kind, its labels and its help text, and no other."""
    listed = re.findall(r"^- `(kevents_\w+)` \((\w+); ([^)]*)\): (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    expected = []
    with kevents.EventBroadcaster() as broadcaster:
        collector = kevents.prometheus.register(broadcaster, registry=registry)
        for family in collector.describe():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(f"`{label}`" for label in family._labelnames)  # type: ignore[attr-defined]
            expected.append((name, family.type, labels, family.documentation))
    assert listed == expected


def test_alerts_of_the_page() -> None:
    """The page explains every alert, in the order of the file."""
    assert re.findall(r"^\| `(Kevents\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == [
        rule["alert"] for rule in rules()
    ]
