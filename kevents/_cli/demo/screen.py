"""How the demonstration looks while it runs: redrawn in place on a terminal, or appended line by line."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from kevents._cli.demo.paper import Events, Line, Paper, by_creation, table
from kevents._cli.demo.story import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

_FRAME: Final = 0.1
_SMALL: Final = 22
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"


class Screen(Protocol):
    """Shows how the story goes."""

    def open(self, title: Line, stages: Sequence[Stage]) -> None:
        """Begin."""

    def begin(self, stage: Stage) -> None:
        """A stage begins."""

    def pause(self, seconds: float) -> None:
        """Let time pass."""

    def finish(self, stage: Stage, *, good: bool) -> None:
        """A stage has ended, with what it should come to or not."""

    def note(self, text: str) -> None:
        """Show what kevents has logged."""

    def close(self) -> None:
        """End."""


class PlainScreen:
    """Appends lines: for pipes, files, and whoever asks for it.

    Args:
        paper: Where to.
        events: Gives what the server holds.
    """

    def __init__(self, paper: Paper, events: Callable[[], Events]) -> None:
        """Show nothing yet."""
        self._paper = paper
        self._events = events
        self._seen: dict[str, int] = {}
        self._notes: list[str] = []
        self._number = 0

    def open(self, title: Line, stages: Sequence[Stage]) -> None:  # noqa: ARG002
        """Write the title."""
        caption = "The tables are those of 'kubectl get events', with the COUNT of '-o wide'; only changed rows."
        self._paper.write(title, *self._paper.paragraph(caption, 0, "dim"))

    def begin(self, stage: Stage) -> None:
        """Write what happens."""
        self._number += 1
        says = self._paper.paragraph(stage.says, 3)
        go = self._paper.paragraph(f"client-go: {stage.client_go}", 3, "dim")
        self._paper.write([], [(f"{self._number}. {stage.title}", "head")], *says, *go)

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def finish(self, stage: Stage, *, good: bool) -> None:
        """Write the rows that have changed, and what kevents has logged."""
        events = sorted(self._events(), key=by_creation)
        changed = [event for event in events if self._seen.get(event["metadata"]["name"]) != event["count"]]
        self._seen = {event["metadata"]["name"]: event["count"] for event in events}
        rows = [[("   ", ""), *line] for line in table(changed, time.time_ns())] if changed else []
        notes = [line for text in self._notes for line in self._paper.paragraph(f"log: {text}", 8, "dim", "   ")]
        self._notes.clear()
        mark = self._paper.good if good else self._paper.bad
        verdict: Line = [(f"   {mark} {stage.result}", "good" if good else "bad")]
        self._paper.write([], *rows, *([[]] if rows else []), *notes, verdict)

    def note(self, text: str) -> None:
        """Keep it for the end of the stage."""
        self._notes.append(text)

    def close(self) -> None:
        """There is nothing to be undone."""


class LiveScreen:
    """Redraws stages and table in place, on a terminal.

    Args:
        paper: Where to.
        events: Gives what the server holds.
    """

    def __init__(self, paper: Paper, events: Callable[[], Events]) -> None:
        """Show nothing yet."""
        self._paper = paper
        self._events = events
        self._title: Line = []
        self._stages: Sequence[Stage] = ()
        self._marks: list[bool | None] = []
        self._counts: dict[str, int] = {}
        self._changes: dict[str, int] = {}
        self._began = self._frames = 0
        self._note = ""
        self._drawn = 0
        self._ended = False

    def open(self, title: Line, stages: Sequence[Stage]) -> None:
        """Hide the cursor, and draw."""
        self._title, self._stages = title, stages
        self._paper.stream.write(_HIDE)
        self._draw()

    def begin(self, stage: Stage) -> None:  # noqa: ARG002 - the next one
        """Show it as the present one."""
        self._marks.append(None)
        self._began = self._frames

    def pause(self, seconds: float) -> None:
        """Draw as long as time passes."""
        end = time.monotonic() + seconds
        while True:
            self._draw()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _FRAME))

    def finish(self, stage: Stage, *, good: bool) -> None:  # noqa: ARG002 - the present one
        """Show what it came to."""
        self._marks[-1] = good
        self._draw()

    def note(self, text: str) -> None:
        """Show it at the bottom."""
        self._note = text

    def close(self) -> None:
        """Draw for the last time, and show the cursor again."""
        self._ended = True
        if self._drawn:
            self._draw()
        self._paper.stream.write(_SHOW)
        self._paper.stream.flush()

    def _draw(self) -> None:
        columns, rows = shutil.get_terminal_size()
        lines = self._frame(rows - 1)
        texts = [self._paper.text(self._paper.fitted(line, columns - 1)) for line in lines]
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self._paper.stream.write(up + "".join(f"{text}\x1b[K\n" for text in texts) + "\x1b[J")
        self._paper.stream.flush()
        self._drawn = len(texts)

    def _frame(self, height: int) -> list[Line]:
        self._frames += 1
        head: list[Line] = [self._title, [], *(self._stage_line(n, s) for n, s in enumerate(self._stages)), []]
        head += self._explanation(height - _SMALL)
        foot: list[Line] = [[], [("log: " + self._note, "dim")]] if self._note else []
        events = self._ordered()
        room = max(height - len(head) - len(foot) - 1, 3)
        if len(events) > room:
            room -= 1  # for the line that says so
            foot = [[(f"{self._paper.more} and {len(events) - room} more", "dim")], *foot]
        changed = [name for name, frame in self._changes.items() if frame >= self._began]
        return head + table(self._latest(events, room), time.time_ns(), changed) + foot

    def _explanation(self, room: int) -> list[Line]:
        """What happens now, if there is room for it in every stage: the table must not jump."""
        if self._ended or not self._marks:
            return []
        texts = [
            self._paper.paragraph(f"{stage.says} client-go: {stage.client_go}", 1, "dim") for stage in self._stages
        ]
        lines = max(map(len, texts))
        now = texts[len(self._marks) - 1]
        return [*now, *([[]] * (lines - len(now))), []] if lines < room else []

    def _stage_line(self, number: int, stage: Stage) -> Line:
        good = self._marks[number] if number < len(self._marks) else None
        if number >= len(self._marks):
            return [(f" {self._paper.later} {number + 1}. {stage.title}", "dim")]
        title = f"{number + 1}. {stage.title}"
        if good is None:
            return [(f" {self._paper.now} ", "head"), (title, "bold")]
        mark = (f" {self._paper.good} ", "good") if good else (f" {self._paper.bad} ", "bad")
        return [mark, (title.ljust(36), ""), (stage.result, "good" if good else "bad")]

    def _ordered(self) -> Events:
        events = sorted(self._events(), key=by_creation)
        for event in events:
            name, count = event["metadata"]["name"], event["count"]
            if self._counts.get(name) != count:
                self._counts[name] = count
                self._changes[name] = self._frames
        return events

    def _latest(self, events: Events, room: int) -> Events:
        """As many as there is room for, those that changed last."""
        if len(events) <= room:
            return events
        newest = sorted(events, key=lambda event: (self._changes[event["metadata"]["name"]], by_creation(event)))
        kept = {event["metadata"]["name"] for event in newest[-room:]}
        return [event for event in events if event["metadata"]["name"] in kept]
