"""A bounded LRU cache that counts evictions.

``cachetools.LRUCache`` behaves the same (a property test compares the two), but a miss with an eviction costs four
times as much, and every new object causes three of them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """At most ``maxsize`` values; reading counts as use (client-go: ``lru.Cache``). Not thread-safe.

    Keys never share a value: the value tells whether its key is already the most recently used, which is the usual case
    for repeated events.
    """

    __slots__ = ("_find", "_newest", "_use", "_values", "evictions", "maxsize")

    def __init__(self, maxsize: int) -> None:
        """Create an empty cache."""
        self.maxsize = maxsize
        self.evictions = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._find = self._values.get
        self._use = self._values.move_to_end
        self._newest: V | None = None

    def get(self, key: K) -> V | None:
        """The value of a key, which becomes the most recently used. None if the key is unknown."""
        value = self._find(key)
        if value is not self._newest and value is not None:
            self._use(key)
            self._newest = value
        return value

    def put(self, key: K, value: V) -> V | None:
        """Store a value, never None, as the most recently used. Returns the evicted value, if any."""
        if key in self._values:
            self._use(key)
            self._values[key] = self._newest = value
            return None
        return self.add(key, value)

    def add(self, key: K, value: V) -> V | None:
        """Store the value of an unknown key: :meth:`put` without the search, in two thirds of the time."""
        evicted: V | None = None
        if len(self._values) >= self.maxsize:
            _, evicted = self._values.popitem(last=False)
            self.evictions += 1
        self._values[key] = self._newest = value
        return evicted

    def __len__(self) -> int:
        """Number of values."""
        return len(self._values)
