"""A backlog in order, however it came: in memory up to a number of bytes, beyond that in a temporary file."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from operator import itemgetter
from typing import IO, Any, Final

Item = tuple[int, bytes]

_OVERHEAD: Final = 120
"""What an item takes in memory besides its own bytes."""


class Backlog:
    """Items with a number each, given back in the order of the numbers; a context manager.

    Args:
        most: How many bytes to keep in memory.
    """

    def __init__(self, most: int) -> None:
        """Hold nothing, and no file."""
        self._most = most
        self._items: list[Item] = []
        self._size = 0
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []
        self._count = 0

    def __len__(self) -> int:
        """How many items there are."""
        return self._count

    @property
    def spilled(self) -> int:
        """How many bytes are in the file."""
        return self._runs[-1][1] if self._runs else 0

    def add(self, number: int, item: bytes) -> None:
        """Add an item.

        Raises:
            OSError: It does not fit into memory, and the temporary folder does not take it.
        """
        self._items.append((number, item))
        self._count += 1
        self._size += len(item) + _OVERHEAD
        if self._size > self._most:
            self._spill()

    def in_order(self) -> Iterator[Item]:
        """Give the items; what has been given is forgotten."""
        self._items.sort(key=itemgetter(0))
        newest = iter(self._items)
        if not self._runs:
            return newest
        return heapq.merge(*(self._run(start, end) for start, end in self._runs), newest, key=itemgetter(0))

    def close(self) -> None:
        """Let go of everything."""
        self._items, self._runs = [], []
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Backlog:
        """Use it until the end of the block."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Let go of everything."""
        self.close()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="kevents-")  # noqa: SIM115 - it lives as long as the backlog
        start = self.spilled
        self._items.sort(key=itemgetter(0))
        for number, item in self._items:
            self._file.write(b"%d %d\n" % (number, len(item)) + item)
        self._file.flush()
        self._runs.append((start, self._file.tell()))
        self._items, self._size = [], 0

    def _run(self, at: int, end: int) -> Iterator[Item]:
        while at < end:
            file: Any = self._file
            file.seek(at)  # the runs are read in turns
            number, size = file.readline().split()
            item = file.read(int(size))
            at = file.tell()
            yield int(number), item
