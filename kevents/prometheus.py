"""The ledgers of broadcasters as Prometheus metrics.

    import kevents.prometheus

    kevents.prometheus.register(broadcaster)

A metric is read from ``broadcaster.statistics()`` when Prometheus asks; recording costs nothing. No label ever holds
an object's name: they are the broadcaster's name, the watcher's, a reason, a verb, an HTTP status or a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from kevents._model.statistics import DropReason, Statistics
from kevents._model.wire import clean

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as missing:
    raise ImportError(
        f"kevents.prometheus needs prometheus_client: pip install 'kevents[prometheus]' ({missing})"
    ) from missing

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from kevents._model.statistics import SinkStatistics, WatcherStatistics

__all__ = ["StatisticsCollector", "register"]

_Numbers: TypeAlias = "Mapping[tuple[str, ...], float]"


class HasStatistics(Protocol):
    """A broadcaster, of whichever face."""

    def statistics(self) -> Statistics:
        """A snapshot of its ledgers."""


def register(
    broadcaster: HasStatistics, *, name: str = "default", registry: CollectorRegistry = REGISTRY
) -> StatisticsCollector:
    """Let a registry collect a broadcaster's ledgers.

    Args:
        broadcaster: Whose.
        name: The value of the label ``broadcaster``.
        registry: Of prometheus_client.

    Returns:
        The collector: further broadcasters are added to it, ``collector.add(other, "other")``.

    Raises:
        TypeError: If the broadcaster is none, or the name no text.
        ValueError: If the registry has such a collector already.

    .. versionadded:: 0.1
    """
    collector = StatisticsCollector()
    collector.add(broadcaster, name)
    try:
        registry.register(collector)
    except ValueError as error:
        raise ValueError("the registry collects ledgers already: add(...) this one to the first's collector") from error
    return collector


class StatisticsCollector(Collector):
    """Collects the ledgers of any number of broadcasters; a registry takes one collector of these metrics.

    .. versionadded:: 0.1
    """

    def __init__(self) -> None:
        """Collect nothing yet."""
        self._lock = Lock()
        self._broadcasters: Mapping[str, HasStatistics] = {}

    def add(self, broadcaster: HasStatistics, name: str = "default") -> None:
        """Collect a broadcaster's ledgers under a name, the value of the label ``broadcaster``.

        Raises:
            TypeError: If the broadcaster is none, or the name no text.
            ValueError: If the name is that of another broadcaster, or no valid Unicode.
        """
        _require_broadcaster(broadcaster)
        if not isinstance(name, str):
            raise TypeError(f"name must be a text, not {name!r}: it is the value of a label")
        if clean(name) != name:
            raise ValueError(f"name {name!r} is no valid Unicode: no scrape could give it")
        with self._lock:
            if self._broadcasters.get(name, broadcaster) is not broadcaster:
                raise ValueError(f"another broadcaster is registered as {name!r}: give this one another name")
            self._broadcasters = {**self._broadcasters, name: broadcaster}

    def remove(self, name: str = "default") -> None:
        """Collect the broadcaster of this name no longer; without such a one, do nothing."""
        with self._lock:
            self._broadcasters = {key: value for key, value in self._broadcasters.items() if key != name}

    def describe(self) -> Iterable[Metric]:
        """Every metric without its samples: a registry refuses a second collector of them."""
        return [family.empty() for family in _FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Read every ledger once, and give the metrics."""
        rows = [
            (level, labels, ledger)
            for name, broadcaster in self._broadcasters.items()
            for level, labels, ledger in _ledgers(name, broadcaster.statistics())
        ]
        for family in _FAMILIES:
            metric = family.empty()
            for labels, ledger in ((labels, ledger) for level, labels, ledger in rows if level == family.level):
                for values, number in family.numbers(ledger).items():
                    metric.add_metric([*labels, *values], number)
            yield metric


def _require_broadcaster(thing: object) -> None:
    """What has no ledgers would make every scrape of its registry fail."""
    read = getattr(thing, "statistics", None)
    if not callable(read) or not isinstance(read(), Statistics):
        raise TypeError(f"broadcaster must be one of kevents, not {thing!r}: its statistics() are no ledgers")


