"""A sink's side of its watcher: decides on what comes in, and hands out one request at a time to whoever sends.

The decider works outside the condition, in the worker's thread; the work queue and the sink's ledger are touched
under it only. What is to be logged is logged when it is free again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from tenacity import RetryCallState
from tenacity.wait import wait_base, wait_exponential

from kevents._delivery.handlers import Handled
from kevents._model.statistics import DropReason, SinkStatistics
from kevents._model.wire import format_error, pluralize
from kevents._queue.notifications import CLOSED, Closed, Dropped, Notification, ServerLost, Wait
from kevents._queue.outcome import Delivered, Failed, Outcome, Unavailable, Verb, reconsider
from kevents._queue.workqueue import WorkQueue
from kevents._runtime.reentrant import time_left

if TYPE_CHECKING:
    from kevents._correlation.decisions import Decider, Write
    from kevents._delivery.drop_reporter import DropReporter
    from kevents._model.objects import Event
    from kevents._queue.work_item import Attempt

_MOST_AT_ONCE = 1000
_DRAINING_WAIT = 0.25


class wait_share(wait_base):  # noqa: N801 - tenacity's way of naming waits
    """A random share, between a half and one, of another wait: so that many clients do not return at once."""

    def __init__(self, wait: wait_base) -> None:
        """Keep the wait."""
        self._wait = wait

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds."""
        return self._wait(retry_state) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def default_retry_wait(sleep_duration: float) -> wait_base:
    """1, 2, 4 ... seconds up to ``sleep_duration``, of each a random share between a half and one."""
    return wait_share(wait_exponential(multiplier=1, max=sleep_duration))


