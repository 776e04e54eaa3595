"""Durable files: fsync, atomic replacement, appending, and one writer at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from kevents.export._model.types import Retry

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
