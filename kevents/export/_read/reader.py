"""Reads records back from an archive, each once, in bounded memory; damage is reported and skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO, Final, TypeAlias

import msgspec

from kevents._model.wire import format_time, parse_time
from kevents.exceptions import KeventsError
from kevents.export._model.text import unknown
from kevents.export._model.types import time_span
from kevents.export._read.archive import ALWAYS, Period, Segment, segments
from kevents.export._route.routes import CONDITIONS, Route, Router, Value
from kevents.export._sinks.object_store import GetOptions, Options
from kevents.export._sinks.segments import (
    LONGEST_HEADER,
    DamagedError,
    Gzip,
    Member,
    Plain,
    TornError,
    header_at,
    is_complete,
    is_position_line,
)

REMEMBERED: Final = 100_000
LONGEST_LINE: Final = 16 << 20
LARGEST_MEMBER: Final = 1 << 30
_MOST_DAMAGES: Final = 100
_MOST_BUFFERED: Final = 2 << 20  # a gzip member up to this size is decompressed once; a larger one twice
_DECODER: Final = msgspec.json.Decoder()

_Where: TypeAlias = Callable[[Mapping[str, Any]], object]
_Report: TypeAlias = Callable[[int, str], None]


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of an archive that cannot be read.

    Attributes:
        file: The path or URL of the segment.
        offset: The offset in bytes of the line, or of the gzip member that holds it.
        why: The reason.
    """

    file: str
    offset: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}, at byte {self.offset}: {self.why}"


class Damages:
    """Keeps the first damages and counts all."""

    def __init__(self, on_damage: Callable[[Damage], None] | None = None) -> None:
        self._on_damage = on_damage
        self.first: list[Damage] = []
        self.total = 0

    def add(self, damage: Damage) -> None:
        """A part cannot be read; reading continues after it."""
        self.total += 1
        if len(self.first) < _MOST_DAMAGES:
            self.first.append(damage)
        if self._on_damage is not None:
            self._on_damage(damage)

    def end(self, file: str, *, foreign: bool) -> None:
        """A segment has been read. It is foreign if nothing in it could be read: perhaps no export wrote it."""


class ReadError(KeventsError):
    """Some of an archive could not be read; all other records were yielded before.

    Args:
        damages: The first 100 damages.
        total: The number of damages.
    """

    def __init__(self, damages: list[Damage], total: int) -> None:
        more = f" (and {total - 1} more)" if total > 1 else ""
        super().__init__(f"{damages[0]}{more}")
        self.damages = damages
        self.total = total


def read_records(
    source: str | os.PathLike[str],
    *,
    since: datetime | timedelta | None = None,
    until: datetime | timedelta | None = None,
    where: _Where | None = None,
    deduplicate: bool = True,
    remembered: int = REMEMBERED,
    options: Options | GetOptions | None = None,
    on_damage: Callable[[Damage], None] | None = None,
    **conditions: Value,
) -> Iterator[dict[str, Any]]:
    """Read exported records from files or an object store, in the order in which they were written to each folder.

    Memory is bounded: one line at a time. Damaged parts are skipped. An open segment is read up to its last complete
    line. While an export is running, each folder is read as it is when its turn comes, without losing a segment.

    Args:
        source: A file, a folder, or a URL such as `s3://bucket/prefix`.
        since: The time of the oldest wanted records; a timedelta: so long ago. Parts of the archive that hold none are
            skipped unread.
        until: The time of the newest wanted records; a timedelta: so long ago.
        where: Selects records; None: all.
        deduplicate: Yield each record once, by its id.
        remembered: How many ids at least are remembered for that: duplicates lie close together.
        options: The options of the object store, as for :class:`ObjectStoreSink`.
        on_damage: Called at once for each part that cannot be read; no error is raised at the end then.
        **conditions: Select records as those of a :class:`Route` do: ``type="Warning"``, ``owner_name="web"``,
            ``labels={"app": "web"}``. A gap record matches every condition.

    Returns:
        The records.

    Raises:
        ReadError: At the end, if something could not be read.
        OSError: If the source does not exist or cannot be opened.
        ValueError: If the URL, an option, a time or a condition is wrong.
    """
    period, wanted = period_of(since, until), where
    if conditions:
        for name in set(conditions) - set(CONDITIONS):
            raise TypeError(f"read_records: {unknown('condition', name, CONDITIONS)}")
        given: dict[str, Any] = {"when": where, **conditions}
        router = Router([Route(to="reader", **given)])
        wanted = router.targets_of
    damages = Damages(on_damage)
    found = segments(source, options, period)
    remembered = remembered if deduplicate else 0
    yield from read_archive(found, damages, where=wanted, period=period, remembered=remembered)
    if damages.first and on_damage is None:
        raise ReadError(damages.first, damages.total)


def period_of(since: datetime | timedelta | None, until: datetime | timedelta | None) -> Period:
    """Return the period between two times; a timedelta is so long ago. Raises ValueError if nothing is between."""
    now = datetime.now(timezone.utc)
    begin, end = (parse_time(now - at if isinstance(at, timedelta) else at) if at else None for at in (since, until))
    period = Period(begin or 0, ALWAYS.until if end is None else end)
    if period.until < period.since:
        raise ValueError(
            f"until ({format_time(period.until)}) is before since ({format_time(period.since)}): nothing is between"
        )
    return period


def read_archive(
    archive: Iterable[Segment],  # the segments, in order
    damages: Damages,  # those of the archive are added
    *,
    where: _Where | None = None,  # selects records; None: all
    period: Period = ALWAYS,  # the time of the wanted records
    remembered: int = REMEMBERED,
) -> Iterator[dict[str, Any]]:
    """Yield the records of segments, as `read_records` does."""
    recent, bounded = _RecentIds(remembered), period.bounded
    for segment in archive:
        for record in _records(segment, damages, period):
            if (
                (where is None or where(record))
                and (not bounded or period.overlaps(time_span(record)))
                and (not remembered or recent.is_new(record))
            ):
                yield record


