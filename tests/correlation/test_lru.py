"""The LRU cache behaves as ``cachetools.LRUCache``."""

from __future__ import annotations

import cachetools
from hypothesis import given
from hypothesis import strategies as st

from kevents._correlation.correlator import LRU

KEYS = st.integers(0, 9)


@given(size=st.integers(1, 6), steps=st.lists(st.tuples(st.booleans(), KEYS), max_size=80))
def test_as_cachetools(size: int, steps: list[tuple[bool, int]]) -> None:
    """Any sequence of reads and writes gives the same keys and answers as cachetools' cache."""
    ours: LRU[int, int] = LRU(size)
    theirs: cachetools.LRUCache[int, int] = cachetools.LRUCache(size)
    forgotten = 0
    for number, (writes, key) in enumerate(steps):
        if writes:
            forgotten += key not in theirs and len(theirs) == size
            ours.put(key, number)
            theirs[key] = number
        else:
            assert ours.get(key) == theirs.get(key)
        assert (len(ours), ours.evictions) == (len(theirs), forgotten)
    assert {key for key in range(10) if ours.get(key) is not None} == set(theirs)


def test_a_read_counts_as_use() -> None:
    """An entry that was read recently survives eviction."""
    cache: LRU[str, int] = LRU(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.get("a")
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.evictions) == (1, None, 3, 1)


def test_a_known_key_forgets_nothing() -> None:
    """Writing an existing key evicts nothing and makes it the most recently used."""
    cache: LRU[str, int] = LRU(2)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    cache.put("c", 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), cache.evictions) == (3, None, 4, 1)


def test_forgotten_entries() -> None:
    """A write returns the evicted value, if any."""
    cache: LRU[str, int] = LRU(1)
    assert [cache.put("a", 1), cache.put("a", 2), cache.put("b", 3)] == [None, None, 2]


def test_reads_in_turns() -> None:
    """The last of two alternating reads counts, even if its key was the most recent one before."""
    cache: LRU[str, int] = LRU(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert [cache.get("a"), cache.get("b")] == [1, 2]
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (None, 2, 3)
