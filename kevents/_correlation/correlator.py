"""The correlator: decides whether an event becomes a create, a patch, or no write (client-go: ``EventCorrelator``).

Three steps, each with a bounded cache of its own:

1. **aggregate**: many events that differ only in their message become one, "combined from similar events";
2. **observe**: a repeated event increments the count of the event already written;
3. **filter**: a token bucket for each object. An event without a token is not written, but it is counted.

Pure: no lock, no thread, no I/O. One worker owns it, and the options provide the clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

from kevents._correlation.options import (
    CorrelatorOptions,
    event_aggregator_by_reason_func,
    event_aggregator_by_reason_message_func,
    event_key,
    get_spam_key,
)
from kevents._model.objects import Event, Json
from kevents._model.wire import clip, clip_json

if TYPE_CHECKING:
    from kevents._model.objects import Event
    from kevents._queue.work_item import Key, State

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """At most ``maxsize`` values; reading counts as use (client-go: ``lru.Cache``). Not thread-safe.

    Keys never share a value: the value tells whether its key is already the most recently used, which is the usual case
    for repeated events.
    """

    __slots__ = ("_find", "_newest", "_use", "_values", "evictions", "maxsize")

    def __init__(self, maxsize: int) -> None:
        """Create an empty cache."""
        self.maxsize = maxsize
        self.evictions = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._find = self._values.get
        self._use = self._values.move_to_end
        self._newest: V | None = None

    def get(self, key: K) -> V | None:
        """The value of a key, which becomes the most recently used. None if the key is unknown."""
        value = self._find(key)
        if value is not self._newest and value is not None:
            self._use(key)
            self._newest = value
        return value

    def put(self, key: K, value: V) -> V | None:
        """Store a value, never None, as the most recently used. Returns the evicted value, if any."""
        if key in self._values:
            self._use(key)
            self._values[key] = self._newest = value
            return None
        return self.add(key, value)

    def add(self, key: K, value: V) -> V | None:
        """Store the value of an unknown key: :meth:`put` without the search, in two thirds of the time."""
        evicted: V | None = None
        if len(self._values) >= self.maxsize:
            _, evicted = self._values.popitem(last=False)
            self.evictions += 1
        self._values[key] = self._newest = value
        return evicted

    def __len__(self) -> int:
        """Number of values."""
        return len(self._values)


class Write(NamedTuple):
    """A state to write.

    Attributes:
        state: The event with its present count.
        there: Whether the API object was written before.
        due: When to write it, in monotonic seconds. None: at once.
        catch_up: True if the rate limit holds the event back, and the write only brings its count up to date.
    """

    state: State
    there: bool
    due: float | None = None
    catch_up: bool = False


class Decider(Protocol):
    """Decides on events, one after the other, in one thread."""

    def decide(self, event: Event, now: float) -> Write | None:
        """The write for an event. None if the rate limit holds it back."""

    def overdue(self) -> Sequence[Key]:
        """Keys whose delayed write is due now, since the last call."""

    @property
    def aggregated(self) -> int:
        """Events that became part of a combined event or a series."""

    @property
    def fallbacks(self) -> int:
        """Events for which a user's function failed and the default decided."""

    @property
    def caches(self) -> Mapping[str, tuple[int, int]]:
        """For each cache, the number of keys it holds and the number of evicted keys."""


NANO: Final = 1_000_000_000
_SERVER_LIMIT: Final = 1 << 20
_REQUEST_LIMIT: Final = 5 << 19  # of 3 MiB for the whole body

_Function = Callable[..., Any]


