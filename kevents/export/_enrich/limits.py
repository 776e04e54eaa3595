"""The limits of requests for metadata: a rate limiter, and a memory of the kinds that the server refuses or fails."""

from __future__ import annotations

from collections import Counter
from typing import Final

from cachetools import LRUCache

from kevents.export._model.options import Backoff

FORBIDDEN_LIFE: Final = 300.0

_MAX_REMEMBERED: Final = 4096
_EVERYWHERE: Final = ""
_FORBIDDEN_EVERYWHERE_FROM: Final = 5


class RateLimiter:
    """At most ``qps`` requests a second, ``burst`` of them at once; not thread-safe.

    It returns the time of the next request, so that callers need not poll.
    """

    __slots__ = ("_due", "_held", "_interval", "_slack")

    def __init__(self, qps: float, burst: int) -> None:
        self._interval = 1.0 / qps
        self._slack = (burst - 1) * self._interval
        self._due = float("-inf")
        self._held = float("-inf")

    def reserve(self, now: float, patience: float) -> float | None:
        """Reserve the next request.

        Returns:
            Seconds to wait before the request; None if that exceeds the patience, and then nothing is reserved.
        """
        due = max(self._due, now)
        wait = max(due - self._slack - now, self._held - now, 0.0)
        if wait > patience:
            return None
        self._due = due + self._interval
        return wait

    def give_back(self) -> None:
        """Cancel a reserved request."""
        self._due -= self._interval

    def hold(self, until: float) -> None:
        """Allow no request before a time: the server asked for it, or cannot be reached."""
        self._held = max(self._held, until)


class NegativeCache:
    """Remembers kinds that the server refuses or fails to read; not thread-safe.

    A kind that is forbidden in five namespaces, and allowed in none, counts as forbidden in all.
    """

    def __init__(self) -> None:
        self._forbidden: LRUCache[tuple[str, str], float] = LRUCache(_MAX_REMEMBERED)
        self._counts: Counter[str] = Counter()
        self._allowed: set[str] = set()
        self._backoffs: dict[str, Backoff] = {}
        self._failing_until: dict[str, float] = {}

    def forbidden(self, resource: str, namespace: str, now: float) -> bool:
        """True if a kind is forbidden in a namespace."""
        if not self._forbidden:
            return False
        until = max(self._forbidden.get((resource, where), 0.0) for where in (namespace, _EVERYWHERE))
        return now < until

    def failing(self, resource: str, now: float) -> bool:
        """True if the last requests for a kind failed, and its pause has not ended."""
        return now < self._failing_until.get(resource, now)

    def forbid(self, resource: str, namespace: str, now: float) -> None:
        """The server answered 403."""
        self._forbidden[resource, namespace] = now + FORBIDDEN_LIFE
        self._counts[resource] += 1
        if self._counts[resource] >= _FORBIDDEN_EVERYWHERE_FROM and resource not in self._allowed:
            self._forbidden[resource, _EVERYWHERE] = now + FORBIDDEN_LIFE

    def fail(self, resource: str, now: float) -> None:
        """A request for the kind failed; each pause is twice as long, up to a minute."""
        backoff = self._backoffs.setdefault(resource, Backoff(1.0, 60.0, jitter=False))
        self._failing_until[resource] = now + backoff.next()

    def allow(self, resource: str) -> None:
        """The server answered."""
        self._failing_until.pop(resource, None)
        self._backoffs.pop(resource, None)
        self._counts.pop(resource, None)
        self._allowed.add(resource)

    def allowed(self, resource: str) -> bool:
        """True if the server has answered for this kind before."""
        return resource in self._allowed

    def suspend(self, resource: str, now: float) -> None:
        """The server has no metadata of this kind: pause as long as after a 403."""
        self._failing_until[resource] = now + FORBIDDEN_LIFE
