"""The ledgers of an export as Prometheus metrics.

    import kevents.export.prometheus

    kevents.export.prometheus.register(exporter, enricher)

A metric is read from the ledgers when Prometheus asks; exporting costs nothing more. No label ever holds an object's
name or a message: they are the stream's scope (a namespace that the configuration names), the sink's name, a verb or a
state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, UnknownMetricFamily
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise ImportError(
        f"kevents.export.prometheus needs prometheus_client: pip install 'kevents[export]' ({missing})"
    ) from missing

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from kevents.export._model.statistics import ExportStatistics, Progress
    from kevents.export._model.types import Position

__all__ = ["ExportCollector", "register"]

_Numbers: TypeAlias = "Mapping[tuple[str, ...], float]"
_NANO: Final = 1_000_000_000
_STATES: Final = ("new", "starting", "running", "stopping", "ended")
_OBJECT_STATES: Final = ("live", "terminating", "gone", "replaced", "forbidden", "skipped")
_VERBS: Final = ("get", "discover", "list", "watch")


class HasStatistics(Protocol):
    """An exporter."""

    def statistics(self) -> ExportStatistics:
        """A snapshot of its ledgers."""


class HasLookUps(Protocol):
    """An enricher."""

    def statistics(self) -> Any:  # noqa: ANN401 - its room knows nothing of this one
        """A snapshot of its ledger."""


def register(
    exporter: HasStatistics, enricher: HasLookUps | None = None, *, registry: CollectorRegistry = REGISTRY
) -> ExportCollector:
    """Let a registry collect an export's ledgers.

    Args:
        exporter: Whose.
        enricher: Its enricher, if it has one.
        registry: Of prometheus_client.

    Raises:
        ValueError: If the registry has such a collector already.

    .. versionadded:: 0.1
    """
    collector = ExportCollector(exporter, enricher)
    try:
        registry.register(collector)
    except ValueError as error:
        raise ValueError("the registry collects an export's ledgers already: take another registry") from error
    return collector


class ExportCollector(Collector):
    """Collects the ledgers of an export.

    Args:
        exporter: Whose.
        enricher: Its enricher, if it has one.

    .. versionadded:: 0.1
    """

    def __init__(self, exporter: HasStatistics, enricher: HasLookUps | None = None) -> None:
        """Take both."""
        self._exporter = exporter
        self._enricher = enricher

    def describe(self) -> Iterable[Metric]:
        """Every metric without its samples: a registry refuses a second collector of them."""
        return [family.empty() for family in _FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Read every ledger once, and give the metrics."""
        rows = list(self._ledgers())
        for family in _FAMILIES:
            metric = family.empty()
            for labels, ledger in ((labels, ledger) for level, labels, ledger in rows if level == family.level):
                for values, number in family.numbers(ledger).items():
                    metric.add_metric([*labels, *values], number)
            yield metric

    def _ledgers(self) -> Iterator[tuple[str, tuple[str, ...], Any]]:
        """Each ledger with its level, and the values of the labels of that level."""
        statistics = self._exporter.statistics()
        yield "export", (), statistics
        for stream in statistics.streams:
            yield "stream", (stream.stream.scope,), stream
        for sink in statistics.destinations:
            yield "sink", (sink.name,), sink
            for stream_of, progress in sink.progress.items():
                yield "progress", (sink.name, stream_of.scope), progress
        if self._enricher is not None:
            yield "enricher", (), self._enricher.statistics()


_LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    "export": (),
    "stream": ("stream",),
    "sink": ("sink",),
    "progress": ("sink", "stream"),
    "enricher": (),
}


@dataclass(frozen=True)
class _Family:
    """One metric of the ledgers of a level; ``numbers`` gives the samples of a ledger by the labels' values."""

    level: str
    name: str
    text: str
    numbers: Callable[[Any], _Numbers]
    kind: type[CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily] = CounterMetricFamily
    labels: tuple[str, ...] = ()

    def empty(self) -> CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily:
        return self.kind(self.name, self.text, labels=[*_LABELS[self.level], *self.labels])


def _field(name: str) -> Callable[[Any], _Numbers]:
    return lambda ledger: {(): float(getattr(ledger, name))}


def _by_key(name: str, possible: tuple[str, ...]) -> Callable[[Any], _Numbers]:
    """The possible keys are there with 0 from the start: the first increase is seen as one."""
    return lambda ledger: {(key,): getattr(ledger, name).get(key, 0) for key in (*possible, *getattr(ledger, name))}


def _state(statistics: ExportStatistics) -> _Numbers:
    return {(state,): float(state == statistics.state) for state in _STATES}


def _when(name: str) -> Callable[[Any], _Numbers]:
    return lambda ledger: _of_position(getattr(ledger, name), lambda position: position.time / _NANO)


def _version(name: str) -> Callable[[Any], _Numbers]:
    return lambda ledger: _of_position(getattr(ledger, name), lambda position: float(position.rv))


def _of_position(position: Position | None, read: Callable[[Position], float]) -> _Numbers:
    return {} if position is None else {(): read(position)}


