"""Sinks for asyncio, over ``kubernetes.aio`` and ``kubernetes_asyncio``.

A client holds connections of one event loop, so each loop that uses a sink has its own client.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import sys
import weakref
from contextlib import suppress
from copy import copy
from functools import lru_cache, partial
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from kevents._clients.client import ASYNCHRONOUS, comes_from, other_api, package_of
from kevents._clients.endpoint import UNCONFIGURED_HOSTS, kubeconfig, no_configuration
from kevents._clients.sync import APIS, checked_timeout
from kevents._clients.transport import (
    MAX_BODY,
    MAX_ERROR_BODY,
    UNAUTHORIZED,
    Refusal,
    decoded,
    format_redacted,
    hide_credentials,
    status_error,
    unsendable,
)
from kevents._model.objects import Json
from kevents._model.wire import CORE_GROUP, EVENTS_GROUP
from kevents._runtime.aio import run_in_thread
from kevents._runtime.lifecycle import ProcessBound
from kevents.exceptions import SinkError, StatusError, UnavailableError

_CLOSING_STEPS: Final = 5
"""Iterations of the loop until closed connections, mainly those with TLS, have ended."""
_parents: list[object] = []
"""Connections of the parent's loop, kept in a forked child so that they are not finalised there."""


class Connection:
    """An api and the number of its requests in progress.

    Args:
        api: An api with ``create_namespaced_event`` and ``patch_namespaced_event``.
        owned: True if kevents must close it.
    """

    def __init__(self, api: Any, *, owned: bool) -> None:  # noqa: ANN401 - these clients have no usable types
        """Start without requests."""
        self.api = api
        self._owned = owned
        self._users = 0
        self._retired = False

    async def __aenter__(self) -> Any:  # noqa: ANN401
        """Return the api for a request."""
        self._users += 1
        return self.api

    async def __aexit__(self, *exc: object) -> None:
        """End the request; close the connection if it is retired and this was the last request."""
        self._users -= 1
        await self._close_if_idle()

    async def retire(self) -> None:
        """Close it once no request is in progress."""
        self._retired = True
        await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        if self._retired and self._owned and not self._users:
            self._owned = False
            await getattr(self.api, "api_client", self.api).close()
            for _ in range(_CLOSING_STEPS):
                await asyncio.sleep(0)


