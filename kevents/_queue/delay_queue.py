"""In which order waiting slots are due, so that those that failed before leave a sender to the others."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kevents._queue.work_item import WorkItem

_Entry = tuple[float, int, "WorkItem"]


class DelayQueue:
    """Two heaps by due time, of slots never tried and of slots that failed.

    An entry is live while its order is its slot's; putting a slot again, or beginning it, makes older entries stale,
    which is cheaper than finding them.

    Args:
        senders: How many slots may be under way at once; failed ones hold all but one of these at most.
    """

    def __init__(self, senders: int) -> None:
        """Start empty."""
        self._fresh: list[_Entry] = []
        self._failed: list[_Entry] = []
        self._orders = count(1)
        self._most_failing = max(1, senders - 1)
        self._failing = 0
        self._live = 0

    def put(self, slot: WorkItem, due: float) -> None:
        """The slot waits until it is due; what was said of it before no longer holds."""
        self.forget(slot)
        slot.due = due
        slot.order = next(self._orders)
        self._live += 1
        heap = self._failed if slot.failed else self._fresh
        if len(heap) > 2 * self._live + 64:
            heap[:] = [entry for entry in heap if entry[1] == entry[2].order]
            heapq.heapify(heap)
        heapq.heappush(heap, (due, slot.order, slot))

    def forget(self, slot: WorkItem) -> None:
        """The slot waits no more."""
        self._live -= slot.order > 0
        slot.order = 0

    def clear(self) -> None:
        """Nothing waits any more: let go of it all."""
        self._fresh.clear()
        self._failed.clear()
        self._live = 0

    def begin(self, slot: WorkItem) -> None:
        """The slot is under way."""
        self.forget(slot)
        self._failing += slot.failed

    def end(self, slot: WorkItem) -> None:
        """The slot is no longer under way."""
        self._failing -= slot.failed

    def next(self, now: float) -> WorkItem | float | None:
        """The slot that is due, else when the next one will be, else None."""
        heads = [self._head(self._fresh)]
        if self._failing < self._most_failing:
            heads.append(self._head(self._failed))
        due, _, slot = min((head for head in heads if head is not None), default=(None, 0, None))
        return slot if due is None or due <= now else due

    @staticmethod
    def _head(heap: list[_Entry]) -> _Entry | None:
        while heap and heap[0][1] != heap[0][2].order:
            heapq.heappop(heap)
        return heap[0] if heap else None
