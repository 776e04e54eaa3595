"""Sinks for asyncio, over an aiohttp session of kevents or over a client that the user gives.

A session holds connections of one event loop, so each loop that uses a sink has its own.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import socket
import ssl
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from kevents._clients.endpoint import ASYNCHRONOUS, Endpoint, find_endpoint
from kevents._clients.errors import (
    MAX_ERROR_BODY,
    SUCCESS,
    UNAUTHORIZED,
    Answer,
    decoded,
    format_redacted,
    hide_credentials,
    status_error,
    unsendable,
)
from kevents._clients.sync import (
    APIS,
    CONTENT_TYPES,
    MAX_BODY,
    checked_timeout,
    checked_urls,
    events_path,
    header_lines,
    proxy_headers,
    unusable_credentials,
)
from kevents._model.objects import Json
from kevents._model.validation import how_to_install
from kevents._model.wire import CORE_GROUP, EVENTS_GROUP
from kevents._runtime.aio import run_in_thread
from kevents._runtime.lifecycle import ProcessBound
from kevents.exceptions import SinkError, StatusError, UnavailableError

_CONFIGURED: Final = (*ASYNCHRONOUS, "kubernetes")
"""Clients whose loaded configuration is used."""
_CLOSING_STEPS: Final = 5
"""Iterations of the loop until closed connections, mainly those with TLS, have ended."""
_BAD_HEADER: Final = re.compile("detected in .*header")  # aiohttp's error for a line break
_parents: list[object] = []
"""Connections of the parent's loop, kept in a forked child so that they are not finalised there."""


@runtime_checkable
class EventSink(Protocol):
    """Writes events from an event loop, one request for each call (client-go: ``EventSink``).

    The asynchronous form of :class:`kevents.EventSink`. Several calls may be in progress at the same time, but never
    two for the same event. Two more methods are optional. The coroutine function ``close()`` is awaited in the loop
    when all sender tasks have ended or were cancelled. A later call connects again. ``after_fork()`` is called in the
    child after a fork.
    """

    async def create(self, namespace: str, body: Json, /) -> None:
        """Create an event from a core/v1 body of plain values."""

    async def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""


