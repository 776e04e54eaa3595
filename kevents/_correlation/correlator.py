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
from functools import partial
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, Protocol, TypeVar

from kevents._correlation.options import (
    LONG_TEXT,
    CorrelatorOptions,
    event_aggregator_by_reason_func,
    event_aggregator_by_reason_message_func,
    get_spam_key,
    text_key,
)
from kevents._model.objects import Event, Json
from kevents._model.wire import clip, clip_json

if TYPE_CHECKING:
    from kevents._queue.work_item import Key

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """At most ``maxsize`` values. Reading counts as use (client-go: ``lru.Cache``). Not thread-safe.

    Keys never share a value. A look at the value shows whether its key is already the most recently used, as is usual
    for repeated events.
    """

    __slots__ = ("_use", "_values", "evictions", "find", "maxsize", "newest")

    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.evictions = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self.find = self._values.get
        self._use = self._values.move_to_end
        self.newest: V | None = None

    def get(self, key: K) -> V | None:
        """The value of a key, which becomes the most recently used. None if the key is unknown."""
        value = self.find(key)
        if value is not self.newest and value is not None:
            self.use(key, value)
        return value

    def use(self, key: K, value: V) -> None:
        """Make a known key the most recently used: the rest of :meth:`get`, for a value from ``find``."""
        self._use(key)
        self.newest = value

    def put(self, key: K, value: V) -> V | None:
        """Store a value, never None, as the most recently used. Returns the evicted value, if any."""
        if key in self._values:
            self._values[key] = value
            self.use(key, value)
            return None
        return self.add(key, value)

    def add(self, key: K, value: V) -> V | None:
        """Store the value of an unknown key: :meth:`put` without the search, in two thirds of the time."""
        evicted: V | None = None
        if len(self._values) >= self.maxsize:
            _, evicted = self._values.popitem(last=False)
            self.evictions += 1
        self._values[key] = self.newest = value
        return evicted

    def __len__(self) -> int:
        return len(self._values)


class Write(NamedTuple):
    """A state to write."""

    state: Event  # the event with its present count
    there: bool  # whether the API object was written before
    due: float | None = None  # when to write it, in monotonic seconds. None: at once
    catch_up: bool = False  # whether the rate limit holds the event back, and only its count is brought up to date


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


class Fallbacks:
    """Calls the user's functions. If one fails for an event, the default decides, and the failure is counted."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def guard(self, function: _Function, default: _Function, is_valid: Callable[[object], bool]) -> _Function:
        return default if function is default else partial(self._call, function, default, is_valid)

    def _call(self, function: _Function, default: _Function, is_valid: Callable[[object], bool], *event: Event) -> Any:  # noqa: ANN401 - the function's result
        with suppress(BaseException):  # a user's function must not lose the event, whatever it raises
            result = function(*event)
            if is_valid(result):
                return result
        self.count += 1
        return default(*event)


def _is_time(result: object) -> bool:
    return isinstance(result, int)


def _is_text(result: object) -> bool:
    return isinstance(result, str)


def is_key(result: object) -> bool:
    """True for anything hashable but None."""
    hash(result)  # raises TypeError if it is not hashable
    return result is not None


def _is_pair(result: object) -> bool:
    return isinstance(result, tuple) and len(result) == 2 and is_key(result)  # noqa: PLR2004


class EventAggregator:
    """Combines events that differ only in their message (client-go: ``EventAggregator``).

    Args:
        options: Uses ``key_func``, ``message_func``, ``max_events``, ``max_interval_in_seconds``, ``lru_cache_size``
            and ``clock``.
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        self._options = options or CorrelatorOptions()
        self._interval = round(self._options.max_interval_in_seconds * NANO)
        self._most = self._options.max_events
        # The time of the last event under an aggregate key, and the local keys seen, most often one: made the fastest.
        self._cache: LRU[Hashable, list[Any]] = LRU(self._options.lru_cache_size)
        self._fallbacks = Fallbacks()
        self._keys = self._fallbacks.guard(self._options.key_func, event_aggregator_by_reason_func, _is_pair)
        self._message = self._fallbacks.guard(
            self._options.message_func, event_aggregator_by_reason_message_func, _is_text
        )
        self._clock = self._fallbacks.guard(self._options.clock, monotonic_ns, _is_time)
        self.aggregated = 0

    def event_aggregate(self, event: Event) -> tuple[Event, Hashable]:
        """The event, combined or unchanged, and the key to count it under (client-go: ``EventAggregate``)."""
        key, local_key = self._keys(event)
        message = self._combine(event, key, local_key, self._clock())
        return (event, _all_keys(event)[3]) if message is None else (event.replace(message=message), ("aggregate", key))

    def _combine(self, event: Event, key: Hashable, local_key: Hashable, now: int) -> str | None:
        """The message of the combined event that an event becomes a part of. None: it stays as it is."""
        most = self._most
        if most is None:
            return None
        cache = self._cache
        seen = cache.find(key)
        if seen is None:
            cache.add(key, seen := [now, ()])
        elif seen is not cache.newest:
            cache.use(key, seen)
        if now - seen[0] > self._interval:
            seen[1] = ()
        seen[0], local_keys = now, seen[1]
        if local_key in local_keys:
            return None
        # client-go adds the key and removes an arbitrary one from a full set; here it is the one just added.
        if len(local_keys) + 1 < most:
            seen[1] = {*local_keys, local_key} if local_keys else (local_key,)
            return None
        self.aggregated += 1
        message: str = self._message(event)
        return message


