"""The worker of one stream: one thread reads the source, the other enriches, routes and queues the records.

A short bounded queue lies between the threads. A slow request of the enricher does not delay the watch, and memory
stays bounded while a destination is full.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Final

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.export._enrich.enricher import Enricher
from kevents.export._model.statistics import StreamStatistics
from kevents.export._model.types import Chunk, Position, Record
from kevents.export._pipeline.destination_worker import DestinationWorker, Fail
from kevents.export._route.routes import Router
from kevents.export._sinks.local_files import DeadLetters
from kevents.export._source.source import EventStream

PIECE: Final = 500  # records in one piece of a chunk, and records at which the queue is full


class BoundedQueue:
    """A short queue of chunks between threads; `put` waits while it is full."""

    def __init__(self, limit: int = PIECE) -> None:
        self._limit = limit  # records at which it is full
        self._chunks: deque[Chunk] = deque()
        self._items = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, chunk: Chunk) -> bool:
        """Add a chunk, once there is space; False if the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items < self._limit)
            if self._closed:
                return False
            self._chunks.append(chunk)
            self._items += max(len(chunk.records), 1)
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None, *, together: bool = False) -> Chunk | None:
        """Wait for the next chunk, or all queued ones as one; None at the end. Raises TimeoutError."""
        records: list[Record] = []
        position = None
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._chunks, timeout):
                raise TimeoutError
            while self._chunks and (
                position is None or (together and len(records) + len(self._chunks[0].records) <= self._limit)
            ):
                chunk = self._chunks.popleft()
                self._items -= max(len(chunk.records), 1)
                records += chunk.records
                position = chunk.position
            self._changed.notify_all()
        return None if position is None else Chunk(records, position)

    def close(self) -> None:
        """Accept no more chunks; those in the queue can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Accept no more chunks, and discard those in the queue."""
        with self._changed:  # re-entrant
            self._chunks.clear()
            self.close()


def pieces(chunk: Chunk, before: Position | None, size: int = PIECE) -> Iterator[Chunk]:
    """Cut a long chunk into pieces; records of one resourceVersion stay together.

    All pieces but the last have the time of the position before the chunk, because older events may follow within it.
    """
    records = chunk.records
    time = (before or chunk.position).time
    start = 0
    while len(records) - start > size:
        end = start + size
        while end < len(records) and records[end].rv == records[end - 1].rv:
            end += 1
        if end == len(records):
            break
        yield Chunk(records[start:end], Position(chunk.position.stream, records[end - 1].rv, time))
        start = end
    yield Chunk(records[start:], chunk.position) if start else chunk


