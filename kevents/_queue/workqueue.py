"""The work queue: one pending write for each API object, in the order in which they are due.

Level-triggered, as client-go's ``workqueue``: an item holds the newest state of its API object, never two attempts of
one key are in flight, and an attempt is one request. The server state of an item decides the verb:

======= ===================================================================== ======
ABSENT  never written                                                         create
UNKNOWN a create got no answer, or a patch was answered with 404              create
PRESENT written before                                                        patch
======= ===================================================================== ======

So a create without an answer never makes a second event and never loses a count that was merged meanwhile.

Namespaces fail apart, because an admission webhook or a quota can fail the requests of one namespace only. A namespace
whose requests get no answer is probed by one request at a time. It affects the others in no way: neither their
requests, nor their share of the backlog, nor the circuit breaker of the server.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from kevents._model.statistics import DropReason
from kevents._queue.circuit_breaker import CircuitBreaker
from kevents._queue.outcome import Delivered, Exists, Failed, Gone, Outcome, Rejected, Unavailable, Verb, reconsider
from kevents._queue.work_item import (
    CLOSED,
    Attempt,
    Back,
    Closed,
    DelayQueue,
    Dropped,
    Key,
    Lost,
    Namespace,
    Notification,
    ServerState,
    Wait,
    WorkItem,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kevents._model.objects import Event

MOST_TRIES: Final = 12
_MOST_CHANGES: Final = 12
_CONFLICT: Final = 409
_MOST_NAMESPACES: Final = 4096
_TRIAL_INTERVAL: Final = 1.0
_AT_ONCE: Final = float("-inf")
_NEVER: Final = float("inf")


class WorkQueue:
    """Pending writes, and the attempts to send them. Times are monotonic seconds.

    Args:
        senders: The most attempts in flight.
        backlog: The most pending keys. Items that wait by choice do not count.
        backlog_bytes: The most bytes of memory of all pending states. One state always fits.
        size_of: Returns the bytes of memory of a state.
        max_age: Seconds after its newest event, or after its wait by choice, until a write expires.
        sleep_duration: The longest pause between two probes of the circuit breaker, in seconds.
        jitter: Returns a factor for each pause of the server's breaker, between a half and one.
    """

    def __init__(
        self,
        *,
        senders: int,
        backlog: int,
        max_age: float,
        sleep_duration: float,
        jitter: Callable[[], float],
        backlog_bytes: float = _NEVER,
        size_of: Callable[[Event], int] = lambda _: 0,
    ) -> None:
        self.breaker = CircuitBreaker(senders, sleep_duration, jitter)  # of the server
        self._new_breaker = partial(CircuitBreaker, senders, sleep_duration, lambda: 1.0)
        self.notifications: list[Notification] = []
        self.version = 0  # changes whenever an attempt may have become due
        self.in_flight = 0  # attempts
        self.retried = 0  # attempts that followed a wait
        self.recreated = 0  # patches that were answered with 404
        self.written: Counter[Verb] = Counter()  # acknowledged requests
        # Recorded events: pending or in flight, acknowledged, and those that joined a pending write.
        self.events = self.delivered = self.merged = 0
        self.dropped: Counter[DropReason] = Counter()  # recorded events
        self.rejected_by_code: Counter[int] = Counter()  # recorded events, by HTTP status
        self._backlog, self._backlog_bytes, self._size_of = backlog, backlog_bytes, size_of
        self._bytes = 0  # of memory of all pending states
        self._max_age = max_age
        self._items: dict[Key, WorkItem] = {}
        self._namespaces: dict[str, Namespace] = {}
        self._next_trial = _AT_ONCE  # while the server's breaker is open: when an untried namespace may be tried
        self._by_choice = 0  # how many items wait by choice
        self._next_expiry = _NEVER  # no item expires before
        self._delays = DelayQueue(senders)
        self._offers = 0
        self._attempts = 0
        self._longest_wait = self._until = _NEVER  # limits after begin_stop
        self._input_ended = self._closed = False

    # -- offering ------------------------------------------------------------------------------------------------

    def offer(self, state: Event, now: float, *, present: bool, due: float | None = None, events: int = 1) -> None:
        """Add the newest state of an API object, or merge it into the pending write of its key.

        ``present``: the correlator has written the object before. ``due``: when to write it, if it can wait.
        ``events``: the number of recorded events that it stands for, 0 for a write that only catches up a count.
        """
        self._offers += 1
        self.version += 1
        self.events += events
        if due is not None and self._longest_wait != _NEVER:
            due = now  # nothing waits by choice once the queue is stopping
        key, size = (state.namespace, state.name), self._size_of(state)
        item = self._items.get(key)
        if self._closed:
            self._drop(Dropped(DropReason.SHUTDOWN, state, events))
        elif item is not None:
            self._merge(item, state, size, events, now, due)
        elif not self._has_capacity(state.namespace, size, now, due):
            self._drop(Dropped(DropReason.BACKLOG_FULL, state, events))
        else:
            namespace = self._namespace(state.namespace)
            server_state = ServerState.PRESENT if present else ServerState.ABSENT
            item = WorkItem(namespace, key, state, server_state, events, self._offers, now, now, size=size)
            self._add(item)
            self._wait(item, now, due)

    def _add(self, item: WorkItem) -> None:
        self._items[item.key] = item.namespace.items[item.key] = item
        self._bytes += item.size

    def _namespace(self, name: str) -> Namespace:
        namespace = self._namespaces.get(name)
        if namespace is None:
            if len(self._namespaces) >= _MOST_NAMESPACES:  # forget one without pending writes
                idle = next((known for known in self._namespaces.values() if not known.items), None)
                if idle is not None:
                    del self._namespaces[idle.name]
            self._namespaces[name] = namespace = Namespace(name, self._new_breaker())
            namespace.breaker.limit_pause(self._longest_wait)
        return namespace

    def _merge(self, item: WorkItem, state: Event, size: int, events: int, now: float, due: float | None) -> None:
        """The newest state wins, with the older message if it needs too much memory. A create stays a create."""
        item.ages_from = now
        replaced = item.size if item.attempt is None else item.next_size
        if size > item.size and self._bytes + size - replaced > self._backlog_bytes:
            state = state.replace(message=item.state.message)
            size = self._size_of(state)
        self._bytes += size - replaced
        if item.attempt is None:
            self.merged += min(events, item.events)
            item.state, item.size = state, size
            item.events += events
            if item.by_choice and due != item.due:
                self._wait(item, now, due)
            return
        if item.next_state is None:
            item.next_first_offer = self._offers
            item.next_due = due
        else:
            self.merged += min(events, item.next_events)
            if item.next_due is not None:
                item.next_due = due
        item.next_state, item.next_size = state, size
        item.next_events += events

    def _merge_next(self, item: WorkItem) -> int:
        """Merge the offers made during the attempt into the write. Returns 1 if events joined events."""
        if item.next_state is None:
            return 0
        merged = min(1, item.events, item.next_events)
        self._bytes -= item.size
        item.state, item.next_state, item.next_due = item.next_state, None, None
        item.size, item.next_size = item.next_size, 0
        item.events += item.next_events
        item.next_events = 0
        return merged

    def _has_capacity(self, name: str, size: int, now: float, due: float | None) -> bool:
        if self._is_full(size, due):
            self._expire(now)
        while self._is_full(size, due) and self._make_room(name):
            pass
        return not self._is_full(size, due)

    def _is_full(self, size: int, due: float | None) -> bool:
        too_large = bool(self._items) and self._bytes + size > self._backlog_bytes
        return too_large or (due is None and self._size >= self._backlog)

    def _make_room(self, name: str) -> bool:
        """Drop the newest write of the largest unavailable namespace, unless the namespace ``name`` is as large."""
        unavailable = [known for known in self._namespaces.values() if known.breaker.open]
        largest = max(unavailable, key=lambda known: len(known.items), default=None)
        here = self._namespaces.get(name)
        if largest is None or len(largest.items) <= (1 if here is None else len(here.items) + 1):
            return False
        for item in reversed(largest.items.values()):
            if item.attempt is None and not item.by_choice:
                self._drop(Dropped(DropReason.BACKLOG_FULL, item.state, item.events))
                self._remove(item)
                self._plan_missing_probe(largest)
                return True
        return False

    @property
    def _size(self) -> int:
        return len(self._items) - self._by_choice

    def _wait(self, item: WorkItem, now: float, due: float | None = None) -> None:
        """Let the item wait until ``due``, by choice; without it, until ``now``."""
        item.due = now if due is None else due
        self._count_by_choice(item, by_choice=due is not None)
        if due is None:
            self._next_expiry = min(self._next_expiry, item.ages_from + self._max_age)
        namespace = item.namespace
        if not namespace.breaker.open:
            self._delays.put(item, item.due)
        elif namespace.probe is None or namespace.probe is item:
            self._plan_probe(namespace)

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
        namespace = item.namespace
        if namespace.probe is not None:
            self._delays.remove(namespace.probe)
            namespace.probe = None
        self._delays.begin(item)
        self._count_by_choice(item, by_choice=False)
        item.attempt = attempt = Attempt(item, now)
        self._attempts += 1
        item.attempted = namespace.attempted = self._attempts
        if item.answers_before is None:
            item.answers_before, item.answers_before_here = self.breaker.answers, namespace.breaker.answers
        self.retried += item.waits > 0
        self.in_flight += 1
        namespace.in_flight += 1
        self.breaker.began(attempt)
        namespace.breaker.began(attempt)
        return attempt

    def _next_probe(self, now: float) -> WorkItem | float | None:
        """While the server's breaker is open: the item of the next request, or when it is due.

        Probes go round over the namespaces. Once a second a namespace that has not failed yet is tried without waiting
        for the probe's time, first those that were answered before: the server may be available for them.
        """
        untried, others = [], []
        for namespace in self._namespaces.values():
            if namespace.items and not namespace.failing and not namespace.in_flight:
                untried.append(namespace)
            elif namespace.items:
                others.append(namespace)
        untried.sort(key=lambda known: (known.breaker.answers == 0, known.attempted))
        others.sort(key=lambda known: known.attempted)
        trial = self._first_due(untried, now)
        if isinstance(trial, WorkItem):
            if now >= self._next_trial:
                self._next_trial = now + _TRIAL_INTERVAL
                return trial
            trial_due = self._next_trial
        else:
            trial_due = _NEVER if trial is None else trial
        if self.breaker.probe is not None:
            probe: WorkItem | float | None = None
        elif now < self.breaker.probe_due:
            probe = self.breaker.probe_due
        else:
            probe = trial if isinstance(trial, WorkItem) else self._first_due(others, now)
        if isinstance(probe, WorkItem):
            return probe
        due = min(trial_due, _NEVER if probe is None else probe)
        return None if due == _NEVER else due

    def _first_due(self, namespaces: list[Namespace], now: float) -> WorkItem | float | None:
        """The item to probe with, from the first namespace that has one, or when one is due."""
        due = _NEVER
        for namespace in namespaces:
            item = namespace.least_recent(now)
            if item is not None and (not item.by_choice or item.due <= now):
                return item
            due = min(due, _NEVER if item is None else item.due)
        return None if due == _NEVER else due

    def _plan_probe(self, namespace: Namespace) -> None:
        """While the namespace's breaker is open: put the next probe, and no other item, into the delay queue."""
        if namespace.probe is not None:
            self._delays.remove(namespace.probe)
            namespace.probe = None
        if namespace.breaker.probe is not None:
            return
        due = namespace.breaker.probe_due
        namespace.probe = item = namespace.least_recent(due)
        if item is not None:
            item.failed = True
            self._delays.put(item, max(due, item.due) if item.by_choice else due)

    # -- outcomes ------------------------------------------------------------------------------------------------

    def done(self, attempt: Attempt, outcome: Outcome, now: float, wait: float) -> bool:
        """Process the outcome of an attempt. An attempt whose write was dropped meanwhile changes nothing.

        ``wait``: seconds before the next try, should there be one. Returns True if other writes may have become due.
        """
        item = attempt.item
        if item.attempt is not attempt:
            return False
        was_open = self.breaker.open or item.namespace.breaker.open
        self.version, self.in_flight = self.version + 1, self.in_flight - 1
        item.namespace.in_flight -= 1
        item.attempt = None
        self._delays.end(item)
        outcome = outcome if isinstance(outcome, Delivered) else reconsider(outcome, self.breaker.last_unavailable, now)
        charged = not isinstance(outcome, Unavailable) or self._others_answered(item)
        if isinstance(outcome, Unavailable):
            self._unavailable(attempt, outcome, now)
        else:
            self._answered(attempt, now)
        item.answers_before, item.answers_before_here = self.breaker.answers, item.namespace.breaker.answers
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

        self._plan_missing_probe(item.namespace)
        return was_open or not isinstance(outcome, Delivered)

    def _plan_missing_probe(self, namespace: Namespace) -> None:
        if namespace.breaker.open and namespace.probe is None:
            self._plan_probe(namespace)

    def _others_answered(self, item: WorkItem) -> bool:
        """True if the server answered others since the item's previous attempt, so that the item is at fault."""
        here = item.namespace.breaker
        if here.answered_another(item.key, item.answers_before_here):
            return True
        return not here.open and self.breaker.answered_another(item.key, item.answers_before or 0)

    def _fails_alone(self, namespace: Namespace) -> bool:
        """True if the server answered other namespaces since this one began to fail."""
        return namespace.breaker.open and self.breaker.answers > namespace.answers_before

    def _unavailable(self, attempt: Attempt, outcome: Unavailable, now: float) -> None:
        namespace, after = attempt.item.namespace, min(outcome.after or 0.0, self._longest_wait)
        was_open = namespace.breaker.open
        if not namespace.failing:
            namespace.failing = True
            namespace.answers_before = self.breaker.answers
        namespace.breaker.unavailable(attempt, now, after)
        if namespace.breaker.open and not was_open:
            for item in namespace.items.values():
                self._delays.remove(item)
        if attempt is self.breaker.probe or not self._fails_alone(namespace):
            if self.breaker.unavailable_since is None:
                self.notifications.append(Lost("", outcome.cause))
            self.breaker.unavailable(attempt, now, after)
        elif not namespace.reported:
            namespace.reported = True
            self.notifications.append(Lost(namespace.name, outcome.cause))

    def _answered(self, attempt: Attempt, now: float) -> None:
        namespace = attempt.item.namespace
        lost, since = namespace.breaker.unavailable_since, self.breaker.unavailable_since
        if namespace.reported and lost is not None:
            namespace.reported = False
            self.notifications.append(Back(namespace.name, now - lost, len(namespace.items)))
        if since is not None:
            self.notifications.append(Back("", now - since, self._size))
        if self.breaker.open:  # namespaces that failed during the outage are probed at once
            for other in self._namespaces.values():
                if other.breaker.open and not self._fails_alone(other):
                    other.breaker.probe_now(now)
                    self._plan_probe(other)
        self.breaker.answered(attempt.item.key)
        was_open = namespace.breaker.open
        namespace.failing = False
        namespace.breaker.answered(attempt.item.key)
        if was_open:
            namespace.probe = None
            for item in namespace.items.values():
                if item.attempt is None and item is not attempt.item:
                    self._delays.put(item, item.due)

    def _change(self, item: WorkItem, server_state: ServerState, outcome: Outcome, now: float, wait: float) -> None:
        """The server state was wrong: try the other verb at once, unless that has happened too often in a row."""
        item.server_state, item.changes = server_state, item.changes + 1
        if item.changes > _MOST_CHANGES:
            self._retry(item, outcome, now, wait, charged=True)
            return
        self.merged += self._merge_next(item)
        self._wait(item, _AT_ONCE)

    def _retry(self, item: WorkItem, outcome: Outcome, now: float, wait: float, *, charged: bool) -> None:
        if item.server_state is ServerState.ABSENT:
            item.server_state = ServerState.UNKNOWN
        item.failed, item.waits = True, item.waits + 1
        item.tries += charged and self._longest_wait == _NEVER  # no try is charged once the queue is stopping
        if item.tries >= MOST_TRIES:
            self._drop(Dropped(DropReason.RETRIES_EXHAUSTED, item.state, item.events, None, outcome))
            self._end(item, now)
            return
        self.merged += self._merge_next(item)
        self._wait(item, now + min(wait, self._longest_wait))

    def _reject(self, attempt: Attempt, outcome: Rejected, now: float) -> None:
        if attempt.events:
            self.rejected_by_code[outcome.code] += attempt.events
        self._drop(Dropped(DropReason.REJECTED, attempt.state, attempt.events, attempt.verb, outcome))
        self._end(attempt.item, now)

    def _end(self, item: WorkItem, now: float) -> None:
        """The write has ended. Offers made during its last attempt become a new write."""
        if item.next_state is None:
            self._remove(item)
            return
        self._bytes -= item.size + item.next_size
        following = WorkItem(
            item.namespace, item.key, item.next_state, ServerState.PRESENT, item.next_events, item.next_first_offer,
            pending_since=now, ages_from=item.ages_from, attempted=item.attempted, size=item.next_size,
        )  # fmt: skip
        self._add(following)
        self._wait(following, now, item.next_due)

    def _drop(self, dropped: Dropped) -> None:
        if dropped.events:
            self.events -= dropped.events
            self.dropped[dropped.reason] += dropped.events
            self.notifications.append(dropped)

    def _remove(self, item: WorkItem) -> None:
        self._count_by_choice(item, by_choice=False)
        self._delays.remove(item)
        self._bytes -= item.size + item.next_size
        del self._items[item.key], item.namespace.items[item.key]
        if item.namespace.probe is item:
            item.namespace.probe = None

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
        for namespace in self._namespaces.values():
            self._plan_missing_probe(namespace)

    def take_notifications(self) -> list[Notification]:
        """The notifications since the last call, which the caller must report outside its lock."""
        taken, self.notifications = self.notifications, []
        return taken

    # -- flushing and ending -------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return a mark for :meth:`flushed`."""
        return self._offers

    def flushed(self, mark: float) -> bool:
        """True if everything that was offered before the mark has ended. Later merges do not count."""
        return all(item.first_offer > mark for item in self._items.values())

    def flush_now(self, now: float, key: Key | None = None) -> None:
        """Make every item due now, or after its attempt. With a key: only that one, if it waits by choice."""
        self.version += 1
        for item in [item for item in self._items.values() if key in {None, item.key}]:
            item.next_due = None
            item.retry_now |= key is None and item.attempt is not None
            if item.attempt is None and item.due > now and (key is None or item.by_choice):
                self._wait(item, now)
        if key is None:
            self.breaker.probe_now(now)
            for namespace in self._namespaces.values():
                if namespace.breaker.open:
                    namespace.breaker.probe_now(now)
                    self._plan_probe(namespace)

    def begin_stop(self, now: float, longest_wait: float, until: float) -> None:
        """Make every item due now. From now on no try is charged, and waits last at most ``longest_wait`` seconds.

        The queue closes at the time ``until``.
        """
        self._longest_wait = longest_wait
        self._until = until
        for breaker in (self.breaker, *(namespace.breaker for namespace in self._namespaces.values())):
            breaker.limit_pause(longest_wait)
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
        self._namespaces.clear()
        self._by_choice = self._bytes = 0
        self._delays.clear()
        self.breaker.probe = None  # it refers to an event
        self.in_flight = 0
        return dropped

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def keys(self) -> int:
        return len(self._items)

    def oldest_age(self, now: float) -> float:
        """Seconds since the oldest pending write was offered. Items that wait by choice do not count."""
        return max((now - item.pending_since for item in self._items.values() if not item.by_choice), default=0.0)
