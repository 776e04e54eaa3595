"""One destination: its queue, its thread, and how far it has come.

Everything that touches the sink happens in the lane's thread: asking it for its marks, one write at a time in order,
closing it. A batch is tried until the destination has it; only then does the mark of its stream move.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_not_exception_type
from tenacity.stop import stop_after_attempt, stop_base, stop_never
from tenacity.wait import wait_base

from kevents._log import LimitedLog
from kevents._wire import told
from kevents.export._batcher import Batcher
from kevents.export._options import Destination, default_retry_wait
from kevents.export._statistics import DestinationStatistics, Progress
from kevents.export._types import Batch, Mark, Record, Reject, Retry, Stream

A = TypeVar("A")
R = TypeVar("R")

Fail = Callable[[BaseException], None]
"""Called with what ends the export: an error that no part expected."""

LONGEST_ASKED: Final = 60.0
"""Seconds up to which a destination's own wish to be left alone is followed."""

_HURRIED_WAIT = 0.25
_FIRST_ASKS = 3


class DeadLetters(Protocol):
    """Where records go that a destination never takes."""

    def write(self, sink: str, records: Sequence[Record], why: str) -> None:
        """Keep them; return only when they are durable. Several threads may call."""
        ...


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
            trouble = f"raised {told(failed)}"
        self._log.say("retry_wait", f"retry_wait {trouble}; the default decides")
        return float(self._fallback(retry_state))


class _Over(Exception):  # noqa: N818 - no error: the end
    """The lane ends, whatever waits."""


