"""A critical section that a thread may enter again while it is already in it.

A signal handler or a finaliser may record an event at any moment, also in a thread that is just recording one. The
lock is re-entrant, so the thread does not deadlock. The second action is queued and runs when the first one ends, so
neither sees the other's intermediate state.

The stack may also end at any call. An action that raises RecursionError must have changed nothing. Calls that are
prepared for that are left in ``deferred`` by an operator, ``+=``, because a method call needs a frame.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final, TypeVar

A = TypeVar("A")


def time_left(deadline: float | None) -> float | None:
    """Seconds until a deadline, as a timeout for locks. None means no timeout."""
    return None if deadline is None else min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)


class ReentrantSection:
    """Runs short actions one at a time under a lock, and deferred calls after the lock is released.

    Attributes:
        lock: The lock.
        deferred: Functions that may wait or log, with their arguments.
    """

    __slots__ = ("_queued", "_running", "_serial", "deferred", "lock")

    def __init__(self) -> None:
        """Create a free section."""
        self._serial = 0
        self.reset()

    def reset(self) -> None:
        """Replace the lock and drop queued work: after a fork, another thread may have held the lock."""
        self.lock = threading.RLock()
        self._running = False
        self._queued: deque[Callable[[], None]] = deque()
        self.deferred: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()

    def run(self, action: Callable[[A], None], argument: A) -> None:
        """Run an action now, or after the action that this thread is running already."""
        try:
            with self.lock:
                if self._running:
                    self._queued.append(partial(action, argument))
                    return
                try:
                    self._running = True
                    if self._queued:  # just as the previous action ended
                        self._run_queued()
                    action(argument)
                    if self._queued:
                        self._run_queued()
                finally:
                    self._running = False
        finally:
            if self.deferred or self._queued:
                try:  # noqa: SIM105 - suppress() needs a frame
                    self.run_deferred()
                except RecursionError:  # a later call runs them
                    pass

    def _run_queued(self) -> None:
        while self._queued:
            action = self._queued.popleft()
            try:
                action()
            except RecursionError:
                self._queued += (action,)
                return

    def run_deferred(self) -> None:
        """Run the deferred calls. Does nothing while this thread holds the lock: its outermost ``run`` does it."""
        if self.is_held_here():
            return
        if self._queued:
            self.run(_do_nothing, None)
        for _ in range(len(self.deferred)):
            try:
                function, arguments = self.deferred.popleft()
            except IndexError:  # another thread took it
                return
            try:
                function(*arguments)
            except RecursionError:
                self.deferred += ((function, arguments),)

    def is_held_here(self) -> bool:
        """True if the calling thread holds the lock: a signal handler or a finaliser that must not wait."""
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return] # noqa: SLF001

    def defer(self, function: Callable[..., object], *arguments: object) -> None:
        """Schedule a call that may wait or log. It runs once the lock is free. Use it from within an action."""
        self.deferred.append((function, arguments))

    def next_serial(self, time: int) -> int:
        """The next serial number: the time in nanoseconds, or the last serial plus 1. Use it from within an action."""
        serial = self._serial + 1
        if time > serial:  # noqa: PLR1730 - max() costs as much as the rest
            serial = time
        self._serial = serial
        return serial


def _do_nothing(_: None) -> None:
    """Enter the section only to run what is queued."""


SECTION: Final = ReentrantSection()
"""One for the whole process: serial numbers grow strictly over all broadcasters."""