def _lag(progress: Progress) -> _Numbers:
    """How far the committed position is behind the read one, by the times at which both were read."""
    read, committed = progress.position, progress.committed
    return {(): max(read.time - committed.time, 0) / _NANO} if read and committed else {}


def _lost(sink: Any) -> _Numbers:  # noqa: ANN401
    return {("queue_full",): sink.dropped, ("refused",): sink.refused}


_GAUGE: Final = GaugeMetricFamily
_FAMILIES: Final = (
    _Family("export", "kevents_export_state", "1 for the state that the export is in.", _state, _GAUGE, ("state",)),
    _Family(
        "export", "kevents_export_beat_age_seconds", "Since it looked after its parts.", _field("beat_age"), _GAUGE
    ),
    _Family("stream", "kevents_export_stream_read_records", "Records that the source gave.", _field("read")),
    _Family("stream", "kevents_export_stream_gaps", "Times that events could not be had any more.", _field("gaps")),
    _Family("stream", "kevents_export_stream_routed_records", "Records that a route wanted.", _field("routed")),
    _Family("stream", "kevents_export_stream_unrouted_records", "Records that no route wants.", _field("unrouted")),
    _Family("stream", "kevents_export_stream_failed_records", "Records on which a route raised.", _field("failed")),
    _Family("stream", "kevents_export_stream_waiting_records", "Records on their way.", _field("waiting"), _GAUGE),
    _Family(
        "stream",
        "kevents_export_stream_position_timestamp_seconds",
        "When what was read last was read.",
        _when("position"),
        _GAUGE,
    ),
    _Family(
        "stream",
        "kevents_export_stream_position_resource_version",
        "How far the stream was read.",
        _version("position"),
        _GAUGE,
    ),
    _Family("stream", "kevents_export_stream_silent_seconds", "Since it gave something.", _field("silent_for"), _GAUGE),
    _Family("sink", "kevents_export_sink_offered_records", "Records that a route sent here.", _field("offered")),
    _Family(
        "sink",
        "kevents_export_sink_already_stored_records",
        "Of these, those it had stored before this run.",
        _field("already_stored"),
    ),
    _Family("sink", "kevents_export_sink_written_records", "Records that it acknowledged.", _field("written")),
    _Family("sink", "kevents_export_sink_dead_letters", "Records in the dead letters.", _field("dead_lettered")),
    _Family("sink", "kevents_export_sink_lost_records", "Records lost, by reason.", _lost, labels=("reason",)),
    _Family("sink", "kevents_export_sink_waiting_records", "Records still to be written.", _field("waiting"), _GAUGE),
    _Family("sink", "kevents_export_sink_waiting_bytes", "The bytes of their lines.", _field("waiting_bytes"), _GAUGE),
    _Family("sink", "kevents_export_sink_in_flight_records", "Records being written.", _field("in_flight"), _GAUGE),
    _Family("sink", "kevents_export_sink_oldest_age_seconds", "Of what waits.", _field("oldest_age"), _GAUGE),
    _Family("sink", "kevents_export_sink_batches", "Batches that it acknowledged.", _field("batches")),
    _Family("sink", "kevents_export_sink_bytes", "Bytes of the lines that it acknowledged.", _field("bytes")),
    _Family("sink", "kevents_export_sink_retries", "Tries beyond the first of a batch.", _field("retries")),
    _Family("sink", "kevents_export_sink_failing_tries", "Failed since it acknowledged.", _field("failing"), _GAUGE),
    _Family("sink", "kevents_export_sink_overdue", "1 while a write takes too long.", _field("overdue"), _GAUGE),
    _Family("sink", "kevents_export_sink_silent_seconds", "Since it acknowledged.", _field("silent_for"), _GAUGE),
    _Family(
        "progress",
        "kevents_export_sink_position_resource_version",
        "How far the stream was read for it.",
        _version("position"),
        _GAUGE,
    ),
    _Family(
        "progress",
        "kevents_export_sink_committed_resource_version",
        "How far it holds the stream.",
        _version("committed"),
        _GAUGE,
    ),
    _Family(
        "progress",
        "kevents_export_sink_committed_timestamp_seconds",
        "When what it holds was read.",
        _when("committed"),
        _GAUGE,
    ),
    _Family(
        "progress",
        "kevents_export_sink_lag_seconds",
        "Seconds from the committed position to the read one.",
        _lag,
        _GAUGE,
    ),
    # These two have the names that event-exporter's dashboards know, without the ending that counters have.
    _Family(
        "enricher",
        "kube_api_read_cache_hits",
        "Events whose object was known.",
        _field("kube_api_read_cache_hits"),
        UnknownMetricFamily,
    ),
    _Family(
        "enricher",
        "kube_api_read_cache_misses",
        "Objects that the server was asked for.",
        _field("kube_api_read_cache_misses"),
        UnknownMetricFamily,
    ),
    _Family("enricher", "kevents_export_enricher_requests", "By verb.", _by_key("requests", _VERBS), labels=("verb",)),
    _Family(
        "enricher",
        "kevents_export_enricher_records",
        "By the state of their object.",
        _by_key("states", _OBJECT_STATES),
        labels=("state",),
    ),
    _Family("enricher", "kevents_export_enricher_errors", "Records left as they were.", _field("errors")),
)
