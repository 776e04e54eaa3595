"""Brings a batch to its end: acknowledged by its destination, or refused and kept in the dead letters."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_not_exception_type
from tenacity.stop import stop_after_attempt, stop_base, stop_never

from kevents._model.wire import format_error, pluralize
from kevents._runtime.log import LimitedLog
from kevents.export._model.options import Destination, default_retry_wait
from kevents.export._model.types import Batch, Position, Record, Reject, Retry, Stream
from kevents.export._pipeline.account import Account
from kevents.export._pipeline.retry_waits import wait_as_asked

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
            return self._retried(self._sink.last_mark, stream, stop)
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
            if batch.mark.stream in self.unknown:
                self._retried(self._ask_again, batch.mark.stream, self._stop)
            batch = self._beyond_late(batch)
            self._retried(self._write, batch, self._stop)
        except Reject as refusal:
            refused = self._among(batch, refusal)
            self._bury(refused, str(refusal))
            self._count_written(batch, without=refused)
            # The mark comes last: were it first, a kill would lose what the dead letters had not got yet.
            if batch.records:
                self.deliver(Batch((), batch.mark))
        except self._final:
            raise
        except BaseException as error:  # noqa: BLE001 - retry_stop has given up on it
            self._bury(batch.records, f"given up: {format_error(error)}")
        else:
            self._count_written(batch, without=())
            with self._lock:
                self._account.durable[batch.mark.stream] = batch.mark

    def _ask_again(self, stream: Stream) -> None:
        mark = self._sink.last_mark(stream)
        self.unknown.remove(stream)
        if mark is not None:
            self._late[stream] = mark

    def _beyond_late(self, batch: Batch) -> Batch:
        """Leave out what the sink held before this run, if it said so only after the records had come."""
        own = self._late.get(batch.mark.stream)
        if own is None:
            return batch
        records = [record for record in batch.records if record.rv > own.rv]
        with self._lock:
            self._account.held(len(batch.records) - len(records))
        return Batch(records, max(own, batch.mark, key=_number))

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


def _number(mark: Position) -> int:
    return mark.rv


def _size(records: Sequence[Record]) -> int:
    return sum([len(record.line()) + 1 for record in records])
