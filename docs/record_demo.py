"""Records ``kevents demo`` in its own terminal, and writes an animated picture: ``docs/_static/demo.svg``.

    python -m pip install -e ".[docs]" && python docs/record_demo.py

It shows the frames of a terminal of 104 columns, with their times.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import pyte

TARGET: Final = Path(__file__).parent / "_static" / "demo.svg"
COLUMNS: Final = 104
ROWS: Final = 40
WIDE, HIGH = 7.8, 17.0  # of a character, in pixels
MARGIN: Final = 16
SHORTEST: Final = 0.35  # seconds between two pictures
HOLD: Final = 9.0  # seconds for the last one
COLOURS: Final = {
    "default": "#d6dbe5",
    "green": "#7bd695",
    "red": "#ff8f7a",
    "brown": "#e8c46a",
    "yellow": "#e8c46a",
    "cyan": "#7cc7ff",
}
TITLE: Final = "kevents demo: a sample operator records events, an API server fails, and all checks hold"
BACKGROUND: Final = "#141a24"
FONT: Final = "13px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"
DIM, ITALICS = 2, 3  # ANSI codes

Row = tuple[tuple[int, str, str, bool, bool], ...]
Picture = tuple[Row, ...]


class DimScreen(pyte.Screen):
    """A screen that keeps dim text, which pyte ignores, as italics, which the demonstration does not use."""

    def select_graphic_rendition(self, *attributes: int) -> None:
        """Replace dim by italics."""
        super().select_graphic_rendition(*(ITALICS if code == DIM else code for code in attributes))


def frames(command: list[str]) -> Iterator[tuple[float, bytes]]:
    """Run a command in a terminal, and yield its output with the time in seconds."""
    child, terminal = pty.fork()
    if child == 0:
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        environment.pop("NO_COLOR", None)
        os.execvpe(command[0], command, environment)  # noqa: S606 - the interpreter that runs this script
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    began = time.monotonic()
    while select.select([terminal], [], [], 60)[0]:
        try:
            written = os.read(terminal, 65536)
        except OSError:  # the other end is closed: the command has ended
            break
        yield time.monotonic() - began, written
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        sys.exit(f"{' '.join(command)} ended with {status}")


def seen(screen: pyte.Screen) -> Picture:
    """The rows of the screen, each as runs of one style."""
    rows = []
    for number in range(ROWS):
        runs: list[tuple[int, str, str, bool, bool]] = []
        for column in range(COLUMNS):
            cell = screen.buffer[number][column]
            style = (cell.fg, cell.bold, cell.italics)
            if runs and runs[-1][2:] == style:
                runs[-1] = (runs[-1][0], runs[-1][1] + cell.data, *style)
            else:
                runs.append((column, cell.data, *style))
        rows.append(tuple(run for run in runs if run[1].strip()))
    return tuple(rows)


def record(command: list[str]) -> list[tuple[float, Picture]]:
    """Record a command: different pictures, each with its time in seconds."""
    screen = DimScreen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    found: list[tuple[float, Picture]] = []
    for second, written in frames(command):
        stream.feed(written)
        picture = seen(screen)
        if not found or second - found[-1][0] >= SHORTEST:
            if not found or picture != found[-1][1]:
                found.append((second, picture))
        elif len(found) > 1:
            found[-1] = (found[-1][0], picture)
    found.append((second, seen(screen)))
    shown = [(second, picture) for second, picture in found if any(picture)]
    return [(second - shown[0][0], picture) for second, picture in shown]


def drawn(row: Row) -> str:
    """A row as text."""
    parts = []
    for column, run, colour, bold, dim in row:
        text = run.strip()
        x = MARGIN + (column + len(run) - len(run.lstrip())) * WIDE
        look = f"fill:{COLOURS[colour]};" * (colour != "default") + "font-weight:bold;" * bold + "opacity:.6" * dim
        style = f' style="{look}"' * bool(look)
        parts.append(f'<text x="{x:.1f}" textLength="{len(text) * WIDE:.1f}"{style}>{escape(text)}</text>')
    return "".join(parts)


def placed(picture: Picture, names: dict[Row, str]) -> str:
    """The rows of a picture, each at its place."""
    places = [(names[row], MARGIN + HIGH * (number + 0.8)) for number, row in enumerate(picture) if row]
    return "".join(f'<use href="#{name}" y="{y:.1f}"/>' for name, y in places)


def timed(number: int, begin: float, end: float, length: float) -> str:
    """The animation of one picture, in a film that repeats; times and length are in seconds."""
    shown = f"0%{{opacity:0}}{begin / length:.2%}{{opacity:1}}{end / length:.2%}{{opacity:{int(end == length)}}}"
    return f"@keyframes k{number}{{{shown}}}#f{number}{{animation:k{number} {length:.1f}s step-end infinite}}"


def animated(found: list[tuple[float, Picture]]) -> str:
    """The recording as SVG. With reduced motion only the last picture is shown."""
    rows = dict.fromkeys(row for _, picture in found for row in picture if row)
    names = {row: f"r{number}" for number, row in enumerate(rows)}
    times = [0.0, *(second for second, _ in found[1:]), found[-1][0] + HOLD]
    style = f"text{{font:{FONT};fill:{COLOURS['default']};white-space:pre}}.f{{opacity:0}}.last{{opacity:1}}"
    style += "".join(timed(number, times[number], times[number + 1], times[-1]) for number in range(len(found)))
    style += "@media (prefers-reduced-motion:reduce){.f{animation:none!important}}"
    kinds = ["f"] * (len(found) - 1) + ["f last"]
    films = [
        f'<g id="f{number}" class="{kinds[number]}">{placed(picture, names)}</g>'
        for number, (_, picture) in enumerate(found)
    ]
    high = max(number for _, picture in found for number, row in enumerate(picture) if row) + 1
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {COLUMNS * WIDE + 2 * MARGIN:.0f} ',
            f'{high * HIGH + 2 * MARGIN:.0f}"><title>{TITLE}</title><style>{style}</style>',
            f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/><defs>',
            *(f'<g id="{name}">{drawn(row)}</g>' for row, name in names.items()),
            f"</defs>{''.join(films)}</svg>\n",
        ]
    )


if __name__ == "__main__":
    recorded = record([sys.executable, "-m", "kevents", "demo"])
    TARGET.write_text(animated(recorded), encoding="utf-8")
    print(f"{len(recorded)} pictures, {TARGET.stat().st_size / 1024:.0f} KiB")
