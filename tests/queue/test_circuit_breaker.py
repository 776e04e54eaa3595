"""The circuit breaker alone. ``test_workqueue`` and ``test_laws`` test its use by the work queue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents._queue.circuit_breaker import CircuitBreaker
from kevents._queue.work_item import Attempt, Namespace, ServerState, WorkItem
from tests.simulation import Occurrence

NAMESPACE = Namespace("default", CircuitBreaker(4, 10.0, lambda: 1.0))


def attempt(key: str, began: float = 0.0) -> Attempt:
    """A request for this key."""
    item = WorkItem(NAMESPACE, ("default", key), Occurrence(key), ServerState.ABSENT, 1, 1, 0.0, 0.0)
    return Attempt(item, began)


def open_breaker(longest_pause: float = 10.0, jitter: float = 1.0) -> CircuitBreaker:
    """A circuit breaker that opened at 1.0."""
    breaker = CircuitBreaker(2, longest_pause, lambda: jitter)
    for key in "ab":
        breaker.unavailable(attempt(key), 1.0, 0.0)
    assert breaker.open
    return breaker


def test_at_least_two() -> None:
    """Even with one sender, two different keys are needed to open it."""
    breaker = CircuitBreaker(1, 10.0, lambda: 1.0)
    breaker.unavailable(attempt("a"), 1.0, 0.0)
    assert not breaker.open
    breaker.unavailable(attempt("b"), 1.0, 0.0)
    assert breaker.open


def test_quick_probes() -> None:
    """Pitfall 85: probes are fast for the first quarter of a second. A request that hung counts from its start."""
    for began, pause in ((0.7, 0.25), (0.75, 0.25), (0.8, 0.025)):
        breaker = CircuitBreaker(2, 10.0, lambda: 1.0)
        for key in "ab":
            breaker.unavailable(attempt(key, began), 1.0, 0.0)
        assert breaker.probe_due == 1.0 + pause


def test_quick_probes_then_doubling_pauses() -> None:
    """The pauses double once the streak of failures has lasted a quarter of a second."""
    breaker = CircuitBreaker(2, 10.0, lambda: 1.0)
    for key in "ab":
        breaker.unavailable(attempt(key, 0.99), 1.0, 0.0)
    pauses, now = [], 1.0
    while now < 2.5:
        pauses.append(breaker.probe_due - now)
        now = breaker.probe_due
        probe = attempt("a", now)
        breaker.began(probe)
        breaker.unavailable(probe, now, 0.0)
    assert pauses == pytest.approx([0.025] * 10 + [0.25, 0.5, 1.0])


def test_row_begins_anew() -> None:
    """After an answer a new streak of failures begins, with a new start time."""
    breaker = CircuitBreaker(2, 10.0, lambda: 1.0)
    breaker.unavailable(attempt("a", 0.0), 1.0, 0.0)
    breaker.answered("x")
    breaker.unavailable(attempt("a", 1.0), 1.0, 0.0)
    assert not breaker.open
    breaker.unavailable(attempt("b", 1.0), 1.0, 0.0)
    assert (breaker.open, breaker.probe_due) == (True, 1.025)


def test_jitter() -> None:
    """Each pause is multiplied by the jitter."""
    breaker = open_breaker(jitter=0.5)
    assert breaker.probe_due == 1.125


def test_pause_is_capped() -> None:
    """No pause exceeds the longest pause, unless the server asks for more."""
    breaker = open_breaker()
    for number in range(2000):
        probe = attempt(f"k{number}")
        breaker.began(probe)
        breaker.unavailable(probe, 5.0, 0.0)
        assert breaker.probe_due <= 15.0
    breaker.began(probe)
    breaker.unavailable(probe, 5.0, 45.0)
    assert breaker.probe_due == 50.0


def test_pause_begins_anew() -> None:
    """After it has closed, the pauses start at a quarter of a second again."""
    breaker = open_breaker()
    for _ in range(3):
        probe = attempt("a")
        breaker.began(probe)
        breaker.unavailable(probe, 5.0, 0.0)
    breaker.answered("a")
    for key in "ab":
        breaker.unavailable(attempt(key), 9.0, 0.0)
    assert breaker.probe_due == 9.25


def test_flush_now_and_cap() -> None:
    """``probe_now`` makes the probe due. A limit shortens later pauses and never lengthens one."""
    breaker = open_breaker()
    breaker.probe_now(1.0)
    assert breaker.probe_due == 1.0
    breaker.limit_pause(0.125)
    breaker.limit_pause(5.0)
    probe = attempt("a")
    breaker.began(probe)
    breaker.unavailable(probe, 2.0, 0.0)
    assert breaker.probe_due == 2.125
    breaker.probe_now(3.0)
    assert breaker.probe_due == 2.125


def test_lost() -> None:
    """The breaker records the time of the first failure of a streak, and of the last failure."""
    breaker = CircuitBreaker(4, 10.0, lambda: 1.0)
    assert (breaker.unavailable_since, breaker.last_unavailable) == (None, None)
    breaker.unavailable(attempt("a"), 1.0, 0.0)
    breaker.unavailable(attempt("a"), 2.0, 0.0)
    assert (breaker.unavailable_since, breaker.last_unavailable) == (1.0, 2.0)
    breaker.answered("a")
    assert (breaker.unavailable_since, breaker.last_unavailable) == (None, 2.0)


@given(keys=st.lists(st.sampled_from("abc"), max_size=20), key=st.sampled_from("abc"), data=st.data())
def test_answered_another(keys: list[str], key: str, data: st.DataObject) -> None:
    """``answered_another`` is exact for any order of answers and any mark."""
    breaker = CircuitBreaker(4, 10.0, lambda: 1.0)
    moments = [breaker.answers]
    for answered in keys:
        breaker.answered(answered)
        moments.append(breaker.answers)
    since = data.draw(st.integers(0, len(keys)))
    assert breaker.answered_another(key, moments[since]) == any(other != key for other in keys[since:])
