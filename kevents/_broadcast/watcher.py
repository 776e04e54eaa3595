"""One listener: its bounded mailbox, and the worker that empties it.

The mailbox drops what does not fit, so that a slow or failing listener hurts only itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from kevents._broadcast.ledger import Ledger
from kevents._model.statistics import DropReason
from kevents._model.wire import format_error
from kevents._runtime.reentrant import time_left
from kevents._runtime.worker import State, Worker

if TYPE_CHECKING:
    from types import TracebackType

    from kevents._broadcast.ledger import Done
    from kevents._delivery.drop_reporter import DropReporter
    from kevents._delivery.handlers import Handled, Handler
    from kevents._model.objects import Event
    from kevents._model.statistics import WatcherStatistics
    from kevents._runtime.reentrant import ReentrantSection

_AWAKE = State.AWAKE
_PRESSING = 4
"""A mailbox of which one in so many places is taken lets its worker linger no longer."""
_TAKEN_AT_ONCE = 64
"""Events that a worker takes from the mailbox at once, for a handler that wants fewer."""


class Watcher:
    """A listener that was started on a broadcaster; a context manager that stops it at the end.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        turn: ReentrantSection,
        *,
        queue_length: int,
        losses: DropReporter,
        on_end: Callable[[Watcher], None],
    ) -> None:
        """Listen to nothing yet; a broadcaster makes watchers. The thread starts with the first event."""
        self.name = name
        self.handler = handler
        self._turn = turn
        self._queue_length = queue_length
        self._losses = losses
        self._on_end = on_end
        self._closing = False
        self._worker = Worker(f"kevents-{name}", turn, handler.start, self._work_off)
        self._renew()

    def _renew(self) -> None:
        self._mailbox: deque[Event] = deque()
        self._awaited = 0
        self._over = self._emptied = self._given_up = False
        self._ledger = Ledger()

    # -- the recording side, within a turn -----------------------------------------------------------------------

    def after_fork(self) -> None:
        """In the child: an empty mailbox, and no thread yet. One that was stopped stays so."""
        self._worker.renew()
        self._worker.ended = self._closing
        self._renew()
        self.handler.after_fork()

    def offer(self, event: Event) -> bool:
        """Take the event in, or count it as dropped; False if it was dropped. Within a turn."""
        waiting = len(self._mailbox)
        if waiting >= self._queue_length:
            self._ledger.queue_full += 1
            return False
        self._mailbox.append(event)
        if self._worker.state is not _AWAKE:
            self._worker.attend(pressing=waiting * _PRESSING >= self._queue_length)
        return True

    # -- the worker ----------------------------------------------------------------------------------------------

    def _work_off(self) -> None:
        mailbox, done = self._mailbox, self._ledger.done
        while events := self._next_events():
            for first in range(0, len(events), self.handler.batch_size):
                if self._given_up:
                    break
                batch = events[first : first + self.handler.batch_size]
                result = self.handler.handle(batch)
                if self._mailbox is not mailbox:
                    return  # the handler forked, and this is the child: it begins anew, in another thread
                self._account(done, len(batch), result)
                for event, error in result.failed:
                    why = f"the handler of {self.name} raised {format_error(error)}"
                    self._losses.report(DropReason.HANDLER_FAILED, event, why=why, kind=self.name)
        self.handler.end_input()
        with self._turn.lock:
            self._worker.ended = True
            self._worker.changed.notify_all()
        self._on_end(self)

    def _account(self, done: Done, events: int, result: Handled) -> None:
        failed = len(result.failed)
        done.failed += failed
        if result.too_late:
            self._turn.run(self._count_too_late, events - failed)
        else:
            done.handled += events - failed
        if self._awaited:
            self._turn.run(self._announce, None)

    def _count_too_late(self, events: int) -> None:
        if not self._given_up:  # else it was counted when the deadline passed
            self._ledger.came_too_late(events)
            self._tell_given_up(events)

    def _announce(self, _: None) -> None:
        self._worker.changed.notify_all()

    def _next_events(self) -> list[Event]:
        """The next events; none at the end. What has emptied the mailbox rests before it looks again."""
        events: list[Event] = []
        while True:
            if self._emptied:
                self._worker.sleep()
            self._turn.run(self._take, events)
            if events or self._over:
                return events

    def _take(self, events: list[Event]) -> None:
        most = max(self.handler.batch_size, _TAKEN_AT_ONCE)
        while self._mailbox and len(events) < most:
            events.append(self._mailbox.popleft())
        self._ledger.taken += len(events)
        self._over = self._closing and not events
        self._emptied = not self._mailbox and not self._closing
        if self._emptied:
            self._worker.park()

    # -- waiting for it ------------------------------------------------------------------------------------------

    def owns_this_thread(self) -> bool:
        """Whether the calling thread is its worker, or one of its handler's, or interrupted what these wait for."""
        return self._worker.owns_this_thread() or self._turn.is_mine() or self.handler.owns_this_thread()

    def can_work(self) -> bool:
        """Whether its worker runs, or is on its way, or nothing waits for one."""
        if self._mailbox and self._worker.state is State.ABSENT:
            self._worker.start()
        return not self._mailbox or self._worker.state is not State.ABSENT

    def flush(self, deadline: float | None) -> bool:
        """Wait until all that was offered so far has ended; False if the deadline passed, or in its own thread."""
        with self.hurrying() as mark:
            return self.await_flush(mark, deadline)

    @contextmanager
    def hurrying(self) -> Iterator[int]:
        """Hurry meanwhile, with what waits to be tried again, too; gives how many events there were before it."""
        if self._mailbox and self._worker.state in {State.ABSENT, State.STARTING}:
            self._worker.start()  # no thread was to be had so far, or its start was interrupted
        with self._turn.lock:
            mark = self._ledger.shutdown + self._ledger.taken + len(self._mailbox)
            self._worker.hurry += 1
            if self._mailbox:
                self._worker.rouse()
        try:
            self._turn.run_deferred()
            self.handler.flush_now()
            yield mark
        finally:
            with self._turn.lock:
                self._worker.hurry -= 1
            self._turn.run_deferred()

    def await_flush(self, mark: int, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:
        """Wait until so many events have ended, and all that the handler was given.

        Args:
            mark: Of :meth:`hurrying`.
            deadline: None: none.
            given_up: Whether nobody waits for the answer any more; asked again whenever something has changed.

        Returns:
            False if the deadline passed, or in its own thread.
        """
        if self.owns_this_thread():
            return False
        with self._turn.lock:
            handled = self._wait_for(lambda: self._ledger.ended() >= mark or given_up(), deadline)
        self._turn.run_deferred()
        return handled and self.handler.flush(deadline, given_up)

    def nudge(self) -> None:
        """Whoever waits asks again whether to go on waiting."""
        with self._turn.lock:
            self._worker.changed.notify_all()
        self._turn.run_deferred()
        self.handler.wake()

    def _wait_for(self, true: Callable[[], bool], deadline: float | None) -> bool:
        """Wait until something is true; False at the deadline. Under the lock, which is free meanwhile."""
        try:
            self._awaited += 1
            return self._worker.changed.wait_for(true, time_left(deadline))
        finally:
            self._awaited -= 1

    def begin_stop(self, deadline: float) -> None:
        """Take no more events; hurry with those there are. Does not wait."""
        self._turn.run(self._begin_stop, deadline)

    def _begin_stop(self, deadline: float) -> None:
        self._turn.defer(partial(self.handler.begin_stop, deadline))
        if not self._closing:
            self._worker.hurry += 1
            self._worker.rouse()
            self._closing = True  # last, so that what Ctrl-C interrupts is begun anew by the next stop

    def end_stop(self, deadline: float) -> int:
        """Wait for what :meth:`begin_stop` began; how many events were given up at the deadline."""
        if self._given_up or self.owns_this_thread():
            return 0  # nobody waits for himself; the queue closes itself at the deadline
        if self._worker.state is State.STARTING:
            self._worker.start()  # once more, should its start have been interrupted
        with self._turn.lock:
            self._wait_for(lambda: self._worker.ended or self._worker.state is State.ABSENT, deadline)
        if self._worker.state is State.ABSENT:  # no event came, or no thread was to be had for those
            self._worker.run()
        given_up = self.handler.stop(deadline if self._worker.ended else 0.0)
        self._turn.run(self._give_up, self.handler.accepted())
        self._worker.join()
        return given_up + self._ledger.shutdown

    def _give_up(self, accepted: int | None) -> None:
        if not self._given_up:
            self._given_up = True
            self._tell_given_up(self._ledger.give_up(len(self._mailbox), accepted))
            self._mailbox.clear()
            self._worker.changed.notify_all()

    def _tell_given_up(self, events: int) -> None:
        if events:
            why = f"still in the mailbox of {self.name} at the deadline"
            self._turn.defer(partial(self._losses.report, DropReason.SHUTDOWN, None, events, why=why))

    def stop(self, timeout: float = 5.0) -> int:
        """Stop listening: deal with what is in the mailbox, then end. Other watchers go on.

        Args:
            timeout: Seconds after which what is left is given up.

        Returns:
            How many events were given up.
        """
        deadline = monotonic() + timeout
        self._on_end(self)
        self.begin_stop(deadline)
        return self.end_stop(deadline)

    def statistics(self) -> WatcherStatistics:
        """A snapshot of its ledger."""
        sink = self.handler.statistics()
        with self._turn.lock:
            statistics = self._ledger.statistics(self.name, len(self._mailbox), sink)
        self._turn.run_deferred()
        return statistics

    def __enter__(self) -> Watcher:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()
