"""What makes bytes on a disk outlive a crash: fsync, renaming into place, and one writer at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from kevents.export._model.types import Retry

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: nobody is kept out there
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
    """Make a folder with its parents, durably; one that is there is left alone."""
    missing = [folder, *folder.parents]
    made = [path for path in missing if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in made:
        sync_folder(path.parent)


def write_all(handle: int, data: bytes) -> None:
    """Write all of it: a disk that fills up takes a part first."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(handle, rest) :]


def replace(path: Path, data: bytes) -> None:
    """Put a file in place whole: temporary, fsync, rename; whoever reads sees the old or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        try:
            write_all(handle, data)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(temporary, path)  # noqa: PTH105 - beside its kin of os
    except OSError:
        with suppress(OSError):  # it takes space that may be what is missing
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def retried(what: str, path: Path) -> Iterator[None]:
    """Tell trouble with a disk as a sink tells it: not now, and why.

    Raises:
        Retry: For any ``OSError``.
    """
    try:
        yield
    except OSError as error:
        full = ": make room, and it goes on by itself" if error.errno in _FULL else ""
        raise Retry(f"{what} {path}: {error.strerror or error}{full}") from error


class FolderLock:
    """Keeps other writers out of a folder while it is held; it ends with the process, however that ends.

    Args:
        folder: Where the file `.lock` lies.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            Retry: If another writer holds it.
            OSError: If the file cannot be made.
        """
        self._handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                raise
            raise Retry(f"another process writes to {folder}: give each exporter a folder of its own") from None

    def release(self) -> None:
        """Let others in."""
        os.close(self._handle)
