"""The exporter: starts, supervises and ends the workers of the streams and destinations."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from operator import attrgetter
from queue import Empty, SimpleQueue
from time import monotonic

from kevents._model.validation import require_positive
from kevents._model.wire import format_error, pluralize
from kevents._runtime.log import LimitedLog
from kevents.export._enrich.enricher import Enricher
from kevents.export._model.options import BatchOptions, Destination, QueueOptions, WhenFull
from kevents.export._model.statistics import ExportStatistics
from kevents.export._model.types import Position, Sink, Stream
from kevents.export._pipeline.destination_worker import DestinationWorker
from kevents.export._pipeline.stream_worker import StreamWorker
from kevents.export._route.routes import Route, Router
from kevents.export._sinks.local_files import DeadLetters
from kevents.export._source.source import ClusterEventSource, EventStream

_BEAT = 1.0  # seconds between two looks at the workers
_A_MOMENT = 0.5  # seconds of the grace kept for threads that only have to end, and for a request under way


class Exporter:
    """Reads a source's streams in order, and commits a position only after the destination has stored the data.

    Args:
        source: The source.
        routes: Which records go where: a list of :class:`Route`, or a :class:`Router`.
        sinks: The destinations by the names that the routes use: a sink, or a :class:`Destination` with its own
            options.
        enrich: An :class:`Enricher`; None: the records are not enriched.
        batch: When a batch closes, for bare sinks.
        queue: How much may wait for a destination, for bare sinks.
        when_full: The behaviour of a full queue, for bare sinks: ``"block"`` or ``"drop"``.
        dead_letters: The file for records that a destination refuses; None: they are lost, logged and counted.
        grace: Seconds that :meth:`run` may take to end after :meth:`stop`.

    Raises:
        ValueError: If there is no sink, a route leads to none, or an option has a wrong value.
    """

    def __init__(
        self,
        source: ClusterEventSource,
        *,
        routes: Sequence[Route] | Router,
        sinks: Mapping[str, Sink | Destination],
        enrich: Enricher | None = None,
        batch: BatchOptions = BatchOptions(),  # noqa: B008 - frozen
        queue: QueueOptions = QueueOptions(),  # noqa: B008 - frozen
        when_full: WhenFull = "block",
        dead_letters: str | os.PathLike[str] | DeadLetters | None = None,
        grace: float = 20.0,
    ) -> None:
        if not sinks:
            raise ValueError("sinks must name at least one destination")
        self._source = source
        self._router = Router(routes) if isinstance(routes, Sequence) else routes
        unknown = [name for name in getattr(self._router, "sinks", ()) if name not in sinks]
        if unknown:
            raise ValueError(f"a route leads to {unknown[0]!r}, but the sinks are {', '.join(map(repr, sinks))}")
        self._enricher = enrich
        self._grace = require_positive("grace", grace)
        self._log = LimitedLog()
        self._dead_letters = DeadLetters(dead_letters) if isinstance(dead_letters, str | os.PathLike) else dead_letters
        self._workers = {}
        for name, sink in sinks.items():
            destination = sink if isinstance(sink, Destination) else Destination(sink, batch, queue, when_full)
            self._workers[name] = DestinationWorker(name, destination, self._dead_letters, self._log)
        self._streams: list[StreamWorker] = []
        self._state = "new"
        self._claim = threading.Lock()
        self._woken: SimpleQueue[None] = SimpleQueue()  # safe in signal handlers
        self._error: BaseException | None = None
        self._stopping = False
        self._beat = monotonic()

    # -- running

    def run(self) -> int:
        """Export until :meth:`stop`, then write the remaining records. An export runs once.

        Ctrl-C ends it in the same way, and is raised again.

        Returns:
            The number of records that were read and not settled within the grace. They are not lost: the next run reads
            them again.

        Raises:
            RuntimeError: If it has run before.
            Exception: The source's error if it cannot connect, or an unexpected error of a worker. Records that were
                read before are written first.
        """
        if not self._claim.acquire(blocking=False):
            raise RuntimeError("an Exporter runs once: make another one")
        try:
            if self._begin():
                self._supervise()
        finally:
            self._end()
        if self._error is not None:
            raise self._error
        return self.statistics().waiting

    def stop(self) -> None:
        """Make :meth:`run` return; from any thread, and from a signal handler. Does not wait."""
        self._stopping = True
        self._woken.put(None)

    def _fail(self, error: BaseException) -> None:
        """End the export with an unexpected error; the first one is raised."""
        if self._error is None:
            self._error = error
        self.stop()

    def _begin(self) -> bool:
        """Start all workers; False if the export was stopped before that."""
        self._state = "starting"
        if self._stopping:
            return False
        sources = self._open()
        if sources is None:
            return False
        if self._enricher is not None:
            self._enricher.start()
        for worker in self._workers.values():
            worker.start([source.stream for source in sources], self._fail)
        if not all(self._wait_begun(worker) for worker in self._workers.values()):
            return False
        self._streams = [
            StreamWorker(
                source, self._workers, self._router, self._enricher, self._dead_letters, self._log, fail=self._fail
            )
            for source in sources
        ]
        begins = [self._positions(stream.stream) for stream in self._streams]
        self._state = "running"
        for stream, (after, highest) in zip(self._streams, begins, strict=True):
            stream.start(after, highest)
        return True

    def _open(self) -> Sequence[EventStream] | None:
        """Connect the source, in a thread that may be left behind; None if the export was stopped before that."""
        opened: list[Sequence[EventStream]] = []

        def connect() -> None:
            try:
                opened.append(self._source.open())
            except BaseException as error:  # noqa: BLE001 - raised by `run`
                self._fail(error)
            self._woken.put(None)

        threading.Thread(target=connect, name="kevents-export-open", daemon=True).start()
        while not self._stopping:
            with suppress(Empty):
                self._woken.get(timeout=_BEAT)
            if opened:
                return opened[0]
        return None

    def _wait_begun(self, worker: DestinationWorker) -> bool:
        """Wait until a destination has returned its positions; False if the export was stopped before that."""
        while not worker.begun.wait(0.0 if self._stopping else _A_MOMENT):
            self._beat = monotonic()
            if self._stopping:
                return False
        return True

    def _positions(self, stream: Stream) -> tuple[Position | None, Position | None]:
        """Return where reading begins (the lowest position of all destinations that hold one), and the highest."""
        workers = self._workers.values()
        counted = [each.stored[stream] for each in workers if each.options.holds_positions and not each.unknown]
        after = None if None in counted else min(filter(None, counted), key=attrgetter("rv"), default=None)
        for worker in workers:
            worker.begin(stream, after)
        stored = [worker.stored[stream] for worker in workers]
        return after, max(filter(None, stored), key=attrgetter("rv"), default=None)

    def _supervise(self) -> None:
        """Wait until the export is stopped; log writes that take too long."""
        while not self._stopping:
            with suppress(Empty):
                self._woken.get(timeout=_BEAT)
            self._beat = monotonic()
            for worker in self._workers.values():
                worker.log_overdue()

    # -- ending

    def _end(self) -> None:
        """Stop reading, write the remaining records, and close everything, within the grace."""
        self._state = "stopping"
        deadline = monotonic() + self._grace
        last = deadline - min(_A_MOMENT, self._grace / 2)
        if self._streams:
            self._flush(last)
        self._abandon(deadline)
        self._log.log_suppressed()
        self._state = "ended"

    def _flush(self, deadline: float) -> None:
        for stream in self._streams:
            stream.stop()
        for worker in self._workers.values():
            worker.flush_now()
        soon = min(monotonic() + _A_MOMENT, deadline)
        for stream in self._streams:
            stream.drain(soon, deadline)
        for worker in self._workers.values():
            worker.stop()
        for worker in self._workers.values():
            worker.join(max(deadline - monotonic(), 0.0))

    def _abandon(self, deadline: float) -> None:
        """End all workers. The next run reads the unwritten records again."""
        for stream in self._streams:
            stream.abandon()
        for worker in self._workers.values():
            worker.abandon()
        for stream in self._streams:
            stream.join(deadline)
        closing = threading.Thread(target=self._close_enricher, name="kevents-export-close", daemon=True)
        closing.start()
        hanging = [name for name, worker in self._workers.items() if not worker.join(max(deadline - monotonic(), 0.0))]
        for name in hanging:
            text = f"{name} has not returned from a call; its thread is left running and the sink is not closed"
            self._log.log_limited(("hangs", name), text)
        closing.join(max(deadline - monotonic(), 0.0))
        if left := self.statistics().waiting:
            text = f"{pluralize(left, 'record')} not acknowledged in time; the next run reads what is missing again"
            self._log.log_limited("left", text)

    def _close_enricher(self) -> None:
        try:
            if self._enricher is not None:
                self._enricher.close()
        except BaseException as error:  # noqa: BLE001 - the export must end
            self._log.log_limited("enricher", f"closing the enricher raised {format_error(error)}", level=logging.ERROR)

    # -- observation

    def statistics(self) -> ExportStatistics:
        """Return a snapshot of the statistics; at any time, from any thread."""
        return ExportStatistics(
            state=self._state,
            streams=tuple(stream.statistics() for stream in self._streams),
            destinations=tuple(worker.statistics() for worker in self._workers.values()),
            beat_age=monotonic() - self._beat if self._state == "running" else 0.0,
        )
