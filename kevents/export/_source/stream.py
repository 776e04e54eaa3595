"""One stream of events: a list and a watch, repeated for ever (client-go: ``Reflector``).

A list returns the unread events in order, and a watch continues after it. The stream continues with another list when
the server no longer knows the watch's resourceVersion (410 Gone, in one of its three forms), when a watch fails several
times in a row although the server answers, and when a watch was not read for a minute.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, Final, Literal

import msgspec

from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._model.options import Backoff
from kevents.export._model.types import Chunk, Position, Record, Stream, gap_record
from kevents.export._source.api import EventRequests
from kevents.export._source.listing import Backlog, ListResult, collect, end_of_gap, is_reset, why_gap
from kevents.export._source.response_stream import GoneError, ResponseStream, WatchDecoder, decode_page
from kevents.export._source.revision_filter import Repeats, RevisionFilter, Window

Start = Literal["resume", "now", "all"]

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])
_REFUSALS: Final = (StatusError, UnavailableError)
_FORBIDDEN: Final = 403
_SHORT_WATCH: Final = 1.0
"""A watch that ends empty within 1 s is treated as 410 Gone."""
_MAX_WATCH_FAILURES: Final = 3
"""After that many failed watches in a row, if the server answered, the stream lists again."""
_STALE: Final = 60.0
"""A watch that was not read for 60 s is replaced by a list, because the age of its unread events is unknown."""
_MAX_PAGE: Final = 50_000


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """The options of a stream."""

    start: Start  # at the committed position (`resume`), at the present (`now`), or with all events (`all`)
    repeats: Repeats  # which revisions of an event become records
    cluster_name: str  # the cluster's name in the records
    event_life: float  # seconds for which the server keeps an event after its last write
    page: int  # the number of events per page of a list
    backlog: int  # bytes of a list that are kept in memory
    watch: int  # seconds after which a watch ends and begins again
    retry: tuple[float, float]  # the upper limits of the first wait after a failure and of every wait, in seconds
    clock: Callable[[], int]  # the wall clock, in nanoseconds


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """The counters of a stream since it was opened.

    Attributes:
        revisions: Records of events.
        old: Revisions that had been read before, and were skipped.
        unreadable: Items of lists and watches that were no events.
        lists: Complete lists.
        watches: Watches that were opened.
        gone: Times that the server no longer knew the resourceVersion.
        failures: Requests that failed otherwise; each was retried.
        gaps: Gap records.
        resets: Times that the storage turned out to be reset.

    .. versionadded:: 0.1
    """

    revisions: int = 0
    old: int = 0
    unreadable: int = 0
    lists: int = 0
    watches: int = 0
    gone: int = 0
    failures: int = 0
    gaps: int = 0
    resets: int = 0


class EventStream:
    """The events of one namespace, or of all, in the order of their resourceVersions.

    A :class:`ClusterEventSource` makes it.

    .. versionadded:: 0.1
    """

    def __init__(self, stream: Stream, requests: EventRequests, options: StreamOptions, log: LimitedLog) -> None:
        self.stream = stream
        self._requests = requests
        self._options = options
        self._log = log
        self._what = f"the events of namespace {stream.scope}" if stream.scope else "the events of all namespaces"
        self._counts: Counter[str] = Counter()
        self._failing_since: float | None = None
        self._stopping = threading.Event()
        self._backoff = Backoff(*options.retry)  # of lists
        self._watch_backoff = Backoff(*options.retry)  # of watches: only a watch that succeeds resets it
        self._window = Window(options.repeats.window) if options.repeats.window else None
        self._revisions = RevisionFilter(stream, None)
        self._position: Position | None = None
        self._returned: Position | None = None  # with a window: the last position that was returned
        self._version = ""  # after which a watch continues; empty: a list is due
        self._page = options.page
        self._watch_ends = 0  # a process that was suspended may read a watch long after this time

    def read(self, after: Position | None, highest: Position | None = None) -> Iterator[Chunk]:
        """Yield the events after a position. It ends only after :meth:`stop`, and is called once.

        Args:
            after: The lowest position that the destinations have committed; None: one of them has none.
            highest: The highest one. New records get higher numbers, also after a reset of the storage.

        Yields:
            The records of one read, and the stream's position after them; no records if only the position has moved.
        """
        options = self._options
        self._position = None if options.start == "all" else after
        self._revisions = RevisionFilter(
            self.stream,
            self._position,
            highest,
            first_only=options.repeats.first_only,
            cluster_name=options.cluster_name,
        )
        if options.start == "now":
            yield from self._start_now()
        while not self._stopping.is_set():
            yield from self._watch() if self._version else self._list()
        yield from self._flush()

    def stop(self) -> None:
        """End the reading, also while it waits; from any thread."""
        self._stopping.set()
        self._requests.end()

    def statistics(self) -> SourceStatistics:
        """Return a snapshot of the counters."""
        return SourceStatistics(**self._counts, old=self._revisions.old)

    # -- lists ---------------------------------------------------------------------------------------------------

    def _start_now(self) -> Iterator[Chunk]:
        """Take the present as position, without reading any event."""
        while not self._stopping.is_set():
            try:
                version = decode_page(self._requests.page(1)).metadata.resourceVersion
            except (GoneError, *_REFUSALS) as error:
                self._wait_after(error)
            else:
                self._revisions.skip_to(version, self._options.clock())
                self._version = version
                yield self._chunk((), self._options.clock())
                return

    def _list(self) -> Iterator[Chunk]:
        """Yield everything that has not been read, in order; a watch continues after it."""
        with Backlog(self._options.backlog) as backlog:
            listed = self._collect(backlog)
            if listed is None:
                return
            yield from self._flush()
            try:
                yield from self._drain(backlog, self._gap(listed))
            except OSError as error:  # of the backlog's file; the rest is listed again
                self._wait_after(error)
                return
            if self._stopping.is_set():
                return
        self._revisions.advance(listed.version)
        self._revisions.listed_all()
        self._version = listed.version
        yield self._chunk((), self._options.clock())

    def _collect(self, backlog: Backlog) -> ListResult | None:
        try:
            listed = collect(self._requests, self._revisions, backlog, self._page, self._reset)
        except GoneError as error:  # the list expired between two pages: use fewer
            self._count("gone")
            self._page = min(self._page * 10, _MAX_PAGE)
            self._wait_after(error)
            return None
        except (*_REFUSALS, OSError) as error:  # OSError: the backlog's file cannot be written
            self._page = self._options.page
            self._wait_after(error)
            return None
        self._page = self._options.page
        self._count("lists")
        self._count_unreadable(listed.unreadable)
        self._succeeded()
        self._backoff.reset()
        return listed

    def _reset(self) -> None:
        self._revisions.order.reset()
        self._count("resets")
        self._say("reset", f"the API server's storage was reset: {self._what} are read from the start", logging.ERROR)

    def _drain(self, backlog: Backlog, gap: Record | None) -> Iterator[Chunk]:
        """Yield the backlog in pieces. Their positions keep the time before the list: older events may follow."""
        items = backlog.in_order()
        time = self._known_until()
        records = [gap] if gap is not None else []
        while piece := list(islice(items, self._options.page)):
            read_at = monotonic()
            records += filter(None, [self._listed(item, read_at) for _, item in piece])
            self._count("revisions", len(records))
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
            self._count_unreadable(1)
            return None
        return self._revisions.listed(event, self._options.clock(), read_at)

    def _gap(self, listed: ListResult) -> Record | None:
        """The gap record, if events may be missing between the position and a list."""
        before, order, now = self._position, self._revisions.order, self._options.clock()
        why = "" if before is None else why_gap(before, listed, order, now, self._options.event_life)
        if before is None or not why:
            return None
        order.advance(end_of_gap(listed, order, now))
        record = gap_record(before, order.last, why, now, monotonic(), self._options.cluster_name)
        self._count("gaps")
        gap = record.body["kevents"]["gap"]
        self._say("gap", f"some of {self._what} may be missing; a gap record is written: {gap}", logging.ERROR)
        return record

    # -- watches -------------------------------------------------------------------------------------------------

    def _watch(self) -> Iterator[Chunk]:
        """Yield what happens from now on, until the watch ends."""
        began, seconds = monotonic(), self._watch_seconds()
        decoder = WatchDecoder(self._revisions, self._version)
        try:
            with self._requests.watch(self._version, seconds) as stream:
                self._watch_ends = self._options.clock() + seconds * 1_000_000_000
                self._count("watches")
                yield from self._read_watch(stream, decoder)
            if self._version:
                yield from self._watch_ended(decoder, monotonic() - began)
        except GoneError:
            self._gone()
        except _REFUSALS as error:
            self._watch_failed(error, decoder)

    def _read_watch(self, stream: ResponseStream, decoder: WatchDecoder) -> Iterator[Chunk]:
        while data := stream.read():
            records = decoder.decode(data, self._options.clock(), monotonic())
            self._version = decoder.version
            if decoder.events:
                self._watch_succeeded()
            self._count("revisions", len(records))
            self._count_unreadable(decoder.unreadable)
            decoder.unreadable = 0
            yielded_at = monotonic()
            if records or decoder.error is None:
                yield from self._give(records, self._read_until() if stream.caught_up else self._known_until())
            if decoder.error is not None:
                raise decoder.error
            if self._stopping.is_set():
                return
            if monotonic() - yielded_at > _STALE:
                self._version = ""
                return

    def _watch_ended(self, decoder: WatchDecoder, lasted: float) -> Iterator[Chunk]:
        """A watch ended at its time, or at once, which is one of the forms of 410 Gone."""
        if self._stopping.is_set():
            return
        if not decoder.events and lasted < min(_SHORT_WATCH, self._watch_seconds() / 2):
            self._gone()
            return
        self._watch_succeeded()
        yield from self._give((), self._read_until())
        # a server whose storage was reset accepts a watch after a version that is yet to come, and sends nothing.
        if not decoder.events and is_reset(
            self._revisions, decode_page(self._requests.page(1)).metadata.resourceVersion
        ):
            self._version = ""

    def _gone(self) -> None:
        """410 Gone: list again. It is normal once; the stream waits if it happens several times in a row."""
        self._count("gone")
        self._version = ""
        wait = self._watch_backoff.next()
        if self._watch_backoff.failures > 1:
            self._stopping.wait(wait)

    def _watch_failed(self, error: Exception, decoder: WatchDecoder) -> None:
        """Continue where the watch was; at once if it had returned events before a connection error."""
        if decoder.events and not isinstance(error, StatusError):
            return
        if self._stopping.is_set():
            return
        self._failed(error)
        self._stopping.wait(self._watch_backoff.next(getattr(error, "retry_after", None)))
        answered = isinstance(error, StatusError) or decoder.error is not None
        if answered and self._watch_backoff.failures >= _MAX_WATCH_FAILURES:
            self._version = ""

    def _watch_seconds(self) -> int:
        window = self._options.repeats.window
        left = math.inf if self._window is None or window is None else min(self._window.left(monotonic()), window)
        return max(1, math.ceil(min(self._options.watch, left)))

    # -- lists and watches ---------------------------------------------------------------------------------------

    def _read_until(self) -> int:
        """The time up to which a watch has returned everything, if none of its events is unread."""
        return min(self._options.clock(), self._watch_ends)

    def _known_until(self) -> int:
        """The time up to which everything has been read; before the first list, that of the events that expired."""
        if self._position is not None:
            return self._position.time
        return self._options.clock() - int(self._options.event_life * 1_000_000_000)

    def _give(self, records: Sequence[Record], time: int) -> Iterator[Chunk]:
        """Yield the records of a watch. With a window, yield only the position until the window ends."""
        if not self._window:
            self._returned = self._position  # records in a window do not move it
        chunk = self._chunk(records, time)
        if self._window is None:
            yield chunk
            return
        self._window.add(chunk.records, chunk.position, monotonic())
        if not self._window or self._window.left(monotonic()) <= 0:
            yield from self._flush()
        else:
            assert self._returned is not None  # a list precedes every watch  # noqa: S101
            yield Chunk((), self._returned)

    def _flush(self) -> Iterator[Chunk]:
        chunk = self._window.take() if self._window is not None else None
        if chunk is not None:
            yield chunk

    def _chunk(self, records: Sequence[Record], time: int) -> Chunk:
        self._position = Position(self.stream, self._revisions.order.last, time)
        return Chunk(records, self._position)

    def _wait_after(self, error: Exception) -> None:
        """Count a failure, log it, and wait; the next wait is longer."""
        if not self._stopping.is_set():
            self._failed(error)
            self._stopping.wait(self._backoff.next(getattr(error, "retry_after", None)))

    def _watch_succeeded(self) -> None:
        self._succeeded()
        self._watch_backoff.reset()

    # -- statistics and log --------------------------------------------------------------------------------------

    def _count(self, name: str, number: int = 1) -> None:
        self._counts[name] += number

    def _count_unreadable(self, number: int) -> None:
        if number:
            self._count("unreadable", number)
            self._say("unreadable", f"{number} of {self._what} cannot be read and are skipped", logging.ERROR)

    def _failed(self, error: BaseException) -> None:
        self._count("failures")
        if self._failing_since is None:
            self._failing_since = monotonic()
        kind, text = type(error).__name__, format_error(error)
        if isinstance(error, StatusError):
            kind = str(error.code)
            if error.code == _FORBIDDEN:
                text += '; a role must allow "list" and "watch" of "events" in the API group "" there'
        self._say(kind, f"{self._what} cannot be read, trying again: {text}", logging.WARNING)

    def _succeeded(self) -> None:
        if self._failing_since is not None:
            seconds, self._failing_since = monotonic() - self._failing_since, None
            self._say("again", f"{self._what} are read again after {seconds:.0f} s", logging.INFO)

    def _say(self, kind: str, text: str, level: int) -> None:
        self._log.log_limited((self._what, kind), text, level=level)
