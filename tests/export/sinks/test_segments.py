"""Which records of a batch a destination does not hold yet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kevents.export import Batch
from kevents.export._sinks.segments import news
from tests.export.batches import batch, mark, record


def test_nothing_held() -> None:
    """A destination without a mark takes all of it."""
    new = news(batch([3, 4], upto=9), None)
    assert new is not None
    assert (len(new.records), new.mark, new.first) == (2, mark(9), 3)


@given(st.lists(st.integers(1, 50), unique=True, max_size=20), st.integers(1, 50), st.integers(0, 5))
def test_only_what_is_new(rvs: list[int], own: int, more: int) -> None:
    """With a mark: the records above it, and the mark; nothing at all if neither is new."""
    upto = max([own, *rvs]) + more
    new = news(Batch([record(rv) for rv in sorted(rvs)], mark(upto)), mark(own))
    fresh = [rv for rv in sorted(rvs) if rv > own]
    if not fresh and upto == own:
        assert new is None
    else:
        assert new is not None
        assert ([found.rv for found in new.records], new.mark.rv) == (fresh, upto)


def test_a_later_time() -> None:
    """A mark that has only grown older in time is news."""
    assert news(batch([], upto=5, seconds=1), mark(5)) is not None
    assert news(batch([], upto=5), mark(5, seconds=1)) is None


def test_a_lower_mark() -> None:
    """What ends below the destination's own mark is held already, however late it comes."""
    assert news(batch([3, 4], seconds=1), mark(80)) is None
