"""HTTP/1.1 over one connection: reading requests, writing answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from kevents.testing._apiserver.requests import Incoming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Protocol

    class Readable(Protocol):
        """What a socket's file can do."""

        def read(self, size: int, /) -> bytes:
            """Give `size` bytes, fewer at the end."""

        def readline(self, size: int, /) -> bytes:
            """Give a line of at most `size` bytes."""


__all__ = ["Answer", "MalformedError", "Stream", "chunk", "encode", "json_answer", "read_request", "stream_head"]

MAX_BODY: Final = 3_145_728
_LONGEST_LENGTH: Final = 18
_PIECE: Final = 65_536
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class MalformedError(Exception):
    """What came over the connection is no HTTP request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        status: The HTTP status.
        body: The body.
        content_type: Its type.
        headers: Further headers; several lines of one name as a pair each.
        size: How long the body is, when it is to be repeated up to that; 0 for as it is.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on: `run` is given a function that sends pieces at once, and returns at the end.

    Attributes:
        run: Sends the pieces.
        content_type: The type of the whole.
    """

    run: Callable[[Callable[[Iterable[bytes]], None]], None]
    content_type: str = "application/json"


@dataclass(slots=True)
class _Head:
    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(status: int, body: Mapping[str, Any], headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """Give an answer with a JSON body."""
    return Answer(status, dump(body), headers=headers)


def dump(body: Mapping[str, Any]) -> bytes:
    """Give JSON as the server writes it, a line."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def read_request(stream: Readable, connection: int, send: Callable[[bytes], None]) -> Incoming | None:
    """Read the next request.

    Args:
        stream: What the client sends.
        connection: The number of the connection.
        send: Sends an interim answer.

    Returns:
        The request; None at the end of the connection.

    Raises:
        MalformedError: It is no HTTP.
    """
    head = _read_head(stream)
    if head is None:
        return None
    if "100-continue" in head.headers.get("expect", "").lower():
        send(b"HTTP/1.1 100 Continue\r\n\r\n")
    raw, too_large = _read_body(stream, head.headers)
    path, _, query = head.target.partition("?")
    parameters = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    return Incoming(head.method, path, decode_path(path), parameters, head.headers, raw, connection, too_large)


def _read_head(stream: Readable) -> _Head | None:
    line = stream.readline(_PIECE)
    if not line:
        return None
    match line.decode("latin-1").split():
        case [method, target, version] if version.startswith("HTTP/1."):
            head = _Head(method, target)
        case _:
            raise MalformedError(line)
    while (line := stream.readline(_PIECE)) not in {b"\r\n", b"\n"}:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            raise MalformedError(line)
        head.headers[name.lower()] = value.strip()
    return head


def _read_body(stream: Readable, headers: Mapping[str, str]) -> tuple[bytes, bool]:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _collect(_chunks(stream))
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > _LONGEST_LENGTH:
        raise MalformedError(length)
    if int(length) <= MAX_BODY:
        return _exactly(stream, int(length)), False
    return _collect(_pieces(stream, int(length)))


def _collect(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    kept = bytearray()
    too_large = False
    for piece in pieces:
        too_large = too_large or len(kept) + len(piece) > MAX_BODY
        if not too_large:
            kept += piece
    return (b"" if too_large else bytes(kept)), too_large


def _pieces(stream: Readable, length: int) -> Iterator[bytes]:
    while length > 0:
        piece = _exactly(stream, min(length, _PIECE))
        length -= len(piece)
        yield piece


def _chunks(stream: Readable) -> Iterator[bytes]:
    while True:
        try:
            size = int(stream.readline(_PIECE).partition(b";")[0], 16)
        except ValueError:
            raise MalformedError from None
        yield from _pieces(stream, size)
        stream.readline(_PIECE)
        if size == 0:
            return


def _exactly(stream: Readable, length: int) -> bytes:
    data = stream.read(length) if length else b""
    if len(data) != length:
        raise MalformedError
    return data


def encode(answer: Answer, *, head_only: bool = False) -> bytes:
    """Give the bytes of an answer, so that one send does."""
    head = _lines(answer.status, answer.content_type, answer.headers)
    head += f"Content-Length: {answer.size or len(answer.body)}\r\n\r\n"
    return head.encode("latin-1", "replace") + (b"" if head_only or answer.size else answer.body)


def stream_head(status: int, content_type: str) -> bytes:
    """Give the head of an answer whose pieces follow."""
    return f"{_lines(status, content_type, ())}Transfer-Encoding: chunked\r\n\r\n".encode("latin-1")


def chunk(piece: bytes) -> bytes:
    """Give the bytes of a piece; of an empty one, the end."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def _lines(status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> str:
    further = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return (
        f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\nCache-Control: no-cache, private\r\n"
        f"Content-Type: {content_type}\r\n{further}"
    )


def decode_path(path: str) -> str:
    """Give a path with its escapes read."""
    return unquote(path) if "%" in path else path
