"""A passive token bucket: it is asked, it never waits (client-go: ``PassiveRateLimiter``).

Tokens are kept as credit in nanoseconds, one token being the time in which one is refilled: integers make a
decision exact however long the bucket lives, where tokens in floating point drift.
"""

from __future__ import annotations

from functools import lru_cache

NANO = 1_000_000_000


@lru_cache(maxsize=64)
def _interval_and_capacity(qps: float, burst: int) -> tuple[int, int]:
    interval = max(1, round(NANO / qps))
    return interval, burst * interval


class TokenBucket:
    """``burst`` tokens at first, ``qps`` tokens a second refilled up to ``burst``.

    Args:
        qps: Tokens a second, above 0.
        burst: The largest number of tokens, at least 1.
        now: The present, in nanoseconds of any clock.
    """

    __slots__ = ("_capacity", "_credit", "_interval", "_last")

    def __init__(self, qps: float, burst: int, now: int) -> None:
        """Make it full."""
        self._interval, self._capacity = _interval_and_capacity(qps, burst)
        self._credit = self._capacity
        self._last = now

    def try_accept(self, now: int) -> bool:
        """Take a token if there is one. A clock that went back refills nothing, and counts on from there."""
        elapsed = now - self._last
        self._last = now
        credit = self._credit
        if elapsed > 0:
            credit += elapsed
            if credit > self._capacity:  # noqa: PLR1730 - min() costs as much as all the rest
                credit = self._capacity
        accepted = credit >= self._interval
        self._credit = credit - self._interval if accepted else credit
        return accepted
