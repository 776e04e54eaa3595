"""The configuration: what it says, and that each error is told with file, line, key, value and fix, all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from kevents.export._config import sinks as _sinkconfig
from kevents.export._config.file import ConfigError, load, parse
from kevents.export._config.secrets import Secret
from kevents.export._config.settings import ClusterConfig, EnrichConfig, HealthConfig, SourceConfig
from kevents.export._model.text import duration, size
from kevents.export._operate import build as _build
from kevents.export._route.routes import Route
from tests.support.collector import no_collection

FULL = """\
grace = "20s"
checkpoints = "state/"
dead_letters = "dead.jsonl"
[cluster]
kubeconfig = "~/.kube/config"
context = "prod"
name = "production"
id = "main"
[source]
namespaces = ["shop", "jobs"]
start = "now"
repeats = "30s"
event_life = "2h"
[enrich]
cache_size = 0
top_owner = false
services = true
[health]
listen = "127.0.0.1:9090"
stale_after = "2m"
unacknowledged_after = "30s"
[sinks.out]
type = "stdout"
[sinks.archive]
type = "file"
path = "events/"
compress = "none"
keep = 10
keep_for = "7d"
queue = { max_items = 50, max_bytes = "1MiB" }
when_full = "drop"
timeout = "5s"
[sinks.archive.batch]
max_items = 10
max_bytes = "1KiB"
max_age = "500ms"
[sinks.bucket]
type = "object-store"
url = "s3://bucket/events"
options = { region = "eu-1", access_key_id = { env = "ID" }, secret_access_key = { file = "/run/key" } }
[sinks.hook]
type = "webhook"
url = { env = "HOOK" }
headers = { Authorization = { env = "TOKEN" }, X-Team = "one" }
[sinks.collector]
type = "otlp"
endpoint = "http://collector:4318/v1/logs"
[[routes]]
id = "pager"
to = ["hook", "out"]
type = "Warning"
kind = ["Pod", "Node"]
labels = { app = { glob = "web-*" } }
count = { min = 3 }
stop = true
[[routes]]
to = ["archive", "bucket", "collector"]
all = true
"""
SMALL = '[sinks.out]\ntype = "stdout"\n[[routes]]\nto = "out"\nall = true\n'


def errors(text: str) -> list[str]:
    """What is wrong with a configuration."""
    with pytest.raises(ConfigError) as error:
        parse(text, "cfg.toml")
    assert str(error.value) == "\n".join(error.value.lines)
    return error.value.lines


# -- what it says ----------------------------------------------------------------------------------------------------


def test_everything() -> None:
    """Every key says what it says."""
    config = parse(FULL)
    assert (config.grace, config.checkpoints, config.dead_letters) == (20.0, "state/", "dead.jsonl")
    assert config.cluster == ClusterConfig("~/.kube/config", "prod", "production", "main")
    assert config.source == SourceConfig(("shop", "jobs"), "now", "30s", 7200.0)
    assert config.enrich == EnrichConfig(0, top_owner=False, services=True)
    assert config.health == HealthConfig("127.0.0.1", 9090, 120.0, 30.0)
    assert list(config.sinks) == ["out", "archive", "bucket", "hook", "collector"]
    pager, archive = config.routes
    assert (pager.id, pager.sinks, pager.stop, pager.count) == ("pager", ("hook", "out"), True, {"min": 3})
    assert archive == Route(to=("archive", "bucket", "collector"), all=True)


def test_a_switch_of_a_store() -> None:
    """An option of a store that is true or false is handed on as that."""
    text = FULL.replace(
        'options = { region = "eu-1"', 'options = { virtual_hosted_style_request = false, region = "eu-1"'
    )
    assert False is parse(text).sinks["bucket"].options["options"]["virtual_hosted_style_request"]


def test_sinks() -> None:
    """Each kind of sink has its options; secrets are references."""
    sinks = parse(FULL).sinks
    archive = sinks["archive"]
    assert (archive.batch.max_items, archive.batch.max_bytes, archive.batch.max_age) == (10, 1024, 0.5)
    assert (
        archive.queue.max_items,
        archive.queue.max_bytes,
        archive.when_full,
        archive.timeout,
    ) == (50, 2**20, "drop", 5.0)
    assert tuple(archive.options[key] for key in ("path", "compress", "keep", "keep_for")) == (
        "events/",
        "none",
        10,
        604_800.0,
    )
    assert sinks["bucket"].options["options"] == {
        "region": "eu-1",
        "access_key_id": Secret(env="ID"),
        "secret_access_key": Secret(file="/run/key"),
    }
    assert sinks["hook"].options["url"] == Secret(env="HOOK")
    assert sinks["hook"].options["headers"] == {"Authorization": Secret(env="TOKEN"), "X-Team": "one"}
    assert sinks["collector"].options["endpoint"] == "http://collector:4318/v1/logs"


def test_defaults() -> None:
    """Little need be said."""
    config = parse(SMALL)
    assert (config.source, config.enrich, config.cluster) == (SourceConfig(), EnrichConfig(), ClusterConfig())
    assert (config.health.host, config.checkpoints, config.dead_letters) == (None, "", "")
    out = config.sinks["out"]
    assert (
        out.batch.max_items,
        out.batch.max_bytes,
        out.batch.max_age,
        out.when_full,
    ) == (1000, 5 * 2**20, 10.0, "block")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10s", 10), ("250ms", 0.25), ("1h30m", 5400), ("7d", 604_800), ("1.5m", 90)],
)
def test_durations(text: str, expected: float) -> None:
    """A time says its unit."""
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "1x", "0s", "1e3s", "٣s"])
def test_no_durations(text: str) -> None:
    """A time without a unit, or of nothing, is none."""
    with pytest.raises(ValueError, match="duration"):
        duration(text)


@pytest.mark.parametrize(("text", "expected"), [("5MiB", 5 * 2**20), ("512kB", 512_000), ("1.5KiB", 1536), ("7 B", 7)])
def test_sizes(text: str, expected: int) -> None:
    """A size says its unit."""
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "5", "MiB", "-5MiB", "5 mib", "0B", "0.1B"])
def test_no_sizes(text: str) -> None:
    """A size without a unit, or of nothing, is none."""
    with pytest.raises(ValueError, match="size"):
        size(text)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        (":80", ("127.0.0.1", 80)),
        ("localhost:0", ("localhost", 0)),
        ("0.0.0.0:8080", ("0.0.0.0", 8080)),
        ("[::1]:8080", ("::1", 8080)),
    ],
)
def test_listen(listen: str, expected: tuple[str, int]) -> None:
    """Pitfall 77: without an address it is loopback; all addresses are said, not assumed."""
    health = parse(f'health = {{ listen = "{listen}" }}\n{SMALL}').health
    assert (health.host, health.port) == expected


def test_windows_line_ends(tmp_path: Path) -> None:
    """A file with a byte order position and the line ends of Windows is read; its lines are counted right."""
    path = tmp_path / "cfg.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert list(load(path).sinks) == ["out"]
    path.write_bytes(SMALL.replace("true", "1").replace("\n", "\r\n").encode())
    with pytest.raises(ConfigError, match=r":5: routes.0..all: must be true or false"):
        load(path)


# -- what is wrong with it -------------------------------------------------------------------------------------------

WRONG = """\
gracee = "20s"
[cluster]
kubeconfig = 5
[source]
start = "resum"
repeats = "sometimes"
namespaces = ["a", "a"]
[sinks.archive]
type = "file"
path = "a"
compress = "gzipp"
[sinks.archive.batch]
max_age = 10
max_bytes = "5"
max_items = 0
[sinks.b]
type = "fi"
[[routes]]
to = "archiv"
all = true
[[routes]]
to = ["archive", "b"]
kindd = "Pod"
reason = { regex = "(" }
message = { glob = 5 }
[[routes]]
to = "archive"
"""
TOLD = """\
cfg.toml:1: gracee: unknown key "gracee"; did you mean "grace"?
cfg.toml:3: cluster.kubeconfig: must be a text, not 5
cfg.toml:5: source.start: must be "resume", "now" or "all", not "resum"; did you mean "resume"?
cfg.toml:6: source.repeats: must be "all", "first" or a window such as "30s", not "sometimes"
cfg.toml:7: source.namespaces: names a namespace twice
cfg.toml:11: sinks.archive.compress: must be "gzip" or "none", not "gzipp"; did you mean "gzip"?
cfg.toml:13: sinks.archive.batch.max_age: must be a time with its unit, such as "10s", "1h30m" or "7d", not 10
cfg.toml:14: sinks.archive.batch.max_bytes: must be a size with its unit, such as "512KiB" or "5MiB", not "5"
cfg.toml:15: sinks.archive.batch.max_items: must be a whole number of at least 1, not 0
cfg.toml:17: sinks.b.type: must be "stdout", "file", "object-store", "webhook" or "otlp", not "fi"
cfg.toml:19: routes[0].to: unknown sink "archiv"; did you mean "archive"?
cfg.toml:23: routes[1].kindd: unknown key "kindd"; did you mean "kind"?
cfg.toml:24: routes[1].reason.regex: "(" is no regular expression: """
TOLD_LAST = """\
cfg.toml:25: routes[1].message.glob: must be a text, not 5
cfg.toml:26: routes[2]: has no condition: name one, or say all = true if it is meant to match everything"""


def test_all_at_once() -> None:
    """Every error of a file is told at once, in its order: file, line, key, value and fix."""
    told = errors(WRONG)
    *expected, regex = TOLD.split("\n")
    assert [line for line in told if not line.startswith(regex)] == [*expected, *TOLD_LAST.split("\n")]
    assert len(expected) + 3 == len(told)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = \n", "cfg.toml:1: is not valid TOML: Invalid value, column 5; texts stand in double quotes"),
        ("[a]\n[a]\n", "not declare ('a',) twice, column 3"),
        (
            '[sinks.a]\n[sinks.b]\n[sinks.a]\ntype="file"',
            "not declare ('sinks', 'a') twice",
        ),
        ("a = '''\nb", "cfg.toml:2: is not valid TOML: "),
        ("a = " + "[" * 5000, "cfg.toml: is nested too deeply"),
        ("", 'cfg.toml:1: sinks: there is none: add one, [sinks.out] with type = "stdout"'),
        ("", 'cfg.toml:1: routes: there is none: add [[routes]] with to = "out", all = true'),
        ("sinks = 5", "cfg.toml:1: sinks: must be a table: [sinks], not 5"),
        ("routes = 5", "cfg.toml:1: routes: must be an array of tables: [[routes]], not 5"),
        ("[routes]", "cfg.toml:1: routes: must be an array of tables: [[routes]], not a table"),
        ("[sinks.a]", 'cfg.toml:1: sinks.a.type: is missing; for example type = "file"'),
        ('[sinks.a]\ntype = "file"', 'cfg.toml:1: sinks.a.path: is missing; for example path = "events/"'),
        ('[sinks.a]\ntype = "file"\npath = ""', "cfg.toml:3: sinks.a.path: must not be empty; for example"),
        ('[sinks."a/../b"]\ntype = "stdout"', "cfg.toml:1: sinks.a/../b: a sink's name is made of letters, digits"),
        ('[sinks.a]\ntype = "stdout"\n' + SMALL, "cfg.toml:1: sinks.a: no route goes to it: add one, or remove"),
        ('[sinks.a]\ntype = "stdout"\nbatch = 5', "cfg.toml:3: sinks.a.batch: must be a table: [batch], not 5"),
        ('[sinks.a]\ntype = "stdout"\npath = "x"', 'cfg.toml:3: sinks.a.path: unknown key "path"; there are '),
        ('[sinks.a]\ntype = "object-store"\nurl = "ftp://x"', 'cfg.toml:3: sinks.a.url: must begin with "s3://", '),
        ('[sinks.a]\ntype = "webhook"', "cfg.toml:1: sinks.a.url: is missing; for example url = "),
        ('[sinks.a]\ntype = "webhook"\nurl = "example.com"', 'sinks.a.url: must begin with "https://" or "http://"; '),
        (
            '[sinks.a]\ntype = "webhook"\nurl = "http://x"\nbody = "{"',
            "cfg.toml:4: sinks.a.body: the body must be JSON",
        ),
        ('[sinks.a]\ntype = "s3"', 'not "s3"; did you mean "object-store", with url = "s3://bucket/prefix"?'),
        ('[sinks.a]\ntype = "GCS"', 'not "GCS"; did you mean "object-store", with url = "gs://bucket/prefix"?'),
        ('[sinks.a]\ntype = "azure"', 'not "azure"; did you mean "object-store", with url = "az://container/prefix"?'),
        ('[sinks.a]\ntype = "http"', 'not "http"; did you mean "webhook"?'),
        ('[sinks.a]\ntype = "otel"', 'not "otel"; did you mean "otlp"?'),
        ('[sinks.a]\ntype = "filee"', 'not "filee"; did you mean "file"?'),
        ('[sinks.a]\ntype = "otlp"\nendpoint = "grpc://x"', "cfg.toml:3: sinks.a.endpoint: must begin with "),
        (
            '[sinks.a]\ntype = "webhook"\nurl = "http://x"',
            'sinks.a: a sink of type "webhook" cannot hold how far it got',
        ),
        ('[sinks.a]\ntype = "stdout"\nwhen_full = "wait"', 'sinks.a.when_full: must be "block" or "drop", not "wait"'),
        ("[[routes]]\nto = 5\nall = true", "cfg.toml:2: routes[0].to: must be a text, not 5"),
        ('[[routes]]\nto = ["a", 5]\nall = true', "cfg.toml:2: routes[0].to: must be a list of texts, "),
        ('[[routes]]\nto = "a"\nall = true\nkind = "Pod"', "cfg.toml:3: routes[0].all: has conditions, and says all"),
        ('[[routes]]\nid = "x"\nto = "a"\nall = true\n' * 2, 'cfg.toml:6: routes[1].id: "x" is the id of an earlier'),
        ('health = { listen = "80" }', 'cfg.toml:1: health.listen: must be an address and a port, "127.0.0.1:8080"'),
        ('health = { listen = "1.2.3.4:99999" }', "health.listen: must be an address and a port"),
        ('health = { listen = "example.com:80" }', "health.listen: must be an address and a port"),
        ("enrich = { cache_size = -1 }", "enrich.cache_size: must be a whole number of at least 0, not -1"),
        ('source = { repeats = "3h" }', "cfg.toml:1: source.repeats: must be no window longer than half of event_life"),
        ('source = { repeats = "30s " }', 'source.repeats: must be "all", "first" or a window such as'),
        ('grace = "0s"', "cfg.toml:1: grace: must be a time with its unit"),
        ('"a\\u001b[31m" = 1', 'unknown key "a\\x1b[31m"'),
    ],
)
def test_wrong(text: str, expected: str) -> None:
    """Each error is told with its place, the value and the fix."""
    with no_collection():
        found = errors(text)
    assert len([line for line in found if expected in line]) == 1, found


def test_same_place() -> None:
    """Two sinks that would write to the same place are refused: each would take the other's positions for its own."""
    text = '[sinks.{}]\ntype = "file"\npath = "{}"\n'
    assert errors(
        text.format("a", "x/") + text.format("b", "x/../x") + '[[routes]]\nto = ["a", "b"]\nall = true\n'
    ) == ['cfg.toml:4: sinks.b: writes to the same place as the sink "a": give it another']


