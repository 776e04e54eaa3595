"""The delay queue: items in the order in which they are due.

Items that failed never occupy all senders, so that the others pass.
"""

from __future__ import annotations

import heapq
from itertools import count

from kevents._queue.work_item import WorkItem

_Entry = tuple[float, int, WorkItem]


class DelayQueue:
    """Two heaps of items by due time: one of items that never failed, one of items that did.

    An entry is live while its number is its item's ``order``. Stale entries are skipped, which is cheaper than finding
    them.

    Args:
        senders: The most attempts in flight.
    """

    def __init__(self, senders: int) -> None:
        """Start empty."""
        self._fresh: list[_Entry] = []
        self._failed: list[_Entry] = []
        self._orders = count(1)
        self._most_failing = max(1, senders - 1)
        self._failing = 0
        self._live = 0

    def put(self, item: WorkItem, due: float) -> None:
        """Add an item, or move it to another due time."""
        self.remove(item)
        item.order = next(self._orders)
        self._live += 1
        heap = self._failed if item.failed else self._fresh
        if len(heap) > 2 * self._live + 64:
            heap[:] = [entry for entry in heap if entry[1] == entry[2].order]
            heapq.heapify(heap)
        heapq.heappush(heap, (due, item.order, item))

    def remove(self, item: WorkItem) -> None:
        """Remove an item, if it is there."""
        self._live -= item.order > 0
        item.order = 0

    def clear(self) -> None:
        """Remove all items."""
        self._fresh.clear()
        self._failed.clear()
        self._live = 0

    def begin(self, item: WorkItem) -> None:
        """An attempt of the item starts."""
        self.remove(item)
        self._failing += item.failed

    def end(self, item: WorkItem) -> None:
        """The attempt of the item has ended."""
        self._failing -= item.failed

    def next(self, now: float) -> WorkItem | float | None:
        """Return the item that is due; else the time when the next one is; else None."""
        heads = [self._head(self._fresh)]
        if self._failing < self._most_failing:
            heads.append(self._head(self._failed))
        due, _, item = min((head for head in heads if head is not None), default=(None, 0, None))
        return item if due is None or due <= now else due

    @staticmethod
    def _head(heap: list[_Entry]) -> _Entry | None:
        while heap and heap[0][1] != heap[0][2].order:
            heapq.heappop(heap)
        return heap[0] if heap else None
