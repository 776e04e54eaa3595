"""Decides which revisions of events are new in a stream, and turns them into records."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from cachetools import LRUCache

from kevents._model.wire import format_time
from kevents.export._model.position import Order, number_of
from kevents.export._model.text import duration, shown
from kevents.export._model.types import ADDED, MODIFIED, Chunk, Position, Record, Stream, body_of, count_of, key_of

_MAX_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Repeats:
    """The option, parsed."""

    first_only: bool = False  # True if only the first revision of an event becomes a record
    window: float | None = None  # the window's length in seconds; None: no window


def parse_repeats(value: str | float, event_life: float) -> Repeats:
    """Parse `all`, `first`, or a window: a text such as `1m30s`, or seconds. Raises ValueError for any other value.

    A window is at most half of the seconds for which the server keeps an event: a process that is killed at the end of
    a window has the other half to read the window again.
    """
    if value == "all":
        return Repeats()
    if value == "first":
        return Repeats(first_only=True)
    seconds = 0.0
    if isinstance(value, str):
        with suppress(ValueError):
            seconds = duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    if not 0 < seconds < math.inf:
        raise ValueError(f'repeats must be "all", "first" or a window such as "30s", not {shown(value)}')
    if seconds > event_life / 2:
        longest = f"half of event_life, {event_life / 2:g} s"
        raise ValueError(f"repeats must be no window longer than {longest}, not {shown(value)}: it must not expire")
    return Repeats(window=seconds)


class Window:
    """Keeps the latest revision of each event for a window of time; it stands for the earlier ones, too.

    A window ends `seconds` after its first record, or earlier when it holds very many events. The position does not
    move before the end, so a restart reads the whole window again.
    """

    def __init__(self, seconds: float, limit: int = _MAX_EVENTS) -> None:
        self._seconds = seconds  # the window's length
        self._limit = limit  # the number of events at which it ends
        self._records: dict[str, Record] = {}
        self._position: Position | None = None
        self._ends = math.inf

    def __len__(self) -> int:
        return len(self._records)

    def left(self, now: float) -> float:
        """Return the seconds that are left, by the monotonic clock; infinite while the window is empty."""
        return self._ends - now

    def add(self, records: Iterable[Record], position: Position, now: float) -> None:
        """Add records, in the stream's order, and the position after them."""
        for record in records:
            metadata = record.body.get("metadata")
            key = key_of(metadata) if metadata else record.id
            before = self._records.pop(key, None)
            if before is not None:
                _absorb(record, before)
            self._records[key] = record  # at the end: they stay in the stream's order
        self._position = position
        if self._records and self._ends == math.inf:
            self._ends = now + self._seconds
        if len(self._records) >= self._limit:
            self._ends = now

    def take(self) -> Chunk | None:
        """End the window and return its records; None if nothing was read. The next window is empty."""
        if self._position is None:
            return None
        chunk = Chunk(tuple(self._records.values()), self._position)
        self._records, self._position, self._ends = {}, None, math.inf
        return chunk


def _absorb(record: Record, before: Record) -> None:
    own, old = record.body["kevents"], before.body["kevents"]
    deltas = (old.get("countDelta"), own.get("countDelta"))
    own["countDelta"] = None if None in deltas else sum(deltas)
    own["verb"] = old.get("verb")


_MAX_REMEMBERED: Final = 100_000
_CLOCK_SKEW: Final = 60_000_000_000
"""Nanoseconds by which the clocks of this machine and the API server may differ without a wrong decision."""


class LastCounts(LRUCache[str, int]):
    """The last count of each event, by namespace and name; the least recently seen are forgotten."""

    def __init__(self, limit: int = _MAX_REMEMBERED) -> None:
        super().__init__(limit)
        self.forgotten = 0  # the number of events that were forgotten

    def popitem(self) -> tuple[str, int]:
        self.forgotten += 1
        return super().popitem()

    def note(self, key: str, count: int) -> int | None:
        """Store an event's count and return the one before; None without one."""
        before = self.get(key)
        self[key] = count
        return before

    def delta(self, key: str, count: int, *, born: bool) -> int | None:
        """Store an event's count and return by how much it has grown; None if the last count cannot be known."""
        before = self.note(key, count)
        if before is None:
            return count if born or count == 1 else None
        if born:  # the event expired or was deleted, and its recorder continued with the count that it had
            return count - before if count > before else count
        return count - before if count >= before else None


class RevisionFilter:
    """The memory of one stream: how far it has been read, and the last count of each event."""

    def __init__(
        self,
        stream: Stream,
        after: Position | None,  # how far it had been read by an earlier process; None: nothing
        highest: Position | None = None,  # the highest position that any destination has committed; None: none has
        *,
        first_only: bool = False,  # True if only the first revision of an event becomes a record
        cluster_name: str = "",  # the cluster's name in the records
    ) -> None:
        self.stream = stream
        self.order = Order(*(position.rv if position is not None else 0 for position in (after, highest)))
        self.counts = LastCounts()  # the last count of each event
        self.old = 0  # the number of revisions that had been read before
        self._seen: LRUCache[str, str] = LRUCache(_MAX_REMEMBERED)  # the last versions that are no numbers, by event
        self._first_only = first_only
        self._cluster_name = cluster_name
        self._after = after
        self._complete = after is None  # True if an event that is not in `counts` must be new

    def sift(self, event: dict[str, Any]) -> int | None:
        """Return the number of a listed event; None if it has been read, and then store its count."""
        metadata = event["metadata"]
        number = number_of(metadata.get("resourceVersion", ""))
        if number is None:
            return self.order.last + 1
        rv = self.order.place(number)
        if rv > self.order.last:
            return rv
        self.counts.note(key_of(metadata), count_of(event))
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
            is_new = self._seen.get(key) != version
            self._seen[key] = version
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
        return after is not None and str(metadata.get("creationTimestamp", "")) > format_time(after.time + _CLOCK_SKEW)

    def _was_there(self, metadata: dict[str, Any]) -> bool:
        """True if an unknown event certainly existed when an earlier process read the stream."""
        after = self._after
        return after is not None and str(metadata.get("creationTimestamp") or "~") < format_time(
            after.time - _CLOCK_SKEW
        )
