"""The sender tasks: take a request, make one attempt, hand back the verdict.

They live in one event loop, which need not run yet when events come, and may close before they are written: what is
left then waits for another loop of the broadcaster's, and is given up, counted, at the end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from kevents._model.wire import format_error
from kevents._queue.notifications import Wait
from kevents._queue.outcome import Outcome, Unavailable, Verb, judge
from kevents._queue.work_item import Attempt
from kevents._runtime.log import in_kevents
from kevents._runtime.reentrant import time_left

if TYPE_CHECKING:
    from kevents._clients.aio import EventSink
    from kevents._delivery.dispatcher import Dispatcher
    from kevents._delivery.handlers import Handled
    from kevents._model.objects import Event
    from kevents._model.statistics import SinkStatistics
    from kevents._runtime.log import LimitedLog

GRACE: Final = 0.5
"""Seconds after the deadline for tasks to end in, and connections to close."""

_MOST_AT_ONCE: Final = 100
_LONGEST_WAIT: Final = 3600.0
_REST: Final = 0.5

_parents: list[object] = []
"""In a forked child: what belongs to the parent's loop, and must not be finalised here."""


async def send(sink: EventSink, attempt: Attempt) -> Outcome:
    """Make one request; whatever the sink raises becomes a verdict, unless it is meant for the task."""
    try:
        with in_kevents():
            if attempt.verb is Verb.PATCH:
                await sink.patch(attempt.namespace, attempt.name, attempt.body)
            else:
                await sink.create(attempt.namespace, attempt.body)
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except asyncio.TimeoutError as error:  # in Python 3.10 another than the builtin one, which is an OSError
        return judge(attempt.verb, TimeoutError(*error.args))
    except BaseException as error:  # noqa: BLE001 - a sink that raises SystemExit must not end the loop either
        return judge(attempt.verb, error)
    return judge(attempt.verb, None)


