"""From a configuration to the parts of an export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from kevents.export._config.cluster import client_of
from kevents.export._config.file import ConfigError
from kevents.export._config.secrets import Secret, SecretError
from kevents.export._config.settings import Config
from kevents.export._config.sinks import SinkConfig
from kevents.export._enrich.enricher import Enricher
from kevents.export._model.options import Destination
from kevents.export._model.text import did_you_mean, listed, shown
from kevents.export._model.types import Retry, Sink
from kevents.export._operate.health import HealthServer
from kevents.export._pipeline.exporter import Exporter
from kevents.export._route.routes import Router
from kevents.export._sinks.checkpoint import Checkpointed
from kevents.export._sinks.dead_letters import DeadLetters
from kevents.export._sinks.file import FileSink
from kevents.export._sinks.object_store import ObjectStoreSink, check_options
from kevents.export._sinks.otlp import OtlpSink
from kevents.export._sinks.stdout import StdoutSink
from kevents.export._sinks.webhook import WebhookSink
from kevents.export._source.source import ClusterEventSource


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs.

    Attributes:
        exporter: The export itself.
        enricher: Its enricher; None: it has none.
        health: What serves metrics and probes; None: nobody asked for it.
    """

    exporter: Exporter
    enricher: Enricher | None
    health: HealthServer | None


def build(config: Config) -> Parts:
    """Put an export together; nothing connects to anything yet.

    Args:
        config: What was read from its file.

    Raises:
        SecretError: If secrets cannot be had: all that are missing.
        ConfigError: If sinks can make nothing of their options: all that are wrong.
        ClusterError: If a kubeconfig cannot be used.
    """
    check_secrets(config)
    check_sinks(config)
    api = client_of(config.cluster)
    source = ClusterEventSource(
        api,
        namespaces=config.source.namespaces or None,
        start=cast("Literal['resume', 'now', 'all']", config.source.start),
        repeats=config.source.repeats,
        event_life=config.source.event_life,
        cluster=config.cluster.id or None,
        cluster_name=config.cluster.name,
    )
    enrich = config.enrich
    enricher = (
        Enricher(api, cache_size=enrich.cache_size, top_owner=enrich.top_owner, services=enrich.services)
        if enrich.cache_size
        else None
    )
    exporter = Exporter(
        source,
        routes=Router(config.routes),
        sinks={name: destination(sink, config.checkpoints) for name, sink in config.sinks.items()},
        enrich=enricher,
        dead_letters=DeadLetters(config.dead_letters) if config.dead_letters else None,
        grace=config.grace,
    )
    return Parts(exporter, enricher, _health(config, exporter, enricher))


def _health(config: Config, exporter: Exporter, enricher: Enricher | None) -> HealthServer | None:
    health = config.health
    if health.host is None:
        return None
    return HealthServer(
        exporter,
        enricher,
        host=health.host,
        port=health.port,
        stale_after=health.stale_after,
        unacknowledged_after=health.unacknowledged_after,
    )


# -- secrets


def check_secrets(config: Config) -> None:
    """See to it that every secret can be had now.

    Raises:
        SecretError: If one cannot: all that are missing.
    """
    troubles = []
    for sink in config.sinks.values():
        for path, secret in _secrets(sink.options):
            try:
                secret.reveal()
            except SecretError as error:
                troubles.append(f"sinks.{sink.name}.{path}: {error}")
    if troubles:
        raise SecretError("\n".join(troubles))


def _secrets(options: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Secret]]:
    for key, value in options.items():
        if isinstance(value, Secret):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _secrets(value, f"{prefix}{key}.")


def revealed(value: Any) -> Any:  # noqa: ANN401 - options of any type
    """Give a value with the secrets in it read, as they are now."""
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, Mapping):
        return {key: revealed(part) for key, part in value.items()}
    return value


# -- destinations


def check_sinks(config: Config) -> None:
    """See to it that each sink can make something of its options; secrets need not be there, nothing is connected to.

    Raises:
        ConfigError: If one cannot: all that are wrong.
    """
    troubles = []
    for sink in config.sinks.values():
        try:
            destination(sink, config.checkpoints)
        except SecretError:  # it is read when an export begins
            continue
        except ValueError as error:
            troubles.append(f"{config.file}: sinks.{sink.name}: {error}")
    if troubles:
        raise ConfigError(troubles)


def place_of_sink(config: Config, name: str) -> tuple[str, Callable[[], Mapping[str, Any]] | None]:
    """Give where a sink of a configuration writes, and the options of its store, to read it back.

    Args:
        config: What was read from its file.
        name: Of the sink.

    Raises:
        ConfigError: If there is no such sink, or what it writes cannot be read back.
    """
    readable = [sink.name for sink in config.sinks.values() if sink.type in _HOLDS_POSITIONS]
    if name not in readable:
        others = f"; these are: {listed(readable)}" if readable else "; none of this configuration is"
        end = did_you_mean(name, readable) or others
        raise ConfigError([f"{config.file}: {shown(name)} is not a sink that can be read back{end}"])
    options = config.sinks[name].options
    if config.sinks[name].type == "file":
        return options["path"], None
    return revealed(options["url"]), lambda: revealed(options["options"])


def destination(config: SinkConfig, checkpoints: str) -> Destination:
    """Make a destination.

    Args:
        config: What was read of it.
        checkpoints: The folder for the positions of sinks that cannot hold them; empty: none.

    Raises:
        ValueError: If the sink can make nothing of its options.
    """
    sink = _MAKERS[config.type](config)
    if checkpoints and config.type not in _HOLDS_POSITIONS:
        sink = Checkpointed(sink, Path(checkpoints) / f"{config.name}.json")
    return Destination(
        sink,
        config.batch,
        config.queue,
        cast("Literal['block', 'drop']", config.when_full),
        write_timeout=config.write_timeout,
    )


def _stdout(config: SinkConfig) -> Sink:  # noqa: ARG001 - it has no options
    return StdoutSink()


def _file(config: SinkConfig) -> Sink:
    return FileSink(**config.options)


def _object_store(config: SinkConfig) -> Sink:
    options = dict(config.options)
    inner, url = options.pop("options"), revealed(options.pop("url"))
    sink = ObjectStoreSink(url, options=lambda: _at_hand(inner), timeout=config.timeout, **options)
    check_options(url, {name: "" if isinstance(value, Secret) else value for name, value in inner.items()})
    return sink


def _webhook(config: SinkConfig) -> Sink:
    return WebhookSink(**_of_http(config))


def _otlp(config: SinkConfig) -> Sink:
    return OtlpSink(**_of_http(config))


def _of_http(config: SinkConfig) -> dict[str, Any]:
    """The arguments of a sink that makes requests: each secret as a function that reads it."""
    options = {name: _text(value) for name, value in config.options.items() if name != "headers"}
    headers = {name: _text(value) for name, value in config.options["headers"].items()}
    return {**options, "headers": headers, "timeout": config.timeout}


def _text(value: Any) -> Any:  # noqa: ANN401
    return value.reveal if isinstance(value, Secret) else value


def _at_hand(value: Any) -> Any:  # noqa: ANN401
    """Give what `revealed` gives; a secret that cannot be had while the export runs is waited for."""
    try:
        return revealed(value)
    except SecretError as error:
        raise Retry(str(error)) from None


_HOLDS_POSITIONS: Final = ("file", "object-store")
_MAKERS: Final[Mapping[str, Callable[[SinkConfig], Sink]]] = {
    "stdout": _stdout,
    "file": _file,
    "object-store": _object_store,
    "webhook": _webhook,
    "otlp": _otlp,
}
