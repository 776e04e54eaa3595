"""Snapshots of an export's counters: by stream, by destination, and of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kevents.export._model.types import Position, Stream


@dataclass(frozen=True, slots=True)
class Progress:
    """The two positions of a destination in a stream. They differ while records are written, or rarely match.

    Attributes:
        position: How far the stream has been read. The records up to it are written, in the queue, or not routed here.
        committed: How far the destination has acknowledged it; None: not at all.
    """

    position: Position | None = None
    committed: Position | None = None


@dataclass(frozen=True, slots=True)
class DestinationStatistics:
    """One destination's counters.

    ``offered = already_stored + written + dead_lettered + refused + dropped + waiting``.

    Attributes:
        name: The destination's name.
        offered: Records that a route sent here.
        already_stored: Offered records that the destination had stored before this run.
        written: Records that it acknowledged.
        dead_lettered: Records that it rejected, or that were given up, and that are in the dead letters.
        refused: The same without dead letters: lost.
        dropped: Records lost because the queue was full.
        waiting: Records in the queue and in flight.
        waiting_bytes: The bytes of their lines.
        in_flight: Records of the batch that is being written.
        in_flight_for: Seconds since that write began; 0 without one.
        overdue: True if that is longer than the time-out.
        oldest_age: Seconds since the oldest waiting record came; 0 without one.
        batches: Acknowledged batches, with empty ones.
        bytes: The bytes of acknowledged lines.
        retries: Attempts beyond the first of a batch.
        failing: Failed attempts since the last acknowledgement.
        last_error: The error of the last failed attempt; empty after an acknowledgement.
        silent_for: Seconds since the last acknowledgement, or since the start.
        progress: The positions, by stream.
    """

    name: str
    offered: int = 0
    already_stored: int = 0
    written: int = 0
    dead_lettered: int = 0
    refused: int = 0
    dropped: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    in_flight: int = 0
    in_flight_for: float = 0.0
    overdue: bool = False
    oldest_age: float = 0.0
    batches: int = 0
    bytes: int = 0
    retries: int = 0
    failing: int = 0
    last_error: str = ""
    silent_for: float = 0.0
    progress: Mapping[Stream, Progress] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """One stream's counters: ``read = routed + unrouted + failed + waiting``.

    Attributes:
        stream: The stream.
        read: Records from the source, with gap records.
        gaps: Gap records among them.
        routed: Records that were handed to every destination that a route names.
        unrouted: Records that match no route.
        failed: Records on which a route raised; they are in the dead letters, if there are any.
        waiting: Records between the source and the destinations' queues.
        deliveries: Records handed to destinations; one that goes to two destinations counts twice.
        position: How far it has been read; None: not at all.
        silent_for: Seconds since the source last returned something, or since the start.
    """

    stream: Stream
    read: int = 0
    gaps: int = 0
    routed: int = 0
    unrouted: int = 0
    failed: int = 0
    waiting: int = 0
    deliveries: int = 0
    position: Position | None = None
    silent_for: float = 0.0


@dataclass(frozen=True, slots=True)
class ExportStatistics:
    """An export's counters.

    Attributes:
        state: ``"new"``, ``"starting"`` (reads the destinations' positions), ``"running"``, ``"stopping"`` or
            ``"ended"``.
        streams: The streams in the source's order.
        destinations: The destinations in the order of the exporter's sinks.
        beat_age: Seconds since the export last checked its threads; 0 unless it runs.
    """

    state: str
    streams: tuple[StreamStatistics, ...] = ()
    destinations: tuple[DestinationStatistics, ...] = ()
    beat_age: float = 0.0

    @property
    def waiting(self) -> int:
        """Records that were read and are not yet written or lost; one that waits for two destinations counts twice."""
        return sum(part.waiting for part in self.streams) + sum(part.waiting for part in self.destinations)
