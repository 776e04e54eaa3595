"""Errors of HTTP as errors of a sink: of the server's answers, of connections, and of any client.

Their texts show no credentials, and bodies are bounded.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from kevents._model.wire import clip, format_error, printable
from kevents._queue.outcome import retry_after
from kevents.exceptions import SinkError, StatusError, UnavailableError

MAX_ERROR_BODY: Final = 64 << 10
"""Bytes read of the body of an error, before and after decompression."""
HIDDEN: Final = "(not shown)"
UNAUTHORIZED: Final = 401
SUCCESS: Final = range(200, 300)

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MIN_SECRET: Final = 4
_PLAIN_HEADERS: Final = frozenset(
    ("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent")
)
_SECRET: Final = re.compile(
    r"(?<=Invalid header value ).*|(?<=Failed to parse: ).*|(?<=//)[^/\s]*(?=@)|(?i:(?<=bearer ))[^\s'\",;]{8,}"
)
_STATUS: Final = ("status_code", "status", "code")
"""Names of the attribute with an HTTP status: httpx and requests, aiohttp and the official client, urllib."""
_BODY: Final = ("content", "body")
_ERRORS: Final = range(300, 600)
_DEPTH: Final = 8
"""Errors that are searched for the server's answer: the raised one, its cause, the cause of that ..."""


# -- texts -----------------------------------------------------------------------------------------------------------


def redact(text: str) -> str:
    """Hide bearer tokens, malformed headers and URLs, and users in URLs."""
    return _SECRET.sub(HIDDEN, text)


def format_redacted(error: BaseException) -> str:
    """Format an error as one line without possible credentials."""
    return redact(" ".join(format_error(error).split()))


def secret_forms(secret: str) -> set[str]:
    """Return a secret unchanged, and as it appears in a URL, in quotes, in JSON, and in a printable line.

    Forms shorter than four characters are left out: hiding them would hide half of every text.
    """
    quoted = {repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    forms = {secret, secret.strip(), quote(secret, safe=""), quote(secret), printable(secret), *quoted}
    return {form for form in forms if len(form) >= _MIN_SECRET}


def hide(text: str, forms: Iterable[str]) -> str:
    """Replace the forms of secrets in a text."""
    for form in sorted(forms, key=len, reverse=True):  # one may be a part of another
        text = text.replace(form, HIDDEN)
    return text


def hide_credentials(body: bytes, headers: Mapping[str, str]) -> bytes:
    """Hide a request's credentials in the body of its response. Bytes that are not UTF-8 are replaced."""
    secrets: set[str] = set()
    for name, value in headers.items():
        if str(name).lower() not in _PLAIN_HEADERS:
            scheme, _, rest = str(value).partition(" ")
            secrets |= {str(value), rest or scheme, *_basic_credentials(scheme, rest)}
    text = hide(body.decode("utf-8", "replace"), set().union(*map(secret_forms, secrets)))
    return text.encode()


def _basic_credentials(scheme: str, encoded: str) -> set[str]:
    if scheme.lower() != "basic":
        return set()
    with suppress(ValueError):
        plain = base64.b64decode(encoded).decode()
        return {plain, plain.partition(":")[2]}
    return set()


def redirect_message(headers: Mapping[str, str]) -> str:
    """Describe a redirect, with the host it leads to and nothing else of its target."""
    location = next((str(value) for name, value in headers.items() if str(name).lower() == "location"), "")
    with suppress(ValueError):
        host = urlsplit(location).hostname
        return f"redirect to {printable(clip(host, 253)) if host else 'the same host'} was not followed"
    return "redirect was not followed"


# -- bodies ----------------------------------------------------------------------------------------------------------


def decoded(body: bytes, encoding: str) -> bytes:
    """Decompress at most 64 KiB of a body, possibly cut. Empty if its encoding is unknown or its data is broken."""
    if encoding.lower() in {"", "identity"}:
        return body[:MAX_ERROR_BODY]
    if encoding.lower() not in {"gzip", "x-gzip", "deflate"}:
        return b""
    with suppress(zlib.error):
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_ERROR_BODY)
    return b""


# -- answers of the server -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with the attributes of the clients' exceptions."""

    status: int
    reason: str | None
    headers: Any
    body: bytes
    complete: bool = True  # False if the end of the body is missing


def unsendable(error: Exception) -> Exception:
    """Return the error for a request that the client cannot build.

    A malformed header is not the event's fault: tokens may contain line breaks.
    """
    text = format_redacted(error)
    if text.startswith("ValueError: Invalid header value") or getattr(error, "encoding", "") == "latin-1":
        return UnavailableError(f"the client's credentials make no valid header: {text}")
    return ValueError(text)


def status_error(error: Any) -> SinkError:  # noqa: ANN401
    """Convert the client's exception. Never raises, whatever the server sent."""
    if not error.status:
        return UnavailableError(format_redacted(SinkError(error.reason)))
    status = _status_body(error.body)
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    reasons = [c.get("reason") for c in causes if isinstance(c, Mapping)] if isinstance(causes, list) else []
    code, headers = int(error.status), dict(error.headers or {})
    message = _text(status.get("message")) or _text(error.reason)
    return StatusError(
        code,
        _text(status.get("reason")),
        redirect_message(headers) if code in _REDIRECTS else redact(message),
        [reason for reason in reasons if reason and isinstance(reason, str)],
        retry_after(headers, status),
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


# -- clients of users ------------------------------------------------------------------------------------------------


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
