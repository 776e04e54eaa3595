"""From the bytes of a segment to lines: of what is damaged, as much as can be read, in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, Final, TypeAlias

from kevents.export._sinks.members import Gzip, is_mark

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
    """Give the lines of a segment, gzip members or plain, without the marks.

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
    return ((offset, line) for offset, line in found if line and not is_mark(line))


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
