"""One action at a time in the process, also against oneself.

A signal handler or a finaliser may record in the middle of anything, in the thread that is just recording. The lock
is re-entrant, so that no thread waits for itself, and an action that comes in the middle of another is put off to the
other's end, so that none sees half of what another does.
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
    """Seconds until a deadline, as a wait on a lock takes them; None: for ever."""
    return None if deadline is None else min(max(0.0, deadline - monotonic()), threading.TIMEOUT_MAX)


class ReentrantSection:
    """Runs actions under one lock, then what they left to be done outside it."""

    __slots__ = ("_after", "_busy", "_later", "_serial", "lock")

    def __init__(self) -> None:
        """Free."""
        self._serial = 0
        self.renew()

    def renew(self) -> None:
        """Be free again, with nothing put off: after a fork, where another thread may have held the lock."""
        self.lock = threading.RLock()
        self._busy = False
        self._later: deque[Callable[[], None]] = deque()
        self._after: deque[Callable[[], None]] = deque()

    def run(self, action: Callable[[A], None], argument: A) -> None:
        """Run a short action now, or at the end of the one that this thread is in the middle of."""
        try:
            with self.lock:
                if self._busy:
                    self._later.append(partial(action, argument))
                    return
                try:
                    self._busy = True
                    while self._later:  # put off in the moment when the turn before was already ending
                        self._later.popleft()()
                    action(argument)
                    while self._later:
                        self._later.popleft()()
                finally:
                    self._busy = False
        finally:
            if self._after or self._later:
                self.run_deferred()

    def run_deferred(self) -> None:
        """Do what was left, unless this thread is in the middle of another turn, which will do it."""
        if self.is_mine():
            return
        if self._later:
            self.run(_nothing, None)
        for _ in range(len(self._after)):
            try:
                what = self._after.popleft()
            except IndexError:  # another thread was quicker
                return
            what()

    def is_mine(self) -> bool:
        """Whether the calling thread holds the lock: a signal handler or a finaliser, which then must not wait."""
        return self.lock._is_owned()  # type: ignore[attr-defined, no-any-return] # noqa: SLF001

    def defer(self, what: Callable[[], None]) -> None:
        """From within an action: do this, which may wait or log, when the lock is free."""
        self._after.append(what)

    def serial(self, time: int) -> int:
        """From within an action: the next serial number, which is the time unless that has not grown."""
        serial = self._serial + 1
        if time > serial:  # noqa: PLR1730 - max() costs as much as all the rest
            serial = time
        self._serial = serial
        return serial


def _nothing(_: None) -> None:
    """Take a turn only for what was put off."""


SECTION: Final = ReentrantSection()
"""One for the process: serial numbers grow strictly over all broadcasters."""
