"""The command ``kevents tail``: follows a cluster's events, and shows them as columns or JSON lines."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import IO, Any, BinaryIO, Final, TextIO
from unicodedata import combining, east_asian_width

import msgspec

from kevents._model.wire import format_age, format_time, parse_time, printable
from kevents.export._model.types import SECOND, Record, time_of, value_at
from kevents.export._pipeline.stream_worker import BoundedQueue
from kevents.export._route.routes import Router, is_gap
from kevents.export._source.source import EventStream

_POLL: Final = 1.0  # seconds
_JOIN_TIMEOUT: Final = 5.0
_STYLES: Final = {"dim": "2", "warning": "33", "about": "36", "head": "2", "bad": "1;31"}
_WIDTHS: Final = {  # of columns: the least, and the most that one grows to
    "NAMESPACE": (10, 24),
    "LAST SEEN": (9, 20),
    "TYPE": (7, 8),
    "REASON": (16, 24),
    "OBJECT": (24, 48),
    "SUBOBJECT": (9, 32),
    "SOURCE": (16, 32),
    "FIRST SEEN": (10, 20),
    "COUNT": (5, 6),
    "NAME": (26, 48),
    "MESSAGE": (0, 0),
}
_NARROW: Final = 100  # columns of a terminal
_TIMESTAMP: Final = len("2026-07-24T09:00:05Z")
_ONLY_WIDE: Final = ("SUBOBJECT", "SOURCE", "FIRST SEEN", "NAME")


def colourful(stream: TextIO) -> bool:
    """Whether a stream gets colours: a terminal that has them, without NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Columns:
    """Formats records as rows. A column grows with its values, up to a limit."""

    def __init__(
        self,
        *,
        colour: bool,  # whether to use colours
        namespaces: bool = True,  # whether to show the column NAMESPACE
        timestamps: bool = False,  # whether to show times in UTC instead of ages
        wide: bool = False,  # whether to show all columns
        encoding: str = "utf-8",  # the encoding of the output; characters that it lacks are escaped
        cut: Callable[[], int] = int,  # returns the width to cut rows to; 0 for uncut rows
    ) -> None:
        narrow = 0 < cut() < _NARROW  # leave the space to the message
        hidden = [
            *(() if namespaces else ("NAMESPACE",)),
            *(() if wide else _ONLY_WIDE),
            *(("COUNT",) if narrow else ()),
        ]
        self._colour = colour
        self._bare = not colour and cut is int
        self._timestamps = timestamps
        self._encoding = encoding
        self._cut = cut
        self._most = cut() // 5 if narrow else max(most for _, most in _WIDTHS.values())
        widths = {head: len(head) if narrow else least for head, (least, _) in _WIDTHS.items()}
        if timestamps:
            widths["LAST SEEN"] = widths["FIRST SEEN"] = _TIMESTAMP
        self._widths = {head: width for head, width in widths.items() if head not in hidden}
        self._readers = [(head, _CELLS[head]) for head in self._widths]
        self._fit()

    def head(self) -> str:
        return self._row([(head, "head") for head in self._widths])

    def line(self, body: Mapping[str, Any]) -> str:
        """A record's row, without a line break. Control characters are escaped."""
        if is_gap(body):
            return self._styled([(self._safe(_gap(body)), "bad")])
        style_of = _NORMAL if body.get("type") == "Normal" else _WARNING
        cells = []
        for head, read in self._readers:
            value = read(body)
            text = value if type(value) is str else "" if value is None else str(value)
            if head in _TIMES:
                text = self._moment(text)
            elif not (text.isascii() and text.isprintable()):
                text = self._safe(text)
            cells.append((text, style_of[head]))
        return self._row(cells)

    def _row(self, cells: list[tuple[str, str]]) -> str:
        if self._bare:  # most rows of a pipe fit
            row = self._format % tuple([text for text, _ in cells])
            if len(row) == self._length + len(cells[-1][0]) and row.isascii():
                return row.rstrip()
        parts = []
        for head, cell in zip(self._widths, cells, strict=True):
            parts.append(cell)
            if head != "MESSAGE":
                used = display_width(cell[0])
                if used > self._widths[head]:
                    self._widths[head] = max(self._widths[head], min(used, _WIDTHS[head][1], self._most))
                parts.append((" " * (max(self._widths[head] - used, 0) + 2), ""))
        self._fit()
        return self._styled(parts)

    def _fit(self) -> None:
        """Adapt the form of a row to the widths."""
        *widths, _ = self._widths.values()
        self._format = "".join(f"%-{width}s  " for width in widths) + "%s"
        self._length = sum(widths) + 2 * len(widths)

    def _safe(self, text: str) -> str:
        return printable(text).encode(self._encoding, "backslashreplace").decode(self._encoding)

    def _styled(self, parts: list[tuple[str, str]]) -> str:
        while parts and not parts[-1][0].strip():
            parts.pop()
        limit = self._cut()
        if limit and sum(display_width(text) for text, _ in parts) > limit:
            parts = self._shortened(parts, limit)
        return "".join(
            f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._colour and style and text else text for text, style in parts
        ).rstrip()

    def _shortened(self, parts: list[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
        mark = "..." if self._safe("…") != "…" else "…"
        left, cut = limit - len(mark), []
        for text, style in parts:
            fitting = 0
            while fitting < len(text) and display_width(text[fitting]) <= left:
                left -= display_width(text[fitting])
                fitting += 1
            cut.append((text[:fitting], style))
            if fitting < len(text):
                break
        return [*cut, (mark, "dim")]

    def _moment(self, text: str) -> str:
        if self._timestamps and _WHOLE_SECONDS.fullmatch(text):
            return text
        text = self._safe(text)
        try:
            found = parse_time(text)
            return format_time(found) if self._timestamps else format_age(int(time.time()) - found // SECOND)
        except (ValueError, OverflowError):
            return text or "<unknown>"


def display_width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 2 if east_asian_width(each) in "WF" else 1 for each in text)


def _gap(body: Mapping[str, Any]) -> str:
    scope, begin, end, why = (value_at(body, "kevents", "gap", key) for key in ("scope", "from", "until", "why"))
    where = f" in {scope}" if scope else ""
    return f"gap: events{where} between {begin or '?'} and {end or '?'} may be missing ({why or 'unknown'})"


def _object(body: Mapping[str, Any]) -> str:
    kind, name = value_at(body, "involvedObject", "kind"), value_at(body, "involvedObject", "name")
    return f"{str(kind or '').lower()}/{name or ''}"


def _source(body: Mapping[str, Any]) -> str:
    reporter = value_at(body, "source", "component") or body.get("reportingComponent") or ""
    host = value_at(body, "source", "host") or body.get("reportingInstance") or ""
    return f"{reporter}, {host}" if host else str(reporter)


_CELLS: Final[Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "NAMESPACE": lambda body: value_at(body, "metadata", "namespace") or value_at(body, "involvedObject", "namespace"),
    "LAST SEEN": lambda body: value_at(body, "kevents", "time") or time_of(dict(body)),
    "TYPE": lambda body: body.get("type"),
    "REASON": lambda body: body.get("reason"),
    "OBJECT": _object,
    "SUBOBJECT": lambda body: value_at(body, "involvedObject", "fieldPath"),
    "SOURCE": _source,
    "FIRST SEEN": lambda body: body.get("firstTimestamp") or body.get("eventTime"),
    "COUNT": lambda body: value_at(body, "series", "count") or body.get("count"),
    "NAME": lambda body: value_at(body, "metadata", "name"),
    "MESSAGE": lambda body: str(body.get("message") or "").strip(),
}
_NORMAL: Final = {**dict.fromkeys(_CELLS, ""), "OBJECT": "about", "LAST SEEN": "dim", "FIRST SEEN": "dim"}
_WARNING: Final = {**_NORMAL, "TYPE": "warning", "REASON": "warning"}
_TIMES: Final = ("LAST SEEN", "FIRST SEEN")
_WHOLE_SECONDS: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


def tail(streams: Sequence[EventStream], wanted: Router, show: Callable[[Record], None]) -> None:
    """Show records as they arrive, until interrupted. Raises the error of a stream, and BrokenPipeError."""
    queue, failures = BoundedQueue(), list[BaseException]()
    threads = [
        threading.Thread(target=_read, args=(each, queue, failures), name="kevents-tail", daemon=True)
        for each in streams
    ]
    for thread in threads:
        thread.start()
    try:
        while True:
            try:
                chunk = queue.get(_POLL)  # Ctrl-C just before the wait is noticed only at its end
            except TimeoutError:
                continue
            if chunk is None:  # one of the streams has failed
                raise failures[0]
            for record in chunk.records:
                if wanted.targets(record):
                    show(record)
    finally:
        for stream in streams:
            stream.stop()
        queue.abandon()
        for thread in threads:
            thread.join(_JOIN_TIMEOUT)


def _read(stream: EventStream, queue: BoundedQueue, failures: list[BaseException]) -> None:
    try:
        for chunk in stream.read(None):
            if not queue.put(chunk):
                return
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        failures.append(error)
        queue.close()


def as_json(stream: BinaryIO) -> Callable[[Mapping[str, Any]], object]:
    """Write each value as a JSON line in UTF-8, whatever the terminal's encoding is."""
    encode = msgspec.json.Encoder().encode
    return lambda value: stream.write(safe_json(encode(value)) + b"\n")


def flushed(stream: IO[Any], write: Callable[[Mapping[str, Any]], object]) -> Callable[[Record], None]:
    """Return a function that writes a record, and flushes the stream."""

    def show(record: Record) -> None:
        write(record.body)
        stream.flush()

    return show


def safe_json(line: bytes) -> bytes:
    """Escape the characters of a JSON line that a terminal may obey: C1 controls, bidirectional overrides and DEL."""
    if line.isascii() and b"\x7f" not in line:
        return line  # the encoder escapes the other controls
    text = line.decode("utf-8", "replace")
    if text.isprintable():
        return line
    return (
        "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)
        .replace("\x7f", "\\u007f")
        .encode()
    )


def as_lines(
    stream: TextIO, line: Callable[[Mapping[str, Any]], str], head: str = ""
) -> Callable[[Mapping[str, Any]], object]:
    """Write each record as a line; above the first, the header."""
    heads = chain([f"{head}\n"] if head else [], repeat(""))
    return lambda body: stream.write(f"{next(heads)}{line(body)}\n")


def name_of(body: Mapping[str, Any]) -> str:
    """The name of an event as ``kubectl get events -o name`` writes it."""
    return printable(f"event/{value_at(body, 'metadata', 'name') or ''}")
