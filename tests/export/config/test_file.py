"""The configuration file: values, and errors with file, line, key, value and fix, all reported together."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export._config.file import (
    ClusterConfig,
    ConfigError,
    EnrichConfig,
    HealthConfig,
    Lines,
    SourceConfig,
    load,
    parse,
)
from kevents.export._config.table_reader import Secret
from kevents.export._model.text import duration, size
from kevents.export._route.routes import Route
from tests.support.collector import no_collection

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
qps = 5
burst = 7
wait = "2s500ms"
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
    """Return the errors of a configuration."""
    with pytest.raises(ConfigError) as error:
        parse(text, "cfg.toml")
    assert str(error.value) == "\n".join(error.value.lines)
    return error.value.lines


# -- values ------------------------------------------------------------------------------------------------------------


def test_everything() -> None:
    """Every key is read into its field."""
    config = parse(FULL)
    assert (config.grace, config.checkpoints, config.dead_letters) == (20.0, "state/", "dead.jsonl")
    assert config.cluster == ClusterConfig("~/.kube/config", "prod", "production", "main")
    assert config.source == SourceConfig(("shop", "jobs"), "now", "30s", 7200.0)
    assert config.enrich == EnrichConfig(0, top_owner=False, services=True, qps=5, burst=7, wait=2.5)
    assert config.health == HealthConfig("127.0.0.1", 9090, 120.0, 30.0)
    assert list(config.sinks) == ["out", "archive", "bucket", "hook", "collector"]
    pager, archive = config.routes
    assert (pager.id, pager.sinks, pager.stop, pager.count) == ("pager", ("hook", "out"), True, {"min": 3})
    assert archive == Route(to=("archive", "bucket", "collector"), all=True)


def test_a_switch_of_a_store() -> None:
    """A boolean option of a store stays a boolean."""
    text = FULL.replace(
        'options = { region = "eu-1"', 'options = { virtual_hosted_style_request = false, region = "eu-1"'
    )
    assert parse(text).sinks["bucket"].options["options"]["virtual_hosted_style_request"] is False


def test_sinks() -> None:
    """Each kind of sink has its options, and secrets are references."""
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
    """A small configuration has defaults for all other keys."""
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
    """A duration needs a unit."""
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "1x", "0s", "1e3s", "٣s"])
def test_no_durations(text: str) -> None:
    """A duration without a unit, or of zero, is refused."""
    with pytest.raises(ValueError, match="duration"):
        duration(text)


@pytest.mark.parametrize(("text", "expected"), [("5MiB", 5 * 2**20), ("512kB", 512_000), ("1.5KiB", 1536), ("7 B", 7)])
def test_sizes(text: str, expected: int) -> None:
    """A size needs a unit."""
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "5", "MiB", "-5MiB", "5 mib", "0B", "0.1B"])
def test_no_sizes(text: str) -> None:
    """A size without a unit, or of zero, is refused."""
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
    """Pitfall 77: the default address is loopback. Listening on all addresses must be explicit."""
    health = parse(f'health = {{ listen = "{listen}" }}\n{SMALL}').health
    assert (health.host, health.port) == expected


def test_windows_line_ends(tmp_path: Path) -> None:
    """A file with a byte order mark and Windows line ends is read, and its line numbers are right."""
    path = tmp_path / "cfg.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert list(load(path).sinks) == ["out"]
    path.write_bytes(SMALL.replace("true", "1").replace("\n", "\r\n").encode())
    with pytest.raises(ConfigError, match=r":5: routes.0..all: must be true or false"):
        load(path)


# -- errors ------------------------------------------------------------------------------------------------------------

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
ERRORS = """\
cfg.toml:1: gracee: unknown key "gracee"; did you mean "grace"?
cfg.toml:3: cluster.kubeconfig: must be a text, not 5
cfg.toml:5: source.start: must be "resume", "now" or "all", not "resum"; did you mean "resume"?
cfg.toml:6: source.repeats: must be "all", "first" or a window such as "30s", not "sometimes"
cfg.toml:7: source.namespaces: names a namespace twice
cfg.toml:11: sinks.archive.compress: must be "gzip" or "none", not "gzipp"; did you mean "gzip"?
cfg.toml:13: sinks.archive.batch.max_age: must be a time with its unit, such as "10s", "1h30m" or "7d", not 10
cfg.toml:14: sinks.archive.batch.max_bytes: must be a size with its unit, such as "512KiB" or "5MiB", not "5"
cfg.toml:15: sinks.archive.batch.max_items: must be a whole number of at least 1, not 0
cfg.toml:17: sinks.b.type: must be "stdout", "file", "object-store", "webhook", "otlp", "loki", "elasticsearch", \
"splunk", "slack" or "teams", not "fi"
cfg.toml:19: routes[0].to: unknown sink "archiv"; did you mean "archive"?
cfg.toml:23: routes[1].kindd: unknown key "kindd"; did you mean "kind"?
cfg.toml:24: routes[1].reason.regex: "(" is no regular expression: """
LAST_ERRORS = """\
cfg.toml:25: routes[1].message.glob: must be a text, not 5
cfg.toml:26: routes[2]: has no condition: name one, or say all = true if it is meant to match everything"""


def test_all_at_once() -> None:
    """All errors of a file are reported together, in file order: file, line, key, value and fix."""
    found = errors(WRONG)
    *expected, regex = ERRORS.split("\n")
    assert [line for line in found if not line.startswith(regex)] == [*expected, *LAST_ERRORS.split("\n")]
    assert len(found) == len(expected) + 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = \n", "cfg.toml:1: is not valid TOML: Invalid value, column 5; texts need double quotes"),
        ("[a]\n[a]\n", "not declare ('a',) twice, column 3"),
        (
            '[sinks.a]\n[sinks.b]\n[sinks.a]\ntype="file"',
            "not declare ('sinks', 'a') twice",
        ),
        ("a = '''\nb", "cfg.toml:2: is not valid TOML: "),
        ("a = " + "[" * 5000, "cfg.toml: is nested too deeply"),
        ("", 'cfg.toml:1: sinks: there is none: add [sinks.out] with type = "stdout"'),
        ("", 'cfg.toml:1: routes: there is none: add [[routes]] with to = "out", all = true'),
        ("sinks = 5", "cfg.toml:1: sinks: must be a table: [sinks], not 5"),
        ("routes = 5", "cfg.toml:1: routes: must be an array of tables: [[routes]], not 5"),
        ("[routes]", "cfg.toml:1: routes: must be an array of tables: [[routes]], not a table"),
        ("[sinks.a]", 'cfg.toml:1: sinks.a.type: is missing; for example type = "file"'),
        ('[sinks.a]\ntype = "file"', 'cfg.toml:1: sinks.a.path: is missing; for example path = "events/"'),
        ('[sinks.a]\ntype = "file"\npath = ""', "cfg.toml:3: sinks.a.path: must not be empty; for example"),
        ('[sinks."a/../b"]\ntype = "stdout"', "cfg.toml:1: sinks.a/../b: a sink's name has letters, digits"),
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
            'sinks.a: a sink of type "webhook" stores no position',
        ),
        ('[sinks.a]\ntype = "stdout"\nwhen_full = "wait"', 'sinks.a.when_full: must be "block" or "drop", not "wait"'),
        ("[[routes]]\nto = 5\nall = true", "cfg.toml:2: routes[0].to: must be a text, not 5"),
        ('[[routes]]\nto = ["a", 5]\nall = true', "cfg.toml:2: routes[0].to: must be a list of texts, "),
        ('[[routes]]\nto = "a"\nall = true\nkind = "Pod"', "cfg.toml:3: routes[0].all: has conditions, and says all"),
        (
            '[[routes]]\nid = "x"\nto = "a"\nall = true\n' * 2,
            'cfg.toml:6: routes[1].id: "x" is also the id of an earlier',
        ),
        ('health = { listen = "80" }', 'cfg.toml:1: health.listen: must be an address and a port, "127.0.0.1:8080"'),
        ('health = { listen = "1.2.3.4:99999" }', "health.listen: must be an address and a port"),
        ('health = { listen = "example.com:80" }', "health.listen: must be an address and a port"),
        ("enrich = { qps = 0 }", "enrich.qps: must be a whole number of at least 1, not 0"),
        ('enrich = { burst = "40" }', 'enrich.burst: must be a whole number of at least 1, not "40"'),
        ("enrich = { wait = 5 }", 'enrich.wait: must be a time with its unit, such as "10s"'),
        ('enrich = { patience = "5s" }', 'enrich.patience: unknown key "patience"'),
        ("enrich = { cache_size = -1 }", "enrich.cache_size: must be a whole number of at least 0, not -1"),
        (
            'source = { namespaces = ["*"] }',
            'source.namespaces[0]: "*" is no name of a namespace: leave it',
        ),
        (
            '[source]\nnamespaces = ["a", "Shop"]',
            'cfg.toml:2: source.namespaces[1]: "Shop" is no name of a namespace; did',
        ),
        (
            '[source]\nnamespaces = [".."]',
            'source.namespaces[0]: ".." is no name of a namespace: a name',
        ),
        (
            '[source]\nnamespaces = ["50%"]',
            'source.namespaces[0]: "50%" is no name of a namespace: a name',
        ),
        ('[source]\nnamespaces = ["shop,jobs"]', 'several are a list: ["shop", "jobs"]'),
        ('[[routes]]\nto = "a"\nnamespace = "*"', 'routes[0].namespace: never matches: "*" is no name of a namespace'),
        (
            '[[routes]]\nto = "a"\nnamespace = { one_of = ["shop", "Jobs"], not = true }',
            'cfg.toml:3: routes[0].namespace.one_of[1]: never matches: "Jobs" is no name of a namespace',
        ),
        ('[[routes]]\nto = "a"\nmessage = { regex = "(?!x)" }', "look-arounds, atomic groups and back-references do"),
        ('source = { repeats = "3h" }', "cfg.toml:1: source.repeats: must be no window longer than half of event_life"),
        ('source = { repeats = "30s " }', 'source.repeats: must be "all", "first" or a window such as'),
        ('grace = "0s"', "cfg.toml:1: grace: must be a time with its unit"),
        ('"a\\u001b[31m" = 1', 'unknown key "a\\x1b[31m"'),
    ],
)
def test_wrong(text: str, expected: str) -> None:
    """Fault 26: each error has its place, the value and the fix."""
    with no_collection():
        found = errors(text)
    assert len([line for line in found if expected in line]) == 1, found


def test_same_place() -> None:
    """Two sinks with the same place are refused, because they would share their positions."""
    text = '[sinks.{}]\ntype = "file"\npath = "{}"\n'
    assert errors(
        text.format("a", "x/") + text.format("b", "x/../x") + '[[routes]]\nto = ["a", "b"]\nall = true\n'
    ) == ['cfg.toml:4: sinks.b: writes to the same place as the sink "a": choose another']


def test_unreadable(tmp_path: Path) -> None:
    """The error of an unreadable file names the file and the reason."""
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
    """Pitfall 72: a secret in the file is refused, and the error does not show its value."""
    found = errors(f'checkpoints = "c"\n[sinks.a]\n{lines}\n[[routes]]\nto = "a"\nall = true\n')
    assert len(found) == 1
    assert found[0].startswith("cfg.toml:")
    assert "hunter2" not in found[0]


def test_repr_of_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: the repr of a configuration contains no secret."""
    monkeypatch.setenv("TOKEN", "hunter2")
    config = parse(FULL)
    assert config.sinks["hook"].options["headers"]["Authorization"].reveal() == "hunter2"
    assert "hunter2" not in repr(config)
    assert "Secret(env='TOKEN', file='')" in repr(config)


