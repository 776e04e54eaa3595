"""A short queue between two threads, and chunks cut to a size that it can hold."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Final

from kevents.export._model.types import Chunk, Position

PIECE: Final = 500
"""Records in one piece of a chunk, and records at which the queue is full."""


class BoundedQueue:
    """A short queue of chunks between two threads; `put` waits while it is full.

    Args:
        limit: Records at which it is full.
    """

    def __init__(self, limit: int = PIECE) -> None:
        """Create an empty queue."""
        self._limit = limit
        self._chunks: deque[Chunk] = deque()
        self._items = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, chunk: Chunk) -> bool:
        """Add a chunk, once there is space; False if the queue is closed."""
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

        Args:
            timeout: Seconds to wait; None: without end.

        Raises:
            TimeoutError: If there is none in this time.
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

    def get_all(self, limit: int = PIECE) -> Chunk | None:
        """Take the chunks that are queued as one, once there is one; None at the end.

        Args:
            limit: Records in the result, unless the first chunk has more.
        """
        chunk = self.get()
        if chunk is None:
            return None
        records, position = list(chunk.records), chunk.position
        with self._changed:
            while self._chunks and len(records) + len(self._chunks[0].records) <= limit:
                chunk = self._chunks.popleft()
                self._items -= max(len(chunk.records), 1)
                records += chunk.records
                position = chunk.position
            self._changed.notify_all()
        return Chunk(records, position)

    def close(self) -> None:
        """Accept no more chunks; those in the queue can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Accept no more chunks, and discard those in the queue."""
        with self._changed:
            self._closed = True
            self._chunks.clear()
            self._changed.notify_all()


def pieces(chunk: Chunk, before: Position | None, size: int = PIECE) -> Iterator[Chunk]:
    """Cut a long chunk into pieces; records of one resourceVersion stay together.

    Args:
        chunk: The chunk.
        before: The position of the stream before it; None: the chunk is the first. Its time is that of all pieces but
            the last, because older events may follow within the chunk.
        size: Records in a piece.
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
