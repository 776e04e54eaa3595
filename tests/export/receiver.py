"""A real HTTP server with scripted answers that stores its requests."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


@dataclass(frozen=True)
class Answer:
    """A scripted answer.

    Attributes:
        status: The HTTP status.
        body: The body.
        headers: Additional headers.
        endless: If not empty, these bytes follow the body without end.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    endless: bytes = b""


@dataclass(frozen=True)
class Asked:
    """A request, with lower-case header names and an unquoted path."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Scripted:
    """A server that returns the scripted answers in order, then status 200. An answer of None never arrives.

    Args:
        tls: The TLS context with its certificate; None for plain HTTP.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answers: list[Answer | None] = []
        self.requests: list[Asked] = []
        self.ports: list[int] = []  # the client's port of each connection
        self.connections: list[socket.socket] = []
        self.over = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that disconnects
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def reply(self, asked: Asked) -> Answer:
        """Return the answer to a request when the script is empty."""
        return Answer()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 20
            protocol_version = "HTTP/1.1"  # connections are kept, as most servers do

            def setup(self) -> None:
                outer.ports.append(self.client_address[1])
                outer.connections.append(self.request)
                super().setup()

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {key.lower(): value for key, value in self.headers.items()}
                asked = Asked(self.command, unquote(self.path), headers, body)
                outer.requests.append(asked)
                answer = outer.answers.pop(0) if outer.answers else outer.reply(asked)
                if answer is None:
                    outer.over.wait(20)
                    return
                self.send_response(answer.status)
                for name, value in {"etag": '"1"', **answer.headers}.items():
                    self.send_header(name, value)
                if not answer.endless:
                    self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
                while answer.endless and not outer.over.is_set():
                    self.wfile.write(answer.endless)

            do_GET = do_PUT = do_HEAD = do_POST = do_PATCH = answer  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base class
                pass

        return Handler

    def close(self) -> None:
        """Stop the server, and end the connections that clients keep: their threads would wait for a request."""
        self.over.set()
        self.server.shutdown()
        for connection in self.connections:
            with suppress(OSError):  # has ended
                connection.shutdown(socket.SHUT_RDWR)
        self.server.server_close()
        self.thread.join()
