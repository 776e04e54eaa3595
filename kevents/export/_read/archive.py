"""The segments of an archive, in order: one file, a folder, or what is below the URL of an object store."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, TypeVar

from kevents.export._model.position import SegmentName, segment_name
from kevents.export._sinks.object_store import GiveOptions, Options, Store, failures

_A = TypeVar("_A")

_PIECE: Final = 2 << 20
_ENDINGS: Final = (".jsonl", ".jsonl.gz", ".jsonl.part", ".jsonl.gz.part")
_OPEN: Final = ".part"
_NONE: Final = SegmentName(0, 0)


class ArchiveError(OSError):
    """An archive cannot be opened: it is not there, or the store does not answer."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of an archive.

    Attributes:
        name: Its path or URL, for people.
        is_open: Whether it is still written.
        open: Opens it for reading at any place.
    """

    name: str
    is_open: bool
    open: Callable[[], BinaryIO]


def segments(source: str | os.PathLike[str], options: Options | GiveOptions | None = None) -> Iterator[Segment]:
    """Give the segments of an archive: by folder, and in the order in which they were written there.

    Args:
        source: A file, a folder, or the URL of an object or of what is below it.
        options: Of the object store.

    Raises:
        ArchiveError: If there is nothing, or the store does not answer.
        ValueError: If the URL or an option is none.
        ImportError: If the package for object stores is missing.
    """
    text = os.fspath(source)
    return _objects(text, options) if "://" in text else _files(Path(text))


def _files(path: Path) -> Iterator[Segment]:
    if not path.exists():
        raise ArchiveError(f"{path} is not there: give a file, a folder or a URL as s3://bucket/prefix")
    if not path.is_dir():
        yield _segment(path)
        return
    folders = {file.parent for file in path.rglob("*") if file.name.endswith(_ENDINGS)}
    for folder in sorted(folders, key=lambda folder: folder.as_posix()):
        yield from _folder(folder)


def _folder(folder: Path) -> Iterator[Segment]:
    """Give a folder as it is at one moment, beside an exporter that closes its open segment and begins another.

    The open one is opened before the closed ones are listed: it may be one of them by then, and is given once.
    """
    with ExitStack() as stack:
        opened = list(_open_ones(folder, stack))
        held = {key for _, key in opened if key is not None}
        closed = [file for file in _listed(folder) if not file.name.endswith(_OPEN)]
        yield from (_segment(file) for file in closed if _key(file) not in held)
        yield from (segment for segment, _ in opened)


def _listed(folder: Path) -> list[Path]:
    found = [file for file in folder.iterdir() if file.name.endswith(_ENDINGS)]
    return sorted(found, key=lambda file: _order(file.as_posix()))


def _segment(file: Path) -> Segment:
    return Segment(str(file), file.name.endswith(_OPEN), partial(Path.open, file, "rb"))  # type: ignore[arg-type]


def _open_ones(folder: Path, stack: ExitStack) -> Iterator[tuple[Segment, tuple[int, int] | None]]:
    for file in _listed(folder):
        if file.name.endswith(_OPEN):
            try:
                handle = stack.enter_context(file.open("rb"))
            except FileNotFoundError:  # it has just been closed, and is among those
                continue
            except OSError:  # whoever reads it is told why
                yield _segment(file), None
            else:
                yield Segment(str(file), True, partial(_given, handle)), _key(handle.fileno())


def _given(handle: BinaryIO) -> BinaryIO:
    return handle


def _key(file: Path | int) -> tuple[int, int] | None:
    """Give what a file keeps when it is renamed."""
    try:
        found = os.stat(file)  # noqa: PTH116 - of a handle too
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _objects(url: str, options: Options | GiveOptions | None) -> Iterator[Segment]:
    folder, _, last = url.rpartition("/")
    one = last.endswith(_ENDINGS)
    store = Store(folder if one else url, options, timeout=60.0)
    keys = [last] if one else _keys(store)
    if not keys:
        raise ArchiveError(f"nothing below {url}: no object there ends with .jsonl or .jsonl.gz")
    for key in sorted(keys, key=_order):
        yield Segment(f"{store}/{key}", key.endswith(_OPEN), partial(_opened, store, key))


def _opened(store: Store, key: str) -> BinaryIO:
    return io.BufferedReader(_Ranges(store, key), _PIECE)


class _Ranges(io.RawIOBase):
    """An object, read piece by piece at any place."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__()
        self._store, self._key, self._place = store, key, 0
        self._size = self._asked(lambda obstore, opened: int(obstore.head(opened, key)["size"]))

    def _asked(self, ask: Callable[[Any, Any], _A]) -> _A:
        import obstore  # noqa: PLC0415 - an optional package

        try:
            return ask(obstore, self._store.opened())
        except failures() as error:
            raise ArchiveError(self._store.format_error(error)) from None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - whatever has a buffer
        end = min(self._place + len(buffer), self._size)
        if end <= self._place:
            return 0
        data = self._asked(
            lambda obstore, opened: bytes(obstore.get_range(opened, self._key, start=self._place, end=end))
        )
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _keys(store: Store) -> list[str]:
    import obstore  # noqa: PLC0415 - an optional package

    try:
        pages = obstore.list(store.opened(), chunk_size=1000)
        return [found["path"] for page in pages for found in page if found["path"].endswith(_ENDINGS)]
    except failures() as error:
        raise ArchiveError(f"cannot list {store}: {store.format_error(error)}") from None


def _order(path: str) -> tuple[str, bool, SegmentName, str]:
    place = PurePosixPath(path)
    name = segment_name(place.name)
    return str(place.parent), name is None, name or _NONE, place.name  # an open segment has no name: the newest
