"""A work item and its attempt."""

from __future__ import annotations

from kevents._queue.circuit_breaker import CircuitBreaker
from kevents._queue.outcome import Verb
from kevents._queue.work_item import Attempt, Namespace, ServerState, WorkItem
from tests.simulation import Occurrence

NAMESPACE = Namespace("default", CircuitBreaker(4, 10.0, lambda: 1.0))


def test_body() -> None:
    """A create sends the whole state, a patch only the changed fields."""
    state = Occurrence("a")
    attempts = {
        server_state: Attempt(WorkItem(NAMESPACE, ("default", "a"), state, server_state, 1, 1, 0.0, 0.0), 0.0)
        for server_state in ServerState
    }
    assert {server_state: (attempt.verb, attempt.body) for server_state, attempt in attempts.items()} == {
        ServerState.ABSENT: (Verb.CREATE, state.to_dict()),
        ServerState.UNKNOWN: (Verb.CREATE, state.to_dict()),
        ServerState.PRESENT: (Verb.PATCH, state.to_patch()),
    }
    assert state.to_dict() != state.to_patch()


def test_attempt_is_a_snapshot() -> None:
    """An attempt keeps the state and the events from its start."""
    item = WorkItem(NAMESPACE, ("default", "a"), Occurrence("a"), ServerState.ABSENT, 1, 1, 0.0, 0.0)
    attempt = Attempt(item, 3.0)
    item.state, item.events, item.server_state = Occurrence("a", 2), 2, ServerState.PRESENT
    assert (attempt.state, attempt.events, attempt.verb, attempt.began) == (Occurrence("a"), 1, Verb.CREATE, 3.0)
