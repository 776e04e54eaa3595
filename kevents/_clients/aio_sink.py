"""Where events are written from an event loop: the protocol, and the sink over the asynchronous Kubernetes clients."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, runtime_checkable

from kevents._clients.aio_client import AsyncClientSource
from kevents._clients.client import told_safely
from kevents._clients.sink import MOST_READ, UNAUTHORIZED, checked_timeout, status_error, unsendable
from kevents._model.objects import Json
from kevents._model.wire import CORE_GROUP, EVENTS_GROUP
from kevents.exceptions import SinkError, StatusError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        return UnavailableError(told_safely(error))
    if isinstance(error, ValueError | TypeError | AttributeError):
        if _BAD_HEADER.search(str(error)):
            return UnavailableError("no header can be made of the client's credentials")
        return unsendable(error)
    return error
