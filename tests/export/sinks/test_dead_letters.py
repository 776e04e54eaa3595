"""Records that a destination rejected."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kevents.export import DeadLetters, Retry
from tests.export.batches import AT, body, ids, ids_of, record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the file."""
    return tmp_path / "deep" / "dead.jsonl"


def letters(path: Path) -> list[dict[str, Any]]:
    """Return the records of the file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def test_written_fields(path: Path) -> None:
    """Each line is the unchanged record with the sink, the reason and the time added under `kevents`."""
    found = record(7)
    dead = DeadLetters(path, clock=lambda: AT + 5_000)
    dead.write("pager", [found], "the server says 422")
    told = {"sink": "pager", "why": "the server says 422", "time": "2026-07-24T09:00:00.000005Z"}
    expected = body(7)
    expected["kevents"]["rejected"] = told
    assert (letters(path), found.body) == ([expected], body(7))


def test_appended(path: Path) -> None:
    """Records of an earlier process are kept."""
    for rv in (1, 2):
        DeadLetters(path).write("pager", [record(rv)], "no")
    assert ids(letters(path)) == ids_of([1, 2])


@pytest.mark.parametrize("torn", [b'{"half', b"x" * 200_000])
def test_torn(path: Path, torn: bytes) -> None:
    """A line that was torn by a crash is cut off."""
    DeadLetters(path).write("pager", [record(1)], "no")
    with path.open("ab") as file:
        file.write(torn)
    DeadLetters(path).write("pager", [record(2)], "no")
    assert ids(letters(path)) == ids_of([1, 2])


def test_a_long_reason(path: Path) -> None:
    """A long reason is cut, because it comes from another server."""
    DeadLetters(path).write("pager", [record(1)], "no\n" * 100_000)
    assert len(letters(path)[0]["kevents"]["rejected"]["why"]) == 2000


def test_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is reported. No line is torn."""
    dead = DeadLetters(path)
    dead.write("pager", [record(1)], "no")
    before = path.read_bytes()

    def write(handle: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("kevents.export._sinks.segments.os.write", write)
        with pytest.raises(Retry, match=r"cannot write dead letters to .*: No space left on device: free some space"):
            dead.write("pager", [record(2)], "no")
    assert path.read_bytes() == before


def test_several_threads(path: Path) -> None:
    """Threads of several destinations share the file without losing or mixing lines."""
    dead = DeadLetters(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda rv: dead.write("pager", [record(rv)] * 3, "no"), range(40)))
    assert sorted(ids(letters(path))) == sorted(ids_of(range(40)) * 3)


def test_letters_repr(path: Path) -> None:
    """The repr shows the path."""
    assert repr(DeadLetters(path)) == f"DeadLetters({str(path)!r})"


def test_planted_link(path: Path, tmp_path: Path) -> None:
    """Fault 37: a symbolic link in the place of the file is refused."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(victim)
    with pytest.raises(Retry, match="a symbolic link is not followed"):
        DeadLetters(path).write("pager", [record(1)], "no")
    assert victim.read_bytes() == b"precious"
