"""Brings a batch to its end: acknowledged by its destination, or refused and kept in the dead letters."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_not_exception_type
from tenacity.stop import stop_after_attempt, stop_base, stop_never
from tenacity.wait import wait_base

from kevents._model.wire import format_error, pluralize
from kevents._runtime.log import LimitedLog
from kevents.export._model.options import Destination, default_retry_wait
from kevents.export._model.statistics import DestinationStatistics, Progress
from kevents.export._model.types import Batch, Position, Record, Reject, Retry, Stream
from kevents.export._pipeline.batcher import Batcher

if TYPE_CHECKING:
    from tenacity import RetryCallState


A = TypeVar("A")
R = TypeVar("R")

_FIRST_ASKS = 3


class Letters(Protocol):
    """Where records go that a destination never takes."""

    def write(self, sink: str, records: Sequence[Record], why: str) -> None:
        """Keep them; return only when they are durable. Several threads may call."""
        ...


class OverError(Exception):
    """No fault: the lane ends, whatever waits."""


class Writer:
    """Calls a destination's sink, in the lane's thread, and tries again for as long as it takes.

    Args:
        name: Which destination.
        destination: The sink, and how it is fed.
        dead_letters: Where refused records go; None: they are lost, and counted.
        log: Keeps the lines few.
        lock: The lane's, which guards the account.
        account: What is told of what happened.
        pause: RetryWaits so many seconds, or raises :class:`OverError`.
        clock: Seconds that only grow.

    Attributes:
        unknown: Of which streams the sink, which may drop, could not say how far it holds them.
    """

    def __init__(
        self,
        name: str,
        destination: Destination,
        dead_letters: Letters | None,
        log: LimitedLog,
        lock: threading.Lock,
        account: Account,
        pause: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        """Touch no sink yet."""
        self.unknown: set[Stream] = set()
        self._late: dict[Stream, Position] = {}  # what it said later
        self._name = name
        self._sink = destination.sink
        self._stop = destination.retry_stop
        self._drops = destination.when_full == "drop"
        self._final: tuple[type[BaseException], ...] = (OverError, *destination.final_errors)
        self._dead_letters = dead_letters
        self._log = log
        self._lock = lock
        self._account = account
        self._pause = pause
        self._clock = clock
        default = default_retry_wait()
        self._wait = wait_as_asked(destination.retry_wait or default, default, log)

    def ask(self, stream: Stream) -> Position | None:
        """How far the sink holds a stream; one that may drop is not waited for."""
        stop = stop_after_attempt(_FIRST_ASKS) if self._drops else stop_never
        try:
            return self._retried(self._sink.last_position, stream, stop)
        except self._final:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it was, it was said; the others must not wait
            self.unknown.add(stream)
            text = f"{self._name} does not say what it holds ({format_error(error)}): asked again before the next write"
            self._log.log_limited(("unknown", self._name), text)
            return None

    def deliver(self, batch: Batch) -> None:
        """Bring a batch to its end: acknowledged, or refused and kept in the dead letters."""
        try:
            if batch.position.stream in self.unknown:
                self._retried(self._ask_again, batch.position.stream, self._stop)
            batch = self._beyond_late(batch)
            self._retried(self._write, batch, self._stop)
        except Reject as refusal:
            refused = self._among(batch, refusal)
            self._bury(refused, str(refusal))
            self._count_written(batch, without=refused)
            # The position comes last: were it first, a kill would lose what the dead letters had not got yet.
            if batch.records:
                self.deliver(Batch((), batch.position))
        except self._final:
            raise
        except BaseException as error:  # noqa: BLE001 - retry_stop has given up on it
            self._bury(batch.records, f"given up: {format_error(error)}")
        else:
            self._count_written(batch, without=())
            with self._lock:
                self._account.committed[batch.position.stream] = batch.position

    def _ask_again(self, stream: Stream) -> None:
        position = self._sink.last_position(stream)
        self.unknown.remove(stream)
        if position is not None:
            self._late[stream] = position

    def _beyond_late(self, batch: Batch) -> Batch:
        """Leave out what the sink held before this run, if it said so only after the records had come."""
        own = self._late.get(batch.position.stream)
        if own is None:
            return batch
        records = [record for record in batch.records if record.rv > own.rv]
        with self._lock:
            self._account.held(len(batch.records) - len(records))
        return Batch(records, max(own, batch.position, key=_number))

    def _write(self, batch: Batch) -> None:
        with self._lock:
            self._account.writing_since = self._clock()
        try:
            self._sink.write(batch)
        finally:
            with self._lock:
                self._account.writing_since = None

    def _among(self, batch: Batch, refusal: Reject) -> list[Record]:
        refused = {id(record) for record in refusal.records}
        return [record for record in batch.records if id(record) in refused]

    def _bury(self, records: Sequence[Record], why: str) -> None:
        """Write what the sink never takes to the dead letters; without those it is lost, and counted."""
        if not records:
            return
        letters = self._dead_letters
        if letters is not None:
            self._retried(lambda refused: letters.write(self._name, refused, why), records, stop_never)
        with self._lock:
            self._account.refused(len(records), kept=letters is not None)
        where = "kept in the dead letters" if letters is not None else "lost: give dead_letters a path"
        text = f"{self._name} refused {pluralize(len(records), 'record')}, {where}: {why}"
        self._log.log_limited(("refused", self._name), text, events=len(records), level=logging.ERROR)

    def _count_written(self, batch: Batch, without: Sequence[Record]) -> None:
        size = _size(batch.records) - _size(without)
        with self._lock:
            failing = self._account.wrote(len(batch.records) - len(without), size, self._clock())
        if failing:
            text = f"{self._name} takes records again after {failing} failed tries"
            self._log.log_limited(("back", self._name), text, level=logging.INFO)

    # -- trying again --------------------------------------------------------------------------------------------

    def _retried(self, call: Callable[[A], R], argument: A, stop: stop_base) -> R:
        """Call until it returns, or raises :class:`Reject`, or the tries are used up."""
        retrying = Retrying(
            wait=self._wait,
            stop=stop,
            retry=retry_if_not_exception_type((Reject, *self._final)),
            sleep=self._pause,
            before_sleep=self._tell_failed,
            reraise=True,
        )
        return retrying(call, argument)

    def _tell_failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        said = str(error) if isinstance(error, Retry) else format_error(error) if error is not None else ""
        with self._lock:
            self._account.failed(said)
        text = f"{self._name} does not take records now, they wait and are tried again: {said}"
        self._log.log_limited(("retry", self._name), text)


def _number(position: Position) -> int:
    return position.rv


def _size(records: Sequence[Record]) -> int:
    return sum([len(record.line()) + 1 for record in records])


class Account:
    """A destination's numbers; whoever touches them holds the lane's lock.

    Args:
        name: The destination's.
        write_timeout: Seconds after which a write is overdue.
        now: The present, in seconds that only grow.

    Attributes:
        accounted: How many records of the batch in hand have been written or refused already.
        read: How far each stream was read.
        committed: How far the destination holds it.
        answered: When it last took something.
        writing_since: When the write began that is under way; None: there is none.
    """

    def __init__(self, name: str, write_timeout: float, now: float) -> None:
        """Nothing has happened."""
        self.accounted = 0
        self.read: dict[Stream, Position | None] = {}
        self.committed: dict[Stream, Position | None] = {}
        self.answered = now
        self.writing_since: float | None = None
        self._name = name
        self._write_timeout = write_timeout
        self._offered = self._already = self._written = self._dead = self._refused = self._dropped = 0
        self._batches = self._bytes = self._retries = self._failing = 0
        self._last_error = ""

    def begin(self, stream: Stream, read: Position | None, held: Position | None) -> None:
        """A stream is read from a position on, and held up to another."""
        self.read[stream] = read
        self.committed[stream] = held

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
            already_stored=self._already,
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
                stream: Progress(position=read, committed=self.committed[stream]) for stream, read in self.read.items()
            },
        )


LONGEST_ASKED: Final = 60.0
"""Seconds up to which a destination's own wish to be left alone is followed."""


class wait_as_asked(wait_base):  # noqa: N801 - tenacity's way of naming waits
    """What the destination asks for, else another wait; one that fails is replaced by the default."""

    def __init__(self, wait: wait_base, fallback: wait_base, log: LimitedLog) -> None:
        """Keep the waits."""
        self._wait = wait
        self._fallback = fallback
        self._log = log

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds."""
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.after if isinstance(error, Retry) else None
        if asked is not None and 0.0 <= asked < inf:
            return min(asked, LONGEST_ASKED)
        try:
            wait = float(self._wait(retry_state))
            if 0.0 <= wait < inf:
                return wait
            trouble = f"gave {wait}, no seconds to wait"
        except Exception as failed:  # noqa: BLE001 - the user's function must not end the destination
            trouble = f"raised {format_error(failed)}"
        self._log.log_limited("retry_wait", f"retry_wait {trouble}; the default decides")
        return float(self._fallback(retry_state))
