"""One destination: its queue, its thread, and how far it has come.

All calls of the sink happen in the lane's thread: asking it for its positions, one write at a time in order,
closing it. A batch is tried until the destination has it; only then does the position of its stream move.
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
from kevents.export._pipeline.writer import Account, Letters, OverError, Writer

Fail = Callable[[BaseException], None]
"""Called with what ends the export: an error that no part expected."""

_HURRIED_WAIT = 0.25


class DestinationWorker:
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
        dead_letters: Letters | None,
        log: LimitedLog,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start no thread yet, and touch no sink."""
        self.name = name
        self._options = destination
        self._sink = destination.sink
        self._drops = destination.when_full == "drop"
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()  # guards all below; never held while the sink is called or something is logged
        self._changed = threading.Condition(self._lock)
        self._wanting: set[threading.Event] = set()
        self._batcher = Batcher(destination.batch, destination.queue)
        self._wakes = -inf
        self._hurried = self._sealed = self._over = False
        self._begun = threading.Event()
        self._held: dict[Stream, Position | None] = {}
        self._skip: dict[Stream, Position] = {}
        self._account = Account(name, destination.write_timeout, clock())
        self._writer = Writer(name, destination, dead_letters, log, self._lock, self._account, self._pause, clock)
        self._thread: threading.Thread | None = None

    # -- the beginning -------------------------------------------------------------------------------------------

    def start(self, streams: Sequence[Stream], fail: Fail) -> None:
        """Start the thread, which first asks the sink for its positions; `fail` gets an unexpected error."""
        self._account.answered = self._clock()
        name = f"kevents-export-{self.name}"
        self._thread = threading.Thread(target=self._run, args=(streams, fail), name=name, daemon=True)
        self._thread.start()

    def wait_begun(self, seconds: float) -> bool:
        """Wait until the sink has said what it holds; False if it has not yet."""
        return self._begun.wait(seconds)

    def held(self, stream: Stream) -> Position | None:
        """How far the sink held a stream when the lane began; None: nothing of it."""
        return self._held.get(stream)

    @property
    def unknown(self) -> bool:
        """Whether the sink, which may drop, could not be asked of all streams."""
        return bool(self._writer.unknown)

    def begin(self, stream: Stream, after: Position | None) -> None:
        """Say from where a stream is read: what the sink holds of it is not written again."""
        held = self._held.get(stream)
        with self._lock:
            self._batcher.begin(stream, held, self._clock())
            self._account.begin(stream, after, held)
            if held is not None:
                self._skip[stream] = held

    # -- the reading side ----------------------------------------------------------------------------------------

    def offer(self, stream: Stream, records: Sequence[Record], position: Position, room: threading.Event) -> bool:
        """Take records in, in order, and how far the stream has been read with them. Does not wait.

        Args:
            stream: Of which they are.
            records: What a route sends here; maybe nothing.
            position: How far the stream has been read.
            room: Set when it is worth another try.

        Returns:
            False if there is no room: nothing was taken in. A lane that is over takes everything, and keeps nobody: it
            counts as waiting, and the next run reads it again.
        """
        with self._lock:
            fresh = self._fresh(stream, records)
            if fresh and self._batcher.full and not (self._drops or self._over):
                self._wanting.add(room)
                return False
            kept = fresh[: self._batcher.room] if self._drops else fresh
            self._take_in(stream, kept, position)
            self._account.offered(len(records), len(fresh), len(kept))
        if len(kept) < len(fresh):
            self._tell_dropped(len(fresh) - len(kept))
        return True

    def _fresh(self, stream: Stream, records: Sequence[Record]) -> Sequence[Record]:
        """Leave out what the destination held before this run."""
        skip = self._skip.get(stream)
        if skip is None:
            return records
        return [record for record in records if record.rv > skip.rv]

    def _take_in(self, stream: Stream, records: Sequence[Record], position: Position) -> None:
        self._account.read[stream] = position
        if stream in self._skip:
            if position.rv < self._skip[stream].rv:
                return  # the destination is further than the source: its position must not go back
            del self._skip[stream]
        self._batcher.add(stream, records, position, self._clock())
        if self._batcher.due() < self._wakes:
            self._changed.notify()

    def _tell_dropped(self, records: int) -> None:
        text = f"dropped {pluralize(records, 'record')} for {self.name}: its queue is full and when_full is 'drop'"
        self._log.log_limited(("dropped", self.name), text, events=records)

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self, streams: Sequence[Stream], fail: Fail) -> None:
        try:
            with suppress(OverError):  # what is left waits for the next run
                self._work(streams)
        except BaseException as error:  # noqa: BLE001 - told to whoever runs the export
            fail(error)
        finally:
            self.end()
            self.close()

    def _work(self, streams: Sequence[Stream]) -> None:
        for stream in streams:
            self._held[stream] = self._writer.ask(stream)
        self._begun.set()
        while (batch := self._next()) is not None:
            self._writer.deliver(batch)
            self._ended()

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
                self._wakes = self._batcher.due()
                self._changed.wait(None if self._wakes == inf else min(self._wakes - now, threading.TIMEOUT_MAX))
                self._wakes = -inf
            return None

    def _ended(self) -> None:
        """Make room for what comes after the batch in hand."""
        with self._lock:
            self._batcher.done()
            self._account.accounted = 0
        self._wake()

    def _wake(self) -> None:
        """Let those try again who found no room."""
        with self._lock:
            wanting, self._wanting = self._wanting, set()
        for room in wanting:
            room.set()

    def _pause(self, seconds: float) -> None:
        """Wait between two tries; not long once the export is to end."""
        with self._lock:
            hurried = self._hurried
            deadline = self._clock() + (min(seconds, _HURRIED_WAIT) if hurried else seconds)
            while not self._over and self._hurried == hurried and (left := deadline - self._clock()) > 0:
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            if self._over:
                raise OverError

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
        self._wake()
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
            self._log.log_limited(
                ("close", self.name), f"closing {self.name} raised {format_error(error)}", level=logging.ERROR
            )

    # -- looking on ----------------------------------------------------------------------------------------------

    def tell_overdue(self) -> None:
        """Log a write that takes longer than its time-out."""
        with self._lock:
            seconds = self._account.writing_for(self._clock())
        if seconds > self._options.write_timeout:
            text = f"{self.name} has not answered a write for {seconds:.0f} s; it is waited for, in order"
            self._log.log_limited(("overdue", self.name), text)

    def statistics(self) -> DestinationStatistics:
        """A snapshot of the account."""
        with self._lock:
            return self._account.statistics(self._batcher, self._clock())