class SenderTaskPool:
    """A watcher's handler: a delivery, and the tasks that send for it.

    Args:
        new_delivery: Makes what is to be sent from; gets ``on_change``.
        sink: By which.
        senders: How many tasks.
        name: For the tasks' names.
        log: Says that there is no loop.
    """

    def __init__(
        self, new_delivery: Callable[..., Dispatcher], sink: EventSink, senders: int, name: str, log: LimitedLog
    ) -> None:
        """Start no task yet."""
        self.sink = sink
        self._delivery = delivery = new_delivery(on_change=self._changed)
        self._senders = senders
        self._name = name
        self._log = log
        self._renew()
        self.most = min(delivery.most, _MOST_AT_ONCE)  # the loop must not wait long for the lock
        self.hasten = delivery.hasten
        self.flush = delivery.flush
        self.nudge = delivery.nudge
        self.finish = delivery.finish
        self.taken = delivery.taken
        self.owns_this_thread = delivery.owns_this_thread

    def _renew(self) -> None:
        self._lock = threading.Lock()  # for who brings a loop, or finds that it is gone
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._working: dict[asyncio.Task[Any], Attempt | None] = {}
        self._gone = threading.Event()
        self._gone.set()
        self._until = float("inf")
        self._ringing = self._resting = self._closed = self._over = False

    # -- the watcher's worker, and whoever waits -----------------------------------------------------------------

    def start(self) -> None:
        """There is nothing to begin here: the loop is told with the first batch."""

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Accept the events; the loop is woken as they are offered. In the watcher's worker."""
        handled = self._delivery.accept(batch)
        loop = self._loop
        if loop is None:
            text = "no event loop yet: events wait until `async with` the broadcaster, or an await of it"
            self._log.log_limited((self._name, "no loop"), f"{self._name} has {text}")
        elif loop.is_closed():
            self._abandon(loop)
            text = "is closed: events wait for another, and are given up at the end; await shutdown() in time"
            self._log.log_limited((self._name, "closed loop"), f"the event loop of {self._name} {text}")
        return handled

    def drain(self, deadline: float) -> None:
        """Hurry: the end is at the deadline."""
        self._until = deadline
        self._delivery.drain(deadline)

    def settle(self, deadline: float) -> None:
        """Wait until everything has ended; without a loop that runs, nothing will."""
        self._delivery.settle(deadline if self._is_alive() else monotonic())

    def close(self) -> int:
        """Give up what is left, requests that are under way too."""
        given_up = self._delivery.close()
        self._closed = True
        self._changed()
        if self._loop is not None and self._is_alive():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._hang_up)
        elif self._loop is None or self._loop.is_closed():
            self._abandon(self._loop)
        return given_up

    def await_end(self, deadline: float) -> None:
        """Wait until the tasks have ended and the sink is closed, a moment longer than the deadline at most."""
        if self._is_alive():
            self._gone.wait(time_left(max(deadline, monotonic()) + GRACE))

    def after_fork(self) -> None:
        """In the child: no loop yet, nothing to send, and a sink that connects anew."""
        _parents.append((self._loop, self._bell, self._tasks, self._working))
        self._renew()
        self._delivery.after_fork()
        after_fork = getattr(self.sink, "after_fork", None)
        if after_fork is not None:
            after_fork()

    def statistics(self) -> SinkStatistics:
        """The sink's ledger."""
        return self._delivery.statistics()

    # -- the loop ------------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Send in the running loop from now on, if there is one, unless the tasks are in one that runs."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._over or self._is_alive():
            return
        old, bell = self._loop, self._bell
        if not self._abandon(old, loop):
            return
        if old is not None:
            with suppress(RuntimeError):  # closed; else its tasks end when it goes on
                old.call_soon_threadsafe(bell.set)
        self._ring()

    def _is_alive(self) -> bool:
        return self._loop is not None and self._loop.is_running()

    def _abandon(self, left: asyncio.AbstractEventLoop | None, heir: asyncio.AbstractEventLoop | None = None) -> bool:
        """A loop goes on no more: hand back its attempts, to an heir if there is one; False if it had one already."""
        with self._lock:
            if self._loop is not left or self._is_alive():
                return False
            if heir is not None:
                self._loop, self._bell, self._resting = heir, asyncio.Event(), False
            tasks, self._tasks = self._tasks, set()
            working, self._working = self._working, {}
            self._gone.set()
        for attempt in list(working.values()):
            if attempt is not None:
                self._delivery.done(attempt, Unavailable("the event loop was closed"), monotonic())
        if left is None or left.is_closed():
            for task in tasks:
                with suppress(Exception):  # what the sink does at its end is its own business
                    task.get_coro().close()
        return True

    def _changed(self) -> None:
        """Wake the tasks: called under the delivery's lock, in any thread."""
        if self._loop is None or self._ringing:
            return
        self._ringing = True
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:  # closed: who waits for it, and the worker, will see
            self._ringing = False

    def _ring(self) -> None:
        """Let every task look again; start those that are missing. From here on in the loop."""
        self._ringing = False
        if asyncio.get_running_loop() is not self._loop:  # it was left for another while this call waited in it
            self._changed()
            return
        self._bell.set()
        if not self._resting and self._delivery.lacks_senders():
            for _ in range(self._senders - len(self._tasks)):
                Context().run(self._start)  # not in that of whoever came by: a task is nobody's request

    def _start(self) -> None:
        self._gone.clear()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(), name=f"kevents-{self._name}-sender-{len(self._tasks) + 1}")
        task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - what it leaves is counted
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.log_limited((self._name, "task"), f"a task of {self._name} ended with {format_error(error)}")
            self._rest()
        if not self._tasks:
            self._gone.set()

    def _hang_up(self) -> None:
        for task, attempt in self._working.items():
            if attempt is not None:
                task.cancel()

    def _rest(self) -> None:
        """A task ended before its time, perhaps because the loop is about to end: start no other for a moment."""
        if not self._resting:
            self._resting = True
            asyncio.get_running_loop().call_later(_REST, self._resume)

    def _resume(self) -> None:
        self._resting = False
        self._ring()

    # -- one task ------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        me, working = asyncio.current_task(), self._working
        assert me is not None  # noqa: S101 - this is a task
        working[me] = None
        try:
            await self._send_all(me)
        except asyncio.CancelledError:
            if working is self._working:
                self._rest()
            await self._leave(me, working)
            raise
        except BaseException:  # the loop is gone, or Ctrl-C was pressed: nothing can be awaited
            working.pop(me, None)
            raise
        await self._leave(me, working)

    async def _send_all(self, me: asyncio.Task[Any]) -> None:
        bell, working = self._bell, self._working
        while working is self._working:  # else this task's loop was taken for dead, or this is a forked child
            bell.clear()
            now = monotonic()
            if now >= self._until and not self._closed:
                await self._wait(bell, GRACE)  # who shuts down gives up what is left, and tells of it, in his thread
                now = monotonic()
            match self._delivery.take(now):
                case Wait(seconds, _):
                    await self._wait(bell, seconds)
                case Attempt() as attempt:
                    working[me] = attempt
                    await self._make(attempt, working)
                    working[me] = None
                    await asyncio.sleep(0)  # a sink that never waits must not keep the loop
                case _:
                    self._over = True
                    return

    async def _wait(self, bell: asyncio.Event, seconds: float | None) -> None:
        timer = None
        if seconds is not None:
            timer = asyncio.get_running_loop().call_later(min(seconds, _LONGEST_WAIT), bell.set)
        try:
            await bell.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _make(self, attempt: Attempt, working: dict[asyncio.Task[Any], Attempt | None]) -> None:
        try:
            verdict = await send(self.sink, attempt)
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit) as error:
            if working is self._working:
                self._delivery.done(attempt, judge(attempt.verb, error), monotonic())
            raise
        if working is self._working:
            self._delivery.done(attempt, verdict, monotonic())

    async def _leave(self, me: asyncio.Task[Any], working: dict[asyncio.Task[Any], Attempt | None]) -> None:
        """The last task lets the sink close its connections."""
        working.pop(me, None)
        close = getattr(self.sink, "close", None)
        if working or close is None or working is not self._working:
            return
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - the events are written, or counted
            self._log.log_limited(
                (self._name, "close"), f"closing the sink of {self._name} raised {format_error(error)}"
            )
