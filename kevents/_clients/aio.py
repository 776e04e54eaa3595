"""Sinks for asyncio, over ``kubernetes.aio`` and ``kubernetes_asyncio``."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import re
import sys
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, runtime_checkable

from kevents._clients.sync import (
    APIS,
    ASYNCHRONOUS,
    MOST_READ,
    UNAUTHORIZED,
    UNCONFIGURED_HOSTS,
    checked_timeout,
    comes_from,
    format_redacted,
    kubeconfig,
    no_configuration,
    other_api,
    package_of,
    status_error,
    unsendable,
)
from kevents._model.objects import Json
from kevents._model.wire import CORE_GROUP, EVENTS_GROUP
from kevents._runtime.aio_threads import in_thread
from kevents.exceptions import SinkError, StatusError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FAREWELL: Final = 5
"""Turns of the loop in which connections that were closed, those with TLS above all, really end."""
_parents: list[object] = []
"""In a forked child: what belongs to the parent's loop, and must not be finalised here."""


class Connection:
    """An api, and who uses it.

    Args:
        api: With ``create_namespaced_event`` and ``patch_namespaced_event``.
        owned: Whether it is to be closed here.
    """

    def __init__(self, api: Any, *, owned: bool) -> None:  # noqa: ANN401 - these clients have no usable types
        """Nobody uses it yet."""
        self.api = api
        self._owned = owned
        self._users = 0
        self._retired = False

    async def __aenter__(self) -> Any:  # noqa: ANN401
        """The api, for a request."""
        self._users += 1
        return self.api

    async def __aexit__(self, *exc: object) -> None:
        """The request has ended; the last one of a connection that was retired closes it."""
        self._users -= 1
        await self._close_if_idle()

    async def retire(self) -> None:
        """Close it as soon as no request is under way."""
        self._retired = True
        await self._close_if_idle()

    async def _close_if_idle(self) -> None:
        if self._retired and self._owned and not self._users:
            self._owned = False
            await getattr(self.api, "api_client", self.api).close()
            for _ in range(_FAREWELL):
                await asyncio.sleep(0)


class AsyncClientSource:
    """Gives connections; they are made at the first request in a loop, and anew when credentials are refused.

    Args:
        given: An api of ``kubernetes.aio`` or ``kubernetes_asyncio``, an ``ApiClient`` of theirs, a callable that gives
            either or is a coroutine function of that kind, or None for the configuration that the process has loaded,
            else in-cluster, else kubeconfig. What is given is never closed here, what a callable makes is.
        api_group: Of the events.

    Raises:
        ImportError: If neither package is installed and nothing was given.
        TypeError: If ``given`` is none of these.
    """

    def __init__(self, given: object, api_group: str) -> None:
        """Import the package, unless a loop runs; connect to nothing."""
        self._given = given
        self._kind = APIS[api_group]
        self._package = _installed() if given is None else package_of(given)
        self._prepared = ""
        self._renew()
        if given is not None and (trouble := self._trouble(given, legal=callable(given))):
            raise TypeError(
                f"api must be a {self._kind.name} or ApiClient of kubernetes.aio or kubernetes_asyncio, or a callable "
                f"that gives one, {trouble}"
            )
        if self._package and not _in_loop():
            self._prepare(self._package)

    def _prepare(self, package: str) -> None:
        """Do now, and not in the loop, what would keep it: import the package, which takes up to a second.

        The client 37 besides loads its parts when they are first asked for, and builds models at the first request; one
        that is refused before it is made brings that about.
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
        """The connection of the running loop.

        Raises:
            UnavailableError: If there is no configuration, or no credentials, yet.
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
        """Its credentials were refused: ask for others before the next request, unless the client was given."""
        loop = asyncio.get_running_loop()
        if self._connections.get(loop) is refused and not self._is_client(self._given):
            del self._connections[loop]
            await refused.retire()

    async def close(self) -> None:
        """Close the running loop's connection; a later request makes another."""
        loop = asyncio.get_running_loop()
        lock = self._locks.get(loop)
        if lock is not None and not lock.locked():  # it holds on to the loop, so that no weak key would let go of it
            del self._locks[loop]
        connection = self._connections.pop(loop, None)
        if connection is not None:
            await connection.retire()

    def after_fork(self) -> None:
        """In the child: connect anew."""
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
            await in_thread("kevents-import", partial(self._try_to_prepare, package), None)

    def _try_to_prepare(self, package: str, _: float | None) -> None:
        with suppress(Exception):  # it is raised again, where it is needed
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
        except Exception as error:  # noqa: BLE001 - whatever it raises, there are no credentials yet
            raise UnavailableError(f"the callable given as api raised {format_redacted(error)}") from None
        if trouble := self._trouble(made, legal=False):
            raise UnavailableError(
                f"the callable given as api must give a {self._kind.name} or ApiClient of kubernetes.aio or "
                f"kubernetes_asyncio, {trouble}"
            )
        return made

    def _is_client(self, thing: object) -> bool:
        if isinstance(thing, type):
            return False
        is_api = hasattr(thing, "create_namespaced_event")
        return is_api or (bool(package_of(thing)) and hasattr(thing, "rest_client"))

    def _trouble(self, thing: object, *, legal: bool) -> str:
        """Why a thing will not do; empty if it will."""
        if comes_from(thing, "kubernetes") and not package_of(thing):
            return f"not a synchronous one: {self._kind.sink} is for those"
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
        except Exception as not_in_cluster:  # noqa: BLE001 - its errors are of many classes
            path = kubeconfig()
            try:
                await config.load_kube_config(path, client_configuration=configuration)
            except Exception as error:  # noqa: BLE001 - a broken file: YAMLError, TypeError, AttributeError ...
                raise no_configuration(not_in_cluster, path, error, self._kind.async_sink) from None
        return configuration


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _installed() -> str:
    """The package to use where nothing says which.

    Raises:
        ImportError: If there is none.
    """
    for package in ASYNCHRONOUS:
        if _is_installed(package) and _is_installed("aiohttp"):
            return package
    raise ImportError(
        "kevents.aio needs kubernetes.aio (of the official client from 36 on, with aiohttp) or kubernetes_asyncio"
    )


