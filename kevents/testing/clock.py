"""A clock that tests set by hand."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Final

__all__ = ["FakeClock"]

_NANO: Final = 1_000_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


class FakeClock:
    """A wall clock in nanoseconds that moves only when a test moves it.

    It is for ``clock=`` of a broadcaster, of ``CorrelatorOptions``, of a ``FakeSink`` or of an ``APIServer``. Delays
    between retries, ``max_age`` and the times of series use the system's clock.

    Args:
        start: The initial time: an aware datetime, or nanoseconds since the epoch.

    Example:
        >>> clock = FakeClock()
        >>> clock.advance(300)
        >>> print(clock.now)
        2026-01-01 00:05:00+00:00

    .. versionadded:: 0.1
    """

    def __init__(self, start: datetime | int = datetime(2026, 1, 1, tzinfo=timezone.utc)) -> None:
        """Set the initial time."""
        self._lock = threading.Lock()
        self._now = _nanoseconds(start)

    def __call__(self) -> int:
        """The time in nanoseconds since the epoch."""
        return self._now

    @property
    def now(self) -> datetime:
        """The time as an aware datetime, exact to the microsecond."""
        return _EPOCH + timedelta(microseconds=self._now // 1000)

    def advance(self, seconds: float) -> None:
        """Move the clock forward, or back if ``seconds`` is negative."""
        with self._lock:
            self._now += round(seconds * _NANO)

    def set(self, when: datetime | int) -> None:
        """Set the time: an aware datetime, or nanoseconds since the epoch."""
        self._now = _nanoseconds(when)

    def __repr__(self) -> str:
        """The time as text."""
        return f"<FakeClock {self.now.isoformat()}>"


def _nanoseconds(when: datetime | int) -> int:
    if isinstance(when, int):
        return when
    if when.tzinfo is None:
        raise ValueError(f"datetime without a zone: {when!r}; use an aware one, as datetime.now(timezone.utc)")
    return (when - _EPOCH) // timedelta(microseconds=1) * 1000
