"""A folder of segments: each batch is appended with its position and fsynced, so a crash loses and doubles nothing."""

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
from kevents.export._sinks.disk import FolderLock, make_folder, replace, retried, sync_folder, write_all
from kevents.export._sinks.segments import BatchHeader, CompleteBatch, Format, Gzip, Plain, Unwritten, format_of, news

DEFAULT_SEGMENT: Final = 64 << 20


class FileSink:
    """Writes batches to a folder, for each stream a folder of its own in it: `{path}/{cluster}/{scope}/`.

    Each batch is one gzip member, or one block of lines, appended and fsynced; a segment is closed by size and age and
    gets the name `{first}-{last}.jsonl.gz`. The position lies in the segments. One process writes to a stream's folder.

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
        """Append a batch with its position; what the folder holds already is left out.

        Raises:
            Retry: If the disk does not take it, or another process writes there.
            ValueError: If no place can be made of the stream's names.
        """
        folder = self._opened(batch.position.stream)
        new = news(batch, folder.position)
        if new is not None:
            folder.write(new)

    def last_position(self, stream: Stream) -> Position | None:
        """Give how far the folder holds a stream; opening it cuts off what a crash has torn.

        Raises:
            Retry: If it cannot be read now, or another process writes there.
        """
        if stream not in self._folders and not (self._path / folder_of(stream)).exists():
            return None
        return self._opened(stream).position

    def _opened(self, stream: Stream) -> SegmentFolder:
        if stream not in self._folders:
            place = self._path / folder_of(stream)
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


_LOGGER: Final = logging.getLogger("kevents.export")
_NANO: Final = 1_000_000_000
_BETWEEN_LOOKS: Final = 60 * _NANO


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a segment is closed, and how long closed ones are kept.

    Attributes:
        max_bytes: Of a segment.
        max_age: Seconds from its first record to the present batch.
        keep: How many closed ones of a stream, None: all.
        keep_for: Seconds since a closed one was written last, None: for ever.
    """

    max_bytes: int
    max_age: float
    keep: int | None = None
    keep_for: float | None = None


@dataclass(frozen=True, slots=True)
class Scanned:
    """What a segment holds.

    Attributes:
        first: The first batch with records, if any.
        last: The last batch, if any.
        end: The offset after it.
        damaged: Whether something before it is no whole batch.
    """

    first: BatchHeader | None
    last: BatchHeader | None
    end: int
    damaged: bool


def scanned(path: Path, form: Format) -> Scanned:
    """Read a segment from its beginning to its last whole batch."""
    first, last, end, damaged = None, None, 0, False
    with path.open("rb") as file:
        start: int | None = 0
        while start is not None:
            for whole in form.scan(file, start):
                damaged = damaged or start > end
                first, last, end = first or _with_records(whole), whole.held or last, whole.end
                start = whole.end
            start = form.after(file, start)
    return Scanned(first, last, end, damaged)


def _with_records(whole: CompleteBatch) -> BatchHeader | None:
    return whole.held if whole.held and whole.held.records else None