def test_unreadable(tmp_path: Path) -> None:
    """A file that cannot be read is named, with why."""
    with pytest.raises(ConfigError, match=r"cfg.toml: cannot be read .No such file or directory.$"):
        load(tmp_path / "cfg.toml")
    (tmp_path / "cfg.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text .byte 5.: save it as UTF-8$"):
        load(tmp_path / "cfg.toml")


# -- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        'type = "webhook"\nurl = "https://user:hunter2@example.com/"',
        'type = "webhook"\nurl = ["https://user:hunter2@example.com/"]',
        'type = "webhook"\nurl = { env = "A", file = "hunter2" }',
        'type = "webhook"\nurl = { value = "hunter2" }',
        'type = "webhook"\nurl = { env = 5 }',
        'type = "webhook"\nurl = {}',
        'type = "webhook"\nurl = "https://x"\nheaders = { Authorization = "Bearer hunter2" }',
        'type = "webhook"\nurl = "https://x"\nheaders = { X-Api-Key = "hunter2" }',
        'type = "webhook"\nurl = "https://x"\npassword = "hunter2"',
        'type = "otlp"\nendpoint = "https://hunter2@example.com/"',
        'type = "object-store"\nurl = "s3://b"\noptions = { secret_access_key = "hunter2" }',
        'type = "object-store"\nurl = "s3://b"\noptions = { azure_storage_account_key = "hunter2" }',
        'type = "object-store"\nurl = "s3://b"\noptions = { session_token = ["hunter2"] }',
    ],
)
def test_secrets_in_the_file(lines: str) -> None:
    """Pitfall 72: a secret is refused in the file, and what stood there is not told."""
    found = errors(f'checkpoints = "c"\n[sinks.a]\n{lines}\n[[routes]]\nto = "a"\nall = true\n')
    assert len(found) == 1
    assert found[0].startswith("cfg.toml:")
    assert "hunter2" not in found[0]


def test_repr_of_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: what a configuration shows of itself holds no secret."""
    monkeypatch.setenv("TOKEN", "hunter2")
    config = parse(FULL)
    assert config.sinks["hook"].options["headers"]["Authorization"].reveal() == "hunter2"
    assert "hunter2" not in repr(config)
    assert "Secret(env='TOKEN', file='')" in repr(config)


def test_every_kind_is_made() -> None:
    """Each kind of destination that a configuration may name is also made from it."""
    assert sorted(_build._MAKERS) == sorted(_sinkconfig._READERS)
