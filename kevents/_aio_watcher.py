"""Watchers as coroutines know them: stopped with ``await``, and iterated over."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from kevents._aio_stream import StreamHandler
from kevents._aio_tasks import TaskCrew
from kevents._aio_threads import in_thread
from kevents._log import is_speaking
from kevents._watcher import Watcher as ThreadedWatcher

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from kevents._objects import Event
    from kevents._statistics import WatcherStatistics


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
        return 0 if is_speaking() else await stopped

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


class EventStream(Watcher):
    """A watcher whose events are iterated over: ``async for event in stream``; it ends when the watcher is stopped.

    One who iterates too slowly misses events: what does not fit into the mailbox is dropped as ``queue_full``, and
    counted. What was recorded before the end can be taken after it. Stop a stream that nobody reads any more.

    .. versionadded:: 0.1
    """

    def __init__(self, watcher: ThreadedWatcher, handler: StreamHandler) -> None:
        """Broadcasters make streams."""
        super().__init__(watcher)
        self._handler = handler

    def __aiter__(self) -> EventStream:
        """Itself."""
        return self

    async def __anext__(self) -> Event:
        """The next event."""
        event = await self._handler.next()
        if event is None:
            raise StopAsyncIteration
        return event


def bind(watcher: ThreadedWatcher) -> None:
    """Its tasks may live in the running loop."""
    if isinstance(watcher.handler, TaskCrew):
        watcher.handler.bind()


def await_tasks(watcher: ThreadedWatcher, deadline: float) -> None:
    """Wait until its tasks have ended."""
    if isinstance(watcher.handler, TaskCrew):
        watcher.handler.await_end(deadline)
