"""Which kinds are not asked for again for a while: the server refused, or fails for them."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

FORBIDDEN_LIFE: Final = 300.0

_MOST = 4096
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_MOST_DOUBLINGS = 6
_EVERYWHERE = ""
_TOO_MANY = 5


class NegativeCache:
    """Remembers refusals by kind; not for several threads.

    A kind that was forbidden in five namespaces, and allowed in none, is taken for forbidden in all.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._forbidden: LRUCache[tuple[str, str], float] = LRUCache(_MOST)
        self._counts: dict[str, int] = {}
        self._allowed: set[str] = set()
        self._failing: dict[str, tuple[int, float]] = {}

    def forbidden(self, resource: str, namespace: str, now: float) -> bool:
        """Whether a kind is known to be forbidden in a namespace."""
        if not self._forbidden:
            return False
        until = max(self._forbidden.get((resource, where), 0.0) for where in (namespace, _EVERYWHERE))
        return now < until

    def failing(self, resource: str, now: float) -> bool:
        """Whether the last requests for a kind failed, and it is too early for another."""
        return bool(self._failing) and now < self._failing.get(resource, (0, 0.0))[1]

    def forbid(self, resource: str, namespace: str, now: float) -> None:
        """The server said 403."""
        self._forbidden[resource, namespace] = now + FORBIDDEN_LIFE
        count = self._counts[resource] = self._counts.get(resource, 0) + 1
        if count >= _TOO_MANY and resource not in self._allowed:
            self._forbidden[resource, _EVERYWHERE] = now + FORBIDDEN_LIFE

    def fail(self, resource: str, now: float) -> None:
        """A request for the kind failed: each time the pause is twice as long, up to a minute."""
        failures = self._failing.get(resource, (0, 0.0))[0]
        pause = min(_FIRST_PAUSE * 2 ** min(failures, _MOST_DOUBLINGS), _LONGEST_PAUSE)
        self._failing[resource] = (failures + 1, now + pause)

    def allow(self, resource: str) -> None:
        """The server answered."""
        self._failing.pop(resource, None)
        self._counts.pop(resource, None)
        self._allowed.add(resource)

    def suspend(self, resource: str, now: float) -> None:
        """The server has no metadata of this kind to give: do not ask again for as long as after a 403."""
        self._failing[resource] = (self._failing.get(resource, (0, 0.0))[0], now + FORBIDDEN_LIFE)
