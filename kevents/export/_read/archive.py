"""The segments of an archive, in order: one file, a folder, or the objects below the URL of an object store."""

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
from kevents.export._sinks.object_store import GetOptions, Options, Store, store_errors
from kevents.export._sinks.segments import OPEN

_A = TypeVar("_A")

_BLOCK: Final = 2 << 20
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
    return io.BufferedReader(_ObjectReader(store, key), _BLOCK)


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
