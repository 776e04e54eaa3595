"""Metadata from memory, else from the server: one read at a time for one object, however many threads ask."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kevents.export._enrich.cache import FORBIDDEN, SKIPPED, Cache, Entry
from kevents.export._enrich.fetcher import Forbidden, Gone, Late, Outcome
from kevents.export._enrich.metadata import Found, Reference

Fetch = Callable[[Reference, float], "tuple[Outcome, bool]"]

_NEVER_SEEN = {state: Entry(state) for state in (FORBIDDEN, SKIPPED)}


class SingleFlight:
    """Finds objects for several threads at once.

    Args:
        cache: What is remembered; it belongs to the lookup.
        fetch: Reads from the server.
        clock: The monotonic clock in seconds.

    Attributes:
        reads: How many objects were asked for.
    """

    def __init__(self, cache: Cache, fetch: Fetch, clock: Callable[[], float]) -> None:
        """Ask for nothing yet."""
        self.reads = 0
        self._cache = cache
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()  # guards the cache and the flights; never held while waiting
        self._flights: dict[Reference, _Flight] = {}

    def known(self, reference: Reference, rv: str, read_at: float, now: float) -> Entry | None:
        """Give what is remembered, if it is the answer; asks nobody.

        Args:
            reference: Which object.
            rv: The resourceVersion that the event refers to, empty if it names none.
            read_at: When the event was read, in seconds by the monotonic clock.
            now: The present.
        """
        with self._lock:
            return self._cache.look(reference, rv, read_at, now)

    def find(self, reference: Reference, rv: str, read_at: float, deadline: float) -> Entry | None:
        """Give the answer, from the server if need be; while another thread reads the same object, wait for it.

        Args:
            reference: Which object.
            rv: The resourceVersion that the event refers to.
            read_at: When the event was read.
            deadline: Until when an answer is of use, in seconds by the monotonic clock.

        Returns:
            None if there was none in time.
        """
        while (now := self._clock()) < deadline:
            with self._lock:
                entry = self._cache.look(reference, rv, read_at, now)
                if entry is not None:
                    return entry
                flight = self._flights.get(reference)
                if flight is None:
                    mine = self._flights[reference] = _Flight()
                    break
            if not flight.landed.wait(deadline - now) or flight.failed:
                return flight.entry
        else:
            return None
        return self._lead(mine, reference, rv, deadline)

    def last(self, reference: Reference, state: str) -> Entry:
        """Give what was last known of an object, for which there is no answer now; the state says why."""
        with self._lock:
            entry = self._cache.last(reference)
        if entry is None or entry.found is None:
            return _NEVER_SEEN[state]
        return entry.aged(state)

    def _lead(self, flight: _Flight, reference: Reference, rv: str, deadline: float) -> Entry | None:
        try:
            asked_at = self._clock()
            outcome, asked = self._fetch(reference, deadline)
            flight.entry = self._land(reference, outcome, rv, asked_at)
            with self._lock:
                self.reads += asked
            flight.failed = not isinstance(outcome, Found | Gone)
        finally:
            with self._lock:
                del self._flights[reference]
            flight.landed.set()
        return flight.entry

    def _land(self, reference: Reference, outcome: Outcome, rv: str, asked_at: float) -> Entry | None:
        if isinstance(outcome, Late):
            return None
        if not isinstance(outcome, Found | Gone):
            return self.last(reference, FORBIDDEN if isinstance(outcome, Forbidden) else SKIPPED)
        found = outcome if isinstance(outcome, Found) else None
        with self._lock:
            entry = self._cache.put(reference, found, rv, asked_at)
            if found is not None and found.uid and found.uid != reference.uid:  # what has the name now is known as well
                self._cache.put(reference._replace(uid=found.uid), found, "", asked_at)
        return entry


class _Flight:
    """A read under way, for those who wait for it."""

    __slots__ = ("entry", "failed", "landed")

    def __init__(self) -> None:
        """Begin; it has failed until it has landed with an answer that is remembered."""
        self.landed = threading.Event()
        self.failed = True
        self.entry: Entry | None = None
