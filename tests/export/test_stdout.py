"""Records on the standard output."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys

import pytest

from kevents.export import Retry, StdoutSink
from tests.export.batches import STREAM, batch, ids, ids_of
from tests.export.sink_contract import Place, SinkContract


class TestStdoutSink(SinkContract):
    """The contract."""

    @pytest.fixture
    def place(self) -> Place:
        """A stream of bytes."""
        file = io.BytesIO()
        return Place(lambda: StdoutSink(file), lambda: [json.loads(line) for line in file.getvalue().split(b"\n")[:-1]])


def test_the_standard_output() -> None:
    """Without a stream it is the process's own, and flushed with each batch."""
    script = (
        "import os\nfrom kevents.export import StdoutSink\nfrom tests.export.batches import batch\n"
        "StdoutSink().write(batch([1, 2]))\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, check=True)
    assert (ids_of([1, 2]), b"") == (ids(json.loads(line) for line in done.stdout.splitlines()), done.stderr)


class Broken(io.RawIOBase):
    """Takes nothing."""

    def __init__(self, number: int) -> None:
        """Keep the error."""
        super().__init__()
        self.number = number

    def write(self, data: object) -> int:
        """Refuse."""
        raise OSError(self.number, "told so")


def test_nobody_reads() -> None:
    """A closed pipe stays closed: the error of the system, for the command to end with."""
    with pytest.raises(BrokenPipeError):
        StdoutSink(Broken(errno.EPIPE)).write(batch([1]))  # type: ignore[arg-type]


def test_a_full_disk() -> None:
    """Any other trouble may pass."""
    with pytest.raises(Retry, match="the standard output takes nothing: told so"):
        StdoutSink(Broken(errno.ENOSPC)).write(batch([1]))  # type: ignore[arg-type]


def test_no_mark() -> None:
    """What was written cannot be asked."""
    sink = StdoutSink(io.BytesIO())
    sink.write(batch([1]))
    assert sink.last_mark(STREAM) is None
    assert "StdoutSink()" == repr(sink)
