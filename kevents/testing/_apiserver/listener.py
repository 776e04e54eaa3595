"""Sockets and threads: one thread that accepts, one for each connection."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from typing import TYPE_CHECKING, Final

from kevents.testing._apiserver.http import MalformedError, Stream, chunk, encode, read_request, stream_head

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from kevents.testing._apiserver.http import Answer
    from kevents.testing._apiserver.requests import Incoming

__all__ = ["Connection", "DroppedError", "Listener"]

_LINGER_0: Final = struct.pack("ii", 1, 0)
_BACKLOG: Final = 128
_TLS_HANDSHAKE: Final = b"\x16"
_PIECE: Final = 65_536


class DroppedError(Exception):
    """The connection is to be closed without an answer.

    Args:
        hard: Whether with a reset.
    """

    def __init__(self, *, hard: bool) -> None:
        super().__init__()
        self.hard = hard


class Connection:
    """One client's connection; `serve` runs in its thread until either side ends it."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.socket = sock
        self._closing = threading.Lock()
        self._closed = False

    def serve(
        self,
        context: Callable[[], ssl.SSLContext],
        handle: Callable[[Connection, Incoming], Answer | Stream],
    ) -> None:
        """Answer requests until the end of the connection; whether it is TLS, its first byte tells."""
        try:
            with contextlib.suppress(OSError, MalformedError):  # the other side may end it at any moment, or be no HTTP
                if self.socket.recv(1, socket.MSG_PEEK) == _TLS_HANDSHAKE:
                    self._shake_hands(context())
                with self.socket.makefile("rb", _PIECE) as stream:
                    while request := read_request(stream, self.number, self.socket.sendall):
                        if not self._answer(request, handle(self, request)):
                            break
        except DroppedError as drop:
            if drop.hard:
                self._reset()
        finally:
            self.close()

    def close(self) -> None:
        """End the connection, from whatever thread; a thread that waits for it returns."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the socket back, when its thread has ended."""
        self.socket.close()

    def _shake_hands(self, context: ssl.SSLContext) -> None:
        with self._closing:
            if self._closed:
                raise DroppedError(hard=False)
            tls = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
            self.socket = tls
        tls.do_handshake()

    def _answer(self, request: Incoming, answer: Answer | Stream) -> bool:
        if isinstance(answer, Stream):
            self.socket.sendall(stream_head(200, answer.content_type))
            answer.run(lambda pieces: self.socket.sendall(b"".join(map(chunk, pieces))))
            self.socket.sendall(chunk(b""))
        else:
            self.socket.sendall(encode(answer, head_only=request.method == "HEAD"))
            if answer.size:
                self._send_pieces(answer.body, answer.size)
        return request.headers.get("connection", "").lower() != "close"

    def _send_pieces(self, piece: bytes, size: int) -> None:
        block = (piece or b" ") * max(1, _PIECE // max(1, len(piece)))
        while size > 0:
            self.socket.sendall(block[: min(size, len(block))])
            size -= len(block)

    def _reset(self) -> None:
        with self._closing:
            self._closed = True
            with contextlib.suppress(OSError):
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)


class Listener:
    """Accepts connections on one port.

    Args:
        host: The address to bind to.
        port: The port; 0 for a free one.
        context: Gives what TLS needs, when a client wants it.
        handle: Answers a request.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: Callable[[], ssl.SSLContext],
        handle: Callable[[Connection, Incoming], Answer | Stream],
    ) -> None:
        self.host = host
        self.port = port
        self.accepted = 0
        self._context = context
        self._handle = handle
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._acceptor: threading.Thread | None = None
        self._wake: socket.socket | None = None

    def open(self) -> None:
        """Listen, on the same port as before.

        Raises:
            OSError: The port is taken.
        """
        if self._acceptor is not None:
            return
        sock = _listening_socket(self.host, self.port)
        self.port = sock.getsockname()[1]
        waker, self._wake = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept, args=(sock, waker), name=f"kevents-apiserver-{self.port}", daemon=True
        )
        self._acceptor.start()

    def close(self) -> None:
        """Listen no more: connections are refused; those that are open stay."""
        acceptor, wake = self._acceptor, self._wake
        if acceptor is None or wake is None:
            return
        wake.close()
        acceptor.join()
        self._acceptor = self._wake = None

    def disconnect(self) -> None:
        """Close every connection, and wait for their threads."""
        with self._lock:
            connections = dict(self._connections)
        for connection in connections:
            connection.close()
        for thread in connections.values():
            if thread is not threading.current_thread():
                thread.join()

    def _accept(self, sock: socket.socket, waker: socket.socket) -> None:
        with sock, waker, selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            selector.register(waker, selectors.EVENT_READ)
            while all(key.fileobj is sock for key, _ in selector.select()):
                with contextlib.suppress(OSError):
                    self._adopt(sock.accept()[0])

    def _adopt(self, client: socket.socket) -> None:
        client.setblocking(True)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self.accepted += 1
            connection = Connection(self.accepted, client)
            thread = threading.Thread(
                target=self._serve,
                args=(connection,),
                name=f"kevents-apiserver-{self.port}-{self.accepted}",
                daemon=True,
            )
            self._connections[connection] = thread
        thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve(self._context, self._handle)
        finally:
            connection.release()
            with self._lock:
                del self._connections[connection]


def _listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock
