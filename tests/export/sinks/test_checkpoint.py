"""Positions in a checkpoint file for destinations without positions."""

from __future__ import annotations

import io
import json
from contextlib import closing
from pathlib import Path

import pytest

from kevents.export import Batch, Checkpointed, CheckpointError, Position, Reject, Retry, StdoutSink, Stream
from tests.export.batches import STREAM, batch, position, record
from tests.export.sink_contract import OTHER, Place, SinkContract


class TestCheckpointed(SinkContract):
    """The contract."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        """An in-memory stream with a checkpoint file."""
        file = io.BytesIO()
        return Place(
            lambda: Checkpointed(StdoutSink(file), tmp_path / "positions.json"),
            lambda: [json.loads(line) for line in file.getvalue().split(b"\n")[:-1]],
        )


class Doubtful:
    """A sink that raises a scripted error."""

    def __init__(self, answer: Exception | None = None) -> None:
        self.answer = answer
        self.taken: list[Batch] = []

    def write(self, batch: Batch) -> None:
        """Store the batch, then raise the error."""
        self.taken.append(batch)
        if self.answer is not None:
            raise self.answer

    def last_position(self, stream: Stream) -> Position | None:
        """Return no position."""
        return None

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the checkpoint."""
    return tmp_path / "deep" / "positions.json"


def test_found_again(path: Path) -> None:
    """A new process reads the position of each stream, including its time."""
    with closing(Checkpointed(Doubtful(), path)) as sink:
        assert sink.last_position(STREAM) is None
        sink.write(batch([1, 2], upto=5, seconds=1.5))
        sink.write(batch([9], OTHER))
        sink.write(batch([], upto=7, seconds=3))
    with closing(Checkpointed(Doubtful(), path)) as sink:
        assert [sink.last_position(STREAM), sink.last_position(OTHER)] == [position(7, seconds=3), position(9, OTHER)]


def test_after_the_acknowledgement(path: Path) -> None:
    """The position advances only after the destination has accepted the batch."""
    inner = Doubtful(Retry("not now", 3))
    sink = Checkpointed(inner, path)
    with pytest.raises(Retry, match="not now"):
        sink.write(batch([1]))
    assert (sink.last_position(STREAM), path.exists()) == (None, False)
    inner.answer = None
    sink.write(batch([1]))
    assert Checkpointed(inner, path).last_position(STREAM) == position(1)


def test_rejected(path: Path) -> None:
    """After a rejection, the position advances with the empty batch after dead-lettering, which is not sent."""
    inner = Doubtful(Reject("never", [record(1)]))
    sink = Checkpointed(inner, path)
    with pytest.raises(Reject):
        sink.write(batch([1, 2]))
    assert sink.last_position(STREAM) is None
    sink.write(Batch([], position(2)))
    assert (sink.last_position(STREAM), len(inner.taken)) == (position(2), 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"v":2,"positions":[]}',
        b'{"v":1}',
        b'{"v":1,"positions":[{}]}',
        b'{"v":1,"positions":[{"v":1,"cluster":"c","scope":"","rv":-1,"time":0}]}',
        b'{"v":1,"positions":[{"v":1,"cluster":"c","scope":"","rv":"7","time":0}]}',
        b'{"v":1,"positions":[{"v":1,"cluster":7,"scope":"","rv":7,"time":0}]}',
        b"[" * 100_000,
    ],
)
def test_corrupt(path: Path, data: bytes) -> None:
    """An unreadable checkpoint raises an error with its name and the fix. The file is left unchanged."""
    path.parent.mkdir()
    path.write_bytes(data)
    inner = Doubtful()
    sink = Checkpointed(inner, path)
    with pytest.raises(CheckpointError, match=r"positions\.json cannot be read .* or remove it"):
        sink.last_position(STREAM)
    with pytest.raises(CheckpointError):
        sink.write(batch([1]))
    assert (path.read_bytes(), inner.taken) == (data, [])


def test_half_written(path: Path) -> None:
    """A temporary file from a crash is ignored."""
    sink = Checkpointed(Doubtful(), path)
    sink.write(batch([1]))
    path.with_name("positions.json.tmp").write_bytes(b"half")
    again = Checkpointed(Doubtful(), path)
    assert again.last_position(STREAM) == position(1)
    again.write(batch([2]))
    assert [file.name for file in path.parent.iterdir()] == ["positions.json"]


def test_no_place(tmp_path: Path) -> None:
    """If the checkpoint cannot be read, this is reported before any record is sent."""
    (tmp_path / "file").write_text("")
    inner = Doubtful()
    with pytest.raises(Retry, match=r"cannot read the checkpoint .*positions\.json: "):
        Checkpointed(inner, tmp_path / "file" / "positions.json").write(batch([1]))
    assert inner.taken == []


def test_file_is_late(path: Path) -> None:
    """While the checkpoint cannot be written, the batch is not sent again and the position stays."""
    inner, taken = Doubtful(), batch([1])
    sink = Checkpointed(inner, path)
    in_the_way = path.with_name("positions.json.tmp")
    in_the_way.mkdir(parents=True)
    for _ in range(3):
        with pytest.raises(Retry, match=r"cannot write the checkpoint .*positions\.json: "):
            sink.write(taken)
    assert (inner.taken, sink.last_position(STREAM)) == ([taken], None)
    in_the_way.rmdir()
    sink.write(taken)
    assert (inner.taken, Checkpointed(inner, path).last_position(STREAM)) == ([taken], position(1))
    sink.write(batch([2]))
    assert len(inner.taken) == 2


def test_checkpoint_repr(path: Path) -> None:
    """The repr shows the destination and the path."""
    assert repr(Checkpointed(Named(), path)) == f"Checkpointed(a sink, {str(path)!r})"


class Named(Doubtful):
    """A destination with a short repr."""

    def __repr__(self) -> str:
        """Return the repr."""
        return "a sink"


def test_changed_checkpoint(tmp_path: Path) -> None:
    """Fault 30: a changed digit in a checkpoint is an error, so that no record is skipped."""
    path = tmp_path / "positions.json"
    Checkpointed(StdoutSink(io.BytesIO()), path).write(batch([41]))
    path.write_text(path.read_text().replace('"rv": 41', '"rv": 91'))
    with pytest.raises(CheckpointError, match="a position does not match its checksum"):
        Checkpointed(StdoutSink(io.BytesIO()), path).last_position(STREAM)
