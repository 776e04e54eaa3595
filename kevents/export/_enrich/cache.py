"""The cache of objects' metadata, and the running requests that fill it: one at a time per object (single flight).

Metadata that was read at one resourceVersion answers for every event that refers to the object by this version or an
older one: the author of such an event had seen no newer state. So an object that changes is read once for each change
that an event refers to, and an unchanged one is read once. An object that is gone, or whose name another object has,
never comes back under its UID.

A reference without a UID has only a name, and a moment later another object may have this name. Then an answer holds
only for events that were read before the request. Nodes, which the kubelet refers to in this way, are trusted for 10 s.
"""

from __future__ import annotations

import threading
from typing import Any, Final

from cachetools import LRUCache

from kevents.export._enrich.discovery import Found, Reference, is_given_by_server
from kevents.export._enrich.fetcher import Flight, Refusal
from kevents.export._model.position import number_of

LIVE: Final = "live"
TERMINATING: Final = "terminating"
GONE: Final = "gone"
REPLACED: Final = "replaced"
FORBIDDEN: Final = "forbidden"
SKIPPED: Final = "skipped"
STATES: Final = (LIVE, TERMINATING, GONE, REPLACED, FORBIDDEN, SKIPPED)

_BYTES_PER_PLACE: Final = 16_384


class Entry:
    """The known metadata of one object; only its top owner is added later."""

    __slots__ = ("about", "asked", "asked_at", "fields", "found", "state", "top", "top_until")

    def __init__(
        self, state: str, found: Found | None = None, *, stale: bool = False, asked: str = "", asked_at: float = 0.0
    ) -> None:
        self.state = state  # one of `STATES`
        self.found = found  # its metadata; None if it was never read
        self.asked = asked  # the resourceVersion of the event for which it was read
        self.asked_at = asked_at
        self.about = {"state": state, "stale": stale}  # the value of an event's `kevents.object`
        self.fields: dict[str, Any] = {}  # added to an event's `involvedObject`
        if found is not None:
            known = {"labels": found.labels, "annotations": found.annotations, "ownerReferences": found.owners}
            self.fields = {key: value for key, value in known.items() if value}
        if state not in (FORBIDDEN, SKIPPED):
            self.fields["deleted"] = state != LIVE
        self.top: dict[str, Any] | None = None  # the object's top owner, if it was looked up
        self.top_until = float("-inf")  # the end of its life, in seconds by the monotonic clock

    @property
    def ended(self) -> bool:
        """True if the object with this UID no longer exists."""
        return self.state in (GONE, REPLACED)


_NEVER_SEEN: Final = {state: Entry(state) for state in (FORBIDDEN, SKIPPED)}


class Cache:
    """The most recently used objects, and the running requests for others. Several threads may use it.

    An object with long metadata counts as several. Four times as many objects that are gone are remembered besides.
    """

    def __init__(self, size: int, life: float = 60.0, node_life: float = 10.0) -> None:
        self.reads = 0  # the number of objects that the server was asked for
        self._life = life  # seconds for which an entry answers a reference without a resourceVersion
        self._node_life = node_life  # seconds for which it answers a reference to a Node without a UID
        self._size = size
        self._lock = threading.RLock()  # guards the entries and the flights; never held while waiting
        self._alive: LRUCache[Reference, Entry] = LRUCache(size, getsizeof=self._places)
        self._ended: LRUCache[Reference, Entry] = LRUCache(size * 4)
        self._flights: dict[Reference, Flight] = {}

    def __len__(self) -> int:
        """The number of objects, without those that are gone."""
        return len(self._alive)

    def look(self, reference: Reference, rv: str, read_at: float, now: float) -> Entry | None:
        """Return the entry that answers a reference; None if the object must be read. Times are monotonic seconds."""
        with self._lock:
            entry = self._alive.get(reference) or self._ended.get(reference)
        if entry is None or not self._answers(entry, reference, rv, read_at, now):
            return None
        return entry

    def last(self, reference: Reference, state: str) -> Entry:
        """Return the last known metadata of an object that cannot be read now, with the reason as its state."""
        entry = self._last(reference)
        if entry is None or entry.found is None:
            return _NEVER_SEEN[state]
        return Entry(state, entry.found, stale=True)

    def put(self, reference: Reference, found: Found | None, rv: str, asked_at: float) -> Entry:
        """Store an answer of the server: the object that has the name now, None if there is none."""
        with self._lock:
            if found is not None and found.stands_for(reference.uid):
                state = TERMINATING if found.terminating else LIVE
                entry = Entry(state, found, asked=rv, asked_at=asked_at)
            else:
                before = self._last(reference)
                known = before.found if before is not None else None
                state = GONE if found is None else REPLACED
                entry = Entry(state, known, stale=known is not None, asked=rv, asked_at=asked_at)
            stored, other = (self._ended, self._alive) if entry.ended else (self._alive, self._ended)
            other.pop(reference, None)
            stored[reference] = entry
            return entry

    def request(self, reference: Reference, rv: str, deadline: float) -> tuple[Flight, bool]:
        """Return the running request for an object, or a new one, and whether it is new."""
        with self._lock:
            flight = self._flights.get(reference)
            if flight is not None:
                flight.deadline = max(flight.deadline, deadline)
                return flight, False
            flight = self._flights[reference] = Flight(reference, deadline, lambda landed: self._land(landed, rv))
            return flight, True

    def refused(self, flight: Flight) -> Entry | None:
        """Return the answer of a request that the server did not answer; None: it came too late."""
        if flight.outcome is None or flight.outcome is Refusal.LATE:
            return None
        return self.last(flight.reference, FORBIDDEN if flight.outcome is Refusal.FORBIDDEN else SKIPPED)

    def _land(self, flight: Flight, rv: str) -> None:
        """Store the answer; called by the fetcher's thread before the flight ends."""
        reference, asked_at = flight.reference, flight.asked_at
        with self._lock:
            self._flights.pop(reference, None)
            self.reads += flight.asked
            if flight.answered:
                found = flight.outcome if isinstance(flight.outcome, Found) else None
                self.put(reference, found, rv, asked_at)
                if found is not None and found.uid and found.uid != reference.uid:  # the object that has the name now
                    self.put(reference._replace(uid=found.uid), found, "", asked_at)
            if self._alive.currsize + len(flight.others) <= self._size:  # no other entry gives way
                for other, found in flight.others:
                    self.put(other, found, "", asked_at)

    def _last(self, reference: Reference) -> Entry | None:
        """Return the last entry of an object with a UID, however old."""
        if not reference.uid:
            return None
        with self._lock:
            return self._alive.get(reference) or self._ended.get(reference)

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
        return min(1 + size // _BYTES_PER_PLACE, self._size)


def covers(fetched: str, rv: str) -> bool:
    """True if metadata at one resourceVersion answers for another."""
    have, wanted = number_of(fetched), number_of(rv)
    return fetched == rv or (have is not None and wanted is not None and have >= wanted)