class Lane:
    """A destination's queue, and the thread that writes.

    Args:
        name: Which destination, as the routes name it.
        destination: The sink, and how it is fed.
        dead_letters: Where refused records go; None: they are lost, and counted.
        log: Keeps the lines few.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        name: str,
        destination: Destination,
        dead_letters: DeadLetters | None,
        log: LimitedLog,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start no thread yet, and touch no sink."""
        self.name = name
        self._options = destination
        self._sink = destination.sink
        self._final: tuple[type[BaseException], ...] = (_Over, *destination.final_errors)
        self._drops = destination.when_full == "drop"
        self._dead_letters = dead_letters
        self._log = log
        self._clock = clock
        default = default_retry_wait()
        self._wait = wait_as_asked(destination.retry_wait or default, default, log)
        self._lock = threading.Lock()  # guards all below; never held while the sink is called or something is logged
        self._changed = threading.Condition(self._lock)
        self._wanting: set[threading.Event] = set()
        self._batcher = Batcher(destination.batch, destination.queue)
        self._until = -inf
        self._hurried = self._sealed = self._over = False
        self._unknown = False
        self._begun = threading.Event()
        self._held: dict[Stream, Mark | None] = {}
        self._skip: dict[Stream, Mark] = {}
        self._read: dict[Stream, Mark | None] = {}
        self._durable: dict[Stream, Mark | None] = {}
        self._accounted = 0  # of the batch in hand: written or refused already
        self._offered = self._already = self._written = self._dead = self._refused = self._dropped = 0
        self._batches = self._bytes = self._retries = self._failing = 0
        self._last_error = ""
        self._answered = clock()
        self._writing_since: float | None = None
        self._thread: threading.Thread | None = None

    # -- the beginning -------------------------------------------------------------------------------------------

    def start(self, streams: Sequence[Stream], fail: Fail) -> None:
        """Start the thread, which first asks the sink for its marks; `fail` hears of an error that nothing expected."""
        self._answered = self._clock()
        name = f"kevents-export-{self.name}"
        self._thread = threading.Thread(target=self._run, args=(streams, fail), name=name, daemon=True)
        self._thread.start()

    def wait_begun(self, seconds: float) -> bool:
        """Wait until the sink has said what it holds; False if it has not yet."""
        return self._begun.wait(seconds)

    def held(self, stream: Stream) -> Mark | None:
        """How far the sink held a stream when the lane began; None: nothing of it."""
        return self._held.get(stream)

    @property
    def unknown(self) -> bool:
        """Whether the sink, which may drop, could not be asked."""
        return self._unknown

    def begin(self, stream: Stream, after: Mark | None) -> None:
        """Say from where a stream is read: what the sink holds of it is not written again."""
        held = self._held.get(stream)
        with self._lock:
            self._batcher.begin(stream, held, self._clock())
            self._read[stream] = after
            self._durable[stream] = held
            if held is not None:
                self._skip[stream] = held

    # -- the reading side ----------------------------------------------------------------------------------------

    def offer(self, stream: Stream, records: Sequence[Record], mark: Mark, room: threading.Event) -> bool:
        """Take records in, in order, and how far the stream has been read with them. Does not wait.

        Args:
            stream: Of which they are.
            records: What a route sends here; maybe nothing.
            mark: How far the stream has been read.
            room: Set when it is worth another try.

        Returns:
            False if there is no room, or the lane is over: nothing was taken in.
        """
        with self._lock:
            fresh = self._fresh(stream, records)
            if self._over or (fresh and self._batcher.full and not self._drops):
                self._wanting.add(room)
                return False
            kept = fresh[: self._batcher.room] if self._drops else fresh
            self._take_in(stream, kept, mark)
            self._offered += len(records)
            self._already += len(records) - len(fresh)
            self._dropped += len(fresh) - len(kept)
        if len(kept) < len(fresh):
            self._tell_dropped(len(fresh) - len(kept))
        return True

    def _fresh(self, stream: Stream, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out what the destination held before this run."""
        skip = self._skip.get(stream)
        if skip is None:
            return records
        return [record for record in records if record.rv > skip.rv]

    def _take_in(self, stream: Stream, records: Sequence[Record], mark: Mark) -> None:
        self._read[stream] = mark
        if stream in self._skip:
            if mark.rv < self._skip[stream].rv:
                return  # the destination is further than the source: its mark must not go back
            del self._skip[stream]
        self._batcher.add(stream, records, mark, self._clock())
        if self._batcher.due() < self._until:
            self._changed.notify()

    def _tell_dropped(self, records: int) -> None:
        text = f"dropped {records} records for {self.name}: its queue is full and when_full is 'drop'"
        self._log.say(("dropped", self.name), text, events=records)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self, streams: Sequence[Stream], fail: Fail) -> None:
        try:
            with suppress(_Over):  # what is left waits for the next run
                self._work(streams)
        except BaseException as error:  # noqa: BLE001 - told to whoever runs the export
            fail(error)
        finally:
            self.close()

    def _work(self, streams: Sequence[Stream]) -> None:
        for stream in streams:
            self._held[stream] = self._ask(stream)
        self._begun.set()
        while (batch := self._next()) is not None:
            self._deliver(batch)
            self._ended()

    def _ask(self, stream: Stream) -> Mark | None:
        """How far the sink holds a stream; one that may drop is not waited for."""
        stop = stop_after_attempt(_FIRST_ASKS) if self._drops else stop_never
        try:
            return self._retried(self._sink.last_mark, stream, stop)
        except self._final:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it was, it was said; the others must not wait
            self._unknown = True
            text = f"{self.name} does not say what it holds ({told(error)}): it begins where the others do"
            self._log.say(("unknown", self.name), text)
            return None

    def _next(self) -> Batch | None:
        """Wait for the next batch; None when there will be none."""
        with self._lock:
            while not self._over:
                now = self._clock()
                batch = self._batcher.take(now)
                if batch is not None:
                    return batch
                if self._sealed and not self._batcher.items:
                    return None
                self._until = self._batcher.due()
                self._changed.wait(None if self._until == inf else min(self._until - now, threading.TIMEOUT_MAX))
                self._until = -inf
            return None

    def _deliver(self, batch: Batch) -> None:
        """Bring a batch to its end: acknowledged, or refused and kept in the dead letters."""
        try:
            self._retried(self._write, batch, self._options.retry_stop)
        except Reject as refusal:
            refused = self._among(batch, refusal)
            self._bury(refused, str(refusal))
            self._count_written(batch, without=refused)
            # The mark comes last: were it first, a kill would lose what the dead letters had not got yet.
            if batch.records:
                self._deliver(Batch((), batch.mark))
        except self._final:
            raise
        except BaseException as error:  # noqa: BLE001 - retry_stop has given up on it
            self._bury(batch.records, f"given up: {told(error)}")
        else:
            self._count_written(batch, without=())
            with self._lock:
                self._durable[batch.mark.stream] = batch.mark

    def _write(self, batch: Batch) -> None:
        with self._lock:
            self._writing_since = self._clock()
        try:
            self._sink.write(batch)
        finally:
            with self._lock:
                self._writing_since = None

    def _among(self, batch: Batch, refusal: Reject) -> list[Record]:
        refused = {id(record) for record in refusal.records}
        return [record for record in batch.records if id(record) in refused]

    def _bury(self, records: Sequence[Record], why: str) -> None:
        """Write what the sink never takes to the dead letters; without those it is lost, and counted."""
        if not records:
            return
        letters = self._dead_letters
        if letters is not None:
            self._retried(lambda refused: letters.write(self.name, refused, why), records, stop_never)
        with self._lock:
            self._accounted += len(records)
            if letters is not None:
                self._dead += len(records)
            else:
                self._refused += len(records)
        where = "they are in the dead letters" if letters is not None else "they are lost: give dead_letters a path"
        text = f"{self.name} refused {len(records)} records, {where}: {why}"
        self._log.say(("refused", self.name), text, events=len(records), level=logging.ERROR)

    def _count_written(self, batch: Batch, without: Sequence[Record]) -> None:
        size = sum([len(record.line()) + 1 for record in batch.records])
        with self._lock:
            self._accounted += len(batch.records) - len(without)
            self._written += len(batch.records) - len(without)
            self._bytes += size - sum([len(record.line()) + 1 for record in without])
            self._batches += 1
            failing, self._failing, self._last_error = self._failing, 0, ""
            self._answered = self._clock()
        if failing:
            text = f"{self.name} takes records again after {failing} failed tries"
            self._log.say(("back", self.name), text, level=logging.INFO)

    def _ended(self) -> None:
        """Make room for what comes after the batch in hand."""
        with self._lock:
            self._batcher.done()
            self._accounted = 0
            wanting, self._wanting = self._wanting, set()
        for room in wanting:
            room.set()

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
        said = str(error) if isinstance(error, Retry) else told(error) if error is not None else ""
        with self._lock:
            self._retries += 1
            self._failing += 1
            self._last_error = said
        text = f"{self.name} does not take records now, they wait and are tried again: {said}"
        self._log.say(("retry", self.name), text)

    def _pause(self, seconds: float) -> None:
        """Wait between two tries; not long once the export is to end."""
        with self._lock:
            hurried = self._hurried
            deadline = self._clock() + (min(seconds, _HURRIED_WAIT) if hurried else seconds)
            while not self._over and self._hurried == hurried and (left := deadline - self._clock()) > 0:
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            if self._over:
                raise _Over

    # -- the end -------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Write what there is, and wait no longer than a moment between tries."""
        with self._lock:
            self._hurried = True
            self._batcher.hurry()
            self._changed.notify_all()

    def seal(self) -> None:
        """Nothing more will be offered: the thread ends when everything is written."""
        with self._lock:
            self._sealed = True
            self._changed.notify_all()

    def end(self) -> None:
        """Make the thread end, whatever waits; a call of the sink under way is not cut off."""
        with self._lock:
            self._over = True
            self._changed.notify_all()
        if self._thread is None:
            self.close()

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; False if it has not come."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Close the sink; in the lane's thread, or where none was started."""
        try:
            self._sink.close()
        except BaseException as error:  # noqa: BLE001 - the end must come, and what was acknowledged is durable
            self._log.say(("close", self.name), f"closing {self.name} raised {told(error)}", level=logging.ERROR)

    # -- looking on ----------------------------------------------------------------------------------------------

    def tell_overdue(self) -> None:
        """Log a write that takes longer than its time-out."""
        with self._lock:
            seconds = self._writing_for()
        if seconds > self._options.write_timeout:
            text = f"{self.name} has not answered a write for {seconds:.0f} s; it is waited for, in order"
            self._log.say(("overdue", self.name), text)

    def _writing_for(self) -> float:
        return 0.0 if self._writing_since is None else self._clock() - self._writing_since

    def statistics(self) -> DestinationStatistics:
        """A snapshot of the ledger."""
        with self._lock:
            now = self._clock()
            in_flight_for = self._writing_for()
            return DestinationStatistics(
                name=self.name,
                offered=self._offered,
                held=self._already,
                written=self._written,
                dead_lettered=self._dead,
                refused=self._refused,
                dropped=self._dropped,
                waiting=self._batcher.items - self._accounted,
                waiting_bytes=self._batcher.bytes,
                in_flight=self._batcher.in_hand,
                in_flight_for=in_flight_for,
                overdue=in_flight_for > self._options.write_timeout,
                oldest_age=max(now - self._batcher.oldest(), 0.0),
                batches=self._batches,
                bytes=self._bytes,
                retries=self._retries,
                failing=self._failing,
                last_error=self._last_error,
                silent_for=now - self._answered,
                progress={
                    stream: Progress(read_up_to=read, durable_up_to=self._durable[stream])
                    for stream, read in self._read.items()
                },
            )
