"""The values of the work queue: pending writes, attempts, and notifications.

Only ``workqueue.py`` changes the fields of a work item.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Final, TypeAlias

from kevents._queue.outcome import Outcome, Verb

if TYPE_CHECKING:
    from kevents._model.objects import Event, Json
    from kevents._model.statistics import DropReason
    from kevents._queue.circuit_breaker import CircuitBreaker

Key = tuple[str, str]
"""Namespace and name of an API object."""


class ServerState(Enum):
    """The knowledge of the queue about the API object at the server."""

    ABSENT = "absent"
    UNKNOWN = "unknown"
    PRESENT = "present"


@dataclass(slots=True, eq=False, repr=False)
class Namespace:
    """The pending writes of one namespace, and whether the server answers its requests."""

    name: str
    breaker: CircuitBreaker
    items: dict[Key, WorkItem] = field(default_factory=dict)
    """In the order in which they were offered."""
    probe: WorkItem | None = None
    """While the breaker is open: the only item in the delay queue, due when the next probe is."""
    attempted: int = 0
    """The number of its last attempt, over all items. 0: never attempted."""
    in_flight: int = 0
    """The number of its attempts in flight."""
    failing: bool = False
    """True if its last attempt got no answer."""
    answers_before: int = 0
    """The number of answers to all namespaces when it began to fail."""
    reported: bool = False
    """True if :class:`Lost` was the last notification about it."""

    def least_recent(self, now: float) -> WorkItem | None:
        """The least recently attempted item, whatever its due time, except before the end of a wait by choice."""
        waiting = [item for item in self.items.values() if item.attempt is None]
        due = [item for item in waiting if not item.by_choice or item.due <= now]
        if due:
            return min(due, key=lambda item: item.attempted)
        return min(waiting, key=lambda item: item.due, default=None)


@dataclass(slots=True, eq=False, repr=False)
class WorkItem:
    """The pending write of one API object."""

    namespace: Namespace
    key: Key
    state: Event
    """The newest snapshot."""
    server_state: ServerState
    """Decides the verb: a patch if PRESENT, else a create."""
    events: int
    """The number of recorded events that the write stands for."""
    first_offer: int
    """The number of the first offer that this write has not ended, for flushes."""
    pending_since: float
    """When the write was offered; after a wait by choice, when it was due."""
    ages_from: float
    """The time of the newest event, or the end of the wait by choice. The write expires ``max_age`` later."""
    due: float = 0.0
    """When the next attempt may start."""
    order: int = 0
    """The number of the live entry in the delay queue. 0: none."""
    by_choice: bool = False
    """True while the write waits although it could be sent: the count of a series."""
    attempt: Attempt | None = None
    """The attempt in flight."""
    attempted: int = 0
    """The number of the last attempt, over all items. 0: never attempted."""
    answers_before: int | None = None
    """The number of answers to all namespaces at the first attempt, then at the end of the last one."""
    answers_before_here: int = 0
    """The same for answers to its own namespace."""
    tries: int = 0
    """Failed attempts that count towards the limit."""
    waits: int = 0
    """All failed attempts; the number of the last wait."""
    changes: int = 0
    """Changes of the server state since the last failed attempt."""
    failed: bool = False
    """True after a failed attempt, or as the probe of its namespace. Such items never occupy all senders."""
    retry_now: bool = False
    """True if a flush came during the attempt: after a failure, the next one follows at once."""
    next_state: Event | None = None
    """The newest snapshot that was offered during the attempt."""
    next_events: int = 0
    """The number of recorded events offered during the attempt."""
    next_first_offer: int = 0
    """The number of the first offer during the attempt."""
    next_due: float | None = None
    """When to write the offers made during the attempt. None: at once."""
    size: int = 0
    """The bytes of memory of ``state``."""
    next_size: int = 0
    """The bytes of memory of ``next_state``."""


class Attempt:
    """One request. Its body is built on access, outside the caller's lock."""

    __slots__ = ("began", "events", "item", "state", "verb")

    def __init__(self, item: WorkItem, now: float) -> None:
        self.item = item
        self.began = now
        self.state = item.state
        self.events = item.events
        self.verb = Verb.PATCH if item.server_state is ServerState.PRESENT else Verb.CREATE

    @property
    def namespace(self) -> str:
        return self.item.key[0]

    @property
    def name(self) -> str:
        return self.item.key[1]

    @property
    def body(self) -> Json:
        return self.state.to_patch() if self.verb is Verb.PATCH else self.state.to_dict()

    @property
    def waits(self) -> int:
        """How often this write has waited already."""
        return self.item.waits


class Closed(Enum):
    """The queue is closed: no attempt will come."""

    CLOSED = "closed"


CLOSED: Final = Closed.CLOSED


@dataclass(frozen=True, slots=True)
class Wait:
    """No attempt is due for ``seconds`` (None: until the queue's version is no longer ``version``)."""

    seconds: float | None
    version: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A write was dropped: its state, the number of recorded events, and for a refusal the verb and the outcome."""

    reason: DropReason
    state: Event
    events: int
    verb: Verb | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The server answers no request, or none of a namespace while it answers others."""

    namespace: str  # empty for the server
    cause: str


@dataclass(frozen=True, slots=True)
class Back:
    """The first answer after :class:`Lost`."""

    namespace: str  # empty for the server
    after: float  # seconds since the first failure
    waiting: int  # pending writes


Notification: TypeAlias = Dropped | Lost | Back


_Entry = tuple[float, int, WorkItem]


class DelayQueue:
    """Two heaps of items by due time: one of items that never failed, one of items that did.

    An entry is live while its number is its item's ``order``. Stale entries are skipped, which is cheaper than finding
    them.
    """

    def __init__(self, senders: int) -> None:
        self._fresh: list[_Entry] = []
        self._failed: list[_Entry] = []
        self._orders = count(1)
        self._most_failing = max(1, senders - 1)
        self._failing = 0
        self._live = 0

    def put(self, item: WorkItem, due: float) -> None:
        """Add an item, or move it to another due time."""
        self.remove(item)
        item.order = next(self._orders)
        self._live += 1
        heap = self._failed if item.failed else self._fresh
        if len(heap) > 2 * self._live + 64:
            heap[:] = [entry for entry in heap if entry[1] == entry[2].order]
            heapq.heapify(heap)
        heapq.heappush(heap, (due, item.order, item))

    def remove(self, item: WorkItem) -> None:
        self._live -= item.order > 0
        item.order = 0

    def clear(self) -> None:
        self._fresh.clear()
        self._failed.clear()
        self._live = 0

    def begin(self, item: WorkItem) -> None:
        """An attempt of the item starts."""
        self.remove(item)
        self._failing += item.failed

    def end(self, item: WorkItem) -> None:
        """The attempt of the item has ended."""
        self._failing -= item.failed

    def next(self, now: float) -> WorkItem | float | None:
        """Return the item that is due, else the time when the next one is due, else None."""
        heads = [self._head(self._fresh)]
        if self._failing < self._most_failing:
            heads.append(self._head(self._failed))
        due, _, item = min((head for head in heads if head is not None), default=(None, 0, None))
        return item if due is None or due <= now else due

    @staticmethod
    def _head(heap: list[_Entry]) -> _Entry | None:
        while heap and heap[0][1] != heap[0][2].order:
            heapq.heappop(heap)
        return heap[0] if heap else None
