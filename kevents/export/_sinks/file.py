"""A folder of segments: each batch appended with its mark and made durable, so a crash loses and doubles nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from kevents._model.validation import require_count, require_positive
from kevents.export._model.paths import place_of
from kevents.export._model.types import Batch, Position, Stream
from kevents.export._sinks.dedup import news
from kevents.export._sinks.disk import retried
from kevents.export._sinks.members import format_of
from kevents.export._sinks.segments import Rotation, SegmentFolder

DEFAULT_SEGMENT: Final = 64 << 20


class FileSink:
    """Writes batches to a folder, for each stream a folder of its own in it: `{path}/{cluster}/{scope}/`.

    Each batch is one gzip member, or one block of lines, appended and fsynced; a segment is closed by size and age and
    gets the name `{first}-{last}.jsonl.gz`. The mark lies in the segments. One process writes to a stream's folder.

    Args:
        path: The folder; made when the first batch comes.
        compress: ``gzip`` or ``none``.
        level: Of compression, 1 to 9.
        max_bytes: A segment is closed before it grows beyond this.
        max_age: Seconds after its first record that a segment is closed, with the next batch.
        keep: How many closed segments of a stream are kept; None: all.
        keep_for: Seconds for which a closed segment is kept; None: for ever.

    Raises:
        ValueError: If a value is none of these.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        compress: Literal["gzip", "none"] = "gzip",
        level: int = 6,
        max_bytes: int = DEFAULT_SEGMENT,
        max_age: float = 3600.0,
        keep: int | None = None,
        keep_for: float | None = None,
    ) -> None:
        """Keep the values; touch nothing."""
        self._path = Path(path)
        self._form = format_of(compress, level)
        self._rotation = Rotation(
            require_count("max_bytes", max_bytes),
            require_positive("max_age", max_age),
            None if keep is None else require_count("keep", keep),
            None if keep_for is None else require_positive("keep_for", keep_for),
        )
        self._folders: dict[Stream, SegmentFolder] = {}

    def write(self, batch: Batch) -> None:
        """Append a batch with its mark; what the folder holds already is left out.

        Raises:
            Retry: If the disk does not take it, or another process writes there.
            ValueError: If no place can be made of the stream's names.
        """
        folder = self._opened(batch.mark.stream)
        new = news(batch, folder.mark)
        if new is not None:
            folder.write(new)

    def last_mark(self, stream: Stream) -> Position | None:
        """Give how far the folder holds a stream; opening it cuts off what a crash has torn.

        Raises:
            Retry: If it cannot be read now, or another process writes there.
        """
        if stream not in self._folders and not (self._path / place_of(stream)).exists():
            return None
        return self._opened(stream).mark

    def _opened(self, stream: Stream) -> SegmentFolder:
        if stream not in self._folders:
            place = self._path / place_of(stream)
            with retried("cannot open", place):
                self._folders[stream] = SegmentFolder(place, stream, self._form, self._rotation)
        return self._folders[stream]

    def close(self) -> None:
        """Let other processes write there; the open segments stay open for the next one."""
        folders, self._folders = self._folders, {}
        for folder in folders.values():
            folder.close()

    def __repr__(self) -> str:
        """With the place."""
        return f"{type(self).__name__}({str(self._path)!r})"
