"""The source of an export: a cluster's events, one stream for each namespace, or one for all.

A stream is a list and a watch, repeated for ever (client-go: ``Reflector``). A list returns the unread events in order,
and a watch continues after it. The stream continues with another list in three cases:

- The server no longer knows the watch's resourceVersion (410 Gone, in one of its three forms).
- A watch fails several times in a row although the server answers.
- A watch was not read for a minute.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from time import monotonic, sleep, time_ns
from typing import Final, Literal, TypeVar

from kevents._model.validation import require_count, require_positive
from kevents._model.wire import format_error
from kevents._runtime.log import LimitedLog
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._model.options import Backoff
from kevents.export._model.text import namespace_problem
from kevents.export._model.types import SECOND, Chunk, Position, Record, Stream, gap_record
from kevents.export._source.api import ApiReader, ListWatch, NoAnswerError, events_path
from kevents.export._source.listing import PAGE, Backlog, ListResult, collect, end_of_gap, is_reset, why_gap
from kevents.export._source.response_stream import GoneError, ResponseStream, WatchDecoder, decode_event, decode_page
from kevents.export._source.revision_filter import Repeats, RevisionFilter, Window, parse_repeats

_T = TypeVar("_T")

Start = Literal["resume", "now", "all"]

_REFUSALS: Final = (StatusError, UnavailableError)
_SHORT_WATCH: Final = 1.0  # a watch that ends empty within 1 s is treated as 410 Gone
_MAX_WATCH_FAILURES: Final = 3
"""After that many failed watches in a row, if the server answered, the stream lists again."""
_STALE: Final = 60.0
"""A watch that was not read for 60 s is replaced by a list, because the age of its unread events is unknown."""
_MAX_PAGE: Final = 50_000
_EVENTS_RULE: Final = 'a role must allow "list" and "watch" of "events"'
_CLUSTER_RULE: Final = (
    'a role must allow "get" of "namespaces" named "kube-system", whose uid tells one cluster from another; '
    "or give the source a cluster name of your own, with cluster="
)


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
    """

    def __init__(self, stream: Stream, requests: ListWatch, options: StreamOptions, log: LimitedLog) -> None:
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
        with closing(Backlog(self._options.backlog)) as backlog:
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
            self._counts["gone"] += 1
            self._page = min(self._page * 10, _MAX_PAGE)
            self._wait_after(error)
            return None
        except (*_REFUSALS, OSError) as error:  # OSError: the backlog's file cannot be written
            self._page = self._options.page
            self._wait_after(error)
            return None
        self._page = self._options.page
        self._counts["lists"] += 1
        self._count_unreadable(listed.unreadable)
        self._succeeded()
        self._backoff.reset()
        return listed

    def _reset(self) -> None:
        self._revisions.order.reset()
        self._counts["resets"] += 1
        self._say("reset", f"the API server's storage was reset: {self._what} are read from the start", logging.ERROR)

    def _drain(self, backlog: Backlog, gap: Record | None) -> Iterator[Chunk]:
        """Yield the backlog in pieces. Their positions keep the time before the list: older events may follow."""
        items = backlog.in_order()
        time = self._known_until()
        records = [gap] if gap is not None else []
        while piece := list(islice(items, self._options.page)):
            read_at = monotonic()
            events = [event for _, item in piece if (event := decode_event(item)) is not None]
            taken = [self._revisions.listed(event, self._options.clock(), read_at) for event in events]
            records += [record for record in taken if record is not None]
            self._counts["revisions"] += len(records)
            yield self._chunk(records, time)
            records = []
            if self._stopping.is_set():
                return
        if records:
            yield self._chunk(records, time)

    def _gap(self, listed: ListResult) -> Record | None:
        """The gap record, if events may be missing between the position and a list."""
        before, order, now = self._position, self._revisions.order, self._options.clock()
        why = "" if before is None else why_gap(before, listed, order, now, self._options.event_life)
        if before is None or not why:
            return None
        order.advance(end_of_gap(listed, order, now))
        record = gap_record(before, order.last, why, now, monotonic(), self._options.cluster_name)
        self._counts["gaps"] += 1
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
                self._watch_ends = self._options.clock() + seconds * SECOND
                self._counts["watches"] += 1
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
            self._counts["revisions"] += len(records)
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
        self._counts["gone"] += 1
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
        return self._options.clock() - int(self._options.event_life * SECOND)

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

    def _count_unreadable(self, number: int) -> None:
        if number:
            self._counts["unreadable"] += number
            self._say("unreadable", f"{number} of {self._what} cannot be read and are skipped", logging.ERROR)

    def _failed(self, error: BaseException) -> None:
        self._counts["failures"] += 1
        if self._failing_since is None:
            self._failing_since = monotonic()
        kind, text = type(error).__name__, format_error(error)
        if isinstance(error, StatusError):
            kind = str(error.code)
            if error.code == HTTPStatus.FORBIDDEN:
                text += '; a role must allow "list" and "watch" of "events" in the API group "" there'
        self._say(kind, f"{self._what} cannot be read, trying again: {text}", logging.WARNING)

    def _succeeded(self) -> None:
        if self._failing_since is not None:
            seconds, self._failing_since = monotonic() - self._failing_since, None
            self._say("again", f"{self._what} are read again after {seconds:.0f} s", logging.INFO)

    def _say(self, kind: str, text: str, level: int) -> None:
        self._log.log_limited((self._what, kind), text, level=level)


