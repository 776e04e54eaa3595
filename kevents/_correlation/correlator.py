"""Which write an event deserves: a create, a patch of one already written, or none (client-go: ``EventCorrelator``).

Three steps, each with a bounded memory of its own:

1. **aggregate**: many events that differ in their message only become one, "combined from similar events";
2. **observe**: an event seen before becomes the next count of the one already written;
3. **filter**: a token bucket for each object; without a token the event is not written, but stays counted.

Pure: no lock, no thread, no I/O; one worker owns it and the options' clock tells it the time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from time import monotonic_ns
from typing import Any, Final

from kevents._correlation.lru import LRU
from kevents._correlation.options import (
    CorrelatorOptions,
    event_aggregator_by_reason_func,
    event_aggregator_by_reason_message_func,
    event_key,
    get_spam_key,
)
from kevents._correlation.token_bucket import NANO, TokenBucket
from kevents._model.objects import Event, Json

_Ask = Callable[..., Any]


class _Fallbacks:
    """Calls the user's functions; for an event they fail on, the default decides, and that is counted."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def guard(self, function: _Ask, default: _Ask, fits: Callable[[object], bool]) -> _Ask:
        return default if function is default else partial(self._call, function, default, fits)

    def _call(self, function: _Ask, default: _Ask, fits: Callable[[object], bool], *event: Event) -> Any:  # noqa: ANN401
        with suppress(Exception):  # whatever a user's function raises, the event goes on
            result = function(*event)
            if fits(result):
                return result
        self.count += 1
        return default(*event)


def _is_time(result: object) -> bool:
    return isinstance(result, int)


def _is_text(result: object) -> bool:
    return isinstance(result, str)


def _is_key(result: object) -> bool:
    hash(result)  # raises TypeError for a key that is none
    return result is not None


def _is_pair(result: object) -> bool:
    return isinstance(result, tuple) and len(result) == 2 and _is_key(result)  # noqa: PLR2004


class EventAggregator:
    """Combines events that differ in their message only (client-go: ``EventAggregator``).

    Args:
        options: Uses ``key_func``, ``message_func``, ``max_events``, ``max_interval_in_seconds``, the cache's
            size and the clock.

    .. versionadded:: 0.1
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        """Start with nothing seen."""
        self._options = options or CorrelatorOptions()
        self._interval = round(self._options.max_interval_in_seconds * NANO)
        self._cache: LRU[Hashable, _Seen] = LRU(self._options.lru_cache_size)
        self._fallbacks = _Fallbacks()
        self._keys = self._fallbacks.guard(self._options.key_func, event_aggregator_by_reason_func, _is_pair)
        self._message = self._fallbacks.guard(
            self._options.message_func, event_aggregator_by_reason_message_func, _is_text
        )
        self._clock = self._fallbacks.guard(self._options.clock, monotonic_ns, _is_time)
        self.aggregated = 0

    def event_aggregate(self, event: Event) -> tuple[Event, Hashable]:
        """The event to go on with and the key to count it under (client-go: ``EventAggregate``)."""
        message, key = self.combine(event, self._clock())
        return event if message is None else event.replace(message=message), key

    def combine(self, event: Event, now: int) -> tuple[str | None, Hashable]:
        """As :meth:`event_aggregate`, but only the combined event's message; None if the event is not combined."""
        options = self._options
        if options.max_events is None:
            return None, event_key(event)
        key, local_key = self._keys(event)
        seen = self._cache.get(key)
        if seen is None:
            seen = _Seen()
            self._cache.add(key, seen)
        elif now - seen.last > self._interval:
            seen.clear()
        seen.last = now
        if local_key in seen:
            return None, event_key(event)
        # client-go adds the key and takes an arbitrary one out of a full set: here, the one just added.
        if len(seen) + 1 < options.max_events:
            seen.add(local_key)
            return None, event_key(event)
        self.aggregated += 1
        return self._message(event), ("aggregate", key)


class _Seen(set[Hashable]):
    """The local keys seen under one aggregate key, at most ``max_events - 1`` of them, and when the last one was."""

    __slots__ = ("last",)
    last: int


class _Observation:
    """What is known of an event that was written, or is about to be."""

    __slots__ = ("count", "first_time", "name")

    def __init__(self, count: int, first_time: int, name: str) -> None:
        self.count = count
        self.first_time = first_time
        self.name = name


