"""Writes batches to one sink: retries, dead letters, and the destination's counters."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_not_exception_type
from tenacity.stop import stop_after_attempt, stop_base, stop_never
from tenacity.wait import wait_base

from kevents._model.wire import format_error, pluralize
from kevents._runtime.log import LimitedLog
from kevents.export._model.options import Destination, default_retry_wait
from kevents.export._model.statistics import DestinationStatistics, Progress
from kevents.export._model.types import Batch, Position, Record, Reject, Retry, Stream
from kevents.export._pipeline.batcher import Batcher

A = TypeVar("A")
R = TypeVar("R")

LONGEST_RETRY_AFTER: Final = 60.0
"""Longest wait that a destination may ask for, in seconds."""

_FIRST_ATTEMPTS = 3


class DeadLetterWriter(Protocol):
    """Stores records that a destination refuses."""

    def write(self, sink: str, records: Sequence[Record], why: str) -> None:
        """Store records; return only when they are durable. Called by several threads."""


class AbandonedError(Exception):
    """The destination worker was abandoned: it ends although records wait."""


@dataclass(slots=True)
class DestinationCounters:
    """The counters of one destination, as in :class:`DestinationStatistics`. The caller holds the worker's lock."""

    answered: float  # when the destination last acknowledged a batch, in seconds of a monotonic clock
    offered: int = 0
    already_stored: int = 0
    written: int = 0
    dead_lettered: int = 0
    refused: int = 0
    dropped: int = 0
    batches: int = 0
    bytes: int = 0
    retries: int = 0
    failing: int = 0
    last_error: str = ""
    writing_since: float | None = None  # when the current write began; None without one
    settled: int = 0  # records of the batch in flight that were written or refused already
    read: dict[Stream, Position | None] = field(default_factory=dict)  # how far each stream was read
    # the position that the destination has stored, by stream
    committed: dict[Stream, Position | None] = field(default_factory=dict)

    def writing_for(self, now: float) -> float:
        """Return how many seconds the current write has taken; 0 without one."""
        return 0.0 if self.writing_since is None else now - self.writing_since

    def snapshot(self, name: str, write_timeout: float, batcher: Batcher, now: float) -> DestinationStatistics:
        """Return the statistics, including the records in the queue."""
        return DestinationStatistics(
            name=name,
            offered=self.offered,
            already_stored=self.already_stored,
            written=self.written,
            dead_lettered=self.dead_lettered,
            refused=self.refused,
            dropped=self.dropped,
            waiting=batcher.items - self.settled,
            waiting_bytes=batcher.bytes,
            in_flight=batcher.in_flight,
            in_flight_for=self.writing_for(now),
            overdue=self.writing_for(now) > write_timeout,
            oldest_age=max(now - batcher.oldest(), 0.0),
            batches=self.batches,
            bytes=self.bytes,
            retries=self.retries,
            failing=self.failing,
            last_error=self.last_error,
            silent_for=now - self.answered,
            progress={stream: Progress(read, self.committed[stream]) for stream, read in self.read.items()},
        )


