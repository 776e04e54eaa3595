"""Response bodies as bytes: chunked encoding in reads of any size."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.exceptions import UnavailableError
from kevents.export._source.response_stream import ResponseStream, Unchunker


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Split bytes at these places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(0, 10_000), max_size=40))
def test_any_cut(pieces: list[bytes], cuts: list[int]) -> None:
    """Chunks are decoded completely for any read boundaries, and the end is detected."""
    frames = Unchunker()
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    found = [frames.feed(part) for part in split(data, cuts)]
    assert (b"".join(pieces), True) == (b"".join(found), frames.ended)


def test_as_it_comes() -> None:
    """Partial chunks are returned immediately, without the trailing line end."""
    frames = Unchunker()
    assert [frames.feed(b"5\r\nab"), frames.feed(b"cde"), frames.feed(b"\r"), frames.feed(b"\n")] == [
        b"ab",
        b"cde",
        b"",
        b"",
    ]
    assert not frames.ended


def test_extension() -> None:
    """Chunk extensions are ignored."""
    assert Unchunker().feed(b"2;name=value\r\nhi\r\n") == b"hi"


@pytest.mark.parametrize("data", [b"xyz\r\n", b"<html>\r\n", b"\r\n"])
def test_no_chunks(data: bytes) -> None:
    """A body that is not chunked raises an error."""
    with pytest.raises(UnavailableError, match="not chunked as it says"):
        Unchunker().feed(data)


def test_closed_before_it_is_given_back() -> None:
    """A watch's connection is closed before it returns to the pool. The connection of a complete response is reused."""
    done: list[str] = []
    connection = SimpleNamespace(sock=None, close=lambda: done.append("connection closed"))
    response = SimpleNamespace(
        connection=connection,
        close=lambda: done.append("response closed"),
        release_conn=lambda: done.append("given back"),
    )
    ResponseStream(response, live=True).close()
    ResponseStream(response).close()
    assert done == ["response closed", "connection closed", "given back", "response closed", "given back"]


@pytest.mark.parametrize("error", [ValueError("I/O operation on closed file."), AttributeError("'NoneType' ...")])
def test_ended_while_it_is_read(error: Exception) -> None:
    """The errors that a client raises when its connection is closed during a read become `UnavailableError`."""

    def fail(size: int = 0) -> bytes:
        raise error

    for read in (ResponseStream.read, lambda stream: stream.read_all(10)):
        with pytest.raises(UnavailableError, match=str(error)[:10]):
            read(ResponseStream(SimpleNamespace(connection=None, read=fail)))


def test_lines_without_a_socket() -> None:
    """A watch on a transport without a visible socket ends after its next line."""
    parts = iter([b"one\ntw", b"o\n", b""])
    response = SimpleNamespace(connection=SimpleNamespace(sock=None), read=lambda _: next(parts), close=bool)
    stream = ResponseStream(response, live=True)
    stream.end()
    assert list(stream.lines()) == [b"one", b"two"]
