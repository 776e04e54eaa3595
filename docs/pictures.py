"""Draws the diagrams of the pages: ``python docs/pictures.py`` writes them into ``docs/_static``, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = Path(__file__).parent / "_static"
WIDTH: Final = 520
MIDDLE: Final = 180
HALF: Final = 156
HIGH: Final = 52
COLOURS: Final = {
    "light": {
        "lane": "#f4f6fa",
        "lane-edge": "#d8deea",
        "box": "#ffffff",
        "edge": "#3b6fd4",
        "text": "#1b2333",
        "soft": "#59647a",
        "loss": "#b3400f",
    },
    "dark": {
        "lane": "#1c212b",
        "lane-edge": "#343c4c",
        "box": "#262d3a",
        "edge": "#7fa8ff",
        "text": "#e8ecf4",
        "soft": "#a7b1c4",
        "loss": "#ff9d6e",
    },
}


class Lane(NamedTuple):
    """A strip with a title: a thread, a state, or the cluster."""

    title: str
    top: int
    height: int


class Box(NamedTuple):
    """A step, and the reasons why an event can end there."""

    top: int
    title: str
    text: str
    losses: tuple[str, ...] = ()
    mark: str = "dropped as"


class Arrow(NamedTuple):
    """The path from one step down to the next."""

    start: int
    end: int
    text: str = ""


class Back(NamedTuple):
    """A dashed path back up to the step above, with lines of text."""

    start: int
    end: int
    text: tuple[str, ...]


class Around(NamedTuple):
    """A dashed path back up to an earlier step, left of the boxes, with a text below that step."""

    start: int
    end: int
    text: str


class Picture(NamedTuple):
    """One diagram."""

    title: str
    lanes: tuple[Lane, ...]
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    backs: tuple[Back, ...] = ()
    around: tuple[Around, ...] = ()


PICTURES: Final = {
    "an-events-way": Picture(
        "From a call to the API server: the caller's thread, a queue, the correlator, the work queue, one request",
        (
            Lane("the caller's thread", 8, 178),
            Lane("one worker thread for each watcher", 202, 206),
            Lane("up to four sender threads for each sink", 424, 206),
            Lane("the cluster", 646, 92),
        ),
        (
            Box(40, 'recorder.event(pod, "Warning", …)', "the object becomes a reference"),
            Box(118, "publish", "a serial number, then it returns", ("invalid_reference", "invalid_type …")),
            Box(234, "queue of the watcher", "10,000 events", ("queue_full",)),
            Box(338, "correlator", "same? similar? too many?", ("spam_filtered",)),
            Box(456, "work queue", "one item for each Event object", ("backlog_full", "expired")),
            Box(560, "one attempt", "create or patch", ("rejected", "retries_exhausted")),
            Box(676, "API server", "one Event, with a count"),
        ),
        (
            Arrow(92, 118),
            Arrow(170, 234),
            Arrow(286, 338, "after 5 ms: all pending events"),
            Arrow(390, 456, "a write"),
            Arrow(508, 560),
            Arrow(612, 676, "one request"),
        ),
        (Back(560, 508, ("no answer: wait",)),),
    ),
    "outage": Picture(
        "The circuit breaker: requests, no answers, pauses and probes, until the server answers again",
        (
            Lane("server_available is True", 8, 124),
            Lane("server_available is False", 148, 252),
        ),
        (
            Box(56, "closed", "up to four requests at a time"),
            Box(196, "open", "events wait, no requests", ("backlog_full", "expired")),
            Box(322, "half-open", "one request: a probe"),
        ),
        (
            Arrow(108, 196, "4 events got no answer"),
            Arrow(248, 322, "after 25 ms … sleep_duration"),
        ),
        (Back(322, 248, ("no answer",)),),
        (Around(348, 82, "any answer"),),
    ),
    "export": Picture(
        "Events of a cluster are read by list and watch, enriched, routed, and written to each destination in batches",
        (
            Lane("the cluster", 8, 92),
            Lane("two threads for each stream", 116, 310),
            Lane("one thread for each destination", 442, 238),
            Lane("outside", 696, 92),
        ),
        (
            Box(38, "API server", "keeps an event for an hour"),
            Box(154, "source", "sorted by resource version", ("a gap record",), "after a long pause"),
            Box(258, "enricher", "labels, owners, services"),
            Box(358, "routes", "which destinations?", ("unrouted",), "no match"),
            Box(474, "batch", "1,000 records, 5 MiB or 10 s", ("lost",), 'when_full = "drop"'),
            Box(578, "write", "again until it is acknowledged", ("dead letters",), "refused"),
            Box(726, "destination", "stores the data"),
        ),
        (
            Arrow(90, 154, "list and watch"),
            Arrow(206, 258, "500 records"),
            Arrow(310, 358),
            Arrow(410, 474, "5,000 records"),
            Arrow(526, 578),
            Arrow(630, 726),
        ),
        (Back(726, 630, ("acknowledged:", "save the position")),),
    ),
}


def text(x: float, y: float, words: str, style: str, anchor: str = "middle") -> str:
    """Return a line of text."""
    escaped = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:g}" y="{y:g}" class="{style}" text-anchor="{anchor}">{escaped}</text>'


def lane(item: Lane) -> list[str]:
    """Return a strip with its title."""
    frame = f'<rect x="8" y="{item.top}" width="{WIDTH - 16}" height="{item.height}" rx="10" class="lane"/>'
    return [frame, text(WIDTH - 22, item.top + 21, item.title, "soft", "end")]


def box(item: Box) -> list[str]:
    """Return a step with its exits."""
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


def arrow(item: Arrow) -> list[str]:
    """Return the path from one step to the next."""
    lines = [f'<path d="M{MIDDLE} {item.start} V{item.end - 3}" class="way" marker-end="url(#way)"/>']
    return lines + ([text(MIDDLE + 12, item.end - 14, item.text, "soft", "start")] if item.text else [])


def back(item: Back) -> list[str]:
    """Return a dashed path back to the step above."""
    x = MIDDLE - HALF + 22
    path = f'<path d="M{x} {item.start} V{item.end + 3}" class="way" stroke-dasharray="4 3" marker-end="url(#way)"/>'
    return [path, *(text(x + 10, item.end + 30 + 16 * n, line, "soft", "start") for n, line in enumerate(item.text))]


def around(item: Around) -> list[str]:
    """Return a dashed path back to an earlier step."""
    x = MIDDLE - HALF
    way = f"M{x} {item.start} H{x - 9} V{item.end} H{x - 3}"
    path = f'<path d="{way}" class="way" stroke-dasharray="4 3" marker-end="url(#way)"/>'
    return [path, text(x, item.end + HIGH / 2 + 16, item.text, "soft", "start")]


def style(colours: dict[str, str]) -> str:
    """Return the style sheet."""
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
    """Return the head of an arrow."""
    head = f'<path d="M0 0 L8 4 L0 8 z" fill="{colour}"/>'
    return f'<marker id="{name}" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">{head}</marker>'


def draw(name: str, theme: str) -> str:
    """Return a diagram in the colours of a theme."""
    picture, colours = PICTURES[name], COLOURS[theme]
    height = picture.lanes[-1].top + picture.lanes[-1].height + 8
    heads = marker("way", colours["edge"]) + marker("out", colours["loss"])
    parts = [line for item in picture.lanes for line in lane(item)]
    parts += [line for item in picture.arrows for line in arrow(item)]
    parts += [line for item in picture.backs for line in back(item)]
    parts += [line for item in picture.around for line in around(item)]
    parts += [line for item in picture.boxes for line in box(item)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{picture.title}</title><style>{style(colours)}</style><defs>{heads}</defs>",
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    for name in PICTURES:
        for theme in COLOURS:
            (FOLDER / f"{name}-{theme}.svg").write_text(draw(name, theme), encoding="utf-8")
