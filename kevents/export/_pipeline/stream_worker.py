"""The two threads of a stream: one reads, the other completes, routes and hands over.

Between them is a short hand-off, so that a look-up of the enricher does not keep the watch from being read, and the
memory that a stream takes is bounded while a destination is full.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import Protocol

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.export._model.statistics import StreamStatistics
from kevents.export._model.types import Chunk, Position, Record, Stream
from kevents.export._pipeline.bounded_queue import BoundedQueue, pieces
from kevents.export._pipeline.destination_worker import DestinationWorker, Fail
from kevents.export._pipeline.writer import Letters


class EventStream(Protocol):
    """One stream of a source, to be read from a position on."""

    stream: Stream

    def read(self, after: Position | None, highest: Position | None = None) -> Iterator[Chunk]:
        """Give what comes after a position, for ever; it ends after :meth:`stop` only.

        Args:
            after: How far all destinations hold the stream; None: one of them holds nothing of it.
            highest: How far any of them does: what has not been read ever before must be numbered above it.
        """
        ...

    def stop(self) -> None:
        """End the reading; from any thread."""
        ...


class Enricher(Protocol):
    """What completes records, in place."""

    def start(self) -> None:
        """Begin what it watches, if anything."""
        ...

    def enrich(self, records: Sequence[Record]) -> None:
        """Complete the bodies; may be called from several threads."""
        ...

    def close(self) -> None:
        """End what was begun."""
        ...


class Routes(Protocol):
    """What says where records go."""

    def targets(self, record: Record) -> Sequence[str]:
        """The names of the destinations that get it, each once."""
        ...


class Reader:
    """Follows one stream, from its source to the lanes.

    Args:
        source: What is read.
        lanes: The destinations by name.
        router: Says where records go.
        enricher: Completes them; None: nobody does.
        dead_letters: Where records go on which a route raises; None: they are lost, and counted.
        log: Keeps the lines few.
        fail: Called with what ends the export: an error that no part expected.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        source: EventStream,
        lanes: dict[str, DestinationWorker],
        router: Routes,
        enricher: Enricher | None,
        dead_letters: Letters | None,
        log: LimitedLog,
        fail: Fail,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Start no thread yet."""
        self.stream = source.stream
        self._source = source
        self._lanes = lanes
        self._router = router
        self._enricher = enricher
        self._dead_letters = dead_letters
        self._log = log
        self._fail = fail
        self._clock = clock
        self._between = BoundedQueue()
        self._room = threading.Event()
        self._ending = self._abandoned = self._passing_on = self._left_behind = False
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards the counts
        self._read = self._gaps = self._routed = self._unrouted = self._failed = self._deliveries = 0
        self._position: Position | None = None
        self._highest: Position | None = None
        self._heard = clock()

    # -- reading -------------------------------------------------------------------------------------------------

    def start(self, after: Position | None, highest: Position | None = None) -> None:
        """Start both threads; what the source gives after the position is read.

        Args:
            after: How far all destinations hold the stream.
            highest: How far any of them does.
        """
        self._heard = self._clock()
        self._position, self._highest = after, highest
        name = self.stream.scope or "all"
        for target, what in ((self._run_reading, "read"), (self._run_sorting, "sort")):
            thread = threading.Thread(target=target, name=f"kevents-export-{what}-{name}", daemon=True)
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def _run_reading(self) -> None:
        try:
            for chunk in self._source.read(self._position, self._highest):
                if not self._pass_on(chunk):
                    break
            else:
                self._check_the_end()
        except BaseException as error:  # noqa: BLE001 - told to whoever runs the export
            self._fail(error)
        finally:
            self._between.close()

    def _check_the_end(self) -> None:
        if not self._ending:
            raise RuntimeError(f"the stream of {self.stream.scope or 'all namespaces'} ended without being stopped")

    def _pass_on(self, chunk: Chunk) -> bool:
        """Count what was read, and put it where the other thread takes it; False if nobody does any more."""
        gaps = sum(["gap" in record.body.get("kevents", ()) for record in chunk.records])
        with self._lock:
            if self._left_behind:
                return False
            self._passing_on = True
            self._read += len(chunk.records)
            self._gaps += gaps
            before, self._position = self._position, chunk.position
            self._heard = self._clock()
        taken = all(self._between.put(piece) for piece in pieces(chunk, before))
        with self._lock:
            self._passing_on = False
        return taken

    # -- sorting -------------------------------------------------------------------------------------------------

    def _run_sorting(self) -> None:
        try:
            while (chunk := self._between.get()) is not None:
                self._complete(chunk.records)
                if not self._hand_over(chunk):
                    return
        except BaseException as error:  # noqa: BLE001 - told to whoever runs the export
            self._fail(error)
        finally:
            self._between.abandon()

    def _complete(self, records: Sequence[Record]) -> None:
        if self._enricher is None or not records:
            return
        try:
            self._enricher.enrich(records)
        except Exception as error:  # noqa: BLE001 - a record that is not complete is worth more than none
            self._log.log_limited(
                "enrich", f"the enricher raised {format_error(error)}; records go on as they are", level=logging.ERROR
            )

    def _hand_over(self, chunk: Chunk) -> bool:
        """Give each lane its share, and all of them the position; False if that is given up."""
        shares: dict[str, list[Record]] = {name: [] for name in self._lanes}
        routed = unrouted = 0
        for record in chunk.records:
            targets = self._targets(record)
            if targets is None:
                continue
            record.line()  # here and not under a lane's lock
            for name in targets:
                shares[name].append(record)
            if targets:
                routed += 1
            else:
                unrouted += 1
        if not self._offer(shares, chunk.position):
            return False
        with self._lock:
            self._routed += routed
            self._unrouted += unrouted
            self._deliveries += sum(map(len, shares.values()))
        return True

    def _offer(self, shares: dict[str, list[Record]], position: Position) -> bool:
        """To each lane as soon as it has room, so that one that is full keeps nothing from the others."""
        left = [(self._lanes[name], records) for name, records in shares.items()]
        while True:
            self._room.clear()
            left = [
                (lane, records) for lane, records in left if not lane.offer(self.stream, records, position, self._room)
            ]
            if not left or self._abandoned:
                return not left
            self._room.wait()

    def _targets(self, record: Record) -> Sequence[str] | None:
        """Where a record goes; None if that cannot be said."""
        try:
            targets = self._router.targets(record)
        except Exception as error:  # noqa: BLE001 - a record that breaks a route must not stop those behind it
            self._set_aside(record, f"routing it raised {format_error(error)}")
            return None
        for name in targets:
            if name not in self._lanes:
                self._set_aside(record, f"a route leads to {name!r}, which is no destination")
                return None
        return targets

    def _set_aside(self, record: Record, why: str) -> None:
        where = "lost: give dead_letters a path"
        try:
            if self._dead_letters is not None:
                self._dead_letters.write("routes", [record], why)
                where = "in the dead letters"
        except Exception as error:  # noqa: BLE001 - it is said that the record is lost; the others go on
            where = f"lost: the dead letters raised {format_error(error)}"
        with self._lock:
            self._failed += 1
        self._log.log_limited("routes", f"a record could not be routed and is {where}: {why}", level=logging.ERROR)

    # -- the end -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Read no more; what was read goes on to the lanes."""
        self._ending = True
        self._source.stop()

    def abandon(self) -> None:
        """Hand nothing more over."""
        self._abandoned = True
        self._room.set()
        self._between.abandon()

    def settle(self, soon: float, deadline: float) -> None:
        """Wait until what was read has been handed over, and for the end of both threads.

        Args:
            soon: When a source that gives nothing is left behind: it is in a request, which nothing can end.
            deadline: When nothing is waited for any more.
        """
        for reading in self._threads[:1]:
            reading.join(max(soon - self._clock(), 0.0))
            with self._lock:
                self._left_behind = reading.is_alive() and not self._passing_on
        if self._left_behind:
            self._between.close()
        self.join(deadline)

    def join(self, deadline: float) -> bool:
        """Wait for both threads' end, save for one that was left behind; False if it has not come."""
        threads = self._threads[1:] if self._left_behind else self._threads
        for thread in threads:
            thread.join(max(deadline - self._clock(), 0.0))
        return not any(thread.is_alive() for thread in threads)

    def statistics(self) -> StreamStatistics:
        """A snapshot of the ledger."""
        with self._lock:
            return StreamStatistics(
                stream=self.stream,
                read=self._read,
                gaps=self._gaps,
                routed=self._routed,
                unrouted=self._unrouted,
                failed=self._failed,
                waiting=self._read - self._routed - self._unrouted - self._failed,
                deliveries=self._deliveries,
                position=self._position,
                silent_for=self._clock() - self._heard,
            )
