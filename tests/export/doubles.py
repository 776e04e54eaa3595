"""In-memory test doubles: numbered records, scripted streams, scripted sinks and a settable clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from kevents.export import Batch, Chunk, Position, Record, Stream

STREAM = Stream("cluster-1")
PATIENCE = 60.0
"""Seconds until a test fails because something expected did not happen."""


class Clock:
    """A clock in seconds that can be set forward."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now
        self._begun = monotonic()

    def __call__(self) -> float:
        """Return the current time. Real time is added, so that waits end."""
        return self.now + monotonic() - self._begun


def record(rv: int, stream: Stream = STREAM, *, size: int = 0, **body: Any) -> Record:
    """Return a record. With `size`, its line is that many bytes long."""
    told = {"v": 1, "id": f"uid-{rv}:{rv}"}
    made = Record(stream, rv, {"kevents": told, **body}, 0.0)
    if size:
        made = Record(stream, rv, {"kevents": told, "pad": "x" * (size - len(made.line()) - 9), **body}, 0.0)
    return made


def records(first: int, last: int, stream: Stream = STREAM) -> list[Record]:
    """Return records with the resourceVersions from `first` to `last`, inclusive."""
    return [record(rv, stream) for rv in range(first, last + 1)]


def position(rv: int, stream: Stream = STREAM, time: int = 0) -> Position:
    """Return a position."""
    return Position(stream, rv, time)


def chunk(first: int, last: int, stream: Stream = STREAM) -> Chunk:
    """Return a chunk of the records from `first` to `last`, inclusive."""
    return Chunk(records(first, last, stream), position(last, stream))


class ScriptedStream:
    """Yields the scripted chunks above the start position, then waits until it is stopped.

    Attributes:
        after: The positions from which the stream was read.
        given: Number of chunks taken from the script.
    """

    def __init__(
        self, chunks: Sequence[Chunk] = (), stream: Stream = STREAM, *, error: BaseException | None = None
    ) -> None:
        self.stream = stream
        self.after: list[Position | None] = []
        self.given = 0
        self._chunks = list(chunks)
        self._error = error
        self._changed = threading.Condition()
        self._stopped = False

    def add(self, *chunks: Chunk) -> None:
        """Append chunks to the script."""
        with self._changed:
            self._chunks += chunks
            self._changed.notify_all()

    def read(self, after: Position | None, highest: Position | None = None) -> Iterator[Chunk]:
        """Yield the chunks above the position."""
        self.after.append(after)
        lowest = -1 if after is None else after.rv
        while (found := self._next()) is not None:
            if found.position.rv > lowest:
                yield Chunk([one for one in found.records if one.rv > lowest], found.position)

    def _next(self) -> Chunk | None:
        with self._changed:
            if self.given == len(self._chunks) and self._error is not None:
                raise self._error
            self._changed.wait_for(lambda: self._stopped or self.given < len(self._chunks))
            if self._stopped:
                return None
            self.given += 1
            return self._chunks[self.given - 1]

    def stop(self) -> None:
        """Stop reading."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class ScriptedSource:
    """A source of scripted streams."""

    def __init__(self, *streams: ScriptedStream, error: BaseException | None = None) -> None:
        self.streams = list(streams)
        self._error = error

    def open(self) -> Sequence[ScriptedStream]:
        """Return the streams or raise the error."""
        if self._error is not None:
            raise self._error
        return self.streams


class Everywhere:
    """Routes every record to all named sinks."""

    def __init__(self, *names: str) -> None:
        self.sinks = names

    def targets(self, _: Record) -> Sequence[str]:
        """Return all names."""
        return self.sinks


class By:
    """Routes by a function."""

    def __init__(self, function: Callable[[Record], Sequence[str]]) -> None:
        self.targets = function


Fault = BaseException | Callable[[Batch], object]


@dataclass
class MemorySink:
    """Stores batches and positions like a file sink, and fails as scripted.

    Attributes:
        faults: The exception that the n-th write raises, or the function it calls with the batch; counted from 1.
        always: The same for every write.
        ask_faults: The exception that the n-th `last_position` call raises.
        positions: The saved position of each stream. Pass it on to simulate a restart.
        batches: The acknowledged batches.
        holds_positions: False for a sink without positions.
    """

    faults: dict[int, Fault] = field(default_factory=dict)
    always: Fault | None = None
    ask_faults: dict[int, BaseException] = field(default_factory=dict)
    positions: dict[Stream, Position] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    holds_positions: bool = True
    calls: int = 0
    asked: int = 0
    closed: int = 0
    at_once: int = 0
    most_at_once: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def write(self, batch: Batch) -> None:
        """Store the batch, or fail."""
        with self.changed:
            self.calls += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            fault = self.faults.get(self.calls, self.always)
        try:
            if isinstance(fault, BaseException):
                raise fault
            if fault is not None:
                fault(batch)
        finally:
            with self.changed:
                self.at_once -= 1
                self.changed.notify_all()
        with self.changed:
            self.batches.append(batch)
            self.positions[batch.position.stream] = batch.position
            self.changed.notify_all()

    def last_position(self, stream: Stream) -> Position | None:
        """Return the saved position of a stream."""
        with self.changed:
            self.asked += 1
            self.changed.notify_all()
            if (fault := self.ask_faults.get(self.asked)) is not None:
                raise fault
            return self.positions.get(stream) if self.holds_positions else None

    def close(self) -> None:
        """Count the call."""
        self.closed += 1

    def rvs(self, stream: Stream | None = None) -> list[int]:
        """Return the resourceVersions of the stored records, in order of arrival."""
        batches = [batch for batch in self.batches if stream is None or batch.position.stream == stream]
        return [one.rv for batch in batches for one in batch.records]

    def wait(self, what: Callable[[], object]) -> None:
        """Wait until a condition holds. It is checked after each call."""
        with self.changed:
            assert self.changed.wait_for(what, PATIENCE)


class MemoryDeadLetters:
    """Dead letters in memory. The n-th write fails as scripted."""

    def __init__(self, faults: dict[int, BaseException] | None = None) -> None:
        self.faults = faults or {}
        self.calls = 0
        self.letters: list[tuple[str, str, int]] = []

    def write(self, sink: str, records: Sequence[Record], why: str) -> None:
        """Store the records, or fail."""
        self.calls += 1
        if self.calls in self.faults:
            raise self.faults[self.calls]
        self.letters += [(sink, why, one.rv) for one in records]
