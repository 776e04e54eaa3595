"""Errors of any HTTP client as errors of a sink, for sinks of users."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from kevents._clients.transport import Answer, format_redacted, hide_credentials, status_error
from kevents.exceptions import SinkError, UnavailableError

_STATUS: Final = ("status_code", "status", "code")
"""Names of the attribute with an HTTP status: httpx and requests, aiohttp and the official client, urllib."""
_BODY: Final = ("content", "body")
_ERRORS: Final = range(300, 600)
_DEPTH: Final = 8
"""Errors that are searched for the server's answer: the raised one, its cause, the cause of that ..."""


@contextmanager
def client_errors() -> Iterator[None]:
    """Raise the errors of an HTTP client as those of a sink. For an :class:`~kevents.EventSink` of your own.

    .. code-block:: python

        def create(self, namespace, body):
            with kevents.client_errors():
                self.client.post(f"/api/v1/namespaces/{namespace}/events", json=body).raise_for_status()

    An error with the server's answer becomes a :class:`~kevents.StatusError`. The answer is the error's ``response`` or
    the error itself: whatever has an HTTP status, as in httpx, requests, aiohttp, lightkube, kr8s, pykube-ng and the
    official client. ``ValueError`` and ``TypeError`` without an answer are not changed: the event cannot be sent. Any
    other error becomes an :class:`~kevents.UnavailableError`. It works in coroutines too.

    Raises:
        SinkError: It replaces the client's error. Its text holds no credentials of the request.
    """
    try:
        yield
    except SinkError:
        raise
    except Exception as error:
        answer = _answer_of(error)
        if answer is not None:
            raise status_error(answer) from None
        if isinstance(error, ValueError | TypeError) and not isinstance(error, OSError):
            raise
        raise UnavailableError(format_redacted(error)) from None


def _answer_of(error: BaseException) -> Answer | None:
    """Return the server's answer of an error, or of the one that was being handled when it was raised."""
    each: BaseException | None = error
    for _ in range(_DEPTH):
        if each is None:
            return None
        response = _get(each, "response")
        found = _read(each if response is None else response, each)
        if found is not None:
            return found
        each = each.__cause__ or each.__context__
    return None


def _read(response: Any, error: BaseException) -> Answer | None:  # noqa: ANN401 - of any client
    statuses = (_get(response, name) for name in _STATUS)
    status = next((each for each in statuses if isinstance(each, int) and each in _ERRORS), None)
    if status is None:
        return None
    body: Any = next(filter(None, (_get(response, name) for name in _BODY)), b"")
    body = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else b""
    body = hide_credentials(body, _headers(_get(response, "request")))
    return Answer(status, format_redacted(error), _headers(response), body)


def _headers(message: object) -> Mapping[str, str]:
    with suppress(Exception):
        return dict(_get(message, "headers").items())
    return {}


def _get(thing: object, name: str) -> Any:  # noqa: ANN401
    """Return an attribute, None if reading it raises, as that of an answer without a request does."""
    with suppress(Exception):
        return getattr(thing, name, None)
    return None
