"""What the asynchronous broadcasters of both APIs have in common: tasks for senders, and ends that are awaited."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from kevents._broadcast.aio_watcher import EventStream, StreamHandler, Watcher, await_tasks, bind
from kevents._broadcast.broadcaster import Broadcaster
from kevents._delivery.sender_tasks import SenderTaskPool
from kevents._model.objects import Event
from kevents._model.validation import is_asynchronous, require_sink
from kevents._runtime.aio_threads import in_thread, watched
from kevents._runtime.log import is_in_kevents

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from kevents._broadcast.watcher import Watcher as ThreadedWatcher
    from kevents._delivery.dispatcher import Dispatcher
    from kevents._delivery.handlers import Handler
    from kevents._model.statistics import Statistics

E = TypeVar("E", bound=Event)


class TaskBroadcaster(Broadcaster[E]):
    """The inside: what a threads' broadcaster becomes with tasks for senders, and its waits one by one."""

    def _new_crew(self, new_delivery: Callable[..., Dispatcher], sink: Any, senders: int, name: str) -> Handler:  # noqa: ANN401
        return SenderTaskPool(new_delivery, sink, senders, name, self._losses.log)

    def _require_sink(self, sink: object) -> None:
        require_sink(sink, self._api_group, asynchronous=True)

    def start_with(self, handler: Handler) -> ThreadedWatcher:
        """Start a watcher with a handler of our own."""
        return self._start(self._name("stream"), handler)

    def bind(self) -> None:
        """The running loop may send."""
        for watcher in self._publisher.watchers:
            bind(watcher)

    def owns_this_thread(self) -> bool:
        """Whether this is a thread of one of the watchers."""
        return self._publisher.owns_this_thread()

    def is_busy_here(self) -> bool:
        """Whether what is to be waited for needs this very thread or task."""
        handlers = [watcher.handler for watcher in self._publisher.watchers]
        task = asyncio.current_task()
        return self.owns_this_thread() or any(
            isinstance(handler, StreamHandler) and handler.is_read_by(task) for handler in handlers
        )

    def flush_until(self, given_up: Callable[[], bool], deadline: float | None) -> bool:
        """Wait."""
        return self._publisher.flush(deadline, given_up)

    def nudge(self) -> None:
        """Let whoever waits ask again whether the wait is given up."""
        self._publisher.nudge()

    def begin_shutdown(self, deadline: float) -> Callable[[float | None], int]:
        """Hurry; what then waits for the end."""
        return self._end_shutdown if self._publisher.begin_shutdown(deadline) else self._await_shutdown

    def _end_shutdown(self, deadline: float | None) -> int:
        until = monotonic() if deadline is None else deadline
        given_up = self._publisher.end_shutdown(until)
        self._await_tasks(until)
        return given_up

    def _await_shutdown(self, deadline: float | None) -> int:
        until = monotonic() if deadline is None else deadline
        given_up = self._publisher.shutdown(until)
        self._await_tasks(until)
        return given_up

    def _await_tasks(self, deadline: float) -> None:
        for watcher in self._publisher.watchers:
            await_tasks(watcher, deadline)


class AsyncBroadcaster(Generic[E]):
    """The face: as :class:`Broadcaster`, for coroutines."""

    def __init__(self, core: TaskBroadcaster[E]) -> None:
        """If a loop runs, what is started already lives there."""
        self._core = core
        self._watchers: weakref.WeakValueDictionary[str, Watcher] = weakref.WeakValueDictionary()
        core.bind()

    # -- watchers ------------------------------------------------------------------------------------------------

    def start_logging(self, logf: Callable[..., object]) -> Watcher:
        """Log each event through a printf-like function, in a thread of its own (client-go: ``StartLogging``).

        Args:
            logf: Called with a format and its arguments, as ``logger.info``.

        Raises:
            TypeError: If it is a coroutine function.
        """
        return self._shown(self._core.start_logging(logf))

    def start_structured_logging(self, level: int = logging.INFO, *, logger: logging.Logger | None = None) -> Watcher:
        """Log each event with its fields as ``extra`` (client-go: ``StartStructuredLogging``).

        Args:
            level: Of the records.
            logger: Without one, the logger ``kevents.events``.
        """
        return self._shown(self._core.start_structured_logging(level, logger=logger))

    @overload
    def start_event_watcher(self) -> EventStream[E]: ...

    @overload
    def start_event_watcher(self, handler: Callable[[E], object]) -> Watcher: ...

    def start_event_watcher(self, handler: Callable[[E], object] | None = None) -> Watcher:
        """Iterate over the events, or call a handler with each, in a thread (client-go: ``StartEventWatcher``).

        Args:
            handler: A plain function; what it raises is counted and logged. None: the watcher is an
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
        return self._shown(self._core.start_event_watcher(handler))

    def _shown(self, watcher: ThreadedWatcher) -> Watcher:
        return self._watchers.setdefault(watcher.name, Watcher(watcher))

    # -- the end -------------------------------------------------------------------------------------------------

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything recorded before the call has ended, in every watcher.

        It can be cancelled, as by ``asyncio.wait_for``.

        Args:
            timeout: Seconds; None: as long as it takes.

        Returns:
            True when all of it was delivered, or dropped for a reason; False at the time-out, and at once where it
            cannot be waited for: in a thread of one of the watchers, in a sink, in the task that reads a stream.
        """
        self._core.bind()
        if is_in_kevents() or self._core.is_busy_here():
            return False
        given_up = threading.Event()
        try:
            flushed = in_thread(
                "kevents-flush",
                partial(self._core.flush_until, given_up.is_set),
                None if timeout is None else monotonic() + timeout,
            )
            return await watched(flushed, self._core.bind)
        finally:
            given_up.set()
            self._core.nudge()

    async def shutdown(self, timeout: float = 5.0) -> int:
        """Take no more events, deliver what there is, and end; close what kevents opened (client-go: ``Shutdown``).

        A second call waits for the first; one that is cancelled goes on by itself. Events recorded from now on are
        dropped and counted.

        Args:
            timeout: Seconds after which what is left is given up, requests that are under way too.

        Returns:
            How many events were given up, over all watchers; 0 for every call but the first, and at once where it
            cannot be waited for: in a sink.
        """
        self._core.bind()
        deadline = monotonic() + timeout
        end = self._core.begin_shutdown(deadline)
        if self._core.owns_this_thread():
            return end(deadline)
        given_up = in_thread("kevents-shutdown", end, deadline)
        return 0 if is_in_kevents() else await watched(given_up, self._core.bind)

    def statistics(self) -> Statistics:
        """A snapshot of the ledgers, each exact in itself."""
        return self._core.statistics()

    async def __aenter__(self) -> Self:
        """Itself."""
        self._core.bind()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        await self.shutdown()
