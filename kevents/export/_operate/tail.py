"""The command ``kevents tail``: a cluster's events as they happen, for a person or as JSON lines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO, Final, TextIO

from kevents.export._model.types import Chunk, Record
from kevents.export._operate.columns import Columns
from kevents.export._pipeline.bounded_queue import BoundedQueue
from kevents.export._pipeline.stream_worker import EventStream
from kevents.export._route.routes import Router

_A_MOMENT: Final = 1.0
_PATIENCE: Final = 5.0


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
    news, failures = BoundedQueue(), list[BaseException]()
    threads = [
        threading.Thread(target=_read, args=(each, news, failures), name="kevents-tail", daemon=True)
        for each in streams
    ]
    for thread in threads:
        thread.start()
    try:
        for chunk in _all(news):
            for record in chunk.records:
                if wanted.targets(record):
                    show(record)
        raise failures[0]
    finally:
        for stream in streams:
            stream.stop()
        news.abandon()
        for thread in threads:
            thread.join(_PATIENCE)


def _all(news: BoundedQueue) -> Iterator[Chunk]:
    """Give what comes until one of the streams has failed."""
    while True:
        try:
            chunk = news.get(_A_MOMENT)  # a Ctrl-C that comes just before a wait is noticed at its end only
        except TimeoutError:
            continue
        if chunk is None:
            return
        yield chunk


def _read(stream: EventStream, news: BoundedQueue, failures: list[BaseException]) -> None:
    try:
        for chunk in stream.read(None):
            if not news.put(chunk):
                return
    except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread tells it
        failures.append(error)
        news.close()


def as_json(stream: BinaryIO) -> Callable[[Record], None]:
    """Give what writes a record as a line of JSON, at once; in UTF-8, whatever the terminal's encoding is."""

    def show(record: Record) -> None:
        stream.write(record.line() + b"\n")
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
