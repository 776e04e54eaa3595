"""Records as JSON lines on the standard output, or another stream of bytes."""

from __future__ import annotations

import errno
import os
import sys
from typing import Protocol

from kevents.export._model.types import Batch, Position, Retry, Stream


class Writable(Protocol):
    """What a binary file can do."""

    def write(self, data: bytes, /) -> int | None:
        """Take bytes; give how many were taken, which may be a part of them; None: none now."""
        ...

    def flush(self) -> object:
        """Pass on what was taken."""
        ...


class StdoutSink:
    """Writes a record a line, and flushes after each batch. It holds no position.

    Args:
        stream: Where to; None: the standard output of the process.

    .. versionadded:: 0.1
    """

    holds_positions = False
    final_errors = (BrokenPipeError,)

    def __init__(self, stream: Writable | None = None) -> None:
        """Keep the stream."""
        self._stream = stream
        self._batch: Batch | None = None  # that is being written
        self._left = b""  # of it
        self._midway = False  # whether a line has been written in part

    def write(self, batch: Batch) -> None:
        """Write the records; after a failure what is left of them, so that no line is torn.

        Raises:
            Retry: If the stream takes nothing now.
            BrokenPipeError: If nobody reads any more.
        """
        if not batch.records:
            return
        if batch is not self._batch:
            torn = self._left[: self._left.index(b"\n") + 1] if self._midway else b""  # of a batch that was given up
            self._left = torn + b"".join(part for record in batch.records for part in (record.line(), b"\n"))
            self._batch = batch
        try:
            self._write_left(sys.stdout.buffer if self._stream is None else self._stream)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Retry(f"the standard output takes nothing: {error.strerror or error}") from error
        self._batch = None

    def _write_left(self, stream: Writable) -> None:
        stream.flush()  # what others have written comes first
        raw = getattr(stream, "raw", stream)  # a buffer does not say how much it took of what failed
        while self._left:
            taken = raw.write(self._left)
            if not taken:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._midway = self._left[taken - 1 : taken] != b"\n"
            self._left = self._left[taken:]
        stream.flush()

    def last_position(self, stream: Stream) -> Position | None:  # noqa: ARG002 - what was written is out of reach
        """Give None: what was written cannot be asked."""
        return None

    def close(self) -> None:
        """Leave the stream open: it is the process's."""

    def __repr__(self) -> str:
        """Without anything."""
        return f"{type(self).__name__}()"
