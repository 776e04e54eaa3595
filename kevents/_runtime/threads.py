"""Threads that can be started from any code.

``Thread.start`` waits on locks that a signal handler may interrupt, so a thread is started from a bare thread.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Final

JOIN_TIMEOUT: Final = 0.1
"""Seconds to wait for a thread without work left: Python up to 3.11 may crash if one ends during interpreter exit."""


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
