"""The work queue: one pending write for each API object, in the order in which they are due.

Level-triggered, as client-go's ``workqueue``: an item holds the newest state of its API object, never two attempts of
one key are in flight, and an attempt is one request. The server state of an item decides the verb:

======= ===================================================================== ======
ABSENT  never written                                                         create
UNKNOWN a create got no answer, or a patch was answered with 404              create
PRESENT written before                                                        patch
======= ===================================================================== ======

So a create without an answer never makes a second event and never loses a count that was merged meanwhile.
"""

from __future__ import annotations

import heapq
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Final

from kevents._model.statistics import DropReason
from kevents._queue.circuit_breaker import CircuitBreaker
from kevents._queue.outcome import Delivered, Exists, Failed, Gone, Outcome, Rejected, Unavailable, Verb, reconsider
from kevents._queue.work_item import (
    CLOSED,
    Attempt,
    Closed,
    Dropped,
    Key,
    Notification,
    ServerBack,
    ServerLost,
    ServerState,
    State,
    Wait,
    WorkItem,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_TRIES: Final = 12
_MOST_CHANGES: Final = 12
_CONFLICT: Final = 409
_AT_ONCE: Final = float("-inf")
_NEVER: Final = float("inf")

_Entry = tuple[float, int, WorkItem]


class DelayQueue:
    """Two heaps of items by due time: one of items that never failed, one of items that did.

    Items that failed never occupy all senders. An entry is live while its number is its item's ``order``; stale
    entries are skipped, which is cheaper than finding them.

    Args:
        senders: The most attempts in flight.
    """

    def __init__(self, senders: int) -> None:
        """Start empty."""
        self._fresh: list[_Entry] = []
        self._failed: list[_Entry] = []
        self._orders = count(1)
        self._most_failing = max(1, senders - 1)
        self._failing = 0
        self._live = 0

    def put(self, item: WorkItem, due: float) -> None:
        """Add an item, or move it to another due time."""
        self.remove(item)
        item.due = due
        item.order = next(self._orders)
        self._live += 1
        heap = self._failed if item.failed else self._fresh
        if len(heap) > 2 * self._live + 64:
            heap[:] = [entry for entry in heap if entry[1] == entry[2].order]
            heapq.heapify(heap)
        heapq.heappush(heap, (due, item.order, item))

    def remove(self, item: WorkItem) -> None:
        """Remove an item, if it is there."""
        self._live -= item.order > 0
        item.order = 0

    def clear(self) -> None:
        """Remove all items."""
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
        """Return the item that is due; else the time when the next one is; else None."""
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


class WorkQueue:
    """Pending writes, and the attempts to send them. Times are monotonic seconds.

    Args:
        senders: The most attempts in flight.
        backlog: The most pending keys. Items that wait by choice do not count.
        max_age: Seconds after its newest event, or after its wait by choice, until a write expires.
        sleep_duration: The longest pause between two probes of the circuit breaker, in seconds.
        jitter: Returns a factor for each of these pauses, between a half and one.

    Attributes:
        breaker: The circuit breaker.
        notifications: What the caller must report, outside its lock; see :meth:`take_notifications`.
        version: Changes whenever an attempt may have become due.
        events: The number of recorded events that are pending or in flight.
        in_flight: The number of attempts in flight.
        delivered: The number of recorded events whose write was acknowledged.
        merged: The number of recorded events that joined a pending write.
        retried: Attempts that followed a wait.
        recreated: Patches that were answered with 404.
        written: Acknowledged requests by verb.
        dropped: Dropped events by reason.
        rejected_by_code: Refused events by HTTP status.
    """

    def __init__(
        self, *, senders: int, backlog: int, max_age: float, sleep_duration: float, jitter: Callable[[], float]
    ) -> None:
        """Start empty, with a closed circuit breaker."""
        self.breaker = CircuitBreaker(senders, sleep_duration, jitter)
        self.notifications: list[Notification] = []
        self.version = 0
        self.events = 0
        self.in_flight = 0
        self.delivered = 0
        self.merged = self.retried = self.recreated = 0
        self.written: Counter[Verb] = Counter()
        self.dropped: Counter[DropReason] = Counter()
        self.rejected_by_code: Counter[int] = Counter()
        self._backlog = backlog
        self._max_age = max_age
        self._items: dict[Key, WorkItem] = {}
        self._by_choice = 0  # how many items wait by choice
        self._next_expiry = _NEVER  # no item expires before
        self._delays = DelayQueue(senders)
        self._offers = 0
        self._attempts = 0
        self._longest_wait = self._until = _NEVER  # limits after begin_stop
        self._input_ended = self._closed = False

    # -- offering ------------------------------------------------------------------------------------------------

    def offer(self, state: State, now: float, *, present: bool, due: float | None = None) -> None:
        """Add a state to write, or merge it into the pending write of its key.

        Args:
            state: The newest of its API object.
            now: The time.
            present: True if the correlator has written the object before.
            due: When to write it, if it can wait; None: at once.
        """
        self._offers += 1
        self.version += 1
        self.events += 1
        if due is not None and self._longest_wait != _NEVER:
            due = now  # nothing waits by choice once the queue is stopping
        key = state.namespace, state.name
        item = self._items.get(key)
        if self._closed:
            self._drop(Dropped(DropReason.SHUTDOWN, state, 1))
        elif item is not None:
            self._merge(item, state, now, due)
        elif due is None and not self._has_capacity(now):
            self._drop(Dropped(DropReason.BACKLOG_FULL, state, 1))
        else:
            server_state = ServerState.PRESENT if present else ServerState.ABSENT
            self._items[key] = item = WorkItem(key, state, server_state, 1, self._offers, now, now)
            self._wait(item, now, due)

    def _merge(self, item: WorkItem, state: State, now: float, due: float | None) -> None:
        """The newest state wins. A create stays a create."""
        item.ages_from = now
        if item.attempt is None:
            self.merged += 1
            item.state = state
            item.events += 1
            if item.by_choice:
                self._wait(item, now, due)
            return
        if item.next_state is None:
            item.next_first_offer = self._offers
            item.next_due = due
        else:
            self.merged += 1
            if item.next_due is not None:
                item.next_due = due
        item.next_state = state
        item.next_events += 1

    @staticmethod
    def _merge_next(item: WorkItem) -> bool:
        """Merge what was offered during the attempt into the write. False if there was nothing."""
        if item.next_state is None:
            return False
        item.state, item.next_state, item.next_due = item.next_state, None, None
        item.events += item.next_events
        item.next_events = 0
        return True

    def _has_capacity(self, now: float) -> bool:
        if self._size >= self._backlog:
            self._expire(now)
        return self._size < self._backlog

    @property
    def _size(self) -> int:
        return len(self._items) - self._by_choice

    def _wait(self, item: WorkItem, now: float, due: float | None = None) -> None:
        """Let the item wait until ``due``, by choice; without it, until ``now``."""
        self._delays.put(item, now if due is None else due)
        self._count_by_choice(item, by_choice=due is not None)
        if due is None:
            self._next_expiry = min(self._next_expiry, item.ages_from + self._max_age)

    def _count_by_choice(self, item: WorkItem, *, by_choice: bool) -> None:
        if item.by_choice and not by_choice:
            item.pending_since = item.due
            item.ages_from = max(item.ages_from, item.due)
        self._by_choice += by_choice - item.by_choice
        item.by_choice = by_choice

    # -- taking --------------------------------------------------------------------------------------------------

    def take(self, now: float) -> Attempt | Wait | Closed:
        """Return the next request, or how long to wait for one, or that none will come."""
        if now >= self._until or (self._input_ended and not self._items):
            self.close()
        if self._closed:
            return CLOSED
        self._expire(now)
        item = self._next_probe(now) if self.breaker.open else self._delays.next(now)
        if isinstance(item, WorkItem):
            return self._start(item, now)
        due = min(self._until, _NEVER if item is None else item)
        return Wait(None if due == _NEVER else due - now, self.version)

    def _start(self, item: WorkItem, now: float) -> Attempt:
        self._delays.begin(item)
        self._count_by_choice(item, by_choice=False)
        item.attempt = attempt = Attempt(item, now)
        self._attempts += 1
        item.attempted = self._attempts
        if item.answers_before is None:
            item.answers_before = self.breaker.answers
        self.retried += item.waits > 0
        self.in_flight += 1
        self.breaker.began(attempt)
        return attempt

    def _next_probe(self, now: float) -> WorkItem | float | None:
        """The least recently attempted item, whatever its due time, except before the end of a wait by choice."""
        if self.breaker.probe is not None:
            return None
        if now < self.breaker.probe_due:
            return self.breaker.probe_due
        waiting = [item for item in self._items.values() if item.attempt is None]
        due = [item for item in waiting if not item.by_choice or item.due <= now]
        if due:
            return min(due, key=lambda item: item.attempted)
        return min((item.due for item in waiting), default=None)

    # -- outcomes ------------------------------------------------------------------------------------------------

    def done(self, attempt: Attempt, outcome: Outcome, now: float, wait: float) -> None:
        """Process the outcome of an attempt. An attempt whose write was dropped meanwhile changes nothing.

        Args:
            attempt: From :meth:`take`.
            outcome: Its outcome.
            now: The time.
            wait: Seconds before the next try, should there be one.
        """
        item = attempt.item
        if item.attempt is not attempt:
            return
        self.version += 1
        self.in_flight -= 1
        item.attempt = None
        self._delays.end(item)
        outcome = reconsider(outcome, self.breaker.last_unavailable, now)
        charged = not isinstance(outcome, Unavailable) or self.breaker.answered_another(
            item.key, item.answers_before or 0
        )
        self._update_breaker(attempt, outcome, now)
        item.answers_before = self.breaker.answers
        match outcome:
            case Delivered():
                self.events -= attempt.events
                self.delivered += attempt.events
                self.written[attempt.verb] += 1
                self._end(item, now)
            case Gone():
                self.recreated += 1
                self._change(item, ServerState.UNKNOWN, outcome, now, wait)
            case Exists() if item.server_state is ServerState.UNKNOWN:
                self._change(item, ServerState.PRESENT, outcome, now, wait)
            case Exists():  # another client's event of the same name
                self._reject(attempt, Rejected(_CONFLICT, "AlreadyExists", quiet=True), now)
            case Rejected():
                self._reject(attempt, outcome, now)
            case Failed() | Unavailable():
                item.changes = 0
                wait = max(0.0 if item.retry_now else wait, outcome.after or 0.0)
                item.retry_now = False
                self._retry(item, outcome, now, wait, charged=charged)

    def _update_breaker(self, attempt: Attempt, outcome: Outcome, now: float) -> None:
        since = self.breaker.unavailable_since
        if isinstance(outcome, Unavailable):
            if since is None:
                self.notifications.append(ServerLost(outcome.cause))
            self.breaker.unavailable(attempt, now, min(outcome.after or 0.0, self._longest_wait))
            return
        if since is not None:
            self.notifications.append(ServerBack(now - since, self._size))
        self.breaker.answered(attempt.item.key)

    def _change(self, item: WorkItem, server_state: ServerState, outcome: Outcome, now: float, wait: float) -> None:
        """The server state was wrong: try the other verb at once, unless that has happened too often in a row."""
        item.server_state = server_state
        item.changes += 1
        if item.changes > _MOST_CHANGES:
            self._retry(item, outcome, now, wait, charged=True)
            return
        self.merged += self._merge_next(item)
        self._wait(item, _AT_ONCE)

    def _retry(self, item: WorkItem, outcome: Outcome, now: float, wait: float, *, charged: bool) -> None:
        if item.server_state is ServerState.ABSENT:
            item.server_state = ServerState.UNKNOWN
        item.failed = True
        item.waits += 1
        item.tries += charged and self._longest_wait == _NEVER  # no try is charged once the queue is stopping
        if item.tries >= MOST_TRIES:
            self._drop(Dropped(DropReason.RETRIES_EXHAUSTED, item.state, item.events, None, outcome))
            self._end(item, now)
            return
        self.merged += self._merge_next(item)
        self._wait(item, now + min(wait, self._longest_wait))

    def _reject(self, attempt: Attempt, outcome: Rejected, now: float) -> None:
        self.rejected_by_code[outcome.code] += attempt.events
        self._drop(Dropped(DropReason.REJECTED, attempt.state, attempt.events, attempt.verb, outcome))
        self._end(attempt.item, now)

    def _end(self, item: WorkItem, now: float) -> None:
        """The write has ended. What was offered during its last attempt becomes a new write."""
        if item.next_state is None:
            self._remove(item)
            return
        self._items[item.key] = following = WorkItem(
            item.key,
            item.next_state,
            ServerState.PRESENT,
            item.next_events,
            item.next_first_offer,
            pending_since=now,
            ages_from=item.ages_from,
            attempted=item.attempted,
        )
        self._wait(following, now, item.next_due)

    def _drop(self, dropped: Dropped) -> None:
        self.events -= dropped.events
        self.dropped[dropped.reason] += dropped.events
        self.notifications.append(dropped)

    def _remove(self, item: WorkItem) -> None:
        self._count_by_choice(item, by_choice=False)
        self._delays.remove(item)
        del self._items[item.key]

    def _expire(self, now: float) -> None:
        """Drop the items that are too old. Free of cost before the first one can be."""
        if now < self._next_expiry:
            return
        self._next_expiry = _NEVER
        for item in [item for item in self._items.values() if item.attempt is None and not item.by_choice]:
            expiry = item.ages_from + self._max_age
            if expiry > now:
                self._next_expiry = min(self._next_expiry, expiry)
                continue
            self.version += 1
            self._drop(Dropped(DropReason.EXPIRED, item.state, item.events))
            self._remove(item)

    def take_notifications(self) -> list[Notification]:
        """Return the notifications since the last call."""
        taken, self.notifications = self.notifications, []
        return taken

    # -- flushing and ending -------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return a mark for :meth:`flushed`."""
        return self._offers

    def flushed(self, mark: int) -> bool:
        """True if everything that was offered before the mark has ended. What was merged later does not count."""
        return all(item.first_offer > mark for item in self._items.values())

    def flush_now(self, now: float, key: Key | None = None) -> None:
        """Make every item due now, or after its attempt. With a key: only that one, if it waits by choice."""
        self.version += 1
        items = self._items
        for item in list(items.values()) if key is None else [items[key]] if key in items else []:
            item.next_due = None
            item.retry_now |= key is None and item.attempt is not None
            if item.attempt is None and item.due > now and (key is None or item.by_choice):
                self._wait(item, now)
        if key is None:
            self.breaker.probe_now(now)

    def begin_stop(self, now: float, longest_wait: float, until: float) -> None:
        """Make every item due now. From now on no try is charged and waits are short.

        Args:
            now: The time.
            longest_wait: The longest wait from now on, in seconds.
            until: When the queue closes.
        """
        self._longest_wait = longest_wait
        self._until = until
        self.breaker.limit_pause(longest_wait)
        self.flush_now(now)

    def end_input(self) -> None:
        """Nothing more will be offered: the queue closes once it is empty."""
        self.version += 1
        self._input_ended = True

    def close(self) -> int:
        """Drop all items, in flight or not. Returns the number of dropped events."""
        self.version += 1
        self._closed = True
        dropped = self.events
        for item in self._items.values():
            item.attempt = None
            self._merge_next(item)
            self._drop(Dropped(DropReason.SHUTDOWN, item.state, item.events))
        self._items.clear()
        self._by_choice = 0
        self._delays.clear()
        self.breaker.forget_probe()
        self.in_flight = 0
        return dropped

    @property
    def closed(self) -> bool:
        """True once the queue has closed."""
        return self._closed

    @property
    def keys(self) -> int:
        """The number of keys with a pending write."""
        return len(self._items)

    def oldest_age(self, now: float) -> float:
        """Seconds since the oldest pending write was offered. Items that wait by choice do not count."""
        return max((now - item.pending_since for item in self._items.values() if not item.by_choice), default=0.0)