class _Fallbacks:
    """Calls the user's functions. If one fails for an event, the default decides, and the failure is counted."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def guard(self, function: _Function, default: _Function, is_valid: Callable[[object], bool]) -> _Function:
        return default if function is default else partial(self._call, function, default, is_valid)

    def _call(self, function: _Function, default: _Function, is_valid: Callable[[object], bool], *event: Event) -> Any:  # noqa: ANN401 - the function's result
        with suppress(Exception):  # a user's function must not lose the event
            result = function(*event)
            if is_valid(result):
                return result
        self.count += 1
        return default(*event)


def _is_time(result: object) -> bool:
    return isinstance(result, int)


def _is_text(result: object) -> bool:
    return isinstance(result, str)


def _is_key(result: object) -> bool:
    hash(result)  # raises TypeError if it is not hashable
    return result is not None


def _is_pair(result: object) -> bool:
    return isinstance(result, tuple) and len(result) == 2 and _is_key(result)  # noqa: PLR2004


class EventAggregator:
    """Combines events that differ only in their message (client-go: ``EventAggregator``).

    Args:
        options: Uses ``key_func``, ``message_func``, ``max_events``, ``max_interval_in_seconds``, ``lru_cache_size``
            and ``clock``.

    .. versionadded:: 0.1
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        """Start with empty caches."""
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
        """The event, combined or unchanged, and the key to count it under (client-go: ``EventAggregate``)."""
        message, key = self._combine(event, self._clock())
        return event if message is None else event.replace(message=message), key

    def _combine(self, event: Event, now: int) -> tuple[str | None, Hashable]:
        """Like :meth:`event_aggregate`, but returns only the message of a combined event, or None."""
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
        # client-go adds the key and removes an arbitrary one from a full set; here it is the one just added.
        if len(seen) + 1 < options.max_events:
            seen.add(local_key)
            return None, event_key(event)
        self.aggregated += 1
        return self._message(event), ("aggregate", key)


class _Seen(set[Hashable]):
    """Local keys seen under one aggregate key, at most ``max_events - 1``, and the time of the last event."""

    __slots__ = ("last",)
    last: int


class _Observation:
    """Count, first time and name of an event that was written or will be.

    Attributes:
        written: True once a write of the event has passed the rate limit.
        catch_up: The pending catch-up, if any.
    """

    __slots__ = ("catch_up", "count", "first_time", "name", "written")

    def __init__(self, count: int, first_time: int, name: str, *, written: bool = False) -> None:
        self.count = count
        self.first_time = first_time
        self.name = name
        self.written = written
        self.catch_up: _CatchUp | None = None


class _CatchUp(NamedTuple):
    """A delayed write that brings the count of an event up to date.

    Attributes:
        key: The API object.
        due: When its token is there, in nanoseconds of the options' clock.
        at: The same in monotonic seconds.
        bucket: Where the token is reserved.
    """

    key: Key
    due: int
    at: float
    bucket: TokenBucket


@lru_cache(maxsize=64)
def _interval_and_capacity(qps: float, burst: int) -> tuple[int, int]:
    interval = max(1, round(NANO / qps))
    return interval, burst * interval


class TokenBucket:
    """A bucket of ``burst`` tokens, refilled with ``qps`` tokens a second (client-go: ``PassiveRateLimiter``).

    Tokens are kept as credit in nanoseconds; one token is the time in which it is refilled. Integers keep decisions
    exact for any lifetime, where floating-point tokens would drift.

    Args:
        qps: Tokens a second, above 0.
        burst: Maximum number of tokens, at least 1. The bucket starts full.
        now: Present time in nanoseconds of any clock.
    """

    __slots__ = ("_capacity", "_credit", "_interval", "_last", "_reserved")

    def __init__(self, qps: float, burst: int, now: int) -> None:
        """Create a full bucket."""
        self._interval, self._capacity = _interval_and_capacity(qps, burst)
        self._credit = self._capacity
        self._last = now
        self._reserved = 0

    def try_accept(self, now: int) -> bool:
        """Take a token if there is one. If the clock went back, nothing is refilled."""
        elapsed = now - self._last
        self._last = now
        credit = self._credit
        if elapsed > 0:
            credit += elapsed
            if credit > self._capacity:
                self._reserved = max(0, self._reserved - (credit - self._capacity))
                credit = self._capacity
        accepted = credit >= self._interval
        self._credit = credit - self._interval if accepted else credit
        return accepted

    def reserve(self) -> int:
        """Reserve the next token for a catch-up. Returns the nanoseconds until there is one.

        A reservation never holds back an event: :meth:`try_accept` ignores it. It delays later reservations, until the
        bucket has refilled what it would hold without the catch-ups.
        """
        self._reserved += self._interval
        return max(0, self._reserved - self._credit)

    def release(self) -> None:
        """Cancel a reservation."""
        self._reserved = max(0, self._reserved - self._interval)