def _imported() -> str:
    """The package that the process has imported already; empty: none."""
    return next((package for package in ASYNCHRONOUS if f"{package}.client" in sys.modules), "")


def _is_installed(package: str) -> bool:
    """Whether a package can be imported; asked without importing what it is a part of."""
    parent, _, part = package.partition(".")
    with suppress(ImportError, ValueError):
        spec = find_spec(parent)
        if spec is not None and part:
            spec = PathFinder.find_spec(package, spec.submodule_search_locations)
        return spec is not None
    return False


_BAD_HEADER: Final = re.compile("detected in .*header")  # aiohttp's words for a line break in one
_STRATEGIC: Final = "application/strategic-merge-patch+json"


@runtime_checkable
class EventSink(Protocol):
    """Where events are written from an event loop, one request a call (client-go: ``EventSink``).

    As :class:`kevents.EventSink`, with coroutine functions: several calls may be under way at once, never two for one
    event. Two more methods are used if there are such: the coroutine function ``close()`` is awaited in that loop when
    all senders have ended, at the end, or because their tasks were cancelled; a call after that connects anew.
    ``after_fork()`` is called in the child after a fork.

    .. versionadded:: 0.1
    """

    async def create(self, namespace: str, body: Json, /) -> None:
        """Create an event: a core/v1 body of plain values."""

    async def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An answer, in the shape of the clients' exceptions."""

    status: int
    reason: str | None
    headers: Mapping[str, str]
    body: bytes