def _records(segment: Segment, damages: Damages, period: Period) -> Iterator[dict[str, Any]]:
    before, records = damages.total, 0

    def report(offset: int, why: str) -> None:
        damages.add(Damage(segment.name, offset, why))

    try:
        with segment.open() as file:
            for offset, line in _lines(file, report, period, is_open=segment.is_open):
                try:
                    record = _DECODER.decode(line)
                except (msgspec.DecodeError, RecursionError, ValueError):
                    record = None
                if isinstance(record, dict):
                    records += 1
                    yield record
                else:
                    report(offset, "a line that is not a JSON object")
        foreign = damages.total > before and not records
    except OSError as error:
        report(0, f"cannot be read: {error.strerror or error}")
        foreign = False
    damages.end(segment.name, foreign=foreign)


class _RecentIds:
    """Remembers at least the last ids, at most twice as many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: set[str] = set()
        self._older: set[str] = set()

    def is_new(self, record: Mapping[str, Any]) -> bool:
        kevents = record.get("kevents")
        name = kevents.get("id") if isinstance(kevents, dict) else None
        if not isinstance(name, str):
            return True  # no id to compare
        if name in self._ids or name in self._older:
            return False
        self._ids.add(name)
        if len(self._ids) >= self._limit:
            self._ids, self._older = set(), self._ids
        return True


# -- lines of a segment


def _lines(file: BinaryIO, report: _Report, period: Period, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a segment without their ends, each with its offset or that of the gzip member that holds it.

    Headers are left out. Batches outside of a period are skipped unread.
    """
    is_gzip = file.read(2) == b"\x1f\x8b"
    read = _gzip_lines if is_gzip else _plain_lines
    found = read(file, report, period, is_open=is_open)
    return ((offset, line) for offset, line in found if line and not is_position_line(line))


def _gzip_lines(file: BinaryIO, report: _Report, period: Period, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    start: int | None = 0
    while start is not None:
        if period.bounded and (found := header_at(file, start)) and not period.overlaps(found.header.span):
            start = found.end
            continue
        file.seek(start)
        if not file.read(1):
            return
        try:
            start = yield from _member_lines(file, start)
        except DamagedError as why:
            after = Gzip().after(file, start)
            if after is not None or not (is_open and isinstance(why, TornError)):
                report(start, str(why))
            start = after


def _member_lines(file: BinaryIO, start: int) -> Generator[tuple[int, bytes], None, int]:
    """Verify one member, then yield its lines; return the offset of the next one."""
    pieces: list[bytes] | None = []
    size = 0
    for piece in (member := Member(file, start)):
        size += len(piece)
        if size > LARGEST_MEMBER:
            raise DamagedError(f"a gzip member that expands to more than {LARGEST_MEMBER >> 20} MiB")
        if size > _MOST_BUFFERED:
            pieces = None  # decompressed again below
        elif pieces is not None:
            pieces.append(piece)
    end = member.end
    rest = b""
    for piece in [b"".join(pieces)] if pieces is not None else Member(file, start):
        *whole, rest = (rest + piece).split(b"\n") if b"\n" in piece else (rest + piece,)
        if len(rest) > LONGEST_LINE:
            raise DamagedError(f"a line of more than {LONGEST_LINE >> 20} MiB")
        for line in whole:
            yield start, line
    if rest:
        yield start, rest
    return end


def _plain_lines(file: BinaryIO, report: _Report, period: Period, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    """Verify one block after the other, then yield its lines. A file without headers is not verified."""
    start: int | None = 0 if header_at(file, 0) else Plain().after(file, 0)
    if start is None:
        yield from _foreign_lines(file, report, is_open=is_open)
        return
    start, size = 0, file.seek(0, os.SEEK_END)
    while start is not None:
        found = header_at(file, start)
        if found and (not period.overlaps(found.header.span) or is_complete(file, found)):
            if period.overlaps(found.header.span):
                yield from _block_lines(file, found.start, found.end, report)
            start = found.end
            continue
        file.seek(start)
        if not (head := file.read(LONGEST_HEADER)):
            return
        after = Plain().after(file, start)
        torn = after is None and (found.end > size if found else b"\n" not in head)
        if not (torn and is_open):
            report(start, "an incomplete block" if torn else "a block that does not match its checksum")
        start = after


def _block_lines(file: BinaryIO, start: int, end: int, report: _Report) -> Iterator[tuple[int, bytes]]:
    """Yield the offset and the content of each line between two offsets."""
    file.seek(start)
    while start < end and (line := file.readline(LONGEST_LINE)):
        offset, start = start, start + len(line)
        if not line.endswith(b"\n") and len(line) == LONGEST_LINE:
            report(offset, f"a line of more than {LONGEST_LINE >> 20} MiB")
            while line and not line.endswith(b"\n"):
                line = file.readline(LONGEST_LINE)
                start += len(line)
        else:
            yield offset, line[:-1] if line.endswith(b"\n") else line


def _foreign_lines(file: BinaryIO, report: _Report, *, is_open: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file that no export wrote; the last one of an open one may be incomplete."""
    end = file.seek(0, os.SEEK_END)
    waiting: tuple[int, bytes] | None = None
    for found in _block_lines(file, 0, end, report):
        if waiting is not None:
            yield waiting
        waiting = found
    if waiting is not None and not (is_open and waiting[0] + len(waiting[1]) == end):
        yield waiting
