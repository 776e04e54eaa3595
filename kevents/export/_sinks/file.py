"""The file sink: a folder of segments for each stream, so that a crash loses and doubles nothing.

Batches are appended to the open segment, `current.jsonl.gz`, with their position. It always ends with a complete
batch: a torn tail is cut off when the segment is opened. A closed segment is named `{first}-{last}.jsonl.gz`. The last
complete batch holds the position of the stream.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from kevents._model.validation import require_count, require_positive
from kevents.export._model.position import SegmentName, folder_of, segment_name
from kevents.export._model.types import Batch, Position, Stream
from kevents.export._sinks.segments import (
    OPEN,
    BatchHeader,
    FolderLock,
    Format,
    Gzip,
    Plain,
    append,
    disk_errors_retried,
    format_of,
    make_folder,
    open_file,
    replace,
    sync_folder,
    unwritten,
)

_LOGGER: Final = logging.getLogger("kevents.export")
DEFAULT_SEGMENT: Final = 64 << 20
_NANO: Final = 1_000_000_000
_RETENTION_INTERVAL: Final = 60 * _NANO


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a segment is closed, and how long closed segments are kept.

    Attributes:
        max_bytes: The largest size of a segment.
        max_age: Seconds from its first record to the next batch.
        keep: How many closed segments of a stream are kept; None: all.
        keep_for: Seconds for which a closed segment is kept; None: for ever.
    """

    max_bytes: int
    max_age: float
    keep: int | None = None
    keep_for: float | None = None


