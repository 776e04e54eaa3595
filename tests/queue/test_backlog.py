"""The backlog by itself: what counts as waiting, and what has waited too long."""

from __future__ import annotations

from kevents._queue.backlog import Backlog
from kevents._queue.work_item import ServerState, WorkItem
from tests.simulation import Occurrence


def slot(backlog: Backlog, name: str, now: float = 0.0) -> WorkItem:
    """A slot of the backlog."""
    made = WorkItem(("default", name), now)
    made.restart(Occurrence(name), ServerState.ABSENT, 1, 1, now)
    backlog.slots[made.key] = made
    return made


def test_by_choice_takes_no_room() -> None:
    """What waits by choice takes no room, however often it is said; what begins or has to wait does."""
    backlog = Backlog(1, 100.0)
    waiting = slot(backlog, "a")
    backlog.wait(waiting, by_choice=True)
    backlog.wait(waiting, by_choice=True)
    assert (backlog.size, backlog.has_room) == (0, True)
    backlog.begin(waiting)
    assert (backlog.size, backlog.has_room) == (1, False)


def test_removed() -> None:
    """What has ended counts no more, whether or not it waited by choice."""
    backlog = Backlog(4, 100.0)
    for by_choice in (True, False):
        ended = slot(backlog, "a")
        backlog.wait(ended, by_choice=by_choice)
        backlog.remove(ended)
        assert (backlog.size, backlog.slots) == (0, {})


def test_cleared() -> None:
    """A backlog that was cleared is empty, and gives what was in it."""
    backlog = Backlog(4, 100.0)
    waiting = [slot(backlog, name) for name in "ab"]
    backlog.wait(waiting[0], by_choice=True)
    assert (backlog.clear(), backlog.size, backlog.slots) == (waiting, 0, {})


def test_overdue() -> None:
    """Each is overdue at its own moment, and not before; what waits by choice never is."""
    backlog = Backlog(4, 100.0)
    first, second, series = slot(backlog, "a"), slot(backlog, "b", 50.0), slot(backlog, "c")
    for each in (first, second):
        backlog.wait(each)
    backlog.wait(series, by_choice=True)
    assert [backlog.overdue(99.0), backlog.overdue(100.0)] == [[], [first]]
    backlog.remove(first)
    assert [backlog.overdue(149.0), backlog.overdue(150.0)] == [[], [second]]


def test_age() -> None:
    """A write is as old as its offer, however often it waits; after a wait by choice, as its due time."""
    backlog = Backlog(4, 100.0)
    waiting, series = slot(backlog, "a", 10.0), slot(backlog, "b", 0.0)
    waiting.due = 17.0
    backlog.wait(waiting)
    backlog.wait(waiting)
    series.due = 12.0
    backlog.wait(series, by_choice=True)
    assert backlog.oldest_age(20.0) == 10.0
    backlog.remove(waiting)
    assert backlog.oldest_age(20.0) == 0.0
    backlog.begin(series)
    assert backlog.oldest_age(20.0) == 8.0
