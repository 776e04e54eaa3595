"""The body of an API server's answer as a stream of bytes, with chunked encoding removed in large pieces."""

from __future__ import annotations

import re
import selectors
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from http import HTTPStatus
from typing import Any, Final, TypeGuard, TypeVar

import msgspec

from kevents._clients.errors import format_redacted
from kevents._model.wire import clip
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._model.types import Record
from kevents.export._source.revision_filter import RevisionFilter

_T = TypeVar("_T")

_MAX_DEPTH: Final = 64
_MAX_LINE: Final = 16 << 20
_MAX_MESSAGE: Final = 200
_CHANGES: Final = ("ADDED", "MODIFIED")  # a tuple, because a line may hold an unhashable value there
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)
_FAILURES: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class GoneError(Exception):
    """410: the server no longer knows the resourceVersion, or the page that was asked for."""


class _ListMetadata(msgspec.Struct, rename={"more": "continue"}):
    resourceVersion: str = ""  # noqa: N815 - the API's name
    more: str = ""


class Page(msgspec.Struct):
    """A page of a list, its events undecoded."""

    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


_PAGE: Final = msgspec.json.Decoder(Page)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


def decode(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    """Decode JSON. Values nested deeper than 64 levels become null. Raises msgspec's and Unicode's DecodeError."""
    try:
        return decoder.decode(data)
    except RecursionError:
        return decoder.decode(limit_depth(data))


def limit_depth(data: bytes) -> bytes:
    """Replace values nested deeper than 64 levels by null. Invalid JSON stays invalid."""
    kept: list[bytes] = []
    at = depth = 0
    for token in _TOKEN.finditer(data):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == _MAX_DEPTH + 1:
                kept.append(data[at : token.start()])
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == _MAX_DEPTH:
                kept.append(b"null")
                at = token.end()
    return b"".join([*kept, data[at:] if depth <= _MAX_DEPTH else b""])


def decode_page(body: bytes) -> Page:
    """Decode a page of a list. Raises UnavailableError if it is none, or it has no resourceVersion."""
    try:
        page = decode(_PAGE, body)
    except _FAILURES as error:
        raise UnavailableError(f"the answer is no list of events: {error}") from None
    if not page.metadata.resourceVersion:
        raise UnavailableError("the answer is no list of events: it has no resourceVersion")
    return page


def decode_event(data: bytes) -> dict[str, Any] | None:
    """Decode an item of a list; None if it is no event."""
    try:
        event = decode(_OBJECT, data)
    except _FAILURES:
        return None
    return event if _is_event(event) else None


def _is_event(value: object) -> TypeGuard[dict[str, Any]]:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    return isinstance(metadata, dict) and isinstance(metadata.get("resourceVersion", ""), str)


class WatchDecoder:
    """Decodes one watch."""

    def __init__(self, revisions: RevisionFilter, version: str) -> None:
        self.version = version  # the resourceVersion after which the watch began
        self.events = 0  # the number of events of any type
        self.unreadable = 0  # the number of lines that held no event
        self.error: Exception | None = None
        self._revisions = revisions  # the stream's filter, which gets each event
        self._rest = b""

    def decode(self, data: bytes, now: int, read_at: float) -> list[Record]:
        """Return the records of the bytes that arrived. An incomplete line waits for its end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            self.error = UnavailableError(f"the answer is no watch: a line is longer than {_MAX_LINE} bytes")
            return []
        records = []
        for line in lines:
            if line:
                record = self._line(line, now, read_at)
                if record is not None:
                    records.append(record)
            if self.error is not None:
                break
        return records

    def _line(self, line: bytes, now: int, read_at: float) -> Record | None:
        try:
            change = decode(_OBJECT, line)
        except _FAILURES as error:
            self.error = UnavailableError(f"the answer is no watch: {error}")
            return None
        verb, event = change.get("type"), change.get("object")
        if verb == "ERROR":
            self.error = _error_of(event)
            return None
        if not _is_event(event):
            self.unreadable += 1
            return None
        self.events += 1
        version = event["metadata"].get("resourceVersion", "")
        record = self._revisions.watched(verb, event, now, read_at) if verb in _CHANGES else None
        if version:
            self.version = version
            self._revisions.advance(version)
        return record


def _error_of(status: object) -> Exception:
    """The exception for the Status of an ERROR event."""
    found = status if isinstance(status, dict) else {}
    code, reason, message = found.get("code"), str(found.get("reason", "")), str(found.get("message", ""))
    if code == HTTPStatus.GONE or reason in {"Expired", "Gone"}:
        return GoneError(message)
    return StatusError(code if isinstance(code, int) else 0, reason, clip(message, _MAX_MESSAGE))


_READ_SIZE: Final = 262_144
_MAX_READ: Final = 1_048_576
_CRLF: Final = b"\r\n"


class TooLargeError(UnavailableError):
    """The answer is longer than the caller's limit."""


class Unchunker:
    """Decodes HTTP's chunked encoding, many chunks per call.

    The API server sends each watch event as one chunk. Reading chunk by chunk costs several times as much as decoding
    the events.
    """

    __slots__ = ("_left", "_rest", "ended")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0
        self.ended = False  # True after the last chunk

    def feed(self, data: bytes) -> bytes:
        """Return the content of the chunks that have arrived. Raises UnavailableError if the data is not chunked."""
        data = self._rest + data if self._rest else data
        found: list[bytes] = []
        at, end = 0, len(data)
        while at < end and not self.ended:
            if self._left == 0:
                head = data.find(_CRLF, at)
                if head < 0:
                    break
                self._begin(data[at:head])
                at = head + 2
            taken = data[at : at + self._left]
            found.append(taken[: self._left - 2] if len(taken) > self._left - 2 else taken)
            self._left -= len(taken)
            at += len(taken)
        self._rest = data[at:]
        return b"".join(found)

    def _begin(self, head: bytes) -> None:
        try:
            size = int(head.partition(b";")[0], 16)
        except ValueError:
            raise UnavailableError(f"the answer is not chunked as it says: {head[:20]!r}") from None
        self.ended = size == 0
        self._left = size + 2  # with the line end after it


class ResponseStream:
    """The body of an answer; one thread reads it, any thread may end it."""

    def __init__(self, response: Any, *, live: bool = False) -> None:  # noqa: ANN401 - no common type in all versions
        import urllib3.exceptions  # noqa: PLC0415 - not loaded with kevents.export

        self._failures = (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError)  # the last two: `end`
        self._response = response  # a urllib3 response whose body has not been read
        self._connection: Any = response.connection if live else None
        self._socket: Any = getattr(getattr(response, "connection", None), "sock", None)
        self._raw: Any = self._chunked_source(response) if live else None
        self._chunks = Unchunker()
        self._begun = False
        self.caught_up = False  # True if the last read had to wait, so everything that was sent before it has been read
        self._selector = selectors.DefaultSelector()
        if self._socket is not None:
            self._selector.register(self._socket, selectors.EVENT_READ)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self._response.status)

    @property
    def headers(self) -> dict[str, str]:
        """The headers."""
        return dict(self._response.headers)

    @property
    def reason(self) -> str:
        """The reason phrase of the status line."""
        return str(self._response.reason or "")

    def read(self) -> bytes:
        """Wait for more of the body and return all that has arrived; empty at the end. Raises UnavailableError."""
        try:
            if self._raw is None:
                self.caught_up = True
                return bytes(self._response.read(_READ_SIZE))
            data = b""
            while not data and not self._chunks.ended:
                data = self._chunks.feed(self._read_available())
        except UnavailableError:
            raise
        except self._failures as error:
            raise UnavailableError(format_redacted(error)) from None
        return data

    def read_all(self, limit: int) -> bytes:
        """Return the whole body. Raises TooLargeError if it is longer, and the errors of :meth:`read`."""
        pieces = []
        size = 0
        while piece := self.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise TooLargeError(f"the answer is longer than {limit} bytes")
        return b"".join(pieces)

    def read_start(self, limit: int) -> bytes:
        """Return the start of an error body, at most `limit` bytes, as far as it can be read."""
        data = b""
        with suppress(UnavailableError):
            while len(data) < limit and (piece := self.read()):
                data += piece
        return data[:limit]

    def lines(self) -> Iterator[bytes]:
        """Yield complete lines without their ends. Raises UnavailableError, also for a line of more than 16 MiB."""
        rest = b""
        with closing(self):
            while data := self.read():
                *whole, rest = (rest + data).split(b"\n")
                if len(rest) > _MAX_LINE:
                    raise UnavailableError(f"a line of a watch is longer than {_MAX_LINE} bytes")
                yield from whole

    def close(self) -> None:
        """Release the connection; one whose body was not read completely is closed."""
        self._selector.close()
        with suppress(Exception):  # `end` may have closed it, in any state
            self._response.close()
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        with suppress(Exception):  # last, because from then on another request may use the connection
            self._response.release_conn()

    def end(self) -> None:
        """End the connection, so that a waiting read returns or raises at once."""
        if self._socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of TLS too: without a closing handshake

    def _chunked_source(self, response: Any) -> Any:  # noqa: ANN401
        """The file from which chunks are read; None if urllib3 must read them."""
        source = getattr(getattr(response, "_fp", None), "fp", None)
        plain = not getattr(response, "headers", {}).get("content-encoding")
        fits = getattr(response, "chunked", False) and plain and self._socket is not None
        return source if fits and hasattr(source, "read1") else None

    def _read_available(self) -> bytes:
        """One read, and all that has arrived besides: a TLS read returns one record, which is one event."""
        self.caught_up = self._begun and not self._selector.select(0)
        self._begun = True  # data that came with the headers is in a buffer, and in no socket
        pieces = [self._read_once()]
        size = len(pieces[0])
        while size < _MAX_READ and self._selector.select(0):
            pieces.append(self._read_once(closing=True))
            if not pieces[-1]:
                break
            size += len(pieces[-1])
        return b"".join(pieces)

    def _read_once(self, *, closing: bool = False) -> bytes:
        piece = bytes(self._raw.read1(_READ_SIZE))
        if not piece and not closing:
            raise UnavailableError("the connection was closed in the middle of the answer")
        return piece
