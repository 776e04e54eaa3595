"""From a source to its destinations, none lost: the parts of an export, begun, watched over and ended together."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

from kevents._model.validation import require_positive
from kevents._model.wire import format_error, pluralize
from kevents._runtime.log import LimitedLog
from kevents.export._model.options import BatchOptions, Destination, QueueOptions, WhenFull
from kevents.export._model.statistics import ExportStatistics
from kevents.export._model.types import Position, Sink, Stream
from kevents.export._pipeline.destination_worker import DestinationWorker
from kevents.export._pipeline.stream_worker import Enricher, EventStream, Reader, Routes
from kevents.export._pipeline.writer import Letters
from kevents.export._route.routes import Route, Router
from kevents.export._sinks.dead_letters import DeadLetters

_BEAT = 1.0
_A_MOMENT = 0.5
"""Seconds of the grace that are kept for threads which have nothing left to do, and that one in a request is given."""


class Source(Protocol):
    """Where events are read."""

    def open(self) -> Sequence[EventStream]:
        """Connect, and give the streams that there are."""
        ...


class State(str, Enum):
    """Where in its life an export is."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class Exporter:
    """Reads a source's streams in order, and moves a destination's position only when the destination has the bytes.

    Args:
        source: What is read: a :class:`ClusterEventSource`.
        routes: Which records go where: a list of :class:`Route`, or an object with a method `targets(record)`.
        sinks: The destinations by the names that the routes use: a sink, or a :class:`Destination` with options of its
            own.
        enrich: What completes the records: an :class:`Enricher`; None: nobody.
        batch: When a batch closes, for bare sinks.
        queue: How much may wait for a destination, for bare sinks.
        when_full: What happens then, for bare sinks: ``"block"`` or ``"drop"``.
        dead_letters: The file for records that a destination never takes, or an object with the method `write` of
            :class:`DeadLetters`; None: they are lost, logged and counted.
        grace: Seconds that :meth:`run` may take to end after :meth:`stop`.

    Raises:
        ValueError: If there is no sink, a route leads to none, or an option is not what it may be.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        source: Source,
        *,
        routes: Sequence[Route] | Routes,
        sinks: Mapping[str, Sink | Destination],
        enrich: Enricher | None = None,
        batch: BatchOptions = BatchOptions(),  # noqa: B008 - frozen
        queue: QueueOptions = QueueOptions(),  # noqa: B008 - frozen
        when_full: WhenFull = "block",
        dead_letters: str | os.PathLike[str] | Letters | None = None,
        grace: float = 20.0,
    ) -> None:
        """Put the parts together; start nothing, connect to nothing."""
        if not sinks:
            raise ValueError("sinks must name at least one destination")
        self._source = source
        self._router = _checked(routes, sinks)
        self._enricher = enrich
        self._grace = require_positive("grace", grace)
        self._log = LimitedLog()
        self._dead_letters = DeadLetters(dead_letters) if isinstance(dead_letters, str | os.PathLike) else dead_letters
        self._destinations = {
            name: sink if isinstance(sink, Destination) else Destination(sink, batch, queue, when_full)
            for name, sink in sinks.items()
        }
        self._lanes = {
            name: DestinationWorker(name, destination, self._dead_letters, self._log)
            for name, destination in self._destinations.items()
        }
        self._readers: list[Reader] = []
        self._state = State.NEW
        self._claim = threading.Lock()
        self._woken: SimpleQueue[None] = SimpleQueue()  # a signal handler may put at any moment
        self._error: BaseException | None = None
        self._stopping = False
        self._beat = monotonic()

    # -- running -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Export until :meth:`stop`, then write what was read; an export runs once.

        Ctrl-C ends it in the same way, and is raised again.

        Returns:
            How many records were read and not brought to an end within the grace. They are not lost: the next run reads
            them again.

        Raises:
            RuntimeError: If it has run before.
            Exception: What the source raised: it cannot connect, or an error that no part expected. What was read until
                then is written first.
        """
        if not self._claim.acquire(blocking=False):
            raise RuntimeError("an Exporter runs once: make another one")
        try:
            if self._begin():
                self._look_after()
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
        """End with an error that no part expected; the first one counts."""
        if self._error is None:
            self._error = error
        self.stop()

    def _begin(self) -> bool:
        """Start all parts; False if it is to end before that."""
        self._state = State.STARTING
        if self._stopping:
            return False
        sources = self._open()
        if sources is None:
            return False
        if self._enricher is not None:
            self._enricher.start()
        for lane in self._lanes.values():
            lane.start([source.stream for source in sources], self._fail)
        if not all(self._wait_begun(lane) for lane in self._lanes.values()):
            return False
        self._readers = [self._reader(source) for source in sources]
        begins = [self._positions(reader.stream) for reader in self._readers]
        self._state = State.RUNNING
        for reader, (after, highest) in zip(self._readers, begins, strict=True):
            reader.start(after, highest)
        return True

    def _open(self) -> Sequence[EventStream] | None:
        """Let the source connect, in a thread that may be left behind; None if the export is to end before that."""
        opened: list[Sequence[EventStream]] = []

        def connect() -> None:
            try:
                opened.append(self._source.open())
            except BaseException as error:  # noqa: BLE001 - `run` raises it
                self._fail(error)
            self._woken.put(None)

        threading.Thread(target=connect, name="kevents-export-open", daemon=True).start()
        while not self._stopping:
            with suppress(Empty):
                self._woken.get(timeout=_BEAT)
            if opened:
                return opened[0]
        return None

    def _wait_begun(self, lane: DestinationWorker) -> bool:
        """Wait until a destination has said what it holds; False if the export is to end before that."""
        while not lane.wait_begun(0.0 if self._stopping else _A_MOMENT):
            self._beat = monotonic()
            if self._stopping:
                return False
        return True

    def _reader(self, source: EventStream) -> Reader:
        return Reader(source, self._lanes, self._router, self._enricher, self._dead_letters, self._log, fail=self._fail)

    def _positions(self, stream: Stream) -> tuple[Position | None, Position | None]:
        """From where a stream is read: the lowest position of those destinations that can hold one; and the highest."""
        counted = [
            lane.held(stream)
            for name, lane in self._lanes.items()
            if self._destinations[name].holds_positions and not lane.unknown
        ]
        after = None if None in counted else min(filter(None, counted), key=_number, default=None)
        for lane in self._lanes.values():
            lane.begin(stream, after)
        held = [lane.held(stream) for lane in self._lanes.values()]
        return after, max(filter(None, held), key=_number, default=None)

    def _look_after(self) -> None:
        """Wait for the end, and meanwhile report what takes too long."""
        while not self._stopping:
            with suppress(Empty):
                self._woken.get(timeout=_BEAT)
            self._beat = monotonic()
            for lane in self._lanes.values():
                lane.tell_overdue()

    # -- ending --------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Read no more, write what was read, and let go of everything, within the grace."""
        self._state = State.STOPPING
        deadline = monotonic() + self._grace
        last = deadline - min(_A_MOMENT, self._grace / 2)
        if self._readers:
            self._write_what_was_read(last)
        self._cut_off(deadline)
        self._log.log_suppressed()
        self._state = State.ENDED

    def _write_what_was_read(self, deadline: float) -> None:
        for reader in self._readers:
            reader.stop()
        for lane in self._lanes.values():
            lane.hurry()
        soon = min(monotonic() + _A_MOMENT, deadline)
        for reader in self._readers:
            reader.settle(soon, deadline)
        for lane in self._lanes.values():
            lane.seal()
        for lane in self._lanes.values():
            lane.join(max(deadline - monotonic(), 0.0))

    def _cut_off(self, deadline: float) -> None:
        """End what has not ended by itself: what it holds is read again by the next run."""
        for reader in self._readers:
            reader.abandon()
        for lane in self._lanes.values():
            lane.end()
        for reader in self._readers:
            reader.join(deadline)
        closing = threading.Thread(target=self._close_enricher, name="kevents-export-close", daemon=True)
        closing.start()
        hanging = [name for name, lane in self._lanes.items() if not lane.join(max(deadline - monotonic(), 0.0))]
        for name in hanging:
            self._log.log_limited(
                ("hangs", name), f"{name} has not returned from a call; it is left behind, not closed"
            )
        closing.join(max(deadline - monotonic(), 0.0))
        if left := self.statistics().waiting:
            self._log.log_limited(
                "left",
                f"{pluralize(left, 'record')} not acknowledged in time; the next run reads again what is missing",
            )

    def _close_enricher(self) -> None:
        try:
            if self._enricher is not None:
                self._enricher.close()
        except BaseException as error:  # noqa: BLE001 - the end must come
            self._log.log_limited("enricher", f"closing the enricher raised {format_error(error)}", level=logging.ERROR)

    # -- looking on ----------------------------------------------------------------------------------------------

    def statistics(self) -> ExportStatistics:
        """A snapshot of the ledgers; at any time, from any thread."""
        return ExportStatistics(
            state=self._state.value,
            streams=tuple(reader.statistics() for reader in self._readers),
            destinations=tuple(lane.statistics() for lane in self._lanes.values()),
            beat_age=monotonic() - self._beat if self._state is State.RUNNING else 0.0,
        )


def _number(position: Position) -> int:
    return position.rv


def _checked(routes: Sequence[Route] | Routes, sinks: Mapping[str, object]) -> Routes:
    """See to it that what the routes name is there."""
    router = Router(routes) if isinstance(routes, Sequence) else routes
    strange = [name for name in getattr(router, "sinks", ()) if name not in sinks]
    if strange:
        raise ValueError(f"a route leads to {strange[0]!r}, but the sinks are {', '.join(map(repr, sinks))}")
    return router
