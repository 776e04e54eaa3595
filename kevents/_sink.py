"""Where events are written: the protocol, and the sink over the official Kubernetes client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from typing import Any, Final, Protocol, runtime_checkable

from kevents._client import ClientSource
from kevents._objects import Json
from kevents._verdict import retry_after
from kevents._wire import told
from kevents.exceptions import StatusError, UnavailableError

_MOST_READ: Final = 1 << 20


@runtime_checkable
class EventSink(Protocol):
    """Where events are written, one request a call (client-go: ``EventSink``).

    A sink may be called from several threads at once, never twice at a time for one event. It raises
    :class:`~kevents.StatusError` for an answer that is no success, :class:`~kevents.UnavailableError` or any
    ``OSError`` if there was none, ``ValueError`` or ``TypeError`` for what can never be sent; anything else is tried
    again. Two more methods are used if there are such: ``after_fork()`` is called in the child after a fork, and
    ``within(seconds)`` gives a sink whose requests take no longer, for a process that is about to end.

    .. versionadded:: 0.1
    """

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event: a core/v1 body of plain values."""

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""


class CoreV1EventSink:
    """Writes through the official Kubernetes client, of which 31 to 37 are tested (client-go: ``EventSinkImpl``).

    It imports the client when it is built, in the caller's thread, and connects at the first send. Answers are read,
    so that the connection is kept, and not parsed.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient``, or a callable that gives one; it may raise
            :class:`~kevents.UnavailableError` as long as there are no credentials. None: the process-wide default
            configuration if it has been loaded, else in-cluster, else kubeconfig; the default is never set.
        request_timeout: Seconds to connect, and seconds without a byte of the answer.

    Raises:
        ValueError: If a time-out is no positive number.
        TypeError: If ``api`` is none of these.

    .. versionadded:: 0.1
    """

    def __init__(self, api: object = None, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        """Import the client; connect to nothing."""
        self._timeout = _checked_timeout(request_timeout)
        self._source = ClientSource(api)
        self._api_exception, self._transport_errors = _errors()

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event."""
        self._send("create_namespaced_event", namespace, body)

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch; that is what the client makes of a dictionary."""
        self._send("patch_namespaced_event", name, namespace, patch)

    def after_fork(self) -> None:
        """In the child: connect anew."""
        self._source.after_fork()

    def within(self, seconds: float) -> CoreV1EventSink:
        """The same sink with no longer time-outs: for the last requests of a process that is about to end."""
        hurried = copy(self)
        connect, read = self._timeout
        hurried._timeout = (min(connect, seconds), min(read, seconds))  # noqa: SLF001 - a copy of itself
        return hurried

    def _send(self, method: str, *args: object) -> None:
        call = getattr(self._source.api(), method)
        try:
            answer = call(*args, _preload_content=False, _request_timeout=self._timeout)
            _read(answer)
        except self._api_exception as error:
            raise _status_error(error) from None
        except self._transport_errors as error:
            raise UnavailableError(told(error)) from None

    def __repr__(self) -> str:
        """Without anything secret."""
        return f"CoreV1EventSink(request_timeout={self._timeout})"


def _checked_timeout(timeout: tuple[float, float]) -> tuple[float, float]:
    numbers = isinstance(timeout, tuple) and [t for t in timeout if isinstance(t, int | float) and t > 0]
    if not numbers or len(numbers) != 2 or len(timeout) != 2:  # noqa: PLR2004
        raise ValueError(f"request_timeout must be (connect, read) in seconds above 0, not {timeout!r}")
    return timeout


def _errors() -> tuple[type[Exception], tuple[type[Exception], ...]]:
    import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
    import kubernetes.config  # noqa: PLC0415
    import urllib3.exceptions  # noqa: PLC0415

    return kubernetes.client.ApiException, (urllib3.exceptions.HTTPError, kubernetes.config.ConfigException)


def _read(answer: Any) -> None:  # noqa: ANN401 - a urllib3 response, or a test double's
    """Read the answer, so that its connection can be used again; of one that never ends, only so much."""
    read = getattr(answer, "read", None)
    if read is None:
        return
    if len(read(_MOST_READ) or b"") < _MOST_READ:
        answer.release_conn()
    else:
        answer.close()


def _status_error(error: Any) -> Exception:  # noqa: ANN401
    """From the client's exception to ours; nothing in it may raise, whatever the server sent."""
    if not error.status:
        return UnavailableError(f"{error.reason}")
    status = _status_body(error.body)
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    reasons = [cause.get("reason") for cause in causes if isinstance(cause, Mapping)] if isinstance(causes, list) else []
    return StatusError(
        int(error.status),
        str(status.get("reason") or ""),
        str(status.get("message") or error.reason or ""),
        [str(reason) for reason in reasons if reason],
        retry_after(dict(error.headers or {}), status),
    )


def _status_body(body: object) -> Mapping[str, Any]:
    if not isinstance(body, str | bytes):
        return {}
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return status if isinstance(status, Mapping) else {}
