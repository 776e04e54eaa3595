"""How a stream is followed."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from kevents.export._model.text import duration, shown
from kevents.export._source.repeats import Repeats

Start = Literal["resume", "now", "all"]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream is followed.

    Attributes:
        start: From the position (`resume`), from the present (`now`), or from what there is (`all`).
        repeats: What becomes of an event's further revisions.
        cluster_name: What the cluster is called in the records.
        event_life: For how many seconds the server keeps an event after its last write.
        page: How many events to a page of a list.
        backlog: How many bytes of a backlog are kept in memory.
        watch: After how many seconds a watch is to end and begin again.
        retry: How many seconds the first wait after a failure takes at most, and how many any does.
        clock: The wall clock, in nanoseconds.
    """

    start: Start
    repeats: Repeats
    cluster_name: str
    event_life: float
    page: int
    backlog: int
    watch: int
    retry: tuple[float, float]
    clock: Callable[[], int]


def parse_repeats(value: str | float, event_life: float) -> Repeats:
    """Read the option `repeats`.

    Args:
        value: `all`, `first`, or a window: a text such as `30s` or `1m30s`, or a number of seconds.
        event_life: For how many seconds the server keeps an event. Nothing in a window is marked as read, so a window
            takes half of that at most: a process that is killed at its end has the other half to read it again.

    Raises:
        ValueError: It is none of these, or the window is longer.
    """
    if value == "all":
        return Repeats()
    if value == "first":
        return Repeats(first_only=True)
    seconds = _seconds(value)
    if not 0 < seconds < math.inf:
        raise ValueError(f'repeats must be "all", "first" or a window such as "30s", not {shown(value)}')
    if seconds > event_life / 2:
        longest = f"half of event_life, {event_life / 2:g} s"
        raise ValueError(f"repeats must be no window longer than {longest}, not {shown(value)}: it must not expire")
    return Repeats(window=seconds)


def _seconds(value: object) -> float:
    """How long a window is; 0 if that is none."""
    if isinstance(value, str):
        with suppress(ValueError):
            return duration(value)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
