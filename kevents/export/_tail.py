"""The command ``kevents tail``: a cluster's events as they happen, for a person or as JSON lines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Final, Protocol, TextIO

from kevents.export._columns import Columns
from kevents.export._routes import Router
from kevents.export._types import Chunk, Mark, Record, Stream

_A_MOMENT: Final = 1.0
_PATIENCE: Final = 5.0


class EventStream(Protocol):
    """One stream of a source."""

    stream: Stream

    def read(self, after: Mark | None) -> Iterator[Chunk]:
        """Give what there is and what comes, until it is stopped."""
        ...

    def stop(self) -> None:
        """End the reading; from any thread."""
        ...


def tail(streams: Sequence[EventStream], wanted: Router, show: Callable[[Record], None]) -> None:
    """Show the records of streams as they come, until the process is interrupted.

    Args:
        streams: Of a source that has been opened.
        wanted: What it gives no target for is not shown.
        show: Shows one.

    Raises:
        Exception: What a stream raised.
        BrokenPipeError: If nobody reads any more.
    """
    news: SimpleQueue[Chunk | BaseException] = SimpleQueue()
    threads = [threading.Thread(target=_read, args=(each, news), name="kevents-tail", daemon=True) for each in streams]
    for thread in threads:
        thread.start()
    try:
        for chunk in _all(news):
            for record in chunk.records:
                if wanted.targets(record):
                    show(record)
    finally:
        for stream in streams:
            stream.stop()
        for thread in threads:
            thread.join(_PATIENCE)


def _all(news: SimpleQueue[Chunk | BaseException]) -> Iterator[Chunk]:
    while True:
        try:
            chunk = news.get(timeout=_A_MOMENT)  # a Ctrl-C that comes just before a wait is noticed at its end only
        except Empty:
            continue
        if isinstance(chunk, BaseException):
            raise chunk
        yield chunk


def _read(stream: EventStream, news: SimpleQueue[Chunk | BaseException]) -> None:
    try:
        for chunk in stream.read(None):
            news.put(chunk)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread tells it
        news.put(error)


def as_json(stream: TextIO) -> Callable[[Record], None]:
    """Give what writes a record as a line of JSON, at once."""

    def show(record: Record) -> None:
        stream.write(record.line().decode("utf-8") + "\n")
        stream.flush()

    return show


def as_columns(stream: TextIO, columns: Columns) -> Callable[[Record], None]:
    """Give what writes a record as a line for people, at once; the first with the heads above it."""
    begun = False

    def show(record: Record) -> None:
        nonlocal begun
        head = "" if begun else f"{columns.head()}\n"
        begun = True
        stream.write(f"{head}{columns.line(record.body)}\n")
        stream.flush()

    return show
