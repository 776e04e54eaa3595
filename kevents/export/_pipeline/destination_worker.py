"""The worker of one destination: its queue, its thread, and the positions that it has committed.

All calls of the sink happen in the worker's thread: asking for positions, one write at a time in order, closing. A
batch is retried until the destination has it; only then is the position of its stream committed.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_not_exception_type
from tenacity.stop import stop_after_attempt, stop_base, stop_never

from kevents._model.validation import seconds_of
from kevents._model.wire import format_error, pluralize
from kevents._runtime.log import LimitedLog
from kevents.export._model.options import RETRY_WAIT, Destination
from kevents.export._model.statistics import DestinationStatistics, Progress
from kevents.export._model.types import Batch, Position, Record, Reject, Retry, Stream
from kevents.export._pipeline.batcher import Batcher, size_of
from kevents.export._sinks.local_files import DeadLetters

A = TypeVar("A")
R = TypeVar("R")
Fail = Callable[[BaseException], None]  # called with an unexpected error, which ends the export
LONGEST_RETRY_AFTER: Final = 60.0  # longest wait that a destination may ask for, in seconds
_LAST_BACKOFF: Final = 0.25  # longest wait between attempts once the export ends, in seconds
_FIRST_ATTEMPTS: Final = 3


class AbandonedError(Exception):
    """The destination worker was abandoned: it ends although records wait."""


class DestinationWorker:
    """The queue of one destination and the thread that writes it."""

    def __init__(
        self,
        name: str,  # as the routes use it
        destination: Destination,
        dead_letters: DeadLetters | None,  # stores refused records; None: they are lost, and counted
        log: LimitedLog,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.name = name
        self.options = destination
        self._sink = destination.sink
        self._final: tuple[type[BaseException], ...] = (AbandonedError, *destination.final_errors)
        self._drops = destination.when_full == "drop"
        self._dead_letters = dead_letters
        self._log = log
        self._clock = clock
        self._thread: threading.Thread | None = None
        self.begun = threading.Event()  # set when the sink has returned its positions
        self.stored: dict[Stream, Position | None] = {}  # the sink's positions at the start
        self.unknown: set[Stream] = set()  # streams whose position the sink did not return, with `when_full="drop"`
        self._late: dict[Stream, Position] = {}  # positions of unknown streams, asked for before a later write
        self._lock = threading.Lock()  # guards all below; never held while the sink is called or something is logged
        self._changed = threading.Condition(self._lock)
        self._blocked: set[threading.Event] = set()  # set when the queue has space again
        self._batcher = Batcher(destination.batch, destination.queue)
        self._wakes = -inf  # when the thread wakes by itself
        self._stopping = self._abandoned = False
        self._skip: dict[Stream, Position] = {}
        self._counts: Counter[str] = Counter()  # those of `DestinationStatistics`
        self._last_error = ""
        self._answered = clock()  # when the destination last acknowledged a batch
        self._writing_since: float | None = None
        self._settled = 0  # records of the batch in flight that were written or refused already
        self._read: dict[Stream, Position | None] = {}  # how far each stream was read
        self._committed: dict[Stream, Position | None] = {}

    # -- start

    def start(self, streams: Sequence[Stream], fail: Fail) -> None:
        """Start the thread, which first asks the sink for its positions."""
        self._answered = self._clock()
        name = f"kevents-export-{self.name}"
        self._thread = threading.Thread(target=self._run, args=(streams, fail), name=name, daemon=True)
        self._thread.start()

    def begin(self, stream: Stream, after: Position | None) -> None:
        """Register the position from which a stream is read. Records that the sink has stored are skipped."""
        stored = self.stored.get(stream)
        with self._lock:
            self._batcher.begin(stream, stored, self._clock())
            self._read[stream], self._committed[stream] = after, stored
            if stored is not None:
                self._skip[stream] = stored

    # -- called by the stream workers

    def offer(self, stream: Stream, records: Sequence[Record], position: Position, has_space: threading.Event) -> bool:
        """Add the records that a route sends here (possibly none), and the stream's position, without waiting.

        False if the queue is full: nothing was added, and `has_space` is set when another call may succeed. An
        abandoned worker accepts everything and writes nothing: the next run reads the records again.
        """
        with self._lock:
            skip = self._skip.get(stream)  # the position of the destination before this run
            fresh = records if skip is None else [record for record in records if record.rv > skip.rv]
            if fresh and self._batcher.full and not (self._drops or self._abandoned):
                self._blocked.add(has_space)
                return False
            kept = fresh[: self._batcher.free] if self._drops else fresh
            self._add(stream, kept, position)
            dropped = len(fresh) - len(kept)
            self._counts.update(offered=len(records), already_stored=len(records) - len(fresh), dropped=dropped)
        if dropped:
            text = f"dropped {pluralize(dropped, 'record')} for {self.name}: its queue is full and when_full is 'drop'"
            self._log.log_limited(("dropped", self.name), text, events=dropped)
        return True

    def _add(self, stream: Stream, records: Sequence[Record], position: Position) -> None:
        self._read[stream] = position
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
            self.stored[stream] = self._first_position(stream)
        self.begun.set()
        while (batch := self._next()) is not None:
            self._deliver(batch)
            with self._lock:
                self._batcher.done()
                self._settled = 0
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

    # -- writing a batch

    def _first_position(self, stream: Stream) -> Position | None:
        """Ask the sink for its position. With ``when_full="drop"`` it is asked three times at most."""
        stop = stop_after_attempt(_FIRST_ATTEMPTS) if self._drops else stop_never
        try:
            return self._retried(self._sink.last_position, stream, stop)
        except self._final:
            raise
        except BaseException as error:  # noqa: BLE001 - logged; the other destinations must not wait
            self.unknown.add(stream)
            text = f"{self.name} did not return its position ({format_error(error)}): retried before the next write"
            self._log.log_limited(("unknown", self.name), text)
            return None

    def _deliver(self, batch: Batch) -> None:
        """Write a batch until it is acknowledged, or refused and stored in the dead letters."""
        stop = self.options.retry_stop
        try:
            if batch.position.stream in self.unknown:
                self._retried(self._learn_position, batch.position.stream, stop)
            batch = self._unwritten(batch)
            self._retried(self._write, batch, stop)
        except Reject as refusal:
            refused = _of(batch, refusal.records)
            self._dead_letter(refused, str(refusal))
            self._count_written(batch, without=refused)
            # The position is written last: after a crash the refused records are read again, not lost.
            if batch.records:
                self._deliver(Batch((), batch.position))
        except self._final:
            raise
        except BaseException as error:  # noqa: BLE001 - retry_stop has given up on it
            pending = error.pending if isinstance(error, Retry) else None
            lost = batch.records if pending is None else _of(batch, pending)
            self._dead_letter(lost, f"given up: {format_error(error)}")
            if len(lost) < len(batch.records):
                self._count_written(batch, without=lost)
        else:
            self._count_written(batch, without=())
            with self._lock:
                self._committed[batch.position.stream] = batch.position

    def _learn_position(self, stream: Stream) -> None:
        position = self._sink.last_position(stream)
        self.unknown.remove(stream)
        if position is not None:
            self._late[stream] = position

    def _unwritten(self, batch: Batch) -> Batch:
        """Leave out records that the sink had stored before this run, according to a late answer."""
        own = self._late.get(batch.position.stream)
        if own is None:
            return batch
        records = [record for record in batch.records if record.rv > own.rv]
        stored = len(batch.records) - len(records)
        with self._lock:
            self._counts["already_stored"] += stored
            self._settled += stored
        return Batch(records, max(own, batch.position, key=lambda position: position.rv))

    def _write(self, batch: Batch) -> None:
        with self._lock:
            self._writing_since = self._clock()
        try:
            self._sink.write(batch)
        finally:
            with self._lock:
                self._writing_since = None

    def _dead_letter(self, records: Sequence[Record], why: str) -> None:
        """Store refused records in the dead letters; without dead letters they are lost, and counted."""
        if not records:
            return
        letters = self._dead_letters
        if letters is not None:
            self._retried(lambda refused: letters.write(self.name, refused, why), records, stop_never)
        with self._lock:
            self._settled += len(records)
            self._counts["dead_lettered" if letters is not None else "refused"] += len(records)
        where = "kept in the dead letters" if letters is not None else "lost: give dead_letters a path"
        text = f"{self.name} refused {pluralize(len(records), 'record')}, {where}: {why}"
        self._log.log_limited(("refused", self.name), text, events=len(records), level=logging.ERROR)

    def _count_written(self, batch: Batch, without: Sequence[Record]) -> None:
        records = len(batch.records) - len(without)
        with self._lock:
            self._settled += records
            self._counts.update(written=records, bytes=size_of(batch.records) - size_of(without), batches=1)
            self._answered = self._clock()
            failing, self._last_error = self._counts.pop("failing", 0), ""
        if failing:
            text = f"{self.name} accepts records again after {failing} failed attempts"
            self._log.log_limited(("back", self.name), text, level=logging.INFO)

    def _retried(self, call: Callable[[A], R], argument: A, stop: stop_base) -> R:
        """Call until it returns, raises :class:`Reject` or a final error, or `stop` gives up."""
        retrying = Retrying(
            wait=self._seconds_to_wait,
            stop=stop,
            retry=retry_if_not_exception_type((Reject, *self._final)),
            sleep=self._pause,
            before_sleep=self._log_failed,
            reraise=True,
        )
        return retrying(call, argument)

    def _seconds_to_wait(self, state: RetryCallState) -> float:
        """Return how long the destination asks to wait, at most 60 s, or else the seconds of `retry_wait`."""
        error = state.outcome.exception() if state.outcome is not None else None
        after = error.after if isinstance(error, Retry) else None
        if after is not None and 0.0 <= after < inf:
            return min(after, LONGEST_RETRY_AFTER)
        try:
            return seconds_of(self.options.retry_wait, state)
        except ValueError as trouble:
            self._log.log_limited("retry_wait", f"retry_wait {trouble}; the default is used")
            return float(RETRY_WAIT(state))

    def _log_failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        why = str(error) if isinstance(error, Retry) else format_error(error) if error is not None else ""
        with self._lock:
            self._counts.update(retries=1, failing=1)
            self._last_error = why
        text = f"{self.name} does not accept records now; they wait and are retried: {why}"
        self._log.log_limited(("retry", self.name), text)

    def _pause(self, seconds: float) -> None:
        """Wait between two attempts; only briefly once the export ends."""
        with self._lock:
            flushing = self._batcher.flushing
            deadline = self._clock() + (min(seconds, _LAST_BACKOFF) if flushing else seconds)
            while not self._abandoned and self._batcher.flushing == flushing and (left := deadline - self._clock()) > 0:
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            if self._abandoned:
                raise AbandonedError

    # -- end

    def flush_now(self) -> None:
        """Write all waiting records at once, and wait only briefly between attempts."""
        with self._lock:
            self._batcher.flushing = True
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

    def _writing_for(self) -> float:
        """Return how many seconds the current write has taken; 0 without one."""
        return 0.0 if self._writing_since is None else self._clock() - self._writing_since

    def log_overdue(self) -> None:
        """Log a write that takes longer than its time-out."""
        with self._lock:
            seconds = self._writing_for()
        if seconds > self.options.write_timeout:
            text = f"{self.name} has not answered a write for {seconds:.0f} s; the export keeps waiting for it"
            self._log.log_limited(("overdue", self.name), text)

    def statistics(self) -> DestinationStatistics:
        with self._lock:
            now, writing_for = self._clock(), self._writing_for()
            return DestinationStatistics(
                name=self.name,
                waiting=self._batcher.items - self._settled,
                waiting_bytes=self._batcher.bytes,
                in_flight=self._batcher.in_flight,
                in_flight_for=writing_for,
                overdue=writing_for > self.options.write_timeout,
                oldest_age=max(now - self._batcher.oldest(), 0.0),
                last_error=self._last_error,
                silent_for=now - self._answered,
                progress={stream: Progress(read, self._committed[stream]) for stream, read in self._read.items()},
                **self._counts,
            )


def _of(batch: Batch, records: Sequence[Record]) -> list[Record]:
    known = {id(record) for record in records}
    return [record for record in batch.records if id(record) in known]
