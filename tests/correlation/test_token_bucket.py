"""The token bucket is exact, and decides as Go's ``x/time/rate`` does."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents._correlation.correlator import RateLimit, TokenBucket

NANO = 1_000_000_000
HOUR = 3600 * NANO
QPS = st.sampled_from([1 / 300, 0.1, 1.0, 2.0, 5.0, 50.0])
GAPS = st.lists(st.one_of(st.integers(0, 400 * NANO), st.just(0), st.just(300 * NANO), st.just(NANO // 5)), max_size=60)


class Reference:
    """``golang.org/x/time/rate`` on a clock that never goes back, in exact fractions."""

    def __init__(self, qps: float, burst: int) -> None:
        self.rate = 1 / Fraction(1 / qps).limit_denominator(10**6) / NANO
        self.burst = burst
        self.tokens = Fraction(burst)
        self.last = 0

    def allow(self, now: int) -> bool:
        """``AllowN(now, 1)``: the state changes only if it is allowed."""
        tokens = min(Fraction(self.burst), self.tokens + (now - self.last) * self.rate)
        if tokens < 1:
            return False
        self.last, self.tokens = now, tokens - 1
        return True


@given(qps=QPS, burst=st.integers(1, 30), gaps=GAPS)
def test_as_go(qps: float, burst: int, gaps: list[int]) -> None:
    """Each decision matches the exact reference."""
    bucket, reference, now = TokenBucket(RateLimit(qps, burst), 0), Reference(qps, burst), 0
    for gap in gaps:
        now += gap
        assert bucket.try_accept(now) == reference.allow(now)


@given(qps=QPS, burst=st.integers(1, 30), gaps=GAPS)
def test_never_above(qps: float, burst: int, gaps: list[int]) -> None:
    """At no time are more events accepted than the burst plus the refill."""
    bucket, now, accepted = TokenBucket(RateLimit(qps, burst), 0), 0, 0
    for gap in gaps:
        now += gap
        accepted += bucket.try_accept(now)
        assert accepted <= burst + Fraction(now, round(NANO / qps))


@given(qps=QPS, burst=st.integers(1, 30), jumps=st.lists(st.integers(-HOUR, 0), max_size=60))
def test_going_back_gives_nothing(qps: float, burst: int, jumps: list[int]) -> None:
    """Pitfall 52: a clock that only goes back never allows more than the burst."""
    bucket, now, accepted = TokenBucket(RateLimit(qps, burst), 0), 0, 0
    for jump in jumps:
        now += jump
        accepted += bucket.try_accept(now)
    assert accepted == min(burst, len(jumps))


@pytest.mark.parametrize("jump", [-1, -HOUR, -1000 * HOUR])
def test_going_back_does_not_freeze(jump: int) -> None:
    """Pitfall 52: after the clock went back the next token is available after one interval."""
    bucket = TokenBucket(RateLimit(1 / 300, 1), HOUR)
    now = HOUR
    assert bucket.try_accept(now)
    now += jump
    assert not bucket.try_accept(now)
    assert not bucket.try_accept(now + 300 * NANO - 1)
    assert bucket.try_accept(now + 300 * NANO)


def test_jump_forward_fills_only() -> None:
    """Pitfall 52: a clock that jumps ahead by hours only fills the bucket."""
    bucket = TokenBucket(RateLimit(1 / 300, 25), 0)
    for _ in range(25):
        bucket.try_accept(0)
    assert sum(bucket.try_accept(1000 * HOUR) for _ in range(100)) == 25


def test_client_go_s_interval() -> None:
    """Pitfall 51: with client-go's rate a token comes back after exactly 300 s."""
    bucket = TokenBucket(RateLimit(1 / 300, 25), 0)
    assert sum(bucket.try_accept(0) for _ in range(30)) == 25
    assert [bucket.try_accept(300 * NANO + late) for late in (-1, 0, 0)] == [False, True, False]


def test_very_fast() -> None:
    """A rate above one token per nanosecond is limited to one per nanosecond."""
    bucket = TokenBucket(RateLimit(5e9, 2), 0)
    assert [bucket.try_accept(0) for _ in range(3)] == [True, True, False]
    assert [bucket.try_accept(1) for _ in range(2)] == [True, False]


def test_a_nanosecond_counts() -> None:
    """A token is available exactly when its last nanosecond has passed, no matter how often the clock was read."""
    bucket = TokenBucket(RateLimit(1e8, 1), 0)
    assert [bucket.try_accept(now) for now in range(11)] == [True, *[False] * 9, True]


def test_reservations_hold_back_nothing() -> None:
    """A reservation takes no token from an event. It only delays later reservations."""
    bucket = TokenBucket(RateLimit(1.0, 1), 0)
    assert bucket.try_accept(0)
    assert [bucket.reserve(), bucket.reserve()] == [NANO, 2 * NANO]
    assert bucket.try_accept(NANO)
    assert bucket.reserve() == 3 * NANO
    bucket.release()
    assert bucket.reserve() == 3 * NANO


def test_a_full_bucket_forgets_reservations() -> None:
    """The overflow of a full bucket pays back reservations, but never more than there were."""
    bucket = TokenBucket(RateLimit(1.0, 2), 0)
    assert [bucket.try_accept(0) for _ in range(3)] == [True, True, False]
    bucket.reserve()
    bucket.reserve()
    assert bucket.try_accept(3 * NANO)
    assert bucket.try_accept(3 * NANO)
    assert bucket.reserve() == 2 * NANO
    for _ in range(2):
        bucket.release()
    bucket.release()
    assert bucket.reserve() == NANO