class _Observation:
    """Count, first time and name of an event that was written or will be."""

    __slots__ = ("catch_up", "count", "first_time", "name", "written")

    def __init__(self, count: int, first_time: int, name: str, *, written: bool = False) -> None:
        self.count = count
        self.first_time = first_time
        self.name = name
        self.written = written  # a write of the event has passed the rate limit
        self.catch_up: _CatchUp | None = None


class _CatchUp(NamedTuple):
    """A delayed write that brings the count of an event up to date."""

    key: Key
    due: int  # when its token is there, in nanoseconds of the options' clock
    at: float  # the same in monotonic seconds
    bucket: TokenBucket  # where the token is reserved


class RateLimit:
    """The limits that all token buckets of a filter share."""

    __slots__ = ("capacity", "interval")

    def __init__(self, qps: float, burst: int) -> None:
        self.interval = max(1, round(NANO / qps))  # nanoseconds in which a token is refilled
        self.capacity = burst * self.interval


class TokenBucket:
    """A bucket of ``burst`` tokens, refilled with ``qps`` tokens a second (client-go: ``PassiveRateLimiter``).

    Tokens are kept as credit in nanoseconds of any clock. One token is the time in which it is refilled. Integers keep
    decisions exact for any lifetime, where floating-point tokens would drift. Without ``credit`` the bucket is full.
    """

    __slots__ = ("_credit", "_last", "_limit", "_reserved")

    def __init__(self, limit: RateLimit, now: int, credit: int | None = None) -> None:
        self._limit = limit
        self._credit = limit.capacity if credit is None else credit
        self._last = now
        self._reserved = 0

    def try_accept(self, now: int) -> bool:
        """Take a token if there is one. If the clock went back, nothing is refilled."""
        limit, credit, elapsed = self._limit, self._credit, now - self._last
        self._last = now
        if elapsed > 0:
            credit += elapsed
            if credit > limit.capacity:
                self._reserved = max(0, self._reserved - (credit - limit.capacity))
                credit = limit.capacity
        accepted = credit >= limit.interval
        self._credit = credit - limit.interval if accepted else credit
        return accepted

    def reserve(self) -> int:
        """Reserve the next token for a catch-up. Returns the nanoseconds until there is one.

        A reservation never holds back an event: :meth:`try_accept` ignores it. It delays later reservations, until the
        bucket is as full as it would be without the catch-ups.
        """
        self._reserved += self._limit.interval
        return max(0, self._reserved - self._credit)

    def release(self) -> None:
        """Cancel a reservation."""
        self._reserved = max(0, self._reserved - self._limit.interval)


class EventSourceObjectSpamFilter:
    """A token bucket for each spam key (client-go: ``EventSourceObjectSpamFilter``).

    Args:
        options: Uses ``burst_size``, ``qps``, ``spam_key_func``, ``lru_cache_size`` and ``clock``.
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        self._options = options or CorrelatorOptions()
        self._cache: LRU[Hashable, TokenBucket] = LRU(self._options.lru_cache_size)
        burst = self._options.burst_size
        self._limit = None if burst is None else RateLimit(self._options.qps, burst)
        self._fallbacks = Fallbacks()
        self._key = self._fallbacks.guard(self._options.spam_key_func, get_spam_key, is_key)
        self._clock = self._fallbacks.guard(self._options.clock, monotonic_ns, _is_time)

    def filter(self, event: Event) -> bool:
        """True if the event must be skipped (client-go: ``Filter``)."""
        return self._limit is not None and self._exhausted_bucket(self._key(event), self._clock()) is not None

    def _exhausted_bucket(self, key: Hashable, now: int) -> TokenBucket | None:
        """Take a token for an event with this spam key. Returns the bucket if it has none."""
        cache, limit = self._cache, self._limit
        if limit is None:
            return None
        bucket = cache.find(key)
        if bucket is None:  # full, and a token is taken
            cache.add(key, TokenBucket(limit, now, limit.capacity - limit.interval))
            return None
        if bucket is not cache.newest:
            cache.use(key, bucket)
        return None if bucket.try_accept(now) else bucket


def _all_keys(event: Event) -> tuple[Hashable, Hashable, Hashable, Hashable]:
    """Spam key, aggregate key, local key and event key, as client-go's functions make them: they share their parts."""
    reference = event.reference
    reason: Hashable = event.reason
    message: Hashable = event.message
    if len(event.reason) > LONG_TEXT or len(event.message) > LONG_TEXT:
        reason, message = text_key(event.reason), text_key(event.message)
    subject = event.source.identity, reference.identity, event.type
    return subject, (subject, reason), message, (subject, reference.field_path, reason, message)


