"""Records as lines for people: the columns of ``kubectl get events``, in colours, one record a line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Final, TextIO

from kevents._model.wire import parse_time, printable
from kevents.export._model.record import time_of
from kevents.export._route.routes import is_gap

_STYLES: Final = {"dim": "2", "warning": "33", "about": "36", "head": "2", "bad": "1;31"}
_HEADS: Final = ("LAST SEEN", "NAMESPACE", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE")
_NARROWEST: Final = (9, 10, 7, 16, 24, 5, 0)
_WIDEST: Final = (20, 24, 8, 24, 48, 6, 0)
_NANO: Final = 1_000_000_000


def colourful(stream: TextIO) -> bool:
    """Whether a stream is to be given colours: a terminal that knows them, and nobody has said NO_COLOR."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Columns:
    """Gives records as lines; a column grows with what it has shown, up to a width of its own.

    Args:
        colour: Whether to use colours.
        namespaces: Whether there is a column of namespaces.
        dates: Whether times have their date, in UTC; without it they are hours and minutes of the local clock.
        encoding: What the lines are to be written in: what it does not know is escaped.
    """

    def __init__(self, *, colour: bool, namespaces: bool = True, dates: bool = False, encoding: str = "utf-8") -> None:
        """Begin with widths that most fit in."""
        self._colour = colour
        self._dates = dates
        self._encoding = encoding
        self._shown = [column for column, head in enumerate(_HEADS) if namespaces or head != "NAMESPACE"]
        self._widths = list(_NARROWEST)
        if dates:
            self._widths[0] = _WIDEST[0]

    def head(self) -> str:
        """Give the line of heads."""
        return self._line(_HEADS, dict.fromkeys(_HEADS, "head"))

    def line(self, body: Mapping[str, Any]) -> str:
        """Give a record's line, without its end; control characters in it are escaped."""
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

    def _gap(self, word: Mapping[str, Any]) -> str:
        gap = _table(word.get("gap"))
        where = f" in {gap['scope']}" if gap.get("scope") else ""
        return (
            f"gap: events{where} between {gap.get('from', '?')} and {gap.get('until', '?')} may be missing "
            f"({gap.get('why', 'unknown')})"
        )


def _table(value: object) -> dict[str, Any]:
    """A table, whatever a file holds in its place."""
    return value if isinstance(value, dict) else {}
