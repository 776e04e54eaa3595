"""Reads records back from an archive, each once, in bounded memory; damage is reported and skipped."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, Protocol, TypeAlias, TypeVar

import msgspec

from kevents.exceptions import KeventsError
from kevents.export._model.position import SegmentName, segment_name
from kevents.export._sinks.object_store import GetOptions, Options, Store, store_errors
from kevents.export._sinks.segments import OPEN, Gzip, is_position_line, verified_header

_A = TypeVar("_A")

_ARCHIVE_BLOCK: Final = 2 << 20
_ENDINGS: Final = (".jsonl", ".jsonl.gz")
_OPEN: Final = tuple(f"{OPEN}{ending}" for ending in _ENDINGS)
_NO_NAME: Final = SegmentName(0, 0)


class ArchiveError(OSError):
    """An archive cannot be opened: it does not exist, or the store does not answer."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file or object of an archive.

    Attributes:
        name: Its path or URL.
        is_open: True if it is still written.
        open: Opens it as a seekable binary file.
    """

    name: str
    is_open: bool
    open: Callable[[], BinaryIO]


def segments(source: str | os.PathLike[str], options: Options | GetOptions | None = None) -> Iterator[Segment]:
    """Yield the segments of an archive by folder, in the order in which they were written there.

    Args:
        source: A file, a folder, the URL of an object, or the URL of a prefix.
        options: The options of the object store.

    Raises:
        ArchiveError: If there is nothing, or the store does not answer.
        ValueError: If the URL or an option is wrong.
        ImportError: If obstore is missing.
    """
    text = os.fspath(source)
    return _objects(text, options) if "://" in text else _files(Path(text))


# -- files


def _files(path: Path) -> Iterator[Segment]:
    if not path.exists():
        raise ArchiveError(f"{path} does not exist: give a file, a folder or a URL such as s3://bucket/prefix")
    if not path.is_dir():
        yield _segment(path)
        return
    folders = {file.parent for file in path.rglob("*") if file.name.endswith(_ENDINGS)}
    for folder in sorted(folders, key=lambda folder: folder.as_posix()):
        yield from _folder(folder)


def _folder(folder: Path) -> Iterator[Segment]:
    """Yield a folder's segments as they are at one moment, beside an exporter that closes and opens segments.

    The open segment is opened before the closed ones are listed. It may be closed by then; it is yielded once.
    """
    with ExitStack() as stack:
        opened = list(_open_segments(folder, stack))
        known = {key for _, key in opened if key is not None}
        closed = [file for file in _listed(folder) if file.name not in _OPEN]
        yield from (_segment(file) for file in closed if _inode(file) not in known)
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
    return str(place.parent), name is None, name or _NO_NAME, place.name  # an open segment has no name: the newest


# -- objects


def _objects(url: str, options: Options | GetOptions | None) -> Iterator[Segment]:
    folder, _, last = url.rpartition("/")
    is_object = last.endswith(_ENDINGS)
    store = Store(folder if is_object else url, options, timeout=60.0)
    keys = [last] if is_object else _keys(store)
    if not keys:
        raise ArchiveError(f"nothing below {url}: no object there ends with .jsonl or .jsonl.gz")
    for key in sorted(keys, key=_order):
        yield Segment(f"{store}/{key}", key.rpartition("/")[2] in _OPEN, partial(_open_object, store, key))


def _keys(store: Store) -> list[str]:
    import obstore  # noqa: PLC0415 - an optional package

    try:
        pages = obstore.list(store.opened(), chunk_size=1000)
        return [found["path"] for page in pages for found in page if found["path"].endswith(_ENDINGS)]
    except store_errors() as error:
        raise ArchiveError(f"cannot list {store}: {store.format_error(error)}") from None


def _open_object(store: Store, key: str) -> BinaryIO:
    return io.BufferedReader(_ObjectReader(store, key), _ARCHIVE_BLOCK)


class _ObjectReader(io.RawIOBase):
    """An object as a seekable file; each read is a range request."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__()
        self._store, self._key, self._place = store, key, 0
        self._size = self._request(lambda obstore, opened: int(obstore.head(opened, key)["size"]))

    def _request(self, call: Callable[[Any, Any], _A]) -> _A:
        import obstore  # noqa: PLC0415 - an optional package

        try:
            return call(obstore, self._store.opened())
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
        end = min(self._place + len(buffer), self._size)
        if end <= self._place:
            return 0
        data = self._request(
            lambda obstore, opened: bytes(obstore.get_range(opened, self._key, start=self._place, end=end))
        )
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


REMEMBERED: Final = 100_000
LONGEST_LINE: Final = 16 << 20
LARGEST_MEMBER: Final = 1 << 30
_MOST_DAMAGES: Final = 100
_MOST_BUFFERED: Final = 2 << 20
"""A member or block up to this size is verified and read at once; a larger one is read twice."""
_BLOCK: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"
_DECODER: Final = msgspec.json.Decoder()

