"""The segments of an archive, in order, without those that hold no records of a period.

A folder of a day and the name of a segment follow the position of its batches: the time up to which the export had read
everything. A record may be older: it was read late. It may be newer: after an outage, the position keeps the time at
which the outage began until everything is read. So a period needs later segments too, and the ones just before it.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final

from kevents.export._model.position import SegmentName, segment_name
from kevents.export._model.types import END_OF_TIME, SECOND, day_folder
from kevents.export._sinks.object_store import GetOptions, Options, Store, load_obstore, store_errors
from kevents.export._sinks.segments import LONGEST_HEADER, OPEN, header_at

_ARCHIVE_BLOCK: Final = 2 << 20
_AT_ONCE: Final = 8  # how many objects are requested at once. The first block of each is held.
_ENDINGS: Final = (".jsonl", ".jsonl.gz")
_OPEN: Final = tuple(f"{OPEN}{ending}" for ending in _ENDINGS)
_DAY: Final = "dt="
_LAST_DAY: Final = 253_402_300_799 * SECOND  # of the year 9999
_CLOCKS: Final = 600 * SECOND  # the most by which a reporter's clock may be ahead of the export's
_LATE: Final = 86_400 * SECOND  # the most by which a record may be older than its read: the longest life of an event


class ArchiveError(OSError):
    """An archive cannot be opened: it does not exist, or the store does not answer."""


@dataclass(frozen=True, slots=True)
class Period:
    """The time of the wanted records, in nanoseconds since the epoch, both ends included."""

    since: int = 0
    until: int = END_OF_TIME

    @property
    def bounded(self) -> bool:
        """True if it does not hold every record."""
        return self != ALWAYS

    def overlaps(self, span: tuple[int, int]) -> bool:
        """True if something that happened between two times may have happened in the period."""
        return span[0] <= self.until and span[1] >= self.since

    def days(self, folders: Iterable[str]) -> list[str]:
        """Leave out the folders of days that hold no records of the period."""
        found = sorted(folders)
        days = [PurePosixPath(folder).name for folder in found]
        first = day_folder(max(self.since - _CLOCKS, 0))
        last = day_folder(min(self.until + _LATE, _LAST_DAY))
        before = max((day for day in days if day.startswith(_DAY) and day < first), default="")
        return [
            folder
            for folder, day in zip(found, days, strict=True)
            if not day.startswith(_DAY) or day == before or first <= day <= last
        ]

    def segments(self, found: Sequence[Segment]) -> Sequence[Segment]:
        """Leave out the segments of a folder whose positions show that they hold no records of the period."""
        if not self.bounded:
            return found
        begin = lru_cache(maxsize=None)(lambda at: _begin(found[at]))
        try:
            after = bisect_left(range(len(found)), self.since - _CLOCKS, key=begin)
            first = max(bisect_left(range(len(found)), begin(after - 1), key=begin) - 1, 0) if after else 0
            return found[first : bisect_right(range(len(found)), self.until + _LATE, key=begin)]
        except _NoHeaderError:
            return found


ALWAYS: Final = Period()


@dataclass(frozen=True, slots=True)
class Segment:
    """One file or object of an archive."""

    name: str  # its path or URL
    is_open: bool  # True while it is written
    open: Callable[[], BinaryIO]  # opens it as a seekable file


class _NoHeaderError(Exception):
    """A segment does not begin with a header, or cannot be opened."""


def _begin(segment: Segment) -> int:
    try:
        with segment.open() as file:
            found = header_at(file, 0)
    except OSError:
        found = None
    if found is None:
        raise _NoHeaderError
    return found.header.position.time


def segments(
    source: str | os.PathLike[str], options: Options | GetOptions | None = None, period: Period = ALWAYS
) -> Iterator[Segment]:
    """Yield the segments of an archive by folder, in the order in which they were written there.

    Segments that hold no records of the period may be left out. The source is a file, a folder, or the URL of an object
    or a prefix. Raises ArchiveError if there is nothing or the store does not answer, ValueError if the URL or an
    option is wrong, and ImportError if obstore is missing.
    """
    text = os.fspath(source)
    return _fetched(_objects(text, options, period)) if "://" in text else _files(Path(text), period)


# -- files


def _files(path: Path, period: Period) -> Iterator[Segment]:
    if not path.exists():
        raise ArchiveError(f"{path} does not exist: give a file, a folder or a URL such as s3://bucket/prefix")
    if not path.is_dir():
        yield _segment(path)
        return
    folders = []
    for folder, below, files in os.walk(path):
        below[:] = period.days(below)
        if any(name.endswith(_ENDINGS) for name in files + below):
            folders.append(folder)
    for folder in sorted(folders):
        yield from _folder(Path(folder), period)


def _folder(folder: Path, period: Period) -> Iterator[Segment]:
    """Yield a folder's segments as they are at one moment, beside an exporter that closes and opens segments.

    The open segment is opened before the closed ones are listed. It may be closed by then, and is yielded once.
    """
    with ExitStack() as stack:
        opened = list(_open_segments(folder, stack))
        known = {key for _, key in opened if key is not None}
        closed = [file for file in _listed(folder) if file.name not in _OPEN and _inode(file) not in known]
        yield from period.segments([_segment(file) for file in closed])
        yield from (segment for segment, _ in opened)


def _listed(folder: Path) -> list[Path]:
    found = [file for file in folder.iterdir() if file.name.endswith(_ENDINGS)]
    return sorted(found, key=lambda file: _order(file.as_posix()))


def _segment(file: Path) -> Segment:
    return Segment(str(file), file.name in _OPEN, partial(Path.open, file, "rb"))  # type: ignore[arg-type]


def _open_segments(folder: Path, stack: ExitStack) -> Iterator[tuple[Segment, tuple[int, int] | None]]:
    for file in _listed(folder):
        if file.name in _OPEN:
            try:
                handle = stack.enter_context(file.open("rb"))
            except FileNotFoundError:  # closed a moment ago: it is listed under its new name
                continue
            except OSError:  # reported when it is read
                yield _segment(file), None
            else:
                yield Segment(str(file), True, lambda handle=handle: handle), _inode(handle.fileno())  # type: ignore[misc]


def _inode(file: Path | int) -> tuple[int, int] | None:
    """Return the identity of a file, which survives a rename."""
    try:
        found = os.stat(file)  # noqa: PTH116 - also of a file descriptor
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _order(path: str) -> tuple[str, bool, SegmentName, str]:
    place = PurePosixPath(path)
    name = segment_name(place.name)
    return (
        str(place.parent),
        name is None,
        name or SegmentName(0, 0),
        place.name,
    )  # an open segment has no name: the newest


# -- objects


def _objects(url: str, options: Options | GetOptions | None, period: Period) -> Iterator[Segment]:
    folder, _, last = url.rpartition("/")
    is_object = last.endswith(_ENDINGS)
    store = Store(folder if is_object else url, options, timeout=60.0)
    try:
        keys: Iterable[tuple[str, int | None]] = [(last, None)] if is_object else _below(store, "", period)
        sizes = {key: size for key, size in keys if key.endswith(_ENDINGS)}
    except store_errors() as error:
        raise ArchiveError(f"cannot list {store}: {store.format_error(error)}") from None
    if not sizes and not period.bounded:
        raise ArchiveError(f"nothing below {url}: no object there ends with .jsonl or .jsonl.gz")

    def segment(key: str) -> Segment:
        def opened() -> BinaryIO:
            return io.BufferedReader(_ObjectReader(store, key, sizes[key], period), _ARCHIVE_BLOCK)

        return Segment(f"{store}/{key}", key.rpartition("/")[2] in _OPEN, opened)

    for _, together in groupby(sorted(sizes, key=_order), key=lambda key: key.rpartition("/")[0]):
        yield from period.segments(list(map(segment, together)))


def _below(store: Store, place: str, period: Period) -> Iterator[tuple[str, int]]:
    obstore = load_obstore()
    if not period.bounded or PurePosixPath(place).name.startswith(_DAY):
        pages: Iterable[Any] = obstore.list(store.opened(), place, chunk_size=1000)
    else:
        found = obstore.list_with_delimiter(store.opened(), place)
        pages = [found["objects"]]
        for folder in period.days(found["common_prefixes"]):
            yield from _below(store, folder, period)
    for page in pages:
        yield from ((each["path"], each["size"]) for each in page)


def _fetched(found: Iterator[Segment]) -> Iterator[Segment]:
    """Open several segments at once, and yield them in order."""
    with ThreadPoolExecutor(_AT_ONCE, "kevents-read") as pool:
        waiting: deque[Segment] = deque()
        try:
            for segment in found:
                opened = pool.submit(_begun, segment)
                waiting.append(Segment(segment.name, segment.is_open, opened.result))
                if len(waiting) >= _AT_ONCE:
                    yield waiting.popleft()
            yield from waiting
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begun(segment: Segment) -> BinaryIO:
    """Open a segment, and fetch its first block."""
    file = segment.open()
    file.read(1)
    file.seek(0)
    return file


class _ObjectReader(io.RawIOBase):
    """An object as a seekable file. Each read is a range request."""

    def __init__(self, store: Store, key: str, size: int | None, period: Period) -> None:
        super().__init__()
        self._store, self._key, self._place = store, key, 0
        self._first = LONGEST_HEADER if period.bounded else _ARCHIVE_BLOCK  # with a period, it may be skipped
        self._obstore = load_obstore()
        self._size: int = size or self._request(self._obstore.head)["size"]

    def _request(self, call: Callable[..., Any], **options: int) -> Any:  # noqa: ANN401 - obstore has no types here
        try:
            return call(self._store.opened(), self._key, **options)
        except store_errors() as error:
            raise ArchiveError(self._store.format_error(error)) from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        length = min(len(buffer), len(buffer) if self._place else self._first)
        end = min(self._place + length, self._size)
        if end <= self._place:
            return 0
        data = bytes(self._request(self._obstore.get_range, start=self._place, end=end))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
