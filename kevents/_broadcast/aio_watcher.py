"""Watchers as coroutines know them: stopped with ``await``, and iterated over."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from kevents._broadcast.watcher import Watcher as ThreadedWatcher
from kevents._delivery.handlers import CallHandler, Handled
from kevents._delivery.sender_tasks import SenderTaskPool
from kevents._model.objects import Event
from kevents._runtime.aio_threads import in_thread, watched
from kevents._runtime.log import is_in_kevents

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from kevents._model.statistics import WatcherStatistics

E = TypeVar("E", bound=Event)

_BATCH_SIZE: Final = 64


class Watcher:
    """A listener that was started on a broadcaster; ``async with`` stops it at the end.

    .. versionadded:: 0.1
    """

    def __init__(self, watcher: ThreadedWatcher) -> None:
        """Broadcasters make watchers."""
        self._watcher = watcher

    @property
    def name(self) -> str:
        """As in the statistics, and in the names of its thread and tasks."""
        return self._watcher.name

    async def stop(self, timeout: float = 5.0) -> int:
        """Stop listening: deal with what is in the mailbox, then end. Other watchers go on.

        Args:
            timeout: Seconds after which what is left is given up.

        Returns:
            How many events were given up; 0 at once where it cannot be waited for: in its own thread or tasks.
        """
        bind(self._watcher)
        if self._watcher.owns_this_thread():
            return self._watcher.stop(timeout)
        stopped = in_thread(f"kevents-stop-{self.name}", self._stop, monotonic() + timeout)
        return 0 if is_in_kevents() else await watched(stopped, partial(bind, self._watcher))

    def _stop(self, deadline: float | None) -> int:
        until = monotonic() if deadline is None else deadline
        given_up = self._watcher.stop(until - monotonic())
        await_tasks(self._watcher, until)
        return given_up

    def statistics(self) -> WatcherStatistics:
        """A snapshot of its ledger."""
        return self._watcher.statistics()

    async def __aenter__(self) -> Self:
        """Itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()


class StreamHandler(CallHandler):
    """Hands events over to whoever iterates, in any loop: the worker waits until what it handed over was taken."""

    batch_size = _BATCH_SIZE

    def __init__(self) -> None:
        """Nothing to hand over yet."""
        super().__init__(lambda _: None)
        self._renew()

    def _renew(self) -> None:
        self._taken = threading.Condition()
        self._events: deque[Event] = deque()
        self._waiting: list[asyncio.Future[None]] = []
        self._hurried = self._over = False
        self._reader: weakref.ref[asyncio.Task[Any]] | None = None

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Wait until the events are taken; at the end, only hand them over. In the watcher's worker."""
        with self._taken:
            self._events.extend(batch)
            self._wake_readers()
            self._taken.wait_for(lambda: self._hurried or not self._events)
        return Handled()

    def begin_stop(self, deadline: float) -> None:  # noqa: ARG002
        """Whoever iterates gets what is left, also after the end."""
        with self._taken:
            self._hurried = True
            self._taken.notify_all()

    def end_input(self) -> None:
        """Nothing more will come."""
        with self._taken:
            self._over = True
            self._wake_readers()

    def stop(self, deadline: float) -> int:  # noqa: ARG002
        """End the stream. Events that were handed over can still be read."""
        self.end_input()
        return 0

    def after_fork(self) -> None:
        """In the child: nothing was handed over yet."""
        self._renew()

    def _wake_readers(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            with suppress(RuntimeError):  # its loop has ended
                future.get_loop().call_soon_threadsafe(_release, future)

    def read_here(self) -> None:
        """The running task iterates, even if it lets another await the event, as ``wait_for`` does up to 3.11."""
        with suppress(RuntimeError):  # no loop runs yet
            task = asyncio.current_task()
            self._reader = None if task is None else weakref.ref(task)

    async def next(self) -> Event | None:
        """The next event; None after the last."""
        while True:
            with self._taken:
                if self._events:
                    event = self._events.popleft()
                    if not self._events:
                        self._taken.notify_all()
                    return event
                if self._over:
                    return None
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
            try:
                await future
            finally:
                with self._taken, suppress(ValueError):  # what was woken is out of the list already
                    self._waiting.remove(future)

    def is_read_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a task is the one that iterates: it cannot wait for what it is to take itself."""
        return task is not None and self._reader is not None and self._reader() is task


class EventStream(Watcher, Generic[E]):
    """A watcher whose events are iterated over: ``async for event in stream``; it ends when the watcher is stopped.

    One who iterates too slowly misses events: what does not fit into the mailbox is dropped as ``queue_full``, and
    counted. What was recorded before the end can be taken after it. Stop a stream that nobody reads any more.

    .. versionadded:: 0.1
    """

    def __init__(self, watcher: ThreadedWatcher, handler: StreamHandler) -> None:
        """Broadcasters make streams."""
        super().__init__(watcher)
        self._handler = handler

    def __aiter__(self) -> Self:
        """Itself."""
        return self

    def __anext__(self) -> Coroutine[Any, Any, E]:
        """The next event."""
        self._handler.read_here()
        return self._next()

    async def _next(self) -> E:
        event = await self._handler.next()
        if event is None:
            raise StopAsyncIteration
        return cast("E", event)


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def bind(watcher: ThreadedWatcher) -> None:
    """Its tasks may live in the running loop."""
    if isinstance(watcher.handler, SenderTaskPool):
        watcher.handler.bind()


def await_tasks(watcher: ThreadedWatcher, deadline: float) -> None:
    """Wait until its tasks have ended."""
    if isinstance(watcher.handler, SenderTaskPool):
        watcher.handler.await_end(deadline)
