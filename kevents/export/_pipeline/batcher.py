"""What waits for one destination, and when which batch of it is to be written.

One line a stream: the records to write, in slices as they came, each with the position of its chunk. A batch is a
piece from the front of a line, so queue and open batch are the same thing: what was not written yet. A line is due
when a batch is full, when its first record is old enough, when nothing more may come in, or, with no record in it,
when its position has moved and has not been written for a while. Time is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from kevents.export._model.options import BatchOptions, QueueOptions
from kevents.export._model.types import Batch, Position, Record, Stream

IDLE = 60.0
"""Seconds after which a position that moved without a record is written by itself."""


@dataclass(slots=True)
class _Slice:
    """What one chunk left to be written, how far the stream was read with it, and up to when before it."""

    records: Sequence[Record]
    position: Position
    since: float
    before: int
    done: int = 0


class _Line:
    """One stream's waiting records, in order."""

    __slots__ = ("bytes", "items", "read", "slices", "taken", "touched")

    def __init__(self, now: float, held: Position | None) -> None:
        self.slices: deque[_Slice] = deque()
        self.items = self.bytes = 0
        self.read: Position | None = None
        self.taken = held
        self.touched = now

    def add(self, records: Sequence[Record], size: int, position: Position, now: float) -> None:
        if records:
            self.slices.append(_Slice(records, position, now, (self.read or self.taken or position).time))
            self.items += len(records)
            self.bytes += size
        elif self.slices:
            self.slices[-1].position = position
        self.read = position

    def due(self, limits: BatchOptions, idle: float, *, hurried: bool) -> float:
        """When it should be taken from."""
        if not self.slices:
            moved = self.read is not None and self.read != self.taken
            return inf if not moved else self.touched if hurried else self.touched + idle
        full = hurried or self.items >= limits.max_items or self.bytes >= limits.max_bytes
        return self.slices[0].since + (0.0 if full else limits.max_age)


class Batcher:
    """A destination's bounded queue, out of which its batches are cut.

    Args:
        limits: When a batch closes.
        queue: How much may wait.
        idle: Seconds after which a position that moved without a record is written by itself.
    """

    def __init__(self, limits: BatchOptions, queue: QueueOptions, idle: float = IDLE) -> None:
        """Start with nothing waiting."""
        self._limits = limits
        self._queue = queue
        self._idle = idle
        self._lines: dict[Stream, _Line] = {}
        self._hurried = False
        self._in_hand: tuple[int, int] = (0, 0)
        self._since = inf
        self.items = self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether nothing more may come in."""
        return self.items >= self._queue.max_items or self.bytes >= self._queue.max_bytes

    @property
    def room(self) -> int:
        """How many records may still come in."""
        return 0 if self.full else self._queue.max_items - self.items

    @property
    def in_hand(self) -> int:
        """How many records the batch has that is being written."""
        return self._in_hand[0]

    def begin(self, stream: Stream, held: Position | None, now: float) -> None:
        """Know a stream, and how far the destination holds it."""
        self._lines[stream] = _Line(now, held)

    def add(self, stream: Stream, records: Sequence[Record], position: Position, now: float) -> None:
        """Take in what a chunk holds for this destination, maybe nothing, and how far the stream was read with it."""
        size = sum([len(record.line()) + 1 for record in records])
        self._lines[stream].add(records, size, position, now)
        self.items += len(records)
        self.bytes += size

    def due(self) -> float:
        """When the next batch should be taken, unless something changes; infinity: not before something comes."""
        return min((due for due, _ in self._dues()), default=inf)

    def take(self, now: float) -> Batch | None:
        """Give the next batch if one is due; it is in hand until :meth:`done`."""
        due, stream = min(self._dues(), key=_first, default=(inf, None))
        if stream is None or due > now:
            return None
        return self._cut(stream, self._lines[stream], now)

    def _dues(self) -> Iterator[tuple[float, Stream]]:
        # With a full queue whatever waits longest is due: what would fill its batch cannot come in.
        hurried = self._hurried or self.full
        for stream, line in self._lines.items():
            if (due := line.due(self._limits, self._idle, hurried=hurried)) < inf:
                yield due, stream

    def _cut(self, stream: Stream, line: _Line, now: float) -> Batch:
        records: list[Record] = []
        size = 0
        position = line.read
        self._since = line.slices[0].since if line.slices else inf
        while line.slices:
            first = line.slices[0]
            before = len(records)
            size = self._fill(records, size, first)
            if first.done < len(first.records):
                if len(records) > before:  # the position of the whole slice would promise what is still to come
                    position = Position(stream, records[-1].rv, first.before)
                break
            position = first.position
            line.slices.popleft()
        line.items -= len(records)
        line.bytes -= size
        line.taken, line.touched = position, now
        self._in_hand = len(records), size
        assert position is not None  # a line is due only once something was read  # noqa: S101
        return Batch(records, position)

    def _fill(self, records: list[Record], size: int, piece: _Slice) -> int:
        """Move what fits from a slice into a batch; the batch's size with it."""
        for record in piece.records[piece.done :]:
            length = len(record.line()) + 1
            full = len(records) >= self._limits.max_items or size + length > self._limits.max_bytes
            # Records of one resourceVersion stay together: the position between them could not tell them apart.
            if records and full and record.rv != records[-1].rv:
                break
            records.append(record)
            size += length
            piece.done += 1
        return size

    def done(self) -> None:
        """The batch in hand has ended, whatever its end: there is room for others."""
        items, size = self._in_hand
        self.items -= items
        self.bytes -= size
        self._in_hand = (0, 0)
        self._since = inf

    def hurry(self) -> None:
        """From now on whatever waits is due, positions too."""
        self._hurried = True

    def oldest(self) -> float:
        """Since when the record waits that waits longest, one in hand included; infinity without one."""
        waiting = [line.slices[0].since for line in self._lines.values() if line.slices]
        return min([*waiting, self._since])


def _first(pair: tuple[float, Stream]) -> float:
    return pair[0]
