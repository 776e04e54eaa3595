"""Dead letters: records that a destination refuses, in a file of JSON lines with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from time import time_ns
from typing import Final

import msgspec

from kevents._model.wire import clip, format_micro_time
from kevents.export._model.types import Record
from kevents.export._sinks.segments import append, disk_errors_retried, make_folder, sync_folder

_ENCODER: Final = msgspec.json.Encoder()
_LONGEST_REASON: Final = 2000  # characters
_BLOCK: Final = 1 << 16


class DeadLetters:
    """Appends records to a file, each with the key `rejected` under `kevents`: the sink, the reason, the time.

    Several threads may write. A line that a crash has torn is cut off before the next write.

    Args:
        path: The file; created with its folder when the first record is written.
        clock: Returns the current time, in nanoseconds since the epoch.

    .. versionadded:: 0.1
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], int] = time_ns) -> None:
        self._path = Path(path)
        self._clock = clock
        self._lock = Lock()  # guards the file's end and the counter
        self._written = 0

    @property
    def written(self) -> int:
        """The number of records that this process has written."""
        return self._written

    def write(self, sink: str, records: Sequence[Record], why: str) -> None:
        """Write records; they are durable when this returns.

        Args:
            sink: The name of the sink that refuses them.
            records: The refused records.
            why: The reason, without secrets.

        Raises:
            Retry: If the disk is full or fails; none of the records is written then.
        """
        rejected = {"sink": sink, "why": clip(why, _LONGEST_REASON), "time": format_micro_time(self._clock())}
        bodies = ({**each.body, "kevents": {**each.body["kevents"], "rejected": rejected}} for each in records)
        data = b"".join(_ENCODER.encode(body) + b"\n" for body in bodies)
        with self._lock, disk_errors_retried("cannot write dead letters to", self._path):
            is_new = not self._path.exists()
            if is_new:
                make_folder(self._path.parent)
            append(self._path, data, _end_of_lines)
            if is_new:
                sync_folder(self._path.parent)
            self._written += len(records)

    def close(self) -> None:
        """Do nothing: the file is open only during a write."""

    def __repr__(self) -> str:
        """Show the path."""
        return f"{type(self).__name__}({str(self._path)!r})"


def _end_of_lines(handle: int) -> int:
    """Return the offset after the last complete line."""
    end = os.lseek(handle, 0, os.SEEK_END)
    while end > 0:
        start = max(end - _BLOCK, 0)
        os.lseek(handle, start, os.SEEK_SET)
        found = os.read(handle, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
