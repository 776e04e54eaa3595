"""How many requests a second may be made: who asks is told how long to wait, or that it would be too long."""

from __future__ import annotations


class RateLimiter:
    """At most ``rate`` requests a second, ``burst`` of them at once; not for several threads.

    Unlike the recorder's bucket it says when the next request may go, so that nobody has to ask again and again.

    Args:
        rate: Requests a second, above 0.
        burst: How many may go at once after a rest, at least 1.
    """

    __slots__ = ("_due", "_held", "_interval", "_slack")

    def __init__(self, rate: float, burst: int) -> None:
        """Begin rested."""
        self._interval = 1.0 / rate
        self._slack = (burst - 1) * self._interval
        self._due = float("-inf")
        self._held = float("-inf")

    def reserve(self, now: float, patience: float) -> float | None:
        """Take the next place.

        Args:
            now: The present, in seconds of any clock.
            patience: The longest wait, in seconds.

        Returns:
            For how many seconds to wait before the request; None if that were longer than the patience: then no place
            is taken.
        """
        due = max(self._due, now)
        wait = max(due - self._slack - now, self._held - now, 0.0)
        if wait > patience:
            return None
        self._due = due + self._interval
        return wait

    def hold(self, until: float) -> None:
        """Let no request go before a moment: the server asked for it, or cannot be reached."""
        self._held = max(self._held, until)
