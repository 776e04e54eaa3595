"""Sinks for threads, over connections that kevents keeps or over a client that the user gives.

kevents keeps one connection for each sender, of the standard library's HTTP client. An event passes from
:meth:`DirectTransport.send` to the socket without the official client, whose models and connection pool take two thirds
of a request's time.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, runtime_checkable
from urllib.parse import SplitResult, quote, unquote, urlsplit
from weakref import finalize

from kevents._clients.endpoint import Endpoint, basic_authorization, find_endpoint
from kevents._clients.errors import (
    MAX_ERROR_BODY,
    SUCCESS,
    UNAUTHORIZED,
    Answer,
    decoded,
    format_redacted,
    hide_credentials,
    status_error,
)
from kevents._model.objects import Json
from kevents._model.validation import require_positive
from kevents._model.wire import CORE_GROUP, EVENTS_GROUP
from kevents._runtime.lifecycle import ProcessBound, flush_before_other_exit_hooks
from kevents.exceptions import UnavailableError

if TYPE_CHECKING:
    from kevents._clients.client import ClientTransport


JSON: Final = "application/json"
CONTENT_TYPES: Final = {"POST": JSON, "PATCH": "application/strategic-merge-patch+json"}
MAX_BODY: Final = 1 << 20
"""Bytes read of the body of a success, so that its connection can be reused."""
_CHUNK: Final = 16 << 10
_PORTS: Final = {"http": 80, "https": 443}
_ILLEGAL: Final = re.compile(r"[\r\n\0]|[^\x00-\xff]")
"""Characters that a header cannot hold."""
_current: Final = threading.local()
"""The deadline of the request that a thread is sending."""


class Api(NamedTuple):
    """Names of the client's and of kevents' classes for an API group. Their methods have the same names."""

    name: str
    model: str
    sink: str
    async_sink: str


APIS: Final = {
    CORE_GROUP: Api("CoreV1Api", "CoreV1Event", "kevents.CoreV1EventSink", "kevents.aio.CoreV1EventSink"),
    EVENTS_GROUP: Api(
        "EventsV1Api", "EventsV1Event", "kevents.events.EventsV1EventSink", "kevents.aio.EventsV1EventSink"
    ),
}


@runtime_checkable
class EventSink(Protocol):
    """Writes events, one request for each call (client-go: ``EventSink``).

    Several threads may call a sink at the same time, but never for the same event. Its errors decide what follows:

    - :class:`~kevents.StatusError`: the server answered with an error status.
    - :class:`~kevents.UnavailableError` or any ``OSError``: there was no answer. The write is tried again.
    - ``ValueError`` or ``TypeError``: the event can never be sent and is dropped.
    - Any other exception: the write is tried again.

    A sink may have more attributes: ``after_fork()`` is called in the child after a fork, and ``within(seconds)``
    returns a sink with shorter time-outs for a process that is about to end. A broadcaster refuses a sink whose
    ``api_group`` (empty for core/v1) is not its own.
    """

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event from a core/v1 body of plain values."""

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""


