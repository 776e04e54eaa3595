"""A clock that stands still until it is told otherwise."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Final

__all__ = ["FakeClock"]

_NANO: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class FakeClock:
    """Gives nanoseconds, for ``clock=`` of a broadcaster, of ``CorrelatorOptions``, a ``FakeSink`` or an ``APIServer``.

    What takes no clock goes by the system's: the waits between tries, ``max_age`` and the times of series.

    Args:
        start: Where it stands first: an aware datetime, or nanoseconds since the epoch.

    Example:
        >>> clock = FakeClock()
        >>> clock.advance(300)
        >>> print(clock.now)
        2026-01-01 00:05:00+00:00

    .. versionadded:: 0.1
    """

    def __init__(self, start: datetime | int = datetime(2026, 1, 1, tzinfo=timezone.utc)) -> None:
        """Stand still."""
        self._lock = threading.Lock()
        self._now = _nanoseconds(start)

    def __call__(self) -> int:
        """The moment, in nanoseconds since the epoch."""
        return self._now

    @property
    def now(self) -> datetime:
        """The moment, for people; exact to the microsecond."""
        return _EPOCH + timedelta(microseconds=self._now // 1000)

    def advance(self, seconds: float) -> None:
        """Go on by so many seconds; by a negative number, go back, as a wall clock may."""
        with self._lock:
            self._now += round(seconds * _NANO)

    def set(self, when: datetime | int) -> None:
        """Stand at another moment: an aware datetime, or nanoseconds since the epoch."""
        self._now = _nanoseconds(when)

    def __repr__(self) -> str:
        """Where it stands."""
        return f"<FakeClock {self.now.isoformat()}>"


def _nanoseconds(when: datetime | int) -> int:
    if isinstance(when, int):
        return when
    if when.tzinfo is None:
        raise ValueError(f"datetime without a zone: {when!r}; use an aware one, as datetime.now(timezone.utc)")
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000
