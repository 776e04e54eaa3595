"""For how long a destination is left alone between two tries."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from tenacity.wait import wait_base

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.export._model.types import Retry

if TYPE_CHECKING:
    from tenacity import RetryCallState

LONGEST_ASKED: Final = 60.0
"""Seconds up to which a destination's own wish to be left alone is followed."""


class wait_as_asked(wait_base):  # noqa: N801 - tenacity's way of naming waits
    """What the destination asks for, else another wait; one that fails is replaced by the default."""

    def __init__(self, wait: wait_base, fallback: wait_base, log: LimitedLog) -> None:
        """Keep the waits."""
        self._wait = wait
        self._fallback = fallback
        self._log = log

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.after if isinstance(error, Retry) else None
        if asked is not None and 0.0 <= asked < inf:
            return min(asked, LONGEST_ASKED)
        try:
            wait = float(self._wait(retry_state))
            if 0.0 <= wait < inf:
                return wait
            trouble = f"gave {wait}, no seconds to wait"
        except Exception as failed:  # noqa: BLE001 - the user's function must not end the destination
            trouble = f"raised {format_error(failed)}"
        self._log.log_limited("retry_wait", f"retry_wait {trouble}; the default decides")
        return float(self._fallback(retry_state))
