"""One list and watch, followed for ever: whatever the server does, what it gives goes on where it was."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from time import monotonic
from typing import Any, Final

import msgspec

from kevents._runtime.log import LimitedLog
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._model.backoff import Backoff
from kevents.export._model.record import gap_record
from kevents.export._model.types import Chunk, Position, Record, Stream
from kevents.export._source.backlog import Backlog
from kevents.export._source.events_api import GoneError, Requests
from kevents.export._source.gaps import end_of_gap, why_gap
from kevents.export._source.listing import ListResult, collect, is_reset, page_of
from kevents.export._source.options import StreamOptions
from kevents.export._source.repeats import Window
from kevents.export._source.response_stream import ResponseStream
from kevents.export._source.revision_filter import RevisionFilter
from kevents.export._source.tally import SourceStatistics, Tally
from kevents.export._source.watch_decoder import WatchDecoder

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_REFUSALS: Final = (StatusError, UnavailableError)
_AT_ONCE: Final = 1.0
"""An empty watch that ends within so many seconds was none: one of the forms of "gone"."""
_PATIENCE: Final = 3
"""After so many failures of a watch in a row, if the server answers, a list is tried: it heals what a version has."""
_STALE: Final = 60.0
"""A watch that was not read for so many seconds is given up for a list: nobody knows how old what is left in it is."""
_LARGEST_PAGE: Final = 50_000


class EventStream:
    """The events of one namespace, or of all, in the order of their resourceVersions.

    A :class:`ClusterEventSource` makes it.

    .. versionadded:: 0.1
    """

    def __init__(self, stream: Stream, requests: Requests, options: StreamOptions, log: LimitedLog) -> None:
        """Ask for nothing yet."""
        self.stream = stream
        self._requests = requests
        self._options = options
        self._tally = Tally(stream.scope, log)
        self._stopping = threading.Event()
        self._backoff = Backoff(*options.retry)
        self._distrust = Backoff(*options.retry)  # of watches: only a watch that goes well ends it
        self._window = Window(options.repeats.window) if options.repeats.window else None
        self._intake = RevisionFilter(stream, None)
        self._position: Position | None = None
        self._given: Position | None = None
        self._version = ""  # from where a watch goes on; empty: a list is due
        self._page = options.page
        self._until = 0  # what a watch tells is no younger: a process that was suspended reads it long after

    def read(self, after: Position | None, highest: Position | None = None) -> Iterator[Chunk]:
        """Give what comes after a position, for ever; it ends after :meth:`stop` only, and is called once.

        Args:
            after: How far all destinations hold the stream; None: one of them holds nothing of it.
            highest: How far any of them does: what is new is numbered above it, also after a reset of the storage.

        Yields:
            What one read gave, and how far the stream has been read with it; without records when only that has moved.
        """
        options = self._options
        self._position = None if options.start == "all" else after
        self._intake = RevisionFilter(
            self.stream,
            self._position,
            highest,
            first_only=options.repeats.first_only,
            cluster_name=options.cluster_name,
        )
        if options.start == "now":
            yield from self._begin_now()
        while not self._stopping.is_set():
            yield from self._watch() if self._version else self._list()
        yield from self._flush()

    def stop(self) -> None:
        """End the reading, also one that waits; from any thread."""
        self._stopping.set()
        self._requests.end()

    def statistics(self) -> SourceStatistics:
        """A snapshot of what it has seen."""
        return replace(self._tally.counted, old=self._intake.old)

    # -- lists ---------------------------------------------------------------------------------------------------

    def _begin_now(self) -> Iterator[Chunk]:
        """Begin with the present: nothing that there is, is told."""
        while not self._stopping.is_set():
            try:
                version = page_of(self._requests.page(1)).metadata.resourceVersion
            except (GoneError, *_REFUSALS) as error:
                self._failed(error)
            else:
                self._intake.skip_to(version, self._options.clock())
                self._version = version
                yield self._chunk((), self._options.clock())
                return

    def _list(self) -> Iterator[Chunk]:
        """Give all that has not been read, in order; then a watch can go on."""
        with Backlog(self._options.backlog) as backlog:
            listed = self._collect(backlog)
            if listed is None:
                return
            yield from self._flush()
            try:
                yield from self._told(backlog, self._gap(listed))
            except OSError as error:  # the backlog's file; what has not been told comes again
                self._failed(error)
                return
            if self._stopping.is_set():
                return
        self._intake.passed(listed.version)
        self._intake.listed_all()
        self._version = listed.version
        yield self._chunk((), self._options.clock())

    def _collect(self, backlog: Backlog) -> ListResult | None:
        try:
            listed = collect(self._requests, self._intake, backlog, self._page, self._reset)
        except GoneError as error:  # the pages took longer than the server remembers: fewer then
            self._tally.add(gone=1)
            self._page = min(self._page * 10, _LARGEST_PAGE)
            self._failed(error)
            return None
        except (*_REFUSALS, OSError) as error:  # the last: no room for the backlog
            self._page = self._options.page
            self._failed(error)
            return None
        self._page = self._options.page
        self._tally.add(lists=1, unreadable=listed.unreadable)
        self._tally.succeeded()
        self._backoff.reset()
        return listed

    def _reset(self) -> None:
        self._intake.order.reset()
        self._tally.reset()

    def _told(self, backlog: Backlog, gap: Record | None) -> Iterator[Chunk]:
        """Give the backlog in pieces; their positions keep the time of the one before, as older events may follow."""
        items = backlog.in_order()
        time = self._known()
        records = [gap] if gap is not None else []
        while piece := list(islice(items, self._options.page)):
            read_at = monotonic()
            records += filter(None, [self._listed(item, read_at) for _, item in piece])
            self._tally.add(revisions=len(records))
            yield self._chunk(records, time)
            records = []
            if self._stopping.is_set():
                return
        if records:
            yield self._chunk(records, time)

    def _listed(self, item: bytes, read_at: float) -> Record | None:
        try:
            event = _DECODER.decode(item)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._tally.add(unreadable=1)
            return None
        return self._intake.listed(event, self._options.clock(), read_at)

    def _gap(self, listed: ListResult) -> Record | None:
        """The record of what may be missing between the position and a list."""
        before, order, now = self._position, self._intake.order, self._options.clock()
        why = "" if before is None else why_gap(before, listed, order, now, self._options.event_life)
        if before is None or not why:
            return None
        order.advance(end_of_gap(listed, order, now))
        record = gap_record(before, order.last, why, now, monotonic(), self._options.cluster_name)
        self._tally.gap(record.body["kevents"]["gap"])
        return record

    # -- watches -------------------------------------------------------------------------------------------------

    def _watch(self) -> Iterator[Chunk]:
        """Give what happens from now on, until the watch ends, which it does in many ways."""
        began, seconds = monotonic(), self._seconds()
        following = WatchDecoder(self._intake, self._version)
        try:
            with self._requests.watch(self._version, seconds) as feed:
                self._until = self._options.clock() + seconds * 1_000_000_000
                self._tally.add(watches=1)
                yield from self._follow(feed, following)
            if self._version:
                yield from self._ended(following, monotonic() - began)
        except GoneError:
            self._gone()
        except _REFUSALS as error:
            self._broken(error, following)

    def _follow(self, feed: ResponseStream, following: WatchDecoder) -> Iterator[Chunk]:
        while data := self._requests.read(feed):
            records = following.take(data, self._options.clock(), monotonic())
            self._version = following.version
            if following.lines:
                self._trust()
            self._tally.add(revisions=len(records), unreadable=following.unreadable)
            following.unreadable = 0
            handed = monotonic()
            if records or following.trouble is None:
                yield from self._hand(records, self._now() if feed.caught_up else self._known())
            if following.trouble is not None:
                raise following.trouble
            if self._stopping.is_set():
                return
            if monotonic() - handed > _STALE:
                self._version = ""
                return

    def _ended(self, following: WatchDecoder, lasted: float) -> Iterator[Chunk]:
        """A watch came to its end: at its time, or at once, which is a way to say that the version is gone."""
        if self._stopping.is_set():
            return
        if not following.lines and lasted < min(_AT_ONCE, self._seconds() / 2):
            self._gone()
            return
        self._trust()
        yield from self._hand((), self._now())
        if not following.lines and is_reset(self._intake, page_of(self._requests.page(1)).metadata.resourceVersion):
            self._version = ""  # a watch from a version that is yet to come is told nothing, and not that it waits

    def _gone(self) -> None:
        """The server does not know the version any more, which is no failure; but if that goes on, it is."""
        self._tally.add(gone=1)
        self._version = ""
        wait = self._distrust.next()
        if self._distrust.failures > 1:
            self._stopping.wait(wait)

    def _broken(self, error: Exception, following: WatchDecoder) -> None:
        """A watch failed: go on where it was, at once if it had given anything."""
        if following.lines and not isinstance(error, StatusError):
            return
        if self._stopping.is_set():
            return
        self._tally.failed(error)
        self._stopping.wait(self._distrust.next(getattr(error, "retry_after", None)))
        answered = isinstance(error, StatusError) or following.trouble is not None
        if answered and self._distrust.failures >= _PATIENCE:
            self._version = ""

    def _seconds(self) -> int:
        window = self._options.repeats.window
        left = math.inf if self._window is None or window is None else min(self._window.left(monotonic()), window)
        return max(1, math.ceil(min(self._options.watch, left)))

    # -- what both do --------------------------------------------------------------------------------------------

    def _now(self) -> int:
        """Up to when a watch has told everything, if nothing of it waits to be read."""
        return min(self._options.clock(), self._until)

    def _known(self) -> int:
        """Up to when everything had been read; before the first list that is only known of what has expired."""
        if self._position is not None:
            return self._position.time
        return self._options.clock() - int(self._options.event_life * 1_000_000_000)

    def _hand(self, records: Sequence[Record], time: int) -> Iterator[Chunk]:
        """Give what a watch told, or keep it until the end of its window, and give only that something was told."""
        if not self._window:
            self._given = self._position  # what a window holds does not move it
        chunk = self._chunk(records, time)
        if self._window is None:
            yield chunk
            return
        self._window.add(chunk.records, chunk.position, monotonic())
        if not self._window or self._window.left(monotonic()) <= 0:
            yield from self._flush()
        else:
            assert self._given is not None  # a list came before any watch  # noqa: S101
            yield Chunk((), self._given)

    def _flush(self) -> Iterator[Chunk]:
        chunk = self._window.take() if self._window is not None else None
        if chunk is not None:
            yield chunk

    def _chunk(self, records: Sequence[Record], time: int) -> Chunk:
        self._position = Position(self.stream, self._intake.order.last, time)
        return Chunk(records, self._position)

    def _failed(self, error: Exception) -> None:
        """Say what failed, and wait; the next wait is longer."""
        if self._stopping.is_set():
            return
        self._tally.failed(error)
        self._stopping.wait(self._backoff.next(getattr(error, "retry_after", None)))

    def _trust(self) -> None:
        self._tally.succeeded()
        self._distrust.reset()
