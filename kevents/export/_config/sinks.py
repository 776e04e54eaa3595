"""The tables ``[sinks.NAME]``: how the options of each type of sink are read, and how the sink is made."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from kevents.export._config.table_reader import Secret, SecretError, TableReader
from kevents.export._model.options import BatchOptions, QueueOptions, WhenFull
from kevents.export._model.text import listed, shown
from kevents.export._model.types import Retry, Sink
from kevents.export._sinks.elasticsearch import ElasticsearchSink, check_index
from kevents.export._sinks.file import FileSink, StdoutSink
from kevents.export._sinks.loki import DEFAULT_LABELS, LokiSink, compile_labels
from kevents.export._sinks.object_store import ObjectStoreSink, check_options
from kevents.export._sinks.otlp import OtlpSink
from kevents.export._sinks.slack import SlackSink, TeamsSink, check_chat_url
from kevents.export._sinks.splunk import SplunkSink
from kevents.export._sinks.webhook import METHODS, WebhookSink, compile_path, compile_template

READABLE: Final = ("file", "object-store")  # the types that hold positions, and whose records can be read back
_COMPRESS: Final = ("gzip", "none")
_SCHEMES: Final = ("s3://", "gs://", "az://", "file:///", "memory:///")
_SECRET_OPTION: Final = re.compile(r"secret|token|password|sas|account_key|access_key$|private|service_account_key")
_STORE: Final = '"object-store", with url = "{}"'
_MEANT: Final = {
    **dict.fromkeys(("s3", "minio"), _STORE.format("s3://bucket/prefix")),
    **dict.fromkeys(("gcs", "gs"), _STORE.format("gs://bucket/prefix")),
    **dict.fromkeys(("azure", "az"), _STORE.format("az://container/prefix")),
    **dict.fromkeys(("http", "https", "hook"), '"webhook"'),
    **dict.fromkeys(("otel", "opentelemetry"), '"otlp"'),
    **dict.fromkeys(("kafka", "sqs", "pubsub", "kinesis"), '"otlp", to an OpenTelemetry Collector that writes there'),
    **dict.fromkeys(("elastic", "opensearch", "es"), '"elasticsearch"'),
    **dict.fromkeys(("hec", "splunk-hec", "splunk_hec"), '"splunk"'),
    **dict.fromkeys(("grafana", "loki-push"), '"loki"'),
    **dict.fromkeys(("msteams", "microsoft-teams"), '"teams"'),
}
"""Hints for names of products that are not types of sinks."""
_SECRET_HEADERS: Final = ("authorization", "cookie", "api-key", "apikey", "token", "secret", "signature", "password")


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """One destination."""

    name: str
    type: str = ""  # a key of `_TYPES`
    options: Mapping[str, Any] = field(default_factory=dict)  # arguments of the sink; secrets as references
    batch: BatchOptions = field(default_factory=BatchOptions)
    queue: QueueOptions = field(default_factory=QueueOptions)
    when_full: WhenFull = "block"
    timeout: float = 30.0  # seconds that one request may take

    @property
    def write_timeout(self) -> float:
        """Seconds until a write, which may be several requests, is reported as overdue."""
        return max(2 * self.timeout, 60.0)

    @property
    def needs_checkpoint(self) -> bool:
        """Whether the destination stores no position. Written to stdout, records need no resumption."""
        return self.type not in ("", "stdout", *READABLE)

    @property
    def place(self) -> str:
        """The place that only one sink may write to; empty if it can be shared."""
        if self.type == "file":
            return "file:" + os.path.realpath(self.options["path"]) if self.options["path"] else ""
        return "store:" + str(self.options["url"]).rstrip("/") if self.type == "object-store" else ""


def read_sink(name: str, table: TableReader) -> SinkConfig:
    kind = table.text("type", required="file", choices=tuple(_TYPES), meant=_MEANT)
    if kind not in _TYPES:
        table.rest()
        return SinkConfig(name)
    common = {
        "batch": table.child("batch").values(BatchOptions, max_bytes=TableReader.size),
        "queue": table.child("queue").values(QueueOptions, max_bytes=TableReader.size),
        "when_full": table.text("when_full", "block", choices=("block", "drop")),
        "timeout": table.duration("timeout", 30.0),
    }
    options = _TYPES[kind].read(table)
    table.done()
    return SinkConfig(name, kind, options, **common)  # type: ignore[arg-type]


def _file(table: TableReader) -> dict[str, Any]:
    return {
        "path": table.text("path", required="events/"),
        "compress": table.text("compress", "gzip", choices=_COMPRESS),
        "level": table.count("level", 6, most=9),
        "max_bytes": table.size("rotate_size", 64 * 2**20),
        "max_age": table.duration("rotate_age", 3600.0),
        "keep": table.count("keep", 0) or None,
        "keep_for": table.duration("keep_for", 0.0) or None,
    }


def _object_store(table: TableReader) -> dict[str, Any]:
    url = table.url("url", "s3://bucket/events")
    if isinstance(url, str) and url and not url.startswith(_SCHEMES):
        table.wrong("url", f"must begin with {listed(_SCHEMES)}, not {shown(url.partition('//')[0])}")
    return {"url": url, "level": table.count("level", 6, most=9), "options": _options(table.child("options"))}


def _options(table: TableReader) -> dict[str, str | bool | Secret]:
    """The store's own options, named as in obstore. Options whose names look secret must be references."""
    found: dict[str, str | bool | Secret] = {}
    for key in table.remaining():
        if isinstance(table.table[key], bool):
            found[key] = table.flag(key)
        else:
            found[key] = (table.secret(key) if _SECRET_OPTION.search(key) else table.text_or_secret(key)) or ""
    return found


