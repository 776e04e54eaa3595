"""The standard output, and the file sink: a folder of segments a stream, so that a crash loses and doubles nothing.

Batches are appended to the open segment, `dt={date}/current.jsonl.gz`, with their position. It always ends with a
complete batch: a torn tail is cut off when the segment is opened. A closed segment is named `{first}-{last}.jsonl.gz`.
The last complete batch holds the position of the stream. The date is that of the position, as in an object store.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from kevents._model.validation import require_count, require_positive
from kevents.export._model.position import SegmentName, folder_of, segment_name
from kevents.export._model.types import SECOND, Batch, Position, Retry, SinkWithoutPosition, Stream, day_folder
from kevents.export._sinks.segments import (
    OPEN,
    BatchHeader,
    Format,
    Gzip,
    Plain,
    append,
    disk_errors_retried,
    format_of,
    lock_folder,
    make_folder,
    open_file,
    order_of,
    replace,
    sync_folder,
    unwritten,
)

_LOGGER: Final = logging.getLogger("kevents.export")
DEFAULT_SEGMENT: Final = 64 << 20
_RETENTION_INTERVAL: Final = 60 * SECOND
_DAYS: Final = "dt=*"


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a segment is closed, and how long closed segments are kept."""

    max_bytes: int
    max_age: float  # seconds from the first record to the next batch
    keep: int | None = None  # closed segments of a stream; None: all
    keep_for: float | None = None  # seconds; None: for ever


