"""One action at a time in the process, also against oneself.

A signal handler or a finaliser may record in the middle of anything, in the thread that is just recording. The lock
is re-entrant, so that nobody waits for himself, and an action that comes in the middle of another is put off to the
other's end, so that none sees half of what another does.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable


class Turn:
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
        self._after: list[Callable[[], None]] = []

    def run(self, action: Callable[[], None]) -> None:
        """Run a short action now, or at the end of the one that this thread is in the middle of."""
        with self.lock:
            if self._busy:
                self._later.append(action)
                return
            self._busy = True
            try:
                action()
            finally:
                self._busy = False
            if self._later:
                self._catch_up()
            after = self._after
            if after:
                self._after = []
        for what in after:
            what()

    def afterwards(self, what: Callable[[], None]) -> None:
        """From within an action: do this, which may wait or log, when the lock is free."""
        self._after.append(what)

    def serial(self, time: int) -> int:
        """From within an action: the next serial number, which is the time unless that has not grown."""
        self._serial = serial = max(time, self._serial + 1)
        return serial

    def _catch_up(self) -> None:
        while self._later:
            action = self._later.popleft()
            self._busy = True
            try:
                action()
            finally:
                self._busy = False
