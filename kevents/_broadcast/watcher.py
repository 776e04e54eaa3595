"""A watcher: its bounded queue, and the worker thread that passes the events to the watcher's handler.

Events that do not fit into the queue are dropped and counted. A slow or failing handler affects only its own watcher.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from kevents._model.objects import QUEUE_BYTES, memory_of
from kevents._model.statistics import DropReason, WatcherStatistics
from kevents._model.wire import format_error
from kevents._runtime.reentrant import time_left
from kevents._runtime.threads import State, Worker

if TYPE_CHECKING:
    from types import TracebackType

    from kevents._delivery.drop_reporter import DropReporter
    from kevents._delivery.handlers import Handled, Handler
    from kevents._model.objects import Event
    from kevents._runtime.reentrant import ReentrantSection

_AWAKE = State.AWAKE
_URGENT_SHARE = 4
"""Once the queue is a quarter full, the worker processes events at once."""
_BATCH = 64
"""Events that the worker takes from the queue at a time, even if the handler takes fewer."""


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

    .. versionadded:: 0.1
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
        """Return the watcher."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


class QueueWatcher(Watcher):
    """A watcher with a queue and a worker thread, as the broadcaster uses it."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        section: ReentrantSection,
        *,
        queue_length: int,
        queue_bytes: int = QUEUE_BYTES,
        drop_reporter: DropReporter,
        on_end: Callable[[QueueWatcher], None],
    ) -> None:
        """Create a watcher without a thread. The thread starts with the first event."""
        self._name = name
        self.handler = handler
        self._section = section
        self._queue_length = queue_length
        self._queue_bytes = queue_bytes
        self._drop_reporter = drop_reporter
        self._on_end = on_end
        self._closing = False
        self._worker = Worker(f"kevents-{name}", section, handler.start, self._run)
        self._reset()

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    def _reset(self) -> None:
        self._queue: deque[Event] = deque()
        self._offered_bytes = 0  # changed under the section's lock
        self._released_bytes = 0  # changed by the worker only; the difference is in the queue or being handled
        self._waiters = 0  # callers that wait for processed events
        self._complete = False  # the worker has taken the last event
        self._idle = False  # the worker has emptied the queue and sleeps before it looks again
        self._dropped = False  # the deadline of stop has passed, and the remaining events are dropped
        # Statistics: changed under the section's lock, except for the worker's own.
        self._processed = _Processed()
        self._queue_full = 0
        self._shutdown = 0  # events dropped at a deadline
        self._taken = 0  # events that the worker has taken from the queue and that were not dropped since

    # -- recording: within a section -----------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In the child: start with an empty queue and without a thread. A stopped watcher stays stopped."""
        self._worker.reset()
        self._worker.ended = self._closing
        self._reset()
        self.handler.after_fork()

    def offer(self, event: Event) -> bool:
        """Queue an event. Returns False if the queue is full and the event is dropped."""
        waiting, size = len(self._queue), memory_of(event)
        held = self._offered_bytes - self._released_bytes
        if waiting >= self._queue_length or (held and held + size > self._queue_bytes):
            self._queue_full += 1
            return False
        if self._worker.state is not _AWAKE:
            self._worker.notify(urgent=waiting * _URGENT_SHARE >= self._queue_length)
        self._queue.append(event)  # last call: if the stack ends in one above, the event is not queued
        self._offered_bytes += size
        return True

    # -- the worker ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        queue, processed = self._queue, self._processed
        while events := self._next_events():
            while events and not self._dropped:
                if not self._handle(events, queue, processed):
                    return
        self.handler.end_input()
        with self._section.lock:
            self._worker.ended = True
            self._worker.changed.notify_all()
        self._on_end(self)

    def _handle(self, events: list[Event], queue: deque[Event], processed: _Processed) -> bool:
        """Pass the first events to the handler and remove them, so that a handled event is not kept in memory.

        Returns:
            False if the handler forked and this is the child, which starts a worker of its own.
        """
        batch = events[: self.handler.batch_size]
        del events[: self.handler.batch_size]
        result = self.handler.handle(batch)
        if self._queue is not queue:
            return False
        self._released_bytes += sum(map(memory_of, batch))
        self._count(processed, len(batch), result)
        for event, error in result.failed:
            why = f"the handler of {self.name} raised {format_error(error)}"
            self._drop_reporter.report(DropReason.HANDLER_FAILED, event, why=why, kind=self.name)
        return True

    def _count(self, processed: _Processed, events: int, result: Handled) -> None:
        failed = len(result.failed)
        processed.failed += failed
        if result.too_late:
            self._section.run(self._count_too_late, events - failed)
        else:
            processed.handled += events - failed
        if self._waiters:
            self._section.run(self._notify_waiters, None)

    def _count_too_late(self, events: int) -> None:
        if not self._dropped:  # otherwise they were counted when the deadline passed
            self._taken -= events
            self._shutdown += events
            self._report_dropped(events)

    def _notify_waiters(self, _: None) -> None:
        self._worker.changed.notify_all()

    def _next_events(self) -> list[Event]:
        """The next events; empty at the end."""
        events: list[Event] = []
        while True:
            if self._idle:
                self._worker.sleep()
            self._section.run(self._take, events)
            if events or self._complete:
                return events

    def _take(self, events: list[Event]) -> None:
        most = max(self.handler.batch_size, _BATCH)
        while self._queue and len(events) < most:
            events.append(self._queue.popleft())
        self._taken += len(events)
        self._complete = self._closing and not events
        self._idle = not self._queue and not self._closing
        if self._idle:
            self._worker.idle()

    # -- flush and stop ------------------------------------------------------------------------------------------

    def owns_this_thread(self) -> bool:
        """True in the worker's thread, in the handler's threads, and in a signal handler that interrupted kevents."""
        return self._worker.owns_this_thread() or self._section.is_held_here() or self.handler.owns_this_thread()

    def can_work(self) -> bool:
        """True if the worker runs or can be started, or there are no events for it."""
        if self._queue and self._worker.state is State.ABSENT:
            self._worker.start()
        return not self._queue or self._worker.state is not State.ABSENT

    def flush(self, deadline: float | None) -> bool:
        """Wait until all events offered so far have ended. False at the deadline and in the watcher's own thread."""
        with self.flushing() as target:
            return self.await_flush(target, deadline)

    @contextmanager
    def flushing(self) -> Iterator[int]:
        """Process events without waiting for more, and retry pending writes now. Gives the number of offered events."""
        if self._queue and self._worker.state in {State.ABSENT, State.STARTING}:
            self._worker.start()  # there was no thread so far, or its start was interrupted
        with self._section.lock:
            target = self._shutdown + self._taken + len(self._queue)
            self._worker.flushing += 1
            if self._queue:
                self._worker.wake()
        try:
            self._section.run_deferred()
            self.handler.flush_now()
            yield target
        finally:
            with self._section.lock:
                self._worker.flushing -= 1
            self._section.run_deferred()

    def await_flush(self, target: int, deadline: float | None, cancelled: Callable[[], bool] = bool) -> bool:
        """Wait until ``target`` events have ended, in the handler too.

        Args:
            target: The value that :meth:`flushing` gave.
            deadline: In monotonic seconds; None for no deadline.
            cancelled: Ends the wait when it returns True. Called on every change.

        Returns:
            False at the deadline and in the watcher's own thread.
        """
        if self.owns_this_thread():
            return False
        with self._section.lock:
            handled = self._wait_for(lambda: cancelled() or self._ended() >= target, deadline)
        self._section.run_deferred()
        return handled and self.handler.flush(deadline, cancelled)

    def _ended(self) -> int:
        return self._shutdown + self._processed.total()

    def wake(self) -> None:
        """Let waiting callers check again whether their wait is cancelled."""
        with self._section.lock:
            self._worker.changed.notify_all()
        self._section.run_deferred()
        self.handler.wake()

    def _wait_for(self, condition: Callable[[], bool], deadline: float | None) -> bool:
        """Wait under the lock, which is released meanwhile. Returns False at the deadline."""
        try:
            self._waiters += 1
            return self._worker.changed.wait_for(condition, time_left(deadline))
        finally:
            self._waiters -= 1

    def begin_stop(self, deadline: float) -> None:
        """Process the queued events without waiting for more, then end. Returns at once."""
        self._section.run(self._begin_stop, deadline)

    def _begin_stop(self, deadline: float) -> None:
        self._section.defer(self.handler.begin_stop, deadline)
        if not self._closing:
            self._worker.flushing += 1
            self._worker.wake()
            self._closing = True  # last: if Ctrl-C interrupts this, the next stop does it again

    def end_stop(self, deadline: float) -> int:
        """Wait for the end of the watcher. Returns the number of events dropped at the deadline."""
        if self._dropped or self.owns_this_thread():
            return 0  # its own thread cannot wait for itself; the work queue closes itself at the deadline
        if self._worker.state is State.STARTING:
            self._worker.start()  # again, in case the start was interrupted
        with self._section.lock:
            self._wait_for(lambda: self._worker.ended or self._worker.state is State.ABSENT, deadline)
        if self._worker.state is State.ABSENT:  # there were no events, or no thread could be started
            self._worker.run()
        dropped = self.handler.stop(deadline if self._worker.ended else 0.0)
        self._section.run(self._drop_remaining, self.handler.accepted())
        self._worker.join()
        return dropped + self._shutdown

    def _drop_remaining(self, accepted: int | None) -> None:
        """Drop the events that have not ended.

        Args:
            accepted: Events that the handler has counted itself, those of the present batch included. None if it does
                not count.
        """
        if self._dropped:
            return
        self._dropped = True
        processed = self._processed = _Processed(self._processed.handled, self._processed.failed)
        if accepted is not None:
            in_hand = self._taken - processed.total()
            processed.handled += min(max(accepted - processed.total(), 0), in_hand)
        dropped = len(self._queue) + self._taken - processed.total()
        self._taken = processed.total()
        self._shutdown += dropped
        self._report_dropped(dropped)
        self._queue.clear()
        self._worker.changed.notify_all()

    def _report_dropped(self, events: int) -> None:
        if events:
            why = f"still in the queue of {self.name} at the deadline"
            self._section.defer(self._drop_reporter.report, DropReason.SHUTDOWN, None, events, why)

    def stop(self, timeout: float = 5.0) -> int:
        """Process the queued events, then end."""
        deadline = monotonic() + timeout
        self._on_end(self)
        self.begin_stop(deadline)
        return self.end_stop(deadline)

    def statistics(self) -> WatcherStatistics:
        """A snapshot of the statistics."""
        sink = self.handler.statistics()
        with self._section.lock:
            waiting, taken, processed = len(self._queue), self._taken, self._processed
            handled, failed = processed.handled, processed.failed
            statistics = WatcherStatistics(
                name=self.name,
                offered=self._queue_full + self._shutdown + taken + waiting,
                queue_full=self._queue_full,
                shutdown=self._shutdown,
                handled=handled,
                failed=failed,
                waiting=waiting + taken - handled - failed,
                sink=sink,
            )
        self._section.run_deferred()
        return statistics