def _ledgers(name: str, statistics: Statistics) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Each ledger with its level, and the values of the labels of that level."""
    yield "broadcaster", (name,), statistics
    for watcher in statistics.watchers:
        yield "watcher", (name, watcher.name), watcher
        if watcher.sink is not None:
            yield "sink", (name, watcher.name), watcher.sink


@dataclass(frozen=True)
class _Family:
    """One metric: its name begins with its level; ``numbers`` gives the samples of a ledger by the labels' values."""

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
    return lambda ledger: {(): float(getattr(ledger, name))}


def _by_key(name: str) -> Callable[[Any], _Numbers]:
    return lambda ledger: {(str(key),): number for key, number in getattr(ledger, name).items()}


def _by_reason(counted: Mapping[DropReason, int], *possible: DropReason, **more: int) -> _Numbers:
    """The possible reasons are there with 0 from the start: the first increase is seen as one."""
    reasons = {reason.value: counted.get(reason, 0) for reason in (*possible, *counted)}
    return {(reason,): number for reason, number in {**reasons, **more}.items()}


def _refused(statistics: Statistics) -> _Numbers:
    possible = (
        DropReason.INVALID_REFERENCE,
        DropReason.INVALID_TYPE,
        DropReason.INVALID_MESSAGE,
        DropReason.RECURSION,
        DropReason.SHUTDOWN,
    )
    return _by_reason(statistics.refused, *possible, no_watcher=statistics.no_watcher)


def _lost_by_watcher(statistics: WatcherStatistics) -> _Numbers:
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
    _Family("recorded_events", "Calls of event and its kin.", _field("recorded")),
    _Family("published_events", "Events offered to the watchers.", _field("published")),
    _Family("refused_events", "Events that reached no watcher, by reason.", _refused, labels=("reason",)),
    _Family("watcher_offered_events", "Events published to a watcher.", _field("offered")),
    _Family("watcher_handled_events", "Events that its handler has handled.", _field("handled")),
    _Family("watcher_dropped_events", "Events that it has lost, by reason.", _lost_by_watcher, labels=("reason",)),
    _Family("watcher_waiting_events", "Events in its mailbox or hand.", _field("waiting"), _GAUGE),
    _Family("sink_accepted_events", "Events to be written.", _field("accepted")),
    _Family("sink_delivered_events", "Events whose write the API server acknowledged.", _field("delivered")),
    _Family("sink_dropped_events", "Events given up, by reason.", _dropped, labels=("reason",)),
    _Family(
        "sink_rejected_events",
        "Events refused for good, by HTTP status.",
        _rejected,
        labels=("code",),
    ),
    _Family("sink_merged_events", "Events that joined a write still waiting.", _field("merged")),
    _Family("sink_aggregated_events", "Events that became part of a combined one.", _field("aggregated")),
    _Family("sink_writes", "Acknowledged writes, by verb.", _writes, labels=("verb",)),
    _Family("sink_retries", "Attempts of a write that had to wait before.", _field("retried")),
    _Family("sink_recreations", "Patches that met 404 and became creates.", _field("recreated")),
    _Family("sink_fallbacks", "Times that a user's function failed and a default decided.", _field("fallbacks")),
    _Family("sink_backlog_events", "Events still to be written.", _field("backlog"), _GAUGE),
    _Family("sink_in_flight_requests", "Requests under way.", _field("in_flight"), _GAUGE),
    _Family("sink_oldest_age_seconds", "Age of the oldest unfinished write.", _field("oldest_age"), _GAUGE),
    _Family("sink_gate_open", "0 while the API server is taken for unreachable.", _field("server_available"), _GAUGE),
    _Family("sink_cache_keys", "Keys that the correlator holds.", _by_key("cache_sizes"), _GAUGE, ("cache",)),
    _Family("sink_cache_evictions", "Keys forgotten for lack of room.", _by_key("cache_evictions"), labels=("cache",)),
)
