"""How the demonstration writes: lines in colours, paragraphs, and the table of events."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from kevents._cli.demo.story import object_of
from kevents._model.wire import parse_time, printable

Span = tuple[str, str]
Line = list[Span]
Events = list[dict[str, Any]]

_STYLES: Final = {
    "bold": "1",
    "dim": "2",
    "good": "32",
    "bad": "1;31",
    "warning": "33",
    "head": "1;36",
    "changed": "1",
}
_HEAD: Final = ("LAST SEEN", "COUNT", "TYPE", "REASON", "OBJECT", "MESSAGE")
_NANO: Final = 1_000_000_000


class Paper:
    """Writes lines, with or without colours, in characters that the stream can take.

    Args:
        stream: Where to.
        colour: Whether to use colours.
        width: How wide paragraphs are; None for the width of the terminal.
    """

    def __init__(self, stream: TextIO, *, colour: bool, width: int | None = None) -> None:
        """Write nothing yet."""
        self.stream = stream
        self.colour = colour
        self._width = width
        self._encoding = getattr(stream, "encoding", None) or "ascii"
        self.good, self.bad, self.now, self.later, self.more = self._marks()

    def _marks(self) -> tuple[str, str, str, str, str]:
        marks = ("✓", "✗", "▸", "·", "…")
        try:
            "".join(marks).encode(self._encoding)
        except UnicodeError:
            return "+", "x", ">", ".", "..."
        return marks

    @property
    def width(self) -> int:
        """How wide paragraphs are."""
        return self._width or min(shutil.get_terminal_size().columns - 1, 110)

    def text(self, line: Line) -> str:
        """A line as it goes out."""
        parts = []
        for text, style in line:
            safe = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
            code = _STYLES.get(style) if self.colour else None
            parts.append(f"\x1b[{code}m{safe}\x1b[0m" if code else safe)
        return "".join(parts)

    def write(self, *lines: Line) -> None:
        """Write lines."""
        self.stream.write("".join(f"{self.text(line).rstrip()}\n" for line in lines))
        self.stream.flush()

    def paragraph(self, text: str, indent: int = 0, style: str = "", first: str | None = None) -> list[Line]:
        """A text in lines of the width, with an indent."""
        pad = " " * indent
        wrapped = textwrap.wrap(text, self.width, initial_indent=pad if first is None else first, subsequent_indent=pad)
        return [[(line, style)] for line in wrapped]

    def fitted(self, line: Line, width: int) -> Line:
        """A line cut to a width, with a mark where anything was cut."""
        if sum(len(text) for text, _ in line) <= width:
            return line
        left, cut = width - len(self.more), []
        for text, style in line:
            cut.append((text[:left], style))
            left -= len(text)
            if left <= 0:
                break
        return [*cut, (self.more, "dim")]


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can redraw."""
    ancient = os.name == "nt" and not os.environ.get("WT_SESSION")
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not ancient


def table(events: Events, now: int, changed: Iterable[str] = ()) -> list[Line]:
    """Events as ``kubectl get events`` prints them, with the column COUNT of its wide output.

    Args:
        events: As the API server holds them, in the order in which they are to be shown.
        now: Nanoseconds since the epoch.
        changed: The names of those to be shown in bold.
    """
    bold = set(changed)
    rows = [_cells(event, now) for event in events]
    widths = [max(len(cells[column]) for cells in (_HEAD, *rows)) for column in range(len(_HEAD))]
    lines: list[Line] = [[(_padded(_HEAD, widths), "dim")]]
    for event, cells in zip(events, rows, strict=True):
        seen, count, *middle, reason, about, message = (
            cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=True)
        )
        lit = "changed" if event["metadata"]["name"] in bold else ""
        kind = "warning" if event["type"] == "Warning" else ""
        lines.append([(seen, ""), (count, lit), (middle[0], kind), (reason, lit), (about, ""), (message.rstrip(), lit)])
    return lines


def _cells(event: dict[str, Any], now: int) -> tuple[str, ...]:
    seconds = max(now - parse_time(event["lastTimestamp"]), 0) // _NANO
    texts = (event["type"], event["reason"], object_of(event), event["message"].strip())
    return (f"{seconds}s", str(event["count"]), *map(printable, texts))


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=True)).rstrip()


def by_creation(event: dict[str, Any]) -> tuple[str, str]:
    """The order in which events are shown: as they were first written."""
    name = str(event["metadata"]["name"])
    return name.rpartition(".")[2], name
