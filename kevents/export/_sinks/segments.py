"""The format of segments: batches as gzip members or blocks of plain lines, each with a header.

The header has the position, the times of the records and their length, so that a reader can skip a batch unread. In a
gzip member it is the extra field, so that `zcat` prints the records only; a block of plain lines begins with it as a
line of its own. A batch that is shorter than its header says, or does not match its checksum, is torn or damaged.
"""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from kevents._model.validation import require_count
from kevents.export._model.position import position_as_json, position_from_json, verify_checksum, with_checksum
from kevents.export._model.types import Batch, Position, Retry, time_span

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: no locks between processes
    fcntl = None  # type: ignore[assignment]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    if os.name == "nt":  # pragma: no cover - a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents durably; an existing one is left alone."""
    created = [path for path in [folder, *folder.parents] if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in created:
        sync_folder(path.parent)


def open_file(path: Path, flags: int) -> int:
    """Open a file for :func:`os.open`. Raises OSError for a symbolic link: someone else may have planted it."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o644)


def append(path: Path, data: bytes, end: Callable[[int], int]) -> int:
    """Append to a file durably, and return its new size; after an OSError it is as long as before.

    A missing file is created. `end` returns the offset at which to append, for the open file; later bytes are cut off.
    """
    handle = open_file(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = end(handle)
        os.ftruncate(handle, size)
        try:
            _write_all(handle, data)
            os.fsync(handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
    return size + len(data)


def _write_all(handle: int, data: bytes) -> None:
    """Write all bytes: a disk that fills up accepts a part first."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def replace(path: Path, data: bytes) -> None:
    """Replace a file atomically (temporary file, fsync, rename): readers see the old or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    handle = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        try:
            _write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
    except OSError:
        with suppress(OSError):  # it occupies space that may be missing
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def disk_errors_retried(what: str, path: Path) -> Iterator[None]:
    """Turn any ``OSError`` into :class:`Retry`, with the failed action and the path in its text."""
    try:
        yield
    except OSError as error:
        hint = ": free some space, and the export continues by itself" if error.errno in _FULL else ""
        if error.errno == errno.ELOOP:
            hint = ": a symbolic link is not followed; remove it"
        raise Retry(f"{what} {path}: {error.strerror or error}{hint}") from error


def lock_folder(folder: Path) -> int:
    """Lock a folder until the handle is closed or the process ends. Raises Retry if another writer has the lock."""
    handle = open_file(folder / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in {errno.EAGAIN, errno.EACCES}:
            raise
        raise Retry(f"another process writes to {folder}: give each exporter a folder of its own") from None
    return handle


OPEN: Final = "current"  # the name of an open segment, without its suffix
MAGIC: Final = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"  # with an extra field, without a time: reproducible bytes
SUBFIELD: Final = b"kE"
LONGEST_HEADER: Final = 4096
POSITION_LINE: Final = b'{"kevents":{"v":1,"position":'
_BLOCK: Final = 1 << 18
_HIGHEST_LEVEL: Final = 9


def unwritten(batch: Batch, own: Position | None) -> Batch | None:
    """Leave out the records that a destination has stored: a repeated batch, or one that overlaps.

    Positions of a stream only grow, even when the cluster's storage was reset and resourceVersions began anew. A batch
    with a lower position is stored already. None if the position is stored, too.
    """
    if own is None:
        return batch
    if (batch.position.rv, batch.position.time) <= (own.rv, own.time):
        return None
    return Batch([record for record in batch.records if record.rv > own.rv], batch.position)


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """The header that is stored with each batch of a segment."""

    position: Position  # of the stream after the batch
    first: int  # the resourceVersion of the first record, or of the position without records
    records: int  # their number
    oldest: int = 0  # the time of the oldest record, in nanoseconds since the epoch
    newest: int = 0  # that of the newest; a gap record counts with its whole period
    size: int = 0  # the length of the stored records in bytes

    @property
    def span(self) -> tuple[int, int]:
        return self.oldest, self.newest

    def to_json(self, size: int = 0) -> bytes:
        """Encode it as JSON, with the length of the stored records."""
        own = {name: getattr(self, name) for name in _NUMBERS}
        values = {**position_as_json(self.position), **own, "size": size}
        return json.dumps(with_checksum(values), separators=(",", ":")).encode()

    @classmethod
    def of(cls, batch: Batch) -> BatchHeader:
        first = min((record.rv for record in batch.records), default=batch.position.rv)
        spans = [time_span(record.body) for record in batch.records]
        oldest, newest = min((span[0] for span in spans), default=0), max((span[1] for span in spans), default=0)
        return cls(batch.position, first, len(batch.records), oldest, newest)

    @classmethod
    def from_json(cls, value: object) -> BatchHeader:
        """Read it from decoded JSON. Raises ValueError if the value is no header, or does not match its checksum."""
        position = position_from_json(value)
        assert isinstance(value, dict)  # noqa: S101 - checked by `position_from_json`
        verify_checksum(value)
        numbers = [value.get(name) for name in (*_NUMBERS, "size")]
        sound = [number for number in numbers if isinstance(number, int) and number >= 0]
        if len(sound) < len(numbers):
            raise ValueError(f"the numbers of a batch are {numbers!r}")
        return cls(position, *sound)


_NUMBERS: Final = ("first", "records", "oldest", "newest")


def order_of(header: BatchHeader | None) -> tuple[int, int]:
    """Return a key by which the newest batch is the greatest."""
    return (header.position.rv, header.position.time) if header else (-1, -1)


CompleteBatch: TypeAlias = tuple[BatchHeader | None, int]
"""The header of a complete batch, None for a gzip member that kevents did not write; and the offset after the batch."""


class Gzip:
    """One gzip member for each batch (RFC 1952)."""

    suffix = ".jsonl.gz"

    def __init__(self, level: int = 6) -> None:
        self._level = level

    def encode(self, lines: Iterable[bytes], header: BatchHeader) -> bytes:
        plain = _join(lines)
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = packer.compress(plain) + packer.flush()
        packed += struct.pack("<II", zlib.crc32(plain), len(plain) & 0xFFFFFFFF)
        text = header.to_json(len(packed))
        extra = SUBFIELD + struct.pack("<H", len(text)) + text
        return MAGIC + struct.pack("<H", len(extra)) + extra + packed

    def scan(self, file: BinaryIO, start: int) -> Iterator[CompleteBatch]:
        """Yield complete members up to the end or the first incomplete one; each is verified by its checksum."""
        with suppress(DamagedError):
            while True:
                header = header_at(file, start)
                for _ in (member := Member(file, start)):
                    pass
                yield header.header if header else None, member.end
                start = member.end

    def after(self, file: BinaryIO, start: int) -> int | None:
        """Return the offset of the next member that kevents wrote."""
        return _found_after(file, start, MAGIC)


@dataclass(frozen=True, slots=True)
class FoundHeader:
    """A header of a batch in a file."""

    header: BatchHeader
    start: int  # the offset of the records
    crc32: int = 0  # their checksum in a block of plain lines; in a gzip member it follows them

    @property
    def end(self) -> int:
        return self.start + self.header.size


def header_at(file: BinaryIO, start: int) -> FoundHeader | None:
    """Read the header of the batch at an offset; None if kevents did not write one there."""
    file.seek(start)
    return header_of(file.read(LONGEST_HEADER), start)


def header_of(head: bytes, start: int = 0) -> FoundHeader | None:
    """Read the header from the first 4,096 bytes of a batch; None if kevents did not write it."""
    try:
        if head.startswith(MAGIC):
            at = len(MAGIC) + 2
            field, length = struct.unpack_from("<2sH", head, at)
            end = at + 4 + length
            found = BatchHeader.from_json(json.loads(head[at + 4 : end])) if field == SUBFIELD else None
            return FoundHeader(found, start + end) if found else None
        line, end, _ = head.partition(b"\n")
        if not (end and is_position_line(line)):
            return None
        own = json.loads(line)["kevents"]
        return FoundHeader(BatchHeader.from_json(own["position"]), start + len(line) + 1, own["crc32"])
    except (ValueError, KeyError, TypeError, RecursionError, struct.error):
        return None


class DamagedError(Exception):
    """A part of a segment cannot be read."""


class TornError(DamagedError):
    """The segment ends before the end of a gzip member."""


class Member:
    """The content of a gzip member, in pieces. At the end zlib has verified its checksum."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start
        self.end = start  # the offset after the member, once all pieces are read

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces. Raises DamagedError."""
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._file.seek(self._start)
        while not unpacker.eof:
            data = unpacker.unconsumed_tail or self._file.read(_BLOCK)
            if not data:
                raise TornError("an incomplete gzip member")
            try:
                yield unpacker.decompress(data, _BLOCK)
            except zlib.error as error:
                raise DamagedError(f"a damaged gzip member ({error})") from None
        self.end = self._file.tell() - len(unpacker.unused_data)


def _found_after(file: BinaryIO, start: int, wanted: bytes) -> int | None:
    """Return the offset of the first occurrence of some bytes after an offset."""
    file.seek(start + 1)
    offset, before = start + 1, b""
    while data := file.read(_BLOCK):
        found = (before + data).find(wanted)
        if found >= 0:
            return offset - len(before) + found
        offset += len(data)
        before = (before + data)[-len(wanted) :]
    return None


class Plain:
    """A block of lines for each batch, with a line for its header before it."""

    suffix = ".jsonl"

    def encode(self, lines: Iterable[bytes], header: BatchHeader) -> bytes:
        plain = _join(lines)
        return POSITION_LINE + header.to_json(len(plain)) + f',"crc32":{zlib.crc32(plain)}}}}}\n'.encode() + plain

    def scan(self, file: BinaryIO, start: int) -> Iterator[CompleteBatch]:
        """Yield complete blocks up to the end or the first incomplete one; each is verified by its checksum."""
        while (found := header_at(file, start)) and is_complete(file, found):
            yield found.header, found.end
            start = found.end

    def after(self, file: BinaryIO, start: int) -> int | None:
        found = _found_after(file, start, b"\n" + POSITION_LINE)
        return None if found is None else found + 1


def is_complete(file: BinaryIO, found: FoundHeader) -> bool:
    """Verify the length and the checksum of a block of plain lines."""
    file.seek(found.start)
    check, left = 0, found.header.size
    while left and (data := file.read(min(left, _BLOCK))):
        check, left = zlib.crc32(data, check), left - len(data)
    return not left and check == found.crc32


def is_position_line(line: bytes) -> bool:
    """Return True if a line of a plain segment is a position, not a record."""
    return line.startswith(b'{"kevents":{"v":') and _POSITION.match(line) is not None


_POSITION: Final = re.compile(rb'\{"kevents":\{"v":\d+,"position":')


Format: TypeAlias = Gzip | Plain  # how batches are stored in a segment


def format_of(compress: str, level: int) -> Format:
    """Return the format that the options name. Raises ValueError if an option has a wrong value."""
    if compress not in {"gzip", "none"}:
        raise ValueError(f"compress must be 'gzip' or 'none', not {compress!r}")
    if require_count("level", level) > _HIGHEST_LEVEL:
        raise ValueError(f"level must be 1 to {_HIGHEST_LEVEL}, not {level}")
    return Gzip(level) if compress == "gzip" else Plain()


def _join(lines: Iterable[bytes]) -> bytes:
    return b"".join(part for line in lines for part in (line, b"\n"))
