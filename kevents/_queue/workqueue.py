"""What is still to be written: one slot for each API object, merging, retry times, the gate of an outage.

Level-triggered, as client-go's ``workqueue``: a slot holds the newest state of its object, never two attempts are
under way on one key, and an attempt is one request. A slot's belief about the server decides its verb:

====== ======================================================================== ======
NEW    never written                                                            create
MAYBE  a create's answer was never seen, or a patch met 404                     create
THERE  written before                                                           patch
====== ======================================================================== ======

An ambiguous create so never doubles an event and never loses a count that was merged meanwhile. Pure: no thread, no
clock of its own, no I/O, no logging; time is handed in, as monotonic seconds, and what is to be reported waits in
``facts`` until the caller has left its lock.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from kevents._model.statistics import DropReason
from kevents._queue.backlog import Backlog
from kevents._queue.circuit_breaker import CircuitBreaker
from kevents._queue.delay_queue import DelayQueue
from kevents._queue.notifications import CLOSED, Closed, Dropped, Notification, ServerBack, ServerLost, Wait
from kevents._queue.outcome import Delivered, Exists, Failed, Gone, Outcome, Rejected, Unavailable, Verb, reconsider
from kevents._queue.work_item import Attempt, Key, ServerState, State, WorkItem

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_TRIES: Final = 12
_MOST_CHANGES: Final = 12
_CONFLICT: Final = 409
_AT_ONCE: Final = float("-inf")
_NEVER: Final = float("inf")


class WorkQueue:
    """Slots, and the order in which they are written.

    Args:
        senders: How many attempts may be under way at once.
        backlog: How many keys may wait.
        max_age: Seconds after its newest event, or after the end of its wait by choice, in which a write is given up.
        sleep_duration: The longest pause between two probes of a closed gate, in seconds.
        jitter: Gives the share of a probe's pause that is waited, between a half and one.
    """

    def __init__(
        self, *, senders: int, backlog: int, max_age: float, sleep_duration: float, jitter: Callable[[], float]
    ) -> None:
        """Start empty, the gate open."""
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
        self._backlog = Backlog(backlog, max_age)
        self._agenda = DelayQueue(senders)
        self._offers = 0
        self._attempts = 0
        self._longest_wait = self._until = _NEVER
        self._sealed = self._closed = False

    # -- offering ------------------------------------------------------------------------------------------------

    def offer(self, state: State, now: float, *, present: bool, due: float | None = None) -> None:
        """Ask for a state to be written.

        Args:
            state: The newest of its object.
            now: The present.
            present: Whether the object was written before, as far as the correlator knows.
            due: When, for a write that can wait; None: at once.
        """
        self._offers += 1
        self.version += 1
        self.events += 1
        if due is not None and self._longest_wait != _NEVER:
            due = now  # while draining nothing waits by choice
        slot = self._backlog.slots.get((state.namespace, state.name))
        if self._closed:
            self._drop(Dropped(DropReason.SHUTDOWN, state, 1))
        elif slot is not None:
            self._merge(slot, state, now, due)
        elif due is None and not self._has_room(now):
            self._drop(Dropped(DropReason.BACKLOG_FULL, state, 1))
        else:
            slot = WorkItem((state.namespace, state.name), now)
            self._backlog.slots[slot.key] = slot
            slot.restart(state, ServerState.PRESENT if present else ServerState.ABSENT, 1, self._offers, now)
            self._begin_wait(slot, now, due)

    def _merge(self, slot: WorkItem, state: State, now: float, due: float | None) -> None:
        if slot.attempt is not None:
            self.merged += slot.merge_next(state, now, self._offers, due)
            return
        self.merged += 1
        slot.merge(state, now)
        if slot.by_choice:
            self._begin_wait(slot, now, due)

    def _has_room(self, now: float) -> bool:
        if not self._backlog.has_room:
            self._expire(now)
        return self._backlog.has_room

    # -- taking --------------------------------------------------------------------------------------------------

    def take(self, now: float) -> Attempt | Wait | Closed:
        """The next request to make, or how long to wait for one, or that none will come any more."""
        if now >= self._until or (self._sealed and not self._backlog.slots):
            self.close()
        if self._closed:
            return CLOSED
        self._expire(now)
        slot = self._probe(now) if self.breaker.open else self._agenda.next(now)
        if isinstance(slot, WorkItem):
            return self._start(slot, now)
        due = min(self._until, _NEVER if slot is None else slot)
        return Wait(None if due == _NEVER else due - now, self.version)

    def _start(self, slot: WorkItem, now: float) -> Attempt:
        slot.attempt = attempt = Attempt(slot, now)
        self._attempts += 1
        slot.attempted = self._attempts
        if slot.heard is None:
            slot.heard = self.breaker.answers
        self.retried += slot.waits > 0
        self.in_flight += 1
        self._backlog.begin(slot)
        self._agenda.begin(slot)
        self.breaker.began(attempt)
        return attempt

    def _probe(self, now: float) -> WorkItem | float | None:
        if self.breaker.probing:
            return None
        return self.breaker.probe_due if now < self.breaker.probe_due else self._backlog.least_recent(now)

    def take_notifications(self) -> list[Notification]:
        """Return what happened since the last call, and forget it."""
        taken, self.notifications = self.notifications, []
        return taken

    # -- what came of it -----------------------------------------------------------------------------------------

    def done(self, attempt: Attempt, outcome: Outcome, now: float, wait: float) -> None:
        """Settle an attempt.

        Args:
            attempt: As taken. One whose slot was given up meanwhile changes nothing.
            outcome: What came of it.
            now: The present.
            wait: How many seconds the next try waits, if there is to be one.
        """
        slot = attempt.slot
        if slot.attempt is not attempt:
            return
        self.version += 1
        self.in_flight -= 1
        slot.attempt = None
        self._agenda.end(slot)
        outcome = reconsider(outcome, self.breaker.last_unavailable, now)
        charged = not isinstance(outcome, Unavailable) or self.breaker.answered_another(slot.key, slot.heard or 0)
        self._listen(attempt, outcome, now)
        slot.heard = self.breaker.answers
        match outcome:
            case Delivered():
                self.events -= attempt.events
                self.delivered += attempt.events
                self.written[attempt.verb] += 1
                self._end(slot, now)
            case Gone():
                self.recreated += 1
                self._change(slot, ServerState.UNKNOWN, outcome, now, wait)
            case Exists() if slot.belief is ServerState.UNKNOWN:
                self._change(slot, ServerState.PRESENT, outcome, now, wait)
            case Exists():  # somebody else's name
                self._reject(attempt, Rejected(_CONFLICT, "AlreadyExists", quiet=True), now)
            case Rejected():
                self._reject(attempt, outcome, now)
            case Failed() | Unavailable():
                slot.changes = 0
                wait = max(slot.wait_after(wait), outcome.after or 0.0)
                self._retry(slot, outcome, now, wait, charged=charged)

    def _listen(self, attempt: Attempt, outcome: Outcome, now: float) -> None:
        lost_at = self.breaker.lost_at
        if isinstance(outcome, Unavailable):
            if lost_at is None:
                self.notifications.append(ServerLost(outcome.cause))
            self.breaker.unavailable(attempt, now, min(outcome.after or 0.0, self._longest_wait))
            return
        if lost_at is not None:
            self.notifications.append(ServerBack(now - lost_at, self._backlog.size))
        self.breaker.answered(attempt.slot.key)

    def _change(self, slot: WorkItem, belief: ServerState, outcome: Outcome, now: float, wait: float) -> None:
        """The belief was wrong: try the other verb at once, unless that goes on and on."""
        slot.belief = belief
        slot.changes += 1
        if slot.changes > _MOST_CHANGES:
            self._retry(slot, outcome, now, wait, charged=True)
            return
        self.merged += slot.absorb_next()
        self._begin_wait(slot, _AT_ONCE)

    def _retry(self, slot: WorkItem, outcome: Outcome, now: float, wait: float, *, charged: bool) -> None:
        if slot.belief is ServerState.ABSENT:
            slot.belief = ServerState.UNKNOWN
        slot.failed = True
        slot.waits += 1
        slot.tries += charged and self._longest_wait == _NEVER  # none is charged while draining
        if slot.tries >= MOST_TRIES:
            self._drop(Dropped(DropReason.RETRIES_EXHAUSTED, slot.state, slot.events, None, outcome))
            self._end(slot, now)
            return
        self.merged += slot.absorb_next()
        self._begin_wait(slot, now + min(wait, self._longest_wait))

    def _reject(self, attempt: Attempt, outcome: Rejected, now: float) -> None:
        self.rejected_by_code[outcome.code] += attempt.events
        self._drop(Dropped(DropReason.REJECTED, attempt.state, attempt.events, attempt.verb, outcome))
        self._end(attempt.slot, now)

    def _end(self, slot: WorkItem, now: float) -> None:
        """What the attempt carried has ended; what was merged meanwhile goes on as a write of its own."""
        state, events, offer, due = slot.next_state, slot.next_events, slot.next_first_offer, slot.next_due
        if state is None:
            self._remove(slot)
            return
        slot.forget_next()
        slot.restart(state, ServerState.PRESENT, events, offer, now)
        self._begin_wait(slot, now, due)

    def _begin_wait(self, slot: WorkItem, now: float, due: float | None = None) -> None:
        """The slot waits until ``due``, by choice; without it, until ``now``, because it has to."""
        self._agenda.put(slot, now if due is None else due)
        self._backlog.wait(slot, by_choice=due is not None)

    def _drop(self, loss: Dropped) -> None:
        self.events -= loss.events
        self.dropped[loss.reason] += loss.events
        self.notifications.append(loss)

    def _remove(self, slot: WorkItem) -> None:
        self._backlog.remove(slot)
        self._agenda.forget(slot)

    def _expire(self, now: float) -> None:
        for slot in self._backlog.overdue(now):
            self.version += 1
            self._drop(Dropped(DropReason.EXPIRED, slot.state, slot.events))
            self._remove(slot)

    # -- flushing and ending -------------------------------------------------------------------------------------

    def mark(self) -> int:
        """This moment, for :meth:`flushed`."""
        return self._offers

    def flushed(self, mark: int) -> bool:
        """Whether all that was offered before the mark has ended; what was merged later does not count."""
        return all(slot.first_offer > mark for slot in self._backlog.slots.values())

    def flush_now(self, now: float, key: Key | None = None) -> None:
        """Make every key due now, or at the end of its attempt; with ``key``, only that one, if it waits by choice."""
        self.version += 1
        slots = self._backlog.slots
        for slot in list(slots.values()) if key is None else [slots[key]] if key in slots else []:
            slot.next_due = None
            slot.hurried |= key is None and slot.attempt is not None
            if slot.attempt is None and slot.due > now and (key is None or slot.by_choice):
                self._begin_wait(slot, now)
        if key is None:
            self.breaker.flush_now(now)

    def begin_stop(self, now: float, longest_wait: float, until: float) -> None:
        """Hurry: every key is due now, no wait is longer, no try is charged, and at ``until`` the queue closes."""
        self._longest_wait = longest_wait
        self._until = until
        self.breaker.cap(longest_wait)
        self.flush_now(now)

    def end_input(self) -> None:
        """Nothing more will be offered: once empty, the queue closes."""
        self.version += 1
        self._sealed = True

    def close(self) -> int:
        """Give up what is left, in flight or not; how many events that was."""
        self.version += 1
        self._closed = True
        given_up = self.events
        for slot in self._backlog.clear():
            slot.attempt = None
            slot.absorb_next()
            self._drop(Dropped(DropReason.SHUTDOWN, slot.state, slot.events))
        self._agenda.clear()
        self.breaker.let_go()
        self.in_flight = 0
        return given_up

    @property
    def closed(self) -> bool:
        """Whether the queue has given up, or ended."""
        return self._closed

    @property
    def keys(self) -> int:
        """How many keys have a pending write."""
        return len(self._backlog.slots)

    def oldest_age(self, now: float) -> float:
        """Seconds since the oldest pending write was offered; those that wait by choice do not count."""
        return self._backlog.oldest_age(now)
