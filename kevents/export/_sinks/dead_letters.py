"""Records that a destination never takes, in a file of JSON lines with the reason, so that nothing is lost unseen."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from time import time_ns
from typing import Any, Final

import msgspec

from kevents._model.wire import clip, format_micro_time
from kevents.export._model.types import Record
from kevents.export._sinks.disk import make_folder, retried, sync_folder, write_all

_ENCODER: Final = msgspec.json.Encoder()
_LONGEST_REASON: Final = 2000
_PIECE: Final = 1 << 16


class DeadLetters:
    """Appends records to a file, each with the key `rejected` under `kevents`: the sink, the reason, the time.

    Several threads may write. What a crash has torn is cut off before the next record.

    Args:
        path: The file; made, with its folder, when the first record comes.
        clock: The present, in nanoseconds since the epoch.

    .. versionadded:: 0.1
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], int] = time_ns) -> None:
        """Keep the path."""
        self._path = Path(path)
        self._clock = clock
        self._lock = Lock()  # guards the file's end and the counter
        self._written = 0

    @property
    def written(self) -> int:
        """How many records this process has written."""
        return self._written

    def write(self, sink: str, records: Sequence[Record], why: str) -> None:
        """Write records; they are durable when this returns.

        Args:
            sink: The name of the sink that does not take them.
            records: Which.
            why: The reason, without secrets.

        Raises:
            Retry: If the disk does not take them; none of them is written then.
        """
        told = {"sink": sink, "why": clip(why, _LONGEST_REASON), "time": format_micro_time(self._clock())}
        data = b"".join(_ENCODER.encode(_with(record.body, told)) + b"\n" for record in records)
        with self._lock, retried("cannot write dead letters to", self._path):
            self._append(data)
            self._written += len(records)

    def _append(self, data: bytes) -> None:
        is_new = not self._path.exists()
        if is_new:
            make_folder(self._path.parent)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            end = _end_of_lines(handle)
            os.ftruncate(handle, end)
            try:
                write_all(handle, data)
                os.fsync(handle)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(handle, end)
                raise
        finally:
            os.close(handle)
        if is_new:
            sync_folder(self._path.parent)

    def close(self) -> None:
        """Do nothing: the file is open only while it is written."""

    def __repr__(self) -> str:
        """With the place."""
        return f"{type(self).__name__}({str(self._path)!r})"


def _with(body: dict[str, Any], told: dict[str, str]) -> dict[str, Any]:
    return {**body, "kevents": {**body["kevents"], "rejected": told}}


def _end_of_lines(handle: int) -> int:
    """Give the offset after the last line that is whole."""
    end = os.lseek(handle, 0, os.SEEK_END)
    while end > 0:
        start = max(end - _PIECE, 0)
        os.lseek(handle, start, os.SEEK_SET)
        found = os.read(handle, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
