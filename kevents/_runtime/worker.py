"""A thread that starts in the middle of anything, parks, and is roused.

It starts from a bare thread, since ``Thread.start`` waits, on locks that a signal handler may interrupt. It is woken
through a bare lock, the one primitive that a signal handler or a finaliser may release in the middle of anything. Once
woken it lingers for a few milliseconds, so that a burst costs one wake-up.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kevents._runtime.reentrant import ReentrantSection

_LINGER = 0.005
A_MOMENT: Final = 0.1
"""Seconds for a thread that has nothing left to do: interpreters up to 3.11 may crash if one ends while they do."""


def spawn(thread: threading.Thread, instead: Callable[[], None], then: Callable[[], object] = bool) -> None:
    """Start a thread from a bare one, which runs ``instead`` if no other is to be had, and at last ``then``.

    Does not wait.

    Raises:
        RuntimeError: If not even a bare one is to be had.
    """
    _thread.start_new_thread(_start, (thread, instead, then))


def _start(thread: threading.Thread, instead: Callable[[], None], then: Callable[[], object]) -> None:
    try:
        thread.start()
    except RuntimeError:
        instead()
    then()


def join(thread: threading.Thread, seconds: float = A_MOMENT) -> None:
    """Wait for the end of a thread, if it has begun."""
    if thread.is_alive():
        thread.join(max(seconds, 0.0))


class State(Enum):
    """What a worker is doing."""

    ABSENT = "absent"
    STARTING = "starting"
    AWAKE = "awake"
    PARKED = "parked"
    LINGERING = "lingering"


class Worker:
    """Runs a function, once, in a thread of its own.

    Args:
        name: The thread's.
        turn: Under whose lock its state changes.
        begin: Called before the thread starts; may raise RuntimeError to put that off.
        work: What it runs; it parks in there, and says when it has ended.

    Attributes:
        state: What it is doing.
        ended: Whether its work has ended.
        hurry: How many want it not to linger.
        changed: A condition with the turn's lock, for whoever waits for its end, or for what it does.
    """

    def __init__(self, name: str, turn: ReentrantSection, begin: Callable[[], None], work: Callable[[], None]) -> None:
        """Not begun."""
        self._name = name
        self._turn = turn
        self._begin = begin
        self._work = work
        self.renew()

    def renew(self) -> None:
        """Not begun, again: in a forked child, where its thread is gone."""
        self.state = State.ABSENT
        self.ended = False
        self.hurry = 0
        self.changed = threading.Condition(self._turn.lock)
        self._wake = threading.Lock()
        self._wake.acquire()
        self._thread: threading.Thread | None = None
        self._spawned = False
        self._ident = 0

    # -- from outside --------------------------------------------------------------------------------------------

    def attend(self, *, pressing: bool = False) -> None:
        """There is something to do, or so much that it must not linger. Within a turn."""
        if self.state is State.ABSENT:
            self.state = State.STARTING
            self._turn.defer(self.start)
        elif self.state is State.PARKED or pressing:
            self.rouse()

    def rouse(self) -> None:
        """Let it look again, at once. Under the turn's lock."""
        if self.state is State.PARKED or self.state is State.LINGERING:
            if self._wake.locked():
                self._wake.release()
            self.state = State.AWAKE

    def start(self) -> None:
        """Start it, unless that was done; if no thread is to be had, which lasts at exit, it is absent again."""
        if self._spawned:
            return
        try:
            self._begin()
            self._thread = threading.Thread(target=self.run, name=self._name, daemon=True)
            spawn(self._thread, self.run)
            self._spawned = True
        except RuntimeError:
            with self._turn.lock:
                if self.state is State.STARTING:
                    self.state = State.ABSENT
                self.changed.notify_all()

    def run(self) -> None:
        """Do its work here, unless that was begun elsewhere or has ended."""
        if self._claim():
            me = self._ident = threading.get_ident()
            self._work()
            if self._ident == me:  # else its work forked, and this is the child, where another may have begun
                self._ident = 0

    def _claim(self) -> bool:
        with self._turn.lock:
            if self.ended or self.state not in {State.ABSENT, State.STARTING}:
                return False
            self.state = State.AWAKE
            return True

    def owns_this_thread(self) -> bool:
        """Whether the calling thread is its own."""
        return self._ident == threading.get_ident()

    def join(self) -> None:
        """Wait a moment for a thread whose work has ended."""
        if self.ended and self._thread is not None:
            join(self._thread)

    # -- from within its work ------------------------------------------------------------------------------------

    def park(self) -> None:
        """There is nothing more to do than what it has in hand. Within a turn; :meth:`sleep` follows."""
        self.state = State.PARKED

    def sleep(self) -> None:
        """Wait to be roused, and then for more to come, unless somebody is in a hurry."""
        self._wake.acquire()
        with self._turn.lock:
            if self.hurry:
                return
            self.state = State.LINGERING
        self._wake.acquire(timeout=_LINGER)
        with self._turn.lock:
            if self.state is State.AWAKE:  # roused, perhaps in the moment when the time was over
                self._wake.acquire(blocking=False)
            self.state = State.AWAKE
