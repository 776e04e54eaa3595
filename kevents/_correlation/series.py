"""Which write a repeated event of events.k8s.io deserves, and when.

A series is its first event, counted; the count is written seldom:

1. the first occurrence is created;
2. the second is patched at once, so that the series is seen to have begun;
3. later ones wait until the interval since the last write ends, or until the identity falls silent: whichever is
   first. Each occurrence moves that moment;
4. after a silence the identity is forgotten, and its next occurrence is a first one again.

No timer anywhere: the work queue holds what waits, and hastens it when the process flushes or ends, or when an
identity is forgotten for lack of room. Pure: one worker owns it, and time is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kevents._correlation.decisions import Write
from kevents._correlation.lru import LRU
from kevents._model.series_event import SERIES_BEGINS, SeriesEvent
from kevents._model.validation import require_callable, require_count, require_positive
from kevents._model.wire import EVENTS_GROUP

if TYPE_CHECKING:
    from kevents._model.objects import Event
    from kevents._queue.work_item import Key


def key_without_note(event: SeriesEvent) -> Hashable:
    """What makes two events one series: all but the note, and the objects whatever their version.

    client-go: ``getKey``; that holds the objects' resourceVersion and fieldPath as well, so that an object which
    changes never forms a series.

    .. versionadded:: 0.1
    """
    related = event.related.identity if event.related is not None else None
    return event.source.identity, event.reference.identity, event.type, event.reason, event.action, related


def key_with_note(event: SeriesEvent) -> Hashable:
    """A series for each note: for those who miss the later ones.

    .. versionadded:: 0.1
    """
    return key_without_note(event), event.message


@dataclass(frozen=True, kw_only=True, slots=True)
class SeriesOptions:
    """What counts as the same, and how often its count is written.

    Args:
        key_func: From an event to its identity, any hashable but None; events of one identity form a series.
        series_interval: Seconds between two writes of a count that grows (client-go: ``refreshTime``).
        finish_after: Seconds of silence after which the final count is written and the identity forgotten (client-go:
            ``finishTime``).
        lru_cache_size: How many identities are remembered. One that is forgotten for lack of room has its final count
            written. client-go has no limit.

    Raises:
        ValueError: If a number is out of range, or anything is of the wrong type.
        TypeError: If a function is a coroutine function.

    .. versionadded:: 0.1
    """

    key_func: Callable[[SeriesEvent], Hashable] = key_without_note
    series_interval: float = 1800.0
    finish_after: float = 360.0
    lru_cache_size: int = 4096

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_callable("key_func", self.key_func)
        require_positive("series_interval", self.series_interval)
        require_positive("finish_after", self.finish_after)
        require_count("lru_cache_size", self.lru_cache_size)


class _Series:
    """An identity that was seen: its first event, how often it came, and when its count may be written again."""

    __slots__ = ("count", "first", "next_write", "seen", "waiting")

    def __init__(self, first: SeriesEvent, now: float) -> None:
        self.first = first
        self.count = 1
        self.seen = now
        self.next_write = now
        self.waiting = False

    def add(self, now: float, options: SeriesOptions) -> float | None:
        """Count another occurrence; when to write that. None: at once."""
        self.count += 1
        self.seen = now
        if self.waiting and now >= self.next_write:  # what was waiting was written then
            self.next_write += options.series_interval
            self.waiting = False
        if self.count == SERIES_BEGINS or now >= self.next_write:
            self.next_write = now + options.series_interval
            self.waiting = False
            return None
        self.waiting = True
        return min(self.next_write, now + options.finish_after)


class SeriesDecider:
    """Decides for events.k8s.io (client-go: ``recordToSink`` and the timers beside it). One owner at a time.

    Args:
        options: What counts as the same, and how often it is written.
    """

    def __init__(self, options: SeriesOptions) -> None:
        """Start with nothing seen."""
        self._options = options
        self._known: LRU[Hashable, _Series] = LRU(options.lru_cache_size)
        self._overdue: list[Key] = []
        self.aggregated = 0
        self.fallbacks = 0

    def decide(self, event: Event, now: float) -> Write:
        """The write that an event deserves: every one deserves some, at its time."""
        if not isinstance(event, SeriesEvent):
            raise TypeError(f"{event!r} is no event of {EVENTS_GROUP}")
        key = self._key(event)
        series = self._known.get(key)
        if series is None or now - series.seen >= self._options.finish_after:
            self._begin(key, _Series(event, now))
            return Write(event, there=False)
        due = series.add(now, self._options)
        self.aggregated += 1
        time = max(event.time, series.first.time)  # a clock that was set back makes no negative duration
        return Write(series.first.replace(count=series.count, time=time), there=True, due=due)

    def _begin(self, key: Hashable, series: _Series) -> None:
        forgotten = self._known.put(key, series)
        if forgotten is not None and forgotten.waiting:
            self._overdue.append((forgotten.first.namespace, forgotten.first.name))

    def _key(self, event: SeriesEvent) -> Hashable:
        function = self._options.key_func
        if function is not key_without_note:
            with suppress(Exception):  # whatever a user's function raises, or gives, the event goes on
                key = function(event)
                hash(key)
                if key is not None:
                    return key
            self.fallbacks += 1
        return key_without_note(event)

    def overdue(self) -> Sequence[Key]:
        """The series forgotten for lack of room while their count was waiting, since the last call."""
        keys, self._overdue = self._overdue, []
        return keys

    @property
    def caches(self) -> Mapping[str, tuple[int, int]]:
        """How many identities it remembers, and how many it has forgotten for lack of room."""
        return {"series": (len(self._known), self._known.evictions)}
