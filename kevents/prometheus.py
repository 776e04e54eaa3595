"""Statistics of broadcasters as Prometheus metrics.

    import kevents.prometheus

    kevents.prometheus.register(broadcaster)

Metrics are read from ``broadcaster.statistics()`` at each scrape and add no cost to recording. Labels are the names of
broadcaster and watcher, a reason, a verb, an HTTP status or a cache, never the name of an object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from kevents._model.statistics import DropReason, Statistics
from kevents._model.validation import how_to_install
from kevents._model.wire import clean

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise ImportError(
        f"kevents.prometheus needs prometheus_client: {how_to_install('prometheus')} ({missing})"
    ) from missing

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from kevents._model.statistics import SinkStatistics, WatcherStatistics

__all__ = ["StatisticsCollector", "register"]

_Numbers: TypeAlias = "Mapping[tuple[str, ...], float]"


class HasStatistics(Protocol):
    """A broadcaster of any API."""

    def statistics(self) -> Statistics:
        """Return a snapshot of the statistics."""


def register(
    broadcaster: HasStatistics, *, name: str = "default", registry: CollectorRegistry = REGISTRY
) -> StatisticsCollector:
    """Register a broadcaster's statistics with a registry.

    Args:
        broadcaster: The broadcaster.
        name: The value of the label ``broadcaster``.
        registry: A registry of prometheus_client.

    Returns:
        The collector. Add further broadcasters to it: ``collector.add(other, "other")``.

    Raises:
        TypeError: If ``broadcaster`` is no broadcaster, or ``name`` is not a text.
        ValueError: If the registry already has such a collector.
    """
    collector = StatisticsCollector()
    collector.add(broadcaster, name)
    try:
        registry.register(collector)
    except ValueError as error:
        raise ValueError("the registry already has a collector of kevents: call its add(...) instead") from error
    return collector


class StatisticsCollector(Collector):
    """Collects the statistics of any number of broadcasters. A registry accepts only one such collector."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._broadcasters: Mapping[str, HasStatistics] = {}

    def add(self, broadcaster: HasStatistics, name: str = "default") -> None:
        """Add a broadcaster under a name, the value of the label ``broadcaster``.

        Raises:
            TypeError: If ``broadcaster`` is no broadcaster, or ``name`` is not a text.
            ValueError: If another broadcaster has the name, or the name is not valid Unicode.
        """
        _require_broadcaster(broadcaster)
        if not isinstance(name, str):
            raise TypeError(f"name must be a text, not {name!r}: it is the value of a label")
        if clean(name) != name:
            raise ValueError(f"name {name!r} is not valid Unicode, which Prometheus requires")
        with self._lock:
            if self._broadcasters.get(name, broadcaster) is not broadcaster:
                raise ValueError(f"another broadcaster is registered as {name!r}: give this one another name")
            self._broadcasters = {**self._broadcasters, name: broadcaster}

    def remove(self, name: str = "default") -> None:
        """Remove the broadcaster of this name, if there is one."""
        with self._lock:
            self._broadcasters = {key: value for key, value in self._broadcasters.items() if key != name}

    def describe(self) -> Iterable[Metric]:
        """Return every metric without samples, so that a registry refuses a second collector."""
        return [family.empty() for family in _FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Read the statistics once and yield the metrics."""
        rows = [
            row for name, broadcaster in self._broadcasters.items() for row in _rows(name, broadcaster.statistics())
        ]
        for family in _FAMILIES:
            metric = family.empty()
            for level, labels, statistics in rows:
                if level == family.level:
                    for values, number in family.numbers(statistics).items():
                        metric.add_metric([*labels, *values], number)
            yield metric


def _require_broadcaster(thing: object) -> None:
    """Refuse an object without statistics, which would make every scrape fail."""
    read = getattr(thing, "statistics", None)
    if not callable(read) or not isinstance(read(), Statistics):
        raise TypeError(f"broadcaster must be one of kevents, not {thing!r}: it has no statistics()")


def _rows(name: str, statistics: Statistics) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield the statistics of each level with the level's name and label values."""
    yield "broadcaster", (name,), statistics
    for watcher in statistics.watchers:
        yield "watcher", (name, watcher.name), watcher
        if watcher.sink is not None:
            yield "sink", (name, watcher.name), watcher.sink


@dataclass(frozen=True)
class _Family:
    """One metric. Its name begins with its level; ``numbers`` returns the samples by label values."""

    name: str
    text: str
    numbers: Callable[[Any], _Numbers]
    kind: type[CounterMetricFamily | GaugeMetricFamily] = CounterMetricFamily
    labels: tuple[str, ...] = ()

    @property
    def level(self) -> str:
        level = self.name.partition("_")[0]
        return level if level in {"watcher", "sink"} else "broadcaster"

    def empty(self) -> CounterMetricFamily | GaugeMetricFamily:
        above = ("broadcaster",) if self.level == "broadcaster" else ("broadcaster", "watcher")
        return self.kind(f"kevents_{self.name}", self.text, labels=[*above, *self.labels])


def _field(name: str) -> Callable[[Any], _Numbers]:
    return lambda statistics: {(): float(getattr(statistics, name))}


def _by_key(name: str) -> Callable[[Any], _Numbers]:
    return lambda statistics: {(str(key),): number for key, number in getattr(statistics, name).items()}


def _by_reason(counted: Mapping[DropReason, int], *possible: DropReason, **more: int) -> _Numbers:
    """Return the number for each reason; the possible ones start at 0, so that ``increase`` sees the first event."""
    reasons = {reason.value: counted.get(reason, 0) for reason in (*possible, *counted)}
    return {(reason,): number for reason, number in {**reasons, **more}.items()}


def _refused(statistics: Statistics) -> _Numbers:
    possible = (
        DropReason.INVALID_REFERENCE,
        DropReason.INVALID_TYPE,
        DropReason.INVALID_MESSAGE,
        DropReason.RECURSION,
        DropReason.INTERNAL,
        DropReason.SHUTDOWN,
    )
    return _by_reason(statistics.refused, *possible, no_watcher=statistics.no_watcher)


def _lost(statistics: WatcherStatistics) -> _Numbers:
    return {
        ("queue_full",): statistics.queue_full,
        ("handler_failed",): statistics.failed,
        ("shutdown",): statistics.shutdown,
    }


def _dropped(statistics: SinkStatistics) -> _Numbers:
    possible = (
        DropReason.BACKLOG_FULL,
        DropReason.REJECTED,
        DropReason.RETRIES_EXHAUSTED,
        DropReason.EXPIRED,
        DropReason.INTERNAL,
        DropReason.SHUTDOWN,
    )
    return _by_reason(statistics.dropped, *possible, spam_filtered=statistics.spam_filtered)


def _rejected(statistics: SinkStatistics) -> _Numbers:
    codes = {
        code: statistics.rejected_by_code.get(code, 0) for code in (400, 403, 404, 422, *statistics.rejected_by_code)
    }
    return {(str(code),): events for code, events in codes.items()}


def _writes(statistics: SinkStatistics) -> _Numbers:
    return {("create",): statistics.created, ("patch",): statistics.patched}


_GAUGE: Final = GaugeMetricFamily
_FAMILIES: Final = (
    _Family("recorded_events", "Calls of the recorders' methods.", _field("recorded")),
    _Family("published_events", "Events passed on to the watchers.", _field("published")),
    _Family("refused_events", "Events refused when recorded, by reason.", _refused, labels=("reason",)),
    _Family("watcher_offered_events", "Events published to the watcher.", _field("offered")),
    _Family("watcher_handled_events", "Events whose handler call returned.", _field("handled")),
    _Family("watcher_dropped_events", "Events dropped by the watcher, by reason.", _lost, labels=("reason",)),
    _Family("watcher_waiting_events", "Events in its queue or handler.", _field("waiting"), _GAUGE),
    _Family("sink_accepted_events", "Events received from the watcher.", _field("accepted")),
    _Family("sink_delivered_events", "Events whose write the API server acknowledged.", _field("delivered")),
    _Family("sink_dropped_events", "Events dropped by the sink, by reason.", _dropped, labels=("reason",)),
    _Family("sink_rejected_events", "Events refused by the API server, by HTTP status.", _rejected, labels=("code",)),
    _Family("sink_merged_events", "Events that joined a pending write.", _field("merged")),
    _Family("sink_aggregated_events", "Events that became part of a combined event.", _field("aggregated")),
    _Family("sink_writes", "Acknowledged writes, by verb.", _writes, labels=("verb",)),
    _Family("sink_retries", "Attempts after the first one of a write.", _field("retried")),
    _Family("sink_recreations", "Patches answered with 404 and sent again as creates.", _field("recreated")),
    _Family("sink_fallbacks", "Failures of a user's function, replaced by the default.", _field("fallbacks")),
    _Family("sink_backlog_events", "Events waiting to be written.", _field("backlog"), _GAUGE),
    _Family("sink_in_flight_requests", "Requests in progress.", _field("in_flight"), _GAUGE),
    _Family("sink_oldest_age_seconds", "Age of the oldest unfinished write.", _field("oldest_age"), _GAUGE),
    _Family("sink_server_available", "0 while the API server is unreachable.", _field("server_available"), _GAUGE),
    _Family("sink_cache_keys", "Keys in a cache of the correlator.", _by_key("cache_sizes"), _GAUGE, ("cache",)),
    _Family("sink_cache_evictions", "Keys evicted from a full cache.", _by_key("cache_evictions"), labels=("cache",)),
)
