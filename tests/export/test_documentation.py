"""The documentation of the export's configuration and operation matches the code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kevents.export
from kevents._cli import main as _cli
from kevents.export._config.file import ConfigError, parse
from kevents.export._config.sinks import _TYPES
from kevents.export._model.text import duration, size
from kevents.export._route.routes import CONDITIONS
from kevents.export.prometheus import _FAMILIES, _LABELS
from tests.export.operate.test_check import CONFIG
from tests.export.route.test_routes import EVENT
from tests.project.test_docs import ROOT, Block, blocks, items, rows, section, spans, text_of

CONFIGURATION = "docs/export-configuration.md"
OPERATION = "docs/export-operation.md"


def subsection(heading: str) -> str:
    """Return the text under a heading of the second or third level, up to the next heading."""
    return re.split(r"\n##+ ", text_of(CONFIGURATION).split(f"# {heading}\n", 1)[1], maxsplit=1)[0]


def asked(text: str) -> tuple[int, set[str]]:
    """Return the number of errors, and the known keys from the error about an unknown key."""
    with pytest.raises(ConfigError) as error:
        parse(text)
    [line] = [line for line in error.value.lines if '"zzzz"' in line]
    return len(error.value.lines), set(re.findall(r'"(\w[\w-]*)"', line)) - {"zzzz"}


def shared_keys() -> str:
    """The text with the keys that HTTP sinks share."""
    return subsection("sinks").split("\nSinks that send HTTP requests", 1)[1]


ROUTE = '\n[[routes]]\nto = "a"\nall = true\n'
TABLES = {
    "cluster": "[cluster]\nzzzz = 1\n",
    "source": "[source]\nzzzz = 1\n",
    "enrich": "[enrich]\nzzzz = 1\n",
    "health": "[health]\nzzzz = 1\n",
    "The file's own keys": "zzzz = 1\n",
}
SINKS = {
    "file": 'path = "x"',
    "object-store": 'url = "s3://b"',
    "webhook": 'url = "http://x"',
    "otlp": 'endpoint = "http://x"',
    "loki": 'url = "http://x"',
    "elasticsearch": 'url = "http://x"',
    "splunk": 'url = "http://x"\ntoken = { env = "X" }',
    "slack": 'url = "https://x"',
    "teams": 'url = "https://x"',
}
COMMON = {"type", "batch", "queue", "when_full", "timeout"}


@pytest.mark.parametrize("heading", TABLES)
def test_keys_of_tables(heading: str) -> None:
    """The page lists exactly the keys of each table."""
    _, keys = asked(TABLES[heading] + '[sinks.a]\ntype = "stdout"\n' + ROUTE)
    more = {"cluster", "source", "enrich", "sinks", "routes", "health"} if "own" in heading else set()
    assert {key for key, _, _ in items(subsection(heading))} == keys - more


@pytest.mark.parametrize("kind", SINKS)
def test_keys_of_sinks(kind: str) -> None:
    """The page lists the keys of each kind of sink, those that HTTP sinks share included, and no other."""
    _, keys = asked(f'checkpoints = "c"\n[sinks.a]\ntype = "{kind}"\n{SINKS[kind]}\nzzzz = 1\n{ROUTE}')
    shared = {key for key, _, meaning in items(shared_keys()) if kind in spans(meaning.split(" For ")[1])}
    assert {key for key, _, _ in items(subsection(kind))} | shared == keys - COMMON


def test_types_of_sinks() -> None:
    """The page lists each type of sink, with its keys. The page of destinations has a row with each class."""
    [listed] = [spans(meaning) for key, _, meaning in items(subsection("sinks")) if key == "type"]
    assert listed == list(_TYPES)
    assert {*SINKS, "stdout"} == set(_TYPES)
    described = {name for cells in rows(section("docs/export-sinks.md", "Which one")) for name in spans(cells[0])}
    assert described | {"Sink"} == {name for name in kevents.export.__all__ if name.endswith("Sink")}


@pytest.mark.parametrize("table", ["batch", "queue"])
def test_keys_of_batches(table: str) -> None:
    """The page lists the limits of batches and queues."""
    _, keys = asked(f'[sinks.a]\ntype = "stdout"\n{table} = {{ zzzz = 1 }}\n{ROUTE}')
    text = re.split("\nIn `|\nSinks that", subsection("sinks").split(f"In `{table}`", 1)[1])[0]
    assert {key for key, _, _ in items(text)} == keys


def test_keys_of_all_sinks() -> None:
    """The page lists the keys that all sinks have."""
    assert {key for key, _, _ in items(subsection("sinks").split("\nIn `batch`", 1)[0])} == COMMON


def test_conditions() -> None:
    """The page lists every condition in the code's order, and the other keys of a route."""
    text = subsection("Routes")
    listed = [key for key, _, _ in items(text)]
    assert listed == ["to", "all", "stop", "id", *CONDITIONS]


