"""The output of the demonstration while it runs: redrawn in place on a terminal, or appended line by line."""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final, TextIO

from kevents._cli.demo.story import Stage, object_of
from kevents._model.wire import parse_time, printable

Line = list[tuple[str, str]]  # texts, each with its style
Events = list[dict[str, Any]]

_STYLES: Final = {"bold": "1", "dim": "2", "good": "32", "bad": "1;31", "warning": "33", "head": "1;36"}
_HEAD: Final = ("LAST SEEN", "COUNT", "TYPE", "REASON", "OBJECT", "MESSAGE")
_FRAME: Final = 0.1  # seconds
_NANO: Final = 1_000_000_000
_LEAST: Final = 22  # lines of a terminal that explanations leave to the rest


class Paper:
    """Writes styled lines, in characters that the stream's encoding has."""

    def __init__(self, stream: TextIO, *, colour: bool, width: int | None = None) -> None:
        self.stream, self._colour, self._width = stream, colour, width
        self._encoding = getattr(stream, "encoding", None) or "ascii"
        try:
            "✓✗▸·…".encode(self._encoding)
            self.good, self.bad, self.now, self.later, self.more = "✓✗▸·…"
        except UnicodeError:
            self.good, self.bad, self.now, self.later, self.more = "+", "x", ">", ".", "..."

    def text(self, line: Line, width: int | None = None) -> str:
        """Encode, style and cut a line."""
        parts, cut = [], [*line]
        if width is not None and sum(len(text) for text, _ in line) > width:
            starts = accumulate((len(text) for text, _ in line), initial=len(self.more) - width)
            cut = [(text[: max(-start, 0)], style) for (text, style), start in zip(line, starts, strict=False)]
            cut.append((self.more, "dim"))
        for text, style in cut:
            safe = text.encode(self._encoding, "backslashreplace").decode(self._encoding)
            parts.append(f"\x1b[{_STYLES[style]}m{safe}\x1b[0m" if self._colour and style in _STYLES else safe)
        return "".join(parts).rstrip()

    def write(self, *lines: Line) -> None:
        self.stream.write("".join(f"{self.text(line)}\n" for line in lines))
        self.stream.flush()

    def paragraph(self, text: str, indent: int = 0, style: str = "", first: int | None = None) -> list[Line]:
        """Wrap a text, with an indent for all lines or another for the first."""
        width = self._width or min(shutil.get_terminal_size().columns - 1, 110)
        pad = " " * indent
        begin = pad if first is None else " " * first
        return [[(line, style)] for line in textwrap.wrap(text, width, initial_indent=begin, subsequent_indent=pad)]


def is_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can be redrawn."""
    ancient = os.name == "nt" and not os.environ.get("WT_SESSION")
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not ancient


def table(events: Events, now: int) -> list[Line]:
    """Events as ``kubectl get events`` prints them, with COUNT; ``now`` is in nanoseconds since the epoch."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for event in events:
        seconds = max(now - parse_time(event["lastTimestamp"]), 0) // _NANO
        texts = (event["type"], event["reason"], object_of(event), event["message"].strip())
        rows.append((f"{seconds}s", str(event["count"]), *map(printable, texts)))
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    head, *padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines: list[Line] = [[("".join(head).rstrip(), "dim")]]
    for seen, count, kind, *rest in padded:
        lines.append([(seen + count, ""), (kind, kind.strip().lower()), ("".join(rest).rstrip(), "")])
    return lines


