"""Batches as bytes that hold their position: gzip members, and blocks of plain lines; and how many are complete.

A gzip member holds its position in the header's extra field, so that `zcat` gives the records and nothing else. A block
of plain lines ends with a line for the position, with the block's length and checksum; a block without it is torn.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, Protocol

from kevents._model.validation import require_count
from kevents.export._model.position import position_as_json, position_from_json
from kevents.export._model.types import Batch, Position, Record

MAGIC: Final = b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff"  # an extra field, no time: the same batch, the same bytes
SUBFIELD: Final = b"kE"
MOST_HEADER: Final = len(MAGIC) + 2 + 0xFFFF
POSITION_LINE: Final = b'{"kevents":{"v":1,"position":'
_PIECE: Final = 1 << 18
_HIGHEST_LEVEL: Final = 9
_LONGEST_LINE: Final = 1 << 26


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """What one batch in a segment says of itself.

    Attributes:
        position: How far the stream is held with it.
        first: The resourceVersion of its first record, that of the position if it has none.
        records: How many it holds.
    """

    position: Position
    first: int
    records: int

    def text(self) -> bytes:
        """Give it as JSON."""
        values = {**position_as_json(self.position), "first": self.first, "records": self.records}
        return json.dumps(values, separators=(",", ":")).encode()


def held_from_json(value: object) -> BatchHeader:
    """Read it.

    Raises:
        ValueError: If it is none.
    """
    position = position_from_json(value)
    assert isinstance(value, dict)  # noqa: S101 - `position_from_json` has seen to it
    first, records = value.get("first"), value.get("records")
    if not (isinstance(first, int) and isinstance(records, int) and first >= 0 and records >= 0):
        raise ValueError(f"a batch's numbers are {first!r} and {records!r}")
    return BatchHeader(position, first, records)


@dataclass(frozen=True, slots=True)
class CompleteBatch:
    """The end of one whole batch in a file.

    Attributes:
        held: What it says of itself; None for a member of somebody else's.
        end: The offset after it.
    """

    held: BatchHeader | None
    end: int


class Format(Protocol):
    """How batches lie in a segment."""

    suffix: str

    def encode(self, lines: Iterable[bytes], held: BatchHeader) -> bytes:
        """Give a batch as bytes that can be appended."""
        ...

    def scan(self, file: BinaryIO, start: int) -> Iterator[CompleteBatch]:
        """Go from whole batch to whole batch, up to the end or to what is no whole one."""
        ...

    def after(self, file: BinaryIO, start: int) -> int | None:
        """Give the offset of a batch that may begin after this one; None if there is no sign of any."""
        ...


class Gzip:
    """One gzip member a batch (RFC 1952).

    Args:
        level: Of compression.
    """

    suffix = ".jsonl.gz"

    def __init__(self, level: int = 6) -> None:
        """Keep the level."""
        self._level = level

    def encode(self, lines: Iterable[bytes], held: BatchHeader) -> bytes:
        """Give a batch as a member."""
        plain = _joined(lines)
        packer = zlib.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS)
        text = held.text()
        extra = SUBFIELD + struct.pack("<H", len(text)) + text
        end = struct.pack("<II", zlib.crc32(plain), len(plain) & 0xFFFFFFFF)
        return MAGIC + struct.pack("<H", len(extra)) + extra + packer.compress(plain) + packer.flush() + end

    def scan(self, file: BinaryIO, start: int) -> Iterator[CompleteBatch]:
        """Go from member to member; each is checked by its checksum."""
        while True:
            file.seek(start)
            held = held_in_header(file.read(MOST_HEADER))
            end = _member_end(file, start)
            if end is None:
                return
            yield CompleteBatch(held, end)
            start = end

    def after(self, file: BinaryIO, start: int) -> int | None:
        """Give the offset of the next header of ours."""
        file.seek(start + 1)
        offset, before = start + 1, b""
        while data := file.read(_PIECE):
            found = (before + data).find(MAGIC)
            if found >= 0:
                return offset - len(before) + found
            offset += len(data)
            before = (before + data)[-len(MAGIC) :]
        return None


def held_in_header(head: bytes) -> BatchHeader | None:
    """Read what a member of ours says of itself from its first bytes; None if it is not ours."""
    start = len(MAGIC) + 2
    if head[: len(MAGIC)] != MAGIC or head[start : start + 2] != SUBFIELD or len(head) < start + 4:
        return None
    (length,) = struct.unpack_from("<H", head, start + 2)
    text = head[start + 4 : start + 4 + length]
    try:
        return held_from_json(json.loads(text)) if len(text) == length else None
    except (ValueError, RecursionError):
        return None


def _member_end(file: BinaryIO, start: int) -> int | None:
    file.seek(start)
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    data = b""
    try:
        while not unpacker.eof:
            data = unpacker.unconsumed_tail or file.read(_PIECE)
            if not data:
                return None
            unpacker.decompress(data, _PIECE)
    except zlib.error:
        return None
    return file.tell() - len(unpacker.unused_data)


class Plain:
    """A block of lines a batch, and a line for its position."""

    suffix = ".jsonl"

    def encode(self, lines: Iterable[bytes], held: BatchHeader) -> bytes:
        """Give a batch as lines."""
        plain = _joined(lines)
        check = f',"bytes":{len(plain)},"crc32":{zlib.crc32(plain)}}}}}\n'
        return plain + POSITION_LINE + held.text() + check.encode()

    def scan(self, file: BinaryIO, start: int) -> Iterator[CompleteBatch]:
        """Go from position to position; each block is checked by its checksum."""
        file.seek(start)
        check, length, end = 0, 0, start
        while (line := file.readline(_LONGEST_LINE)).endswith(b"\n"):
            end += len(line)
            if not line.startswith(POSITION_LINE):
                check, length = zlib.crc32(line, check), length + len(line)
                continue
            held = _checked(line, length, check)
            if held is None:
                return
            yield CompleteBatch(held, end)
            check, length = 0, 0

    def after(self, file: BinaryIO, start: int) -> int | None:
        """Give the offset after the next position."""
        file.seek(start)
        while line := file.readline(_LONGEST_LINE):
            if is_position_line(line) and line.endswith(b"\n"):
                return file.tell()
        return None


def _checked(line: bytes, length: int, check: int) -> BatchHeader | None:
    try:
        told = json.loads(line)["kevents"]
        return held_from_json(told["position"]) if (told["bytes"], told["crc32"]) == (length, check) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def held_in_line(line: bytes) -> BatchHeader | None:
    """Read what a block of ours says of itself from its last line; None if that is no position."""
    try:
        return held_from_json(json.loads(line)["kevents"]["position"]) if is_position_line(line) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def format_of(compress: str, level: int) -> Format:
    """Give the format that an option names.

    Raises:
        ValueError: If it names none, or the level is none.
    """
    if compress not in {"gzip", "none"}:
        raise ValueError(f"compress must be 'gzip' or 'none', not {compress!r}")
    if require_count("level", level) > _HIGHEST_LEVEL:
        raise ValueError(f"level must be 1 to {_HIGHEST_LEVEL}, not {level}")
    return Gzip(level) if compress == "gzip" else Plain()


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join(part for line in lines for part in (line, b"\n"))


def is_position_line(line: bytes) -> bool:
    """Whether a line of a plain segment is no record, but a position."""
    return re.match(rb'\{"kevents":\{"v":\d+,"position":', line) is not None


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What of a batch is to be written.

    Attributes:
        records: In order; none if only the position has moved.
        position: How far the stream is held with them.
    """

    records: Sequence[Record]
    position: Position

    @property
    def first(self) -> int:
        """The lowest resourceVersion of the records, that of the position without any."""
        return min((record.rv for record in self.records), default=self.position.rv)


def news(batch: Batch, own: Position | None) -> Unwritten | None:
    """Leave out what the destination holds: the last batch that comes again, and what overlaps with it.

    Args:
        batch: What is to be written.
        own: How far the destination holds the stream.

    Returns:
        None if it holds all of it, its position too.
    """
    if own is None:
        return Unwritten(batch.records, batch.position)
    if (batch.position.rv, batch.position.time) <= (own.rv, own.time):
        return None
    return Unwritten([record for record in batch.records if record.rv > own.rv], batch.position)
