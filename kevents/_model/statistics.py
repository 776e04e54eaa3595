"""Reasons for dropped events, and the statistics of broadcasters, watchers and sinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class DropReason(str, Enum):
    """The reason why an event was dropped."""

    NO_WATCHER = "no_watcher"
    INVALID_REFERENCE = "invalid_reference"
    INVALID_TYPE = "invalid_type"
    INVALID_MESSAGE = "invalid_message"
    RECURSION = "recursion"
    QUEUE_FULL = "queue_full"
    SPAM_FILTERED = "spam_filtered"
    BACKLOG_FULL = "backlog_full"
    REJECTED = "rejected"
    RETRIES_EXHAUSTED = "retries_exhausted"
    EXPIRED = "expired"
    HANDLER_FAILED = "handler_failed"
    SHUTDOWN = "shutdown"
    INTERNAL = "internal"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """Statistics of one sink: ``accepted = spam_filtered + delivered + sum(dropped) + backlog``.

    Attributes:
        accepted: Events received from the watcher.
        spam_filtered: Events held back by the spam filter; the next write includes them in its count.
        delivered: Events whose write the API server acknowledged.
        dropped: Dropped events, by reason.
        backlog: Events waiting to be written, including those in flight.
        created: Acknowledged creates.
        patched: Acknowledged patches.
        merged: Events that joined a pending write.
        retried: Attempts after the first one of a write.
        recreated: Patches answered with 404 and sent again as creates.
        rejected_by_code: Events refused by the API server, by HTTP status.
        aggregated: Events that became part of a combined event.
        fallbacks: Failures of a user's function (key, message, spam, wait or clock), replaced by the default.
        cache_sizes: Number of keys in each cache of the correlator.
        cache_evictions: Keys evicted from each cache because it was full.
        in_flight: Requests in progress.
        oldest_age: Age of the oldest unfinished write, in seconds. 0 without one.
        server_available: False while the circuit breaker considers the API server unreachable.
    """

    accepted: int = 0
    spam_filtered: int = 0
    delivered: int = 0
    dropped: Mapping[DropReason, int] = field(default_factory=dict)
    backlog: int = 0
    created: int = 0
    patched: int = 0
    merged: int = 0
    retried: int = 0
    recreated: int = 0
    rejected_by_code: Mapping[int, int] = field(default_factory=dict)
    aggregated: int = 0
    fallbacks: int = 0
    cache_sizes: Mapping[str, int] = field(default_factory=dict)
    cache_evictions: Mapping[str, int] = field(default_factory=dict)
    in_flight: int = 0
    oldest_age: float = 0.0
    server_available: bool = True


@dataclass(frozen=True, slots=True)
class WatcherStatistics:
    """Statistics of one watcher: ``offered = queue_full + shutdown + handled + failed + waiting``.

    Attributes:
        name: The watcher's name. Its thread has the same name.
        offered: Events published while it was started.
        queue_full: Events dropped because its queue was full.
        shutdown: Events dropped when the deadline of ``stop`` or ``shutdown`` passed.
        handled: Events whose handler call returned.
        failed: Events whose handler call raised.
        waiting: Events in its queue or in its handler.
        sink: Statistics of its sink, None for other watchers.
    """

    name: str
    offered: int
    queue_full: int
    shutdown: int
    handled: int
    failed: int
    waiting: int
    sink: SinkStatistics | None = None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of a broadcaster: ``recorded = sum(refused) + no_watcher + published``.

    Attributes:
        recorded: Calls of the recorders' methods.
        refused: Events refused in the caller's thread, by reason.
        no_watcher: Events recorded while no watcher was started.
        published: Events passed on to every watcher.
        watchers: Statistics of the started watchers, and of those ended by ``shutdown``.
    """

    recorded: int
    refused: Mapping[DropReason, int]
    no_watcher: int
    published: int
    watchers: tuple[WatcherStatistics, ...]

    @property
    def dropped(self) -> dict[DropReason, int]:
        """Dropped events by reason, summed over the broadcaster, its watchers and sinks; without zeros."""
        total: Counter[DropReason] = Counter(self.refused)
        total[DropReason.NO_WATCHER] += self.no_watcher
        for watcher in self.watchers:
            total[DropReason.QUEUE_FULL] += watcher.queue_full
            total[DropReason.SHUTDOWN] += watcher.shutdown
            total[DropReason.HANDLER_FAILED] += watcher.failed
            if watcher.sink is not None:
                total.update(watcher.sink.dropped)
                total[DropReason.SPAM_FILTERED] += watcher.sink.spam_filtered
        return {reason: events for reason, events in total.items() if events}
