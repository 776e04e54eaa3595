"""One listener: its bounded mailbox and its worker thread.

The mailbox drops what does not fit, so that a slow or failing listener hurts only itself. The worker parks until an
event comes, lingers for a few milliseconds so that a burst costs one wake-up, and then takes what there is. It is
woken through a bare lock, the one primitive that a signal handler or a finaliser may release in the middle of
anything.
"""

from __future__ import annotations

import _thread
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from kevents._statistics import DropReason, WatcherStatistics
from kevents._turn import time_left
from kevents._wire import told

if TYPE_CHECKING:
    from types import TracebackType

    from kevents._handlers import Handled, Handler
    from kevents._losses import Losses
    from kevents._objects import Event
    from kevents._turn import Turn

_LINGER = 0.005
_A_MOMENT = 0.1
"""Seconds for a thread that has nothing left to do: interpreters up to 3.11 may crash if one ends while they do."""


class _Worker(Enum):
    ABSENT = "absent"
    STARTING = "starting"
    AWAKE = "awake"
    PARKED = "parked"
    LINGERING = "lingering"


class Watcher:
    """A listener that was started on a broadcaster; a context manager that stops it at the end.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        turn: Turn,
        *,
        queue_length: int,
        losses: Losses,
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
        self._renew()

    def _renew(self) -> None:
        self._mailbox: deque[Event] = deque()
        self._changed = threading.Condition(self._turn.lock)
        self._wake = threading.Lock()
        self._wake.acquire()
        self._state = _Worker.ABSENT
        self._thread: threading.Thread | None = None
        self._spawned = False
        self._ident = 0
        self._over = self._ended = self._given_up = False
        self._hurried = 0
        self._queue_full = self._shutdown = self._handled = self._failed = self._in_hand = 0

    # -- the recording side, within a turn -----------------------------------------------------------------------

    def after_fork(self) -> None:
        """In the child: an empty mailbox, and no thread yet. One that was stopped stays so."""
        self._renew()
        self._ended = self._closing
        self.handler.after_fork()

    def offer(self, event: Event) -> bool:
        """Take the event in, or count it as dropped; False if it was dropped. Within a turn."""
        if len(self._mailbox) >= self._queue_length:
            self._queue_full += 1
            return False
        self._mailbox.append(event)
        if self._state is _Worker.PARKED:
            self._rouse()
        elif self._state is _Worker.ABSENT:
            self._state = _Worker.STARTING
            self._turn.afterwards(self._start)
        return True

    def _rouse(self) -> None:
        if self._state is _Worker.PARKED or self._state is _Worker.LINGERING:
            if self._wake.locked():
                self._wake.release()
            self._state = _Worker.AWAKE

    def _start(self) -> None:
        """Start the worker from a bare thread: ``Thread.start`` waits, on locks that a signal handler may interrupt."""
        if self._spawned:
            return
        try:
            self.handler.start()
            _thread.start_new_thread(self._start_worker, ())
            self._spawned = True
        except RuntimeError:  # none is to be had now, at interpreter exit never: the next event tries again, or the end
            with self._turn.lock:
                if self._state is _Worker.STARTING:
                    self._state = _Worker.ABSENT
                self._changed.notify_all()

    def _start_worker(self) -> None:
        if self._claim():
            try:
                self._thread = threading.Thread(target=self._run, name=f"kevents-{self.name}", daemon=True)
                self._thread.start()
            except RuntimeError:  # no other thread is to be had: this one will do
                self._thread = None
                self._run()

    def _claim(self) -> bool:
        """Become the worker, or the one that starts it: only one does."""
        with self._turn.lock:
            if self._ended or self._state not in {_Worker.ABSENT, _Worker.STARTING}:
                return False
            self._state = _Worker.AWAKE
            return True

    # -- the worker ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._ident = threading.get_ident()
        self._work_off()
        self._ident = 0

    def _work_off(self) -> None:
        mailbox = self._mailbox
        while batch := self._next_batch():
            result = self.handler.handle(batch)
            if self._mailbox is not mailbox:
                return  # the handler forked, and this is the child: it begins anew, in another thread
            self._turn.run(self._account, (len(batch), result))
            for event, error in result.failed:
                why = f"the handler of {self.name} raised {told(error)}"
                self._losses.tell(DropReason.HANDLER_FAILED, event, why=why, kind=self.name)
        self.handler.finish()
        with self._turn.lock:
            self._ended = True
            self._changed.notify_all()
        self._on_end(self)

    def _account(self, outcome: tuple[int, Handled]) -> None:
        events, result = outcome
        if not self._given_up:  # else the batch was counted when the deadline passed
            failed = len(result.failed)
            self._in_hand = 0
            self._failed += failed
            if result.too_late:
                self._count_given_up(events - failed)
            else:
                self._handled += events - failed
        self._changed.notify_all()

    def _next_batch(self) -> list[Event]:
        """The next events; none at the end."""
        batch: list[Event] = []
        while True:
            self._turn.run(self._take, batch)
            if batch or self._over:
                return batch
            self._wake.acquire()
            self._linger()

    def _take(self, batch: list[Event]) -> None:
        while self._mailbox and len(batch) < self.handler.most:
            batch.append(self._mailbox.popleft())
        self._in_hand = len(batch)
        self._over = self._closing and not batch
        if not batch and not self._over:
            self._state = _Worker.PARKED

    def _linger(self) -> None:
        with self._turn.lock:
            if self._closing or self._hurried:
                return
            self._state = _Worker.LINGERING
        self._wake.acquire(timeout=_LINGER)
        with self._turn.lock:
            if self._state is _Worker.AWAKE:  # roused, perhaps in the moment when the time was over
                self._wake.acquire(blocking=False)
            self._state = _Worker.AWAKE

    # -- waiting for it ------------------------------------------------------------------------------------------

    def owns_this_thread(self) -> bool:
        """Whether the calling thread is its worker, or one of its handler's, or interrupted what these wait for."""
        me = threading.get_ident()
        return self._ident == me or self._turn.is_mine() or self.handler.owns_this_thread()

    def can_work(self) -> bool:
        """Whether its worker runs, or is on its way, or nothing waits for one."""
        if self._mailbox and self._state is _Worker.ABSENT:
            self._start()
        return not self._mailbox or self._state is not _Worker.ABSENT

    def flush(self, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:
        """Wait until all that was offered so far has ended; False if the deadline passed, or in its own thread.

        Args:
            deadline: None: none.
            given_up: Whether nobody waits for the answer any more; asked again whenever something has changed.
        """
        if self.owns_this_thread():
            return False
        with self._turn.lock:
            mark = self._ended_events() + self._waiting()
        if self._mailbox and self._state in {_Worker.ABSENT, _Worker.STARTING}:
            self._start()  # no thread was to be had so far, or its start was interrupted
        with self._turn.lock:
            self._hurried += 1
            try:
                if self._mailbox:
                    self._rouse()
                seconds = time_left(deadline)
                handled = self._changed.wait_for(lambda: self._ended_events() >= mark or given_up(), seconds)
            finally:
                self._hurried -= 1
        self._turn.clear_up()
        return handled and self.handler.flush(deadline, given_up)

    def _ended_events(self) -> int:
        return self._shutdown + self._handled + self._failed

    def _waiting(self) -> int:
        return len(self._mailbox) + self._in_hand

    def begin_stop(self, deadline: float) -> None:
        """Take no more events; hurry with those there are. Does not wait."""
        self._turn.run(self._begin_stop, deadline)

    def _begin_stop(self, deadline: float) -> None:
        if not self._closing:
            self._rouse()
            self._turn.afterwards(partial(self.handler.drain, deadline))
            self._closing = True  # last, so that what Ctrl-C interrupts is begun anew by the next stop

    def end_stop(self, deadline: float) -> int:
        """Wait for what :meth:`begin_stop` began; how many events were given up at the deadline."""
        if self._given_up or self.owns_this_thread():
            return 0  # nobody waits for himself; the queue closes itself at the deadline
        if self._state is _Worker.STARTING:
            self._start()  # once more, should its start have been interrupted
        with self._turn.lock:
            self._changed.wait_for(lambda: self._ended or self._state is _Worker.ABSENT, time_left(deadline))
        if self._state is _Worker.ABSENT and self._claim():  # no event came, or no thread was to be had for those
            self._run()
        if self._ended:
            self.handler.settle(deadline)
        given_up = self.handler.close()
        self._turn.run(self._give_up, self.handler.taken())
        if self._ended and self._thread is not None:
            self._thread.join(_A_MOMENT)
        return given_up + self._shutdown

    def _give_up(self, taken: int | None) -> None:
        if self._given_up:
            return
        self._given_up = True
        if taken is not None:  # the batch in hand, if the handler has accounted for it already
            accounted = min(max(taken - self._handled - self._failed, 0), self._in_hand)
            self._handled += accounted
            self._in_hand -= accounted
        self._count_given_up(self._waiting())
        self._mailbox.clear()
        self._in_hand = 0
        self._changed.notify_all()

    def _count_given_up(self, events: int) -> None:
        if events:
            self._shutdown += events
            why = f"still in the mailbox of {self.name} at the deadline"
            self._turn.afterwards(partial(self._losses.tell, DropReason.SHUTDOWN, None, events, why=why))

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
            statistics = WatcherStatistics(
                name=self.name,
                offered=self._queue_full + self._ended_events() + self._waiting(),
                queue_full=self._queue_full,
                shutdown=self._shutdown,
                handled=self._handled,
                failed=self._failed,
                waiting=self._waiting(),
                sink=sink,
            )
        self._turn.clear_up()
        return statistics

    def __enter__(self) -> Watcher:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()