class Writer:
    """Calls one sink, in the destination worker's thread, and retries until each batch is settled."""

    def __init__(
        self,
        name: str,  # the destination's name
        destination: Destination,  # the sink and its options
        dead_letters: DeadLetterWriter | None,  # stores refused records; None: they are lost, and counted
        log: LimitedLog,  # the rate-limited log
        lock: threading.Lock,  # the worker's lock, which guards the counters
        counters: DestinationCounters,  # the destination's counters
        pause: Callable[[float], None],  # waits for some seconds, or raises `AbandonedError`
        clock: Callable[[], float],  # a monotonic clock, in seconds
    ) -> None:
        self.unknown: set[Stream] = set()
        self._late: dict[Stream, Position] = {}  # positions of unknown streams, asked for before a later write
        self._name = name
        self._sink = destination.sink
        self._stop = destination.retry_stop
        self._drops = destination.when_full == "drop"
        self._final: tuple[type[BaseException], ...] = (AbandonedError, *destination.final_errors)
        self._dead_letters = dead_letters
        self._log = log
        self._lock = lock
        self._counters = counters
        self._pause = pause
        self._clock = clock
        default = default_retry_wait()
        self._wait = wait_retry_after(destination.retry_wait or default, default, log)

    def last_position(self, stream: Stream) -> Position | None:
        """Ask the sink for its position. With ``when_full="drop"`` it is asked three times at most."""
        stop = stop_after_attempt(_FIRST_ATTEMPTS) if self._drops else stop_never
        try:
            return self._retried(self._sink.last_position, stream, stop)
        except self._final:
            raise
        except BaseException as error:  # noqa: BLE001 - logged; the other destinations must not wait
            self.unknown.add(stream)
            text = f"{self._name} did not return its position ({format_error(error)}): retried before the next write"
            self._log.log_limited(("unknown", self._name), text)
            return None

    def deliver(self, batch: Batch) -> None:
        """Write a batch until it is acknowledged, or refused and stored in the dead letters."""
        try:
            if batch.position.stream in self.unknown:
                self._retried(self._learn_position, batch.position.stream, self._stop)
            batch = self._unwritten(batch)
            self._retried(self._write, batch, self._stop)
        except Reject as refusal:
            refused = _of(batch, refusal.records)
            self._dead_letter(refused, str(refusal))
            self._count_written(batch, without=refused)
            # The position is written last: after a crash the refused records are read again, not lost.
            if batch.records:
                self.deliver(Batch((), batch.position))
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
                self._counters.committed[batch.position.stream] = batch.position

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
            self._counters.already_stored += stored
            self._counters.settled += stored
        return Batch(records, max(own, batch.position, key=lambda position: position.rv))

    def _write(self, batch: Batch) -> None:
        with self._lock:
            self._counters.writing_since = self._clock()
        try:
            self._sink.write(batch)
        finally:
            with self._lock:
                self._counters.writing_since = None

    def _dead_letter(self, records: Sequence[Record], why: str) -> None:
        """Store refused records in the dead letters; without dead letters they are lost, and counted."""
        if not records:
            return
        letters = self._dead_letters
        if letters is not None:
            self._retried(lambda refused: letters.write(self._name, refused, why), records, stop_never)
        with self._lock:
            self._counters.settled += len(records)
            if letters is not None:
                self._counters.dead_lettered += len(records)
            else:
                self._counters.refused += len(records)
        where = "kept in the dead letters" if letters is not None else "lost: give dead_letters a path"
        text = f"{self._name} refused {pluralize(len(records), 'record')}, {where}: {why}"
        self._log.log_limited(("refused", self._name), text, events=len(records), level=logging.ERROR)

    def _count_written(self, batch: Batch, without: Sequence[Record]) -> None:
        records = len(batch.records) - len(without)
        with self._lock:
            counters = self._counters
            counters.settled += records
            counters.written += records
            counters.bytes += _size(batch.records) - _size(without)
            counters.batches += 1
            counters.answered = self._clock()
            failing, counters.failing, counters.last_error = counters.failing, 0, ""
        if failing:
            text = f"{self._name} accepts records again after {failing} failed attempts"
            self._log.log_limited(("back", self._name), text, level=logging.INFO)

    def _retried(self, call: Callable[[A], R], argument: A, stop: stop_base) -> R:
        """Call until it returns, raises :class:`Reject` or a final error, or `stop` gives up."""
        retrying = Retrying(
            wait=self._wait,
            stop=stop,
            retry=retry_if_not_exception_type((Reject, *self._final)),
            sleep=self._pause,
            before_sleep=self._log_failed,
            reraise=True,
        )
        return retrying(call, argument)

    def _log_failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        why = str(error) if isinstance(error, Retry) else format_error(error) if error is not None else ""
        with self._lock:
            self._counters.retries += 1
            self._counters.failing += 1
            self._counters.last_error = why
        self._log.log_limited(
            ("retry", self._name), f"{self._name} does not accept records now; they wait and are retried: {why}"
        )


class wait_retry_after(wait_base):  # noqa: N801 - tenacity's naming
    """Waits as long as the destination asks, at most 60 s, or as long as another wait returns."""

    def __init__(self, wait: wait_base, fallback: wait_base, log: LimitedLog) -> None:
        self._wait = wait  # used if the destination asks for nothing
        self._fallback = fallback  # used if `wait` raises or returns no valid number of seconds
        self._log = log  # the rate-limited log

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the seconds to wait."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        after = error.after if isinstance(error, Retry) else None
        if after is not None and 0.0 <= after < inf:
            return min(after, LONGEST_RETRY_AFTER)
        try:
            wait = float(self._wait(retry_state))
            if 0.0 <= wait < inf:
                return wait
            trouble = f"returned {wait}, not a number of seconds"
        except Exception as failed:  # noqa: BLE001 - the user's function must not end the destination
            trouble = f"raised {format_error(failed)}"
        self._log.log_limited("retry_wait", f"retry_wait {trouble}; the default is used")
        return float(self._fallback(retry_state))


def _of(batch: Batch, records: Sequence[Record]) -> list[Record]:
    """Return these records of a batch, in its order."""
    known = {id(record) for record in records}
    return [record for record in batch.records if id(record) in known]


def _size(records: Sequence[Record]) -> int:
    return sum([len(record.line()) + 1 for record in records])
