"""Sinks for threads, over kevents' own connections or over a client that the user gives."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, Protocol, runtime_checkable

from kevents._model.objects import Json
from kevents._model.validation import require_positive
from kevents._model.wire import CORE_GROUP, EVENTS_GROUP
from kevents._runtime.lifecycle import ProcessBound

if TYPE_CHECKING:
    from kevents._clients.client import ClientTransport
    from kevents._clients.direct import DirectTransport


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

    .. versionadded:: 0.1
    """

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event from a core/v1 body of plain values."""

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""


class ClientEventSink(ProcessBound):
    """Writes to the API server; a subclass chooses the API group.

    Args:
        api: An api or ``ApiClient`` of the official client, or a callable that returns one. None: kevents connects by
            itself.
        request_timeout: Seconds to connect, and seconds to wait for the next byte of the response.
    """

    api_group: ClassVar[str]

    def __init__(self, api: object = None, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        """Import the official client if it is needed. Make no connection."""
        self._timeout = checked_timeout(request_timeout)
        self._transport: ClientTransport | DirectTransport
        if api is not None:
            from kevents._clients.client import ClientTransport  # noqa: PLC0415 - it loads the official client

            self._transport = ClientTransport(api, self.api_group)
        else:
            from kevents._clients.direct import DirectTransport  # noqa: PLC0415 - TLS is loaded only for this
            from kevents._clients.endpoint import find_endpoint  # noqa: PLC0415

            self._transport = DirectTransport(partial(find_endpoint, APIS[self.api_group].sink), self.api_group)

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
        """Show the time-outs and no credential."""
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

    .. versionadded:: 0.1
    """

    api_group = CORE_GROUP


def checked_timeout(timeout: tuple[float, float]) -> tuple[float, float, float]:
    """Check ``(connect, read)`` in seconds, and add the seconds that one request may take.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(timeout, tuple) or len(timeout) != 2:  # noqa: PLR2004
        raise ValueError(f"request_timeout must be (connect, read) in seconds, not {timeout!r}")
    connect, read = (require_positive("request_timeout", seconds) for seconds in timeout)
    return connect, read, read + 1
