"""The threads' broadcaster with tasks for senders, and its waits one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from kevents._aio_stream import StreamHandler
from kevents._aio_tasks import TaskCrew
from kevents._aio_watcher import await_tasks, bind
from kevents._broadcaster import EventBroadcaster
from kevents._checks import require_async_sink

if TYPE_CHECKING:
    from kevents._delivery import Delivery
    from kevents._handlers import Handler
    from kevents._watcher import Watcher


class TaskBroadcaster(EventBroadcaster):
    """The inside of an asynchronous broadcaster."""

    def _new_crew(self, new_delivery: Callable[..., Delivery], sink: Any, senders: int, name: str) -> Handler:  # noqa: ANN401
        return TaskCrew(new_delivery, sink, senders, name, self._losses.log)

    def _require_sink(self, sink: object) -> None:
        require_async_sink(sink)

    def start_with(self, handler: Handler) -> Watcher:
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
        self._publisher.await_shutdown(until)
        self._await_tasks(until)
        return 0

    def _await_tasks(self, deadline: float) -> None:
        for watcher in self._publisher.watchers:
            await_tasks(watcher, deadline)
