"""Draws *an event's way*: ``python docs/picture.py`` writes it into ``docs/_static``, for light and for dark pages."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).parent / "_static"
WIDTH: Final = 520
MIDDLE: Final = 180
COLOURS: Final = {
    "light": {
        "lane": "#f4f6fa",
        "lane-edge": "#d8deea",
        "box": "#ffffff",
        "edge": "#3b6fd4",
        "text": "#1b2333",
        "soft": "#59647a",
        "loss": "#b3400f",
        "good": "#1f7a3f",
    },
    "dark": {
        "lane": "#1c212b",
        "lane-edge": "#343c4c",
        "box": "#262d3a",
        "edge": "#7fa8ff",
        "text": "#e8ecf4",
        "soft": "#a7b1c4",
        "loss": "#ff9d6e",
        "good": "#7bd695",
    },
}


class Lane(NamedTuple):
    """A strip of the picture: who does what is in it."""

    title: str
    top: int
    height: int


class Box(NamedTuple):
    """A step of the way, and the losses that are counted there."""

    top: int
    title: str
    text: str
    losses: tuple[str, ...] = ()
    mark: str = "dropped as"


LANES: Final = (
    Lane("the caller's thread", 8, 178),
    Lane("one worker thread for each watcher", 202, 206),
    Lane("up to four sender threads for each sink", 424, 206),
    Lane("the cluster", 646, 92),
)
BOXES: Final = (
    Box(40, 'recorder.event(pod, "Warning", …)', "the object becomes a reference"),
    Box(118, "publish", "a serial number; then it returns", ("invalid_reference", "invalid_type …"), "refused as"),
    Box(234, "mailbox", "10,000 events; never waited for", ("queue_full",)),
    Box(338, "correlator", "same? similar? too much?", ("spam_filtered",)),
    Box(456, "work queue", "an item for each API object; states merge", ("backlog_full", "expired")),
    Box(560, "one attempt", "create or patch; six outcomes", ("rejected", "retries_exhausted")),
    Box(676, "API server", "one Event, with a count"),
)
HIGH: Final = 52
HALF: Final = 156
ARROWS: Final = (
    (92, 118, ""),
    (170, 234, ""),
    (286, 338, "after 5 ms: all there is"),
    (390, 456, "a write"),
    (508, 560, ""),
    (612, 676, "one request"),
)


def text(x: float, y: float, words: str, style: str, anchor: str = "middle") -> str:
    """A line of text."""
    escaped = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escaped}</text>'


def lane(item: Lane) -> list[str]:
    """A strip with its title."""
    frame = f'<rect x="8" y="{item.top}" width="{WIDTH - 16}" height="{item.height}" rx="10" class="lane"/>'
    return [frame, text(WIDTH - 22, item.top + 21, item.title, "soft", "end")]


def box(item: Box) -> list[str]:
    """A step, with the ways out of it."""
    left, lines = MIDDLE - HALF, []
    lines.append(f'<rect x="{left}" y="{item.top}" width="{2 * HALF}" height="{HIGH}" rx="8" class="box"/>')
    lines.append(text(MIDDLE, item.top + 22, item.title, "title"))
    lines.append(text(MIDDLE, item.top + 41, item.text, "small"))
    if item.losses:
        right, y = MIDDLE + HALF, item.top + HIGH / 2
        lines.append(f'<path d="M{right} {y:g} H{right + 16}" class="out" marker-end="url(#out)"/>')
        first = y + 4 - 8 * len(item.losses)
        lines.append(text(right + 26, first, item.mark, "soft", "start"))
        lines += [text(right + 26, first + 16 * (n + 1), loss, "loss", "start") for n, loss in enumerate(item.losses)]
    return lines


def arrow(start: int, end: int, words: str) -> list[str]:
    """The way from one step to the next."""
    lines = [f'<path d="M{MIDDLE} {start} V{end - 3}" class="way" marker-end="url(#way)"/>']
    return lines + ([text(MIDDLE + 12, start + 21, words, "soft", "start")] if words else [])


def back() -> list[str]:
    """From an attempt without an answer back into the queue."""
    left = MIDDLE - HALF
    way = f"M{left + 22} 560 V511"
    return [
        f'<path d="{way}" class="way" stroke-dasharray="4 3" marker-end="url(#way)"/>',
        text(left + 32, 539, "no answer: waits", "soft", "start"),
    ]


def style(colours: dict[str, str]) -> str:
    """How it looks."""
    return (
        "text{font:13px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif}"
        f".title{{font:600 14px ui-monospace,'DejaVu Sans Mono',monospace;fill:{colours['text']}}}"
        f".small{{fill:{colours['text']}}}.soft{{fill:{colours['soft']};font-size:12px}}"
        f".loss{{font:12px ui-monospace,'DejaVu Sans Mono',monospace;fill:{colours['loss']}}}"
        f".lane{{fill:{colours['lane']};stroke:{colours['lane-edge']}}}"
        f".box{{fill:{colours['box']};stroke:{colours['edge']};stroke-width:1.5}}"
        f".way{{fill:none;stroke:{colours['edge']};stroke-width:1.8}}"
        f".out{{fill:none;stroke:{colours['loss']};stroke-width:1.5}}"
    )


def marker(name: str, colour: str) -> str:
    """The head of an arrow."""
    head = f'<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/>'
    return f'<marker id="{name}" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">{head}</marker>'


def draw(theme: str) -> str:
    """The picture in the colours of a theme."""
    colours = COLOURS[theme]
    height = LANES[-1].top + LANES[-1].height + 8
    heads = marker("way", colours["edge"]) + marker("out", colours["loss"])
    parts = [line for item in LANES for line in lane(item)]
    parts += [line for item in ARROWS for line in arrow(*item)]
    parts += back()
    parts += [line for item in BOXES for line in box(item)]
    title = "From a call to the API server: caller's thread, mailbox, correlator, work queue, one attempt at a time"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{title}</title><style>{style(colours)}</style><defs>{heads}</defs>",
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    for theme in COLOURS:
        (FOLDER / f"an-events-way-{theme}.svg").write_text(draw(theme), encoding="utf-8")
