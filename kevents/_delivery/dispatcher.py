"""The dispatcher decides on a watcher's events, and hands out one attempt at a time. Sender threads make the requests.

The decider runs in the watcher's worker thread, outside the lock. The work queue and the sink's statistics are used
under the lock only. Nothing is logged under the lock.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from itertools import count
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from tenacity import RetryCallState
from tenacity.wait import wait_base, wait_exponential

from kevents._delivery.handlers import ALL_HANDLED, Handled, Handler
from kevents._model.objects import QUEUE_BYTES, memory_of
from kevents._model.statistics import DropReason, SinkStatistics
from kevents._model.validation import seconds_of
from kevents._model.wire import pluralize
from kevents._queue.outcome import DELIVERED, Delivered, Failed, Outcome, Unavailable, Verb, outcome_of, reconsider
from kevents._queue.work_item import CLOSED, Attempt, Back, Closed, Dropped, Lost, Notification, Wait
from kevents._queue.workqueue import WorkQueue
from kevents._runtime.log import in_kevents
from kevents._runtime.reentrant import JOIN_TIMEOUT, join, spawn, time_left

if TYPE_CHECKING:
    from kevents._clients.sync import EventSink
    from kevents._correlation.correlator import Decider, Write
    from kevents._delivery.drop_reporter import DropReporter
    from kevents._model.objects import Event

_STOPPING_WAIT = 0.25
_SHORTEST = 0.01


class wait_share(wait_base):  # noqa: N801 - tenacity's way of naming waits
    """A random share, between a half and one, of another wait. It spreads the retries of many clients."""

    def __init__(self, wait: wait_base) -> None:
        self._wait = wait

    def __call__(self, retry_state: RetryCallState) -> float:
        return self._wait(retry_state) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def default_retry_wait(sleep_duration: float) -> wait_base:
    """1, 2, 4 ... seconds up to ``sleep_duration``, multiplied by a random share between a half and one."""
    return wait_share(wait_exponential(multiplier=1, max=sleep_duration))


class Dispatcher(Handler):
    """Turns a watcher's events into attempts, and counts their outcomes. Base of the sender pools, which send them.

    Args:
        drop_reporter: Reports dropped events.
        new_decider: Makes the decider; called again in a forked child.
        sink: Makes the requests.
        name: Part of the names of the senders' threads or tasks.
        senders: The most requests in flight.
        backlog: The most API objects with a pending write.
        backlog_bytes: The most bytes of memory of all pending events.
        max_age: Seconds until a pending write expires.
        sleep_duration: The longest pause between two tries that kevents chooses, in seconds.
        retry_wait: A tenacity wait. None: :func:`default_retry_wait`.
    """

    batch_size = 1000

    def __init__(
        self,
        drop_reporter: DropReporter,
        new_decider: Callable[[], Decider],
        sink: object,
        *,
        name: str,
        senders: int,
        backlog: int,
        backlog_bytes: int = QUEUE_BYTES,
        max_age: float,
        sleep_duration: float,
        retry_wait: Callable[[RetryCallState], float] | None,
    ) -> None:
        self.sink = sink
        self._drop_reporter = drop_reporter
        self._new_decider = new_decider
        self.name = name
        self._senders = senders
        self._new_queue = partial(
            WorkQueue,
            senders=senders,
            backlog=backlog,
            max_age=max_age,
            sleep_duration=sleep_duration,
            jitter=partial(random.uniform, 0.5, 1.0),
            backlog_bytes=backlog_bytes,
            size_of=memory_of,
        )
        self._default_wait = default_retry_wait(sleep_duration)
        self._retry_wait = retry_wait or self._default_wait
        self._renew()

    def _renew(self) -> None:
        self._decider = self._new_decider()
        self._queue = self._new_queue()
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._ends = threading.Condition(self._lock)
        self._idle = 0
        self._marks: list[float] = []  # of the queue, for which callers wait
        self._accepted = self._filtered = self._wait_fallbacks = 0

    def after_fork(self) -> None:
        """Start afresh, with new connections. With the parent's correlator the child would patch its events."""
        self._renew()
        after_fork = getattr(self.sink, "after_fork", None)
        if after_fork is not None:
            after_fork()

    # -- the watcher's worker ------------------------------------------------------------------------------------

    def accept(self, batch: Sequence[Event]) -> Handled:
        """Decide on events, and queue their writes."""
        now = monotonic()
        writes: list[Write] = []
        filtered: list[Event] = []
        faults: list[tuple[Event, BaseException]] = []
        for event in batch:
            try:
                write = self._decider.decide(event, now)
                if write is not None:
                    writes.append(write)
                if write is None or write.catch_up:
                    filtered.append(event)
            except BaseException as error:  # noqa: BLE001 - ours, since the user's functions are guarded
                faults.append((event, error))
        with self._lock:
            if self._queue.closed:
                return Handled(too_late=True)
            self._accepted += len(batch)
            self._filtered += len(filtered)
            self._queue.dropped[DropReason.INTERNAL] += len(faults)
            for write in writes:
                events = 0 if write.catch_up else 1  # an event that was held back is counted as filtered
                self._queue.offer(write.state, now, present=write.there, due=write.due, events=events)
            overdue = self._decider.overdue()
            for key in overdue:
                self._queue.flush_now(now, key)
            self._changed(len(writes) + len(overdue))
            notifications = self._notifications()
        self._report_losses(filtered, faults)
        self._report(notifications)
        return ALL_HANDLED

    def _report_losses(self, filtered: Sequence[Event], faults: Sequence[tuple[Event, BaseException]]) -> None:
        for event in filtered:
            self._drop_reporter.report(DropReason.SPAM_FILTERED, event, level=logging.INFO)
        for event, error in faults:
            self._drop_reporter.report_fault(error, event)
            if self._drop_reporter.raise_internal:
                raise error

    def _changed(self, writes: int | None = None) -> None:
        """Wake one sender for each new write, or all senders. Called under the lock; does not block."""
        if self._idle:
            self._work.notify(self._idle if writes is None else writes)

    # -- the senders ---------------------------------------------------------------------------------------------

    def take(self, now: float) -> Attempt | Wait | Closed:
        """Return the next request, or how long to wait, or that the queue is closed."""
        with self._lock:
            step = self._queue.take(now)
            if step is CLOSED:
                self._changed()
            notifications = self._notifications()
        self._report(notifications)
        return step

    def wait(self, version: int, seconds: float | None) -> None:
        """Wait for a change of the queue, at most ``seconds``. Returns at once if its version has changed already."""
        with self._lock:
            if self._queue.version == version:
                try:
                    self._idle += 1
                    self._work.wait(None if seconds is None else min(seconds, threading.TIMEOUT_MAX))
                finally:
                    self._idle -= 1

    def done(self, attempt: Attempt, outcome: Outcome, now: float) -> None:
        wait = 0.0 if isinstance(outcome, Delivered) else self._next_wait(attempt.waits + 1, outcome, now)
        with self._lock:
            if self._queue.done(attempt, outcome, now, wait):
                self._changed()
            notifications = self._notifications()
        self._report(notifications)

    def _next_wait(self, number: int, outcome: Outcome, now: float) -> float:
        """Seconds before the next try, should there be one. Calls the user's function, without the lock."""
        state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
        state.attempt_number = number
        if not isinstance(reconsider(outcome, self._queue.breaker.last_unavailable, now), Failed | Unavailable):
            return float(self._default_wait(state))
        try:
            return seconds_of(self._retry_wait, state)
        except ValueError as trouble:
            self._drop_reporter.log.log_limited("retry_wait", f"retry_wait {trouble}; the default wait is used")
        with self._lock:
            self._wait_fallbacks += 1
        return float(self._default_wait(state))

    def lacks_senders(self) -> bool:
        """True if more writes are pending than senders are idle."""
        with self._lock:
            return not self._queue.closed and self._queue.keys - self._queue.in_flight > self._idle

    # -- flushing and ending -------------------------------------------------------------------------------------

    def flush_now(self) -> None:
        with self._lock:
            if self._queue.keys:
                self._queue.flush_now(monotonic())
                self._changed()

    def wake(self) -> None:
        with self._lock:
            self._ends.notify_all()

    def flush(self, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:
        with self._lock:
            mark = self._queue.mark()
            if not self._queue.flushed(mark):
                self.flush_now()
            return self._wait_for(mark, deadline, given_up)

    def begin_stop(self, deadline: float) -> None:
        """Keep waits short from now on. At the deadline the queue closes."""
        with self._lock:
            self._queue.begin_stop(monotonic(), _STOPPING_WAIT, deadline)
            self._changed()

    def end_input(self) -> None:
        with self._lock:
            self._queue.end_input()
            if not self._queue.keys:
                self._queue.close()
            self._changed()

    def stop(self, deadline: float) -> int:
        """As of :class:`Handler`. Counts also the events that the queue dropped at its own deadline."""
        with self._lock:
            self._wait_for(inf, deadline)
            self._queue.close()
            dropped = self._queue.dropped[DropReason.SHUTDOWN]
            notifications = self._notifications()
            self._changed()
        self._report(notifications)
        return dropped

    def accepted(self) -> int:
        with self._lock:
            return self._accepted

    def owns_this_thread(self) -> bool:
        """True if the calling thread holds the lock: a signal handler that interrupts a call of the dispatcher."""
        return self._lock._is_owned()  # type: ignore[attr-defined, no-any-return] # noqa: SLF001

    def _wait_for(self, mark: float, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:
        """Wait under the lock until everything before the mark has ended."""
        marks = self._marks  # a signal handler may fork
        marks.append(mark)
        try:
            return self._ends.wait_for(lambda: given_up() or self._queue.flushed(mark), time_left(deadline))
        finally:
            marks.remove(mark)

    # -- reporting -----------------------------------------------------------------------------------------------

    def _notifications(self) -> list[Notification]:
        """Take the queue's notifications after a change, under the lock, and wake callers whose wait has ended."""
        if self._marks and self._queue.flushed(min(self._marks)):
            self._ends.notify_all()
        return self._queue.take_notifications()

    def _report(self, notifications: Sequence[Notification]) -> None:
        """Log notifications, without the lock."""
        for notification in notifications:
            if isinstance(notification, Dropped):
                self._drop_reporter.report_dropped(notification)
            else:
                kind, level, text = _describe(notification)
                self._drop_reporter.log.log_limited(kind, text, level=level)

    def statistics(self) -> SinkStatistics:
        caches = self._decider.caches
        with self._lock:
            queue = self._queue
            return SinkStatistics(
                accepted=self._accepted,
                spam_filtered=self._filtered,
                delivered=queue.delivered,
                dropped={reason: events for reason, events in queue.dropped.items() if events},
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
                server_available=not queue.breaker.open,
            )


def _describe(notification: Lost | Back) -> tuple[Hashable, int, str]:
    """The kind of the log line, its level and its text."""
    match notification:
        case Lost("", cause):
            return "lost", logging.WARNING, f"the API server is unavailable, events wait for it: {cause}"
        case Back("", after, waiting):
            text = f"the API server answers again after {after:.1f} s; {pluralize(waiting, 'write')} waited for it"
            return "back", logging.INFO, text
        case Lost(namespace, cause):
            text = f"the API server fails every write in the namespace {namespace}, only its events wait: {cause}"
            return ("lost", namespace), logging.WARNING, text
        case Back(namespace, after, waiting):
            text = f"writes in the namespace {namespace} are answered again after {after:.1f} s"
            return ("back", namespace), logging.INFO, f"{text}; {pluralize(waiting, 'write')} waited for it"


# -- sender threads --------------------------------------------------------------------------------------------------


def send(sink: EventSink, attempt: Attempt) -> Outcome:
    """Make one request. An exception of the sink becomes an outcome."""
    try:
        if attempt.verb is Verb.PATCH:
            sink.patch(attempt.namespace, attempt.name, attempt.body)
        else:
            sink.create(attempt.namespace, attempt.body)
    except BaseException as error:  # noqa: BLE001 - a sink that raises SystemExit must not end its sender either
        return outcome_of(attempt.verb, error)
    return DELIVERED


class SenderThreadPool(Dispatcher):
    """Sends from threads. The first one starts with the first event, more threads as pending writes need them."""

    sink: EventSink
    _bare = 0

    def _renew(self) -> None:
        super()._renew()
        self._threads: list[threading.Thread] = []
        self._claim = count().__next__  # returns 0 once
        self._begun = threading.Event()
        self._begun.set()

    def start(self) -> None:
        """Start the first sender, from a bare thread, as the watcher starts its worker."""
        if self._threads or self._claim():
            return  # another call has started it, or is about to; without it, handle() starts one
        thread, begun = self._new_thread(), threading.Event()
        try:
            spawn(thread, self._run_bare, begun.set)
        except RuntimeError:
            self._threads.remove(thread)
            self._claim = count().__next__
            raise
        self._begun = begun

    def _run_bare(self) -> None:
        self._bare = threading.get_ident()
        self._run()
        self._bare = 0

    def _new_thread(self) -> threading.Thread:
        number = len(self._threads) + 1
        thread = threading.Thread(target=self._run, name=f"kevents-{self.name}-sender-{number}", daemon=True)
        self._threads.append(thread)  # before it starts: its first request may call owns_this_thread
        return thread

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Accept the events, and start the threads that they need. In the watcher's worker."""
        handled = self.accept(batch)
        while len(self._threads) < self._senders and self.lacks_senders():
            number = len(self._threads)
            try:
                self._new_thread().start()
            except RuntimeError:  # at interpreter exit, and in isolated subinterpreters; the next batch tries again
                del self._threads[number:]
                break
        return handled

    def _run(self, deadline: float | None = None) -> None:
        with in_kevents():  # once for the thread, which does nothing else
            self._send_all(deadline)

    def _send_all(self, deadline: float | None) -> None:
        threads = self._threads
        while (step := self.take(monotonic())) is not CLOSED:
            match step:
                case Wait(seconds, version):
                    self.wait(version, seconds)
                case Attempt():
                    outcome = send(self.sink if deadline is None else self._within(deadline), step)
                    if self._threads is not threads:
                        return  # the sink forked, and this is the child, which starts afresh in another thread
                    self.done(step, outcome, monotonic())

    def _within(self, deadline: float) -> EventSink:
        within: Callable[[float], EventSink] | None = getattr(self.sink, "within", None)
        return self.sink if within is None else within(max(deadline - monotonic(), _SHORTEST))

    def stop(self, deadline: float) -> int:
        """Without a thread (none can be started at interpreter exit), the calling thread sends."""
        if not self._threads and monotonic() < deadline:
            self._run(deadline)
        dropped = super().stop(deadline)
        until = monotonic() + JOIN_TIMEOUT
        self._begun.wait(JOIN_TIMEOUT)
        for thread in self._threads:
            join(thread, until - monotonic())
        return dropped

    def owns_this_thread(self) -> bool:
        """True if the calling thread is one of the senders, or interrupts a call of the dispatcher."""
        me = threading.get_ident()  # a new thread may have the number of one that has ended
        mine = me == self._bare or any(thread.ident == me and thread.is_alive() for thread in self._threads)
        return mine or super().owns_this_thread()
