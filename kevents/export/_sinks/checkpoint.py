"""Positions in a local file, for destinations that cannot hold one themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path

from kevents.exceptions import KeventsError
from kevents.export._model.position import VERSION, position_as_json, position_from_json, verify_checksum, with_checksum
from kevents.export._model.types import Batch, Position, Sink, Stream
from kevents.export._sinks.segments import disk_errors_retried, make_folder, replace


class SinkWithoutPosition:
    """Base class of sinks that hold no position; :class:`Checkpointed` keeps it for them."""

    holds_positions = False

    def last_position(self, stream: Stream) -> Position | None:  # noqa: ARG002 - the same for every stream
        """Return None: the destination cannot be asked."""
        return None


class CheckpointError(KeventsError, ValueError):
    """A checkpoint cannot be read: it is damaged, or was written by a later version of kevents.

    .. versionadded:: 0.1
    """


class Checkpointed:
    """A sink whose position is kept in a local file, written after each acknowledgement.

    After a crash between the two, one batch is written again. While only the file cannot be written, the batch is not
    sent again. After a :class:`Reject` the position stays: the exporter writes an empty batch with it once the refused
    records are in the dead letters. Each sink needs its own file.

    Args:
        sink: The destination.
        path: The file; created with its folder when the first position is written.

    .. versionadded:: 0.1
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
        """Show the destination and the path."""
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