class ClientEventSink(ProcessBound):
    """Writes to the API server. A subclass chooses the API group."""

    api_group: ClassVar[str]

    def __init__(self, api: object = None, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        self._timeout = checked_timeout(request_timeout)
        self._transport: Transport
        if api is not None:
            from kevents._clients.aio_client import ClientTransport  # noqa: PLC0415 - only for a given client

            self._transport = ClientTransport(api, self.api_group, self._timeout)
        else:
            self._transport = DirectTransport(self.api_group, self._timeout)

    async def create(self, namespace: str, body: Json, /) -> None:
        """Create an event."""
        await self._transport.send("POST", namespace, "", body)

    async def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""
        await self._transport.send("PATCH", namespace, name, patch)

    async def close(self) -> None:
        """Close the connections, except those of a given client. A later call connects again."""
        await self._transport.close()

    def after_fork(self) -> None:
        """Connect again in a forked child."""
        self._transport.after_fork()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(request_timeout={self._timeout[:2]})"


class CoreV1EventSink(ClientEventSink):
    """Writes core/v1 events to the API server from an event loop (client-go: ``EventSinkImpl``).

    Without ``api``, it needs aiohttp and loads no Kubernetes client, unless the kubeconfig has an exec plugin or an
    auth provider. With ``api``, it sends through that client. It connects at the first request, in the loop of that
    request. It reads files and runs programs in a separate thread. It reads each response without parsing it, so
    that the connection can be reused.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient`` of ``kubernetes.aio`` or ``kubernetes_asyncio``, or a callable or
            coroutine function that makes one. The callable may raise :class:`~kevents.UnavailableError` while there are
            no credentials. kevents closes a client that the callable made and never one that you give. None: the
            process-wide default configuration if it has been loaded into either package or into the official client,
            else in-cluster, else kubeconfig.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response. A request takes
            at most the second plus 1 s.

    Raises:
        ValueError: If a time-out is not a positive number.
        TypeError: If ``api`` is anything else.
        ImportError: If aiohttp is not installed.
    """

    api_group = CORE_GROUP


class EventsV1EventSink(ClientEventSink):
    """Writes events.k8s.io/v1 events to the API server from an event loop.

    Otherwise the same as :class:`CoreV1EventSink`.

    Args:
        api: An ``EventsV1Api`` or ``ApiClient``, a callable that makes one, or None.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response.

    Raises:
        ValueError: If a time-out is not a positive number.
        TypeError: If ``api`` is anything else.
        ImportError: If aiohttp is not installed.
    """

    api_group = EVENTS_GROUP


# -- a connection for each loop ----------------------------------------------------------------------------------------


class Connection:
    """A session or an api, and the number of its requests in progress. ``close`` is None if it must stay open."""

    def __init__(self, api: Any, close: Callable[[], Awaitable[object]] | None) -> None:  # noqa: ANN401
        self.api = api
        self._close = close
        self._users = 0
        self._retired = False

    async def __aenter__(self) -> Any:  # noqa: ANN401
        self._users += 1
        return self.api

    async def __aexit__(self, *exc: object) -> None:
        """End the request. Close the connection if it is retired and this was the last request."""
        self._users -= 1
        await self._close_if_idle()

    async def retire(self) -> None:
        """Close it once no request is in progress."""
        self._retired = True
        await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        close = self._close
        if self._retired and close is not None and not self._users:
            self._close = None
            await close()
            for _ in range(_CLOSING_STEPS):
                await asyncio.sleep(0)


class Transport(ABC):
    """Sends requests over a connection of each loop, made at the first request and after credentials were refused."""

    renewable = True  # False if the connection is kept after a 401

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Connection] = (
            weakref.WeakKeyDictionary()
        )
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()

    async def send(self, method: str, namespace: str, name: str, body: Json) -> None:
        """Write an event with one request: POST, or PATCH with the name of the event.

        Raises:
            StatusError: The server refused it.
            UnavailableError: The server did not answer, or there are no credentials yet.
            ValueError: The body is no JSON.
        """
        connection = await self._connection()
        try:
            async with connection as api:
                await _read(await self._request(api, method, namespace, name, body))
        except Exception as error:  # noqa: BLE001 - the packages raise many classes
            raised = _converted(error)
            if isinstance(raised, StatusError) and raised.code == UNAUTHORIZED:
                await self._renew(connection)
            raise raised from None

    @abstractmethod
    async def _make(self) -> Connection:
        """Make the connection of the running loop. Raises UnavailableError without configuration or credentials."""

    @abstractmethod
    async def _request(self, api: Any, method: str, namespace: str, name: str, body: Json) -> Any:  # noqa: ANN401
        """Send a request, and return the response with its body unread."""

    async def _connection(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            async with self._locks.setdefault(loop, asyncio.Lock()):
                connection = self._connections.get(loop)
                if connection is None:
                    connection = self._connections[loop] = await self._make()
        return connection

    async def _renew(self, refused: Connection) -> None:
        loop = asyncio.get_running_loop()
        if self._connections.get(loop) is refused and self.renewable:
            del self._connections[loop]
            await refused.retire()

    async def close(self) -> None:
        """Close the running loop's connection. A later request makes a new one."""
        loop = asyncio.get_running_loop()
        lock = self._locks.get(loop)
        if lock is not None and not lock.locked():  # the lock references the loop, so the weak key would never go
            del self._locks[loop]
        connection = self._connections.pop(loop, None)
        if connection is not None:
            await connection.retire()

    def after_fork(self) -> None:
        _parents.append(dict(self._connections))
        self._forget()


async def _read(answer: Any) -> None:  # noqa: ANN401 - an aiohttp response or a test double's
    """Read the response up to a limit, so that its connection can be reused.

    Raises SinkError for an error status. Errors while reading the body of a success are ignored.
    """
    status = getattr(answer, "status", None)
    if not isinstance(status, int):
        return
    success = status in SUCCESS
    limit = MAX_BODY if success else MAX_ERROR_BODY
    body = bytearray()
    try:
        with suppress(Exception):
            while len(body) < limit and (piece := await answer.content.read(limit - len(body))):
                body += piece
    finally:
        if answer.content.at_eof():
            answer.release()  # a 101 has no body, and keeps its connection
        else:
            answer.close()
    if not success:
        plain = decoded(bytes(body), answer.headers.get("Content-Encoding", ""))
        plain = hide_credentials(plain, answer.request_info.headers)
        raise status_error(Answer(status, answer.reason, answer.headers, plain))


def _converted(error: Exception) -> Exception:
    """Convert a client's exception to one of a sink."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, SinkError):
        return error
    if "ApiException" in names:
        return status_error(error)
    if isinstance(error, OSError | asyncio.TimeoutError) or {"ClientError", "ConfigException"} & names:
        return UnavailableError(format_redacted(error))
    if isinstance(error, ValueError | TypeError | AttributeError):
        if _BAD_HEADER.search(str(error)):
            return UnavailableError("the client's credentials make no valid header")
        return unsendable(error)
    return error


def in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# -- over aiohttp ------------------------------------------------------------------------------------------------------


class DirectTransport(Transport):
    """Sends requests over aiohttp to an endpoint, which is found at the first request of each loop.

    ``timeout``: seconds to connect, to wait for the next bytes, and for all of the request. Raises ImportError.
    """

    def __init__(self, api_group: str, timeout: tuple[float, float, float]) -> None:
        super().__init__()
        self._api_group = api_group
        self._timeout = timeout
        installed = None
        with suppress(ImportError, ValueError):
            installed = find_spec("aiohttp")
        if installed is None:
            raise ImportError(f"without an api, this sink needs aiohttp: {how_to_install('aio')}")
        if not in_loop():
            import aiohttp  # noqa: F401, PLC0415 - it takes a quarter of a second

    async def _make(self) -> Connection:
        endpoint, proxy_tls = await run_in_thread("kevents-connect", self._find)
        session = Session(endpoint, proxy_tls, self._timeout)
        return Connection(session, session.close)

    def _find(self) -> tuple[Endpoint, ssl.SSLContext | None]:
        import aiohttp  # noqa: F401, PLC0415 - as above, outside the loop

        endpoint = find_endpoint(APIS[self._api_group].async_sink, _CONFIGURED)
        return endpoint, ssl.create_default_context() if endpoint.proxy.startswith("https:") else None

    async def _request(self, api: Session, method: str, namespace: str, name: str, body: Json) -> Any:  # noqa: ANN401
        content = json.dumps(body).encode()
        return await api.request(method, events_path(self._api_group, namespace, name), content)


class Session:
    """An aiohttp session for an endpoint, in the running loop. ``proxy_tls`` is for a proxy with TLS.

    Raises UnavailableError if the URL of the server or of the proxy is unusable.
    """

    def __init__(
        self, endpoint: Endpoint, proxy_tls: ssl.SSLContext | None, timeout: tuple[float, float, float]
    ) -> None:
        import aiohttp  # noqa: PLC0415 - it has been imported

        url, proxy = checked_urls(endpoint)
        connect, read, total = timeout
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "kevents"}
        self._endpoint = endpoint
        self._base = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"
        self._options: dict[str, Any] = {
            "allow_redirects": False,
            "server_hostname": endpoint.server_name or None,
            "timeout": aiohttp.ClientTimeout(total=total, sock_connect=connect, sock_read=read),
        }
        if endpoint.proxy:
            self._options["proxy"] = f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}"
            if endpoint.context is not None:
                self._options["proxy_headers"] = proxy_headers(endpoint)
            else:
                headers |= proxy_headers(endpoint)
        self._session = aiohttp.ClientSession(
            connector=_connector(endpoint, proxy_tls),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def request(self, method: str, path: str, content: bytes) -> Any:  # noqa: ANN401
        """Send a request that follows no redirect, ends in time and is not decompressed. The body is unread."""
        from yarl import URL  # noqa: PLC0415 - aiohttp has imported it

        headers = {"Content-Type": CONTENT_TYPES[method], **await self._credentials()}
        try:
            url = URL(self._base + path, encoded=True)
            return await self._session.request(method, url, data=content, headers=headers, **self._options)
        except ValueError as error:  # about a URL, because the content is bytes and the headers are checked
            raise UnavailableError(format_redacted(error)) from None

    async def _credentials(self) -> dict[str, str]:
        endpoint = self._endpoint
        try:
            if endpoint.may_block():
                found = await run_in_thread("kevents-credentials", endpoint.headers)
            else:
                found = endpoint.headers()
            headers = dict(await found if inspect.isawaitable(found) else found)
            header_lines(headers)
        except Exception as error:  # noqa: BLE001 - a plugin, a hook or a file may raise anything
            raise unusable_credentials(error) from None
        return headers

    async def close(self) -> None:
        await self._session.close()


def _connector(endpoint: Endpoint, proxy_tls: ssl.SSLContext | None) -> Any:  # noqa: ANN401 - aiohttp is imported late
    import aiohttp  # noqa: PLC0415 - it has been imported

    class Connector(aiohttp.TCPConnector):
        """Has a TLS context of its own for the proxy, which does not know the cluster's authority."""

        def _get_ssl_context(self, req: Any) -> ssl.SSLContext | None:  # noqa: ANN401
            return proxy_tls if proxy_tls and not req.proxy else super()._get_ssl_context(req)

    factory = partial(_open, endpoint.socket_options) if endpoint.socket_options else None
    return Connector(ssl=endpoint.context or True, limit=0, socket_factory=factory)


def _open(options: tuple[Any, ...], address: tuple[Any, ...]) -> socket.socket:
    """A socket that is not connected."""
    sock = socket.socket(*address[:3])
    for option in options:
        sock.setsockopt(*option)
    return sock
