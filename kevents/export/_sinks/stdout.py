"""Records as JSON lines on the standard output or another binary stream."""

from __future__ import annotations

import errno
import os
import sys
from typing import Protocol

from kevents.export._model.types import Batch, Retry, SinkWithoutPosition


class Writable(Protocol):
    """A binary stream."""

    def write(self, data: bytes, /) -> int | None:
        """Write bytes; return how many were accepted, None if none can be accepted now."""

    def flush(self) -> object:
        """Pass on buffered bytes."""


class StdoutSink(SinkWithoutPosition):
    """Writes one record a line, and flushes after each batch. It holds no position.

    Args:
        stream: The binary stream; None: the standard output of the process.

    .. versionadded:: 0.1
    """

    final_errors = (BrokenPipeError,)

    def __init__(self, stream: Writable | None = None) -> None:
        self._stream = stream
        self._batch: Batch | None = None  # the batch that is being written
        self._left = b""  # its unwritten bytes
        self._in_line = False  # True if a line was written in part

    def write(self, batch: Batch) -> None:
        """Write the records. After a failure it continues where it stopped, so that no line is torn.

        Raises:
            Retry: If the stream accepts nothing now.
            BrokenPipeError: If the reader has closed the pipe.
        """
        if not batch.records:
            return
        if batch is not self._batch:
            torn = self._left[: self._left.index(b"\n") + 1] if self._in_line else b""  # of a batch that was given up
            self._left = torn + b"".join(part for record in batch.records for part in (record.line(), b"\n"))
            self._batch = batch
        try:
            self._write_left(sys.stdout.buffer if self._stream is None else self._stream)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Retry(f"the standard output accepts nothing: {error.strerror or error}") from error
        self._batch = None

    def _write_left(self, stream: Writable) -> None:
        stream.flush()  # earlier output of others comes first
        raw = getattr(stream, "raw", stream)  # a buffered stream does not report how much it wrote before an error
        while self._left:
            taken = raw.write(self._left)
            if not taken:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            self._in_line = self._left[taken - 1 : taken] != b"\n"
            self._left = self._left[taken:]
        stream.flush()

    def close(self) -> None:
        """Leave the stream open: it belongs to the process."""

    def __repr__(self) -> str:
        """Show the type only."""
        return f"{type(self).__name__}()"
