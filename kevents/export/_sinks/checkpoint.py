"""Positions in a file, for destinations that cannot hold one themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from kevents.exceptions import KeventsError
from kevents.export._model.position import VERSION, position_as_json, position_from_json
from kevents.export._model.types import Batch, Position, Sink, Stream
from kevents.export._sinks.disk import make_folder, replace, retried


class CheckpointError(KeventsError, ValueError):
    """A checkpoint cannot be read: it is damaged, or of a later kevents.

    .. versionadded:: 0.1
    """


class Checkpointed:
    """A sink with the position beside it: written to a file after the destination's acknowledgement.

    A crash between the two writes one batch again; while only the file cannot be written, the batch is not. After a
    :class:`Reject` the position stays where it was; an empty batch with the position, written after the dead letters,
    moves it on. Each sink has a file of its own.

    Args:
        sink: The destination.
        path: The file; made, with its folder, when the first position comes.

    .. versionadded:: 0.1
    """

    def __init__(self, sink: Sink, path: str | os.PathLike[str]) -> None:
        """Keep both; read nothing."""
        self._sink = sink
        self.final_errors = (CheckpointError, *getattr(sink, "final_errors", ()))
        self._path = Path(path)
        self._positions: dict[Stream, Position] | None = None
        self._taken: Batch | None = None  # by the destination, while its position is not in the file

    def write(self, batch: Batch) -> None:
        """Write to the destination, then the position.

        Raises:
            Retry: If one of the two is not possible now.
            Reject: As the destination does.
            CheckpointError: If the file cannot be understood.
        """
        positions = {**self._read(), batch.position.stream: batch.position}
        if batch.records and batch is not self._taken:
            self._sink.write(batch)
        self._taken = batch
        with retried("cannot write the checkpoint", self._path):
            make_folder(self._path.parent)
            replace(self._path, _as_text(positions))
        self._positions, self._taken = positions, None

    def last_position(self, stream: Stream) -> Position | None:
        """Give the position that the file holds.

        Raises:
            Retry: If it cannot be read now.
            CheckpointError: If the file cannot be understood.
        """
        return self._read().get(stream)

    def _read(self) -> dict[Stream, Position]:
        if self._positions is None:
            with retried("cannot read the checkpoint", self._path):
                try:
                    data = self._path.read_bytes()
                except FileNotFoundError:
                    data = None
            self._positions = {} if data is None else _from_text(data, self._path)
        return self._positions

    def close(self) -> None:
        """Let go of the destination."""
        self._sink.close()

    def __repr__(self) -> str:
        """With the destination and the place."""
        return f"{type(self).__name__}({self._sink!r}, {str(self._path)!r})"


def _as_text(positions: dict[Stream, Position]) -> bytes:
    value: dict[str, Any] = {"v": VERSION, "positions": [position_as_json(position) for position in positions.values()]}
    return json.dumps(value, indent=1).encode() + b"\n"


def _from_text(data: bytes, path: Path) -> dict[Stream, Position]:
    try:
        value = json.loads(data)
        if not isinstance(value, dict) or value.get("v") != VERSION or not isinstance(value.get("positions"), list):
            raise ValueError(f"not the form of version {VERSION}")  # noqa: TRY301 - as any other fault of its text
        positions = [position_from_json(position) for position in value["positions"]]
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be understood ({error}): put an earlier one back, or remove it, "
            "and everything that the cluster still holds is written again"
        ) from None
    return {position.stream: position for position in positions}
