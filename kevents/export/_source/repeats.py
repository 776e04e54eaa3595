"""The option `repeats`: all revisions of an event, the first one, or the latest one in each window of time."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from kevents.export._model.text import duration, shown
from kevents.export._model.types import Chunk, Position, Record

_MAX_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Repeats:
    """The option, parsed.

    Attributes:
        first_only: True if only the first revision of an event becomes a record.
        window: The window's length in seconds; None: no window.
    """

    first_only: bool = False
    window: float | None = None


def parse_repeats(value: str | float, event_life: float) -> Repeats:
    """Parse the option.

    Args:
        value: `all`, `first`, or a window: a text such as `30s` or `1m30s`, or a number of seconds.
        event_life: Seconds for which the server keeps an event. A window is at most half of that: a process that is
            killed at the end of a window has the other half to read the window again.

    Raises:
        ValueError: It is none of these, or the window is too long.
    """
    if value == "all":
        return Repeats()
    if value == "first":
        return Repeats(first_only=True)
    seconds = _seconds(value)
    if not 0 < seconds < math.inf:
        raise ValueError(f'repeats must be "all", "first" or a window such as "30s", not {shown(value)}')
    if seconds > event_life / 2:
        longest = f"half of event_life, {event_life / 2:g} s"
        raise ValueError(f"repeats must be no window longer than {longest}, not {shown(value)}: it must not expire")
    return Repeats(window=seconds)


def _seconds(value: object) -> float:
    """The window's length; 0 if the value is no window."""
    if isinstance(value, str):
        with suppress(ValueError):
            return duration(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


class Window:
    """Keeps the latest revision of each event for a window of time; it stands for the earlier ones, too.

    A window ends `seconds` after its first record, or earlier when it holds very many events. The position does not
    move before the end, so a restart reads the whole window again.

    Args:
        seconds: The window's length.
        limit: The number of events at which it ends.
    """

    def __init__(self, seconds: float, limit: int = _MAX_EVENTS) -> None:
        """Start with an empty window."""
        self._seconds = seconds
        self._limit = limit
        self._records: dict[str, Record] = {}
        self._position: Position | None = None
        self._ends = math.inf

    def __len__(self) -> int:
        """The number of events."""
        return len(self._records)

    def left(self, now: float) -> float:
        """Return the seconds that are left, by the monotonic clock; infinite while the window is empty."""
        return self._ends - now

    def add(self, records: Iterable[Record], position: Position, now: float) -> None:
        """Add records, in the stream's order, and the position after them."""
        for record in records:
            key = _key(record)
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


def _key(record: Record) -> str:
    metadata = record.body.get("metadata")
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}" if metadata else record.id


def _absorb(record: Record, before: Record) -> None:
    own, old = record.body["kevents"], before.body["kevents"]
    deltas = (old.get("countDelta"), own.get("countDelta"))
    own["countDelta"] = None if None in deltas else sum(deltas)
    own["verb"] = old.get("verb")
