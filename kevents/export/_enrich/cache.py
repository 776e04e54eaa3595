"""What is known of the objects that events are about, and for which question it still is the answer.

An object's metadata, read when it had a resourceVersion, answers for every event that refers to it by that
resourceVersion or an older one: nobody who wrote such an event had seen a newer state. So an object that changes is
read once for a change that an event speaks of, and one that does not change is read once. An object that is gone, or
whose name another one has, never comes back under its UID: that is remembered without a reading's room.

Without a UID a name is all there is, and an object of that name may be another one a moment later: then an answer
holds for what was read before it was asked for. Nodes, which the kubelet refers to so, are trusted for ten seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from cachetools import LRUCache

from kevents.export._enrich.fetcher import Forbidden, Gone, Late, Outcome
from kevents.export._enrich.metadata import Found, Reference, is_given_by_server

LIVE: Final = "live"
TERMINATING: Final = "terminating"
GONE: Final = "gone"
REPLACED: Final = "replaced"
FORBIDDEN: Final = "forbidden"
SKIPPED: Final = "skipped"
STATES: Final = (LIVE, TERMINATING, GONE, REPLACED, FORBIDDEN, SKIPPED)

_UNVERSIONED_LIFE = 60.0
_NODE_LIFE = 10.0
_BYTES_A_PLACE = 16_384
_ENDED_FOR_EACH = 4


class Entry:
    """What is known of one object; never changed, but for the top owner that is found later.

    Args:
        state: One of `STATES`.
        found: Its metadata, None if it was never seen.
        stale: Whether the metadata may be older than the state.
        asked: The resourceVersion for whose sake it was read.
        asked_at: When the request was sent, in seconds by the monotonic clock: it holds what was so then, or later.

    Attributes:
        fields: What an event's ``involvedObject`` is completed with.
        about: What an event's ``kevents.object`` becomes.
        top: The object's top owner, as far as it was looked for.
        top_until: Until when that holds, in seconds by the monotonic clock.
    """

    __slots__ = ("about", "asked", "asked_at", "fields", "found", "state", "top", "top_until")

    def __init__(
        self, state: str, found: Found | None = None, *, stale: bool = False, asked: str = "", asked_at: float = 0.0
    ) -> None:
        """Prepare what events are completed with."""
        self.state = state
        self.found = found
        self.asked = asked
        self.asked_at = asked_at
        self.about = {"state": state, "stale": stale}
        self.fields = _fields(state, found)
        self.top: dict[str, Any] | None = None
        self.top_until = float("-inf")

    def aged(self, state: str) -> Entry:
        """The same object in another state, of which only this older reading is known."""
        return Entry(state, self.found, stale=self.found is not None)

    @property
    def ended(self) -> bool:
        """Whether the object with this UID is no more."""
        return self.state in (GONE, REPLACED)


def _fields(state: str, found: Found | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if found is not None:
        known = {"labels": found.labels, "annotations": found.annotations, "ownerReferences": found.owners}
        fields = {key: value for key, value in known.items() if value}
    if state not in (FORBIDDEN, SKIPPED):
        fields["deleted"] = state != LIVE
    return fields


class Cache:
    """Remembers the most recently used objects; not for several threads.

    Args:
        size: How many objects; one whose metadata is long counts as several. Of those that are gone four times as
            many are remembered besides.
        life: For how long a reading answers for a reference without a resourceVersion, in seconds.
        node_life: For how long it answers for a reference to a Node without a UID, in seconds.
    """

    def __init__(self, size: int, life: float = _UNVERSIONED_LIFE, node_life: float = _NODE_LIFE) -> None:
        """Know nothing."""
        self._life = life
        self._node_life = node_life
        self._size = size
        self._alive: LRUCache[Reference, Entry] = LRUCache(size, getsizeof=self._places)
        self._ended: LRUCache[Reference, Entry] = LRUCache(size * _ENDED_FOR_EACH)

    def look(self, reference: Reference, rv: str, read_at: float, now: float) -> Entry | None:
        """Give what is known, if it is the answer.

        Args:
            reference: Which object.
            rv: The resourceVersion that the event refers to, empty if it names none.
            read_at: When the event was read, in seconds by the monotonic clock.
            now: The present by the same clock.

        Returns:
            None if the object is to be read.
        """
        entry = self._alive.get(reference) or self._ended.get(reference)
        if entry is None or not self._answers(entry, reference, rv, read_at, now):
            return None
        return entry

    def last(self, reference: Reference) -> Entry | None:
        """Give the last that was known of an object with a UID, however old."""
        if not reference.uid:
            return None
        return self._alive.get(reference) or self._ended.get(reference)

    def put(self, reference: Reference, found: Found | None, rv: str, asked_at: float) -> Entry:
        """Remember what the server said.

        Args:
            reference: Which object was asked for.
            found: What has its name now; None if nothing has.
            rv: The resourceVersion for whose sake it was read.
            asked_at: When the request was sent.
        """
        entry = self._entry(reference, found, rv, asked_at)
        if entry.ended:
            self._alive.pop(reference, None)
            self._ended[reference] = entry
        else:
            self._ended.pop(reference, None)
            self._alive[reference] = entry
        return entry

    def __len__(self) -> int:
        """How many objects are remembered, without those that are gone."""
        return len(self._alive)

    def _entry(self, reference: Reference, found: Found | None, rv: str, asked_at: float) -> Entry:
        if found is not None and found.stands_for(reference.uid):
            state = TERMINATING if found.terminating else LIVE
            return Entry(state, found, asked=rv, asked_at=asked_at)
        before = self.last(reference)
        known = before.found if before is not None else None
        state = GONE if found is None else REPLACED
        return Entry(state, known, stale=known is not None, asked=rv, asked_at=asked_at)

    def _answers(self, entry: Entry, reference: Reference, rv: str, read_at: float, now: float) -> bool:
        age = now - entry.asked_at
        uid = reference.uid
        if not uid:
            return read_at <= entry.asked_at or (reference.kind == "Node" and age < self._node_life)
        if entry.found is None or entry.ended:
            return is_given_by_server(uid) or age < self._life
        if not rv:
            return age < self._life
        return rv == entry.asked or covers(entry.found.rv, rv) or (not rv.isdecimal() and age < self._life)

    def _places(self, entry: Entry) -> int:
        size = entry.found.size if entry.found is not None else 0
        return min(1 + size // _BYTES_A_PLACE, self._size)


def covers(fetched: str, rv: str) -> bool:
    """Whether a reading shows what had a resourceVersion: they compare as whole numbers, of any length."""
    if fetched == rv:
        return True
    if not (_is_number(fetched) and _is_number(rv)):
        return False
    return (len(rv), rv) < (len(fetched), fetched)


def _is_number(rv: str) -> bool:
    return rv.isascii() and rv.isdigit() and rv[0] != "0"


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
