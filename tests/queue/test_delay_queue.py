"""The delay queue returns items in the order of their due times."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kevents._queue.circuit_breaker import CircuitBreaker
from kevents._queue.work_item import DelayQueue, Namespace, ServerState, WorkItem
from tests.simulation import Occurrence


def item(name: str, *, failed: bool = False) -> WorkItem:
    """An item with the fields that a delay queue reads."""
    return WorkItem(
        Namespace("default", CircuitBreaker(4, 10.0, lambda: 1.0)),
        ("default", name), Occurrence(name), ServerState.ABSENT, 1, 1, 0.0, 0.0, failed=failed,
    )  # fmt: skip


def take_all(delays: DelayQueue) -> list[WorkItem]:
    """Remove all waiting items, in order."""
    order = []
    while isinstance(following := delays.next(1e9), WorkItem):
        order.append(following)
        delays.remove(following)
    return order


def test_order() -> None:
    """The earliest item comes first; items with equal due times come in the order of insertion."""
    delays = DelayQueue(4)
    items = {name: item(name) for name in "abcd"}
    for name, due in (("a", 3.0), ("b", 1.0), ("c", 1.0), ("d", 2.0)):
        delays.put(items[name], due)
    order = []
    while isinstance(following := delays.next(9.0), WorkItem):
        order.append(following.key[1])
        delays.begin(following)
    assert (order, following) == (["b", "c", "d", "a"], None)


def test_not_early() -> None:
    """Before the first item is due, its due time is returned."""
    delays = DelayQueue(4)
    waiting = item("a")
    delays.put(waiting, 5.0)
    assert delays.next(4.999) == 5.0
    assert waiting is delays.next(5.0)


def test_put_again() -> None:
    """The last due time of an item replaces earlier ones, in both directions."""
    delays = DelayQueue(4)
    waiting = item("a")
    for due in (5.0, 9.0, 7.0):
        delays.put(waiting, due)
    assert delays.next(0.0) == 7.0


def test_removed() -> None:
    """A removed item is not returned."""
    delays = DelayQueue(4)
    waiting = item("a")
    delays.put(waiting, 5.0)
    delays.remove(waiting)
    delays.remove(waiting)
    assert delays.next(9.0) is None


def test_failing_leave_a_sender() -> None:
    """Failed items occupy at most all senders but one."""
    delays = DelayQueue(3)
    failing = [item(name, failed=True) for name in "abc"]
    for each in failing:
        delays.put(each, 1.0)
    for each in failing[:2]:
        delays.begin(each)
    fresh = item("d")
    delays.put(fresh, 2.0)
    assert fresh is delays.next(5.0)
    delays.begin(fresh)
    assert delays.next(5.0) is None
    delays.end(failing[0])
    assert failing[2] is delays.next(5.0)


def test_memory() -> None:
    """Moving items repeatedly keeps at most twice their number plus 64 entries, in order, without losing any."""
    delays = DelayQueue(4)
    for _ in range(2):  # after `clear` it starts anew
        items = [item(str(number), failed=number >= 10) for number in range(20)]
        longest, dues = 0, {}
        for moves in range(500):
            moved, due = items[moves % 20], float(hash(moves * 0.37) % 1009)
            dues[moved.key] = due
            delays.put(moved, due)
            entries = [*delays._fresh, *delays._failed]
            assert len({made for _, order, made in entries if order == made.order}) == min(moves + 1, 20)
            assert all(min(heap) == heap[0] for heap in (delays._fresh, delays._failed) if heap)
            longest = max(longest, len(delays._fresh), len(delays._failed))
        assert longest == 2 * 20 + 64 + 1
        assert [made.key for made in take_all(delays)] == [
            made.key for made in sorted(items, key=lambda made: dues[made.key])
        ]
        for each in items:
            delays.put(each, 0.0)
        delays.clear()
        assert (delays.next(0.0), delays._fresh, delays._failed) == (None, [], [])


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "forget", "take", "end"]), st.integers(0, 5), st.integers(0, 9)),
        max_size=60,
    )
)
def test_any_order(steps: list[tuple[str, int, int]]) -> None:
    """For any sequence of calls, the next item is the earliest waiting one, in order of insertion."""
    delays = DelayQueue(100)
    items = [item(str(number)) for number in range(6)]
    waiting: dict[int, tuple[float, int]] = {}
    under_way: set[int] = set()
    for number, (step, index, due) in enumerate(steps):
        if step == "put" and index not in under_way:
            delays.put(items[index], float(due))
            waiting[index] = (float(due), number)
        elif step == "remove":
            delays.remove(items[index])
            waiting.pop(index, None)
        elif step == "end" and index in under_way:
            delays.end(items[index])
            under_way.remove(index)
        elif step == "take":
            following = delays.next(99.0)
            expected = min(waiting, key=lambda index: waiting[index], default=None)
            assert (None if expected is None else items[expected]) is following
            if expected is not None:
                delays.begin(items[expected])
                del waiting[expected]
                under_way.add(expected)
