"""What is counted: the reasons of a loss, and snapshots of the three ledgers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class DropReason(str, Enum):
    """Why an event did not reach the API server as a write of its own.

    .. versionadded:: 0.1
    """

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

    def __str__(self) -> str:
        """The plain value, for log lines and metrics."""
        return self.value


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """One sink's ledger: ``accepted = spam_filtered + delivered + sum(dropped) + backlog``.

    Attributes:
        accepted: Events that the watcher handed over.
        spam_filtered: Of these, not written for lack of a token; the next write carries their count.
        delivered: Events whose write the server acknowledged.
        dropped: Events given up, by reason.
        backlog: Events still to be written, those in flight too.
        created: Creates that were acknowledged.
        patched: Patches that were acknowledged.
        merged: Events that joined a write still waiting.
        retried: Attempts of a write that had to wait before.
        recreated: Patches that met 404 and became creates.
        rejected_by_code: Final refusals, by HTTP status.
        aggregated: Events that became part of a combined one.
        fallbacks: Times that a user's key, message, spam or wait function, or clock, failed and a default decided.
        cache_sizes: Keys held by the correlator's memories.
        cache_evictions: Keys forgotten by them for lack of room.
        in_flight: Requests under way.
        oldest_age: Seconds since the oldest unfinished write was offered; 0 without one.
        server_available: False while the server is taken for unreachable.

    .. versionadded:: 0.1
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
    """One watcher's ledger: ``offered = queue_full + shutdown + handled + failed + waiting``.

    Attributes:
        name: Which watcher, as in its thread's name.
        offered: Events published while it was started.
        queue_full: Of these, dropped because its mailbox was full.
        shutdown: Held by its mailbox and hand when the deadline of ``stop`` or ``shutdown`` passed.
        handled: Handed to its handler, which returned.
        failed: Handed to its handler, which raised.
        waiting: In its mailbox, or in its handler's hand.
        sink: The ledger of the sink behind it, None for other watchers.

    .. versionadded:: 0.1
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
    """The broadcaster's ledger: ``recorded = sum(refused) + no_watcher + published``, and its watchers'.

    Attributes:
        recorded: Calls of ``event`` and its kin.
        refused: Of these, refused in the caller's thread, by reason.
        no_watcher: Recorded while no watcher was started.
        published: Offered to every watcher.
        watchers: The ledgers of the watchers that are started, and of those ended by ``shutdown``.

    .. versionadded:: 0.1
    """

    recorded: int
    refused: Mapping[DropReason, int]
    no_watcher: int
    published: int
    watchers: tuple[WatcherStatistics, ...]

    @property
    def dropped(self) -> dict[DropReason, int]:
        """All losses by reason, over the broadcaster, its watchers and sinks; reasons without a loss are left out."""
        total: dict[DropReason, int] = dict(self.refused)
        parts: list[Mapping[DropReason, int]] = [{DropReason.NO_WATCHER: self.no_watcher}]
        for watcher in self.watchers:
            parts.append(
                {
                    DropReason.QUEUE_FULL: watcher.queue_full,
                    DropReason.SHUTDOWN: watcher.shutdown,
                    DropReason.HANDLER_FAILED: watcher.failed,
                }
            )
            if watcher.sink is not None:
                parts += [watcher.sink.dropped, {DropReason.SPAM_FILTERED: watcher.sink.spam_filtered}]
        for part in parts:
            for reason, events in part.items():
                total[reason] = total.get(reason, 0) + events
        return {reason: events for reason, events in total.items() if events}
