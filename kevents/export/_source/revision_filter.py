"""Decides which revisions of events are new in a stream, and turns them into records."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import msgspec

from kevents.export._model.position import Order, number_of
from kevents.export._model.record import ADDED, MODIFIED, body_of, count_of, key_of, moment
from kevents.export._model.types import Position, Record, Stream

_MAX_REMEMBERED: Final = 100_000
_CLOCK_SKEW: Final = 60_000_000_000
"""Nanoseconds by which the clocks of this machine and the API server may differ without a wrong decision."""


class Series(msgspec.Struct):
    """The decoded part of a series."""

    count: int | None = None


class Metadata(msgspec.Struct):
    """The decoded part of an event's metadata."""

    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815 - the API's name


class EventHeader(msgspec.Struct):
    """The part of a listed event that is decoded before its turn."""

    metadata: Metadata
    count: int | None = None
    series: Series | None = None

    @property
    def key(self) -> str:
        """Its namespace and name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def occurrences(self) -> int:
        """The number of occurrences."""
        counts = (self.series.count if self.series else None, self.count)
        return next((count for count in counts if count is not None and count > 0), 1)


class LastCounts:
    """The last count of each event, by namespace and name; the least recently seen are forgotten.

    Args:
        limit: The number of events.

    Attributes:
        forgotten: The number of events that were forgotten.
    """

    __slots__ = ("_counts", "_limit", "forgotten")

    def __init__(self, limit: int = _MAX_REMEMBERED) -> None:
        """Start empty."""
        self._limit = limit
        self._counts: OrderedDict[str, int] = OrderedDict()
        self.forgotten = 0

    def __contains__(self, key: str) -> bool:
        """True if the event is remembered."""
        return key in self._counts

    def __len__(self) -> int:
        """The number of remembered events."""
        return len(self._counts)

    def note(self, key: str, count: int) -> int | None:
        """Store an event's count and return the one before; None without one."""
        counts = self._counts
        before = counts.get(key)
        counts[key] = count
        if before is not None:
            counts.move_to_end(key)
        elif len(counts) > self._limit:
            counts.popitem(last=False)
            self.forgotten += 1
        return before

    def delta(self, key: str, count: int, *, born: bool) -> int | None:
        """Store an event's count and return by how much it has grown.

        Args:
            key: Its namespace and name.
            count: Its count.
            born: True if no earlier revision of this object can have been read.

        Returns:
            The number of occurrences since the last revision; None if the last count cannot be known.
        """
        before = self.note(key, count)
        if before is None:
            return count if born or count == 1 else None
        if born:  # the event expired or was deleted, and its recorder continued with the count that it had
            return count - before if count > before else count
        return count - before if count >= before else None


class SeenRevisions:
    """The last revision of each event, for a server whose resourceVersions are no numbers.

    Args:
        limit: The number of events.
    """

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int = _MAX_REMEMBERED) -> None:
        """Start empty."""
        self._limit = limit
        self._seen: OrderedDict[str, str] = OrderedDict()

    def is_new(self, key: str, version: str) -> bool:
        """True if this is not the last revision of the event; store it."""
        if self._seen.get(key) == version:
            return False
        self._seen[key] = version
        self._seen.move_to_end(key)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return True


class RevisionFilter:
    """The memory of one stream: how far it has been read, and the last count of each event.

    Args:
        stream: The stream.
        after: How far it had been read by an earlier process; None: nothing.
        highest: The highest position that any destination has committed; None: none has.
        first_only: True if only the first revision of an event becomes a record.
        cluster_name: The cluster's name in the records.

    Attributes:
        order: The order of the stream's resourceVersions.
        counts: The last count of each event.
        old: The number of revisions that had been read before.
    """

    def __init__(
        self,
        stream: Stream,
        after: Position | None,
        highest: Position | None = None,
        *,
        first_only: bool = False,
        cluster_name: str = "",
    ) -> None:
        """Start at the positions."""
        self.stream = stream
        self.order = Order(*(position.rv if position is not None else 0 for position in (after, highest)))
        self.counts = LastCounts()
        self.old = 0
        self._seen = SeenRevisions()
        self._first_only = first_only
        self._cluster_name = cluster_name
        self._after = after
        self._complete = after is None  # True if an event that is not in `counts` must be new

    def sift(self, header: EventHeader) -> int | None:
        """Return the number of a listed event; None if it has been read, and then store its count."""
        number = number_of(header.metadata.resourceVersion)
        if number is None:
            return self.order.last + 1
        rv = self.order.place(number)
        if rv > self.order.last:
            return rv
        self.counts.note(header.key, header.occurrences)
        return None

    def listed(self, event: dict[str, Any], now: int, read_at: float) -> Record | None:
        """Take a listed event, in the stream's order; None if it gives no record."""
        metadata = event["metadata"]
        key = key_of(metadata)
        known = key in self.counts
        born = not known and self._is_born(metadata)
        again = known or (self._first_only and self._was_there(metadata))
        verb = MODIFIED if known or count_of(event) > 1 else ADDED
        return self._take(event, key, verb, born=born, again=again, now=now, read_at=read_at)

    def watched(self, verb: str, event: dict[str, Any], now: int, read_at: float) -> Record | None:
        """Take an event of a watch; None if it is old, or gives no record."""
        born = verb == ADDED
        key = key_of(event["metadata"])
        return self._take(event, key, verb, born=born, again=not born, now=now, read_at=read_at)

    def skip_to(self, version: str, now: int) -> None:
        """Start at a list's resourceVersion without reading its events; their counts stay unknown."""
        number = number_of(version)
        if number is not None and self.order.is_reset(number):
            self.order.reset()
        self.order.advance(self.order.invent(now) if number is None else self.order.place(number))
        self._complete = False

    def advance(self, version: str) -> None:
        """Everything up to a resourceVersion has been read; one that is no number is ignored."""
        number = number_of(version)
        if number is not None:
            self.order.advance(self.order.place(number))

    def listed_all(self) -> None:
        """A complete list has been taken: from now on an unknown event is new."""
        self._complete = True
        self._after = None

    def _take(
        self, event: dict[str, Any], key: str, verb: str, *, born: bool, again: bool, now: int, read_at: float
    ) -> Record | None:
        version = event["metadata"].get("resourceVersion", "")
        number = number_of(version)
        if number is None:
            rv = self.order.invent(now)
            is_new = self._seen.is_new(key, version)
        else:
            rv = self.order.place(number)
            is_new = rv > self.order.last
        if not is_new:
            self.old += 1
            return None
        self.order.advance(rv)
        delta = self.counts.delta(key, count_of(event), born=born)
        if again and self._first_only:
            return None
        return Record(self.stream, rv, body_of(event, verb, delta, self._cluster_name), read_at)

    def _is_born(self, metadata: dict[str, Any]) -> bool:
        """True if an unknown event cannot have existed when the stream was last read."""
        if self._complete:
            return not self.counts.forgotten
        after = self._after
        return after is not None and str(metadata.get("creationTimestamp", "")) > moment(after.time + _CLOCK_SKEW)

    def _was_there(self, metadata: dict[str, Any]) -> bool:
        """True if an unknown event certainly existed when an earlier process read the stream."""
        after = self._after
        return after is not None and str(metadata.get("creationTimestamp") or "~") < moment(after.time - _CLOCK_SKEW)
