"""The worker of one destination: its queue, its thread, and the positions that it has committed.

All calls of the sink happen in the worker's thread: asking for positions, one write at a time in order, closing. A
batch is retried until the destination has it; only then is the position of its stream committed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic

from kevents._model.wire import format_error, pluralize
from kevents._runtime.log import LimitedLog
from kevents.export._model.options import Destination
from kevents.export._model.statistics import DestinationStatistics
from kevents.export._model.types import Batch, Position, Record, Stream
from kevents.export._pipeline.batcher import Batcher
from kevents.export._pipeline.writer import AbandonedError, DeadLetterWriter, DestinationCounters, Writer

Fail = Callable[[BaseException], None]
"""Called with an unexpected error, which ends the export."""

_LAST_BACKOFF = 0.25  # longest wait between attempts once the export ends, in seconds


class DestinationWorker:
    """The queue of one destination and the thread that writes it."""

    def __init__(
        self,
        name: str,  # the destination's name, as the routes use it
        destination: Destination,  # the sink and its options
        dead_letters: DeadLetterWriter | None,  # stores refused records; None: they are lost, and counted
        log: LimitedLog,  # the rate-limited log
        clock: Callable[[], float] = monotonic,  # a monotonic clock, in seconds
    ) -> None:
        self.name = name
        self._options = destination
        self._sink = destination.sink
        self._drops = destination.when_full == "drop"
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()  # guards all below; never held while the sink is called or something is logged
        self._changed = threading.Condition(self._lock)
        self._blocked: set[threading.Event] = set()  # set when the queue has space again
        self._batcher = Batcher(destination.batch, destination.queue)
        self._wakes = -inf  # when the thread wakes by itself
        self._flushing = self._stopping = self._abandoned = False
        self._begun = threading.Event()
        self._stored: dict[Stream, Position | None] = {}
        self._skip: dict[Stream, Position] = {}
        self._counters = DestinationCounters(clock())
        self._writer = Writer(name, destination, dead_letters, log, self._lock, self._counters, self._pause, clock)
        self._thread: threading.Thread | None = None

    # -- start

    def start(self, streams: Sequence[Stream], fail: Fail) -> None:
        """Start the thread, which first asks the sink for its positions."""
        self._counters.answered = self._clock()
        name = f"kevents-export-{self.name}"
        self._thread = threading.Thread(target=self._run, args=(streams, fail), name=name, daemon=True)
        self._thread.start()

    def wait_begun(self, seconds: float) -> bool:
        """Wait until the sink has returned its positions; False after the time-out."""
        return self._begun.wait(seconds)

    def stored(self, stream: Stream) -> Position | None:
        """Return the position that the sink had stored at the start; None: nothing of the stream."""
        return self._stored.get(stream)

    @property
    def unknown(self) -> bool:
        """True if the sink did not return the positions of all streams (only with ``when_full="drop"``)."""
        return bool(self._writer.unknown)

    def begin(self, stream: Stream, after: Position | None) -> None:
        """Register the position from which a stream is read. Records that the sink has stored are skipped."""
        stored = self._stored.get(stream)
        with self._lock:
            self._batcher.begin(stream, stored, self._clock())
            self._counters.read[stream], self._counters.committed[stream] = after, stored
            if stored is not None:
                self._skip[stream] = stored

    # -- called by the stream workers

    def offer(self, stream: Stream, records: Sequence[Record], position: Position, has_space: threading.Event) -> bool:
        """Add records to the queue, without waiting.

        Returns:
            False if the queue is full: nothing was added. An abandoned worker accepts everything and writes nothing:
            the records count as waiting, and the next run reads them again.
        """
        with self._lock:
            fresh = self._fresh(stream, records)
            if fresh and self._batcher.full and not (self._drops or self._abandoned):
                self._blocked.add(has_space)
                return False
            kept = fresh[: self._batcher.free] if self._drops else fresh
            self._add(stream, kept, position)
            dropped = len(fresh) - len(kept)
            self._counters.offered += len(records)
            self._counters.already_stored += len(records) - len(fresh)
            self._counters.dropped += dropped
        if dropped:
            text = f"dropped {pluralize(dropped, 'record')} for {self.name}: its queue is full and when_full is 'drop'"
            self._log.log_limited(("dropped", self.name), text, events=dropped)
        return True

    def _fresh(self, stream: Stream, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out the records that the destination had stored before this run."""
        skip = self._skip.get(stream)
        if skip is None:
            return records
        return [record for record in records if record.rv > skip.rv]

    def _add(self, stream: Stream, records: Sequence[Record], position: Position) -> None:
        self._counters.read[stream] = position
        if stream in self._skip:
            if position.rv < self._skip[stream].rv:
                return  # the destination is ahead of the source: its position must not go back
            del self._skip[stream]
        self._batcher.add(stream, records, position, self._clock())
        if self._batcher.due() < self._wakes:
            self._changed.notify()

    # -- the thread

    def _run(self, streams: Sequence[Stream], fail: Fail) -> None:
        try:
            with suppress(AbandonedError):  # the next run reads the waiting records again
                self._work(streams)
        except BaseException as error:  # noqa: BLE001 - reported by `Exporter.run`
            fail(error)
        finally:
            self.abandon()
            self._close()

    def _work(self, streams: Sequence[Stream]) -> None:
        for stream in streams:
            self._stored[stream] = self._writer.last_position(stream)
        self._begun.set()
        while (batch := self._next()) is not None:
            self._writer.deliver(batch)
            with self._lock:
                self._batcher.done()
                self._counters.settled = 0
            self._unblock()

    def _next(self) -> Batch | None:
        """Wait for the next batch; None if there will be none."""
        with self._lock:
            while not self._abandoned:
                now = self._clock()
                batch = self._batcher.take(now)
                if batch is not None:
                    return batch
                if self._stopping and not self._batcher.items:
                    return None
                self._wakes = self._batcher.due()
                self._changed.wait(None if self._wakes == inf else min(self._wakes - now, threading.TIMEOUT_MAX))
                self._wakes = -inf
            return None

    def _unblock(self) -> None:
        """Wake the stream workers that found the queue full."""
        with self._lock:
            blocked, self._blocked = self._blocked, set()
        for has_space in blocked:
            has_space.set()

    def _pause(self, seconds: float) -> None:
        """Wait between two attempts; only briefly once the export ends."""
        with self._lock:
            flushing = self._flushing
            deadline = self._clock() + (min(seconds, _LAST_BACKOFF) if flushing else seconds)
            while not self._abandoned and self._flushing == flushing and (left := deadline - self._clock()) > 0:
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            if self._abandoned:
                raise AbandonedError

    # -- end

    def flush_now(self) -> None:
        """Write all waiting records at once, and wait only briefly between attempts."""
        with self._lock:
            self._flushing = True
            self._batcher.flush_now()
            self._changed.notify_all()

    def stop(self) -> None:
        """End the thread once everything is written. No more records may be offered."""
        with self._lock:
            self._stopping = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """End the thread although records wait. A current call of the sink is not interrupted."""
        with self._lock:
            self._abandoned = True
            self._changed.notify_all()
        self._unblock()
        if self._thread is None:
            self._close()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; False after the time-out."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _close(self) -> None:
        """Close the sink: in the worker's thread, or in the caller's if none was started."""
        try:
            self._sink.close()
        except BaseException as error:  # noqa: BLE001 - the export must end; acknowledged records are durable
            text = f"closing {self.name} raised {format_error(error)}"
            self._log.log_limited(("close", self.name), text, level=logging.ERROR)

    # -- observation

    def log_overdue(self) -> None:
        """Log a write that takes longer than its time-out."""
        with self._lock:
            seconds = self._counters.writing_for(self._clock())
        if seconds > self._options.write_timeout:
            text = f"{self.name} has not answered a write for {seconds:.0f} s; the export keeps waiting for it"
            self._log.log_limited(("overdue", self.name), text)

    def statistics(self) -> DestinationStatistics:
        """Return a snapshot of the destination's statistics."""
        with self._lock:
            return self._counters.snapshot(self.name, self._options.write_timeout, self._batcher, self._clock())
