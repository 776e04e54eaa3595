"""The only place that polls, for the state of processes that cannot notify the tests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["poll"]

_PAUSE: Final = 0.05


def poll(predicate: Callable[[], object], timeout: float, alive: Callable[[], bool] = lambda: True) -> bool:
    """Poll until the predicate holds, the timeout has passed or the subject has ended. Returns whether it holds.

    Args:
        predicate: The condition.
        timeout: In seconds.
        alive: False once the condition can no longer become true.
    """
    deadline = time.monotonic() + timeout
    while not predicate():
        if not alive() or time.monotonic() > deadline:
            return bool(predicate())
        time.sleep(_PAUSE)
    return True
