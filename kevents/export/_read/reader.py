"""Reading back what was exported: records from segments, each once, and a clear word on what cannot be read."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol, TypeAlias

import msgspec

from kevents.exceptions import KeventsError
from kevents.export._read.archive import Segment, segments
from kevents.export._sinks.object_store import GiveOptions, Options
from kevents.export._sinks.segments import Gzip, is_position_line

REMEMBERED: Final = 100_000

_MOST_TOLD: Final = 100
_DECODER: Final = msgspec.json.Decoder()


@dataclass(frozen=True, slots=True)
class Damage:
    """What of an archive cannot be read.

    Attributes:
        file: The segment: a path or a URL.
        offset: Where in it, in bytes: a line, or the gzip member that it is in.
        why: What is wrong there.

    .. versionadded:: 0.1
    """

    file: str
    offset: int
    why: str

    def __str__(self) -> str:
        """As one line."""
        return f"{self.file}, at byte {self.offset}: {self.why}"


class Listener(Protocol):
    """Who is told what of an archive cannot be read, while it is read."""

    def damaged(self, damage: Damage) -> None:
        """Something cannot be read; what is behind it may be."""
        ...

    def ended(self, file: str, *, foreign: bool) -> None:
        """A segment has been read, as far as it can be.

        Args:
            file: Its path or URL.
            foreign: Whether there was nothing in it but what cannot be read: an export may never have written it.
        """
        ...


class ReadError(KeventsError):
    """Some of an archive could not be read; everything else has been given before.

    Args:
        damages: What; of very many, the first.
        total: How many.

    .. versionadded:: 0.1
    """

    def __init__(self, damages: list[Damage], total: int) -> None:
        """Keep them."""
        more = f" (and {total - 1} more)" if total > 1 else ""
        super().__init__(f"{damages[0]}{more}")
        self.damages = damages
        self.total = total


def read_records(
    source: str | os.PathLike[str],
    *,
    where: Callable[[Mapping[str, Any]], bool] | None = None,
    deduplicate: bool = True,
    remembered: int = REMEMBERED,
    options: Options | GiveOptions | None = None,
    on_damage: Callable[[Damage], None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Read what was exported to files or to an object store, in the order in which it was written to each folder.

    Memory is bounded: a line at a time. What is damaged is passed over, what is behind it is read. An open segment is
    read up to its last whole line. Beside a running export each folder is read as it was when its turn came, none of it
    left out.

    Args:
        source: A file, a folder, or a URL as `s3://bucket/prefix`.
        where: Says which records to give; None: all.
        deduplicate: Whether a record is given once, by its id.
        remembered: How many ids are remembered for that: duplicates lie close together.
        options: Of the object store, as those of :class:`ObjectStoreSink`.
        on_damage: Is told what cannot be read, as soon as that is known; no error is raised at the end then.

    Returns:
        The records.

    Raises:
        ReadError: At the end, if something could not be read.
        OSError: If the source is not there, or cannot be opened.
        ValueError: If the URL or an option is none.

    .. versionadded:: 0.1
    """
    told = _Told(on_damage)
    remembered = remembered if deduplicate else 0
    yield from read_archive(segments(source, options), told, where=where, remembered=remembered)
    if told.damages and on_damage is None:
        raise ReadError(told.damages, told.total)


def read_archive(
    archive: Iterable[Segment],
    listener: Listener,
    *,
    where: Callable[[Mapping[str, Any]], bool] | None = None,
    remembered: int = REMEMBERED,
) -> Iterator[dict[str, Any]]:
    """Give the records of segments, as `read_records` does.

    Args:
        archive: The segments, in their order.
        listener: Is told what cannot be read.
        where: Says which records to give; None: all.
        remembered: How many ids are remembered to give each record once; 0: as often as it stands there.
    """
    seen = _Seen(remembered)
    for segment in archive:
        for record in _records(segment, listener):
            if (not remembered or seen.is_new(record)) and (where is None or where(record)):
                yield record


def _records(segment: Segment, listener: Listener) -> Iterator[dict[str, Any]]:
    damages = records = 0

    def report(offset: int, why: str) -> None:
        nonlocal damages
        damages += 1
        listener.damaged(Damage(segment.name, offset, why))

    try:
        with segment.open() as file:
            for offset, line in lines(file, report, is_open=segment.is_open):
                record = _record(line)
                if record is None:
                    report(offset, "a line that is not a JSON object")
                else:
                    records += 1
                    yield record
        foreign = bool(damages and not records)
    except OSError as error:
        report(0, f"cannot be read: {error.strerror or error}")
        foreign = False
    listener.ended(segment.name, foreign=foreign)


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = _DECODER.decode(line)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return record if isinstance(record, dict) else None


