"""A whole list of events, page by page, into a backlog: what has not been read yet, and what the list tells besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from kevents.exceptions import UnavailableError
from kevents.export._model.depth_limit import decoded
from kevents.export._model.position import number_of
from kevents.export._source.backlog import Backlog
from kevents.export._source.events_api import Requests
from kevents.export._source.revision_filter import EventHeader, RevisionFilter

PAGE: Final = 500


class _Metadata(msgspec.Struct, rename={"more": "continue"}):
    resourceVersion: str = ""  # noqa: N815 - the API's name
    more: str = ""


class _Page(msgspec.Struct):
    metadata: _Metadata
    items: list[msgspec.Raw] | None = None


_PAGE: Final = msgspec.json.Decoder(_Page)
_HEAD: Final = msgspec.json.Decoder(EventHeader)


@dataclass(frozen=True, slots=True)
class ListResult:
    """What a list was.

    Attributes:
        version: Its resourceVersion, from which a watch goes on.
        items: How many events there were.
        reaches_back: Whether one of them had been read before: then none written later has expired, since events
            expire in the order in which they were written last.
        lowest: The lowest number of those that had not been read; None without one.
        unreadable: How many of them are no events.
    """

    version: str
    items: int
    reaches_back: bool
    lowest: int | None
    unreadable: int


def collect(
    requests: Requests, intake: RevisionFilter, backlog: Backlog, limit: int, on_reset: Callable[[], None]
) -> ListResult:
    """List all events, and put those that have not been read into the backlog.

    Args:
        requests: Asks for the pages.
        intake: Knows what has been read.
        backlog: Takes the events; empty.
        limit: How many events to a page.
        on_reset: Called when the first page is older than what has been read, as the storage is an earlier one then; it
            lets the intake begin a new age.

    Raises:
        GoneError: The pages were not to be had in time.
        UnavailableError: The server does not answer, or not with a list.
        StatusError: It refuses.
        OSError: The backlog has no room.
    """
    page = page_of(requests.page(limit))
    version = page.metadata.resourceVersion
    if is_reset(intake, version):
        on_reset()
    items, unreadable, reaches_back = 0, 0, False
    lowest: int | None = None
    while True:
        for raw in page.items or ():
            items += 1
            try:
                number = intake.sift(_HEAD.decode(raw))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                unreadable += 1
                continue
            if number is None:
                reaches_back = True
                continue
            lowest = number if lowest is None or number < lowest else lowest
            backlog.add(number, bytes(raw))
        if not page.metadata.more:
            return ListResult(version, items, reaches_back, lowest, unreadable)
        page = page_of(requests.page(limit, page.metadata.more))


def page_of(body: bytes) -> _Page:
    """Read a page.

    Raises:
        UnavailableError: It is none, or has no resourceVersion.
    """
    try:
        page = decoded(_PAGE, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnavailableError(f"what came is no list of events: {error}") from None
    if not page.metadata.resourceVersion:
        raise UnavailableError("what came is no list of events: it has no resourceVersion")
    return page


def is_reset(intake: RevisionFilter, version: str) -> bool:
    """Tell whether a list of this resourceVersion is older than what has been read."""
    number = number_of(version)
    return number is not None and intake.order.is_reset(number)
