"""What counts as the same event, and how much is too much: the correlator's options."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from kevents._model.objects import Event
from kevents._model.validation import require_callable, require_count, require_positive

KeyFunc = Callable[[Event], tuple[Hashable, Hashable]]
MessageFunc = Callable[[Event], str]
SpamKeyFunc = Callable[[Event], Hashable]

_COMBINED: Final = "(combined from similar events): "


def event_aggregator_by_reason_func(event: Event) -> tuple[Hashable, Hashable]:
    """What may be combined: everything but the message, which is the local key.

    client-go: ``EventAggregatorByReasonFunc``; its reporting fields are those of the source.

    .. versionadded:: 0.1
    """
    return (event.source.identity, event.reference.identity, event.type, event.reason), event.message


def event_aggregator_by_reason_message_func(event: Event) -> str:
    """The message of a combined event (client-go: ``EventAggregatorByReasonMessageFunc``).

    .. versionadded:: 0.1
    """
    return _COMBINED + event.message


def get_spam_key(event: Event) -> Hashable:
    """One budget for each source, object and type (client-go: ``getSpamKey``).

    .. versionadded:: 0.1
    """
    return event.source.identity, event.reference.identity, event.type


def spam_key_by_object_and_reason(event: Event) -> Hashable:
    """One budget for each reason: a noisy one cannot use up the budget of an important one.

    .. versionadded:: 0.1
    """
    return event.source.identity, event.reference.identity, event.type, event.reason


def event_key(event: Event) -> Hashable:
    """What makes two events the same (client-go: ``getEventKey``)."""
    reference = event.reference
    return event.source.identity, reference.identity, reference.field_path, event.type, event.reason, event.message


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrelatorOptions:
    """What counts as the same, and how much is too much (client-go: ``CorrelatorOptions``).

    Args:
        lru_cache_size: How many keys each of the three memories holds.
        burst_size: How many events about one spam key pass at once; None switches the filter off.
        qps: Events a second of one spam key that pass in the long run.
        key_func: From an event to the key under which similar ones are combined, and the local key that tells
            them apart.
        message_func: The message of a combined event.
        max_events: From this many different local keys on, similar events are combined; None: never.
        max_interval_in_seconds: An aggregate unseen for longer starts anew.
        count_identical: Whether an event seen before becomes its next count; otherwise each is its own.
        spam_key_func: From an event to the key of its budget.
        clock: Nanoseconds for windows and budgets; names and timestamps come from the event.

    Raises:
        ValueError: If a number is out of range, or anything is of the wrong type.
        TypeError: If a function is a coroutine function.

    .. versionadded:: 0.1
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

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        require_count("lru_cache_size", self.lru_cache_size)
        if self.burst_size is not None:
            require_count("burst_size", self.burst_size, "; None switches the rate limit off")
        if self.max_events is not None:
            require_count("max_events", self.max_events, "; None switches combining off")
        require_positive("qps", self.qps)
        require_positive("max_interval_in_seconds", self.max_interval_in_seconds)
        if not isinstance(self.count_identical, bool):
            raise ValueError(f"count_identical must be True or False, not {self.count_identical!r}")
        for name in ("key_func", "message_func", "spam_key_func", "clock"):
            require_callable(name, getattr(self, name))