class PlainScreen:
    """Appends lines: for pipes, files and ``--plain``."""

    def __init__(self, paper: Paper, stored: Callable[[], Events], title: Line, stages: list[Stage]) -> None:
        self._paper, self._stored, self._title, self._stages = paper, stored, title, stages
        self._counts: dict[str, int] = {}  # by the event's name
        self._changes: dict[str, int] = {}  # number of the look at the events that found the last change
        self._looks = 0
        self._notes: list[str] = []
        self._results: list[bool | None] = []  # of the stages that have begun. None for the present one

    def begin(self, stage: Stage) -> None:
        """Write the explanations of a stage; above the first, the title."""
        if not self._results:
            caption = "The tables are those of 'kubectl get events', with the COUNT of '-o wide'; only changed rows."
            self._paper.write(self._title, *self._paper.paragraph(caption, 0, "dim"))
        self._results.append(None)
        texts = self._paper.paragraph(stage.kevents, 3)
        texts += self._paper.paragraph(f"client-go: {stage.client_go}", 3, "dim")
        self._paper.write([], [(f"{len(self._results)}. {stage.title}", "head")], *texts)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def finish(self, stage: Stage, *, good: bool) -> None:
        """Write the changed rows, the log lines and the result of a stage."""
        events = self._events()
        changed = [event for event in events if self._changes[event["metadata"]["name"]] == self._looks]
        rows = [[("   ", ""), *line] for line in table(changed, time.time_ns())] if changed else []
        notes = [line for text in self._notes for line in self._paper.paragraph(f"log: {text}", 8, "dim", 3)]
        self._notes.clear()
        result = (f"   {self._paper.good if good else self._paper.bad} {stage.result}", "good" if good else "bad")
        self._paper.write([], *rows, *([[]] if rows else []), *notes, [result])

    def note(self, text: str) -> None:
        """Show a log line with the present stage."""
        self._notes.append(text)

    def close(self) -> None:
        """End the output."""

    def _events(self) -> Events:
        """The stored events in the order of their creation, which their names end with; marks those that changed."""
        self._looks += 1
        events = sorted(self._stored(), key=lambda event: event["metadata"]["name"].rpartition(".")[::-1])
        for event in events:
            name = event["metadata"]["name"]
            if self._counts.get(name) != event["count"]:
                self._counts[name], self._changes[name] = event["count"], self._looks
        return events


class LiveScreen(PlainScreen):
    """Redraws stages and table in place, on a terminal."""

    _drawn = 0  # lines

    def begin(self, stage: Stage) -> None:  # noqa: ARG002 - the next one
        """Mark a stage as the present one."""
        self._results.append(None)

    def pause(self, seconds: float) -> None:
        """Draw until the time has passed."""
        end = time.monotonic() + seconds
        self._draw()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _FRAME))
            self._draw()

    def finish(self, stage: Stage, *, good: bool) -> None:  # noqa: ARG002 - the present one
        """Show the result of a stage."""
        self._results[-1] = good

    def close(self) -> None:
        """Draw without explanations, and show the cursor again."""
        if self._drawn:
            self._draw(ended=True)
            self._paper.stream.write("\x1b[?25h")
            self._paper.stream.flush()

    def _draw(self, *, ended: bool = False) -> None:
        columns, height = shutil.get_terminal_size()
        lines = [self._title, [], *map(self._stage_line, range(len(self._stages))), []]
        texts = [self._paper.paragraph(f"{s.kevents} client-go: {s.client_go}", 1, "dim") for s in self._stages]
        if not ended and (longest := max(map(len, texts))) < height - 1 - _LEAST:  # all have room: no table jumps
            lines += [*[*texts[len(self._results) - 1], *([[]] * longest)][:longest], []]
        foot: list[Line] = [[], [(f"log: {self._notes[-1]}", "dim")]] if self._notes else []
        events, rows = self._events(), max(height - len(lines) - len(foot) - 2, 3)
        if (left := len(events) - rows + 1) > 1:
            foot = [[(f"{self._paper.more} and {left} more", "dim")], *foot]
            newest = sorted(events, key=lambda event: self._changes[event["metadata"]["name"]])[left:]
            events = [event for event in events if event in newest]
        lines += [*table(events, time.time_ns()), *foot]
        start = f"\x1b[{self._drawn}F" if self._drawn else "\x1b[?25l"  # at the first time the cursor is hidden
        shown = "".join(f"{self._paper.text(line, columns - 1)}\x1b[K\n" for line in lines)
        self._paper.stream.write(f"{start}{shown}\x1b[J")
        self._paper.stream.flush()
        self._drawn = len(lines)

    def _stage_line(self, number: int) -> Line:
        stage, title = self._stages[number], f"{number + 1}. {self._stages[number].title}"
        if number >= len(self._results):
            return [(f" {self._paper.later} {title}", "dim")]
        if (good := self._results[number]) is None:
            return [(f" {self._paper.now} ", "head"), (title, "bold")]
        mark, style = (self._paper.good, "good") if good else (self._paper.bad, "bad")
        return [(f" {mark} ", style), (title.ljust(36), ""), (stage.result, style)]
