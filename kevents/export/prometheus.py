"""The statistics of an export as Prometheus metrics.

    import kevents.export.prometheus

    kevents.export.prometheus.register(exporter, enricher)

The statistics are read when Prometheus scrapes; the export itself has no overhead. No label ever holds an object's
name or a message: they are the stream's scope (a namespace that the configuration names), the sink's name, a verb or a
state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from kevents._model.validation import how_to_install

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, UnknownMetricFamily
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise ImportError(
        f"kevents.export.prometheus needs prometheus_client: {how_to_install('export')} ({missing})"
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
        """A snapshot of its statistics."""


class HasLookUps(Protocol):
    """An enricher."""

    def statistics(self) -> Any:  # noqa: ANN401 - this module does not import the enricher
        """A snapshot of its statistics."""


def register(
    exporter: HasStatistics, enricher: HasLookUps | None = None, *, registry: CollectorRegistry = REGISTRY
) -> ExportCollector:
    """Register the metrics of an export.

    Args:
        exporter: The exporter.
        enricher: Its enricher, if it has one.
        registry: A registry of prometheus_client.

    Raises:
        ValueError: If the registry has metrics of an export already.

    .. versionadded:: 0.1
    """
    collector = ExportCollector(exporter, enricher)
    try:
        registry.register(collector)
    except ValueError as error:
        raise ValueError("the registry has metrics of an export already: use another registry") from error
    return collector


class ExportCollector(Collector):
    """Collects the statistics of an export.

    Args:
        exporter: The exporter.
        enricher: Its enricher, if it has one.

    .. versionadded:: 0.1
    """

    def __init__(self, exporter: HasStatistics, enricher: HasLookUps | None = None) -> None:
        """Collect nothing yet."""
        self._exporter = exporter
        self._enricher = enricher

    def describe(self) -> Iterable[Metric]:
        """Every metric without samples, by which a registry detects a second collector."""
        return [family.empty() for family in _FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Read all statistics once, and return the metrics."""
        rows = list(self._levels())
        for family in _FAMILIES:
            metric = family.empty()
            for labels, found in ((labels, found) for level, labels, found in rows if level == family.level):
                for values, number in family.numbers(found).items():
                    metric.add_metric([*labels, *values], number)
            yield metric

    def _levels(self) -> Iterator[tuple[str, tuple[str, ...], Any]]:
        """All statistics, each with its level and the values of the labels of that level."""
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
    """One metric of a level; ``numbers`` reads its samples from the statistics, by the values of the labels."""

    level: str
    name: str
    text: str
    numbers: Callable[[Any], _Numbers]
    kind: type[CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily] = CounterMetricFamily
    labels: tuple[str, ...] = ()

    def empty(self) -> CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily:
        return self.kind(self.name, self.text, labels=[*_LABELS[self.level], *self.labels])


def _field(name: str) -> Callable[[Any], _Numbers]:
    return lambda found: {(): float(getattr(found, name))}


def _by_key(name: str, possible: tuple[str, ...]) -> Callable[[Any], _Numbers]:
    """Samples by key. The possible keys start at 0, so that a rate sees their first increase."""
    return lambda found: {(key,): getattr(found, name).get(key, 0) for key in (*possible, *getattr(found, name))}


def _state(statistics: ExportStatistics) -> _Numbers:
    return {(state,): float(state == statistics.state) for state in _STATES}


def _when(name: str) -> Callable[[Any], _Numbers]:
    return lambda found: _of_position(getattr(found, name), lambda position: position.time / _NANO)


