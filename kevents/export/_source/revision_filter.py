"""Which revisions of a stream are new, what they are worth, and what becomes a record."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kevents.export._model.position import Counts, Ledger, Order, number_of
from kevents.export._model.record import ADDED, MODIFIED, body_of, count_of, key_of, moment
from kevents.export._model.types import Position, Record, Stream

_DOUBT: Final = 60_000_000_000
"""By how many nanoseconds the clocks of this machine and of the API server may differ without anything being lost."""


class Series(msgspec.Struct):
    """What is looked at of a series."""

    count: int | None = None


class Metadata(msgspec.Struct):
    """What is looked at of an event's metadata."""

    name: str = ""
    namespace: str = ""
    resourceVersion: str = ""  # noqa: N815 - the API's name


class EventHeader(msgspec.Struct):
    """What is looked at of a listed event before its turn comes."""

    metadata: Metadata
    count: int | None = None
    series: Series | None = None

    @property
    def key(self) -> str:
        """Its namespace and name."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def occurrences(self) -> int:
        """How many it stands for."""
        count = self.series.count if self.series else self.count
        return count if count is not None and count > 0 else 1


class RevisionFilter:
    """One stream's memory: how far it has been read, and what of.

    Args:
        stream: What is read.
        after: How far it had been read before; None: not at all.
        highest: How far any destination holds it; None: none of them holds anything.
        first_only: Whether only the first revision of an event is told.
        cluster_name: What the cluster is called in the records.
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
        """Know nothing but the positions."""
        self.stream = stream
        self.order = Order(*(position.rv if position is not None else 0 for position in (after, highest)))
        self.counts = Counts()
        self.old = 0
        self._ledger = Ledger()
        self._first_only = first_only
        self._cluster_name = cluster_name
        self._after = after
        self._whole = after is None

    def sift(self, head: EventHeader) -> int | None:
        """Look at a listed event; give where it stands in the stream, None if it has been read.

        The count of one that has been read is remembered: what comes of it next is compared with that.
        """
        number = number_of(head.metadata.resourceVersion)
        if number is None:
            return self.order.last + 1
        rv = self.order.place(number)
        if rv > self.order.last:
            return rv
        self.counts.note(head.key, head.occurrences)
        return None

    def listed(self, event: dict[str, Any], now: int, read_at: float) -> Record | None:
        """Take a listed event, in the order of the stream; None if there is nothing to tell of it."""
        metadata = event["metadata"]
        key = key_of(metadata)
        known = key in self.counts
        born = not known and self._is_born(metadata)
        again = known or (self._first_only and self._was_there(metadata))
        verb = MODIFIED if known or count_of(event) > 1 else ADDED
        return self._take(event, key, verb, born=born, again=again, now=now, read_at=read_at)

    def watched(self, verb: str, event: dict[str, Any], now: int, read_at: float) -> Record | None:
        """Take an event that a watch told of; None if it is old, or there is nothing to tell of it."""
        born = verb == ADDED
        key = key_of(event["metadata"])
        return self._take(event, key, verb, born=born, again=not born, now=now, read_at=read_at)

    def skip_to(self, version: str, now: int) -> None:
        """Begin at a list's resourceVersion, whatever has been read and whatever there is; nobody knows the counts."""
        number = number_of(version)
        if number is not None and self.order.is_reset(number):
            self.order.reset()
        self.order.advance(self.order.invent(now) if number is None else self.order.place(number))
        self._whole = False

    def passed(self, version: str) -> None:
        """Everything up to a resourceVersion has been read; nothing is said by one that is no number."""
        number = number_of(version)
        if number is not None:
            self.order.advance(self.order.place(number))

    def listed_all(self) -> None:
        """A whole list has been taken: an event that is not known then is new."""
        self._whole = True
        self._after = None

    def _take(
        self, event: dict[str, Any], key: str, verb: str, *, born: bool, again: bool, now: int, read_at: float
    ) -> Record | None:
        version = event["metadata"].get("resourceVersion", "")
        number = number_of(version)
        if number is None:
            rv = self.order.invent(now)
            is_new = self._ledger.is_new(key, version)
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
        """Whether an event that is not known cannot have been there when the stream was read last."""
        if self._whole:
            return not self.counts.forgotten
        after = self._after
        return after is not None and str(metadata.get("creationTimestamp", "")) > moment(after.time + _DOUBT)

    def _was_there(self, metadata: dict[str, Any]) -> bool:
        """Whether an event that is not known was certainly there when a former process read the stream."""
        after = self._after
        return after is not None and str(metadata.get("creationTimestamp") or "~") < moment(after.time - _DOUBT)