class Dispatcher:
    """From recorded events to attempts, and from verdicts back to the ledger.

    Args:
        losses: Tells of what is lost.
        new_decider: Makes what decides on the events, anew in a forked child.
        senders: How many attempts may be under way at once.
        backlog: How many different events may wait.
        max_age: Seconds after which an event that cannot be written is given up.
        sleep_duration: The longest pause between two tries that kevents chooses, in seconds.
        retry_wait: A tenacity wait; None: :func:`default_retry_wait`.
        on_change: Called, under the condition, when whoever sends should look again; must not wait.
    """

    most = _MOST_AT_ONCE

    def __init__(
        self,
        losses: DropReporter,
        new_decider: Callable[[], Decider],
        *,
        senders: int,
        backlog: int,
        max_age: float,
        sleep_duration: float,
        retry_wait: Callable[[RetryCallState], float] | None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """Start with nothing to deliver."""
        self._losses = losses
        self._new_decider = new_decider
        self._on_change = on_change
        self._new_queue = partial(
            WorkQueue,
            senders=senders,
            backlog=backlog,
            max_age=max_age,
            sleep_duration=sleep_duration,
            jitter=partial(random.uniform, 0.5, 1.0),
        )
        self._default_wait = default_retry_wait(sleep_duration)
        self._retry_wait = retry_wait or self._default_wait
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with nothing known: with the parent's memory the child would patch the parent's counts."""
        self._decider = self._new_decider()
        self._queue = self._new_queue()
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._ends = threading.Condition(self._lock)
        self._idle = 0
        self._taken = self._accepted = self._filtered = self._wait_fallbacks = 0

    # -- the watcher's worker ------------------------------------------------------------------------------------

    def accept(self, batch: Sequence[Event]) -> Handled:
        """Decide on events, and offer the writes they deserve."""
        failed: list[tuple[Event, BaseException]] = []
        writes: list[Write] = []
        filtered: list[Event] = []
        now = monotonic()
        for event in batch:
            try:
                write = self._decider.decide(event, now)
                if write is None:
                    filtered.append(event)
                else:
                    writes.append(write)
            except BaseException as error:  # noqa: BLE001 - what cannot be decided on fails alone
                failed.append((event, error))
        with self._lock:
            if self._queue.closed:
                return Handled(failed, too_late=True)
            self._taken += len(batch)
            self._accepted += len(writes) + len(filtered)
            self._filtered += len(filtered)
            for write in writes:
                self._queue.offer(write.state, now, there=write.there, due=write.due)
            overdue = self._decider.overdue()
            for key in overdue:
                self._queue.hasten(now, key)
            self._changed(len(writes) + len(overdue))
            facts = self._facts()
        for event in filtered:
            self._losses.tell(DropReason.SPAM_FILTERED, event, level=logging.INFO)
        self._report(facts)
        return Handled(failed)

    def _changed(self, writes: int | None = None) -> None:
        """Let as many senders look again as there are new writes, or all."""
        if self._idle:
            self._work.notify(self._idle if writes is None else writes)
        if self._on_change is not None:
            self._on_change()

    # -- the senders ---------------------------------------------------------------------------------------------

    def take(self, now: float) -> Attempt | Wait | Closed:
        """The next request to make, or how long to wait for one, or that none will come any more."""
        with self._lock:
            step = self._queue.take(now)
            if step is CLOSED:
                self._changed()
                self._ends.notify_all()
            facts = self._facts()
        self._report(facts)
        return step

    def wait(self, version: int, seconds: float | None) -> None:
        """Wait until something changes, at most so many seconds; not at all if something has since the version."""
        with self._lock:
            if self._queue.version == version:
                try:
                    self._idle += 1
                    self._work.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX))
                finally:
                    self._idle -= 1

    def done(self, attempt: Attempt, verdict: Outcome, now: float) -> None:
        """Settle an attempt."""
        wait = 0.0 if isinstance(verdict, Delivered) else self._next_wait(attempt.waits + 1, verdict, now)
        with self._lock:
            was_closed = self._queue.gate.closed
            self._queue.done(attempt, verdict, now, wait)
            if was_closed or not isinstance(verdict, Delivered):
                self._changed()  # another key may now be due, or allowed
            self._ends.notify_all()
            facts = self._facts()
        self._report(facts)

    def _next_wait(self, number: int, verdict: Outcome, now: float) -> float:
        """The n-th wait of a write, if it must; the user's function is asked if so, may fail, and needs no lock."""
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = number
        if not isinstance(reconsider(verdict, self._queue.gate.last_unavailable, now), Failed | Unavailable):
            return float(self._default_wait(state))
        try:
            wait = float(self._retry_wait(state))
            if 0.0 <= wait < float("inf"):
                return wait
            trouble = f"gave {wait}, no seconds to wait"
        except BaseException as error:  # noqa: BLE001 - SystemExit must not end the sender either
            trouble = f"raised {format_error(error)}"
        self._losses.log.log_limited("retry_wait", f"retry_wait {trouble}; the default decides")
        with self._lock:
            self._wait_fallbacks += 1
        return float(self._default_wait(state))

    def lacks_senders(self) -> bool:
        """Whether more writes are waiting than senders are idle."""
        with self._lock:
            return not self._queue.closed and self._queue.keys - self._queue.in_flight > self._idle

    # -- flushing and ending -------------------------------------------------------------------------------------

    def hasten(self) -> None:
        """Try at once what waits to be tried again. Does not wait."""
        with self._lock:
            if self._queue.keys:
                self._queue.hasten(monotonic())
                self._changed()

    def nudge(self) -> None:
        """Let whoever waits ask again whether the wait is given up."""
        with self._lock:
            self._ends.notify_all()

    def flush(self, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:
        """Hasten what waits, and wait until all that was accepted so far has ended; False at the deadline."""
        with self._lock:
            mark = self._queue.mark()
            if not self._queue.settled(mark):
                self.hasten()
            return self._wait_for(lambda: given_up() or self._queue.settled(mark), deadline)

    def drain(self, deadline: float) -> None:
        """Hurry: no wait is long any more, and at the deadline what is left is given up."""
        with self._lock:
            self._queue.drain(monotonic(), _DRAINING_WAIT, deadline)
            self._changed()

    def finish(self) -> None:
        """Nothing more will be accepted."""
        with self._lock:
            self._queue.seal()
            if not self._queue.keys:
                self._queue.close()
            self._changed()
            self._ends.notify_all()

    def settle(self, deadline: float) -> None:
        """Wait until everything has ended, at most until the deadline."""
        with self._lock:
            self._wait_for(lambda: not self._queue.keys, deadline)

    def close(self) -> int:
        """Give up what is left; how many events were given up, at the queue's own deadline too."""
        with self._lock:
            self._queue.close()
            given_up = self._queue.dropped[DropReason.SHUTDOWN]
            facts = self._facts()
            self._changed()
            self._ends.notify_all()
        self._report(facts)
        return given_up

    def taken(self) -> int:
        """How many events it has accounted for."""
        with self._lock:
            return self._taken

    def owns_this_thread(self) -> bool:
        """Whether the calling thread holds the lock: a signal handler in the middle of a call of ours."""
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return] # noqa: SLF001

    def _wait_for(self, ended: Callable[[], bool], deadline: float | None) -> bool:
        return self._ends.wait_for(ended, time_left(deadline))

    # -- telling -------------------------------------------------------------------------------------------------

    def _facts(self) -> list[Notification]:
        facts, self._queue.facts = self._queue.facts, []  # an empty list too: others append to what they find
        if facts:
            self._ends.notify_all()  # what has expired has ended as well
        return facts

    def _report(self, facts: Sequence[Notification]) -> None:
        for fact in facts:
            if isinstance(fact, Dropped):
                self._losses.tell_dropped(fact)
            elif isinstance(fact, ServerLost):
                self._losses.log.log_limited("lost", f"the API server is unavailable, events wait for it: {fact.cause}")
            else:
                waited = pluralize(fact.waiting, "write")
                text = f"the API server answers again after {fact.after:.1f} s; {waited} waited for it"
                self._losses.log.log_limited("back", text, level=logging.INFO)

    def statistics(self) -> SinkStatistics:
        """A snapshot of the sink's ledger."""
        caches = self._decider.caches
        with self._lock:
            queue = self._queue
            return SinkStatistics(
                accepted=self._accepted,
                spam_filtered=self._filtered,
                delivered=queue.delivered,
                dropped=dict(queue.dropped),
                backlog=queue.events,
                created=queue.written[Verb.CREATE],
                patched=queue.written[Verb.PATCH],
                merged=queue.merged,
                retried=queue.retried,
                recreated=queue.recreated,
                rejected_by_code=dict(queue.rejected_by_code),
                aggregated=self._decider.aggregated,
                fallbacks=self._decider.fallbacks + self._wait_fallbacks,
                cache_sizes={name: size for name, (size, _) in caches.items()},
                cache_evictions={name: evicted for name, (_, evicted) in caches.items()},
                in_flight=queue.in_flight,
                oldest_age=queue.oldest_age(monotonic()),
                server_available=not queue.gate.closed,
            )
