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
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kevents._model.validation import how_to_install
from kevents.export._enrich.cache import STATES
from kevents.export._enrich.enricher import Enricher
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics, Progress
from kevents.export._pipeline.exporter import Exporter

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

__all__ = ["ExportCollector", "register"]

_Kind: TypeAlias = type[CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily]
_Numbers: TypeAlias = "Mapping[tuple[str, ...], float]"
_NANO: Final = 1_000_000_000
_STATES: Final = ("new", "starting", "running", "stopping", "ended")
_VERBS: Final = ("get", "discover", "list", "watch")


def register(
    exporter: Exporter, enricher: Enricher | None = None, *, registry: CollectorRegistry = REGISTRY
) -> ExportCollector:
    """Register the metrics of an export.

    Args:
        exporter: The exporter.
        enricher: Its enricher, if it has one.
        registry: A registry of prometheus_client.

    Raises:
        ValueError: If the registry has metrics of an export already.
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
    """

    def __init__(self, exporter: Exporter, enricher: Enricher | None = None) -> None:
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
    """One metric of a level."""

    level: str
    name: str
    text: str
    read: str | Callable[[Any], _Numbers]  # the path of its value in the statistics, or a function for several samples
    kind: _Kind
    labels: tuple[str, ...] = ()

    def empty(self) -> Any:  # noqa: ANN401 - prometheus_client types no method that all kinds have
        return self.kind(self.name, self.text, labels=[*_LABELS[self.level], *self.labels])

    def numbers(self, found: Any) -> _Numbers:  # noqa: ANN401 - the statistics of any level
        """The samples, by the values of the labels; none where nothing is known yet."""
        if callable(self.read):
            return self.read(found)
        for name in self.read.split("."):
            found = None if found is None else getattr(found, name)
        return {} if found is None else {(): found / _NANO if self.read.endswith(".time") else float(found)}


def _by_key(name: str, possible: tuple[str, ...]) -> Callable[[Any], _Numbers]:
    """Samples by key. The possible keys start at 0, so that a rate sees their first increase."""
    return lambda found: {(key,): getattr(found, name).get(key, 0) for key in (*possible, *getattr(found, name))}


def _state(statistics: ExportStatistics) -> _Numbers:
    return {(state,): float(state == statistics.state) for state in _STATES}


def _lag(progress: Progress) -> _Numbers:
    """How far the committed position is behind the read one, by the times at which both were read."""
    read, committed = progress.position, progress.committed
    return {(): max(read.time - committed.time, 0) / _NANO} if read and committed else {}


def _lost(sink: DestinationStatistics) -> _Numbers:
    return {("queue_full",): sink.dropped, ("refused",): sink.refused}


def _families(kind: _Kind, level: str, *rows: Any) -> Iterator[_Family]:  # noqa: ANN401
    """The metrics of a level. A row has the name, the text, how it is read, and the labels besides the level's."""
    for name, text, read, *labels in rows:
        prefix = "" if name.startswith("kube_") else "kevents_export_"
        yield _Family(level, f"{prefix}{name}", text, read, kind, tuple(labels))


_FAMILIES: Final = (
    *_families(
        GaugeMetricFamily,
        "export",
        ("state", "1 for the state that the export is in.", _state, "state"),
        ("beat_age_seconds", "Seconds since its loop ran.", "beat_age"),
    ),
    *_families(
        CounterMetricFamily,
        "stream",
        ("stream_read_records", "Records read.", "read"),
        ("stream_gaps", "Gaps: events that were lost for good.", "gaps"),
        ("stream_routed_records", "Records that matched a route.", "routed"),
        ("stream_unrouted_records", "Records that matched no route.", "unrouted"),
        ("stream_failed_records", "Records on which a route raised.", "failed"),
    ),
    *_families(
        GaugeMetricFamily,
        "stream",
        ("stream_waiting_records", "Records in progress.", "waiting"),
        ("stream_position_timestamp_seconds", "When the last record was read.", "position.time"),
        ("stream_position_resource_version", "Resource version up to which the stream was read.", "position.rv"),
        ("stream_silent_seconds", "Seconds since the last answer of the server.", "silent_for"),
    ),
    *_families(
        CounterMetricFamily,
        "sink",
        ("sink_offered_records", "Records that a route sent to the sink.", "offered"),
        ("sink_already_stored_records", "Offered records that it had stored before.", "already_stored"),
        ("sink_written_records", "Records that it acknowledged.", "written"),
        ("sink_dead_letters", "Records in the dead letters.", "dead_lettered"),
        ("sink_lost_records", "Records lost, by reason.", _lost, "reason"),
    ),
    *_families(
        GaugeMetricFamily,
        "sink",
        ("sink_waiting_records", "Records not written yet.", "waiting"),
        ("sink_waiting_bytes", "Bytes of these records.", "waiting_bytes"),
        ("sink_in_flight_records", "Records being written.", "in_flight"),
        ("sink_oldest_age_seconds", "Age of the oldest waiting record.", "oldest_age"),
    ),
    *_families(
        CounterMetricFamily,
        "sink",
        ("sink_batches", "Batches that it acknowledged.", "batches"),
        ("sink_bytes", "Bytes that it acknowledged.", "bytes"),
        ("sink_retries", "Repeated attempts to write a batch.", "retries"),
    ),
    *_families(
        GaugeMetricFamily,
        "sink",
        ("sink_failing_tries", "Failed attempts since the last acknowledgement.", "failing"),
        ("sink_overdue", "1 while a write takes too long.", "overdue"),
        ("sink_silent_seconds", "Seconds since the last acknowledgement.", "silent_for"),
    ),
    *_families(
        GaugeMetricFamily,
        "progress",
        ("sink_position_resource_version", "Resource version up to which the stream was read for it.", "position.rv"),
        ("sink_committed_resource_version", "Resource version up to which it has stored the stream.", "committed.rv"),
        ("sink_committed_timestamp_seconds", "When the last stored record was read.", "committed.time"),
        ("sink_lag_seconds", "Seconds from the committed position to the read one.", _lag),
    ),
    # These two have the names of event-exporter's metrics, which lack the suffix of counters.
    *_families(
        UnknownMetricFamily,
        "enricher",
        ("kube_api_read_cache_hits", "Events whose object was in the cache.", "kube_api_read_cache_hits"),
        ("kube_api_read_cache_misses", "Objects that were requested from the server.", "kube_api_read_cache_misses"),
    ),
    *_families(
        CounterMetricFamily,
        "enricher",
        ("enricher_requests", "Requests by verb.", _by_key("requests", _VERBS), "verb"),
        ("enricher_records", "Records by the state of their object.", _by_key("states", STATES), "state"),
        ("enricher_incomplete_records", "Records that went on without metadata.", "incomplete"),
        ("enricher_errors", "Records that were not enriched because of an error.", "errors"),
    ),
)