class ClusterEventSource:
    """Reads a cluster's events through core/v1, which every API server has and which includes those of events.k8s.io.

    Each stream lists the events, returns those that have not been read in the order of their resourceVersions, and
    continues with a watch. It never ends by itself: failures are retried. When the server no longer knows the
    stream's position, a new list shows the missed events. No event is lost before it expires. Where events may have
    expired, the stream returns a gap record.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient`` of the official client (31 to 37 are tested), or a callable that returns
            one. None: the process-wide default configuration if it has been loaded, else in-cluster, else kubeconfig.
        namespaces: The namespaces to read, one stream each; None or empty: all, in one stream.
        start: ``"resume"`` starts after the position that the destinations have committed, or with all events if there
            is none. ``"now"`` starts with the events from now on, ``"all"`` with all events.
        repeats: Further revisions of an event. ``"all"``: each becomes a record. ``"first"``: one record per event. A
            window such as ``"30s"``, at most half of ``event_life``: the latest revision in each window, with the sum
            of the counts.
        cluster: The cluster's id in positions and file names; None: the UID of the namespace ``kube-system``.
        cluster_name: ``clusterName`` in each record.
        event_life: Seconds for which the server keeps an event after its last write (``--event-ttl``). After a longer
            pause the stream returns a gap record, unless an event from before the pause still exists.
        retry: The upper limits of the first wait after a failure and of every wait, in seconds.
        patience: Seconds for which :meth:`open` tries to reach the server.
        page: The number of events per page of a list.
        backlog: Bytes of a list that are kept in memory until they are returned; the rest goes to a temporary file.
        watch: Seconds after which a watch ends and begins again; the position moves at least that often.
        clock: The wall clock, in nanoseconds.

    Raises:
        ValueError: If an option is invalid.
        TypeError: If ``api`` is none of these.
        ImportError: If the official client is not installed.
    """

    def __init__(
        self,
        api: object = None,
        *,
        namespaces: Iterable[str] | None = None,
        start: Start = "resume",
        repeats: str | float = "all",
        cluster: str | None = None,
        cluster_name: str = "",
        event_life: float = 3600.0,
        retry: tuple[float, float] = (0.5, 60.0),
        patience: float = 10.0,
        page: int = PAGE,
        backlog: int = 32 << 20,
        watch: int = 60,
        clock: Callable[[], int] = time_ns,
    ) -> None:
        if start not in {"resume", "now", "all"}:
            raise ValueError(f"start must be 'resume', 'now' or 'all', not {start!r}")
        self._options = StreamOptions(
            start=start,
            event_life=require_positive("event_life", event_life),
            repeats=parse_repeats(repeats, event_life),
            cluster_name=cluster_name,
            page=require_count("page", page),
            backlog=require_count("backlog", backlog),
            watch=require_count("watch", watch),
            retry=(require_positive("retry", retry[0]), require_positive("retry", retry[1])),
            clock=clock,
        )
        self._scopes = _checked_namespaces(namespaces)
        self._cluster = cluster
        self._patience = patience
        self._reader = ApiReader(api)
        self._log = LimitedLog()

    def open(self) -> list[EventStream]:
        """Connect, identify the cluster, and return a stream for each namespace.

        Raises:
            UnavailableError: If the server cannot be reached within `patience` seconds, or there is no configuration.
            StatusError: If it refuses for as long; the text names the missing permission.
        """
        cluster = self._retried(ListWatch.cluster, "", _CLUSTER_RULE) if self._cluster is None else self._cluster
        return [
            EventStream(Stream(cluster, scope), ListWatch(self._reader, events_path(scope)), self._options, self._log)
            for scope in self._scopes
        ]

    def reach(self) -> None:
        """Check that the events of each stream can be read, which :meth:`open` does not.

        Raises:
            UnavailableError: As in `open`.
            StatusError: As in `open`.
        """
        for scope in self._scopes:
            self._retried(lambda requests: requests.page(1), scope, _EVENTS_RULE)

    def _retried(self, request: Callable[[ListWatch], _T], scope: str, rule: str) -> _T:
        """Make a request until it succeeds or `patience` ends: a server that has just started refuses for a moment."""
        deadline = monotonic() + self._patience
        backoff = Backoff(*self._options.retry)
        self._reader.check()
        while True:
            try:
                return request(ListWatch(self._reader, events_path(scope)))
            except (StatusError, UnavailableError, GoneError) as error:
                wait = backoff.next(getattr(error, "retry_after", None))
                if monotonic() + wait > deadline:
                    raise _explained(error, rule) from None
                refused = isinstance(error, StatusError) and error.code < HTTPStatus.INTERNAL_SERVER_ERROR
                what = "the cluster refuses a request" if refused else "the cluster cannot be reached"
                self._log.log_limited("open", f"{what}, trying again for up to {self._patience:g} s: {error}")
                sleep(wait)

    def __repr__(self) -> str:
        return f"ClusterEventSource(namespaces={[scope for scope in self._scopes if scope]})"


def _explained(error: Exception, rule: str) -> Exception:
    if isinstance(error, StatusError) and error.code == HTTPStatus.FORBIDDEN:
        return StatusError(error.code, error.reason, f"{error.message}; {rule}", error.causes)
    if isinstance(error, NoAnswerError):
        return UnavailableError(
            f"no answer from the API server at {error.host} ({error}): is the cluster running, and does "
            "'kubectl get events' work?"
        )
    return error


def _checked_namespaces(namespaces: Iterable[str] | None) -> tuple[str, ...]:
    if isinstance(namespaces, str):
        raise ValueError(f"namespaces must be a list of names, not a text: [{namespaces!r}]")
    names = tuple(dict.fromkeys(namespaces or ()))
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"namespaces must be names, not {name!r}; an empty list stands for all of them")
        if problem := namespace_problem(name):
            raise ValueError(f"namespaces: {problem}")
    return names or ("",)
