"""Local files beside the destinations: positions that they cannot hold themselves, and records that they refuse."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from time import time_ns
from typing import Final

import msgspec

from kevents._model.wire import clip, format_micro_time
from kevents.exceptions import KeventsError
from kevents.export._model.position import VERSION, position_as_json, position_from_json, verify_checksum, with_checksum
from kevents.export._model.types import Batch, Position, Record, Sink, Stream
from kevents.export._sinks.segments import append, disk_errors_retried, make_folder, replace, sync_folder

_LONGEST_REASON: Final = 2000  # characters
_BLOCK: Final = 1 << 16


class CheckpointError(KeventsError, ValueError):
    """A checkpoint cannot be read: it is damaged, or was written by a later version of kevents."""


class Checkpointed:
    """A sink whose position is kept in a local file, written after each acknowledgement.

    After a crash between the two, one batch is written again. While only the file cannot be written, the batch is not
    sent again. After a :class:`Reject` the position stays: the exporter writes an empty batch with it once the refused
    records are in the dead letters. Each sink needs its own file.

    Args:
        sink: The destination.
        path: The file; created with its folder when the first position is written.
    """

    def __init__(self, sink: Sink, path: str | os.PathLike[str]) -> None:
        self._sink = sink
        self.final_errors = (CheckpointError, *getattr(sink, "final_errors", ()))
        self._path = Path(path)
        self._positions: dict[Stream, Position] | None = None
        self._sent: Batch | None = None  # acknowledged, while its position is not in the file

    def write(self, batch: Batch) -> None:
        """Write to the destination, then save the position.

        Raises:
            Retry: If one of the two fails for now.
            Reject: As the destination does.
            CheckpointError: If the file cannot be read.
        """
        positions = {**self._read(), batch.position.stream: batch.position}
        if batch.records and batch is not self._sent:
            self._sink.write(batch)
        self._sent = batch
        with disk_errors_retried("cannot write the checkpoint", self._path):
            make_folder(self._path.parent)
            values = [with_checksum(position_as_json(position)) for position in positions.values()]
            replace(self._path, json.dumps({"v": VERSION, "positions": values}, indent=1).encode() + b"\n")
        self._positions, self._sent = positions, None

    def last_position(self, stream: Stream) -> Position | None:
        """Return the position in the file.

        Raises:
            Retry: If the file cannot be read now.
            CheckpointError: If its content cannot be read.
        """
        return self._read().get(stream)

    def _read(self) -> dict[Stream, Position]:
        if self._positions is None:
            with disk_errors_retried("cannot read the checkpoint", self._path):
                try:
                    data = self._path.read_bytes()
                except FileNotFoundError:
                    data = None
            self._positions = {} if data is None else _from_json(data, self._path)
        return self._positions

    def close(self) -> None:
        """Close the destination."""
        self._sink.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._sink!r}, {str(self._path)!r})"


def _from_json(data: bytes, path: Path) -> dict[Stream, Position]:
    try:
        value = json.loads(data)
        if not isinstance(value, dict) or value.get("v") != VERSION or not isinstance(value.get("positions"), list):
            raise ValueError(f"not a checkpoint of version {VERSION}")  # noqa: TRY301 - as any other error of its text
        found = [position_from_json(position) for position in value["positions"]]
        for position in value["positions"]:
            verify_checksum(position)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read ({error}): restore an earlier one, or remove it, "
            "and everything that the cluster still holds is written again"
        ) from None
    return {position.stream: position for position in found}


class DeadLetters:
    """Appends records to a file, each with the key `rejected` under `kevents`: the sink, the reason, the time.

    Several threads may write. A line that a crash has torn is cut off before the next write.

    Args:
        path: The file; created with its folder when the first record is written.
        clock: Returns the current time, in nanoseconds since the epoch.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Callable[[], int] = time_ns) -> None:
        self._path = Path(path)
        self._clock = clock
        self._lock = Lock()  # guards the file's end

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
        data = b"".join(msgspec.json.encode(body) + b"\n" for body in bodies)
        with self._lock, disk_errors_retried("cannot write dead letters to", self._path):
            is_new = not self._path.exists()
            if is_new:
                make_folder(self._path.parent)
            append(self._path, data, _end_of_lines)
            if is_new:
                sync_folder(self._path.parent)

    def __repr__(self) -> str:
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
