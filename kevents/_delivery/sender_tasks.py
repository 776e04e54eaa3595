"""Sender tasks: each takes an attempt, makes its request, and reports the outcome.

The tasks live in one event loop. Events may be recorded before that loop runs, and the loop may close before they are
written. Pending events then wait for another loop that uses the broadcaster. At the end they are dropped and counted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from kevents._delivery.dispatcher import Dispatcher
from kevents._model.wire import format_error
from kevents._queue.outcome import DELIVERED, Outcome, Unavailable, Verb, outcome_of
from kevents._queue.work_item import Attempt, Wait
from kevents._runtime.log import in_kevents
from kevents._runtime.reentrant import time_left

if TYPE_CHECKING:
    from kevents._clients.aio import EventSink
    from kevents._delivery.handlers import Handled
    from kevents._model.objects import Event

GRACE: Final = 0.5
"""Seconds after the deadline in which tasks end and connections close."""

_LONGEST_WAIT: Final = 3600.0
_PAUSE: Final = 0.5

_parents: list[object] = []
"""In a forked child: objects of the parent's event loop, kept so that they are not finalised here."""


async def send(sink: EventSink, attempt: Attempt) -> Outcome:
    """Make one request. An exception of the sink becomes an outcome, unless it is meant for the task."""
    try:
        with in_kevents():
            if attempt.verb is Verb.PATCH:
                await sink.patch(attempt.namespace, attempt.name, attempt.body)
            else:
                await sink.create(attempt.namespace, attempt.body)
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except asyncio.TimeoutError as error:  # in Python 3.10 this is not the builtin one, which is an OSError
        return outcome_of(attempt.verb, TimeoutError(*error.args))
    except BaseException as error:  # noqa: BLE001 - a sink that raises SystemExit must not end the loop either
        return outcome_of(attempt.verb, error)
    return DELIVERED


