"""A bounded mapping that forgets the least recently used and counts what it forgot.

``cachetools.LRUCache`` behaves the same (a property test holds the two equal) and costs four times as much for a
miss with an eviction, three of which come with every new object.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """At most ``maxsize`` values; a read counts as use (client-go: ``lru.Cache``). Not for several threads.

    No two keys share a value: it tells whether its key is the most recently used already, as in a storm it is.
    """

    __slots__ = ("_find", "_newest", "_use", "_values", "evictions", "maxsize")

    def __init__(self, maxsize: int) -> None:
        """Make it empty."""
        self.maxsize = maxsize
        self.evictions = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._find = self._values.get
        self._use = self._values.move_to_end
        self._newest: V | None = None

    def get(self, key: K) -> V | None:
        """The value, now the most recently used; None if it is unknown."""
        value = self._find(key)
        if value is not self._newest and value is not None:
            self._use(key)
            self._newest = value
        return value

    def put(self, key: K, value: V) -> V | None:
        """Remember the value, which is not None, as the most recently used; the value forgotten for it, if any."""
        if key in self._values:
            self._use(key)
            self._values[key] = self._newest = value
            return None
        return self.add(key, value)

    def add(self, key: K, value: V) -> V | None:
        """As :meth:`put`, of a key that is known to be unknown: after a :meth:`get`, in two thirds of the time."""
        forgotten: V | None = None
        if len(self._values) >= self.maxsize:
            _, forgotten = self._values.popitem(last=False)
            self.evictions += 1
        self._values[key] = self._newest = value
        return forgotten

    def __len__(self) -> int:
        """How many values are remembered."""
        return len(self._values)
