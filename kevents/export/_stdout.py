"""Records as JSON lines on the standard output, or another stream of bytes."""

from __future__ import annotations

import sys
from typing import Protocol

from kevents.export._types import Batch, Mark, Retry, Stream


class Writable(Protocol):
    """What a binary file can do."""

    def write(self, data: bytes, /) -> int | None:
        """Take bytes; give how many were taken."""
        ...

    def flush(self) -> object:
        """Pass on what was taken."""
        ...


class StdoutSink:
    """Writes a record a line, and flushes after each batch. It holds no mark.

    Args:
        stream: Where to; None: the standard output of the process.

    .. versionadded:: 0.1
    """

    holds_marks = False
    final_errors = (BrokenPipeError,)

    def __init__(self, stream: Writable | None = None) -> None:
        """Keep the stream."""
        self._stream = stream

    def write(self, batch: Batch) -> None:
        """Write the records.

        Raises:
            Retry: If the stream takes nothing now.
            BrokenPipeError: If nobody reads any more.
        """
        if not batch.records:
            return
        stream = sys.stdout.buffer if self._stream is None else self._stream
        try:
            stream.write(b"".join(part for record in batch.records for part in (record.line(), b"\n")))
            stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Retry(f"the standard output takes nothing: {error.strerror or error}") from error

    def last_mark(self, stream: Stream) -> Mark | None:  # noqa: ARG002 - what was written is out of reach
        """Give None: what was written cannot be asked."""
        return None

    def close(self) -> None:
        """Leave the stream open: it is the process's."""

    def __repr__(self) -> str:
        """Without anything."""
        return f"{type(self).__name__}()"
