"""A watcher: its bounded queue, and the worker thread that passes the events to the watcher's handler.

Events that do not fit into the queue are dropped and counted. A slow or failing handler affects only its own watcher.

Recorders append to the queue without a lock, and look at the worker's state afterwards. The worker sets its state first
and looks at the queue afterwards. So one of the two sees the other, and no event is left in the queue of a worker that
sleeps or has ended.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from itertools import repeat
from time import monotonic
from typing import TYPE_CHECKING, Final

from kevents._model.objects import QUEUE_BYTES, memory_of
from kevents._model.statistics import DropReason, WatcherStatistics
from kevents._model.wire import NO_TEXTS, format_error
from kevents._runtime.lifecycle import ProcessBound
from kevents._runtime.reentrant import Counter, join, spawn, time_left

if TYPE_CHECKING:
    from types import TracebackType

    from kevents._delivery.drop_reporter import DropReporter
    from kevents._delivery.handlers import Handled, Handler
    from kevents._model.objects import Event
    from kevents._runtime.reentrant import Shared


class State(Enum):
    """State of a worker. BATCHING: woken, and waiting a few milliseconds for more events."""

    ABSENT = "absent"
    AWAKE = "awake"
    IDLE = "idle"
    BATCHING = "batching"


_BATCHING: Final = State.BATCHING
_BATCH_WAIT = 0.005
"""Seconds that a woken worker waits for more events, so that a burst costs one wake-up."""
_URGENT_SHARE: Final = 4
"""Once the queue is a quarter full, the worker processes events at once."""
_BATCH: Final = 64
"""Events that the worker takes from the queue at a time, even if the handler takes fewer."""
_PAGE: Final = 1024
"""Bytes in which the memory of a queue is measured. An event with short texts takes one page."""
_SHORT: Final = 90
"""Characters of reason and message that fit into a page, whatever they are."""
_SHORT_ASCII: Final = 400
"""ASCII characters of reason and message that fit into a page."""


class Worker:
    """Runs one function in a thread of its own. Only this thread changes its state once it has started.

    ``prepare`` is called before the thread starts. It may raise RuntimeError to postpone the start. The function calls
    :meth:`sleep` when it has nothing to do, and sets ``ended``.
    """

    def __init__(self, name: str, shared: Shared, prepare: Callable[[], None], work: Callable[[], None]) -> None:
        self._name = name
        self._shared = shared
        self._prepare = prepare
        self._work = work
        self.reset()

    def reset(self) -> None:
        """Return to the state without a thread: in a forked child the thread is gone."""
        self.state = State.ABSENT
        self.asleep = True  # notify() has to start or to wake the thread
        self.ended = False
        self.flushing = 0  # callers that flush or stop the worker. It does not wait for more events meanwhile
        self.changed = threading.Condition(self._shared.lock)  # notified when the worker ends or processes events
        self._wake = threading.Lock()  # released to wake the thread: any code may do that at any moment
        self._wake.acquire()
        self._thread: threading.Thread | None = None
        self._ident = 0

    # -- called by other threads ---------------------------------------------------------------------------------

    def notify(self) -> None:
        """Start the thread, or wake it."""
        if self.state is State.ABSENT:
            self.start()
            return
        release = self._wake.release
        self.asleep = False
        try:  # noqa: SIM105 - Ctrl-C must not come in between: no later event would wake the worker
            release()
        except RuntimeError:  # it is awake, or another thread was quicker
            pass

    def start(self) -> None:
        """Start the thread. If no thread can be started, as during interpreter exit, the state stays ABSENT.

        A call at the same time may start another thread, which ends at once. No lock excludes that: since Python 3.14,
        Ctrl-C can come between the call that takes a lock and the block that releases it.
        """
        if self._thread is not None:
            return
        with suppress(RuntimeError):
            self._prepare()
            thread = threading.Thread(target=self.run, name=self._name, daemon=True)
            spawn(thread, self.run)
            self._thread = thread

    def run(self) -> None:
        """Run the function in the calling thread, unless it has started elsewhere or ended."""
        if self._claim():
            me = self._ident = threading.get_ident()
            self._work()
            if self._ident == me:  # otherwise the function forked, and this is the child with a worker of its own
                self._ident = 0

    def _claim(self) -> bool:
        with self._shared.lock:
            if self.ended or self.state is not State.ABSENT:
                return False
            self.state, self.asleep = State.AWAKE, False
            return True

    def is_started(self) -> bool:
        """True if a thread runs or will run the function."""
        return self.state is not State.ABSENT or self._thread is not None

    def owns_this_thread(self) -> bool:
        return self._ident == threading.get_ident()

    def join(self) -> None:
        """Wait for a thread whose function has returned, at most ``JOIN_TIMEOUT``."""
        if self.ended and self._thread is not None:
            join(self._thread)

    # -- called by the function ----------------------------------------------------------------------------------

    def sleep(self, has_work: Callable[[], object]) -> None:
        """Wait until the worker is woken, then for more events unless a caller flushes. Not while there is work."""
        self._wake.acquire(blocking=False)  # it was woken before, perhaps for events that it has taken already
        self.state, self.asleep = State.IDLE, True
        if not has_work():
            self._wake.acquire()
            self.state, self.asleep = State.BATCHING, False
            if not self.flushing:
                self._wake.acquire(timeout=_BATCH_WAIT)
        self.state, self.asleep = State.AWAKE, False


class _Processed:
    """Numbers of events that the worker has passed to the handler. Only the worker changes them, without a lock.

    Once events are dropped at a deadline, the worker counts into an object that is no longer read.
    """

    __slots__ = ("failed", "handled")

    def __init__(self, handled: int = 0, failed: int = 0) -> None:
        self.handled = handled
        self.failed = failed

    def total(self) -> int:
        return self.handled + self.failed


class Watcher(ABC):
    """Consumer of a broadcaster's events. As a context manager it stops at the end of the block.

    Broadcasters create watchers.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Name in the statistics and of its thread."""

    @abstractmethod
    def stop(self, timeout: float = 5.0) -> int:
        """Process the queued events, then end. Other watchers are not affected.

        Args:
            timeout: Seconds after which the remaining events are dropped.

        Returns:
            Number of dropped events.
        """

    @abstractmethod
    def statistics(self) -> WatcherStatistics:
        """A snapshot of the watcher's statistics and those of its sink."""

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class QueueWatcher(ProcessBound, Watcher):
    """A watcher with a queue and a worker thread, as the broadcaster uses it."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        shared: Shared,
        *,
        queue_length: int,
        queue_bytes: int = QUEUE_BYTES,
        drop_reporter: DropReporter,
        on_end: Callable[[QueueWatcher], None],
    ) -> None:
        self._name = name
        self.handler = handler
        self._shared = shared
        self._pages = max(queue_bytes // _PAGE, 1)
        self._queue_length = min(queue_length, self._pages)
        self._urgent = queue_length // _URGENT_SHARE
        self._drop_reporter = drop_reporter
        self._on_end = on_end
        self._closing = False
        self._worker = Worker(f"kevents-{name}", shared, handler.start, self._run)
        self._reset()

    @property
    def name(self) -> str:
        return self._name

    def _reset(self) -> None:
        self._queue: deque[Event] = deque()
        self._more_pages: deque[None] = deque()  # one for each page after an event's first, until it is handled
        self._targets: list[int] = []  # numbers of ended events for which callers wait
        self._complete = False  # no event will be taken from the queue: a recorder that appends one drops it
        self._dropped = False  # the deadline of stop has passed, and the remaining events are dropped
        # Statistics: the last two are changed under the shared lock.
        self._processed = _Processed()
        self._queue_full = Counter()
        self._too_late = Counter()  # events dropped by those who recorded them
        self._shutdown = 0  # events dropped at a deadline
        self._taken = 0  # events that the worker has taken from the queue and that were not dropped since

    def after_fork(self) -> None:
        """In the child: start with an empty queue and without a thread. A stopped watcher stays stopped."""
        self._worker.reset()
        self._worker.ended = self._closing
        self._reset()
        self.handler.after_fork()

    # -- recording: at any moment, without a lock ----------------------------------------------------------------

    def offer(self, event: Event) -> None:
        """Queue an event, or drop it if the queue is full. A RecursionError has changed nothing."""
        waiting, worker = len(self._queue), self._worker
        full = waiting >= self._queue_length
        size = len(event.message) + len(event.reason)
        short = size <= _SHORT or (size <= _SHORT_ASCII and event.message.isascii() and event.reason.isascii())
        if not short or event.annotations is not NO_TEXTS or event.labels is not NO_TEXTS or self._more_pages:
            more = memory_of(event) // _PAGE
            held = waiting + len(self._more_pages)
            full = full or (held > 0 and held + more >= self._pages)
            if more and not full:
                self._more_pages += repeat(None, more)
        if full:
            next(self._queue_full.steps)
            self._shared.postponed += ((self._report_full, (event,)),)
            return
        self._queue.append(event)
        if worker.asleep or self._complete or (waiting >= self._urgent and worker.state is _BATCHING):
            try:
                self._appended()
            except RecursionError:
                self._shared.postponed += ((self._appended, ()),)

    def _report_full(self, event: Event) -> None:
        self._drop_reporter.report(DropReason.QUEUE_FULL, event, kind=self.name)

    def _appended(self) -> None:
        if self._complete:
            self._drop_late()
        else:
            self._worker.notify()

    def _drop_late(self) -> None:
        """Drop events that were being recorded while the watcher ended."""
        for event in self._pop(sys.maxsize):
            next(self._too_late.steps)
            self._shared.call(self._drop_reporter.report, DropReason.SHUTDOWN, event, 1, "recorded too late")
        self._shared.call(self._notify_waiters)

    def _notify_waiters(self) -> None:
        with self._shared.lock:
            self._worker.changed.notify_all()

    # -- the worker ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        queue, processed = self._queue, self._processed
        while events := self._next_events():
            while events and not self._dropped:
                if not self._handle(events, queue, processed):
                    return
        self.handler.end_input()
        with self._shared.lock:
            self._worker.ended = True
            self._worker.changed.notify_all()
        self._on_end(self)

    def _handle(self, events: list[Event], queue: deque[Event], processed: _Processed) -> bool:
        """Pass the first events to the handler, and remove them, so that handled events are not kept in memory.

        False if the handler forked and this is the child, which starts a worker of its own.
        """
        batch = events[: self.handler.batch_size]
        del events[: self.handler.batch_size]
        result = self.handler.handle(batch)
        if self._queue is not queue:
            return False
        if self._more_pages:
            pages = sum(memory_of(event) // _PAGE for event in batch)  # a text can grow: its UTF-8 form is cached
            for _ in range(min(pages, len(self._more_pages))):
                self._more_pages.pop()
        self._count(processed, len(batch), result)
        for event, error in result.failed:
            why = f"the handler of {self.name} raised {format_error(error)}"
            self._drop_reporter.report(DropReason.HANDLER_FAILED, event, why=why, kind=self.name)
        return True

    def _count(self, processed: _Processed, events: int, result: Handled) -> None:
        failed = len(result.failed)
        processed.failed += failed
        if result.too_late:
            self._count_too_late(events - failed)
        else:
            processed.handled += events - failed
        if self._targets and self._ended() >= min(self._targets, default=0):
            self._notify_waiters()

    def _count_too_late(self, events: int) -> None:
        with self._shared.lock:
            if self._dropped:  # they were counted when the deadline passed
                return
            self._taken -= events
            self._shutdown += events
        self._report_dropped(events)

    def _next_events(self) -> list[Event]:
        """The next events. Empty at the end."""
        while True:
            events = self._take()
            if events or self._complete:
                return events
            if self._shared.postponed:
                self._shared.run_postponed()
            if self._closing:
                self._complete = True  # events appended before this are taken in the next round
            else:
                self._worker.sleep(self._has_work)

    def _has_work(self) -> bool:
        return bool(self._queue) or self._closing

    def _take(self) -> list[Event]:
        with self._shared.lock:
            events = self._pop(max(self.handler.batch_size, _BATCH))
            self._taken += len(events)
        return events

    def _pop(self, most: int) -> list[Event]:
        events: list[Event] = []
        with suppress(IndexError):  # another thread took the last one
            while self._queue and len(events) < most:
                events.append(self._queue.popleft())
        return events

    # -- flush and stop ------------------------------------------------------------------------------------------

    def owns_this_thread(self) -> bool:
        """True in the worker's thread, in the handler's threads, and in a signal handler that interrupted kevents."""
        return self._worker.owns_this_thread() or self._shared.is_held_here() or self.handler.owns_this_thread()

    def can_work(self) -> bool:
        """True if the worker runs or can be started, or there are no events for it."""
        if self._queue and not self._worker.is_started():
            self._worker.start()
        return not self._queue or self._worker.is_started()

    def flush(self, deadline: float | None) -> bool:
        """Wait until all events offered so far have ended. False at the deadline and in the watcher's own thread."""
        with self.flushing() as target:
            return self.await_flush(target, deadline)

    @contextmanager
    def flushing(self) -> Iterator[int]:
        """Process events without waiting for more, and retry pending writes now. Gives the number of offered events."""
        with self._shared.lock:
            target = self._ended_before() + self._taken + len(self._queue)
            self._worker.flushing += 1
        try:
            if self._queue:
                self._worker.notify()
            self._shared.run_postponed()
            self.handler.flush_now()
            yield target
        finally:
            with self._shared.lock:
                self._worker.flushing -= 1
            self._shared.run_postponed()

    def await_flush(self, target: int, deadline: float | None, cancelled: Callable[[], bool] = bool) -> bool:
        """Wait until ``target`` events, from :meth:`flushing`, have ended, in the handler too.

        False at the deadline, in the watcher's own thread, and once ``cancelled`` is true. Every change calls it.
        """
        if self.owns_this_thread():
            return False
        with self._shared.lock:
            targets, changed = self._targets, self._worker.changed  # a signal handler may fork
            targets.append(target)
            try:
                handled = changed.wait_for(lambda: cancelled() or self._ended() >= target, time_left(deadline))
            finally:
                targets.remove(target)
        self._shared.run_postponed()
        return handled and self.handler.flush(deadline, cancelled)

    def _ended(self) -> int:
        return self._ended_before() + self._processed.total()

    def _ended_before(self) -> int:
        """The number of events that ended without the handler. A full queue has not offered them."""
        return self._shutdown + self._too_late.value

    def wake(self) -> None:
        """Let waiting callers check again whether their wait is cancelled."""
        self._notify_waiters()
        self._shared.run_postponed()
        self.handler.wake()

    def begin_stop(self, deadline: float) -> None:
        """Process the queued events without waiting for more, then end. Returns at once."""
        with self._shared.lock:
            if not self._closing:
                self._worker.flushing += 1
                self._closing = True
        if self._worker.state is not State.ABSENT:
            self._worker.notify()
        self._shared.call(self.handler.begin_stop, deadline)

    def end_stop(self, deadline: float) -> int:
        """Wait for the end of the watcher. Returns the number of events dropped at the deadline."""
        if self._dropped or self.owns_this_thread():
            return 0  # its own thread cannot wait for itself; the work queue closes itself at the deadline
        with self._shared.lock:
            worker = self._worker
            worker.changed.wait_for(lambda: worker.ended or not worker.is_started(), time_left(deadline))
        if not self._worker.is_started():  # there were no events, or no thread could be started
            self._worker.run()
        dropped = self.handler.stop(deadline if self._worker.ended else 0.0)
        self._drop_remaining(self.handler.accepted())
        self._worker.join()
        return dropped + self._shutdown

    def _drop_remaining(self, accepted: int | None) -> None:
        """Drop the events that have not ended.

        ``accepted``: events that the handler has counted itself, with those of the present batch, or None.
        """
        self._complete = True
        with self._shared.lock:
            if self._dropped:
                return
            self._dropped = True
            queued = len(self._pop(sys.maxsize))
            processed = self._processed = _Processed(self._processed.handled, self._processed.failed)
            if accepted is not None:
                in_hand = self._taken - processed.total()
                processed.handled += min(max(accepted - processed.total(), 0), in_hand)
            dropped = queued + self._taken - processed.total()
            self._taken = processed.total()
            self._shutdown += dropped
            self._worker.changed.notify_all()
        self._report_dropped(dropped)

    def _report_dropped(self, events: int) -> None:
        if events:
            why = f"still in the queue of {self.name} at the deadline"
            self._shared.call(self._drop_reporter.report, DropReason.SHUTDOWN, None, events, why)

    def stop(self, timeout: float = 5.0) -> int:
        deadline = monotonic() + timeout
        self._on_end(self)
        self.begin_stop(deadline)
        return self.end_stop(deadline)

    def statistics(self) -> WatcherStatistics:
        """A snapshot of the watcher's statistics and those of its sink. It is exact while no event is recorded."""
        sink = self.handler.statistics()
        with self._shared.lock:
            waiting, taken, processed = len(self._queue), self._taken, self._processed
            handled, failed = processed.handled, processed.failed
            queue_full, shutdown = self._queue_full.value, self._ended_before()
            statistics = WatcherStatistics(
                name=self.name,
                offered=queue_full + shutdown + taken + waiting,
                queue_full=queue_full,
                shutdown=shutdown,
                handled=handled,
                failed=failed,
                waiting=waiting + taken - handled - failed,
                sink=sink,
            )
        self._shared.run_postponed()
        return statistics