class AsyncClientSource:
    """Provides a connection for each loop, made at its first request and again when credentials are refused.

    Args:
        given: An api or ``ApiClient`` of ``kubernetes.aio`` or ``kubernetes_asyncio``, a callable or coroutine function
            that returns either, or None for the configuration loaded by the process, else in-cluster, else kubeconfig.
            kevents closes only clients that it or a callable made.
        api_group: The API group of the events.

    Raises:
        ImportError: If neither package is installed and nothing was given.
        TypeError: If ``given`` is anything else.
    """

    def __init__(self, given: object, api_group: str) -> None:
        """Import the package unless a loop is running; do not connect."""
        self._given = given
        self._kind = APIS[api_group]
        self._package = _installed() if given is None else package_of(given)
        self._prepared = ""
        self._renew()
        if given is not None and (trouble := self._trouble(given, legal=callable(given))):
            raise TypeError(
                f"api must be a {self._kind.name} or ApiClient of kubernetes.aio or kubernetes_asyncio, or a callable "
                f"that returns one, {trouble}"
            )
        if self._package and not _in_loop():
            self._prepare(self._package)

    def _prepare(self, package: str) -> None:
        """Import the package outside the loop, because that takes up to a second.

        The client 37 also imports its parts at their first use and builds models at the first request. A request with
        an invalid argument triggers both without sending anything.
        """
        client = importlib.import_module(f"{package}.client")
        importlib.import_module(f"{package}.config")
        for name in ("ApiClient", "ApiException", "Configuration", self._kind.name, self._kind.model):
            getattr(client, name)
        api = getattr(client, self._kind.name)
        for method in ("create_namespaced_event", "patch_namespaced_event"):
            unread = getattr(api, f"{method}_without_preload_content", None)
            if unread is not None:
                with suppress(Exception):
                    unread(None).send(None)
        self._prepared = package

    def _renew(self) -> None:
        self._connections: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Connection] = (
            weakref.WeakKeyDictionary()
        )
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()

    async def connection(self) -> Connection:
        """Return the connection of the running loop.

        Raises:
            UnavailableError: If there is no configuration or no credentials yet.
        """
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            async with self._locks.setdefault(loop, asyncio.Lock()):
                connection = self._connections.get(loop)
                if connection is None:
                    connection = self._connections[loop] = await self._make()
        return connection

    async def renew(self, refused: Connection) -> None:
        """After a 401, make the connection again before the next request, unless the user gave the client."""
        loop = asyncio.get_running_loop()
        if self._connections.get(loop) is refused and not self._is_client(self._given):
            del self._connections[loop]
            await refused.retire()

    async def close(self) -> None:
        """Close the running loop's connection; a later request makes a new one."""
        loop = asyncio.get_running_loop()
        lock = self._locks.get(loop)
        if lock is not None and not lock.locked():  # the lock references the loop, so the weak key would never go
            del self._locks[loop]
        connection = self._connections.pop(loop, None)
        if connection is not None:
            await connection.retire()

    def after_fork(self) -> None:
        """Connect again in a forked child."""
        _parents.append(dict(self._connections))
        self._renew()

    # -- making one ----------------------------------------------------------------------------------------------

    async def _make(self) -> Connection:
        given = self._given
        owned = not self._is_client(given)
        await self._import(self._package or _imported())
        if given is not None and owned:
            given = await self._called()
            await self._import(package_of(given))
        return Connection(self._api_over(await self._from_environment() if given is None else given), owned=owned)

    async def _import(self, package: str) -> None:
        if package and package != self._prepared:
            await run_in_thread("kevents-import", partial(self._try_to_prepare, package), None)

    def _try_to_prepare(self, package: str, _: float | None) -> None:
        with suppress(Exception):  # the import that needs it raises again
            self._prepare(package)

    def _api_over(self, client: Any) -> Any:  # noqa: ANN401
        if hasattr(client, "create_namespaced_event"):
            return client
        return getattr(importlib.import_module(f"{package_of(client)}.client"), self._kind.name)(client)

    async def _called(self) -> object:
        given: Any = self._given
        try:
            made = given()
            if inspect.isawaitable(made):
                made = await made
        except UnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 - there are no credentials yet, whatever the error
            raise UnavailableError(f"the callable given as api raised {format_redacted(error)}") from None
        if trouble := self._trouble(made, legal=False):
            raise UnavailableError(
                f"the callable given as api must return a {self._kind.name} or ApiClient of kubernetes.aio or "
                f"kubernetes_asyncio, {trouble}"
            )
        return made

    def _is_client(self, thing: object) -> bool:
        if isinstance(thing, type):
            return False
        is_api = hasattr(thing, "create_namespaced_event")
        return is_api or (bool(package_of(thing)) and hasattr(thing, "rest_client"))

    def _trouble(self, thing: object, *, legal: bool) -> str:
        """Return why an object is no api, empty if it is one."""
        if comes_from(thing, "kubernetes") and not package_of(thing):
            return f"not a synchronous one: use {self._kind.sink}"
        if other := other_api(thing, self._kind):
            return other
        return "" if legal or self._is_client(thing) else f"not {type(thing).__module__}.{type(thing).__qualname__}"

    async def _from_environment(self) -> Any:  # noqa: ANN401
        client: Any = importlib.import_module(f"{self._package}.client")
        configuration = client.Configuration.get_default_copy()
        if configuration.host in UNCONFIGURED_HOSTS:
            configuration = await self._load(client.Configuration())
        return client.ApiClient(configuration=configuration)

    async def _load(self, configuration: Any) -> Any:  # noqa: ANN401
        config: Any = importlib.import_module(f"{self._package}.config")
        try:
            config.load_incluster_config(client_configuration=configuration)
        except Exception as not_in_cluster:  # noqa: BLE001 - it raises many classes
            path = kubeconfig()
            try:
                await config.load_kube_config(path, client_configuration=configuration)
            except Exception as error:  # noqa: BLE001 - a broken file raises YAMLError, TypeError, AttributeError ...
                raise no_configuration(not_in_cluster, path, error, self._kind.async_sink) from None
        return configuration


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _installed() -> str:
    """Return the first installed package.

    Raises:
        ImportError: If neither is installed.
    """
    for package in ASYNCHRONOUS:
        if _is_installed(package) and _is_installed("aiohttp"):
            return package
    raise ImportError(
        "kevents.aio needs kubernetes.aio (of the official client from 36 on, with aiohttp) or kubernetes_asyncio"
    )


