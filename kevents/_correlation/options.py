"""Options of the correlator, and its default key and message functions."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from kevents._model.objects import Event
from kevents._model.validation import require_callable, require_count, require_positive

KeyFunc = Callable[[Event], tuple[Hashable, Hashable]]
MessageFunc = Callable[[Event], str]
SpamKeyFunc = Callable[[Event], Hashable]

LONG_TEXT: Final = 256  # characters
_COMBINED: Final = "(combined from similar events): "


def text_key(text: str) -> Hashable:
    """A text as a part of a key: a long one as its length and digest, so that the caches hold no long texts."""
    if len(text) <= LONG_TEXT:
        return text
    return len(text), hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def event_aggregator_by_reason_func(event: Event) -> tuple[Hashable, Hashable]:
    """Aggregate key of all fields except the message, which is the local key.

    client-go: ``EventAggregatorByReasonFunc``. The reporting fields are those of the source.
    """
    key = event.source.identity, event.reference.identity, event.type, text_key(event.reason)
    return key, text_key(event.message)


def event_aggregator_by_reason_message_func(event: Event) -> str:
    """Message of a combined event (client-go: ``EventAggregatorByReasonMessageFunc``)."""
    return _COMBINED + event.message


def get_spam_key(event: Event) -> Hashable:
    """One rate limit for each source, object and type (client-go: ``getSpamKey``)."""
    return event.source.identity, event.reference.identity, event.type


def spam_key_by_object_and_reason(event: Event) -> Hashable:
    """One rate limit for each reason, so that frequent events do not hold back important ones."""
    return event.source.identity, event.reference.identity, event.type, text_key(event.reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrelatorOptions:
    """Options of the correlator (client-go: ``CorrelatorOptions``).

    Args:
        lru_cache_size: Maximum number of keys in each of the three caches.
        burst_size: Number of events with one spam key that pass at once. None disables the filter.
        qps: Events a second with one spam key that pass in the long run.
        key_func: Returns the aggregate key of an event, and the local key that distinguishes similar events.
        message_func: Returns the message of a combined event.
        max_events: Number of different local keys from which on similar events are combined. None disables combining.
        max_interval_in_seconds: An aggregate without events for longer than this starts anew.
        count_identical: Whether a repeated event increments a count. Otherwise each event is written on its own.
        spam_key_func: Returns the key of an event's rate limit.
        clock: Nanoseconds, for intervals and rate limits. Names and timestamps come from the event.
        catch_up: Whether the count of an event that the rate limit holds back is written later: when there is a token
            again, and at a flush and at the end without one. False: as client-go, not before its next occurrence.

    Raises:
        ValueError: If a value is out of range or of the wrong type.
        TypeError: If a function is a coroutine function.
    """

    lru_cache_size: int = 4096
    burst_size: int | None = 25
    qps: float = 1 / 300
    key_func: KeyFunc = event_aggregator_by_reason_func
    message_func: MessageFunc = event_aggregator_by_reason_message_func
    max_events: int | None = 10
    max_interval_in_seconds: float = 600
    count_identical: bool = True
    spam_key_func: SpamKeyFunc = get_spam_key
    clock: Callable[[], int] = time.monotonic_ns
    catch_up: bool = True

    def __post_init__(self) -> None:
        require_count("lru_cache_size", self.lru_cache_size)
        if self.burst_size is not None:
            require_count("burst_size", self.burst_size, "; None switches the rate limit off")
        if self.max_events is not None:
            require_count("max_events", self.max_events, "; None switches combining off")
        require_positive("qps", self.qps)
        require_positive("max_interval_in_seconds", self.max_interval_in_seconds)
        for name in ("count_identical", "catch_up"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, not {getattr(self, name)!r}")
        for name in ("key_func", "message_func", "spam_key_func", "clock"):
            require_callable(name, getattr(self, name))
