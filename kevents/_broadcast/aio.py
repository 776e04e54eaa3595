"""Broadcasters and watchers for asyncio: senders are tasks, and flush, stop and shutdown are awaited."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from kevents._broadcast.broadcaster import Broadcaster
from kevents._broadcast.watcher import QueueWatcher
from kevents._broadcast.watcher import Watcher as ThreadedWatcher
from kevents._delivery.handlers import Handled, Handler
from kevents._delivery.sender_tasks import SenderTaskPool
from kevents._model.objects import Event
from kevents._model.validation import is_asynchronous, require_sink
from kevents._runtime.aio import await_polling, run_in_thread
from kevents._runtime.lifecycle import ProcessBound
from kevents._runtime.log import is_in_kevents

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from kevents._broadcast.broadcaster import WatcherPublisher
    from kevents._model.statistics import Statistics, WatcherStatistics

E = TypeVar("E", bound=Event)


def bind(watcher: QueueWatcher) -> None:
    """Let the sender tasks of a watcher run in the running loop."""
    if isinstance(watcher.handler, SenderTaskPool):
        watcher.handler.bind()


def _await_tasks(watcher: QueueWatcher, deadline: float) -> None:
    if isinstance(watcher.handler, SenderTaskPool):
        watcher.handler.await_end(deadline)


class Watcher(ProcessBound):
    """Consumer of a broadcaster's events. ``async with`` stops it at the end of the block."""

    def __init__(self, watcher: QueueWatcher) -> None:
        self._watcher = watcher

    @property
    def name(self) -> str:
        """Name in the statistics, and in the names of its thread and tasks."""
        return self._watcher.name

    async def stop(self, timeout: float = 5.0) -> int:
        """Process the queued events, then end. Other watchers are not affected.

        Args:
            timeout: Seconds after which the remaining events are dropped.

        Returns:
            Number of dropped events. 0 at once in the watcher's own thread or tasks, which cannot wait for themselves.
        """
        bind(self._watcher)
        if self._watcher.owns_this_thread():
            return self._watcher.stop(timeout)
        stopped = run_in_thread(f"kevents-stop-{self.name}", self._stop, monotonic() + timeout)
        return 0 if is_in_kevents() else await await_polling(stopped, partial(bind, self._watcher))

    def _stop(self, deadline: float) -> int:
        dropped = self._watcher.stop(deadline - monotonic())
        _await_tasks(self._watcher, deadline)
        return dropped

    def statistics(self) -> WatcherStatistics:
        """A snapshot of the watcher's statistics."""
        return self._watcher.statistics()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class StreamHandler(Handler):
    """Passes events to the task that iterates, in any loop. The worker waits until the task has taken them."""

    batch_size = 64

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._waiting: list[asyncio.Future[None]] = []
        self._draining = self._complete = False
        self._reader: weakref.ref[asyncio.Task[Any]] | None = None

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Pass the events on and wait until they are taken; while draining, do not wait."""
        with self._changed:
            self._events.extend(batch)
            self._wake_reader()
            self._changed.wait_for(lambda: self._draining or not self._events)
        return Handled()

    def begin_stop(self, deadline: float) -> None:  # noqa: ARG002
        """Stop waiting for the reader. It can take the remaining events after the end."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def end_input(self) -> None:
        """End the iteration after the remaining events."""
        with self._changed:
            self._complete = True
            self._wake_reader()

    def stop(self, deadline: float) -> int:  # noqa: ARG002
        """End the iteration. The reader's remaining events are not dropped."""
        self.end_input()
        return 0

    def after_fork(self) -> None:
        self._reset()

    def _wake_reader(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            with suppress(RuntimeError):  # its loop is closed
                future.get_loop().call_soon_threadsafe(_release, future)

    def read_here(self) -> None:
        """Remember the running task as the reader. Up to Python 3.11 ``wait_for`` awaits the event in another task."""
        with suppress(RuntimeError):  # no running loop
            task = asyncio.current_task()
            self._reader = None if task is None else weakref.ref(task)

    async def next(self) -> Event | None:
        """The next event. None after the last."""
        while True:
            with self._changed:
                if self._events:
                    event = self._events.popleft()
                    if not self._events:
                        self._changed.notify_all()
                    return event
                if self._complete:
                    return None
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
            try:
                await future
            finally:
                with self._changed, suppress(ValueError):  # removed already when it was woken
                    self._waiting.remove(future)

    def is_read_by(self, task: asyncio.Task[Any] | None) -> bool:
        """True for the reader, which cannot wait for a flush: it has to take the events itself."""
        return task is not None and self._reader is not None and self._reader() is task


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class EventStream(Watcher, Generic[E]):
    """A watcher to iterate over: ``async for event in stream``. The iteration ends when the watcher is stopped.

    Events that do not fit into the queue of a slow reader are dropped as ``queue_full`` and counted. Events recorded
    before the end can be read after it. Stop a stream that is no longer read.
    """

    def __init__(self, watcher: QueueWatcher, handler: StreamHandler) -> None:
        super().__init__(watcher)
        self._handler = handler

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, E]:
        self._handler.read_here()
        return self._next()

    async def _next(self) -> E:
        event = await self._handler.next()
        if event is None:
            raise StopAsyncIteration
        return cast("E", event)


