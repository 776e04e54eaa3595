"""The command ``kevents tail``: follows a cluster's events, and shows them as columns or JSON lines."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, BinaryIO, Final, TextIO

from kevents._model.wire import parse_time, printable
from kevents.export._model.record import time_of
from kevents.export._model.types import Chunk, Record
from kevents.export._pipeline.bounded_queue import BoundedQueue
from kevents.export._pipeline.stream_worker import EventStream
from kevents.export._route.routes import Router, is_gap

_POLL: Final = 1.0  # seconds
_JOIN_TIMEOUT: Final = 5.0
_STYLES: Final = {"dim": "2", "warning": "33", "about": "36", "head": "2", "bad": "1;31"}
_HEADS: Final = ("LAST SEEN", "NAMESPACE", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE")
_NARROWEST: Final = (9, 10, 7, 16, 24, 5, 0)
_WIDEST: Final = (20, 24, 8, 24, 48, 6, 0)
_NANO: Final = 1_000_000_000


def colourful(stream: TextIO) -> bool:
    """Whether a stream gets colours: a terminal that has them, without NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Columns:
    """Formats records as rows. A column grows with its values, up to a limit.

    Args:
        colour: Whether to use colours.
        namespaces: Whether to show the column NAMESPACE.
        dates: Whether to show dates and times in UTC, instead of local times of day.
        encoding: The encoding of the output; characters that it lacks are escaped.
    """

    def __init__(self, *, colour: bool, namespaces: bool = True, dates: bool = False, encoding: str = "utf-8") -> None:
        """Begin with widths that fit most values."""
        self._colour = colour
        self._dates = dates
        self._encoding = encoding
        self._shown = [column for column, head in enumerate(_HEADS) if namespaces or head != "NAMESPACE"]
        self._widths = list(_NARROWEST)
        if dates:
            self._widths[0] = _WIDEST[0]

    def head(self) -> str:
        """The header."""
        return self._line(_HEADS, dict.fromkeys(_HEADS, "head"))

    def line(self, body: Mapping[str, Any]) -> str:
        """A record's row, without a line break. Control characters are escaped."""
        if is_gap(body):
            return self._styled(self._safe(self._gap(_table(body["kevents"]))), "bad")
        about, metadata, series = (_table(body.get(key)) for key in ("involvedObject", "metadata", "series"))
        eventtype = str(body.get("type") or "")
        cells = (
            self._moment(time_of({**body, "metadata": metadata, "series": series})),
            str(metadata.get("namespace") or about.get("namespace") or ""),
            eventtype,
            str(body.get("reason") or ""),
            f"{str(about.get('kind') or '').lower()}/{about.get('name') or ''}",
            str(series.get("count") or body.get("count") or ""),
            str(body.get("message") or "").strip(),
        )
        styles = {"LAST SEEN": "dim", "OBJECT": "about", "TYPE": "warning" if eventtype == "Warning" else ""}
        if eventtype == "Warning":
            styles["REASON"] = "warning"
        return self._line(cells, styles)

    def _line(self, cells: tuple[str, ...], styles: Mapping[str, str]) -> str:
        parts = []
        for column in self._shown:
            text = self._safe(cells[column])
            if column == len(_HEADS) - 1:
                parts.append(self._styled(text, styles.get(_HEADS[column], "")))
                continue
            self._widths[column] = max(self._widths[column], min(len(text), _WIDEST[column]))
            pad = " " * (max(self._widths[column] - len(text), 0) + 2)
            parts.append(self._styled(text, styles.get(_HEADS[column], "")) + pad)
        return "".join(parts).rstrip()

    def _safe(self, text: str) -> str:
        return printable(text).encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour and style and text else text

    def _moment(self, text: str) -> str:
        try:
            seconds = parse_time(text) // _NANO
            moment = datetime.fromtimestamp(seconds, timezone.utc if self._dates else None)
        except (ValueError, OverflowError, OSError):
            return text or "<unknown>"
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ" if self._dates else "%H:%M:%S")

    def _gap(self, envelope: Mapping[str, Any]) -> str:
        gap = _table(envelope.get("gap"))
        where = f" in {gap['scope']}" if gap.get("scope") else ""
        return (
            f"gap: events{where} between {gap.get('from', '?')} and {gap.get('until', '?')} may be missing "
            f"({gap.get('why', 'unknown')})"
        )


def _table(value: object) -> dict[str, Any]:
    """The value, or an empty table if it is something else."""
    return value if isinstance(value, dict) else {}


def tail(streams: Sequence[EventStream], wanted: Router, show: Callable[[Record], None]) -> None:
    """Show the records of streams as they arrive, until the process is interrupted.

    Args:
        streams: Streams of an open source.
        wanted: The filter: records without a target are not shown.
        show: Shows one record.

    Raises:
        Exception: The error of a stream.
        BrokenPipeError: If the output was closed.
    """
    queue, failures = BoundedQueue(), list[BaseException]()
    threads = [
        threading.Thread(target=_read, args=(each, queue, failures), name="kevents-tail", daemon=True)
        for each in streams
    ]
    for thread in threads:
        thread.start()
    try:
        for chunk in _all(queue):
            for record in chunk.records:
                if wanted.targets(record):
                    show(record)
        raise failures[0]
    finally:
        for stream in streams:
            stream.stop()
        queue.abandon()
        for thread in threads:
            thread.join(_JOIN_TIMEOUT)


def _all(queue: BoundedQueue) -> Iterator[Chunk]:
    """All chunks until one of the streams fails."""
    while True:
        try:
            chunk = queue.get(_POLL)  # Ctrl-C just before the wait is noticed only at its end
        except TimeoutError:
            continue
        if chunk is None:
            return
        yield chunk


def _read(stream: EventStream, queue: BoundedQueue, failures: list[BaseException]) -> None:
    try:
        for chunk in stream.read(None):
            if not queue.put(chunk):
                return
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        failures.append(error)
        queue.close()


def as_json(stream: BinaryIO) -> Callable[[Record], None]:
    """Write each record as a JSON line in UTF-8, whatever the terminal's encoding is, and flush it."""

    def show(record: Record) -> None:
        stream.write(record.line() + b"\n")
        stream.flush()

    return show


def as_columns(stream: TextIO, columns: Columns) -> Callable[[Record], None]:
    """Write each record as a row of columns, and flush it; above the first, the header."""
    begun = False

    def show(record: Record) -> None:
        nonlocal begun
        head = "" if begun else f"{columns.head()}\n"
        begun = True
        stream.write(f"{head}{columns.line(record.body)}\n")
        stream.flush()

    return show