class FileSink:
    """Writes batches to a folder; each stream has its own folder in it, with one for each day.

    Each batch is one gzip member, or one block of lines, appended and fsynced. A segment is closed by size, by age and
    at midnight UTC, and is then `{path}/{cluster}/{scope}/dt={date}/{first}-{last}.jsonl.gz`. The segments hold the
    position. Only one process may write to a stream's folder.

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
        return f"{type(self).__name__}({str(self._path)!r})"


@dataclass(frozen=True, slots=True)
class ScannedSegment:
    """The content of a segment."""

    first: BatchHeader | None  # of the first batch with records
    last: BatchHeader | None
    end: int  # the offset after the last complete batch
    damaged: bool  # True if something before `end` is no complete batch


def scan_segment(path: Path, form: Format) -> ScannedSegment:
    """Read a segment up to its last complete batch."""
    first, last, end, damaged = None, None, 0, False
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        start: int | None = 0
        while start is not None:
            for header, after in form.scan(file, start):
                damaged = damaged or start > end
                if first is None and header is not None and header.records:
                    first = header
                last, start, end = header or last, after, after
            start = form.after(file, start)
    return ScannedSegment(first, last, end, damaged)


class SegmentFolder:
    """The folder of one stream, for one thread. Raises Retry if another process writes here, and OSError."""

    def __init__(self, folder: Path, stream: Stream, form: Format, rotation: Rotation) -> None:
        self._folder, self._stream, self._form, self._rotation = folder, stream, form, rotation
        self._name = f"{OPEN}{form.suffix}"  # of an open segment
        self._part: Path | None = None  # the open segment
        self._size = 0  # of the open segment
        self._first: BatchHeader | None = None  # of the open segment
        self._last: BatchHeader | None = None  # of all segments
        self._checked = 0  # when retention was last applied, in nanoseconds
        make_folder(folder)
        self._unsynced = {folder}  # folders whose names have changed, maybe in an earlier process
        self._lock = lock_folder(folder)
        try:
            self._last = self._newest_closed()
            self._adopt()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def position(self) -> Position | None:
        return self._last.position if self._last else None

    def close(self) -> None:
        """Let other processes write here."""
        os.close(self._lock)

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

    def _adopt(self) -> None:
        """Go on with the newest open segment of an earlier process. Others are closed, and damaged ones, too."""
        forms = {f"{OPEN}{form.suffix}": form for form in (Plain(), Gzip())}
        parts = [part for part in self._folder.glob(f"{_DAYS}/{OPEN}.*") if part.name in forms]
        found = [(scan_segment(part, forms[part.name]), part) for part in parts]
        for content, part in sorted(found, key=lambda each: order_of(each[0].last)):
            is_newest = order_of(content.last) == max(order_of(each.last) for each, _ in found)
            self._unsynced.add(part.parent)
            self._cut(part, content.end)
            if content.damaged:
                _LOGGER.error("%s: damaged in the middle; it is closed as it is, and read as far as possible", part)
            if is_newest and part.name == self._name and not content.damaged:
                self._part, self._size, self._first = part, content.end, content.first
            elif content.last and (content.damaged or content.first):
                self._rename(part, content.first or content.last, content.last)
            elif content.last and is_newest:  # only a position: written again in the current format
                self._part, data = part.with_name(self._name), self._form.encode((), content.last)
                replace(self._part, data)
                self._size = len(data)
                part.unlink()
            if content.last and order_of(content.last) >= order_of(self._last):
                self._last = content.last

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
        """Append a batch durably. Raises Retry if the disk is full or fails; no part of the batch remains then."""
        header = BatchHeader.of(new)
        data = self._form.encode((record.line() for record in new.records), header)
        part = self._folder / day_folder(new.position.time) / self._name
        with disk_errors_retried("cannot write", part):
            if part != self._part or self._is_due(header, len(data)):
                self._begin(part)
            self._sync_names()
            if self._first is None and not new.records:
                replace(part, data)  # positions without records do not pile up
                self._size = len(data)
            else:
                if not part.exists():
                    self._unsynced.add(part.parent)
                # The file may be shorter (someone has replaced it) or longer (a failed attempt was not undone).
                size = append(part, data, lambda handle: min(self._size, os.fstat(handle).st_size))
                self._sync_names()
                self._size = size  # last: a batch whose name is not durable is written again in the same place
        self._first = self._first or (header if new.records else None)
        self._last = header
        self._remove_old(new.position.time)

    def _is_due(self, header: BatchHeader, more: int) -> bool:
        if self._first is None:
            return False
        age = (header.position.time - self._first.position.time) / SECOND
        return age >= self._rotation.max_age or self._size + more > self._rotation.max_bytes

    def _begin(self, part: Path) -> None:
        """Close the open segment, and begin another; one that holds only a position moves to the new place."""
        if not part.parent.exists():
            part.parent.mkdir()
            self._unsynced.add(self._folder)
        if part.parent.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if self._part is not None and self._first and self._last:
            self._rename(self._part, self._first, self._last)
            self._size, self._first, self._checked = 0, None, 0
        elif self._part is not None and self._part != part:
            self._move(self._part, part)
        self._part = part

    def _rename(self, part: Path, first: BatchHeader, last: BatchHeader) -> None:
        self._move(part, part.with_name(SegmentName(last.position.rv, first.first).file(part.name.removeprefix(OPEN))))

    def _move(self, part: Path, to: Path) -> None:
        with suppress(FileNotFoundError):  # someone has removed it
            part.replace(to)
        self._unsynced |= {part.parent, to.parent}

    def _sync_names(self) -> None:
        for folder in list(self._unsynced):
            sync_folder(folder)
            self._unsynced.remove(folder)

    # -- retention

    def _closed(self) -> list[tuple[SegmentName, Path]]:
        return sorted((name, path) for path in self._folder.glob(f"{_DAYS}/*") if (name := segment_name(path.name)))

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
                if path in surplus or (keep_for and (now - path.stat().st_mtime_ns) / SECOND >= keep_for):
                    path.unlink()
            for day in self._folder.glob(_DAYS):
                if self._part is not None and day != self._part.parent and not any(day.iterdir()):
                    day.rmdir()


class StdoutSink(SinkWithoutPosition):
    """Writes one record a line, and flushes after each batch. It holds no position.

    Args:
        stream: The binary stream; None: the standard output of the process.
    """

    final_errors = (BrokenPipeError,)

    def __init__(self, stream: IO[bytes] | None = None) -> None:
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

    def _write_left(self, stream: IO[bytes]) -> None:
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
        return f"{type(self).__name__}()"
