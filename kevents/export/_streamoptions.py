"""How a stream is followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kevents.export._repeats import Repeats

Start = Literal["resume", "now", "all"]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream is followed.

    Attributes:
        start: From the mark (`resume`), from the present (`now`), or from what there is (`all`).
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
