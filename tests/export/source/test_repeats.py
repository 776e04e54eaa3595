"""The `repeats` option: all revisions, the first only, or one for each window."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kevents.export import Chunk, Position, Record, Stream
from kevents.export._model.types import ADDED, MODIFIED, body_of, gap_record
from kevents.export._source.revision_filter import Repeats, Window, parse_repeats

STREAM = Stream("c-1")


def record(name: str, rv: int, delta: int | None = 1, verb: str = MODIFIED) -> Record:
    """Return a revision of an event."""
    event: dict[str, Any] = {"metadata": {"namespace": "prod", "name": name, "uid": name, "resourceVersion": str(rv)}}
    return Record(STREAM, rv, body_of(event, verb, delta), 0.0)


def position(rv: int) -> Position:
    """Return a position."""
    return Position(STREAM, rv, rv)


def told(chunk: Chunk | None) -> list[tuple[str, int, str, int | None]]:
    """Return name, version, verb and delta of each record of a chunk."""
    assert chunk is not None
    own = [(entry.body["metadata"]["name"], entry.rv, entry.body["kevents"]) for entry in chunk.records]
    return [(name, rv, kevents["verb"], kevents["countDelta"]) for name, rv, kevents in own]


@pytest.mark.parametrize(
    ("value", "repeats"),
    [
        ("all", Repeats()),
        ("first", Repeats(first_only=True)),
        ("30s", Repeats(window=30.0)),
        ("1.5m", Repeats(window=90.0)),
        ("500ms", Repeats(window=0.5)),
        ("1m30s", Repeats(window=90.0)),
        ("0.5h", Repeats(window=1800.0)),
        (2, Repeats(window=2.0)),
    ],
    ids=str,
)
def test_option(value: str | float, repeats: Repeats) -> None:
    """`repeats` accepts `all`, `first` and a window."""
    assert repeats == parse_repeats(value, 3600.0)


@pytest.mark.parametrize("value", ["", "none", "30", "-3s", "0s", 0, -1, math.inf, math.nan, True, None])
def test_bad_option(value: Any) -> None:
    """Other values are refused with the accepted ones."""
    with pytest.raises(ValueError, match='repeats must be "all", "first" or a window such as "30s", not'):
        parse_repeats(value, 3600.0)


@pytest.mark.parametrize("value", ["31m", "1d", 1801])
def test_long_window(value: Any) -> None:
    """A window is at most half of the event TTL, so that events can be read again after a crash."""
    with pytest.raises(ValueError, match="repeats must be no window longer than half of event_life, 1800 s, not"):
        parse_repeats(value, 3600.0)


class TestWindow:
    """Several revisions merged into one."""

    def test_latest(self) -> None:
        """The latest revision of each event is delivered with the sum of the deltas, in stream order."""
        window = Window(30.0)
        window.add([record("a", 1, 1, ADDED), record("b", 2, 5)], position(2), 0.0)
        window.add([record("a", 3, 2), record("c", 4), record("a", 5, 4)], position(6), 1.0)
        chunk = window.take()
        assert told(chunk) == [("b", 2, MODIFIED, 5), ("c", 4, MODIFIED, 1), ("a", 5, ADDED, 7)]
        assert chunk is not None
        assert position(6) == chunk.position

    def test_unknown_count(self) -> None:
        """A sum with an unknown delta is unknown."""
        window = Window(30.0)
        window.add([record("a", 1, None), record("a", 2, 1)], position(2), 0.0)
        assert told(window.take()) == [("a", 2, MODIFIED, None)]

    def test_end(self) -> None:
        """A window ends `window` seconds after its first record. The next window starts with the next record."""
        window = Window(30.0)
        assert math.inf == window.left(0.0)
        window.add([], position(1), 5.0)
        assert math.inf == window.left(5.0)
        window.add([record("a", 2)], position(2), 10.0)
        window.add([record("b", 3)], position(3), 20.0)
        assert window.left(20.0) == 20.0
        window.take()
        assert (None, math.inf) == (window.take(), window.left(40.0))

    def test_full(self) -> None:
        """A full window ends immediately."""
        window = Window(30.0, limit=2)
        window.add([record("a", 1), record("a", 2)], position(2), 0.0)
        assert window.left(0.0) == 30.0
        window.add([record("b", 3)], position(3), 1.0)
        assert window.left(1.0) == 0.0

    def test_gap(self) -> None:
        """A gap passes through unchanged."""
        window = Window(30.0)
        gap = gap_record(position(1), 2, "expired", 10, 0.0)
        window.add([gap, record("a", 3)], position(3), 0.0)
        chunk = window.take()
        assert chunk is not None
        assert [gap.id, "a:3"] == [entry.id for entry in chunk.records]