# -- line numbers of keys ---------------------------------------------------------------------------------------------

TEXT = '''\
# a comment with [brackets] and "quotes"
top = 1
"quoted.key" = "a # no comment"

[a.b]
text = """
[not.a.table]
x = 5
"""
other = \'\'\'
y = "z\'\'\'
after.dotted = [
  "one", # with a comment
  { kind = "two", more = { deep = 1.5 } },
  # [another]
]
[[list]]
x = 2026-07-24T09:00:00Z
[list.sub]
y = [[1, 2], [3]]
[[list]]
x = -inf
[[list.inner]]
z = { }
[ "spaced" . \'out\' ]
last = true
'''
EXPECTED = {
    ("top",): 2,
    ("quoted.key",): 3,
    ("a", "b"): 5,
    ("a", "b", "text"): 6,
    ("a", "b", "other"): 10,
    ("a", "b", "after", "dotted"): 12,
    ("a", "b", "after", "dotted", 0): 13,
    ("a", "b", "after", "dotted", 1): 14,
    ("a", "b", "after", "dotted", 1, "kind"): 14,
    ("a", "b", "after", "dotted", 1, "more"): 14,
    ("a", "b", "after", "dotted", 1, "more", "deep"): 14,
    ("list", 0): 17,
    ("list", 0, "x"): 18,
    ("list", 0, "sub"): 19,
    ("list", 0, "sub", "y"): 20,
    ("list", 0, "sub", "y", 1, 0): 20,
    ("list", 1): 21,
    ("list", 1, "x"): 22,
    ("list", 1, "inner", 0): 23,
    ("list", 1, "inner", 0, "z"): 24,
    ("spaced", "out"): 25,
    ("spaced", "out", "last"): 26,
}