class ClientEventSink(ProcessBound):
    """Writes to the API server. A subclass chooses the API group. ``api`` may also be an endpoint."""

    api_group: ClassVar[str]

    def __init__(self, api: object = None, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        self._timeout = checked_timeout(request_timeout)
        self._transport: ClientTransport | DirectTransport
        if api is None:
            self._transport = DirectTransport(partial(find_endpoint, APIS[self.api_group].sink), self.api_group)
        elif isinstance(api, Endpoint):
            self._transport = DirectTransport(lambda: api, self.api_group)
        else:
            from kevents._clients.client import ClientTransport  # noqa: PLC0415 - it loads the official client

            self._transport = ClientTransport(api, self.api_group)

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event."""
        self._transport.send("POST", namespace, "", body, self._timeout)

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""
        self._transport.send("PATCH", namespace, name, patch, self._timeout)

    def after_fork(self) -> None:
        """Connect again in a forked child."""
        self._transport.after_fork()

    def within(self, seconds: float) -> ClientEventSink:
        """Return the same sink with shorter time-outs, for the last requests of a process that is about to end."""
        shorter = object.__new__(type(self))
        shorter.__dict__.update(self.__dict__)
        connect, read, total = self._timeout
        shorter._timeout = (min(connect, seconds), min(read, seconds), min(total, seconds))
        return shorter

    def __repr__(self) -> str:
        return f"{type(self).__name__}(request_timeout={self._timeout[:2]})"


class CoreV1EventSink(ClientEventSink):
    """Writes core/v1 events to the API server (client-go: ``EventSinkImpl``).

    Without ``api``, it connects by itself at the first request and does not load the official client, unless the
    kubeconfig has an exec plugin or an auth provider. With ``api``, it sends through that client (31 to 37 are tested),
    which it imports in the constructor, in the caller's thread.

    Args:
        api: A ``CoreV1Api``, an ``ApiClient``, or a callable that returns either. The callable may raise
            :class:`~kevents.UnavailableError` while there are no credentials. None: the process-wide default
            configuration if it has been loaded, else in-cluster, else kubeconfig. The default is never set.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response.

    Raises:
        ValueError: If a time-out is not a positive number.
        TypeError: If ``api`` is anything else.
    """

    api_group = CORE_GROUP


def checked_timeout(timeout: tuple[float, float]) -> tuple[float, float, float]:
    """Check ``(connect, read)`` in seconds, and add the seconds that one request may take. Raises ValueError."""
    if not isinstance(timeout, tuple) or len(timeout) != 2:  # noqa: PLR2004
        raise ValueError(f"request_timeout must be (connect, read) in seconds, not {timeout!r}")
    connect, read = (require_positive("request_timeout", seconds) for seconds in timeout)
    return connect, read, read + 1


# -- the way of a request ----------------------------------------------------------------------------------------------


def events_path(api_group: str, namespace: str, name: str = "") -> str:
    """Return the path of a namespace's events, or of one event."""
    base = "/api/v1" if api_group == CORE_GROUP else f"/apis/{api_group}/v1"
    path = f"{base}/namespaces/{quote(namespace, safe='')}/events"
    return f"{path}/{quote(name, safe='')}" if name else path


class DirectTransport:
    """Sends requests over its own connections to an endpoint.

    ``find`` returns it, at the first request, after a 401 and after a fork. It may raise ``UnavailableError``.
    """

    def __init__(self, find: Callable[[], Endpoint], api_group: str) -> None:
        self._find = find
        self._api_group = api_group
        self.after_fork()

    def after_fork(self) -> None:
        """Drop the lock and the connections shared with the parent process."""
        self._lock = threading.Lock()
        self._pool: ConnectionPool | None = None

    def reconnect(self) -> None:
        """Find the endpoint again before the next request."""
        with self._lock:
            self._pool = None

    def send(self, method: str, namespace: str, name: str, body: Json, timeout: tuple[float, float, float]) -> None:
        """Write an event with one request: POST, or PATCH with the name of the event.

        ``timeout``: seconds to connect, to wait for the next bytes, and for all of the request.

        Raises:
            StatusError: The server refused it.
            UnavailableError: The server did not answer, or there is no endpoint yet.
            ValueError: The body is no JSON; also TypeError.
        """
        content = json.dumps(body).encode()
        pool = self._pool or self._connect()
        with deadline(timeout[2]):
            answer = pool.exchange(method, events_path(self._api_group, namespace, name), content, timeout)
        if answer.status not in SUCCESS:
            if answer.status == UNAUTHORIZED:
                self._renew(pool)
            raise status_error(answer)

    def _connect(self) -> ConnectionPool:
        with self._lock:
            if self._pool is None:
                self._pool = ConnectionPool(self._find())
                flush_before_other_exit_hooks()
            return self._pool

    def _renew(self, refused: ConnectionPool) -> None:
        with self._lock:
            if self._pool is refused:
                self._pool = None


# -- deadlines -------------------------------------------------------------------------------------------------------


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit all of a request in this thread that is sent by a :func:`guarded_manager`, in seconds.

    Socket time-outs restart with every byte, so a server that sends one byte at a time would hold the thread forever.
    """
    _current.deadline = monotonic() + seconds
    try:
        yield
    finally:
        _current.deadline = None


def _remaining(timeout: float | None) -> float | None:
    """The shorter of a time-out and the time until the deadline. Raises TimeoutError if the deadline has passed."""
    end: float | None = getattr(_current, "deadline", None)
    if end is None:
        return timeout
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("the request took too long")
    return min(timeout, left) if isinstance(timeout, int | float) else left


class Reader(io.RawIOBase):
    """Reads a socket, or a stream over it, until the deadline of the request that this thread is sending."""

    def __init__(self, sock: Any, raw: Any = None) -> None:  # noqa: ANN401
        self._socket = sock
        self._timeout = sock.gettimeout()
        self._raw = raw
        self._read_into = sock.recv_into if raw is None else raw.readinto

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401
        self._socket.settimeout(_remaining(self._timeout))
        return self._read_into(buffer)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the stream, not the socket."""
        if self._raw is not None:
            self._raw.close()
        super().close()


class GuardedResponse(http.client.HTTPResponse):
    """A response that is read until the deadline of its request."""

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401
        super().__init__(sock, *args, **options)
        self.fp: Any = io.BufferedReader(Reader(sock, self.fp.detach()))


class Guard:
    """Base class of connections of ``http.client`` that keep the deadline of their request."""

    response_class = GuardedResponse
    timeout: Any
    sock: Any

    def connect(self) -> None:
        """Connect until the deadline."""
        self.timeout = _remaining(self.timeout)
        super().connect()  # type: ignore[misc]

    def send(self, data: Any) -> None:  # noqa: ANN401
        """Send until the deadline."""
        if self.sock is None or not isinstance(data, bytes):
            super().send(data)  # type: ignore[misc]
            return
        timeout = self.sock.gettimeout()
        for start in range(0, len(data), _CHUNK):
            self.sock.settimeout(_remaining(timeout))
            super().send(data[start : start + _CHUNK])  # type: ignore[misc]
        self.sock.settimeout(timeout)


def guarded_connection(base: Any) -> Any:  # noqa: ANN401 - a connection of http.client or urllib3
    """Return a class of connections that keep the deadline of their request."""
    return type(base.__name__, (Guard, base), {})


# -- connections -----------------------------------------------------------------------------------------------------


class ConnectionPool:
    """Open connections to an endpoint, each used by one thread at a time."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._idle: list[Connection] = []
        # __del__ would be too late: in a cycle, the garbage collector may finalise the socket before.
        finalize(self, _close_all, self._idle)
        self._fixed: tuple[Mapping[str, str], str] | None = None  # credentials that never change

    def exchange(
        self,
        method: str,
        path: str,
        content: bytes,
        timeout: tuple[float, float, float],
        accept: str = JSON,
        most: int = MAX_BODY,
    ) -> Answer:
        """Send one request, and read its response so that the connection can be used again.

        ``path`` is quoted, ``content`` is JSON, and ``most`` is the number of bytes of a success that are read. Raises
        UnavailableError if there was no response.
        """
        credentials, lines = self._fixed or self._credentials()
        connection = self._take(timeout)
        kept = False
        try:
            head = (
                f"{method} {connection.prefix}{path} HTTP/1.1\r\n{connection.headers}{lines}Accept: {accept}\r\n"
                f"Content-Type: {CONTENT_TYPES.get(method, JSON)}\r\nContent-Length: {len(content)}\r\n\r\n"
            )
            connection.send(head.encode("latin-1") + content)  # one packet
            response = http.client.HTTPResponse(connection, method=method)  # type: ignore[arg-type]
            response.begin()
            success = response.status in SUCCESS
            body, limit, complete = b"", most if success else MAX_ERROR_BODY, False
            with suppress(OSError, http.client.HTTPException):  # the server has written the event, or refused it
                body = response.read(limit)
                complete = response.isclosed() or (response.length is None and len(body) < limit)
            kept = response.isclosed() and not response.will_close
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            raise UnavailableError(format_redacted(error)) from None
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()
        if not success:
            body = hide_credentials(decoded(body, response.headers.get("Content-Encoding", "")), credentials)
        return Answer(response.status, response.reason, response.headers, body, complete)

    def _credentials(self) -> tuple[Mapping[str, str], str]:
        """Return the headers with the credentials, and their lines of the request."""
        try:
            headers = self._endpoint.headers()
            found = headers, header_lines(headers)
        except Exception as error:  # noqa: BLE001 - a plugin, a hook or a file may raise anything
            raise unusable_credentials(error) from None
        if self._endpoint.fixed:
            self._fixed = found
        return found

    def _take(self, timeout: tuple[float, float, float]) -> Connection:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if not connection.is_dropped():
                    connection.sock.settimeout(timeout[1])
                    return connection
                connection.close()
        connection = Connection(self._endpoint, timeout[0])
        try:
            connection.connect()
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            connection.close()
            verb = "resolve" if isinstance(error, socket.gaierror) else "connect to"
            text = f"cannot {verb} {connection.host}, port {connection.port}: {format_redacted(error)}"
            raise UnavailableError(text) from None
        connection.sock.settimeout(timeout[1])
        return connection


def _close_all(connections: list[Connection]) -> None:
    with suppress(IndexError):
        while True:
            connections.pop().close()


class Connection(Guard, http.client.HTTPConnection):  # type: ignore[misc]
    """A connection to an endpoint, through its proxy if it has one.

    Raises UnavailableError if the URL of the server or of the proxy is unusable.
    """

    def __init__(self, endpoint: Endpoint, timeout: float) -> None:
        url, proxy = checked_urls(endpoint)
        host, port = _address(url)
        netloc = url.netloc.rpartition("@")[2]
        super().__init__(*(_address(proxy) if endpoint.proxy else (host, port)), timeout=timeout)
        self._tls = endpoint.context
        self._server_name = endpoint.server_name or host
        self._proxy_tls = proxy.scheme == "https"
        self._create_connection = partial(_open, endpoint.socket_options, self._proxy_tls)  # http.client calls it
        self.prefix = url.path  # of a request's target, before the path of the API
        self.headers = f"Host: {netloc}\r\nAccept-Encoding: identity\r\nUser-Agent: kevents\r\n"
        if endpoint.proxy and endpoint.context is not None:
            self.set_tunnel(host, port, proxy_headers(endpoint))
        elif endpoint.proxy:
            self.prefix = f"http://{netloc}{url.path}"
            self.headers += header_lines(proxy_headers(endpoint))

    def connect(self) -> None:
        super().connect()
        if self._tls is not None and self._proxy_tls:
            from urllib3.util.ssltransport import SSLTransport  # noqa: PLC0415 - only for TLS within TLS

            self.sock: Any = SSLTransport(self.sock, self._tls, self._server_name)
        elif self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)

    def makefile(self, _: str) -> io.BufferedReader:
        """Return a stream for one response. It is all that a response needs of a socket."""
        return io.BufferedReader(Reader(self.sock))

    def is_dropped(self) -> bool:
        """True if the server has closed the idle connection."""
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([self.sock], [], [], 0)[0])


def checked_urls(endpoint: Endpoint) -> tuple[SplitResult, SplitResult]:
    """The URLs of the server and of its proxy. Raises UnavailableError, whose text shows no password."""
    try:
        url, proxy = urlsplit(endpoint.server), urlsplit(endpoint.proxy)
        _address(url)
        if endpoint.proxy:
            _address(proxy)
    except ValueError:
        raise UnavailableError("the URL of the API server or of its proxy is unusable") from None
    return url, proxy


def _address(url: SplitResult) -> tuple[str, int]:
    if not url.hostname or url.scheme not in _PORTS:
        raise ValueError("a URL must begin with http:// or https://")
    return url.hostname, url.port or _PORTS[url.scheme]


def proxy_headers(endpoint: Endpoint) -> dict[str, str]:
    """Return the headers for an endpoint's proxy, with the credentials of its URL."""
    proxy, headers = urlsplit(endpoint.proxy), dict(endpoint.proxy_headers)
    if proxy.username:
        basic = basic_authorization(unquote(proxy.username), unquote(proxy.password or ""))
        headers.setdefault("Proxy-Authorization", basic)
    return headers


def _open(options: tuple[Any, ...], tls: bool, address: tuple[str, int], *args: Any) -> socket.socket:  # noqa: ANN401, FBT001
    """Open the connection to the server or its proxy."""
    sock = socket.create_connection(address, *args)
    for option in options:
        sock.setsockopt(*option)
    return ssl.create_default_context().wrap_socket(sock, server_hostname=address[0]) if tls else sock


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as lines of a request. Raises ValueError if one cannot be sent, without its value."""
    if any(_ILLEGAL.search(value) for value in headers.values()):
        raise ValueError("they make no valid header")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def unusable_credentials(error: Exception) -> UnavailableError:
    """Return the error for credentials that cannot be found or sent."""
    return UnavailableError(f"the client's credentials are unusable: {format_redacted(error)}")
