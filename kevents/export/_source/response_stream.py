"""An answer of the API server as bytes, as they come: whatever one read of its socket gives."""

from __future__ import annotations

import selectors
import socket
from contextlib import suppress
from typing import Any, Final

from kevents.exceptions import UnavailableError

_PIECE: Final = 262_144
_MOST_AT_ONCE: Final = 1_048_576
_CRLF: Final = b"\r\n"


class CutError(UnavailableError):
    """The answer ended before its end: the connection was cut."""


class Unchunker:
    """Takes the frames of HTTP's chunked encoding away, many at a time.

    The server sends each event of a watch as a chunk of its own. Reading chunk by chunk costs several times what
    decoding an event costs.
    """

    __slots__ = ("_left", "_rest", "ended")

    def __init__(self) -> None:
        """Begin before the first chunk."""
        self._rest = b""
        self._left = 0
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Give what is in the chunks, as far as they are there.

        Raises:
            CutError: These are no chunks.
        """
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
            raise CutError(f"the answer is not chunked as it says: {head[:20]!r}") from None
        self.ended = size == 0
        self._left = size + 2  # with the line end behind it


class ResponseStream:
    """The body of an answer; read from one thread, ended by any.

    Args:
        response: What the official client gives without preloading: a response of urllib3.
        live: Whether it goes on for as long as its connection; one that ends leaves the connection to the next request.

    Attributes:
        caught_up: Whether the last read had to wait: then nothing that was sent before is left to be read.
    """

    def __init__(self, response: Any, *, live: bool = False) -> None:  # noqa: ANN401 - a urllib3 response of any generation
        """Look at the connection; read nothing."""
        self._response = response
        self._connection: Any = response.connection if live else None
        self._socket: Any = getattr(response.connection, "sock", None)
        self._raw: Any = self._chunked_source(response) if live else None
        self._frames = Unchunker()
        self._begun = False
        self.caught_up = False
        self._ears = selectors.DefaultSelector()
        if self._socket is not None:
            self._ears.register(self._socket, selectors.EVENT_READ)

    def read(self) -> bytes:
        """Wait for more of the answer, and give all that is there; empty at its end.

        Raises:
            CutError: The connection ended before the answer.
            OSError: It failed; so do errors of urllib3.
        """
        if self._raw is None:
            self.caught_up = True
            return bytes(self._response.read(_PIECE))
        data = b""
        while not data and not self._frames.ended:
            data = self._frames.feed(self._some())
        return data

    def whole(self, most: int) -> bytes:
        """Give the whole of an answer that ends.

        Raises:
            UnavailableError: It is longer than `most` bytes.
        """
        pieces = []
        size = 0
        while piece := self.read():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise UnavailableError(f"the answer is longer than {most} bytes")
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of the connection, which is of no further use unless the whole of an answer was read."""
        self._ears.close()
        with suppress(Exception):  # it may have been ended by `end`, in any state
            self._response.close()
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
        with suppress(Exception):  # last: from then on another request may have the connection
            self._response.release_conn()

    def end(self) -> None:
        """End the connection: a read that waits returns, or raises, at once."""
        if self._socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of TLS too: no farewell is waited for

    def _chunked_source(self, response: Any) -> Any:  # noqa: ANN401
        """Where chunks can be read several at a time; None if that cannot be, and urllib3 is to read."""
        source = getattr(getattr(response, "_fp", None), "fp", None)
        plain = not getattr(response, "headers", {}).get("content-encoding")
        fits = getattr(response, "chunked", False) and plain and self._socket is not None
        return source if fits and hasattr(source, "read1") else None

    def _some(self) -> bytes:
        """What one read gives, and all that is there besides: of TLS a read gives one record, which is one event."""
        self.caught_up = self._begun and not self._ears.select(0)
        self._begun = True  # what came with the head of the answer is in no socket any more
        pieces = [self._piece()]
        size = len(pieces[0])
        while size < _MOST_AT_ONCE and self._ears.select(0):
            pieces.append(self._piece(closing=True))
            if not pieces[-1]:
                break
            size += len(pieces[-1])
        return b"".join(pieces)

    def _piece(self, *, closing: bool = False) -> bytes:
        piece = bytes(self._raw.read1(_PIECE))
        if not piece and not closing:
            raise CutError("the connection was closed in the middle of the answer")
        return piece
