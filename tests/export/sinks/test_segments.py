"""Filtering of batches to the records that a destination does not have yet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kevents.export import Batch
from kevents.export._sinks.segments import BatchHeader, unwritten
from tests.export.batches import batch, position, record


def test_nothing_held() -> None:
    """Without a position, all records are new."""
    new = unwritten(batch([3, 4], upto=9), None)
    assert new is not None
    assert (len(new.records), new.position, BatchHeader.of(new).first) == (2, position(9), 3)


@given(st.lists(st.integers(1, 50), unique=True, max_size=20), st.integers(1, 50), st.integers(0, 5))
def test_only_what_is_new(rvs: list[int], own: int, more: int) -> None:
    """Records above the position are new. Without any and with the same position, there is nothing to write."""
    upto = max([own, *rvs]) + more
    new = unwritten(Batch([record(rv) for rv in sorted(rvs)], position(upto)), position(own))
    fresh = [rv for rv in sorted(rvs) if rv > own]
    if not fresh and upto == own:
        assert new is None
    else:
        assert new is not None
        assert ([found.rv for found in new.records], new.position.rv) == (fresh, upto)


def test_a_later_time() -> None:
    """A position with a later time must be written."""
    assert unwritten(batch([], upto=5, seconds=1), position(5)) is not None
    assert unwritten(batch([], upto=5), position(5, seconds=1)) is None


def test_a_lower_position() -> None:
    """A batch below the destination's position is already stored."""
    assert unwritten(batch([3, 4], seconds=1), position(80)) is None