class _Told:
    """Keeps what cannot be read, up to so many."""

    def __init__(self, on_damage: Callable[[Damage], None] | None) -> None:
        self._on_damage = on_damage
        self.damages: list[Damage] = []
        self.total = 0

    def damaged(self, damage: Damage) -> None:
        self.total += 1
        if len(self.damages) < _MOST_TOLD:
            self.damages.append(damage)
        if self._on_damage is not None:
            self._on_damage(damage)

    def ended(self, file: str, *, foreign: bool) -> None:
        """Nothing more is to be said of a segment."""


class _Seen:
    """Remembers the last ids."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._ids: dict[str, None] = {}

    def is_new(self, record: Mapping[str, Any]) -> bool:
        told = record.get("kevents")
        name = told.get("id") if isinstance(told, Mapping) else None
        if not isinstance(name, str):
            return True  # nothing to tell it by
        if name in self._ids:
            return False
        self._ids[name] = None
        if len(self._ids) > self._most:
            del self._ids[next(iter(self._ids))]
        return True


Report: TypeAlias = Callable[[int, str], None]

LONGEST_LINE: Final = 16 << 20
LARGEST_MEMBER: Final = 1 << 30
_PIECE: Final = 1 << 18
_GZIP: Final = b"\x1f\x8b"


class _DamagedError(Exception):
    """Here it cannot be read on."""


class _TornError(_DamagedError):
    """It ends before its end."""


def lines(file: BinaryIO, report: Report, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    """Give the lines of a segment, gzip members or plain, without the positions.

    Args:
        file: It, at its beginning; it can be read anywhere.
        report: Is told the offset of what cannot be read, and why; reading goes on behind it.
        is_open: Whether it is still written: what is torn at its end is not there yet then.

    Returns:
        Pairs: the offset in the file of the line, or of the gzip member that it is in, and the line without its end.
    """
    is_gzip = file.read(2) == _GZIP
    file.seek(0)
    found = _gzip_lines(file, report, is_open=is_open) if is_gzip else _plain_lines(file, report, is_open=is_open)
    return ((offset, line) for offset, line in found if line and not is_position_line(line))


def _gzip_lines(file: BinaryIO, report: Report, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    start: int | None = 0
    while start is not None:
        file.seek(start)
        if not file.read(1):
            return
        try:
            start = yield from _member_lines(file, start)
        except _DamagedError as why:
            behind = Gzip().after(file, start)
            if behind is not None or not (is_open and isinstance(why, _TornError)):
                report(start, str(why))
            start = behind


def _member_lines(file: BinaryIO, start: int) -> Generator[tuple[int, bytes], None, int]:
    """Give the lines of one member; return where the next begins."""
    unpacker, rest, size = zlib.decompressobj(zlib.MAX_WBITS | 16), b"", 0
    file.seek(start)
    while not unpacker.eof:
        piece = _unpacked(unpacker, unpacker.unconsumed_tail or file.read(_PIECE))
        size += len(piece)
        if size > LARGEST_MEMBER:
            raise _DamagedError(f"a gzip member that expands to more than {LARGEST_MEMBER >> 20} MiB")
        *whole, rest = (rest + piece).split(b"\n") if b"\n" in piece else (rest + piece,)
        if len(rest) > LONGEST_LINE:
            raise _DamagedError(f"a line of more than {LONGEST_LINE >> 20} MiB")
        for line in whole:
            yield start, line
    if rest:
        yield start, rest
    return file.tell() - len(unpacker.unused_data)


def _unpacked(unpacker: zlib._Decompress, data: bytes) -> bytes:
    if not data:
        raise _TornError("a gzip member is cut off")
    try:
        return unpacker.decompress(data, _PIECE)
    except zlib.error as error:
        raise _DamagedError(f"a damaged gzip member ({error})") from None


def _plain_lines(file: BinaryIO, report: Report, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    while True:
        start = file.tell()
        line = file.readline(LONGEST_LINE)
        if not line.endswith(b"\n"):
            if len(line) < LONGEST_LINE:  # the end
                if line and not is_open:
                    yield start, line
                return
            report(start, f"a line of more than {LONGEST_LINE >> 20} MiB")
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
        else:
            yield start, line[:-1]