def _version(name: str) -> Callable[[Any], _Numbers]:
    return lambda found: _of_position(getattr(found, name), lambda position: float(position.rv))


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
    _Family("export", "kevents_export_beat_age_seconds", "Seconds since its loop ran.", _field("beat_age"), _GAUGE),
    _Family("stream", "kevents_export_stream_read_records", "Records read.", _field("read")),
    _Family("stream", "kevents_export_stream_gaps", "Gaps: events that were lost for good.", _field("gaps")),
    _Family("stream", "kevents_export_stream_routed_records", "Records that matched a route.", _field("routed")),
    _Family("stream", "kevents_export_stream_unrouted_records", "Records that matched no route.", _field("unrouted")),
    _Family("stream", "kevents_export_stream_failed_records", "Records on which a route raised.", _field("failed")),
    _Family("stream", "kevents_export_stream_waiting_records", "Records in progress.", _field("waiting"), _GAUGE),
    _Family(
        "stream",
        "kevents_export_stream_position_timestamp_seconds",
        "When the last record was read.",
        _when("position"),
        _GAUGE,
    ),
    _Family(
        "stream",
        "kevents_export_stream_position_resource_version",
        "Resource version up to which the stream was read.",
        _version("position"),
        _GAUGE,
    ),
    _Family(
        "stream",
        "kevents_export_stream_silent_seconds",
        "Seconds since the last answer of the server.",
        _field("silent_for"),
        _GAUGE,
    ),
    _Family("sink", "kevents_export_sink_offered_records", "Records that a route sent to the sink.", _field("offered")),
    _Family(
        "sink",
        "kevents_export_sink_already_stored_records",
        "Offered records that it had stored before.",
        _field("already_stored"),
    ),
    _Family("sink", "kevents_export_sink_written_records", "Records that it acknowledged.", _field("written")),
    _Family("sink", "kevents_export_sink_dead_letters", "Records in the dead letters.", _field("dead_lettered")),
    _Family("sink", "kevents_export_sink_lost_records", "Records lost, by reason.", _lost, labels=("reason",)),
    _Family("sink", "kevents_export_sink_waiting_records", "Records not written yet.", _field("waiting"), _GAUGE),
    _Family("sink", "kevents_export_sink_waiting_bytes", "Bytes of these records.", _field("waiting_bytes"), _GAUGE),
    _Family("sink", "kevents_export_sink_in_flight_records", "Records being written.", _field("in_flight"), _GAUGE),
    _Family(
        "sink",
        "kevents_export_sink_oldest_age_seconds",
        "Age of the oldest waiting record.",
        _field("oldest_age"),
        _GAUGE,
    ),
    _Family("sink", "kevents_export_sink_batches", "Batches that it acknowledged.", _field("batches")),
    _Family("sink", "kevents_export_sink_bytes", "Bytes that it acknowledged.", _field("bytes")),
    _Family("sink", "kevents_export_sink_retries", "Repeated attempts to write a batch.", _field("retries")),
    _Family(
        "sink",
        "kevents_export_sink_failing_tries",
        "Failed attempts since the last acknowledgement.",
        _field("failing"),
        _GAUGE,
    ),
    _Family("sink", "kevents_export_sink_overdue", "1 while a write takes too long.", _field("overdue"), _GAUGE),
    _Family(
        "sink",
        "kevents_export_sink_silent_seconds",
        "Seconds since the last acknowledgement.",
        _field("silent_for"),
        _GAUGE,
    ),
    _Family(
        "progress",
        "kevents_export_sink_position_resource_version",
        "Resource version up to which the stream was read for it.",
        _version("position"),
        _GAUGE,
    ),
    _Family(
        "progress",
        "kevents_export_sink_committed_resource_version",
        "Resource version up to which it has stored the stream.",
        _version("committed"),
        _GAUGE,
    ),
    _Family(
        "progress",
        "kevents_export_sink_committed_timestamp_seconds",
        "When the last stored record was read.",
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
    # These two have the names of event-exporter's metrics, which lack the suffix of counters.
    _Family(
        "enricher",
        "kube_api_read_cache_hits",
        "Events whose object was in the cache.",
        _field("kube_api_read_cache_hits"),
        UnknownMetricFamily,
    ),
    _Family(
        "enricher",
        "kube_api_read_cache_misses",
        "Objects that were requested from the server.",
        _field("kube_api_read_cache_misses"),
        UnknownMetricFamily,
    ),
    _Family(
        "enricher",
        "kevents_export_enricher_requests",
        "Requests by verb.",
        _by_key("requests", _VERBS),
        labels=("verb",),
    ),
    _Family(
        "enricher",
        "kevents_export_enricher_records",
        "Records by the state of their object.",
        _by_key("states", _OBJECT_STATES),
        labels=("state",),
    ),
    _Family(
        "enricher",
        "kevents_export_enricher_incomplete_records",
        "Records that went on without metadata.",
        _field("incomplete"),
    ),
    _Family(
        "enricher",
        "kevents_export_enricher_errors",
        "Records that were not enriched because of an error.",
        _field("errors"),
    ),
)
