"""The rate limiter and the negative cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export._enrich.fetcher import NegativeCache, RateLimiter


def test_burst_then_rate() -> None:
    """After a pause, the burst is allowed immediately, then one request in each interval."""
    pace = RateLimiter(20.0, 3)
    assert [pace.reserve(0.0, 9.0) for _ in range(5)] == [0.0, 0.0, 0.0, pytest.approx(0.05), pytest.approx(0.1)]


def test_impatient() -> None:
    """A request that cannot wait long enough reserves no slot."""
    pace = RateLimiter(20.0, 1)
    assert [pace.reserve(0.0, patience) for patience in (1.0, 0.01, -1.0, 1.0)] == [
        0.0,
        None,
        None,
        pytest.approx(0.05),
    ]


def test_hold() -> None:
    """During `hold`, no request is allowed. A shorter hold does not shorten a longer one."""
    pace = RateLimiter(20.0, 10)
    pace.hold(5.0)
    pace.hold(1.0)
    assert [pace.reserve(0.0, patience) for patience in (9.0, 4.9)] == [pytest.approx(5.0), None]


@given(gaps=st.lists(st.floats(0.0, 0.5), max_size=80), rate=st.floats(0.5, 100.0), burst=st.integers(1, 50))
def test_never_above(gaps: list[float], rate: float, burst: int) -> None:
    """In any interval, the requests never exceed the burst plus the rate."""
    pace, now, going = RateLimiter(rate, burst), 0.0, []
    for gap in gaps:
        now += gap
        wait = pace.reserve(now, 10.0)
        if wait is not None:
            going.append(now + wait)
    for first, start in enumerate(going):
        for last in range(first, len(going)):
            assert last - first + 1 <= burst + (going[last] - start) * rate + 1e-6


@pytest.mark.parametrize(("now", "expected"), [(0.0, True), (299.9, True), (300.0, False)])
def test_five_minutes(now: float, expected: bool) -> None:  # noqa: FBT001
    """A 403 is remembered for five minutes, for its kind and namespace."""
    refusals = NegativeCache()
    refusals.forbid("secrets", "a", 0.0)
    assert refusals.forbidden("secrets", "a", now) == expected
    assert not refusals.forbidden("secrets", "b", now)
    assert not refusals.forbidden("pods", "a", now)


def test_everywhere() -> None:
    """A kind that was forbidden in five namespaces is not requested in others."""
    refusals = NegativeCache()
    answers = []
    for number in range(6):
        answers.append(refusals.forbidden("secrets", f"n{number}", 0.0))
        refusals.forbid("secrets", f"n{number}", 0.0)
    assert answers == [False] * 5 + [True]


def test_allowed_somewhere() -> None:
    """A kind that was allowed in one namespace is requested in each, however many refuse it."""
    refusals = NegativeCache()
    refusals.allow("secrets")
    for number in range(9):
        refusals.forbid("secrets", f"n{number}", 0.0)
    assert not refusals.forbidden("secrets", "another", 0.0)


def test_failing() -> None:
    """The pause after failures of a kind doubles up to a minute. A success resets it."""
    refusals, now, pauses = NegativeCache(), 0.0, []
    for _ in range(8):
        refusals.fail("widgets", now)
        pause = next(second for second in range(1, 100) if not refusals.failing("widgets", now + second))
        pauses.append(pause)
        now += pause
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    refusals.allow("widgets")
    refusals.fail("widgets", now)
    assert [refusals.failing("widgets", now + later) for later in (0.9, 1.0)] == [True, False]


def test_failing_for_years() -> None:
    """A kind that has failed thousands of times is still requested once a minute."""
    refusals = NegativeCache()
    for _ in range(5000):
        refusals.fail("widgets", 0.0)
    assert [refusals.failing("widgets", now) for now in (59.9, 60.0)] == [True, False]


def test_suspended() -> None:
    """A kind without metadata is skipped for five minutes."""
    refusals = NegativeCache()
    refusals.suspend("bindings", 0.0)
    assert [refusals.failing("bindings", now) for now in (299.9, 300.0)] == [True, False]