_Where: TypeAlias = Callable[[Mapping[str, Any]], bool]
_Report: TypeAlias = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of an archive that cannot be read.

    Attributes:
        file: The path or URL of the segment.
        offset: The offset in bytes of the line, or of the gzip member that holds it.
        why: The reason.

    .. versionadded:: 0.1
    """

    file: str
    offset: int
    why: str

    def __str__(self) -> str:
        """Format it as one line."""
        return f"{self.file}, at byte {self.offset}: {self.why}"


class Listener(Protocol):
    """Receives reports while an archive is read."""

    def damaged(self, damage: Damage) -> None:
        """A part cannot be read; reading continues after it."""

    def ended(self, file: str, *, foreign: bool) -> None:
        """A segment has been read.

        Args:
            file: Its path or URL.
            foreign: True if nothing in it could be read: perhaps no export wrote it.
        """


class ReadError(KeventsError):
    """Some of an archive could not be read; all other records were yielded before.

    Args:
        damages: The first 100 damages.
        total: The number of damages.

    .. versionadded:: 0.1
    """

    def __init__(self, damages: list[Damage], total: int) -> None:
        """Keep the damages."""
        more = f" (and {total - 1} more)" if total > 1 else ""
        super().__init__(f"{damages[0]}{more}")
        self.damages = damages
        self.total = total


def read_records(
    source: str | os.PathLike[str],
    *,
    where: _Where | None = None,
    deduplicate: bool = True,
    remembered: int = REMEMBERED,
    options: Options | GetOptions | None = None,
    on_damage: Callable[[Damage], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Read exported records from files or an object store, in the order in which they were written to each folder.

    Memory is bounded: one line at a time. Damaged parts are skipped. An open segment is read up to its last complete
    line. While an export is running, each folder is read as it is when its turn comes, without losing a segment.

    Args:
        source: A file, a folder, or a URL such as `s3://bucket/prefix`.
        where: Selects records; None: all.
        deduplicate: Yield each record once, by its id.
        remembered: How many ids are remembered for that: duplicates lie close together.
        options: The options of the object store, as for :class:`ObjectStoreSink`.
        on_damage: Called at once for each part that cannot be read; no error is raised at the end then.

    Returns:
        The records.

    Raises:
        ReadError: At the end, if something could not be read.
        OSError: If the source does not exist or cannot be opened.
        ValueError: If the URL or an option is wrong.

    .. versionadded:: 0.1
    """
    damages = _Damages(on_damage)
    remembered = remembered if deduplicate else 0
    yield from read_archive(segments(source, options), damages, where=where, remembered=remembered)
    if damages.first and on_damage is None:
        raise ReadError(damages.first, damages.total)


def read_archive(
    archive: Iterable[Segment],
    listener: Listener,
    *,
    where: _Where | None = None,
    remembered: int = REMEMBERED,
) -> Iterator[dict[str, Any]]:
    """Yield the records of segments, as `read_records` does.

    Args:
        archive: The segments, in order.
        listener: Receives reports.
        where: Selects records; None: all.
        remembered: How many ids are remembered to yield each record once; 0: duplicates are yielded, too.
    """
    recent = _RecentIds(remembered)
    for segment in archive:
        for record in _records(segment, listener):
            if (not remembered or recent.is_new(record)) and (where is None or where(record)):
                yield record


def _records(segment: Segment, listener: Listener) -> Iterator[dict[str, Any]]:
    damages = records = 0

    def report(offset: int, why: str) -> None:
        nonlocal damages
        damages += 1
        listener.damaged(Damage(segment.name, offset, why))

    try:
        with segment.open() as file:
            for offset, line in _lines(file, report, is_open=segment.is_open):
                try:
                    record = _DECODER.decode(line)
                except (msgspec.DecodeError, RecursionError, ValueError):
                    record = None
                if isinstance(record, dict):
                    records += 1
                    yield record
                else:
                    report(offset, "a line that is not a JSON object")
        foreign = bool(damages and not records)
    except OSError as error:
        report(0, f"cannot be read: {error.strerror or error}")
        foreign = False
    listener.ended(segment.name, foreign=foreign)


class _Damages:
    """Keeps the first damages and counts all."""

    def __init__(self, on_damage: Callable[[Damage], None] | None) -> None:
        self._on_damage = on_damage
        self.first: list[Damage] = []
        self.total = 0

    def damaged(self, damage: Damage) -> None:
        self.total += 1
        if len(self.first) < _MOST_DAMAGES:
            self.first.append(damage)
        if self._on_damage is not None:
            self._on_damage(damage)

    def ended(self, file: str, *, foreign: bool) -> None:
        """Do nothing."""


