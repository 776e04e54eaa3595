"""Which API objects have a pending write: the slots by key, how many count as backlog, and which are overdue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kevents._queue.work_item import Key, WorkItem

_NEVER: Final = float("inf")


class Backlog:
    """Slots by key. One that waits by choice (a series) takes no room and does not age.

    Args:
        most_keys: How many keys may wait.
        max_age: Seconds after its newest event, or after the end of its wait by choice, in which a write is given up.
    """

    def __init__(self, most_keys: int, max_age: float) -> None:
        """Start empty."""
        self.slots: dict[Key, WorkItem] = {}
        self._most_keys = most_keys
        self._max_age = max_age
        self._by_choice = 0
        self._next_expiry = _NEVER

    @property
    def size(self) -> int:
        """How many keys count as backlog."""
        return len(self.slots) - self._by_choice

    @property
    def has_room(self) -> bool:
        """Whether another key may wait."""
        return self.size < self._most_keys

    def wait(self, slot: WorkItem, *, by_choice: bool = False) -> None:
        """The slot waits, until it is due: by choice, or because it has to."""
        self._count(slot, by_choice=by_choice)
        if not by_choice:
            self._next_expiry = min(self._next_expiry, slot.ages_from + self._max_age)

    def begin(self, slot: WorkItem) -> None:
        """The slot is under way: it takes room."""
        self._count(slot, by_choice=False)

    def remove(self, slot: WorkItem) -> None:
        """The slot has ended."""
        self._count(slot, by_choice=False)
        del self.slots[slot.key]

    def _count(self, slot: WorkItem, *, by_choice: bool) -> None:
        if slot.by_choice and not by_choice:
            slot.pending_since = slot.due
            slot.ages_from = max(slot.ages_from, slot.due)
        self._by_choice += by_choice - slot.by_choice
        slot.by_choice = by_choice

    def clear(self) -> list[WorkItem]:
        """Forget all slots; which they were."""
        slots = list(self.slots.values())
        self.slots.clear()
        self._by_choice = 0
        return slots

    def overdue(self, now: float) -> list[WorkItem]:
        """The slots that have waited too long. Costs nothing before the first can be."""
        if now < self._next_expiry:
            return []
        aging = [slot for slot in self.slots.values() if slot.attempt is None and not slot.by_choice]
        ends = [slot.ages_from + self._max_age for slot in aging]
        self._next_expiry = min((end for end in ends if end > now), default=_NEVER)
        return [slot for slot, end in zip(aging, ends, strict=True) if end <= now]

    def least_recent(self, now: float) -> WorkItem | float | None:
        """The least recently attempted slot, whatever its wait; else when one that waits by choice is due."""
        waiting = [slot for slot in self.slots.values() if slot.attempt is None]
        due = [slot for slot in waiting if not slot.by_choice or slot.due <= now]
        if due:
            return min(due, key=lambda slot: slot.attempted)
        return min((slot.due for slot in waiting), default=None)

    def oldest_age(self, now: float) -> float:
        """Seconds since the oldest pending write was offered; those that wait by choice do not count."""
        return max((now - slot.pending_since for slot in self.slots.values() if not slot.by_choice), default=0.0)
