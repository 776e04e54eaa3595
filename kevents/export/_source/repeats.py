"""What becomes of an event's further revisions: all are told, the first alone, or one for each window of time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kevents.export._model.types import Chunk, Position, Record

_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Repeats:
    """What becomes of them.

    Attributes:
        first_only: Whether only the first revision of an event is told.
        window: For how many seconds revisions of one event become one; None: not at all.
    """

    first_only: bool = False
    window: float | None = None


class Window:
    """One window of time: of each event its latest revision, which stands for those before it too.

    It ends `seconds` after its first record, and early when it holds very many. Nothing in it is marked as read, so a
    restart reads the whole of it again.

    Args:
        seconds: How long it is.
        most: How many events it holds at most.
    """

    def __init__(self, seconds: float, most: int = _MOST) -> None:
        """Begin with none."""
        self._seconds = seconds
        self._most = most
        self._records: dict[str, Record] = {}
        self._position: Position | None = None
        self._ends = math.inf

    def __len__(self) -> int:
        """How many events it holds."""
        return len(self._records)

    def left(self, now: float) -> float:
        """Give how many seconds of it are left, by the monotonic clock; infinite while it is empty."""
        return self._ends - now

    def add(self, records: Iterable[Record], position: Position, now: float) -> None:
        """Take what has been read, in the order of the stream, and how far that was."""
        for record in records:
            key = _key(record)
            before = self._records.pop(key, None)
            if before is not None:
                _absorb(record, before)
            self._records[key] = record  # at the end: they stay in the order of the stream
        self._position = position
        if self._records and self._ends == math.inf:
            self._ends = now + self._seconds
        if len(self._records) >= self._most:
            self._ends = now

    def take(self) -> Chunk | None:
        """End it: give what it holds, None if nothing was read; the next one is empty."""
        if self._position is None:
            return None
        chunk = Chunk(tuple(self._records.values()), self._position)
        self._records, self._position, self._ends = {}, None, math.inf
        return chunk


def _key(record: Record) -> str:
    metadata = record.body.get("metadata")
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}" if metadata else record.id


def _absorb(record: Record, before: Record) -> None:
    own, old = record.body["kevents"], before.body["kevents"]
    deltas = (old.get("countDelta"), own.get("countDelta"))
    own["countDelta"] = None if None in deltas else sum(deltas)
    own["verb"] = old.get("verb")
