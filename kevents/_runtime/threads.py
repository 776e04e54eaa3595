"""Threads that can be started and woken from any code.

``Thread.start`` waits on locks that a signal handler may interrupt, so a worker is started from a bare thread. It is
woken through a bare lock: the only primitive that a signal handler or a finaliser may release at any moment.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kevents._runtime.reentrant import ReentrantSection

JOIN_TIMEOUT: Final = 0.1
"""Seconds to wait for a thread without work left: Python up to 3.11 may crash if one ends during interpreter exit."""
_BATCH_WAIT = 0.005
"""Seconds that a woken worker waits for more events, so that a burst costs one wake-up."""


def spawn(thread: threading.Thread, fallback: Callable[[], None], then: Callable[[], object] = bool) -> None:
    """Start a thread from a bare thread, without waiting; then call ``then``.

    If only the bare thread can be started, it runs ``fallback``.

    Raises:
        RuntimeError: If not even the bare thread can be started.
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


class State(Enum):
    """State of a worker. BATCHING: woken, and waiting a few milliseconds for more events."""

    ABSENT = "absent"
    STARTING = "starting"
    AWAKE = "awake"
    IDLE = "idle"
    BATCHING = "batching"


class Worker:
    """Runs one function in a thread of its own. Its state changes under the section's lock.

    Args:
        name: Name of the thread.
        section: Provides the lock.
        prepare: Called before the thread starts. May raise RuntimeError to postpone the start.
        work: The function. It calls :meth:`idle` and :meth:`sleep` when it has nothing to do, and sets ``ended``.

    Attributes:
        flushing: Number of callers that flush or stop the worker. It does not wait for more events meanwhile.
        changed: Notified when the worker ends or processes events.
    """

    def __init__(
        self, name: str, section: ReentrantSection, prepare: Callable[[], None], work: Callable[[], None]
    ) -> None:
        """Create a worker without a thread."""
        self._name = name
        self._section = section
        self._prepare = prepare
        self._work = work
        self.reset()

    def reset(self) -> None:
        """Return to the state without a thread: in a forked child the thread is gone."""
        self.state = State.ABSENT
        self.ended = False
        self.flushing = 0
        self.changed = threading.Condition(self._section.lock)
        self._wake = threading.Lock()
        self._wake.acquire()
        self._thread: threading.Thread | None = None
        self._spawned = False
        self._ident = 0

    # -- called by other threads ---------------------------------------------------------------------------------

    def notify(self, *, urgent: bool) -> None:
        """Start or wake the thread for a new event. A BATCHING worker is woken only if urgent. Within a section."""
        if self.state is State.ABSENT:
            self._section.defer(self.start)
            self.state = State.STARTING
        elif self.state is State.IDLE or urgent:
            self.wake()

    def wake(self) -> None:
        """Let the worker process events at once. Under the section's lock."""
        if self.state is State.IDLE or self.state is State.BATCHING:
            if self._wake.locked():
                self._wake.release()
            self.state = State.AWAKE

    def start(self) -> None:
        """Start the thread once. If no thread can be started, as during interpreter exit, the state is ABSENT again."""
        if self._spawned:
            return
        try:
            self._prepare()
            self._thread = threading.Thread(target=self.run, name=self._name, daemon=True)
            spawn(self._thread, self.run)
            self._spawned = True
        except RuntimeError:
            with self._section.lock:
                if self.state is State.STARTING:
                    self.state = State.ABSENT
                self.changed.notify_all()

    def run(self) -> None:
        """Run the function in the calling thread, unless it has started elsewhere or ended."""
        if self._claim():
            me = self._ident = threading.get_ident()
            self._work()
            if self._ident == me:  # otherwise the function forked, and this is the child with a worker of its own
                self._ident = 0

    def _claim(self) -> bool:
        with self._section.lock:
            if self.ended or self.state not in {State.ABSENT, State.STARTING}:
                return False
            self.state = State.AWAKE
            return True

    def owns_this_thread(self) -> bool:
        """True in the worker's thread."""
        return self._ident == threading.get_ident()

    def join(self) -> None:
        """Wait for a thread whose function has returned, at most ``JOIN_TIMEOUT``."""
        if self.ended and self._thread is not None:
            join(self._thread)

    # -- called by the function ----------------------------------------------------------------------------------

    def idle(self) -> None:
        """Mark the worker as idle. Within a section; :meth:`sleep` follows."""
        self.state = State.IDLE

    def sleep(self) -> None:
        """Wait until the worker is woken, then for more events unless a caller flushes."""
        self._wake.acquire()
        with self._section.lock:
            if self.flushing:
                return
            self.state = State.BATCHING
        self._wake.acquire(timeout=_BATCH_WAIT)
        with self._section.lock:
            if self.state is State.AWAKE:  # woken, perhaps just as the wait timed out
                self._wake.acquire(blocking=False)
            self.state = State.AWAKE
