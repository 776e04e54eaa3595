"""Series of events.k8s.io: decides when the count of a repeated event is written.

A series is its first event with a count, which is written seldom:

1. The first occurrence is created.
2. The second is patched at once, so that readers see that a series has begun.
3. Later ones wait for the end of the interval since the last write, or for a silence, whichever comes first. Each
   occurrence moves that time.
4. After a silence the identity is forgotten. Its next occurrence starts a new series.

There is no timer: the work queue holds delayed writes. It makes them early at flush and shutdown, and when an identity
is evicted. Pure: one worker owns it, and time is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kevents._correlation.correlator import LRU, Fallbacks, Write, is_key
from kevents._model.objects import SERIES_BEGINS, SeriesEvent
from kevents._model.validation import require_callable, require_count, require_positive
from kevents._model.wire import EVENTS_GROUP

if TYPE_CHECKING:
    from kevents._model.objects import Event
    from kevents._queue.work_item import Key


def key_without_note(event: SeriesEvent) -> Hashable:
    """Key of a series: all fields except the note and the objects' versions.

    client-go: ``getKey``. Its key includes the objects' resourceVersion and fieldPath, so events about an object that
    changes never form a series.
    """
    related = event.related.identity if event.related is not None else None
    return event.source.identity, event.reference.identity, event.type, event.reason, event.action, related


def key_with_note(event: SeriesEvent) -> Hashable:
    """A series of its own for each note."""
    return key_without_note(event), event.message


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesOptions:
    """Options of series.

    Args:
        key_func: Returns the identity of an event: any hashable except None. Events of one identity form a series.
        series_interval: Seconds between two writes of a growing count (client-go: ``refreshTime``).
        finish_after: Seconds of silence after which the final count is written and the identity forgotten (client-go:
            ``finishTime``).
        lru_cache_size: Maximum number of identities. The final count of an evicted one is written. client-go has no
            limit.

    Raises:
        ValueError: If a value is out of range or of the wrong type.
        TypeError: If a function is a coroutine function.
    """

    key_func: Callable[[SeriesEvent], Hashable] = key_without_note
    series_interval: float = 1800.0
    finish_after: float = 360.0
    lru_cache_size: int = 4096

    def __post_init__(self) -> None:
        require_callable("key_func", self.key_func)
        require_positive("series_interval", self.series_interval)
        require_positive("finish_after", self.finish_after)
        require_count("lru_cache_size", self.lru_cache_size)


class _Series:
    """A known identity: its first event, its count, and the time of the next write."""

    __slots__ = ("count", "first", "next_write", "seen", "waiting")

    def __init__(self, first: SeriesEvent, now: float) -> None:
        self.first = first
        self.count = 1
        self.seen = now
        self.next_write = now
        self.waiting = False

    def add(self, now: float, options: SeriesOptions) -> float | None:
        """Count another occurrence. Returns when to write it. None means at once."""
        self.count += 1
        self.seen = now
        if self.waiting and now >= self.next_write:  # the delayed write was made then
            self.next_write += options.series_interval
            self.waiting = False
        if self.count == SERIES_BEGINS or now >= self.next_write:
            self.next_write = now + options.series_interval
            self.waiting = False
            return None
        self.waiting = True
        return min(self.next_write, now + options.finish_after)


class SeriesDecider:
    """Decides on events of events.k8s.io (client-go: ``recordToSink`` and its timers). Not thread-safe."""

    def __init__(self, options: SeriesOptions) -> None:
        self._options = options
        self._known: LRU[Hashable, _Series] = LRU(options.lru_cache_size)
        self._overdue: list[Key] = []
        self._fallbacks = Fallbacks()
        self._key = self._fallbacks.guard(options.key_func, key_without_note, is_key)
        self.aggregated = 0

    def decide(self, event: Event, now: float) -> Write:
        """The write for an event, at once or delayed."""
        if not isinstance(event, SeriesEvent):
            raise TypeError(f"{event!r} is not an event of {EVENTS_GROUP}")
        key = self._key(event)
        series = self._known.get(key)
        if series is None or now - series.seen >= self._options.finish_after:
            self._begin(key, _Series(event, now))
            return Write(event, there=False)
        due = series.add(now, self._options)
        self.aggregated += 1
        time = max(event.time, series.first.time)  # the times must stay in order if the clock was set back
        return Write(series.first.replace(count=series.count, time=time), there=True, due=due)

    def _begin(self, key: Hashable, series: _Series) -> None:
        evicted = self._known.put(key, series)
        if evicted is not None and evicted.waiting:
            self._overdue.append((evicted.first.namespace, evicted.first.name))

    @property
    def fallbacks(self) -> int:
        return self._fallbacks.count

    def overdue(self) -> Sequence[Key]:
        """Evicted series with a delayed write, since the last call."""
        keys, self._overdue = self._overdue, []
        return keys

    @property
    def caches(self) -> Mapping[str, tuple[int, int]]:
        return {"series": (len(self._known), self._known.evictions)}
