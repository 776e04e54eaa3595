"""The bounded queue of one destination, and the batches cut from it.

Each stream has its own queue of unwritten records, in order. A batch is taken from the front of one of them. A stream
is due when a batch is full, when its oldest record reaches `max_age`, or when the destination's queue is full. Without
records it is due when its position has moved and was not written for a while. The caller passes in the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from operator import itemgetter

from kevents.export._model.options import BatchOptions, QueueOptions
from kevents.export._model.types import Batch, Position, Record, Stream

IDLE = 60.0  # seconds after which a position that moved without records is written


@dataclass(slots=True)
class _Slice:
    """The records of one chunk for this destination."""

    records: Sequence[Record]  # in order
    position: Position  # how far the stream was read with the chunk
    since: float  # when they were added, in seconds
    before: int  # the time of the position before them, in nanoseconds
    done: int = 0  # how many of the records are in batches already


class _StreamQueue:
    """The unwritten records of one stream."""

    __slots__ = ("bytes", "items", "read", "slices", "taken", "touched")

    def __init__(self, now: float, committed: Position | None) -> None:
        self.slices: deque[_Slice] = deque()
        self.items = self.bytes = 0
        self.read: Position | None = None
        self.taken = committed  # the position of the last batch
        self.touched = now  # when that batch was taken

    def add(self, records: Sequence[Record], size: int, position: Position, now: float) -> None:
        if records:
            self.slices.append(_Slice(records, position, now, (self.read or self.taken or position).time))
            self.items += len(records)
            self.bytes += size
        elif self.slices:
            self.slices[-1].position = position
        self.read = position

    def due(self, limits: BatchOptions, *, at_once: bool) -> float:
        """Return when the next batch should be taken, in seconds."""
        if not self.slices:
            moved = self.read is not None and self.read != self.taken
            return inf if not moved else self.touched if at_once else self.touched + IDLE
        full = at_once or self.items >= limits.max_items or self.bytes >= limits.max_bytes
        return self.slices[0].since + (0.0 if full else limits.max_age)


class Batcher:
    """The bounded queue of one destination, from which its batches are cut."""

    def __init__(self, limits: BatchOptions, queue: QueueOptions) -> None:
        self._limits = limits  # when a batch closes
        self._queue = queue  # how many records and bytes may wait
        self._streams: dict[Stream, _StreamQueue] = {}
        self.flushing = False  # True if all waiting records and positions are due at once
        self._in_flight: tuple[int, int] = (0, 0)  # records, bytes
        self._since = inf  # of the oldest record in flight
        self.items = self.bytes = 0

    @property
    def full(self) -> bool:
        return self.items >= self._queue.max_items or self.bytes >= self._queue.max_bytes

    @property
    def free(self) -> int:
        return 0 if self.full else self._queue.max_items - self.items

    @property
    def in_flight(self) -> int:
        return self._in_flight[0]

    def begin(self, stream: Stream, committed: Position | None, now: float) -> None:
        """Register a stream with the position that the destination has stored."""
        self._streams[stream] = _StreamQueue(now, committed)

    def add(self, stream: Stream, records: Sequence[Record], position: Position, now: float) -> None:
        """Add the records of a chunk for this destination (possibly none), and the stream's position after it."""
        size = size_of(records)
        self._streams[stream].add(records, size, position, now)
        self.items += len(records)
        self.bytes += size

    def due(self) -> float:
        """Return when the next batch should be taken, in seconds; infinity if nothing waits."""
        return min((due for due, _ in self._dues()), default=inf)

    def take(self, now: float) -> Batch | None:
        """Return the next batch if one is due. It is in flight until :meth:`done`."""
        due, stream = min(self._dues(), key=itemgetter(0), default=(inf, None))
        if stream is None or due > now:
            return None
        return self._cut(stream, self._streams[stream], now)

    def _dues(self) -> Iterator[tuple[float, Stream]]:
        # In a full queue the oldest stream is due: the records that would fill its batch cannot be added.
        at_once = self.flushing or self.full
        for stream, queue in self._streams.items():
            if (due := queue.due(self._limits, at_once=at_once)) < inf:
                yield due, stream

    def _cut(self, stream: Stream, queue: _StreamQueue, now: float) -> Batch:
        records: list[Record] = []
        size = 0
        position = queue.read
        self._since = queue.slices[0].since if queue.slices else inf
        while queue.slices:
            first = queue.slices[0]
            before = len(records)
            size = self._fill(records, size, first)
            if first.done < len(first.records):
                if len(records) > before:  # the slice's position would cover records that are not in this batch
                    position = Position(stream, records[-1].rv, first.before)
                break
            position = first.position
            queue.slices.popleft()
        queue.items -= len(records)
        queue.bytes -= size
        queue.taken, queue.touched = position, now
        self._in_flight = len(records), size
        assert position is not None  # a stream is due only after something was read  # noqa: S101
        return Batch(records, position)

    def _fill(self, records: list[Record], size: int, piece: _Slice) -> int:
        """Move the records that fit from a slice into a batch; return the batch's size in bytes."""
        for record in piece.records[piece.done :]:
            length = len(record.line()) + 1
            full = len(records) >= self._limits.max_items or size + length > self._limits.max_bytes
            # Records of one resourceVersion stay together: a position between them cannot be expressed.
            if records and full and record.rv != records[-1].rv:
                break
            records.append(record)
            size += length
            piece.done += 1
        return size

    def done(self) -> None:
        """Release the batch in flight, written or not."""
        items, size = self._in_flight
        self.items -= items
        self.bytes -= size
        self._in_flight = (0, 0)
        self._since = inf

    def oldest(self) -> float:
        """Return when the oldest unwritten record was added, in seconds; infinity without one."""
        waiting = [queue.slices[0].since for queue in self._streams.values() if queue.slices]
        return min([*waiting, self._since])


def size_of(records: Sequence[Record]) -> int:
    return sum([len(record.line()) + 1 for record in records])
