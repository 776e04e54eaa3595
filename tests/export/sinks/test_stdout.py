"""The sink that writes to the standard output."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from kevents.export import Retry, StdoutSink
from tests.export.batches import STREAM, batch, ids, ids_of, record
from tests.export.sink_contract import Place, SinkContract


class TestStdoutSink(SinkContract):
    """The contract."""

    @pytest.fixture
    def place(self) -> Place:
        """An in-memory stream."""
        file = io.BytesIO()
        return Place(lambda: StdoutSink(file), lambda: [json.loads(line) for line in file.getvalue().split(b"\n")[:-1]])


def test_the_standard_output() -> None:
    """By default the sink writes to the process's standard output and flushes after each batch."""
    script = (
        "import os\nfrom kevents.export import StdoutSink\nfrom tests.export.batches import batch\n"
        "StdoutSink().write(batch([1, 2]))\nos._exit(0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, check=True)
    assert (ids(json.loads(line) for line in done.stdout.splitlines()), done.stderr) == (ids_of([1, 2]), b"")


class Broken(io.RawIOBase):
    """A stream that accepts nothing."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, data: object) -> int:
        """Raise the error."""
        raise OSError(self.number, "refused")


def test_closed_pipe() -> None:
    """A closed pipe raises BrokenPipeError, which ends the command."""
    with pytest.raises(BrokenPipeError):
        StdoutSink(Broken(errno.EPIPE)).write(batch([1]))  # type: ignore[arg-type]


def test_a_full_disk() -> None:
    """Other errors are retried."""
    with pytest.raises(Retry, match="the standard output accepts nothing: refused"):
        StdoutSink(Broken(errno.ENOSPC)).write(batch([1]))  # type: ignore[arg-type]


class Scarce(io.RawIOBase):
    """Accepts `space` bytes, then nothing until there is space again."""

    def __init__(self, space: int) -> None:
        super().__init__()
        self.space = space
        self.data = b""

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Accept as many bytes as there is space."""
        if not self.space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = bytes(data)[: self.space]
        self.space -= len(taken)
        self.data += taken
        return len(taken)


def lines(*rvs: int) -> bytes:
    """Return the lines of the records with these resourceVersions."""
    return b"".join(record(rv).line() + b"\n" for rv in rvs)


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize("space", [1, len(lines(1)), len(lines(1)) + 5])
def test_no_line_is_torn(space: int, *, buffered: bool) -> None:
    """A batch that was written in part continues where it stopped."""
    file, written = Scarce(space), batch([1, 2, 3])
    sink = StdoutSink(io.BufferedWriter(file) if buffered else file)
    for _ in range(2):
        with pytest.raises(Retry, match="the standard output accepts nothing: No space left on device"):
            sink.write(written)
    file.space = 10**6
    sink.write(written)
    sink.write(batch([4]))
    assert file.data == lines(1, 2, 3, 4)


@pytest.mark.parametrize(("space", "whole"), [(1, [1]), (len(lines(1)), [1]), (len(lines(1)) + 5, [1, 2])])
def test_given_up(space: int, whole: list[int]) -> None:
    """The torn line of a batch that was given up is completed before another batch."""
    file = Scarce(space)
    sink = StdoutSink(file)
    for rvs in ([1, 2, 3], [4]):
        with pytest.raises(Retry):
            sink.write(batch(rvs))
    sink.write(batch([], upto=5))
    file.space = 10**6
    sink.write(batch([6]))
    assert file.data == lines(*whole, 6)


def test_a_stream_that_does_not_wait() -> None:
    """A non-blocking stream without space is retried."""

    class Busy(Scarce):
        def write(self, data: Any) -> None:  # type: ignore[override]
            """Accept nothing."""

    with pytest.raises(Retry, match="the standard output accepts nothing: Resource temporarily unavailable"):
        StdoutSink(Busy(0)).write(batch([1]))


def test_no_position() -> None:
    """The stream holds no position."""
    sink = StdoutSink(io.BytesIO())
    sink.write(batch([1]))
    assert sink.last_position(STREAM) is None
    assert repr(sink) == "StdoutSink()"
