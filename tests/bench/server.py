"""The scripted server for both programs: it answers creates and patches after a delay and counts them.

The first segment of a request's path is the delay in milliseconds: ``/5/api/v1/namespaces/prod/events``. A GET returns
the counters. The server runs as a separate process until its standard input is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from typing import Any, Final

from kevents.testing._apiserver.server import self_signed

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_ADDED: Final = (
    b'"uid":"2b7e1516-28ae-4d2a-abf7-158809cf4f3c","resourceVersion":"4711",'
    b'"creationTimestamp":"2026-01-01T00:00:00Z",'
    b'"managedFields":[{"manager":"bench","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z",'
    b'"fieldsType":"FieldsV1","fieldsV1":{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},'
    b'"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:source":{"f:component":{}},"f:type":{}}}],'
)
_PATCHED: Final = (
    b'{"kind":"Event","apiVersion":"v1","metadata":{%b"name":"web-0.18d7","namespace":"prod"},'
    b'"involvedObject":{"kind":"Pod","namespace":"prod","name":"web-0","apiVersion":"v1"},"reason":"BackOff",'
    b'"message":"back-off restarting","source":{"component":"bench"},"firstTimestamp":"2026-01-01T00:00:00Z",'
    b'"lastTimestamp":"2026-01-01T00:00:00Z","count":2,"type":"Normal","eventTime":null,'
    b'"reportingComponent":"bench","reportingInstance":""}'
) % _ADDED


class Counters:
    """The counters of all connections."""

    def __init__(self) -> None:
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.created = 0
        self.patched = 0

    def opened(self) -> None:
        """Count a connection."""
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)

    def to_json(self) -> bytes:
        """Return all counters as JSON."""
        return json.dumps(vars(self)).encode()


class Connection(asyncio.Protocol):
    """One connection of a client, with one request at a time."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._transport = transport
        self._counters.opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the closed connection."""
        self._counters.open -= 1

    def data_received(self, data: bytes) -> None:
        """Answer complete requests."""
        self._received += data
        while (end := self._received.find(_END_OF_HEAD)) >= 0:
            head = self._received[:end]
            end += len(_END_OF_HEAD)
            length = _content_length(head)
            if len(self._received) < end + length:
                return
            body, self._received = self._received[end : end + length], self._received[end + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method == b"POST":
            self._counters.created += 1
            self._send_after(path, b"201 Created", _created(body))
        elif method == b"PATCH":
            self._counters.patched += 1
            self._send_after(path, b"200 OK", _PATCHED)
        else:
            self._send(b"200 OK", self._counters.to_json())

    def _send_after(self, path: bytes, status: bytes, body: bytes) -> None:
        milliseconds = int(path.split(b"/", 2)[1])
        if milliseconds:
            asyncio.get_running_loop().call_later(milliseconds / 1000, self._send, status, body)
        else:
            self._send(status, body)

    def _send(self, status: bytes, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
        )


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    begin = lowered.find(_LENGTH)
    return int(lowered[begin + len(_LENGTH) :].split(b"\r\n", 1)[0]) if begin >= 0 else 0


def _created(body: bytes) -> bytes:
    """Return the request's body with the fields that a server adds."""
    begin = body.find(b"{", body.find(b'"metadata"')) + 1
    return body[:begin] + _ADDED + body[begin:]


async def serve(*, tls: bool) -> None:
    """Print the address as a line of JSON, and serve until the standard input is closed."""
    loop = asyncio.get_running_loop()
    counters, ended = Counters(), asyncio.Event()
    certificate = self_signed(["127.0.0.1"]) if tls else None
    context = certificate.context if certificate else None
    server = await loop.create_server(lambda: Connection(counters), "127.0.0.1", 0, ssl=context, backlog=512)
    port = server.sockets[0].getsockname()[1]
    said = {"url": f"http{'s' if tls else ''}://127.0.0.1:{port}", "ca": certificate.certificate if certificate else ""}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    threading.Thread(target=_await_end, args=(loop, ended), daemon=True).start()
    await ended.wait()
    server.close()  # does not wait for clients that keep their connections


def _await_end(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    sys.stdin.read()
    loop.call_soon_threadsafe(ended.set)


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.server", description=__doc__)
    parser.add_argument("--tls", action="store_true", help="use TLS with a self-signed certificate")
    asyncio.run(serve(tls=parser.parse_args().tls))


if __name__ == "__main__":
    main()
