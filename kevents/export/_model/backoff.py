"""How long to wait after a failure: longer each time, up to a limit, and never two alike."""

from __future__ import annotations

import random


class Backoff:
    """RetryWaits that grow with each failure in a row: a random part of `first`, of twice that, and so on up to `most`.

    Args:
        first: Seconds that the first wait takes at most.
        most: Seconds that any wait takes at most.
    """

    def __init__(self, first: float, most: float) -> None:
        """No failure yet."""
        self._first = first
        self._most = most
        self.failures = 0

    def next(self, asked: float | None = None) -> float:
        """Give how long to wait after one more failure.

        Args:
            asked: For how many seconds the server asks to be left alone; None if it does not.
        """
        limit = min(self._most, self._first * 2.0 ** min(self.failures, 60))
        self.failures += 1
        return max(random.uniform(0, limit), asked or 0.0)  # noqa: S311 - so that not all ask at once; no secret

    def reset(self) -> None:
        """It went well: the next failure is the first again."""
        self.failures = 0
