"""No more requests than the pace allows, and who waits is told for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export._enrich.fetcher import RateLimiter


def test_burst_then_rate() -> None:
    """After a rest the burst goes at once, then one in each interval."""
    pace = RateLimiter(20.0, 3)
    assert [pace.reserve(0.0, 9.0) for _ in range(5)] == [0.0, 0.0, 0.0, pytest.approx(0.05), pytest.approx(0.1)]


def test_impatient() -> None:
    """Who cannot wait takes no place from those who can."""
    pace = RateLimiter(20.0, 1)
    assert [pace.reserve(0.0, patience) for patience in (1.0, 0.01, -1.0, 1.0)] == [
        0.0,
        None,
        None,
        pytest.approx(0.05),
    ]


def test_hold() -> None:
    """While the server asks to be left alone nobody goes; a shorter wish does not shorten a longer one."""
    pace = RateLimiter(20.0, 10)
    pace.hold(5.0)
    pace.hold(1.0)
    assert [pace.reserve(0.0, patience) for patience in (9.0, 4.9)] == [pytest.approx(5.0), None]


@given(gaps=st.lists(st.floats(0.0, 0.5), max_size=80), rate=st.floats(0.5, 100.0), burst=st.integers(1, 50))
def test_never_above(gaps: list[float], rate: float, burst: int) -> None:
    """In no time do more requests go than the burst and what the rate allows in it."""
    pace, now, going = RateLimiter(rate, burst), 0.0, []
    for gap in gaps:
        now += gap
        wait = pace.reserve(now, 10.0)
        if wait is not None:
            going.append(now + wait)
    for first, start in enumerate(going):
        for last in range(first, len(going)):
            assert last - first + 1 <= burst + (going[last] - start) * rate + 1e-6