class FileSink:
    """Writes batches to a folder; each stream has its own folder in it: `{path}/{cluster}/{scope}/`.

    Each batch is one gzip member, or one block of lines, appended and fsynced. A segment is closed by size and age and
    is then named `{first}-{last}.jsonl.gz`. The segments hold the position. Only one process may write to a stream's
    folder.

    Args:
        path: The folder; created when the first batch is written.
        compress: ``gzip`` or ``none``.
        level: The level of compression, 1 to 9.
        max_bytes: A segment is closed before it grows beyond this size.
        max_age: Seconds after its first record at which a segment is closed, with the next batch.
        keep: How many closed segments of a stream are kept; None: all.
        keep_for: Seconds for which a closed segment is kept; None: for ever.

    Raises:
        ValueError: If an option has a wrong value.

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
        """Keep the options; open nothing."""
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
        """Append a batch with its position; records that the folder has already are left out.

        Raises:
            Retry: If the disk is full or fails, or another process writes there.
            ValueError: If the stream's names cannot be made a path.
        """
        folder = self._opened(batch.position.stream)
        new = unwritten(batch, folder.position)
        if new is not None:
            folder.write(new)

    def last_position(self, stream: Stream) -> Position | None:
        """Return the position that the folder has stored; opening it cuts off a torn tail.

        Raises:
            Retry: If it cannot be read now, or another process writes there.
        """
        if stream not in self._folders and not (self._path / folder_of(stream)).exists():
            return None
        return self._opened(stream).position

    def _opened(self, stream: Stream) -> SegmentFolder:
        if stream not in self._folders:
            place = self._path / folder_of(stream)
            with disk_errors_retried("cannot open", place):
                self._folders[stream] = SegmentFolder(place, stream, self._form, self._rotation)
        return self._folders[stream]

    def close(self) -> None:
        """Release the folders. The open segments stay open for the next process."""
        folders, self._folders = self._folders, {}
        for folder in folders.values():
            folder.close()

    def __repr__(self) -> str:
        """Show the path."""
        return f"{type(self).__name__}({str(self._path)!r})"


@dataclass(frozen=True, slots=True)
class ScannedSegment:
    """The content of a segment.

    Attributes:
        first: The first batch with records, if any.
        last: The last batch, if any.
        end: The offset after it.
        damaged: True if there is something before `end` that is no complete batch.
    """

    first: BatchHeader | None
    last: BatchHeader | None
    end: int
    damaged: bool


def scan_segment(path: Path, form: Format) -> ScannedSegment:
    """Read a segment up to its last complete batch."""
    first, last, end, damaged = None, None, 0, False
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        start: int | None = 0
        while start is not None:
            for batch in form.scan(file, start):
                damaged = damaged or start > end
                if first is None and batch.header is not None and batch.header.records:
                    first = batch.header
                last, end = batch.header or last, batch.end
                start = batch.end
            start = form.after(file, start)
    return ScannedSegment(first, last, end, damaged)


class SegmentFolder:
    """The folder of one stream. Used by one thread.

    Args:
        folder: The folder; created if it is missing.
        stream: The stream.
        form: The format of new batches.
        rotation: When segments are closed and removed.

    Raises:
        Retry: If another process writes here.
        OSError: If the disk fails.
    """

    def __init__(self, folder: Path, stream: Stream, form: Format, rotation: Rotation) -> None:
        """Open the folder: cut off a torn tail, find the position."""
        self._folder, self._stream, self._form, self._rotation = folder, stream, form, rotation
        self._part = _open_segment(folder, form)
        self._size = 0  # of the open segment
        self._first: BatchHeader | None = None  # of the open segment
        self._last: BatchHeader | None = None  # of all segments
        self._checked = 0  # when retention was last applied, in nanoseconds
        self._renamed = True  # names have changed since the folder was last synced, maybe in an earlier process
        make_folder(folder)
        self._lock = FolderLock(folder)
        try:
            self._last = self._newest_closed()
            for known in (Plain(), Gzip()):
                self._adopt(known)
        except BaseException:
            self._lock.release()
            raise

    @property
    def position(self) -> Position | None:
        """The position that the folder has stored."""
        return self._last.position if self._last else None

    def close(self) -> None:
        """Let other processes write here."""
        self._lock.release()

    # -- opening

    def _newest_closed(self) -> BatchHeader | None:
        found = self._closed()
        if not found:
            return None
        name, path = found[-1]
        last = scan_segment(path, Gzip() if path.name.endswith(Gzip.suffix) else Plain()).last
        if last is not None and last.position.rv == name.last:
            return last
        return BatchHeader(Position(self._stream, name.last, path.stat().st_mtime_ns), name.first, 0)

    def _adopt(self, form: Format) -> None:
        """Go on with an open segment of an earlier process, or close it if it is damaged or of the other format."""
        part = _open_segment(self._folder, form)
        if not part.exists() and not part.is_symlink():
            return
        found = scan_segment(part, form)
        self._cut(part, found.end)
        if found.last and (not self._last or _order(found.last) >= _order(self._last)):
            self._last = found.last
        if part == self._part and not found.damaged:
            self._size, self._first = found.end, found.first
            return
        if found.damaged:
            _LOGGER.error("%s: damaged in the middle; it is closed as it is, and read as far as possible", part)
        if found.last and (found.damaged or found.first):
            self._rename(part, form, found.first or found.last, found.last)
        elif found.last:  # only a position: written again in the current format
            replace(self._part, self._form.encode((), found.last))
            self._size = self._part.stat().st_size
            part.unlink()

    def _cut(self, part: Path, end: int) -> None:
        size = part.stat().st_size
        if size == end:
            return
        _LOGGER.warning("%s: cut off %d bytes of an incomplete batch", part, size - end)
        with os.fdopen(open_file(part, os.O_RDWR), "r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())

    # -- writing

    def write(self, new: Batch) -> None:
        """Append a batch; it is durable when this returns.

        Raises:
            Retry: If the disk is full or fails; no part of the batch remains then.
        """
        header = BatchHeader.of(new)
        data = self._form.encode((record.line() for record in new.records), header)
        with disk_errors_retried("cannot write", self._part):
            if self._is_due(header, len(data)):
                self._rotate()
            self._sync_names()
            if self._first is None and not new.records:
                replace(self._part, data)  # positions without records do not pile up
                self._size = len(data)
            else:
                self._renamed = not self._part.exists()
                # The file may be shorter (someone has replaced it) or longer (a failed attempt was not undone).
                size = append(self._part, data, lambda handle: min(self._size, os.fstat(handle).st_size))
                self._sync_names()
                self._size = size  # last: a batch whose name is not durable is written again in the same place
        self._first = self._first or (header if new.records else None)
        self._last = header
        self._remove_old(new.position.time)

    def _is_due(self, header: BatchHeader, more: int) -> bool:
        if self._first is None or self._last is None:
            return False
        age = (header.position.time - self._first.position.time) / _NANO
        return age >= self._rotation.max_age or self._size + more > self._rotation.max_bytes

    def _rotate(self) -> None:
        if self._first and self._last:
            self._rename(self._part, self._form, self._first, self._last)
        self._size, self._first, self._checked = 0, None, 0

    def _rename(self, part: Path, form: Format, first: BatchHeader, last: BatchHeader) -> None:
        name = SegmentName(last.position.rv, first.first).file(form.suffix)
        with suppress(FileNotFoundError):  # someone has removed it
            part.replace(self._folder / name)
        self._renamed = True

    def _sync_names(self) -> None:
        if self._renamed:
            sync_folder(self._folder)
            self._renamed = False

    # -- retention

    def _closed(self) -> list[tuple[SegmentName, Path]]:
        return sorted((name, path) for path in self._folder.iterdir() if (name := segment_name(path.name)))

    def _remove_old(self, now: int) -> None:
        """Remove old closed segments. The open one holds the position, so all closed ones may go."""
        keep, keep_for = self._rotation.keep, self._rotation.keep_for
        if (keep is None and keep_for is None) or 0 <= now - self._checked < _RETENTION_INTERVAL:
            return
        self._checked = now
        closed = [path for _, path in self._closed()]
        surplus = closed[: max(len(closed) - keep, 0)] if keep is not None else []
        with suppress(OSError):  # retried after a later batch
            for path in closed:
                if path in surplus or (keep_for and (now - path.stat().st_mtime_ns) / _NANO >= keep_for):
                    path.unlink()


def _open_segment(folder: Path, form: Format) -> Path:
    return folder / f"{OPEN}{form.suffix}"


def _order(header: BatchHeader) -> tuple[int, int]:
    return header.position.rv, header.position.time
