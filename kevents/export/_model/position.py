"""What a stream remembers: how its resourceVersions are ordered, and which counts and revisions it has seen."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final

AGE: Final = 10**20
"""What a position grows by when the storage is reset: more than any resourceVersion that was ever seen.

Positions stay in order then, as texts too: of twenty digits, which begin with 0, since no int64 needs them all, and of
twenty-one after a reset.
"""

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4000}", re.ASCII)  # int() refuses texts of more than 4,300 digits
_LIMIT: Final = 100_000


def number_of(version: str) -> int | None:
    """Give a resourceVersion as a number of any length; None if it is none, and only equality can be told.

    client-go: ``resourceversion.CompareResourceVersion``
    """
    return int(version) if _NUMBER.fullmatch(version) else None


class Order:
    """Gives a stream's resourceVersions as numbers that only grow, whatever the storage does.

    A server's own number is used as it is. When the storage was reset to an earlier state, what follows is counted in a
    new age. A server whose resourceVersions are no numbers gets numbers of our own, from the wall clock.

    Args:
        last: The number of the position; 0 without one.
        highest: The highest number that any destination holds: no list was ever older, and no age is earlier.
    """

    __slots__ = ("_base", "_highest", "_last")

    def __init__(self, last: int = 0, highest: int = 0) -> None:
        """Go on after the position, in the latest age that was seen."""
        self._highest = max(last, highest)
        self._base = self._highest // AGE * AGE
        self._last = max(last, self._base)

    @property
    def last(self) -> int:
        """The number up to which the stream has been read."""
        return self._last

    def is_reset(self, number: int) -> bool:
        """Tell whether a list of this resourceVersion is older than what has been read, now or ever."""
        return self._base + number < max(self._last, self._highest)

    def reset(self) -> int:
        """Begin a new age; give the number where it begins."""
        self._base = (max(self._last, self._highest) // AGE + 1) * AGE
        self._last = self._base
        return self._base

    def place(self, number: int) -> int:
        """Give where a resourceVersion stands in the stream."""
        return self._base + number

    def invent(self, now: int) -> int:
        """Give the next number for a server that has none, by the wall clock in nanoseconds; `advance` follows."""
        return max(self._last + 1, self._base + now)

    def advance(self, to: int) -> None:
        """It has been read up to there; going back is no advance."""
        self._last = max(self._last, to)


class Counts:
    """The count last seen of each event, by namespace and name; the ones longest unseen are forgotten.

    Args:
        limit: How many to remember.
    """

    __slots__ = ("_counts", "_limit", "forgotten")

    def __init__(self, limit: int = _LIMIT) -> None:
        """Know nothing."""
        self._limit = limit
        self._counts: OrderedDict[str, int] = OrderedDict()
        self.forgotten = 0

    def __contains__(self, key: str) -> bool:
        """Tell whether the event is remembered."""
        return key in self._counts

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._counts)

    def note(self, key: str, count: int) -> int | None:
        """Remember an event's count; give the one before, None if there is none."""
        counts = self._counts
        before = counts.get(key)
        counts[key] = count
        if before is not None:
            counts.move_to_end(key)
        elif len(counts) > self._limit:
            counts.popitem(last=False)
            self.forgotten += 1
        return before

    def delta(self, key: str, count: int, *, born: bool) -> int | None:
        """Give by how much an event's count has grown, and remember it.

        Args:
            key: Its namespace and name.
            count: Its count.
            born: Whether it is known to be new: no revision of this object was there to be read before.

        Returns:
            The number of occurrences since the last revision; None if the count before cannot be known.
        """
        before = self.note(key, count)
        if before is None:
            return count if born or count == 1 else None
        if born:  # it had expired, or was deleted, and was written again: recorders go on with the count they had
            return count - before if count > before else count
        return count - before if count >= before else None


class Ledger:
    """Which revisions have been read, for a server whose resourceVersions are no numbers.

    Args:
        limit: Of how many events to remember the last.
    """

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int = _LIMIT) -> None:
        """Know nothing."""
        self._limit = limit
        self._seen: OrderedDict[str, str] = OrderedDict()

    def is_new(self, key: str, version: str) -> bool:
        """Tell whether a revision has not been read, and remember it."""
        if self._seen.get(key) == version:
            return False
        self._seen[key] = version
        self._seen.move_to_end(key)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return True