class EventSourceObjectSpamFilter:
    """A token bucket for each spam key (client-go: ``EventSourceObjectSpamFilter``).

    Args:
        options: Uses ``burst_size``, ``qps``, ``spam_key_func``, ``lru_cache_size`` and ``clock``.

    .. versionadded:: 0.1
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        """Start with empty caches; every bucket is full at first."""
        self._options = options or CorrelatorOptions()
        self._cache: LRU[Hashable, TokenBucket] = LRU(self._options.lru_cache_size)
        self.reads_any_field = self._options.spam_key_func is not get_spam_key
        self._fallbacks = _Fallbacks()
        self._key = self._fallbacks.guard(self._options.spam_key_func, get_spam_key, _is_key)
        self._clock = self._fallbacks.guard(self._options.clock, monotonic_ns, _is_time)

    def filter(self, event: Event) -> bool:
        """True if the event must be skipped (client-go: ``Filter``)."""
        return self._exhausted_bucket(event, self._clock()) is not None

    def _exhausted_bucket(self, event: Event, now: int) -> TokenBucket | None:
        """Take a token for the event. Returns the bucket if it has none."""
        options = self._options
        if options.burst_size is None:
            return None
        key = self._key(event)
        bucket = self._cache.get(key)
        if bucket is None:
            bucket = TokenBucket(options.qps, options.burst_size, now)
            self._cache.add(key, bucket)
        return None if bucket.try_accept(now) else bucket


class EventCorrelateResult:
    """The correlator's decision on an event (client-go: ``EventCorrelateResult``).

    Attributes:
        event: The event to write. None if it is skipped.

    .. versionadded:: 0.1
    """

    __slots__ = ("event",)

    def __init__(self, event: Event | None) -> None:
        """Store the event; None means skip."""
        self.event: Final = event

    @property
    def skip(self) -> bool:
        """True if the rate limit holds the event back."""
        return self.event is None

    @property
    def patch(self) -> Json | None:
        """The strategic-merge patch of an event already written. None for a create and for a skipped event."""
        return self.event.to_patch() if self.event is not None and self.event.count > 1 else None


def _occurrence(event: Event, message: str | None, known: _Observation | None) -> Event:
    if known is not None:
        first = known.first_time  # the times must stay in order if the clock was set back
        time = event.time if event.time >= first else first  # noqa: FURB136 - max() costs more
        return event.replace(message=message, count=known.count, time=time, first_time=first, name=known.name)
    return event if message is None else event.replace(message=message)


class EventCorrelator:
    """Aggregates, observes and filters events (client-go: ``EventCorrelator``). Not thread-safe.

    Args:
        options: Default: client-go's.

    .. versionadded:: 0.1
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        """Start with empty caches."""
        self._options = options or CorrelatorOptions()
        self._aggregator = EventAggregator(self._options)
        self._observed: LRU[Hashable, _Observation] = LRU(self._options.lru_cache_size)
        self._filter = EventSourceObjectSpamFilter(self._options)
        self._clock = self._aggregator._clock  # noqa: SLF001 - read once for each event
        self._overdue: list[Key] = []

    def event_correlate(self, event: Event) -> EventCorrelateResult:
        """Decide on one event (client-go: ``EventCorrelate``)."""
        return EventCorrelateResult(self._correlate(event, None)[0])

    def _correlate(self, event: Event, monotonic: float | None) -> tuple[Event | None, float | None]:
        """Decide on one event.

        Args:
            event: The event.
            monotonic: The time in monotonic seconds. None: no catch-up.

        Returns:
            The event to write, None if it is skipped; and when to write it, for a catch-up in monotonic seconds.
        """
        now = self._clock()
        message, key = self._aggregator._combine(event, now)  # noqa: SLF001
        observation = repeated = None
        if self._options.count_identical:
            observation = repeated = self._observed.get(key)
            if observation is None:
                observation = _Observation(event.count, event.first_time, event.name)
                evicted = self._observed.add(key, observation)
                if evicted is not None and evicted.catch_up is not None and now < evicted.catch_up.due:
                    self._overdue.append(evicted.catch_up.key)
            else:
                observation.count += 1
        if self._filter.reads_any_field:  # a user's key may depend on message and count
            event, message = _occurrence(event, message, repeated), None
            exhausted = self._filter._exhausted_bucket(event, now)  # noqa: SLF001
            occurrence: Event | None = event
        else:
            exhausted = self._filter._exhausted_bucket(event, now)  # noqa: SLF001
            occurrence = None
        if exhausted is None:
            if observation is not None:
                observation.written = True
                if observation.catch_up is not None:
                    self._supersede(observation, now)
            return occurrence or _occurrence(event, message, repeated), None
        if monotonic is None or repeated is None or not repeated.written:
            return None, None
        pending = repeated.catch_up
        if pending is None or now >= pending.due or monotonic >= pending.at:
            delay = exhausted.reserve()
            key = event.namespace, repeated.name
            repeated.catch_up = pending = _CatchUp(key, now + delay, monotonic + delay / NANO, exhausted)
        return occurrence or _occurrence(event, message, repeated), pending.at

    @staticmethod
    def _supersede(observation: _Observation, now: int) -> None:
        """A write passed the rate limit: it carries the count of the catch-up, if that is still pending."""
        catch_up, observation.catch_up = observation.catch_up, None
        if catch_up is not None and now < catch_up.due:
            catch_up.bucket.release()

    def update_state(self, event: Event) -> None:
        """Store the server's response to a write (client-go: ``UpdateState``).

        The sink path does not call it: the stored fields are not read again, and a late response would lower a count.
        """
        observation = _Observation(event.count, event.first_time, event.name, written=True)
        self._observed.put(event_key(event), observation)

    @property
    def aggregated(self) -> int:
        """Events that became part of a combined event."""
        return self._aggregator.aggregated

    @property
    def fallbacks(self) -> int:
        """Events for which a user's function failed and the default decided."""
        return self._aggregator._fallbacks.count + self._filter._fallbacks.count  # noqa: SLF001

    @property
    def caches(self) -> dict[str, tuple[int, int]]:
        """For each cache, the number of keys it holds and the number of evicted keys."""
        caches: dict[str, LRU[Hashable, Any]] = {
            "aggregate": self._aggregator._cache,  # noqa: SLF001
            "observe": self._observed,
            "filter": self._filter._cache,  # noqa: SLF001
        }
        return {name: (len(cache), cache.evictions) for name, cache in caches.items()}


class CoreDecider(EventCorrelator):
    """Decides on core/v1 events with a correlator.

    Args:
        options: For the correlator.
        max_message_bytes: Longer messages are cut. None: only those that the API server can never store.
    """

    def __init__(self, options: CorrelatorOptions | None, max_message_bytes: int | None) -> None:
        """Start with empty caches."""
        super().__init__(options)
        self._limit = max_message_bytes or _SERVER_LIMIT

    def decide(self, event: Event, now: float) -> Write | None:
        """The write for an event. None if the rate limit holds it back and no catch-up follows."""
        message = clip(event.message, self._limit)
        if message is not event.message:  # before it becomes a part of keys
            event = event.replace(message=message)
        result, catch_up_at = self._correlate(event, now if self._options.catch_up else None)
        if result is None:
            return None
        message = clip_json(clip(result.message, self._limit), _REQUEST_LIMIT)
        if message is not result.message:
            result = result.replace(message=message)
        if catch_up_at is not None:
            return Write(result, there=True, due=catch_up_at, catch_up=True)
        return Write(result, there=result.count > 1)

    def overdue(self) -> Sequence[Key]:
        """Events that were evicted from the cache while a catch-up was pending, since the last call."""
        keys, self._overdue = self._overdue, []
        return keys
