"""What a configuration says of each kind of destination."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kevents.export._config.secrets import Secret
from kevents.export._config.table_reader import TableReader
from kevents.export._model.options import BatchOptions, QueueOptions
from kevents.export._model.text import listed, shown
from kevents.export._sinks.webhook import Template

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
}
"""What is meant by names that are not those of the types."""
_HEADERS_THAT_TELL: Final = ("authorization", "cookie", "api-key", "apikey", "token", "secret", "signature", "password")


@dataclass(frozen=True, slots=True)
class SinkConfig:
    """One destination.

    Attributes:
        name: Its own.
        type: ``stdout``, ``file``, ``object-store``, ``webhook`` or ``otlp``.
        options: Of its type, by the name of the sink's argument; secrets as references.
        batch: When a batch closes.
        queue: How much may wait for it.
        when_full: ``block`` or ``drop``.
        timeout: How many seconds one request may take, where there are requests.
    """

    name: str
    type: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: BatchOptions = field(default_factory=BatchOptions)
    queue: QueueOptions = field(default_factory=QueueOptions)
    when_full: str = "block"
    timeout: float = 30.0

    @property
    def write_timeout(self) -> float:
        """After how many seconds a write, which may be several requests, is reported as overdue."""
        return max(2 * self.timeout, 60.0)

    @property
    def needs_checkpoint(self) -> bool:
        """Whether it cannot hold how far it got; of stdout nobody knows what became of it."""
        return self.type in ("webhook", "otlp")

    @property
    def place(self) -> str:
        """What two sinks must not share; empty: they may."""
        if self.type == "file":
            return "file:" + os.path.realpath(self.options["path"]) if self.options["path"] else ""
        return "store:" + str(self.options["url"]).rstrip("/") if self.type == "object-store" else ""


def read_sink(name: str, section: TableReader) -> SinkConfig:
    """Read a table ``[sinks.NAME]``."""
    kind = section.text("type", required="file", choices=tuple(_READERS), meant=_MEANT)
    if kind not in _READERS:
        section.rest()
        return SinkConfig(name)
    common = {
        "batch": _batch(section.section("batch")),
        "queue": _queue(section.section("queue")),
        "when_full": section.text("when_full", "block", choices=("block", "drop")),
        "timeout": section.duration("timeout", 30.0),
    }
    options = _READERS[kind](section)
    section.done()
    return SinkConfig(name, kind, options, **common)  # type: ignore[arg-type]


def _batch(section: TableReader) -> BatchOptions:
    standard = BatchOptions()
    config = BatchOptions(
        section.count("max_items", standard.max_items),
        section.size("max_bytes", standard.max_bytes),
        section.duration("max_age", standard.max_age),
    )
    section.done()
    return config


def _queue(section: TableReader) -> QueueOptions:
    standard = QueueOptions()
    config = QueueOptions(section.count("max_items", standard.max_items), section.size("max_bytes", standard.max_bytes))
    section.done()
    return config


def _stdout(section: TableReader) -> dict[str, Any]:  # noqa: ARG001 - it has no options
    return {}


def _file(section: TableReader) -> dict[str, Any]:
    return {
        "path": section.text("path", required="events/"),
        "compress": section.text("compress", "gzip", choices=_COMPRESS),
        "level": section.count("level", 6, most=9),
        "max_bytes": section.size("rotate_size", 64 * 2**20),
        "max_age": section.duration("rotate_age", 3600.0),
        "keep": section.count("keep", 0) or None,
        "keep_for": section.duration("keep_for", 0.0) or None,
    }


def _object_store(section: TableReader) -> dict[str, Any]:
    url = section.url("url", "s3://bucket/events")
    if isinstance(url, str) and url and not url.startswith(_SCHEMES):
        section.wrong("url", f"must begin with {listed(_SCHEMES)}, not {shown(url.partition('//')[0])}")
    return {
        "url": url,
        "level": section.count("level", 6, most=9),
        "options": _options(section.section("options")),
    }


def _options(section: TableReader) -> dict[str, str | bool | Secret]:
    """Options of the store itself, named as obstore does; whatever looks like a secret must be a reference."""
    found: dict[str, str | bool | Secret] = {}
    for key in section.keys():  # noqa: SIM118 - it is no dictionary
        if isinstance(section.table[key], bool):
            found[key] = section.flag(key, default=False)
        else:
            found[key] = (section.secret(key) if _SECRET_OPTION.search(key) else section.text_or_secret(key)) or ""
    return found


def _webhook(section: TableReader) -> dict[str, Any]:
    return {
        "url": _http_url(section, "url", "https://hooks.example.com/events"),
        "method": section.text("method", "POST", choices=("POST", "PUT")),
        "headers": _headers(section.section("headers")),
        "body": _body(section),
        "ca_file": section.text("ca_file") or None,
    }


def _body(section: TableReader) -> str | None:
    """The body of a webhook, compiled to see whether it means something."""
    text = section.text("body")
    if not text:
        return None
    try:
        Template(text)
    except ValueError as error:
        section.wrong("body", str(error))
    return text


def _otlp(section: TableReader) -> dict[str, Any]:
    return {
        "endpoint": _http_url(section, "endpoint", "http://collector:4318/v1/logs"),
        "headers": _headers(section.section("headers")),
        "compress": section.text("compress", "gzip", choices=_COMPRESS),
        "ca_file": section.text("ca_file") or None,
    }


def _http_url(section: TableReader, key: str, example: str) -> str | Secret:
    url = section.url(key, example)
    if isinstance(url, str) and url and not url.startswith(("https://", "http://")):
        section.wrong(key, f"must begin with {listed(('https://', 'http://'))}; for example {shown(example)}")
    return url


def _headers(section: TableReader) -> dict[str, str | Secret]:
    """Headers by name; one that carries a credential must be a reference."""
    found: dict[str, str | Secret] = {}
    for name in section.keys():  # noqa: SIM118 - it is no dictionary
        tells = any(word in name.lower() for word in _HEADERS_THAT_TELL)
        value = section.secret(name) if tells else section.text_or_secret(name)
        if value is not None:
            found[name] = value
    return found


_READERS: Final[Mapping[str, Callable[[TableReader], dict[str, Any]]]] = {
    "stdout": _stdout,
    "file": _file,
    "object-store": _object_store,
    "webhook": _webhook,
    "otlp": _otlp,
}
