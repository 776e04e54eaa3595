"""What an export counts: snapshots of the ledgers of its streams and its destinations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kevents.export._model.types import Position, Stream


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a destination is with a stream: two numbers, so that a route that rarely matches is no gap.

    Attributes:
        position: What has been read, and is written, on its way, or not meant for this destination.
        committed: What the destination has acknowledged; None: nothing yet.

    .. versionadded:: 0.1
    """

    position: Position | None = None
    committed: Position | None = None


@dataclass(frozen=True, slots=True)
class DestinationStatistics:
    """One destination's ledger: ``offered = already_stored + written + dead_lettered + refused + dropped + waiting``.

    Attributes:
        name: Which destination.
        offered: Records that a route sent here.
        already_stored: Of these, those that the destination had stored before this run.
        written: Records that it acknowledged.
        dead_lettered: Records that it never takes, or that were given up, written to the dead letters.
        refused: The same where there are no dead letters: lost.
        dropped: Records lost to a full queue.
        waiting: Records still to be written, those in flight too.
        waiting_bytes: The bytes of their lines.
        in_flight: Records of the batch that is being written.
        in_flight_for: Seconds since that write was begun; 0 without one.
        overdue: Whether that is longer than its time-out.
        oldest_age: Seconds since the oldest waiting record came; 0 without one.
        batches: Batches that were acknowledged, empty ones included.
        bytes: Bytes of the lines that were acknowledged.
        retries: Tries beyond the first of a batch.
        failing: Tries that failed since the last acknowledgement.
        last_error: What the last failed try said; empty after an acknowledgement.
        silent_for: Seconds since the last acknowledgement, or since the start.
        progress: By stream.

    .. versionadded:: 0.1
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
    """One stream's ledger: ``read = routed + unrouted + failed + waiting``.

    Attributes:
        stream: Which stream.
        read: Records that the source gave, gaps included.
        gaps: Of these, those that stand for events which could not be had any more.
        routed: Records that were handed to every destination that a route names.
        unrouted: Records that no route wants.
        failed: Records on which a route raised; they are in the dead letters, if there are some.
        waiting: Records on their way through enricher and routes.
        deliveries: Hand-overs: a record routed to two destinations counts twice.
        position: How far it has been read; None: nothing yet.
        silent_for: Seconds since the source gave something, or since the start.

    .. versionadded:: 0.1
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
    """An export's ledgers.

    Attributes:
        state: ``"new"``, ``"starting"`` (asks the destinations for their positions), ``"running"``, ``"stopping"`` or
            ``"ended"``.
        streams: In the order in which the source gave them.
        destinations: In the order in which they were given.
        beat_age: Seconds since the export last looked after its threads; 0 unless it runs.

    .. versionadded:: 0.1
    """

    state: str
    streams: tuple[StreamStatistics, ...] = ()
    destinations: tuple[DestinationStatistics, ...] = ()
    beat_age: float = 0.0

    @property
    def waiting(self) -> int:
        """How many records were read and not yet acknowledged, dropped or refused; one may wait in several places."""
        return sum(part.waiting for part in self.streams) + sum(part.waiting for part in self.destinations)
