"""The one place that asks again and again: for what a process that is not ours knows, and tells nobody of itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["poll"]

_PAUSE: Final = 0.05


def poll(predicate: Callable[[], object], timeout: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Ask until it holds, the time is over, or whom it is about has ended; whether it holds.

    Args:
        predicate: What to ask.
        timeout: In seconds.
        alive: Whether it may still come to hold.
    """
    deadline = time.monotonic() + timeout
    while not predicate():
        if not alive() or time.monotonic() > deadline:
            return bool(predicate())
        time.sleep(_PAUSE)
    return True