def _imported() -> str:
    """Return the package that the process has already imported, empty for none."""
    return next((package for package in ASYNCHRONOUS if f"{package}.client" in sys.modules), "")


def _is_installed(package: str) -> bool:
    """True if a package can be imported. Does not import its parent."""
    parent, _, part = package.partition(".")
    with suppress(ImportError, ValueError):
        spec = find_spec(parent)
        if spec is not None and part:
            spec = PathFinder.find_spec(package, spec.submodule_search_locations)
        return spec is not None
    return False


_BAD_HEADER: Final = re.compile("detected in .*header")  # aiohttp's error for a line break
_STRATEGIC: Final = "application/strategic-merge-patch+json"


@runtime_checkable
class EventSink(Protocol):
    """Writes events from an event loop, one request for each call (client-go: ``EventSink``).

    The asynchronous form of :class:`kevents.EventSink`. Several calls may be in progress at the same time, but never
    two for the same event. Two more methods are optional: the coroutine function ``close()`` is awaited in the loop
    when all sender tasks have ended or were cancelled (a later call connects again), and ``after_fork()`` is called in
    the child after a fork.

    .. versionadded:: 0.1
    """

    async def create(self, namespace: str, body: Json, /) -> None:
        """Create an event from a core/v1 body of plain values."""

    async def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""


