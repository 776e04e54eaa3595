"""Building an export from its configuration: sinks, secrets, checkpoints and the cluster."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kevents._clients.client import Kubeconfig, KubeconfigError
from kevents.export import Checkpointed, FileSink, ObjectStoreSink, OtlpSink, Retry, StdoutSink, WebhookSink
from kevents.export._config.file import ClusterConfig, Config, load, parse
from kevents.export._config.sinks import _TYPES, _make_http
from kevents.export._config.table_reader import SecretError
from kevents.export._model.types import Batch, Position, Record, Stream
from kevents.export._operate.build import build, check_secrets, destination, kubeconfig_of
from tests.export.config.test_file import FULL, SMALL
from tests.export.route.test_routes import EVENT

if TYPE_CHECKING:
    from kevents.testing import APIServer

EXAMPLES = Path(__file__).parents[3] / "examples/export"
CONFIGS = sorted((EXAMPLES / "configs").glob("*.toml"))
SECRET = "do-not-tell"
STREAM = Stream("cluster")
BATCH = Batch([Record(STREAM, 1, EVENT, 0.0)], Position(STREAM, 1, 0))


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Config:
    """A configuration with every kind of sink, and their secrets."""
    for name in ("ID", "HOOK", "TOKEN"):
        monkeypatch.setenv(name, f"https://{SECRET}.example.com/{SECRET}")
    (tmp_path / "key").write_text(SECRET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return parse(FULL.replace("/run/key", str(tmp_path / "key")))


def sinks(config: Config) -> dict[str, Any]:
    """Return the sinks of a configuration without their checkpoints."""
    made = {name: destination(sink, config.checkpoints).sink for name, sink in config.sinks.items()}
    return {name: sink._sink if isinstance(sink, Checkpointed) else sink for name, sink in made.items()}


# -- sinks -----------------------------------------------------------------------------------------------------------


def test_kinds(everything: Config) -> None:
    """Each type gives its sink class, and no file is created."""
    expected = {
        "out": StdoutSink,
        "archive": FileSink,
        "bucket": ObjectStoreSink,
        "hook": WebhookSink,
        "collector": OtlpSink,
    }
    assert {name: type(sink) for name, sink in sinks(everything).items()} == expected
    assert [path.name for path in Path.cwd().iterdir()] == ["key"]


def test_how_they_are_fed(everything: Config) -> None:
    """Batch, queue and `when_full` come from the configuration.

    The write time-out is twice the sink's, at least 60 s.
    """
    made = destination(everything.sinks["archive"], "")
    assert (made.batch.max_items, made.batch.max_bytes, made.batch.max_age) == (10, 1024, 0.5)
    assert (made.queue.max_items, made.queue.max_bytes, made.when_full, made.write_timeout) == (50, 2**20, "drop", 60.0)
    slow = parse(SMALL.replace("type =", 'timeout = "2m"\ntype =')).sinks["out"]
    assert destination(slow, "").write_timeout == 240.0


def test_checkpoints(everything: Config) -> None:
    """Each sink without positions gets its own checkpoint file."""
    made = {name: destination(sink, everything.checkpoints).sink for name, sink in everything.sinks.items()}
    kept = {name: Path(sink._path).as_posix() for name, sink in made.items() if isinstance(sink, Checkpointed)}
    assert kept == {name: f"state/{name}.json" for name in ("out", "hook", "collector")}
    assert isinstance(destination(parse(SMALL).sinks["out"], "").sink, StdoutSink)


def test_no_secret_shows(everything: Config) -> None:
    """Pitfall 72: no repr contains a secret."""
    parts = build(everything.__class__(**{**vars_of(everything), "cluster": ClusterConfig()}))
    assert SECRET not in repr(sinks(everything))
    assert SECRET not in repr(parts)


def vars_of(config: Config) -> dict[str, Any]:
    """Return the fields of a configuration."""
    return {name: getattr(config, name) for name in config.__slots__}


def test_missing_secrets(everything: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """All missing secrets are reported together, each with its key."""
    check_secrets(everything)
    monkeypatch.delenv("ID")
    monkeypatch.delenv("TOKEN")
    with pytest.raises(SecretError) as error:
        check_secrets(everything)
    fix = "is not set: set it, or name another with { env = ... }"
    assert str(error.value).splitlines() == [
        f"sinks.bucket.options.access_key_id: the environment variable ID {fix}",
        f"sinks.hook.headers.Authorization: the environment variable TOKEN {fix}",
    ]


def test_a_secret_that_goes_away(everything: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that becomes unavailable during the export is retried."""
    hook = sinks(everything)["hook"]
    monkeypatch.delenv("TOKEN")
    with pytest.raises(Retry, match=r"the header Authorization is not available"):
        hook.write(BATCH)
    hook.close()
    monkeypatch.delenv("ID")
    bucket = sinks(everything)["bucket"]
    with pytest.raises(Retry, match=r"the environment variable ID is not set"):
        bucket.write(BATCH)


