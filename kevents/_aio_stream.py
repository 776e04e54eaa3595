"""A watcher's events as an asynchronous iterator: the worker waits until what it handed over was taken."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from kevents._handlers import CallHandler, Handled

if TYPE_CHECKING:
    from kevents._objects import Event

_MOST_AT_ONCE: Final = 64


class StreamHandler(CallHandler):
    """Hands events over to whoever iterates, in any loop; how many may wait is the watcher's mailbox's business."""

    most = _MOST_AT_ONCE

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

    def start(self) -> None:
        """There is nothing to begin here: the loop is told with the first batch."""

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Wait until the events are taken; at the end, only hand them over. In the watcher's worker."""
        with self._taken:
            self._events.extend(batch)
            self._wake()
            self._taken.wait_for(lambda: self._hurried or not self._events)
        return Handled()

    def drain(self, deadline: float) -> None:  # noqa: ARG002
        """Whoever iterates gets what is left, also after the end."""
        with self._taken:
            self._hurried = True
            self._taken.notify_all()

    def finish(self) -> None:
        """Nothing more will come."""
        with self._taken:
            self._over = True
            self._wake()

    def close(self) -> int:
        """What was handed over is not given up."""
        self.finish()
        return 0

    def after_fork(self) -> None:
        """In the child: nothing was handed over yet."""
        self._renew()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            with suppress(RuntimeError):  # its loop has ended
                future.get_loop().call_soon_threadsafe(_release, future)

    async def next(self) -> Event | None:
        """The next event; None after the last."""
        task = asyncio.current_task()
        self._reader = None if task is None else weakref.ref(task)
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
            await future

    def is_read_by(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether a task is the one that iterates: it cannot wait for what it is to take itself."""
        return task is not None and self._reader is not None and self._reader() is task


def _release(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