class SenderTaskPool(Dispatcher):
    """Sends from tasks."""

    batch_size = 100  # small, so that the loop does not wait long for the dispatcher's lock
    sink: EventSink

    def _renew(self) -> None:
        super()._renew()
        self._loop_lock = threading.Lock()  # held while a loop is taken or abandoned
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bell = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._working: dict[asyncio.Task[Any], Attempt | None] = {}
        self._gone = threading.Event()
        self._gone.set()
        self._until = float("inf")
        self._ringing = self._pausing = self._closed = self._over = False

    # -- the watcher's worker, and threads that wait -------------------------------------------------------------

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Accept the events; the dispatcher wakes the loop. In the watcher's worker."""
        handled = self.accept(batch)
        loop = self._loop
        if loop is None:
            text = "no event loop yet: events wait until `async with` the broadcaster, or an await of it"
            self._log("no loop", f"{self.name} has {text}")
        elif loop.is_closed():
            self._abandon(loop)
            text = "is closed: events wait for another loop, and are dropped at the end; await shutdown() in time"
            self._log("closed loop", f"the event loop of {self.name} {text}")
        return handled

    def _log(self, kind: str, text: str) -> None:
        self._drop_reporter.log.log_limited((self.name, kind), text)

    def begin_stop(self, deadline: float) -> None:
        self._until = deadline
        super().begin_stop(deadline)

    def stop(self, deadline: float) -> int:
        """As of :class:`Handler`, without a wait if the loop does not run. Requests in flight are dropped, too."""
        dropped = super().stop(deadline if self._is_alive() else 0.0)
        self._closed = True
        self._changed()
        if self._loop is not None and self._is_alive():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._cancel_requests)
        elif self._loop is None or self._loop.is_closed():
            self._abandon(self._loop)
        return dropped

    def await_end(self, deadline: float) -> None:
        """Wait until the tasks have ended and the sink is closed, at most until shortly after the deadline."""
        if self._is_alive():
            self._gone.wait(time_left(max(deadline, monotonic()) + GRACE))

    def after_fork(self) -> None:
        _parents.append((self._loop, self._bell, self._tasks, self._working))
        super().after_fork()

    # -- the loop ------------------------------------------------------------------------------------------------

    def bind(self) -> None:
        """Send in the running loop from now on, if there is one, unless the tasks' own loop runs."""
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
            with suppress(RuntimeError):  # the loop is closed; otherwise its tasks end when it runs again
                old.call_soon_threadsafe(bell.set)
        self._ring()

    def _is_alive(self) -> bool:
        return self._loop is not None and self._loop.is_running()

    def _abandon(self, left: asyncio.AbstractEventLoop | None, heir: asyncio.AbstractEventLoop | None = None) -> bool:
        """Give back the attempts of a loop that no longer runs, and use its heir, if any.

        False if another call has replaced the loop already, or the loop runs.
        """
        with self._loop_lock:
            if self._loop is not left or self._is_alive():
                return False
            if heir is not None:
                self._loop, self._bell, self._pausing = heir, asyncio.Event(), False
            tasks, self._tasks = self._tasks, set()
            working, self._working = self._working, {}
            self._gone.set()
        for attempt in list(working.values()):
            if attempt is not None:
                self.done(attempt, Unavailable("the event loop was closed"), monotonic())
        if left is None or left.is_closed():
            for task in tasks:
                with suppress(Exception):  # errors of the sink's clean-up do not matter
                    if (coroutine := task.get_coro()) is not None:
                        coroutine.close()
        return True

    def _changed(self, writes: int | None = None) -> None:  # noqa: ARG002 - the tasks share one bell
        """Wake the tasks. Called under the dispatcher's lock, in any thread."""
        if self._loop is None or self._ringing:
            return
        self._ringing = True
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:  # the loop is closed; handle() and bind() notice that
            self._ringing = False

    def _ring(self) -> None:
        """Let every task look again, and start missing tasks. This method and those below run in the loop."""
        self._ringing = False
        if asyncio.get_running_loop() is not self._loop:  # the loop was replaced after this call was scheduled
            self._changed()
            return
        self._bell.set()
        if not self._pausing and self.lacks_senders():
            for _ in range(self._senders - len(self._tasks)):
                Context().run(self._start_task)  # an empty context: a task belongs to no request of the caller

    def _start_task(self) -> None:
        self._gone.clear()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(), name=f"kevents-{self.name}-sender-{len(self._tasks) + 1}")
        task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - pending events are counted
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log("task", f"a task of {self.name} ended with {format_error(error)}")
            self._pause()
        if not self._tasks:
            self._gone.set()

    def _cancel_requests(self) -> None:
        for task, attempt in self._working.items():
            if attempt is not None:
                task.cancel()

    def _pause(self) -> None:
        """Start no other task for a moment: one was cancelled or failed, perhaps because the loop is ending."""
        if not self._pausing:
            self._pausing = True
            asyncio.get_running_loop().call_later(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._pausing = False
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
                self._pause()
            await self._leave(me, working)
            raise
        except BaseException:  # the loop is closed, or Ctrl-C was pressed: nothing can be awaited
            working.pop(me, None)
            raise
        await self._leave(me, working)

    async def _send_all(self, me: asyncio.Task[Any]) -> None:
        bell, working = self._bell, self._working
        while working is self._working:  # otherwise the loop was abandoned, or this is a forked child
            bell.clear()
            now = monotonic()
            if now >= self._until and not self._closed:
                await self._wait(bell, GRACE)  # stop(), in the thread that shuts down, drops and reports the rest
                now = monotonic()
            match self.take(now):
                case Wait(seconds, _):
                    await self._wait(bell, seconds)
                case Attempt() as attempt:
                    working[me] = attempt
                    await self._make_request(attempt, working)
                    working[me] = None
                    await asyncio.sleep(0)  # a sink that never awaits must not block the loop
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

    async def _make_request(self, attempt: Attempt, working: dict[asyncio.Task[Any], Attempt | None]) -> None:
        try:
            outcome = await send(self.sink, attempt)
        except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit) as error:
            if working is self._working:
                self.done(attempt, outcome_of(attempt.verb, error), monotonic())
            raise
        if working is self._working:
            self.done(attempt, outcome, monotonic())

    async def _leave(self, me: asyncio.Task[Any], working: dict[asyncio.Task[Any], Attempt | None]) -> None:
        """End a task; the last one closes the sink's connections."""
        working.pop(me, None)
        close = getattr(self.sink, "close", None)
        if working or close is None or working is not self._working:
            return
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - all events are written or counted
            self._log("close", f"closing the sink of {self.name} raised {format_error(error)}")
