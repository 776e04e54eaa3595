"""A slot by itself: what is merged during an attempt, and what an attempt asks for."""

from __future__ import annotations

from kevents._queue.outcome import Verb
from kevents._queue.work_item import Attempt, Belief, Slot
from tests.simulation import Occurrence


def slot(belief: Belief = Belief.NEW) -> Slot:
    """A slot with one event of time 0."""
    made = Slot(("default", "a"), 0.0)
    made.restart(Occurrence("a"), belief, 1, 1, 0.0)
    return made


def test_body() -> None:
    """A create sends the whole state, a patch what has changed."""
    state = Occurrence("a")
    bodies = {belief: Attempt(slot(belief), 0.0).body for belief in Belief}
    assert {
        Belief.NEW: state.to_dict(),
        Belief.MAYBE: state.to_dict(),
        Belief.THERE: state.to_patch(),
    } == bodies
    assert state.to_dict() != state.to_patch()
    assert [Verb.CREATE, Verb.CREATE, Verb.PATCH] == [Attempt(slot(belief), 0.0).verb for belief in Belief]


def test_merged_meanwhile() -> None:
    """What came during an attempt joins it once: newest state, all events, the newest time."""
    waiting = slot()
    assert not waiting.absorb_next()
    assert [False, True] == [waiting.merge_next(Occurrence("a", count), 5.0, 7, None) for count in (2, 3)]
    assert (5.0, 7) == (waiting.ages_from, waiting.next_first_offer)
    assert waiting.absorb_next()
    assert (3, Occurrence("a", 3)) == (waiting.events, waiting.state)
    assert not waiting.absorb_next()


def test_merged_again() -> None:
    """What was absorbed or forgotten is not counted with what comes next."""
    waiting = slot()
    for events, end in ((2, waiting.absorb_next), (2, waiting.forget_next), (3, waiting.absorb_next)):
        waiting.merge_next(Occurrence("a", 2), 1.0, 2, None)
        assert 1 == waiting.next_events
        end()
        assert (events, 0, None) == (waiting.events, waiting.next_events, waiting.next_state)


def test_hurried_once() -> None:
    """A hurry shortens one wait to nothing, and no other."""
    waiting = slot()
    waiting.hurried = True
    assert [0.0, 4.0] == [waiting.wait_after(4.0), waiting.wait_after(4.0)]