class _RecentIds:
    """Remembers the last ids."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}

    def is_new(self, record: Mapping[str, Any]) -> bool:
        kevents = record.get("kevents")
        name = kevents.get("id") if isinstance(kevents, Mapping) else None
        if not isinstance(name, str):
            return True  # no id to compare
        if name in self._ids:
            return False
        self._ids[name] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]
        return True


# -- lines of a segment


class _DamagedError(Exception):
    """A part of a segment cannot be read."""


class _TornError(_DamagedError):
    """The segment ends before the end of a gzip member."""


def _lines(file: BinaryIO, report: _Report, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a segment, gzip or plain, without position lines.

    Args:
        file: The segment, at its beginning; seekable.
        report: Receives the offset and the reason of each damage; reading continues after it.
        is_open: True if the segment is still written: an incomplete end is no damage then.

    Returns:
        Pairs: the offset of the line, or of the gzip member that holds it, and the line without its end.
    """
    is_gzip = file.read(2) == _GZIP
    file.seek(0)
    found = _gzip_lines(file, report, is_open=is_open) if is_gzip else _plain_lines(file, report, is_open=is_open)
    return ((offset, line) for offset, line in found if line and not is_position_line(line))


def _gzip_lines(file: BinaryIO, report: _Report, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    start: int | None = 0
    while start is not None:
        file.seek(start)
        if not file.read(1):
            return
        try:
            start = yield from _member_lines(file, start)
        except _DamagedError as why:
            after = Gzip().after(file, start)
            if after is not None or not (is_open and isinstance(why, _TornError)):
                report(start, str(why))
            start = after


def _member_lines(file: BinaryIO, start: int) -> Generator[tuple[int, bytes], None, int]:
    """Verify one member, then yield its lines; return the offset of the next one."""
    pieces: list[bytes] | None = []
    size = 0
    for piece in (member := _Member(file, start)):
        size += len(piece)
        if size > LARGEST_MEMBER:
            raise _DamagedError(f"a gzip member that expands to more than {LARGEST_MEMBER >> 20} MiB")
        if size > _MOST_BUFFERED:
            pieces = None  # decompressed again below
        elif pieces is not None:
            pieces.append(piece)
    end = member.end
    rest = b""
    for piece in [b"".join(pieces)] if pieces is not None else _Member(file, start):
        *whole, rest = (rest + piece).split(b"\n") if b"\n" in piece else (rest + piece,)
        if len(rest) > LONGEST_LINE:
            raise _DamagedError(f"a line of more than {LONGEST_LINE >> 20} MiB")
        for line in whole:
            yield start, line
    if rest:
        yield start, rest
    return end


class _Member:
    """The content of a gzip member, in pieces. At the end zlib has verified its checksum."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start
        self.end = start

    def __iter__(self) -> Iterator[bytes]:
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._file.seek(self._start)
        while not unpacker.eof:
            data = unpacker.unconsumed_tail or self._file.read(_BLOCK)
            if not data:
                raise _TornError("an incomplete gzip member")
            try:
                yield unpacker.decompress(data, _BLOCK)
            except zlib.error as error:
                raise _DamagedError(f"a damaged gzip member ({error})") from None
        self.end = self._file.tell() - len(unpacker.unused_data)


def _plain_lines(file: BinaryIO, report: _Report, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    """Verify one block after the other, then yield its lines. A file without position lines is not verified."""
    known = False  # True after the first position line: an export wrote the file
    while True:
        block = _Block(file)
        known = known or block.position_line
        if block.position_line and not block.verified:
            report(block.start, "a block that does not match its checksum")
        elif block.position_line or not known:
            yield from block.lines(report, is_open=is_open)
        elif block.end > block.start and not is_open:
            report(block.start, "an incomplete block")
        if not block.position_line:
            return


class _Block:
    """The lines up to the next position line, or to the end of the file.

    Args:
        file: The segment, at the beginning of the block; afterwards it is at its end.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.start = file.tell()
        self.position_line = self.verified = False
        check = length = 0
        self._lines: list[tuple[int, bytes]] | None = []
        while line := file.readline(LONGEST_LINE):
            if is_position_line(line) and line.endswith(b"\n"):
                self.position_line = True
                self.verified = verified_header(line, length, check) is not None
                break
            if length > _MOST_BUFFERED:
                self._lines = None  # read again by `lines`
            elif self._lines is not None:
                self._lines.append((self.start + length, line))
            check, length = zlib.crc32(line, check), length + len(line)
        self.end = file.tell()

    def lines(self, report: _Report, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
        """Yield the offset and the content of each line."""
        is_rest = False  # of a line that is too long
        for offset, line in self._lines if self._lines is not None else self._read_again():
            complete = line.endswith(b"\n")
            if not is_rest and not complete and len(line) == LONGEST_LINE:
                report(offset, f"a line of more than {LONGEST_LINE >> 20} MiB")
                is_rest = True
                continue
            if not is_rest and (complete or not is_open):
                yield offset, line[:-1] if complete else line
            is_rest = is_rest and not complete

    def _read_again(self) -> Iterator[tuple[int, bytes]]:
        self._file.seek(self.start)
        while (offset := self._file.tell()) < self.end:
            yield offset, self._file.readline(LONGEST_LINE)
        self._file.seek(self.end)