@pytest.mark.parametrize("path", EXPECTED, ids=str)
def test_line(path: tuple[str | int, ...]) -> None:
    """Each key has its line number."""
    assert tomllib.loads(TEXT)
    assert Lines(TEXT).of(path) == EXPECTED[path]


def test_no_such_key() -> None:
    """A missing key has the line of its table, or else line 1."""
    assert Lines(TEXT).of(("list", 0, "x", "y")) == 18
    assert Lines(TEXT).of(("list", 0, "missing")) == 17
    assert Lines(TEXT).of(("missing",)) == 1
    assert Lines("").of(()) == 1


KEYS = st.sampled_from(["a", "b-c", '"d e"', "'f.g'", '"\\u00e9\\n"', "h.i", "1"])
VALUES = st.recursive(
    st.sampled_from(["1", "1.5", '"x"', "'y'", '"""\n[z]\n"""', "true", '"\\""', "'''\na = 1'''", "[]", "{}"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(lambda items: "[\n" + "".join(f"{item}, # c\n" for item in items) + "]"),
        st.dictionaries(KEYS, inner, max_size=2).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)
HEADERS = st.sampled_from(["", "[t]", "[t.u]", "[[l]]", "[l.m]", "[[l.n]]", '["q.r"]', "# comment"])
STATEMENTS = st.tuples(HEADERS, st.dictionaries(KEYS, VALUES, max_size=3))


def keys(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of all values in a parsed file."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from keys(part, (*path, key))


@given(st.lists(STATEMENTS, max_size=5))
def test_every_key_is_found(statements: list[tuple[str, dict[str, str]]]) -> None:
    """Exactly the keys that the parser finds have a line number."""
    text = "".join(f"{header}\n" + "".join(f"{k} = {v}\n" for k, v in table.items()) for header, table in statements)
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = Lines(text)._found
    implicit = {path[:length] for path in found for length in range(len(path))}
    assert set(found) <= set(keys(parsed)) <= set(found) | implicit
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