def _webhook(table: TableReader) -> dict[str, Any]:
    body = table.text("body")
    if body:
        _checked(table, "body", compile_template, body)
    around = {key: table.text(key) for key in ("prefix", "separator", "suffix")}
    for key, text in around.items():
        if text and not body:
            table.wrong(key, "needs a body")
    answers = table.child("ok_when")
    ok_when = answers.rest()
    for path, value in ok_when.items():
        _checked(answers, path, compile_path, path)
        if not isinstance(value, str | int | float | bool):
            answers.wrong(path, 'must be a text, a number, true or false; a deeper value has a path: "result.status"')
    return {"method": table.text("method", "POST", choices=METHODS), "body": body or None, **around, "ok_when": ok_when}


def _loki(table: TableReader) -> dict[str, Any]:
    labels = table.child("labels")
    found = {name: labels.text(name) for name in labels.remaining()} or dict(DEFAULT_LABELS)
    for name, text in found.items():
        _checked(labels, name, compile_labels, {name: text})
    return {"labels": found, "tenant": table.text("tenant") or None}


def _elasticsearch(table: TableReader) -> dict[str, Any]:
    index = table.text("index", "k8s-events-%Y.%m.%d")
    _checked(table, "index", check_index, index)
    return {"index": index}


def _splunk(table: TableReader) -> dict[str, Any]:
    return {
        "token": table.secret("token"),
        "index": table.text("index") or None,
        "sourcetype": table.text("sourcetype", "kube:events"),
        "source": table.text("source", "kevents"),
    }


def _chat(table: TableReader) -> dict[str, Any]:
    url = _http_url(table, "url", "https://hooks.slack.com/services/...")
    if isinstance(url, str):
        _checked(table, "url", check_chat_url, url)
    return {
        "url": url,
        "title": table.text("title", "Kubernetes events"),
        "max_lines": table.count("max_lines", 20, most=100),
        "ca_file": table.text("ca_file") or None,
    }


def _checked(table: TableReader, key: str, check: Callable[[Any], object], value: object) -> None:
    """Report the error that a sink raises for a value."""
    try:
        check(value)
    except ValueError as error:
        table.wrong(key, str(error).removeprefix(f"{key}: ").removeprefix("labels: "))


