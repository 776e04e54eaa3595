"""What travels through an export: streams and their positions, records, chunks of them and batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

_ENCODER = msgspec.json.Encoder()

EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Stream:
    """One list and watch, read in its own order: what a position belongs to.

    Attributes:
        cluster: The UID of the namespace `kube-system`, which a cluster keeps for its life.
        scope: The namespace that is read; empty: all of them.
        resource: What is read.
    """

    cluster: str
    scope: str = ""
    resource: str = EVENTS


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream has been read, or how far a destination holds it.

    Attributes:
        stream: What has been read.
        rv: The resourceVersion up to which nothing is missing, itself included.
        time: Up to when nothing is missing, in nanoseconds since the epoch by the wall clock: when it was read, or, of
            a position within what one read gave, when all of what came before that had been read.
    """

    stream: Stream
    rv: int
    time: int


class Record:
    """One revision of an event on its way, or a word of the export's own (a gap).

    Args:
        stream: Where it was read.
        rv: Its resourceVersion: records of one stream travel in this order.
        body: What is written: event-exporter's shape with the key `kevents`. It is completed by the enricher, in place,
            and left alone once `line` has been asked for.
        read_at: When it was read, in seconds by the monotonic clock.
    """

    __slots__ = ("_line", "body", "read_at", "rv", "stream")

    def __init__(self, stream: Stream, rv: int, body: dict[str, Any], read_at: float) -> None:
        """Take what was read."""
        self.stream = stream
        self.rv = rv
        self.body = body
        self.read_at = read_at
        self._line: bytes | None = None

    @property
    def id(self) -> str:
        """What tells a duplicate: `<uid>:<resourceVersion>` of the event."""
        return str(self.body["kevents"]["id"])

    def line(self) -> bytes:
        """Give the record as one line of JSON, without its end, encoded once for all destinations."""
        if self._line is None:
            self._line = _ENCODER.encode(self.body)
        return self._line


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one read of a stream gave.

    Attributes:
        records: In the order of their resourceVersions; may be empty.
        position: How far the stream has been read with them.
    """

    records: Sequence[Record]
    position: Position


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written to a destination at once; all of one stream, in order.

    Attributes:
        records: What is written; empty if only the position has moved (nothing matched for a while).
        position: How far the stream had been read when the batch closed: at least the last record's resourceVersion.
            No later batch for this destination has a record up to it.
    """

    records: Sequence[Record]
    position: Position


class Retry(Exception):  # noqa: N818  (an answer, not an error: the batch is tried again)
    """A sink's answer: not now; the same batch is tried again.

    Args:
        why: For the log: what happened, without secrets.
        after: How long the destination asks to be left alone, in seconds; None: the exporter's own back-off.
    """

    def __init__(self, why: str, after: float | None = None) -> None:
        """Take the reason and the wait."""
        super().__init__(why)
        self.after = after


class Reject(Exception):  # noqa: N818  (an answer, not an error: the position moves on)
    """A sink's answer: never; these records go to the dead letters, the others of the batch are durable.

    Args:
        why: For the log and the dead letter: what happened, without secrets.
        records: Which of the batch's records.
    """

    def __init__(self, why: str, records: Sequence[Record]) -> None:
        """Take the reason and the records."""
        super().__init__(why)
        self.records = records


class Sink(Protocol):
    """A destination. Called from one thread at a time, one batch in flight."""

    def write(self, batch: Batch) -> None:
        """Write a batch with its position; return only when both are durable.

        Raises:
            Retry: Not now: the same batch comes again (it may have landed: writing it twice must be harmless where the
                destination can hold the position).
            Reject: Some records are never taken.
        """
        ...

    def last_position(self, stream: Stream) -> Position | None:
        """Give how far the destination holds a stream; None: nothing of it, or it cannot know."""
        ...

    def close(self) -> None:
        """Let go of files and connections; a sink that is closed is not used again."""
        ...
