"""A complete list of events, read page by page into a sorted backlog, and the gap that it may show."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import IO, Any, Final

from kevents.export._model.position import AGE, Order, number_of
from kevents.export._model.types import SECOND, Position
from kevents.export._source.api import ListWatch
from kevents.export._source.response_stream import Page, TooLargeError, decode_event, decode_page
from kevents.export._source.revision_filter import RevisionFilter

PAGE: Final = 500
EXPIRED: Final = "expired"
RESET: Final = "reset"
_ITEM_OVERHEAD: Final = 120  # bytes that an item takes in memory besides its own


Item = tuple[int, bytes]


class Backlog:
    """Events with a number each, returned in the order of the numbers."""

    def __init__(self, limit: int) -> None:
        self._limit = limit  # bytes that are kept in memory; the rest goes to a temporary file
        self._items: list[Item] = []
        self._size = 0
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []  # sorted parts of the file: offsets of start and end

    @property
    def spilled(self) -> int:
        return self._runs[-1][1] if self._runs else 0

    def add(self, number: int, item: bytes) -> None:
        """Add an item. Raises OSError if the temporary file cannot be written."""
        self._items.append((number, item))
        self._size += len(item) + _ITEM_OVERHEAD
        if self._size > self._limit:
            self._spill()

    def in_order(self) -> Iterator[Item]:
        self._items.sort(key=itemgetter(0))
        newest = iter(self._items)
        if not self._runs:
            return newest
        return heapq.merge(*(self._run(start, end) for start, end in self._runs), newest, key=itemgetter(0))

    def close(self) -> None:
        self._items, self._runs = [], []
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="kevents-")  # noqa: SIM115 - it lives as long as the backlog
        start = self.spilled
        self._items.sort(key=itemgetter(0))
        for number, item in self._items:
            self._file.write(b"%d %d\n" % (number, len(item)) + item)
        self._file.flush()
        self._runs.append((start, self._file.tell()))
        self._items, self._size = [], 0

    def _run(self, at: int, end: int) -> Iterator[Item]:
        while at < end:
            file: Any = self._file
            file.seek(at)  # the merge reads the runs alternately
            number, size = file.readline().split()
            item = file.read(int(size))
            at = file.tell()
            yield int(number), item


@dataclass(frozen=True, slots=True)
class ListResult:
    """The result of a list."""

    version: str  # its resourceVersion, after which a watch continues
    items: int  # the number of events
    # True if one of them had been read before. Then no event written later has expired, because events expire in the
    # order of their last write.
    reaches_back: bool
    lowest: int | None  # the lowest number of the events that had not been read; None without one
    unreadable: int  # the number of items that are no events


def collect(
    requests: ListWatch, revisions: RevisionFilter, backlog: Backlog, limit: int, on_reset: Callable[[], None]
) -> ListResult:
    """List all events and put those that have not been read into the backlog.

    Raises GoneError if the list expired before its last page, UnavailableError if there was no answer or it is no list,
    StatusError if the server refuses, and OSError if the backlog's file cannot be written.
    """
    pages = _pages(requests, limit)
    first = next(pages)
    version = first.metadata.resourceVersion
    if is_reset(revisions, version):
        on_reset()
    items, unreadable, reaches_back = 0, 0, False
    lowest: int | None = None
    for page in chain((first,), pages):
        for raw in page.items or ():
            items += 1
            item = bytes(raw)
            event = decode_event(item)
            if event is None:
                unreadable += 1
                continue
            number = revisions.sift(event)
            if number is None:
                reaches_back = True
                continue
            lowest = number if lowest is None or number < lowest else lowest
            backlog.add(number, item)
    return ListResult(version, items, reaches_back, lowest, unreadable)


def _pages(requests: ListWatch, limit: int) -> Iterator[Page]:
    """Yield the pages of a list. A page that is too large is requested again with half of the events, down to one."""
    token = ""
    while True:
        try:
            page = decode_page(requests.page(limit, token))
        except TooLargeError:
            if limit == 1:
                raise
            limit //= 2
            continue
        yield page
        token = page.metadata.more
        if not token:
            return


def is_reset(revisions: RevisionFilter, version: str) -> bool:
    """True if a list of this resourceVersion is older than what has been read."""
    number = number_of(version)
    return number is not None and revisions.order.is_reset(number)


def why_gap(before: Position, listed: ListResult, order: Order, now: int, life: float) -> str:
    """Return why events may be missing between a position and a list; empty if none can be.

    Events expire in the order of their last write. So no event written after the position has expired while an event
    written before it still exists, and none has expired if the pause was shorter than their life.
    """
    if order.last // AGE > before.rv // AGE:
        return RESET
    if now - before.time <= life * SECOND or listed.reaches_back:
        return ""
    return EXPIRED if end_of_gap(listed, order, now) > order.last else ""


def end_of_gap(listed: ListResult, order: Order, now: int) -> int:
    """Return the last number at which an event may be missing."""
    number = number_of(listed.version)
    if number is None:
        return order.invent(now)
    return order.place(number) if listed.lowest is None else listed.lowest - 1
