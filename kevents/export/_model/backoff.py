"""The back-off of the export's retries: exponential, capped, with full jitter."""

from __future__ import annotations

import random


class Backoff:
    """Waits that grow with each failure in a row: at most `first` seconds, then twice that, up to `longest`.

    Args:
        first: The upper limit of the first wait, in seconds.
        longest: The upper limit of every wait, in seconds.
        jitter: True: each wait is a random part of its limit, so that clients do not retry together. False: each wait
            is its limit.

    Attributes:
        failures: The number of failures since the last success.
    """

    __slots__ = ("_first", "_jitter", "_longest", "failures")

    def __init__(self, first: float = 0.5, longest: float = 60.0, *, jitter: bool = True) -> None:
        """Start without a failure."""
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self.failures = 0

    def next(self, asked: float | None = None) -> float:
        """Count a failure and return the seconds to wait.

        Args:
            asked: Seconds for which the server asks not to be called (``Retry-After``): the least wait. None: it does
                not ask.
        """
        limit = min(self._longest, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        wait = random.uniform(0, limit) if self._jitter else limit  # noqa: S311 - no secret
        return max(wait, asked or 0.0)

    def reset(self) -> None:
        """Start again at the first wait, after a success."""
        self.failures = 0
