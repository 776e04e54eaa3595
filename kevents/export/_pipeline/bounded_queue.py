"""What lies between the two threads of a stream: a short queue, and chunks cut to a size that it can hold."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from kevents.export._model.types import Chunk, Position

PIECE: Final = 500
"""Records that are handed over at once, and that a hand-off holds before it is full."""


class BoundedQueue:
    """A short queue between two threads; the writing side waits while it is full.

    Args:
        limit: Records at which it is full.
    """

    def __init__(self, limit: int = PIECE) -> None:
        """Start empty."""
        self._limit = limit
        self._chunks: deque[Chunk] = deque()
        self._items = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, chunk: Chunk) -> bool:
        """Add a chunk, once there is room; False if none will be taken any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items < self._limit)
            if self._closed:
                return False
            self._chunks.append(chunk)
            self._items += max(len(chunk.records), 1)
            self._changed.notify_all()
            return True

    def get(self, timeout: float | None = None) -> Chunk | None:
        """Take the next chunk, once there is one; None at the end.

        Raises:
            TimeoutError: If there is none for so many seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._chunks, timeout):
                raise TimeoutError
            if not self._chunks:
                return None
            chunk = self._chunks.popleft()
            self._items -= max(len(chunk.records), 1)
            self._changed.notify_all()
            return chunk

    def close(self) -> None:
        """Nothing more comes; what is there is still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nothing more comes, and nothing is taken any more."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._changed.notify_all()


def pieces(chunk: Chunk, before: Position | None, size: int = PIECE) -> Iterator[Chunk]:
    """Cut a long chunk, so that no hand-over is large; records of one resourceVersion stay together.

    Args:
        chunk: What was read.
        before: How far the stream had been read before it. Older events may follow within a chunk, so up to its end
            everything is there until that moment only; None: it is the first, and its own time all that is known.
        size: How many records to a piece.
    """
    records = chunk.records
    time = (before or chunk.position).time
    start = 0
    while len(records) - start > size:
        end = start + size
        while end < len(records) and records[end].rv == records[end - 1].rv:
            end += 1
        if end == len(records):
            break
        yield Chunk(records[start:end], Position(chunk.position.stream, records[end - 1].rv, time))
        start = end
    yield Chunk(records[start:], chunk.position) if start else chunk