class ClientEventSink(ProcessBound):
    """Writes through an asynchronous Kubernetes client; a subclass chooses the API group.

    Args:
        api: An api or ``ApiClient`` of the client, or a callable that returns one.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response.
    """

    api_group: ClassVar[str]

    def __init__(self, api: object = None, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        """Import the client unless a loop is running; do not connect."""
        self._timeout = checked_timeout(request_timeout)
        self._source = AsyncClientSource(api, self.api_group)

    async def create(self, namespace: str, body: Json, /) -> None:
        """Create an event."""
        await self._send("create_namespaced_event", namespace, body)

    async def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""
        await self._send("patch_namespaced_event", name, namespace, patch, _content_type=_STRATEGIC)

    async def close(self) -> None:
        """Close the connections, except those of a client the user gave; a later call connects again."""
        await self._source.close()

    def after_fork(self) -> None:
        """Connect again in a forked child."""
        self._source.after_fork()

    async def _send(self, method: str, *args: object, **options: object) -> None:
        connection = await self._source.connection()
        try:
            async with connection as api:
                await _read(await self._call(self._guarded(api), method)(*args, **options))
        except Exception as error:  # noqa: BLE001 - the packages raise many classes
            raised = _converted(error)
            if isinstance(raised, StatusError) and raised.code == UNAUTHORIZED:
                await self._source.renew(connection)
            raise raised from None

    def _call(self, api: Any, method: str) -> Any:  # noqa: ANN401
        """Return a method of any of the packages that leaves the response unread and keeps the time-outs."""
        unread = getattr(api, f"{method}_without_preload_content", None)
        if unread is not None:
            return partial(unread, _request_timeout=self._timeout[2])
        return partial(getattr(api, method), _preload_content=False, _request_timeout=self._timeout[:2])

    def _guarded(self, api: Any) -> Any:  # noqa: ANN401
        """Return a shallow copy of an api that keeps the deadline and follows no redirect; a test double unchanged.

        The copy is made for each request, so that later changes of the user's client count.
        """
        rest = getattr(getattr(api, "api_client", None), "rest_client", None)
        if not package_of(rest) or not hasattr(rest, "pool_manager"):
            return api
        guarded = copy(api)
        guarded.api_client = copy(api.api_client)
        guarded.api_client.rest_client = _guarded_rest(rest, self._timeout)
        return guarded

    def __repr__(self) -> str:
        """Show the time-outs and no credential."""
        return f"{type(self).__name__}(request_timeout={self._timeout[:2]})"


class CoreV1EventSink(ClientEventSink):
    """Writes core/v1 events through ``kubernetes.aio`` or ``kubernetes_asyncio`` (client-go: ``EventSinkImpl``).

    It imports the client in the constructor. If a loop is running then, it imports at the first request in a separate
    thread, because that takes up to a second. It connects at the first request, in the loop of that request. It reads
    each response without parsing it, so that the connection can be reused.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient`` of either package, or a callable or coroutine function that makes one.
            The callable may raise :class:`~kevents.UnavailableError` while there are no credentials. kevents closes a
            client that the callable made and never one that you give. None: the process-wide default configuration if
            it has been loaded, else in-cluster, else kubeconfig, through ``kubernetes.aio`` if it is installed.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response. No request takes
            longer than their sum. ``kubernetes.aio`` from 37 on only supports the sum.

    Raises:
        ValueError: If a time-out is not a positive number.
        TypeError: If ``api`` is anything else.
        ImportError: If neither package is installed.

    .. versionadded:: 0.1
    """

    api_group = CORE_GROUP


class EventsV1EventSink(ClientEventSink):
    """Writes events.k8s.io/v1 events through ``kubernetes.aio`` or ``kubernetes_asyncio``.

    Otherwise the same as :class:`CoreV1EventSink`.

    Args:
        api: An ``EventsV1Api`` or ``ApiClient`` of either package, a callable that makes one, or None.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response.

    Raises:
        ValueError: If a time-out is not a positive number.
        TypeError: If ``api`` is anything else.
        ImportError: If neither package is installed.

    .. versionadded:: 0.1
    """

    api_group = EVENTS_GROUP


async def _read(answer: Any) -> None:  # noqa: ANN401 - an aiohttp response or a test double's
    """Read the response up to a limit, so that its connection can be reused.

    Raises:
        SinkError: If the status is not a success. Errors while reading the body of a success are ignored.
    """
    status = getattr(answer, "status", None)
    if not isinstance(status, int):
        return
    success = 200 <= status < 300  # noqa: PLR2004
    limit = MAX_BODY if success else MAX_ERROR_BODY
    body = bytearray()
    try:
        with suppress(Exception):
            while len(body) < limit and (piece := await answer.content.read(limit - len(body))):
                body += piece
    finally:
        if not answer.content.at_eof():
            answer.close()
    if not success:
        plain = decoded(bytes(body), answer.headers.get("Content-Encoding", ""))
        plain = hide_credentials(plain, answer.request_info.headers)
        raise status_error(Refusal(status, answer.reason, answer.headers, plain))


def _guarded_rest(rest: Any, timeout: tuple[float, float, float]) -> Any:  # noqa: ANN401
    """Return a copy of a client's REST layer whose session is wrapped; the original keeps the session."""
    guarded = object.__new__(_guarded_class(type(rest)))  # type: ignore[arg-type]
    guarded.__dict__.update(rest.__dict__, kevents_original=rest, kevents_timeout=timeout)
    return guarded


@lru_cache(maxsize=16)
def _guarded_class(base: type) -> Any:  # noqa: ANN401
    class Guarded(base):  # type: ignore[misc]
        @property
        def pool_manager(self) -> object:
            session = self.kevents_original.pool_manager
            return None if session is None else _Session(session, self.kevents_timeout)

        @pool_manager.setter
        def pool_manager(self, session: object) -> None:  # kubernetes.aio makes its session at the first request
            self.kevents_original.pool_manager = session

    return Guarded


class _Session:
    """Sends the requests of a client's REST layer, in place of its aiohttp session."""

    def __init__(self, session: Any, timeout: tuple[float, float, float]) -> None:  # noqa: ANN401
        self._session = session
        connect, read, total = timeout
        self._timeouts = {"total": total, "sock_connect": connect, "sock_read": read}

    async def request(self, **options: Any) -> Any:  # noqa: ANN401
        """Send a request that follows no redirect, ends in time and is not decompressed without a limit."""
        import aiohttp  # noqa: PLC0415 - the client has imported it

        options["timeout"] = aiohttp.ClientTimeout(**self._timeouts)
        options["headers"] = {**options.get("headers", {}), "Accept-Encoding": "identity"}
        return await self._session.request(**options, allow_redirects=False, auto_decompress=False)


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