class TaskBroadcaster(Broadcaster[E]):
    """A broadcaster whose senders are tasks. The implementation behind :class:`AsyncBroadcaster`."""

    _sender_pool = SenderTaskPool

    def _require_sink(self, sink: object) -> None:
        require_sink(sink, self._api_group, asynchronous=True)

    @property
    def publisher(self) -> WatcherPublisher:
        return self._publisher

    def start_with(self, handler: Handler) -> QueueWatcher:
        """Start a watcher with a handler of kevents."""
        return self._start(self._name("stream"), handler)


class AsyncBroadcaster(ProcessBound, Generic[E]):
    """Base of the public broadcasters: :class:`Broadcaster` for coroutines."""

    def __init__(self, core: TaskBroadcaster[E]) -> None:
        self._core = core
        self._publisher = core.publisher
        self._watchers: weakref.WeakValueDictionary[str, Watcher] = weakref.WeakValueDictionary()
        self._bind()

    def _bind(self) -> None:
        for watcher in self._publisher.watchers:
            bind(watcher)

    # -- watchers ------------------------------------------------------------------------------------------------

    def start_logging(self, logf: Callable[..., object]) -> Watcher:
        """Log each event through a printf-like function, in a thread of its own (client-go: ``StartLogging``).

        Args:
            logf: Called with a format and its arguments, as ``logger.info``.

        Raises:
            TypeError: If it is a coroutine function.
        """
        return self._wrap(self._core.start_logging(logf))

    def start_structured_logging(self, level: int = logging.INFO, *, logger: logging.Logger | None = None) -> Watcher:
        """Log each event with its fields as ``extra`` (client-go: ``StartStructuredLogging``).

        Args:
            level: Level of the log records.
            logger: Default: the logger ``kevents.events``.
        """
        return self._wrap(self._core.start_structured_logging(level, logger=logger))

    @overload
    def start_event_watcher(self) -> EventStream[E]: ...

    @overload
    def start_event_watcher(self, handler: Callable[[E], object]) -> Watcher: ...

    def start_event_watcher(self, handler: Callable[[E], object] | None = None) -> Watcher:
        """Iterate over the events, or call a handler with each, in a thread (client-go: ``StartEventWatcher``).

        Args:
            handler: A plain function. Its exceptions are counted and logged. None: the watcher is an
                :class:`EventStream`.

        Raises:
            TypeError: If the handler is a coroutine function.
        """
        if handler is None:
            stream = StreamHandler()
            return EventStream(self._core.start_with(stream), stream)
        if is_asynchronous(handler):
            raise TypeError(
                "a handler is called in a thread; iterate instead: `async for event in start_event_watcher()`"
            )
        return self._wrap(self._core.start_event_watcher(handler))

    def _wrap(self, watcher: ThreadedWatcher) -> Watcher:
        own = cast("QueueWatcher", watcher)
        bind(own)
        return self._watchers.setdefault(own.name, Watcher(own))

    # -- flush and shutdown --------------------------------------------------------------------------------------

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until every event recorded before the call has ended, in every watcher.

        It can be cancelled, for example by ``asyncio.wait_for``.

        Args:
            timeout: Seconds. None for no timeout.

        Returns:
            True if each was delivered, or dropped for a reason. False at the timeout, and at once where the caller
            would wait for itself: in a thread of a watcher, in a sink, and in the task that reads a stream.
        """
        self._bind()
        if is_in_kevents() or self._would_wait_for_itself():
            return False
        cancelled = threading.Event()
        deadline = None if timeout is None else monotonic() + timeout
        try:
            flush = partial(self._publisher.flush, cancelled=cancelled.is_set)
            return await await_polling(run_in_thread("kevents-flush", flush, deadline), self._bind)
        finally:
            cancelled.set()
            self._publisher.wake()

    def _would_wait_for_itself(self) -> bool:
        task = asyncio.current_task()
        handlers = [watcher.handler for watcher in self._publisher.watchers]
        return self._publisher.owns_this_thread() or any(
            isinstance(handler, StreamHandler) and handler.is_read_by(task) for handler in handlers
        )

    async def shutdown(self, timeout: float = 5.0) -> int:
        """Refuse further events, deliver the pending ones, and end; close the clients of kevents' sinks.

        A second call waits for the first. A cancelled call continues in the background. Events recorded later are
        dropped and counted (client-go: ``Shutdown``).

        Args:
            timeout: Seconds after which the remaining events are dropped and running requests cancelled.

        Returns:
            Number of dropped events over all watchers. 0 if another call reports them, and at once in a sink.
        """
        self._bind()
        deadline = monotonic() + timeout
        began = self._publisher.begin_shutdown(deadline)
        end = partial(self._end_shutdown, self._publisher.end_shutdown if began else self._publisher.shutdown)
        if self._publisher.owns_this_thread():
            return end(deadline)
        dropped = run_in_thread("kevents-shutdown", end, deadline)
        return 0 if is_in_kevents() else await await_polling(dropped, self._bind)

    def _end_shutdown(self, end: Callable[[float], int], deadline: float) -> int:
        dropped = end(deadline)
        for watcher in self._publisher.watchers:
            _await_tasks(watcher, deadline)
        return dropped

    def statistics(self) -> Statistics:
        """A snapshot of the statistics of the broadcaster and its watchers, each consistent in itself."""
        return self._core.statistics()

    async def __aenter__(self) -> Self:
        self._bind()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()