DEFAULTS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("The file's own keys", "grace"): lambda config: config.grace,
    ("source", "start"): lambda config: config.source.start,
    ("source", "repeats"): lambda config: config.source.repeats,
    ("source", "event_life"): lambda config: config.source.event_life,
    ("enrich", "cache_size"): lambda config: config.enrich.cache_size,
    ("enrich", "top_owner"): lambda config: config.enrich.top_owner,
    ("enrich", "services"): lambda config: config.enrich.services,
    ("enrich", "qps"): lambda config: config.enrich.qps,
    ("enrich", "burst"): lambda config: config.enrich.burst,
    ("health", "stale_after"): lambda config: config.health.stale_after,
    ("health", "unacknowledged_after"): lambda config: config.health.unacknowledged_after,
    ("sinks", "when_full"): lambda config: config.sinks["a"].when_full,
    ("sinks", "timeout"): lambda config: config.sinks["a"].timeout,
    ("sinks", "max_age"): lambda config: config.sinks["a"].batch.max_age,
    ("file", "compress"): lambda config: config.sinks["a"].options["compress"],
    ("file", "level"): lambda config: config.sinks["a"].options["level"],
    ("file", "rotate_size"): lambda config: config.sinks["a"].options["max_bytes"],
    ("file", "rotate_age"): lambda config: config.sinks["a"].options["max_age"],
}


@pytest.mark.parametrize(("heading", "key"), DEFAULTS)
def test_defaults(heading: str, key: str) -> None:
    """The defaults on the page are the real ones."""
    [default] = [default for name, default, _ in items(subsection(heading)) if name == key]
    text = spans(default)[0]
    value = DEFAULTS[heading, key](parse(f'[sinks.a]\ntype = "file"\npath = "x"\n{ROUTE}'))
    assert value in _meanings(json.loads(text))


def _meanings(value: Any) -> list[Any]:
    """Return the possible meanings of a value: itself, a duration, a size."""
    found = [value]
    for read in (duration, size) if isinstance(value, str) else ():
        try:
            found.append(read(value))
        except ValueError:
            continue
    return found


def test_shown_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors on the page are those that `check` prints."""
    monkeypatch.chdir(tmp_path)
    config = (
        '[source]\n\n[sinks.archive]\ntype = "file"\npath = "x"\ncompress = "gzipp"\n\n[[routes]]\nto = "archive"\n'
    )
    Path("cfg.toml").write_text(config + 'kindd = "Pod"\n', encoding="utf-8")
    assert _cli.main(["check", "-c", "cfg.toml"]) == 2
    assert capsys.readouterr().err in text_of(CONFIGURATION)


def test_shown_routes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The routing example on the page matches the output of `check --event`."""
    monkeypatch.chdir(tmp_path)
    config = CONFIG.replace('reason = { glob = "Back*" }', 'reason = { glob = "Back*" }\nstop = true')
    Path("cfg.toml").write_text(config, encoding="utf-8")
    Path("event.json").write_text(json.dumps(EVENT), encoding="utf-8")
    assert _cli.main(["check", "-c", "cfg.toml", "--event", "event.json"]) == 0
    assert capsys.readouterr().out in text_of(CONFIGURATION)


def test_metrics() -> None:
    """The table of metrics matches the code."""
    kinds = {"CounterMetricFamily": "counter", "GaugeMetricFamily": "gauge", "UnknownMetricFamily": "untyped"}
    expected = []
    for family in _FAMILIES:
        kind = kinds[family.kind.__name__]
        name = family.name + ("_total" if kind == "counter" else "")
        expected.append((name, kind, [*_LABELS[family.level], *family.labels], family.text))
    listed = [(n, b.split(";")[0], spans(b), text) for n, b, text in items(section(OPERATION, "Metrics"))]
    assert listed == expected


def test_alerts_name_metrics() -> None:
    """The alerts on the page name existing metrics."""
    names = {family.name for family in _FAMILIES}
    for cells in rows(section(OPERATION, "Alerts")):
        for name in re.findall(r"kevents_export_\w+", cells[0]):
            assert name.removesuffix("_total") in names


def test_permission() -> None:
    """The permissions on the page are the first role of the manifests."""
    yaml = pytest.importorskip("yaml")
    shown = yaml.safe_load(section(OPERATION, "Permission").split("```yaml\n")[1].split("```")[0])
    manifests = list(yaml.safe_load_all((ROOT / "examples/export/rbac.yaml").read_text(encoding="utf-8")))
    [role] = [m for m in manifests if m["kind"] == "ClusterRole" and m["metadata"]["name"] == "kevents-export"]
    assert role["rules"] == shown["rules"]


@pytest.mark.parametrize("block", [block for block in blocks("json") if "export-operation" in str(block.id)])
def test_json(block: Block) -> None:
    """Each JSON block is one line of JSON."""
    assert json.loads(block.code)