class StreamWorker:
    """Carries one stream from its source to the destination workers."""

    def __init__(
        self,
        source: EventStream,
        workers: dict[str, DestinationWorker],  # by name
        router: Router,
        enricher: Enricher | None,  # enriches the records; None: they go on unchanged
        dead_letters: DeadLetters | None,
        log: LimitedLog,
        fail: Fail,  # called with an unexpected error, which ends the export
    ) -> None:
        self.stream = source.stream
        self._source = source
        self._workers = workers
        self._router = router
        self._enricher = enricher
        self._dead_letters = dead_letters  # stores records on which a route raises; None: they are lost, and counted
        self._log = log
        self._fail = fail
        self._queue = BoundedQueue()
        self._has_space = threading.Event()
        self._stopping = self._abandoned = self._queueing = self._left_behind = False
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards the counters
        self._counts: Counter[str] = Counter()  # those of `StreamStatistics`
        self._position: Position | None = None
        self._highest: Position | None = None
        self._last_read = monotonic()

    # -- the reading thread

    def start(self, after: Position | None, highest: Position | None = None) -> None:
        self._last_read = monotonic()
        self._position, self._highest = after, highest
        name = self.stream.scope or "all"
        for target, what in ((self._run_reading, "read"), (self._run_routing, "route")):
            thread = threading.Thread(target=target, name=f"kevents-export-{what}-{name}", daemon=True)
            self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def _run_reading(self) -> None:
        try:
            for chunk in self._source.read(self._position, self._highest):
                if not self._enqueue(chunk):
                    return
            if not self._stopping:
                scope = self.stream.scope or "all namespaces"
                raise RuntimeError(f"the stream of {scope} ended without being stopped")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001 - reported by `Exporter.run`
            self._fail(error)
        finally:
            self._queue.close()

    def _enqueue(self, chunk: Chunk) -> bool:
        """Count a chunk and pass it to the other thread; False if that thread takes no more."""
        gaps = sum(["gap" in record.body.get("kevents", ()) for record in chunk.records])
        with self._lock:
            if self._left_behind:
                return False
            self._queueing = True
            self._counts.update(read=len(chunk.records), gaps=gaps)
            before, self._position = self._position, chunk.position
            self._last_read = monotonic()
        taken = all(self._queue.put(piece) for piece in pieces(chunk, before))
        with self._lock:
            self._queueing = False
        return taken

    # -- the routing thread

    def _run_routing(self) -> None:
        try:
            # An enricher gets all queued records at once, to read their metadata together.
            while (chunk := self._queue.get(together=self._enricher is not None)) is not None:
                self._enrich(chunk.records)
                if not self._route(chunk):
                    return
        except BaseException as error:  # noqa: BLE001 - reported by `Exporter.run`
            self._fail(error)
        finally:
            self._queue.abandon()

    def _enrich(self, records: Sequence[Record]) -> None:
        if self._enricher is None or not records:
            return
        try:
            self._enricher.enrich(records)
        except Exception as error:  # noqa: BLE001 - a record without enrichment is better than none
            text = f"the enricher raised {format_error(error)}; the records go on unchanged"
            self._log.log_limited("enrich", text, level=logging.ERROR)

    def _route(self, chunk: Chunk) -> bool:
        """Give each destination its records, and all of them the position; False if the worker was abandoned."""
        shares: dict[str, list[Record]] = {name: [] for name in self._workers}
        routed = unrouted = 0
        for record in chunk.records:
            targets = self._targets(record)
            if targets is None:
                continue
            record.line()  # encoded here, not under the lock of a destination worker
            for name in targets:
                shares[name].append(record)
            if targets:
                routed += 1
            else:
                unrouted += 1
        if not self._offer(shares, chunk.position):
            return False
        with self._lock:
            self._counts.update(routed=routed, unrouted=unrouted, deliveries=sum(map(len, shares.values())))
        return True

    def _offer(self, shares: dict[str, list[Record]], position: Position) -> bool:
        """Offer to each destination until it has space; a full one delays no other."""
        left = [(self._workers[name], records) for name, records in shares.items()]
        while True:
            self._has_space.clear()
            left = [
                (worker, records)
                for worker, records in left
                if not worker.offer(self.stream, records, position, self._has_space)
            ]
            if not left or self._abandoned:
                return not left
            self._has_space.wait()

    def _targets(self, record: Record) -> Sequence[str] | None:
        """Return the record's destinations; None if routing failed."""
        try:
            targets = self._router.targets(record)
        except Exception as error:  # noqa: BLE001 - a record that breaks a route must not stop the others
            self._dead_letter(record, f"routing it raised {format_error(error)}")
            return None
        for name in targets:
            if name not in self._workers:
                self._dead_letter(record, f"a route leads to {name!r}, which is no destination")
                return None
        return targets

    def _dead_letter(self, record: Record, why: str) -> None:
        where = "lost: give dead_letters a path"
        try:
            if self._dead_letters is not None:
                self._dead_letters.write("routes", [record], why)
                where = "in the dead letters"
        except Exception as error:  # noqa: BLE001 - the loss is logged; the other records go on
            where = f"lost: the dead letters raised {format_error(error)}"
        with self._lock:
            self._counts["failed"] += 1
        self._log.log_limited("routes", f"a record could not be routed and is {where}: {why}", level=logging.ERROR)

    # -- end

    def stop(self) -> None:
        """Stop reading; the records that were read still go to the destination workers."""
        self._stopping = True
        self._source.stop()

    def abandon(self) -> None:
        self._abandoned = True
        self._has_space.set()
        self._queue.abandon()

    def drain(self, soon: float, deadline: float) -> None:
        """Wait until the records that were read are passed on, and for both threads.

        A reading thread that is still blocked in a request at `soon` is left behind: nothing can interrupt it.
        """
        for reading in self._threads[:1]:
            reading.join(max(soon - monotonic(), 0.0))
            with self._lock:
                self._left_behind = reading.is_alive() and not self._queueing
        if self._left_behind:
            self._queue.close()
        self.join(deadline)

    def join(self, deadline: float) -> bool:
        """Wait for both threads, except one that was left behind; False after the deadline."""
        threads = self._threads[1:] if self._left_behind else self._threads
        for thread in threads:
            thread.join(max(deadline - monotonic(), 0.0))
        return not any(thread.is_alive() for thread in threads)

    def statistics(self) -> StreamStatistics:
        with self._lock:
            counts = self._counts
            return StreamStatistics(
                stream=self.stream,
                waiting=counts["read"] - counts["routed"] - counts["unrouted"] - counts["failed"],
                position=self._position,
                silent_for=monotonic() - self._last_read,
                **counts,
            )
