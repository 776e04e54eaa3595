"""The gate by itself; what the work queue makes of it is in ``test_workqueue`` and ``test_laws``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents._queue.circuit_breaker import CircuitBreaker
from kevents._queue.work_item import Attempt, ServerState, WorkItem
from tests.simulation import Occurrence


def attempt(key: str, began: float = 0.0) -> Attempt:
    """A request of that key."""
    slot = WorkItem(("default", key), 0.0)
    slot.restart(Occurrence(key), ServerState.ABSENT, 1, 1, 0.0)
    return Attempt(slot, began)


def closed_gate(longest_wait: float = 10.0, jitter: float = 1.0) -> CircuitBreaker:
    """A gate that closed at 1.0."""
    gate = CircuitBreaker(2, longest_wait, lambda: jitter)
    for key in "ab":
        gate.unavailable(attempt(key), 1.0, 0.0)
    assert gate.closed
    return gate


def test_at_least_two() -> None:
    """With one sender, two different keys close it."""
    gate = CircuitBreaker(1, 10.0, lambda: 1.0)
    gate.unavailable(attempt("a"), 1.0, 0.0)
    assert not gate.closed
    gate.unavailable(attempt("b"), 1.0, 0.0)
    assert gate.closed


def test_glances() -> None:
    """Pitfall 85: for a quarter of a second forty probes a second; what hung counts from its begin."""
    for began, pause in ((0.7, 0.25), (0.75, 0.25), (0.8, 0.025)):
        gate = CircuitBreaker(2, 10.0, lambda: 1.0)
        for key in "ab":
            gate.unavailable(attempt(key, began), 1.0, 0.0)
        assert gate.probe_due == 1.0 + pause


def test_glances_then_doubling_pauses() -> None:
    """The pauses that double begin when the row has lasted a quarter of a second."""
    gate = CircuitBreaker(2, 10.0, lambda: 1.0)
    for key in "ab":
        gate.unavailable(attempt(key, 0.99), 1.0, 0.0)
    pauses, now = [], 1.0
    while now < 2.5:
        pauses.append(gate.probe_due - now)
        now = gate.probe_due
        probe = attempt("a", now)
        gate.began(probe)
        gate.unavailable(probe, now, 0.0)
    assert pauses == pytest.approx([0.025] * 10 + [0.25, 0.5, 1.0])


def test_row_begins_anew() -> None:
    """After an answer the row, and the time that it lasts, begin anew."""
    gate = CircuitBreaker(2, 10.0, lambda: 1.0)
    gate.unavailable(attempt("a", 0.0), 1.0, 0.0)
    gate.answered("x")
    gate.unavailable(attempt("a", 1.0), 1.0, 0.0)
    assert not gate.closed
    gate.unavailable(attempt("b", 1.0), 1.0, 0.0)
    assert (gate.closed, gate.probe_due) == (True, 1.025)


def test_jitter() -> None:
    """A share of each pause is waited."""
    gate = closed_gate(jitter=0.5)
    assert gate.probe_due == 1.125


def test_pause_is_capped() -> None:
    """No pause of the gate's own is longer than its longest; a server's own wish may be."""
    gate = closed_gate()
    for number in range(2000):
        probe = attempt(f"k{number}")
        gate.began(probe)
        gate.unavailable(probe, 5.0, 0.0)
        assert gate.probe_due <= 15.0
    gate.began(probe)
    gate.unavailable(probe, 5.0, 45.0)
    assert gate.probe_due == 50.0


def test_pause_begins_anew() -> None:
    """After it was open the pauses begin at a quarter second again."""
    gate = closed_gate()
    for _ in range(3):
        probe = attempt("a")
        gate.began(probe)
        gate.unavailable(probe, 5.0, 0.0)
    gate.answered("a")
    for key in "ab":
        gate.unavailable(attempt(key), 9.0, 0.0)
    assert gate.probe_due == 9.25


def test_hasten_and_cap() -> None:
    """A hurry probes now; a cap shortens every later pause, and never lengthens one."""
    gate = closed_gate()
    gate.hasten(1.0)
    assert gate.probe_due == 1.0
    gate.cap(0.125)
    gate.cap(5.0)
    probe = attempt("a")
    gate.began(probe)
    gate.unavailable(probe, 2.0, 0.0)
    assert gate.probe_due == 2.125
    gate.hasten(3.0)
    assert gate.probe_due == 2.125


def test_lost() -> None:
    """It knows since when nothing is answered, and when that was last seen."""
    gate = CircuitBreaker(4, 10.0, lambda: 1.0)
    assert (gate.lost_at, gate.last_unavailable) == (None, None)
    gate.unavailable(attempt("a"), 1.0, 0.0)
    gate.unavailable(attempt("a"), 2.0, 0.0)
    assert (gate.lost_at, gate.last_unavailable) == (1.0, 2.0)
    gate.answered("a")
    assert (gate.lost_at, gate.last_unavailable) == (None, 2.0)


@given(keys=st.lists(st.sampled_from("abc"), max_size=20), key=st.sampled_from("abc"), data=st.data())
def test_answered_another(keys: list[str], key: str, data: st.DataObject) -> None:
    """Whether another key was answered since a moment is exact, for every order of answers and every moment."""
    gate = CircuitBreaker(4, 10.0, lambda: 1.0)
    moments = [gate.answers]
    for answered in keys:
        gate.answered(answered)
        moments.append(gate.answers)
    since = data.draw(st.integers(0, len(keys)))
    assert gate.answered_another(key, moments[since]) == any(other != key for other in keys[since:])
