"""What becomes of an event's further revisions: all are told, the first alone, or one for each window of time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kevents.export._types import Chunk, Mark, Record

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)", re.ASCII)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
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


def parse_repeats(value: str | float) -> Repeats:
    """Read the option `repeats`.

    Args:
        value: `all`, `first`, or a window: a text such as `30s`, `5m` or `500ms`, or a number of seconds.

    Raises:
        ValueError: It is none of these.
    """
    if value == "all":
        return Repeats()
    if value == "first":
        return Repeats(first_only=True)
    seconds = _seconds(value)
    if seconds is None or not 0 < seconds < math.inf:
        raise ValueError(f"repeats must be 'all', 'first' or a window such as '30s', not {value!r}")
    return Repeats(window=seconds)


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        return float(match[1]) * _UNITS[match[2]] if match else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


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
        self._mark: Mark | None = None
        self._ends = math.inf

    def __len__(self) -> int:
        """How many events it holds."""
        return len(self._records)

    def left(self, now: float) -> float:
        """Give how many seconds of it are left, by the monotonic clock; infinite while it is empty."""
        return self._ends - now

    def add(self, records: Iterable[Record], mark: Mark, now: float) -> None:
        """Take what has been read, in the order of the stream, and how far that was."""
        for record in records:
            key = _key(record)
            before = self._records.pop(key, None)
            if before is not None:
                _absorb(record, before)
            self._records[key] = record  # at the end: they stay in the order of the stream
        self._mark = mark
        if self._records and self._ends == math.inf:
            self._ends = now + self._seconds
        if len(self._records) >= self._most:
            self._ends = now

    def take(self) -> Chunk | None:
        """End it: give what it holds, None if nothing was read; the next one is empty."""
        if self._mark is None:
            return None
        chunk = Chunk(tuple(self._records.values()), self._mark)
        self._records, self._mark, self._ends = {}, None, math.inf
        return chunk


def _key(record: Record) -> str:
    metadata = record.body.get("metadata")
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}" if metadata else record.id


def _absorb(record: Record, before: Record) -> None:
    own, old = record.body["kevents"], before.body["kevents"]
    deltas = (old.get("countDelta"), own.get("countDelta"))
    own["countDelta"] = None if None in deltas else sum(deltas)
    own["verb"] = old.get("verb")
