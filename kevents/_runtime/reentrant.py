"""The parts that let an event be recorded at any moment: by a signal handler, by a finaliser, where the stack ends.

Recording takes no lock. It changes shared data only by steps that the interpreter never interrupts: an append to a
deque, a step of ``itertools.count``. A signal handler or a finaliser that records comes between two such steps, as
another thread does, so that no call waits for another or sees its intermediate state.

Two moments do not allow every call. Where the stack ends, no function can be called. Where the thread holds the lock of
the watchers, a log handler could deadlock. Such calls are left in ``postponed``, by the operator ``+=``, because a
method call needs a frame. The next call of kevents makes them.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Final

MILLISECOND: Final = 1 << 20
"""Nanoseconds of about a millisecond: the step of the times in serial numbers."""

JOIN_TIMEOUT: Final = 0.1
"""Seconds to wait for a thread without work left: Python up to 3.11 may crash if one ends during interpreter exit."""


def time_left(deadline: float | None) -> float | None:
    """Seconds until a deadline, as a timeout for locks. None means no timeout."""
    return None if deadline is None else min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)


def spawn(thread: threading.Thread, fallback: Callable[[], None], then: Callable[[], object] = bool) -> None:
    """Start a thread from a bare thread, without waiting; then call ``then``.

    ``Thread.start`` waits on locks that a signal handler may have interrupted. If only the bare thread can be started,
    it runs ``fallback``. If not even that, this raises RuntimeError.
    """

    def start() -> None:
        try:
            thread.start()
        except RuntimeError:
            fallback()
        then()

    _thread.start_new_thread(start, ())


def join(thread: threading.Thread, seconds: float = JOIN_TIMEOUT) -> None:
    """Wait for the end of a thread if it has started."""
    if thread.is_alive():
        thread.join(max(seconds, 0.0))


class Counter:
    """A number that only grows. Any code may add 1 at any moment, without a lock: ``next(counter.steps)``."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = count()

    @property
    def value(self) -> int:
        return int(repr(self.steps)[len("count(") : -1])  # the only way to read it without a step


class Shared:
    """The state that all broadcasters and watchers of the process share."""

    def __init__(self) -> None:
        # The latest time of an event, rounded up to about a millisecond. A serial number is this time plus a count, so
        # that serial numbers differ and grow in each thread, also if the clock stands still or is set back.
        self.serial_time = 0
        self.reset()

    def reset(self) -> None:
        """Replace the lock and drop postponed calls: after a fork, another thread may have held the lock."""
        self.lock = threading.RLock()  # guards the states of broadcasters and watchers. Recording never takes it
        self.postponed: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        # Random, because forked processes record about the same objects within the same millisecond.
        self.numbers = count(int.from_bytes(os.urandom(4), "big") % MILLISECOND)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function that may wait or log, or postpone the call."""
        self.postponed.append((function, arguments))
        self.run_postponed()

    def run_postponed(self) -> None:
        """Make the postponed calls. Does nothing while this thread holds the lock."""
        if not self.postponed or self.is_held_here():
            return
        for _ in range(len(self.postponed)):
            try:
                function, arguments = self.postponed.popleft()
            except IndexError:  # another thread took it
                return
            try:
                function(*arguments)
            except RecursionError:
                self.postponed += ((function, arguments),)

    def is_held_here(self) -> bool:
        """True if the calling thread holds the lock: a signal handler or a finaliser that must not wait."""
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return] # noqa: SLF001


SHARED: Final = Shared()
"""One for the process: serial numbers differ over all broadcasters."""
