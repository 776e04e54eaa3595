"""The agenda gives waiting slots in the order in which they are due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kevents._queue.delay_queue import DelayQueue
from kevents._queue.work_item import WorkItem


def slot(name: str, *, failed: bool = False) -> WorkItem:
    """A slot, as far as an agenda looks at it."""
    made = WorkItem(("default", name), 0.0)
    made.failed = failed
    return made


def test_order() -> None:
    """The earliest first, and of those due at once the one that was put first."""
    agenda = DelayQueue(4)
    slots = {name: slot(name) for name in "abcd"}
    for name, due in (("a", 3.0), ("b", 1.0), ("c", 1.0), ("d", 2.0)):
        agenda.put(slots[name], due)
    order = []
    while isinstance(following := agenda.next(9.0), WorkItem):
        order.append(following.key[1])
        agenda.begin(following)
    assert (order, following) == (["b", "c", "d", "a"], None)


def test_not_early() -> None:
    """Before the first is due, its time is told."""
    agenda = DelayQueue(4)
    waiting = slot("a")
    agenda.put(waiting, 5.0)
    assert agenda.next(4.999) == 5.0
    assert waiting is agenda.next(5.0)


def test_put_again() -> None:
    """Of a slot that is put again only the newest time holds, earlier or later."""
    agenda = DelayQueue(4)
    waiting = slot("a")
    for due in (5.0, 9.0, 7.0):
        agenda.put(waiting, due)
    assert agenda.next(0.0) == 7.0


def test_forgotten() -> None:
    """A slot that was forgotten does not come."""
    agenda = DelayQueue(4)
    waiting = slot("a")
    agenda.put(waiting, 5.0)
    agenda.forget(waiting)
    agenda.forget(waiting)
    assert agenda.next(9.0) is None


def test_failing_leave_a_sender() -> None:
    """Of slots that failed only as many are under way as there are senders but one, whatever is due."""
    agenda = DelayQueue(3)
    failing = [slot(name, failed=True) for name in "abc"]
    for each in failing:
        agenda.put(each, 1.0)
    for each in failing[:2]:
        agenda.begin(each)
    fresh = slot("d")
    agenda.put(fresh, 2.0)
    assert fresh is agenda.next(5.0)
    agenda.begin(fresh)
    assert agenda.next(5.0) is None
    agenda.end(failing[0])
    assert failing[2] is agenda.next(5.0)


def test_memory() -> None:
    """Moving slots for ever leaves at most twice as many entries and 64, in order, and forgets none that waits."""
    agenda = DelayQueue(4)
    for _ in range(2):  # what was cleared begins anew
        slots = [slot(str(number), failed=number >= 10) for number in range(20)]
        longest = 0
        for moves in range(500):
            agenda.put(slots[moves % 20], float(hash(moves * 0.37) % 1009))
            entries = [*agenda._fresh, *agenda._failed]
            assert len({made for _, order, made in entries if order == made.order}) == min(moves + 1, 20)
            assert all(min(heap) == heap[0] for heap in (agenda._fresh, agenda._failed) if heap)
            longest = max(longest, len(agenda._fresh), len(agenda._failed))
        assert longest == 2 * 20 + 64 + 1
        assert waiting(agenda) == sorted(slots, key=lambda each: each.due)
        for each in slots:
            agenda.put(each, 0.0)
        agenda.clear()
        assert (agenda.next(0.0), agenda._fresh, agenda._failed) == (None, [], [])


def waiting(agenda: DelayQueue) -> list[WorkItem]:
    """All that waits, taken out in order."""
    order = []
    while isinstance(following := agenda.next(1e9), WorkItem):
        order.append(following)
        agenda.forget(following)
    return order


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "forget", "take", "end"]), st.integers(0, 5), st.integers(0, 9)), max_size=60
    )
)
def test_any_order(steps: list[tuple[str, int, int]]) -> None:
    """In any order of calls the next is the earliest of those that wait, first come first."""
    agenda = DelayQueue(100)
    slots = [slot(str(number)) for number in range(6)]
    waiting: dict[int, tuple[float, int]] = {}
    under_way: set[int] = set()
    for number, (step, index, due) in enumerate(steps):
        if step == "put" and index not in under_way:
            agenda.put(slots[index], float(due))
            waiting[index] = (float(due), number)
        elif step == "forget":
            agenda.forget(slots[index])
            waiting.pop(index, None)
        elif step == "end" and index in under_way:
            agenda.end(slots[index])
            under_way.remove(index)
        elif step == "take":
            following = agenda.next(99.0)
            expected = min(waiting, key=lambda index: waiting[index], default=None)
            assert (None if expected is None else slots[expected]) is following
            if expected is not None:
                agenda.begin(slots[expected])
                del waiting[expected]
                under_way.add(expected)