class EventCorrelateResult:
    """The correlator's decision on an event (client-go: ``EventCorrelateResult``).

    Attributes:
        event: The event to write. None if it is skipped.
    """

    __slots__ = ("event",)

    def __init__(self, event: Event | None) -> None:
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
    """

    def __init__(self, options: CorrelatorOptions | None = None) -> None:
        self._options = options or CorrelatorOptions()
        self._aggregator = EventAggregator(self._options)
        self._observed: LRU[Hashable, _Observation] = LRU(self._options.lru_cache_size)
        self._filter = EventSourceObjectSpamFilter(self._options)
        self._clock = self._aggregator._clock  # noqa: SLF001 - read once for each event
        self._own_key = self._options.key_func is not event_aggregator_by_reason_func
        self._own_spam_key = self._options.spam_key_func is not get_spam_key
        self._overdue: list[Key] = []

    def event_correlate(self, event: Event) -> EventCorrelateResult:
        """Decide on one event (client-go: ``EventCorrelate``)."""
        return EventCorrelateResult(self._correlate(event, None)[0])

    def _correlate(self, event: Event, monotonic: float | None) -> tuple[Event | None, float | None]:
        """The event to write, None if it is skipped. For a catch-up also when to write it, in monotonic seconds.

        ``monotonic`` is the present time. None: no catch-up.
        """
        now = self._clock()
        spam_key, aggregate_key, local_key, key = _all_keys(event)
        if self._own_key:
            aggregate_key, local_key = self._aggregator._keys(event)  # noqa: SLF001
        message = self._aggregator._combine(event, aggregate_key, local_key, now)  # noqa: SLF001
        if message is not None:
            key = "aggregate", aggregate_key
        observation = repeated = None
        if self._options.count_identical:
            observation = repeated = self._observed.get(key)
            if observation is None:
                observation = self._observe_new(event, key, now)
            else:
                observation.count += 1
        occurrence: Event | None = None
        if self._own_spam_key:  # it may depend on message and count
            occurrence = _occurrence(event, message, repeated)
            spam_key = self._filter._key(occurrence)  # noqa: SLF001
        exhausted = self._filter._exhausted_bucket(spam_key, now)  # noqa: SLF001
        if exhausted is None:
            if observation is not None:
                observation.written = True
                if observation.catch_up is not None:
                    self._supersede(observation, now)
            return occurrence or _occurrence(event, message, repeated), None
        if monotonic is None or repeated is None or not repeated.written:
            return None, None
        due = self._plan_catch_up((event.namespace, repeated.name), repeated, exhausted, now, monotonic)
        return occurrence or _occurrence(event, message, repeated), due

    def _observe_new(self, event: Event, key: Hashable, now: int) -> _Observation:
        observation = _Observation(event.count, event.first_time, event.name)
        evicted = self._observed.add(key, observation)
        if evicted is not None and evicted.catch_up is not None and now < evicted.catch_up.due:
            self._overdue.append(evicted.catch_up.key)
        return observation

    @staticmethod
    def _plan_catch_up(key: Key, known: _Observation, bucket: TokenBucket, now: int, monotonic: float) -> float:
        """When the count of an event that is held back is written, in monotonic seconds."""
        pending = known.catch_up
        if pending is None or now >= pending.due or monotonic >= pending.at:
            delay = bucket.reserve()
            known.catch_up = pending = _CatchUp(key, now + delay, monotonic + delay / NANO, bucket)
        return pending.at

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
        self._observed.put(_all_keys(event)[3], observation)

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

    Messages longer than ``max_message_bytes`` are cut. None: only those that the API server can never store.
    """

    def __init__(self, options: CorrelatorOptions | None, max_message_bytes: int | None) -> None:
        super().__init__(options)
        self._limit = max_message_bytes or _SERVER_LIMIT

    def decide(self, event: Event, now: float) -> Write | None:
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
