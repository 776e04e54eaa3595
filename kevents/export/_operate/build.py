"""Builds the parts of an export from its configuration."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from kevents._clients.client import Kubeconfig, endpoint_of_kubeconfig
from kevents._clients.endpoint import kubeconfig
from kevents._model.wire import pluralize, printable
from kevents.export._config.file import ClusterConfig, Config, ConfigError, load
from kevents.export._config.sinks import READABLE, SinkConfig, make_sink, revealed
from kevents.export._config.table_reader import Secret, SecretError
from kevents.export._enrich.enricher import Enricher
from kevents.export._model.options import Destination
from kevents.export._model.text import did_you_mean, listed, shown
from kevents.export._operate.filters import OptionError
from kevents.export._operate.health import HealthServer
from kevents.export._pipeline.exporter import Exporter
from kevents.export._route.routes import Answer, Router, is_gap
from kevents.export._sinks.local_files import Checkpointed, DeadLetters
from kevents.export._source.source import ClusterEventSource

NOT_ROUTED = 1


def check(config: Path, event: str | None, stream: TextIO) -> int:
    """Check a configuration, and explain the routes of events; return 1 if an event has no destination, else 0."""
    settings = load(config)
    check_sinks(settings)
    if event is None:
        sinks = ", ".join(f"{sink.name} ({sink.type})" for sink in settings.sinks.values())
        text = f"{settings.file}: good; {pluralize(len(settings.routes), 'route')}, sinks: {sinks}"
        stream.write(f"{printable(text)}\n")
        return 0
    router = Router(settings.routes)
    lines: list[str] = []
    status = 0
    for body in events_of(event):
        targets = router.targets_of(body)
        lines += [_title(body), *_answers(router, body), f"  -> {', '.join(targets) or 'nowhere'}"]
        status = status if targets else NOT_ROUTED
    stream.write("".join(f"{printable(line)}\n" for line in lines))
    return status


def events_of(file: str) -> Iterator[dict[str, Any]]:
    """The events of a file, which kubectl has written with ``-o json``, or an export line by line."""
    text = _text(file)
    try:
        found = [json.loads(text)]
    except ValueError:
        found = [_line(file, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    lists = [each.get("items", [each]) if isinstance(each, dict) else [each] for each in found]
    events = [event for each in lists if isinstance(each, list) for event in each]
    if not events:
        raise OptionError(f"{file}: contains no event: give what 'kubectl get event NAME -o json' prints")
    for event in events:
        if not isinstance(event, dict) or not ({"involvedObject", "regarding"} & set(event) or is_gap(event)):
            raise OptionError(
                f"{file}: not an event, because it has no involvedObject: give what 'kubectl get event NAME -o json' "
                "prints"
            )
        yield _as_core(event)


def _text(file: str) -> str:
    try:
        return (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).decode("utf-8-sig")
    except OSError as error:
        raise OptionError(f"{file}: cannot be read ({error.strerror or type(error).__name__})") from None
    except UnicodeDecodeError as error:
        raise OptionError(f"{file}: is not UTF-8 text (byte {error.start})") from None


def _line(file: str, number: int, line: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(line)
    except ValueError as error:
        raise OptionError(f"{file}:{number}: is not valid JSON ({error})") from None


def _as_core(event: dict[str, Any]) -> dict[str, Any]:
    """An event of events.k8s.io/v1, as 'kubectl get events.events.k8s.io' prints it, with the names of core/v1."""
    if "regarding" not in event:
        return event
    return {
        **event,
        "involvedObject": event["regarding"],
        "message": event.get("note", ""),
        "reportingComponent": event.get("reportingController", ""),
        "source": event.get("deprecatedSource", {}),
        "count": event.get("deprecatedCount"),
    }


def _title(body: dict[str, Any]) -> str:
    if is_gap(body):
        return "a gap"
    about = body.get("involvedObject") or {}
    where = (body.get("metadata") or {}).get("namespace") or about.get("namespace") or ""
    name = f"{about.get('kind', '')}/{about.get('name', '')}"
    return f"{body.get('type', '')} {body.get('reason', '')} about {name}{f' in {where}' if where else ''}"


def _answers(router: Router, body: dict[str, Any]) -> Iterator[str]:
    if is_gap(body):
        yield "  a gap goes to every sink that a route names"
        return
    for number, answer in enumerate(router.explain(body), 1):
        yield f"  route {number}{f' ({answer.route.id})' if answer.route.id else ''}{_verdict(answer)}"


def _verdict(answer: Answer) -> str:
    if answer.matched is None:
        return " is not evaluated, because an earlier one stops"
    reasons = "; ".join(answer.reasons)
    if not answer.matched:
        return f" does not match: {reasons}"
    to = ", ".join(answer.route.sinks) or "nowhere"
    return f" matches and goes to {to}{', and stops' if answer.route.stop else ''}: {reasons}"


_UNBATCHED_WAIT: Final = 5.0


@dataclass(frozen=True, slots=True)
class Parts:
    """An export, its enricher and its health server, if it has them."""

    exporter: Exporter
    enricher: Enricher | None
    health: HealthServer | None


def build(config: Config) -> Parts:
    """Build an export, without connecting to anything.

    Raises SecretError or ConfigError, which name all missing secrets or refused options, and KubeconfigError.
    """
    check_secrets(config)
    check_sinks(config)
    api = kubeconfig_of(config.cluster)
    cluster = config.cluster
    source = ClusterEventSource(api, **asdict(config.source), cluster=cluster.id or None, cluster_name=cluster.name)
    enricher = None
    if config.enrich.cache_size:
        enricher = Enricher(api, **{**asdict(config.enrich), "wait": config.enrich.wait or _default_wait(config)})
    exporter = Exporter(
        source,
        routes=Router(config.routes),
        sinks={name: destination(sink, config.checkpoints) for name, sink in config.sinks.items()},
        enrich=enricher,
        dead_letters=DeadLetters(config.dead_letters) if config.dead_letters else None,
        grace=config.grace,
    )
    health = None if config.health.host is None else HealthServer(exporter, enricher, **asdict(config.health))
    return Parts(exporter, enricher, health)


def _default_wait(config: Config) -> float:
    """Seconds that a record waits for metadata: the shortest `max_age` of a batch; 5 s for a sink without batches."""
    batches = [sink.batch for sink in config.sinks.values()]
    return min(batch.max_age if batch.max_items > 1 else _UNBATCHED_WAIT for batch in batches)


def kubeconfig_of(cluster: ClusterConfig) -> Kubeconfig | None:
    """Return a configuration's kubeconfig; None: in-cluster, else the usual one. Raises KubeconfigError."""
    if not cluster.kubeconfig and not cluster.context:
        return None
    named = Kubeconfig(cluster.kubeconfig or kubeconfig(), cluster.context)
    endpoint_of_kubeconfig(named)
    return named