class EventSourceObjectSpamFilter:
    """A token bucket for each spam key (client-go: ``EventSourceObjectSpamFilter``).

    Args:
        options: Uses ``burst_size``, ``qps``, ``spam_key_func``, the cache's size and the clock.

    .. versionadded:: 0.1
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        """Start with every bucket full."""
        self._options = options or CorrelatorOptions()
        self._cache: LRU[Hashable, TokenBucket] = LRU(self._options.lru_cache_size)
        self.looks_at_all = self._options.spam_key_func is not get_spam_key
        self._fallbacks = _Fallbacks()
        self._key = self._fallbacks.guard(self._options.spam_key_func, get_spam_key, _is_key)
        self._clock = self._fallbacks.guard(self._options.clock, monotonic_ns, _is_time)

    def filter(self, event: Event) -> bool:
        """Whether the event is to be skipped (client-go: ``Filter``)."""
        return self.skips(event, self._clock())

    def skips(self, event: Event, now: int) -> bool:
        """As :meth:`filter`, at a time that the caller has read."""
        options = self._options
        if options.burst_size is None:
            return False
        key = self._key(event)
        bucket = self._cache.get(key)
        if bucket is None:
            bucket = TokenBucket(options.qps, options.burst_size, now)
            self._cache.add(key, bucket)
        return not bucket.try_accept(now)


class EventCorrelateResult:
    """What to do with an event (client-go: ``EventCorrelateResult``).

    Attributes:
        event: The event to write, None when it is skipped.

    .. versionadded:: 0.1
    """

    __slots__ = ("event",)

    def __init__(self, event: Event | None) -> None:
        """Keep the event; none means skip."""
        self.event: Final = event

    @property
    def skip(self) -> bool:
        """Whether the rate limit says not to write it."""
        return self.event is None

    @property
    def patch(self) -> Json | None:
        """The strategic-merge patch for an event already written; None for a create, or when skipped."""
        return self.event.to_patch() if self.event is not None and self.event.count > 1 else None


def _occurrence(event: Event, message: str | None, known: _Observation | None) -> Event:
    if known is not None:
        first = known.first_time  # a clock that was set back makes no negative duration
        time = event.time if event.time >= first else first  # noqa: FURB136 - max() costs more
        return event.replace(message=message, count=known.count, time=time, first_time=first, name=known.name)
    return event if message is None else event.replace(message=message)


class EventCorrelator:
    """Aggregates, observes and filters (client-go: ``EventCorrelator``). One owner at a time: it has no lock.

    Args:
        options: The defaults are client-go's.

    .. versionadded:: 0.1
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        """Start with nothing seen."""
        self._options = options or CorrelatorOptions()
        self._aggregator = EventAggregator(self._options)
        self._observed: LRU[Hashable, _Observation] = LRU(self._options.lru_cache_size)
        self._filter = EventSourceObjectSpamFilter(self._options)
        self._clock = self._aggregator._clock  # noqa: SLF001 - it is read once for an event

    def event_correlate(self, event: Event) -> EventCorrelateResult:
        """Decide on one event (client-go: ``EventCorrelate``)."""
        return EventCorrelateResult(self.correlate(event))

    def correlate(self, event: Event) -> Event | None:
        """The event to write; None when it is skipped."""
        now = self._clock()
        message, key = self._aggregator.combine(event, now)
        known = self._observe(event, key)
        if self._filter.looks_at_all:  # a user's key may depend on message and count
            event = _occurrence(event, message, known)
            return None if self._filter.skips(event, now) else event
        return None if self._filter.skips(event, now) else _occurrence(event, message, known)

    def update_state(self, event: Event) -> None:
        """Remember what the server answered to a write (client-go: ``UpdateState``).

        The sink path does not call it: nothing that it stores is read again, and an answer that comes late
        would lower a count.
        """
        self._observed.put(event_key(event), _Observation(event.count, event.first_time, event.name))

    def _observe(self, event: Event, key: Hashable) -> _Observation | None:
        """Count the event; what is known of it, None if it is the first of its key."""
        if not self._options.count_identical:
            return None
        known = self._observed.get(key)
        if known is None:
            self._observed.add(key, _Observation(event.count, event.first_time, event.name))
            return None
        known.count += 1
        return known

    @property
    def aggregated(self) -> int:
        """How many events became part of a combined one."""
        return self._aggregator.aggregated

    @property
    def fallbacks(self) -> int:
        """For how many events a user's function failed and a default decided."""
        return self._aggregator._fallbacks.count + self._filter._fallbacks.count  # noqa: SLF001

    @property
    def caches(self) -> dict[str, tuple[int, int]]:
        """Of each memory, how many keys it holds and how many it has forgotten for lack of room."""
        caches: dict[str, LRU[Hashable, Any]] = {
            "aggregate": self._aggregator._cache,  # noqa: SLF001
            "observe": self._observed,
            "filter": self._filter._cache,  # noqa: SLF001
        }
        return {name: (len(cache), cache.evictions) for name, cache in caches.items()}
