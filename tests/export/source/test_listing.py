"""The sorted backlog of a list, and gap detection."""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export import Position, Record, Stream
from kevents.export._model.position import Order
from kevents.export._source.listing import Backlog, ListResult, why_gap


@given(st.lists(st.tuples(st.integers(0, 10**30), st.binary(max_size=50)), max_size=200), st.integers(1, 5000))
def test_order(items: list[tuple[int, bytes]], most: int) -> None:
    """Items come back sorted and exactly once, whatever the memory limit."""
    with closing(Backlog(most)) as backlog:
        for number, item in items:
            backlog.add(number, item)
        found = list(backlog.in_order())
    assert sorted(number for number, _ in items) == [number for number, _ in found]
    assert sorted(items) == sorted(found)


def test_memory() -> None:
    """The backlog uses a temporary file only for items over the memory limit."""
    with closing(Backlog(100_000)) as backlog:
        for number in range(100):
            backlog.add(number, b"x" * 100)
        assert backlog.spilled == 0
        for number in range(900):
            backlog.add(number, b"x" * 100)
        assert backlog.spilled > 90_000


def test_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full temporary folder raises an OSError."""

    def full(**options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with closing(Backlog(10)) as backlog, pytest.raises(OSError, match="No space left"):
        backlog.add(1, b"x" * 100)


STREAM = Stream("c-1")
HOUR = 3_600_000_000_000
NOW = 1_784_883_600_000_000_000  # 2026-07-24T09:00:00Z
MINUTES_LATER = "2026-07-24T09:05:00Z"
MINUTES_BEFORE = "2026-07-24T08:55:00Z"


def event(name: str, version: str, **fields: Any) -> dict[str, Any]:
    """Return an event without a uid."""
    return {"metadata": {"namespace": "prod", "name": name, "resourceVersion": version}, "count": 1, **fields}


def line(verb: str, body: object) -> bytes:
    """Return one watch line."""
    return json.dumps({"type": verb, "object": body}).encode() + b"\n"


def told(records: list[Record | None]) -> list[tuple[str, int, Any]]:
    """Return id, number and count of each record."""
    return [(record.id, record.rv, record.body["kevents"]["countDelta"]) for record in records if record is not None]


class TestGaps:
    """Gap detection."""

    @pytest.mark.parametrize(
        ("pause", "listed", "why"),
        [
            (2 * HOUR, ListResult("90", 1, False, 80, 0), "expired"),
            (2 * HOUR, ListResult("90", 0, False, None, 0), "expired"),
            (HOUR, ListResult("90", 1, False, 80, 0), ""),
            (2 * HOUR, ListResult("90", 2, True, 80, 0), ""),
            (2 * HOUR, ListResult("90", 1, False, 71, 0), ""),
            (2 * HOUR, ListResult("70", 0, False, None, 0), ""),
            (2 * HOUR, ListResult("x", 1, False, 71, 0), "expired"),
            (HOUR, ListResult("x", 1, False, 71, 0), ""),
        ],
        ids=["some", "none left", "short", "older lives", "no room", "nothing written", "no order", "short, no order"],
    )
    def test_expired(self, pause: int, listed: ListResult, why: str) -> None:
        """A gap needs a pause longer than the event TTL, no surviving older event, and missing resourceVersions."""
        assert why == why_gap(Position(STREAM, 70, NOW), listed, Order(70), NOW + pause, 3600.0)

    def test_reset(self) -> None:
        """A reset is a gap whatever the length of the pause."""
        order = Order(70)
        order.reset()
        assert why_gap(Position(STREAM, 70, NOW), ListResult("5", 0, False, None, 0), order, NOW, 3600.0) == "reset"