def _http_url(table: TableReader, key: str, example: str) -> str | Secret:
    url = table.url(key, example)
    if isinstance(url, str) and url and not url.startswith(("https://", "http://")):
        table.wrong(key, f"must begin with {listed(('https://', 'http://'))}; for example {shown(example)}")
    return url


def _headers(table: TableReader) -> dict[str, str | Secret | None]:
    """Headers by name. Those that carry credentials must be references."""
    secret = [name for name in table.remaining() if any(word in name.lower() for word in _SECRET_HEADERS)]
    return {name: table.secret(name) if name in secret else table.text_or_secret(name) for name in table.remaining()}


def make_sink(config: SinkConfig) -> Sink:
    """Build a sink; connect to nothing. Raises ValueError if it refuses its options."""
    return _TYPES[config.type].make(config)


def _make_object_store(config: SinkConfig) -> Sink:
    options = dict(config.options)
    inner, url = options.pop("options"), revealed(options.pop("url"))
    sink = ObjectStoreSink(url, options=lambda: _resolved(inner), timeout=config.timeout, **options)
    check_options(url, {name: "" if isinstance(value, Secret) else value for name, value in inner.items()})
    return sink


def _http(
    sink: Callable[..., Sink],
    example: str,  # of the URL
    own: Callable[[TableReader], dict[str, Any]] = lambda table: {},  # noqa: ARG005 - reads the type's own options
    *,
    url: str = "url",  # the option's name
    compress: str = "gzip",  # the default
) -> _Type:
    """Return a type of HTTP sink, with the options that all but the chats have."""

    def read(table: TableReader) -> dict[str, Any]:
        return {
            url: _http_url(table, url, example),
            **own(table),
            "headers": _headers(table.child("headers")),
            "compress": table.text("compress", compress, choices=_COMPRESS),
            "ca_file": table.text("ca_file") or None,
        }

    return _Type(read, partial(_make_http, sink))


def _make_http(sink: Callable[..., Sink], config: SinkConfig) -> Sink:
    """Make an HTTP sink, with each secret as a function that resolves it."""
    return sink(**_resolvers(config.options), timeout=config.timeout)


def revealed(value: Any) -> Any:  # noqa: ANN401 - options of any type
    """Replace the secrets in a value by their present values."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {key: revealed(part) for key, part in value.items()}
    return value


def _resolvers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the secrets in options by functions that resolve them."""
    return {
        key: value.reveal if isinstance(value, Secret) else _resolvers(value) if isinstance(value, Mapping) else value
        for key, value in options.items()
    }


def _resolved(value: Any) -> Any:  # noqa: ANN401
    """Resolve the secrets in a value. While one is missing, the write is retried."""
    try:
        return revealed(value)
    except SecretError as error:
        raise Retry(str(error)) from None


class _Type(NamedTuple):
    read: Callable[[TableReader], dict[str, Any]]
    make: Callable[[SinkConfig], Sink]


_TYPES: Final[Mapping[str, _Type]] = {
    "stdout": _Type(lambda table: {}, lambda config: StdoutSink()),  # noqa: ARG005 - no options
    "file": _Type(_file, lambda config: FileSink(**config.options)),
    "object-store": _Type(_object_store, _make_object_store),
    "webhook": _http(WebhookSink, "https://hooks.example.com/events", _webhook, compress="none"),
    "otlp": _http(OtlpSink, "http://collector:4318/v1/logs", url="endpoint"),
    "loki": _http(LokiSink, "http://loki:3100/loki/api/v1/push", _loki),
    "elasticsearch": _http(ElasticsearchSink, "https://elastic:9200", _elasticsearch),
    "splunk": _http(SplunkSink, "https://splunk:8088/services/collector/event", _splunk),
    "slack": _Type(_chat, partial(_make_http, SlackSink)),
    "teams": _Type(_chat, partial(_make_http, TeamsSink)),
}
