"""The format of segments: batches as gzip members or blocks of plain lines, each with its position.

A gzip member has the position in the extra field of its header, so that `zcat` prints the records only. A block of
plain lines ends with a line of its own for the position, with the block's length and checksum; a block without it is
torn.
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
from typing import BinaryIO, Final, Protocol

from kevents._model.validation import require_count
from kevents.export._model.position import position_as_json, position_from_json, verify_checksum, with_checksum
from kevents.export._model.types import Batch, Position, Retry

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
    """Open a file for :func:`os.open`; a symbolic link is refused: someone else may have planted it.

    Raises:
        OSError: If the path is a symbolic link, or cannot be opened.
    """
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o644)


def append(path: Path, data: bytes, end: Callable[[int], int]) -> int:
    """Append to a file durably; on failure the file is as long as before.

    Args:
        path: The file; created if it is missing.
        data: The bytes to append.
        end: Returns the offset at which to append, for the open file; bytes after it are cut off.

    Returns:
        The file's new size.

    Raises:
        OSError: If the disk is full or fails.
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
    """Turn an ``OSError`` into :class:`Retry`.

    Args:
        what: The failed action, for the message.
        path: The file or folder.

    Raises:
        Retry: For any ``OSError``.
    """
    try:
        yield
    except OSError as error:
        hint = ": free some space, and the export continues by itself" if error.errno in _FULL else ""
        if error.errno == errno.ELOOP:
            hint = ": a symbolic link is not followed; remove it"
        raise Retry(f"{what} {path}: {error.strerror or error}{hint}") from error


class FolderLock:
    """Keeps other writers out of a folder. The lock ends with the process, however that ends.

    Args:
        folder: Holds the file `.lock`.

    Raises:
        Retry: If another writer holds the lock.
        OSError: If the file cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock."""
        self._handle = open_file(folder / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            raise Retry(f"another process writes to {folder}: give each exporter a folder of its own") from None

    def release(self) -> None:
        """Release the lock."""
        os.close(self._handle)


OPEN: Final = "current"
"""The name of an open segment, without its suffix."""
MAGIC: Final = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"  # with an extra field, without a time: reproducible bytes
SUBFIELD: Final = b"kE"
LONGEST_HEADER: Final = len(MAGIC) + 2 + 0xFFFF
POSITION_LINE: Final = b'{"kevents":{"v":1,"position":'
_BLOCK: Final = 1 << 18
_HIGHEST_LEVEL: Final = 9
_LONGEST_LINE: Final = 1 << 26


def unwritten(batch: Batch, own: Position | None) -> Batch | None:
    """Leave out the records that a destination has stored: a repeated batch, or one that overlaps.

    Positions of a stream only grow, even when the cluster's storage was reset and resourceVersions began anew. A batch
    with a lower position is stored already.

    Args:
        batch: The batch to write.
        own: The position that the destination has stored.

    Returns:
        The records that are not stored, possibly none, with the position; None if the position is stored too.
    """
    if own is None:
        return batch
    if (batch.position.rv, batch.position.time) <= (own.rv, own.time):
        return None
    return Batch([record for record in batch.records if record.rv > own.rv], batch.position)


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """The header that is stored with each batch of a segment.

    Attributes:
        position: The position of the stream after the batch.
        first: The resourceVersion of its first record; that of the position without records.
        records: The number of records.
    """

    position: Position
    first: int
    records: int

    def to_json(self) -> bytes:
        """Encode it as JSON."""
        values = {**position_as_json(self.position), "first": self.first, "records": self.records}
        return json.dumps(with_checksum(values), separators=(",", ":")).encode()

    @classmethod
    def of(cls, batch: Batch) -> BatchHeader:
        """Return the header of a batch."""
        first = min((record.rv for record in batch.records), default=batch.position.rv)
        return cls(batch.position, first, len(batch.records))

    @classmethod
    def from_json(cls, value: object) -> BatchHeader:
        """Read it from decoded JSON.

        Raises:
            ValueError: If the value is no header, or does not match its checksum.
        """
        position = position_from_json(value)
        assert isinstance(value, dict)  # noqa: S101 - checked by `position_from_json`
        verify_checksum(value)
        first, records = value.get("first"), value.get("records")
        if not (isinstance(first, int) and isinstance(records, int) and first >= 0 and records >= 0):
            raise ValueError(f"the numbers of a batch are {first!r} and {records!r}")
        return cls(position, first, records)


@dataclass(frozen=True, slots=True)
class CompleteBatch:
    """A complete batch found in a file.

    Attributes:
        header: Its header; None for a gzip member that kevents did not write.
        end: The offset after it.
    """

    header: BatchHeader | None
    end: int


class Format(Protocol):
    """How batches are stored in a segment."""

    suffix: str

    def encode(self, lines: Iterable[bytes], header: BatchHeader) -> bytes:
        """Encode a batch so that it can be appended."""

    def scan(self, file: BinaryIO, start: int) -> Iterator[CompleteBatch]:
        """Yield complete batches up to the end of the file or the first incomplete one."""

    def after(self, file: BinaryIO, start: int) -> int | None:
        """Return the offset where the next batch may begin; None if none is found."""


class Gzip:
    """One gzip member for each batch (RFC 1952).

    Args:
        level: The level of compression, 1 to 9.
    """

    suffix = ".jsonl.gz"

    def __init__(self, level: int = 6) -> None:
        """Keep the level."""
        self._level = level

    def encode(self, lines: Iterable[bytes], header: BatchHeader) -> bytes:
        """Encode a batch as a member."""
        plain = _join(lines)
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS)
        text = header.to_json()
        extra = SUBFIELD + struct.pack("<H", len(text)) + text
        end = struct.pack("<II", zlib.crc32(plain), len(plain) & 0xFFFFFFFF)
        return MAGIC + struct.pack("<H", len(extra)) + extra + packer.compress(plain) + packer.flush() + end

    def scan(self, file: BinaryIO, start: int) -> Iterator[CompleteBatch]:
        """Yield complete members; each is verified by its checksum."""
        while True:
            file.seek(start)
            header = header_of_member(file.read(LONGEST_HEADER))
            end = _member_end(file, start)
            if end is None:
                return
            yield CompleteBatch(header, end)
            start = end

    def after(self, file: BinaryIO, start: int) -> int | None:
        """Return the offset of the next member that kevents wrote."""
        file.seek(start + 1)
        offset, before = start + 1, b""
        while data := file.read(_BLOCK):
            found = (before + data).find(MAGIC)
            if found >= 0:
                return offset - len(before) + found
            offset += len(data)
            before = (before + data)[-len(MAGIC) :]
        return None


