"""What became of the records of one destination, in numbers, and how far it holds each stream."""

from __future__ import annotations

from kevents.export._model.statistics import DestinationStatistics, Progress
from kevents.export._model.types import Position, Stream
from kevents.export._pipeline.batcher import Batcher


class Account:
    """A destination's numbers; whoever touches them holds the lane's lock.

    Args:
        name: The destination's.
        write_timeout: Seconds after which a write is overdue.
        now: The present, in seconds that only grow.

    Attributes:
        accounted: How many records of the batch in hand have been written or refused already.
        read: How far each stream was read.
        durable: How far the destination holds it.
        answered: When it last took something.
        writing_since: When the write began that is under way; None: there is none.
    """

    def __init__(self, name: str, write_timeout: float, now: float) -> None:
        """Nothing has happened."""
        self.accounted = 0
        self.read: dict[Stream, Position | None] = {}
        self.durable: dict[Stream, Position | None] = {}
        self.answered = now
        self.writing_since: float | None = None
        self._name = name
        self._write_timeout = write_timeout
        self._offered = self._already = self._written = self._dead = self._refused = self._dropped = 0
        self._batches = self._bytes = self._retries = self._failing = 0
        self._last_error = ""

    def begin(self, stream: Stream, read: Position | None, held: Position | None) -> None:
        """A stream is read from a mark on, and held up to another."""
        self.read[stream] = read
        self.durable[stream] = held

    def offered(self, records: int, fresh: int, kept: int) -> None:
        """So many records came; so many of them the destination did not hold, and so many of those had room."""
        self._offered += records
        self._already += records - fresh
        self._dropped += fresh - kept

    def held(self, records: int) -> None:
        """So many records of the batch in hand the destination held before, as it turned out."""
        self._already += records
        self.accounted += records

    def failed(self, why: str) -> None:
        """A try failed, and another follows."""
        self._retries += 1
        self._failing += 1
        self._last_error = why

    def wrote(self, records: int, size: int, now: float) -> int:
        """So many records of a batch were written, so many bytes; how many tries had failed before."""
        self.accounted += records
        self._written += records
        self._bytes += size
        self._batches += 1
        failing, self._failing, self._last_error = self._failing, 0, ""
        self.answered = now
        return failing

    def refused(self, records: int, *, kept: bool) -> None:
        """The destination never takes these: the dead letters keep them, or they are lost."""
        self.accounted += records
        if kept:
            self._dead += records
        else:
            self._refused += records

    def writing_for(self, now: float) -> float:
        """For how many seconds the write has been under way."""
        return 0.0 if self.writing_since is None else now - self.writing_since

    def statistics(self, batcher: Batcher, now: float) -> DestinationStatistics:
        """A snapshot, with what waits."""
        in_flight_for = self.writing_for(now)
        return DestinationStatistics(
            name=self._name,
            offered=self._offered,
            held=self._already,
            written=self._written,
            dead_lettered=self._dead,
            refused=self._refused,
            dropped=self._dropped,
            waiting=batcher.items - self.accounted,
            waiting_bytes=batcher.bytes,
            in_flight=batcher.in_hand,
            in_flight_for=in_flight_for,
            overdue=in_flight_for > self._write_timeout,
            oldest_age=max(now - batcher.oldest(), 0.0),
            batches=self._batches,
            bytes=self._bytes,
            retries=self._retries,
            failing=self._failing,
            last_error=self._last_error,
            silent_for=now - self.answered,
            progress={
                stream: Progress(read_up_to=read, durable_up_to=self.durable[stream])
                for stream, read in self.read.items()
            },
        )
