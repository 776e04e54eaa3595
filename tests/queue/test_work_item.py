"""A slot by itself: what is merged during an attempt, and what an attempt asks for."""

from __future__ import annotations

from kevents._queue.outcome import Verb
from kevents._queue.work_item import Attempt, ServerState, WorkItem
from tests.simulation import Occurrence


def slot(belief: ServerState = ServerState.ABSENT) -> WorkItem:
    """A slot with one event of time 0."""
    made = WorkItem(("default", "a"), 0.0)
    made.restart(Occurrence("a"), belief, 1, 1, 0.0)
    return made


def test_body() -> None:
    """A create sends the whole state, a patch what has changed."""
    state = Occurrence("a")
    bodies = {belief: Attempt(slot(belief), 0.0).body for belief in ServerState}
    assert bodies == {
        ServerState.ABSENT: state.to_dict(),
        ServerState.UNKNOWN: state.to_dict(),
        ServerState.PRESENT: state.to_patch(),
    }
    assert state.to_dict() != state.to_patch()
    assert [Attempt(slot(belief), 0.0).verb for belief in ServerState] == [Verb.CREATE, Verb.CREATE, Verb.PATCH]


def test_merged_meanwhile() -> None:
    """What came during an attempt joins it once: newest state, all events, the newest time."""
    waiting = slot()
    assert not waiting.absorb_next()
    assert [waiting.merge_next(Occurrence("a", count), 5.0, 7, None) for count in (2, 3)] == [False, True]
    assert (waiting.ages_from, waiting.next_first_offer) == (5.0, 7)
    assert waiting.absorb_next()
    assert (waiting.events, waiting.state) == (3, Occurrence("a", 3))
    assert not waiting.absorb_next()


def test_merged_again() -> None:
    """What was absorbed or forgotten is not counted with what comes next."""
    waiting = slot()
    for events, end in ((2, waiting.absorb_next), (2, waiting.forget_next), (3, waiting.absorb_next)):
        waiting.merge_next(Occurrence("a", 2), 1.0, 2, None)
        assert waiting.next_events == 1
        end()
        assert (waiting.events, waiting.next_events, waiting.next_state) == (events, 0, None)


def test_hurried_once() -> None:
    """A hurry shortens one wait to nothing, and no other."""
    waiting = slot()
    waiting.hurried = True
    assert [waiting.wait_after(4.0), waiting.wait_after(4.0)] == [0.0, 4.0]
