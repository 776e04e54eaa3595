"""HTTP for the sinks: no redirects, a total deadline for each request, bounded error bodies, no credentials in errors.

Both ways to send use it: kevents' own connections and those of an official client.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import re
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final
from urllib.parse import quote, urlsplit

from kevents._model.wire import clip, format_error, printable
from kevents._queue.outcome import retry_after
from kevents.exceptions import SinkError, StatusError, UnavailableError

MAX_BODY: Final = 1 << 20
"""Bytes read of the body of a success, so that its connection can be reused."""
MAX_ERROR_BODY: Final = 64 << 10
"""Bytes read of the body of an error, before and after decompression."""
HIDDEN: Final = "(not shown)"
UNAUTHORIZED: Final = 401

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CHUNK: Final = 16 << 10
_MIN_SECRET: Final = 4
_PLAIN_HEADERS: Final = frozenset(
    ("accept", "accept-encoding", "connection", "content-length", "content-type", "host", "user-agent")
)
_SECRET: Final = re.compile(
    r"(?<=Invalid header value ).*|(?<=Failed to parse: ).*|(?<=//)[^/\s]*(?=@)|(?i:(?<=bearer ))[^\s'\",;]{8,}"
)
_current: Final = threading.local()
"""The deadline of the request that a thread is sending."""


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
    """Hide a request's credentials in the body of its response.

    Args:
        body: The body. Bytes that are not UTF-8 are replaced.
        headers: The request's headers.
    """
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
    """Decompress at most 64 KiB of a body; empty if its encoding is unknown or its data is broken.

    Args:
        body: As it was received, possibly cut.
        encoding: The header ``Content-Encoding``.
    """
    if encoding.lower() in {"", "identity"}:
        return body[:MAX_ERROR_BODY]
    if encoding.lower() not in {"gzip", "x-gzip", "deflate"}:
        return b""
    with suppress(zlib.error):
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_ERROR_BODY)
    return b""


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
    """Return the shorter of a time-out and the time until the deadline.

    Raises:
        TimeoutError: If the deadline has passed.
    """
    end: float | None = getattr(_current, "deadline", None)
    if end is None:
        return timeout
    left = end - monotonic()
    if left <= 0:
        raise TimeoutError("the request took too long")
    return min(timeout, left) if isinstance(timeout, int | float) else left


class Reader(io.RawIOBase):
    """Reads a socket until the deadline of the request that this thread is sending.

    Args:
        sock: A socket, or TLS within TLS.
        raw: A stream over the socket, to be closed with this one; None to read the socket itself.
    """

    def __init__(self, sock: Any, raw: Any = None) -> None:  # noqa: ANN401
        self._socket = sock
        self._timeout = sock.gettimeout()
        self._raw = raw
        self._read_into = sock.recv_into if raw is None else raw.readinto

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401
        """Read what has arrived."""
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


# -- errors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with the attributes of the clients' exceptions."""

    status: int
    reason: str | None
    headers: Any
    body: bytes
    complete: bool = True  # False if the end of the body is missing

    def is_success(self) -> bool:
        """True for a status of 200 to 299."""
        return 200 <= self.status < 300  # noqa: PLR2004


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