def header_of_member(head: bytes) -> BatchHeader | None:
    """Read the header from the first bytes of a gzip member; None if kevents did not write it."""
    start = len(MAGIC) + 2
    if head[: len(MAGIC)] != MAGIC or head[start : start + 2] != SUBFIELD or len(head) < start + 4:
        return None
    (length,) = struct.unpack_from("<H", head, start + 2)
    text = head[start + 4 : start + 4 + length]
    try:
        return BatchHeader.from_json(json.loads(text)) if len(text) == length else None
    except (ValueError, RecursionError):
        return None


def _member_end(file: BinaryIO, start: int) -> int | None:
    """Decompress a member and return the offset after it; None if it is incomplete or damaged."""
    file.seek(start)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        while not unpacker.eof:
            data = unpacker.unconsumed_tail or file.read(_BLOCK)
            if not data:
                return None
            unpacker.decompress(data, _BLOCK)
    except zlib.error:
        return None
    return file.tell() - len(unpacker.unused_data)


class Plain:
    """A block of lines for each batch, followed by a line for its position."""

    suffix = ".jsonl"

    def encode(self, lines: Iterable[bytes], header: BatchHeader) -> bytes:
        """Encode a batch as lines."""
        plain = _join(lines)
        check = f',"bytes":{len(plain)},"crc32":{zlib.crc32(plain)}}}}}\n'
        return plain + POSITION_LINE + header.to_json() + check.encode()

    def scan(self, file: BinaryIO, start: int) -> Iterator[CompleteBatch]:
        """Yield complete blocks; each is verified by its checksum."""
        file.seek(start)
        check, length, end = 0, 0, start
        while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
            end += len(line)
            if not line.startswith(POSITION_LINE):
                check, length = zlib.crc32(line, check), length + len(line)
                continue
            header = verified_header(line, length, check)
            if header is None:
                return
            yield CompleteBatch(header, end)
            check, length = 0, 0

    def after(self, file: BinaryIO, start: int) -> int | None:
        """Return the offset after the next position line."""
        file.seek(start)
        while line := file.readline(_LONGEST_LINE):
            if is_position_line(line) and line.endswith(b"\n"):
                return file.tell()
        return None


def verified_header(line: bytes, length: int, check: int) -> BatchHeader | None:
    """Read the header of a block from its position line; None if the block does not match its checksum.

    Args:
        line: The position line.
        length: The bytes of the lines before it.
        check: Their CRC-32.
    """
    try:
        found = json.loads(line)["kevents"]
        matches = (found["bytes"], found["crc32"]) == (length, check)
        return BatchHeader.from_json(found["position"]) if matches else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def header_of_line(line: bytes) -> BatchHeader | None:
    """Read the header from the last line of a block; None if it is no position line."""
    try:
        return BatchHeader.from_json(json.loads(line)["kevents"]["position"]) if is_position_line(line) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def is_position_line(line: bytes) -> bool:
    """Return True if a line of a plain segment is a position, not a record."""
    return re.match(rb'\{"kevents":\{"v":\d+,"position":', line) is not None


def format_of(compress: str, level: int) -> Format:
    """Return the format that the options name.

    Raises:
        ValueError: If an option has a wrong value.
    """
    if compress not in {"gzip", "none"}:
        raise ValueError(f"compress must be 'gzip' or 'none', not {compress!r}")
    if require_count("level", level) > _HIGHEST_LEVEL:
        raise ValueError(f"level must be 1 to {_HIGHEST_LEVEL}, not {level}")
    return Gzip(level) if compress == "gzip" else Plain()


def _join(lines: Iterable[bytes]) -> bytes:
    return b"".join(part for line in lines for part in (line, b"\n"))