class ClientEventSink:
    """Writes through an asynchronous Kubernetes client; a subclass says by which api.

    Args:
        api: Such an api or an ``ApiClient``, or a callable that gives one.
        request_timeout: Seconds to connect, and seconds without a byte of the answer.
    """

    api_group: ClassVar[str]

    def __init__(self, api: object = None, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        """Import the client, unless a loop runs; connect to nothing."""
        self._timeout = checked_timeout(request_timeout)
        self._source = AsyncClientSource(api, self.api_group)

    async def create(self, namespace: str, body: Json, /) -> None:
        """Create an event."""
        await self._send("create_namespaced_event", namespace, body)

    async def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""
        await self._send("patch_namespaced_event", name, namespace, patch, _content_type=_STRATEGIC)

    async def close(self) -> None:
        """Close the connections, but not those of a client that was given; a later call connects anew."""
        await self._source.close()

    def after_fork(self) -> None:
        """In the child: connect anew."""
        self._source.after_fork()

    async def _send(self, method: str, *args: object, **options: object) -> None:
        connection = await self._source.connection()
        try:
            async with connection as api:
                await _read(await self._call(api, method)(*args, **options))
        except Exception as error:  # noqa: BLE001 - the packages have many
            raised = _converted(error)
            if isinstance(raised, StatusError) and raised.code == UNAUTHORIZED:
                await self._source.renew(connection)
            raise raised from None

    def _call(self, api: Any, method: str) -> Any:  # noqa: ANN401
        """A method that gives an answer unread, within the time-outs, of any of the packages."""
        unread = getattr(api, f"{method}_without_preload_content", None)
        if unread is not None:  # 37 hands (connect, read) to aiohttp, which knows the whole only
            return partial(unread, _request_timeout=sum(self._timeout))
        return partial(getattr(api, method), _preload_content=False, _request_timeout=self._all_timeouts())

    def _all_timeouts(self) -> object:
        aiohttp: Any = sys.modules.get("aiohttp")
        if aiohttp is None:  # somebody's double of the api
            return self._timeout
        connect, read = self._timeout
        return aiohttp.ClientTimeout(total=connect + read, sock_connect=connect, sock_read=read)

    def __repr__(self) -> str:
        """Without anything secret."""
        return f"{type(self).__name__}(request_timeout={self._timeout})"


class CoreV1EventSink(ClientEventSink):
    """Writes core/v1 events through ``kubernetes.aio`` or ``kubernetes_asyncio`` (client-go: ``EventSinkImpl``).

    It imports the client when it is built, or if a loop runs then at the first send, in a thread of its own, since that
    takes up to a second. It connects at the first send, in the loop in which that is. Answers are read, so that the
    connection is kept, and not parsed.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient`` of either package, which is never closed here; or a callable, plain or a
            coroutine function, that makes one, which then is; it may raise :class:`~kevents.UnavailableError` as long
            as there are no credentials. None: the process-wide default configuration if it has been loaded, else
            in-cluster, else kubeconfig, through ``kubernetes.aio`` if it is installed.
        request_timeout: Seconds to connect, and seconds without a byte of the answer; no request takes longer than
            both together. The first of ``kubernetes.aio`` from 37 on knows only the sum.

    Raises:
        ValueError: If a time-out is no positive number.
        TypeError: If ``api`` is none of these.
        ImportError: If neither package is installed.

    .. versionadded:: 0.1
    """

    api_group = CORE_GROUP


class EventsV1EventSink(ClientEventSink):
    """Writes events.k8s.io/v1 events through ``kubernetes.aio`` or ``kubernetes_asyncio``.

    In all else it is as :class:`CoreV1EventSink`.

    Args:
        api: An ``EventsV1Api`` or ``ApiClient`` of either package, a callable that makes one, or None.
        request_timeout: Seconds to connect, and seconds without a byte of the answer.

    Raises:
        ValueError: If a time-out is no positive number.
        TypeError: If ``api`` is none of these.
        ImportError: If neither package is installed.

    .. versionadded:: 0.1
    """

    api_group = EVENTS_GROUP


async def _read(answer: Any) -> None:  # noqa: ANN401 - an aiohttp response, or what a test double gives
    """Read the answer, so that its connection can be used again; of one that never ends, only so much.

    Raises:
        SinkError: If it is no success. Of a success nothing is raised, whatever becomes of its body.
    """
    status = getattr(answer, "status", None)
    if not isinstance(status, int):
        return
    body = bytearray()
    try:
        with suppress(Exception):
            while len(body) < MOST_READ and (piece := await answer.content.read(MOST_READ - len(body))):
                body += piece
    finally:
        if not answer.content.at_eof():
            answer.close()
    if not 200 <= status < 300:  # noqa: PLR2004
        raise status_error(_Refusal(status, answer.reason, answer.headers, bytes(body)))


def _converted(error: Exception) -> Exception:
    """From what a client raised to what a sink raises."""
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, SinkError):
        return error
    if "ApiException" in names:
        return status_error(error)
    if isinstance(error, OSError | asyncio.TimeoutError) or {"ClientError", "ConfigException"} & names:
        return UnavailableError(format_redacted(error))
    if isinstance(error, ValueError | TypeError | AttributeError):
        if _BAD_HEADER.search(str(error)):
            return UnavailableError("no header can be made of the client's credentials")
        return unsendable(error)
    return error