def test_a_renewed_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each request uses the current secret."""
    asked: list[str] = []
    make = partial(_make_http, lambda **options: asked.append(options["url"]()) or options)
    monkeypatch.setitem(_TYPES, "webhook", _TYPES["webhook"]._replace(make=make))
    config = parse(
        f'checkpoints = "c"\n[sinks.a]\ntype = "webhook"\nurl = {{ file = {json.dumps(str(tmp_path / "url"))} }}\n'
        '[[routes]]\nto = "a"\nall = true\n'
    )
    for value in ("https://one", "https://two"):
        (tmp_path / "url").write_text(f"{value}\n", encoding="utf-8")
        with pytest.raises(ValueError, match="is not a sink"):
            destination(config.sinks["a"], "")
    assert asked == ["https://one", "https://two"]


# -- other -----------------------------------------------------------------------------------------------------------


def test_parts(tmp_path: Path) -> None:
    """Without enrichment and a listen address, there is no enricher and no server."""
    parts = build(parse(f'enrich = {{ cache_size = 0 }}\ndead_letters = "{tmp_path}/dead"\n{SMALL}'))
    assert (parts.enricher, parts.health) == (None, None)
    assert parts.exporter.statistics().state == "new"


@pytest.mark.parametrize(
    ("batches", "enrich", "expected"),
    [
        (['max_age = "3s"', 'max_age = "20s"'], "", 3.0),
        (['max_age = "20s"', 'max_items = 1\nmax_age = "60s"'], "", 5.0),
        (['max_age = "3s"', ""], 'wait = "7s"', 7.0),
    ],
)
def test_wait(batches: list[str], enrich: str, expected: float) -> None:
    """`wait` defaults to the shortest `max_age` of a batch, where a sink without batches counts as 5 s."""
    sinks = [f'[sinks.s{n}]\ntype = "stdout"\n[sinks.s{n}.batch]\n{batch}\n' for n, batch in enumerate(batches)]
    routes = '[[routes]]\nto = ["s0", "s1"]\nall = true\n'
    enricher = build(parse(f"[enrich]\n{enrich}\n{''.join(sinks)}{routes}")).enricher
    assert enricher is not None
    assert enricher._wait == expected


def test_cluster(api_server: APIServer, tmp_path: Path) -> None:
    """The kubeconfig and context select the cluster."""
    assert kubeconfig_of(ClusterConfig()) is None
    path = api_server.kubeconfig(tmp_path / "config")
    context = re.findall(r'current-context["\']?: ?["\']?([\w-]+)', path.read_text(encoding="utf-8"))[0]
    assert kubeconfig_of(ClusterConfig(str(path), context)) == Kubeconfig(str(path), context)
    assert kubeconfig_of(ClusterConfig(str(path))) == Kubeconfig(str(path))


def test_no_cluster(api_server: APIServer, tmp_path: Path) -> None:
    """An unusable kubeconfig is reported immediately, without its content."""
    path = tmp_path / "config"
    with pytest.raises(
        KubeconfigError, match=r"cannot use the kubeconfig .*config .No such file or directory.: give the"
    ):
        kubeconfig_of(ClusterConfig(str(path)))
    path.write_text(f"token: {{{SECRET}", encoding="utf-8")
    with pytest.raises(KubeconfigError, match=r"it holds no configuration") as error:
        kubeconfig_of(ClusterConfig(str(path)))
    assert SECRET not in str(error.value)
    good = api_server.kubeconfig(path)
    with pytest.raises(KubeconfigError, match=r"config, context none ."):
        kubeconfig_of(ClusterConfig(str(good), "none"))


# -- the examples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_example(path: Path, tmp_path: Path) -> None:
    """Each example is valid and can be built once its secrets exist."""
    text = path.read_text(encoding="utf-8").replace("/run/secrets", str(tmp_path / "secrets"))
    for name in re.findall(r'file = "([^"]+)"', text):
        secret = Path(name)
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text(_SECRETS.get(secret.name, "https://pager.example.com/hook"), encoding="utf-8")
    (tmp_path / "cfg.toml").write_text(text, encoding="utf-8")
    parts = build(load(tmp_path / "cfg.toml"))
    assert parts.health is not None
    assert {each.name for each in parts.exporter.statistics().destinations} == set(load(path).sinks)


_SECRETS = {
    "access-key-id": "AKIA",
    "secret-access-key": SECRET,
    "account-key": "c2VjcmV0",
    "key.json": json.dumps(
        {"client_email": "a@b", "private_key": "k", "private_key_id": "i", "token_uri": "https://t"}
    ),
}


def test_an_example_for_each_sink() -> None:
    """There is an example for each type of sink and each cloud."""
    found = {sink.type for path in CONFIGS for sink in load(path).sinks.values()}
    assert found == set(_TYPES)
    assert {"s3", "gcs", "azure"} <= {path.stem for path in CONFIGS}
