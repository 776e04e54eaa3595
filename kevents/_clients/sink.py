"""Where events are written: the protocol, and the sink over the official Kubernetes client."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from copy import copy
from typing import Any, ClassVar, Final, Protocol, runtime_checkable

from kevents._clients.client import ClientSource, told_safely
from kevents._model.objects import Json
from kevents._model.validation import require_positive
from kevents._model.wire import CORE_GROUP
from kevents._queue.outcome import retry_after
from kevents.exceptions import SinkError, StatusError, UnavailableError

MOST_READ: Final = 1 << 20
UNAUTHORIZED: Final = 401


@runtime_checkable
class EventSink(Protocol):
    """Where events are written, one request a call (client-go: ``EventSink``).

    A sink may be called from several threads at once, never twice at a time for one event. It raises
    :class:`~kevents.StatusError` for an answer that is no success, :class:`~kevents.UnavailableError` or any
    ``OSError`` if there was none, ``ValueError`` or ``TypeError`` for what can never be sent; anything else is tried
    again. Two more methods are used if there are such: ``after_fork()`` is called in the child after a fork, and
    ``within(seconds)`` gives a sink whose requests take no longer, for a process that is about to end. A sink with an
    attribute ``api_group``, empty for core/v1, is refused by a broadcaster of another API.

    .. versionadded:: 0.1
    """

    def create(self, namespace: str, body: Json, /) -> None:
        """Create an event: a core/v1 body of plain values."""

    def patch(self, namespace: str, name: str, patch: Json, /) -> None:
        """Apply a strategic-merge patch."""


class ClientEventSink:
    """Writes through the official Kubernetes client, of which 31 to 37 are tested; a subclass says by which api.

    It imports the client when it is built, in the caller's thread, and connects at the first send. Answers are read,
    so that the connection is kept, and not parsed.

    Args:
        api: Such an api or an ``ApiClient``, or a callable that gives one.
        request_timeout: Seconds to connect, and seconds without a byte of the answer.
    """

    api_group: ClassVar[str]

    def __init__(self, api: object = None, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        """Import the client; connect to nothing."""
        self._timeout = checked_timeout(request_timeout)
        self._source = ClientSource(api, self.api_group)
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

    def within(self, seconds: float) -> ClientEventSink:
        """The same sink with no longer time-outs: for the last requests of a process that is about to end."""
        hurried = copy(self)
        connect, read = self._timeout
        hurried._timeout = (min(connect, seconds), min(read, seconds))  # noqa: SLF001 - a copy of itself
        return hurried

    def _send(self, method: str, *args: object) -> None:
        api = self._source.api()
        try:
            answer = getattr(api, method)(*args, _preload_content=False, _request_timeout=self._timeout)
        except self._api_exception as error:
            raise self._refused(api, error) from None
        except self._transport_errors as error:
            raise UnavailableError(told_safely(error)) from None
        except (ValueError, TypeError, AttributeError) as error:  # the last: the client's, of a value it does not know
            if isinstance(error.__context__, self._api_exception):  # the client 36 stumbles over what is no UTF-8
                raise self._refused(api, error.__context__) from None
            raise unsendable(error) from None
        _read(answer)

    def _refused(self, api: object, error: Exception) -> SinkError:
        raised = status_error(error)
        if isinstance(raised, StatusError) and raised.code == UNAUTHORIZED:
            self._source.renew(api)
        return raised

    def __repr__(self) -> str:
        """Without anything secret."""
        return f"{type(self).__name__}(request_timeout={self._timeout})"


class CoreV1EventSink(ClientEventSink):
    """Writes core/v1 events through the official Kubernetes client (client-go: ``EventSinkImpl``).

    It imports the client, of which 31 to 37 are tested, when it is built, in the caller's thread, and connects at the
    first send. Answers are read, so that the connection is kept, and not parsed.

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

    api_group = CORE_GROUP


def checked_timeout(timeout: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(timeout, tuple) or len(timeout) != 2:  # noqa: PLR2004
        raise ValueError(f"request_timeout must be (connect, read) in seconds, not {timeout!r}")
    return require_positive("request_timeout", timeout[0]), require_positive("request_timeout", timeout[1])


def _errors() -> tuple[type[Exception], tuple[type[Exception], ...]]:
    import kubernetes.client  # noqa: PLC0415 - kevents itself must not load it
    import kubernetes.config  # noqa: PLC0415
    import urllib3.exceptions  # noqa: PLC0415

    return kubernetes.client.ApiException, (urllib3.exceptions.HTTPError, kubernetes.config.ConfigException)


def _read(answer: Any) -> None:  # noqa: ANN401 - a urllib3 response, or a test double's
    """Read the answer, so that its connection can be used again; of one that never ends, only so much.

    The write is done, whatever becomes of the answer.

    Raises:
        TypeError: If it is to be awaited: nothing was sent then.
    """
    if inspect.isawaitable(answer):
        getattr(answer, "close", bool)()
        raise TypeError("api is an asynchronous client: this sink needs a plain one")
    whole = False
    with suppress(Exception):
        whole = len(answer.read(MOST_READ)) < MOST_READ
    with suppress(Exception):
        if not whole:
            answer.close()
        answer.release_conn()


def unsendable(error: Exception) -> Exception:
    """A request that cannot be built. For a header's sake: no fault of the event's, tokens come with line breaks."""
    text = told_safely(error)
    if text.startswith("ValueError: Invalid header value") or getattr(error, "encoding", "") == "latin-1":
        return UnavailableError(f"no header can be made of the client's credentials: {text}")
    return ValueError(text)


def status_error(error: Any) -> SinkError:  # noqa: ANN401
    """From the client's exception to ours; nothing in it may raise, whatever the server sent."""
    if not error.status:
        return UnavailableError(told_safely(SinkError(error.reason)))
    status = _status_body(error.body)
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    reasons = [c.get("reason") for c in causes if isinstance(c, Mapping)] if isinstance(causes, list) else []
    return StatusError(
        int(error.status),
        _text(status.get("reason")),
        _text(status.get("message")) or _text(error.reason),
        [reason for reason in reasons if reason and isinstance(reason, str)],
        retry_after(dict(error.headers or {}), status),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _status_body(body: object) -> Mapping[str, Any]:
    if not isinstance(body, str | bytes):
        return {}
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return status if isinstance(status, Mapping) else {}