def check_secrets(config: Config) -> None:
    """Resolve every secret. Raises SecretError if secrets are missing; it names all."""
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


def check_sinks(config: Config) -> None:
    """Build each sink, without missing secrets or connections. Raises ConfigError with all refused options."""
    troubles = []
    for sink in config.sinks.values():
        try:
            destination(sink, config.checkpoints)
        except SecretError:  # reported when an export begins
            continue
        except ValueError as error:
            troubles.append(f"{config.file}: sinks.{sink.name}: {error}")
    if troubles:
        raise ConfigError(troubles)


def place_of_sink(config: Config, name: str) -> tuple[str, Callable[[], Mapping[str, Any]] | None]:
    """Return the place of a sink to read back, and a function for the options of its store. Raises ConfigError."""
    readable = [sink.name for sink in config.sinks.values() if sink.type in READABLE]
    if name not in readable:
        others = f"; these are: {listed(readable)}" if readable else "; none of this configuration is"
        end = did_you_mean(name, readable) or others
        raise ConfigError([f"{config.file}: {shown(name)} is not a sink that can be read back{end}"])
    options = config.sinks[name].options
    if config.sinks[name].type == "file":
        return options["path"], None
    return revealed(options["url"]), lambda: revealed(options["options"])


def destination(config: SinkConfig, checkpoints: str) -> Destination:
    """Build a destination. Raises ValueError if the sink refuses its options."""
    sink = make_sink(config)
    if checkpoints and config.type not in READABLE:
        sink = Checkpointed(sink, Path(checkpoints) / f"{config.name}.json")
    return Destination(sink, config.batch, config.queue, config.when_full, write_timeout=config.write_timeout)