class SegmentFolder:
    """Where one stream's batches are appended. For one writer at a time, in one thread.

    Args:
        folder: Its place; made if it is missing.
        stream: Whose batches they are.
        form: How batches lie in a segment.
        rotation: When segments are closed and removed.

    Raises:
        Retry: If another process writes here.
        OSError: If the disk does not let it be opened.
    """

    def __init__(self, folder: Path, stream: Stream, form: Format, rotation: Rotation) -> None:
        """Open it: cut a torn tail, find the position."""
        self._folder, self._stream, self._form, self._rotation = folder, stream, form, rotation
        self._part = _part(folder, form)
        self._size = 0
        self._first: BatchHeader | None = None  # of the open segment
        self._last: BatchHeader | None = None  # of all
        self._looked = 0  # for segments to remove
        self._named = True  # whether the folder's names have changed since it was made durable, maybe by one before
        make_folder(folder)
        self._lock = FolderLock(folder)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    @property
    def position(self) -> Position | None:
        """How far the stream is held."""
        return self._last.position if self._last else None

    def close(self) -> None:
        """Let others in."""
        self._lock.release()

    # -- opening

    def _open(self) -> None:
        self._last = self._newest_closed()
        for form in (Plain(), Gzip()):
            self._adopt(form)

    def _newest_closed(self) -> BatchHeader | None:
        found = self._closed()
        if not found:
            return None
        name, path = found[-1]
        last = scanned(path, Gzip() if path.name.endswith(Gzip.suffix) else Plain()).last
        if last is not None and last.position.rv == name.last:
            return last
        return BatchHeader(Position(self._stream, name.last, path.stat().st_mtime_ns), name.first, 0)

    def _adopt(self, form: Format) -> None:
        part = _part(self._folder, form)
        if not part.exists():
            return
        found = scanned(part, form)
        self._cut(part, found.end)
        if found.last and (not self._last or _order(found.last) >= _order(self._last)):
            self._last = found.last
        if part != self._part or found.damaged:
            self._close_segment(part, form, found)
        else:
            self._size, self._first = found.end, found.first

    def _cut(self, part: Path, end: int) -> None:
        size = part.stat().st_size
        if size == end:
            return
        _LOGGER.warning("%s: cut %d bytes of a batch that was not written whole", part, size - end)
        with part.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())

    def _close_segment(self, part: Path, form: Format, found: Scanned) -> None:
        if found.damaged:
            _LOGGER.error("%s: damaged in the middle; it is closed as it is, and read as far as it can be", part)
        if found.last and (found.damaged or found.first):
            self._rename(part, form, found.first or found.last, found.last)
        elif found.last:  # a position and nothing else: in the format that is written now
            replace(self._part, self._form.encode((), found.last))
            self._size = self._part.stat().st_size
            part.unlink()

    # -- writing

    def write(self, new: Unwritten) -> None:
        """Append a batch; it is durable when this returns.

        Raises:
            Retry: If the disk does not take it; nothing of it remains then.
        """
        held = BatchHeader(new.position, new.first, len(new.records))
        data = self._form.encode((record.line() for record in new.records), held)
        with retried("cannot write", self._part):
            if self._is_due(held, len(data)):
                self._rotate()
            self._sync_names()
            if self._first is None and not new.records:
                replace(self._part, data)  # positions alone do not pile up
                self._size = len(data)
            else:
                self._append(data)
        self._first = self._first or (held if new.records else None)
        self._last = held
        self._remove_old(new.position.time)

    def _is_due(self, held: BatchHeader, more: int) -> bool:
        if self._first is None or self._last is None:
            return False
        age = (held.position.time - self._first.position.time) / _NANO
        return age >= self._rotation.max_age or self._size + more > self._rotation.max_bytes

    def _append(self, data: bytes) -> None:
        self._named = not self._part.exists()
        handle = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._size = min(self._size, os.fstat(handle).st_size)  # less if somebody has removed the file
            os.ftruncate(handle, self._size)  # what an attempt before could not take back
            try:
                write_all(handle, data)
                os.fsync(handle)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(handle, self._size)
                raise
        finally:
            os.close(handle)
        self._sync_names()
        self._size += len(data)

    def _rotate(self) -> None:
        if self._first and self._last:
            self._rename(self._part, self._form, self._first, self._last)
        self._size, self._first, self._looked = 0, None, 0

    def _rename(self, part: Path, form: Format, first: BatchHeader, last: BatchHeader) -> None:
        name = SegmentName(last.position.rv, first.first).file(form.suffix)
        with suppress(FileNotFoundError):  # somebody has removed it: there is nothing to close
            os.replace(part, self._folder / name)  # noqa: PTH105 - beside its kin of os
        self._named = True

    def _sync_names(self) -> None:
        if self._named:
            sync_folder(self._folder)
            self._named = False

    # -- retention

    def _closed(self) -> list[tuple[SegmentName, Path]]:
        return sorted((name, path) for path in self._folder.iterdir() if (name := segment_name(path.name)))

    def _remove_old(self, now: int) -> None:
        """Remove closed segments; the open one holds the position, so that any of them may go."""
        keep, keep_for = self._rotation.keep, self._rotation.keep_for
        if (keep is None and keep_for is None) or 0 <= now - self._looked < _BETWEEN_LOOKS:
            return
        self._looked = now
        closed = [path for _, path in self._closed()]
        surplus = closed[: max(len(closed) - keep, 0)] if keep is not None else []
        with suppress(OSError):  # what cannot be removed now is removed after the next batch
            for path in closed:
                if path in surplus or (keep_for and (now - path.stat().st_mtime_ns) / _NANO >= keep_for):
                    path.unlink()


def _part(folder: Path, form: Format) -> Path:
    return folder / f"current{form.suffix}.part"


def _order(held: BatchHeader) -> tuple[int, int]:
    return held.position.rv, held.position.time
