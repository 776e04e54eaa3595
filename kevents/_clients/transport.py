"""HTTP for the sinks: no redirects, a total deadline for each request, bounded error bodies, no credentials in errors.

The clients leave all of this to their users. A sink keeps the given client, its configuration and its credentials, but
sends through connections of its own. They are made by :func:`guarded_manager` from the client's own connection pool.
"""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from time import monotonic
from typing import Any, Final
from urllib.parse import quote, urlsplit

from kevents._model.wire import clip, format_error, printable

MAX_BODY: Final = 1 << 20
"""Bytes read of the body of a success, so that its connection can be reused."""
MAX_ERROR_BODY: Final = 64 << 10
"""Bytes read of the body of an error, before and after decompression."""
HIDDEN: Final = "(not shown)"

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


def read_error_body(response: Any) -> bytes:  # noqa: ANN401 - a urllib3 response
    """Read at most 64 KiB of an error's body, and close the connection if there is more."""
    body = b""
    with suppress(Exception):  # the status is known, the body only explains it
        body = response.read(MAX_ERROR_BODY, decode_content=False)
    if len(body) < MAX_ERROR_BODY:
        response.release_conn()
    else:
        response.close()
    return decoded(body, response.headers.get("Content-Encoding", ""))


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


class _Reader(io.RawIOBase):
    """Reads a socket until the deadline of the request that this thread is sending."""

    def __init__(self, raw: io.RawIOBase, sock: Any) -> None:  # noqa: ANN401 - a socket, or TLS within TLS
        self._raw = raw
        self._socket = sock
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401
        self._socket.settimeout(_remaining(self._timeout))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def guarded_connection(base: Any) -> Any:  # noqa: ANN401 - a connection of http.client or urllib3
    """Return a class of connections that keep the deadline of their request."""

    class Response(base.response_class):  # type: ignore[misc]
        def __init__(self, sock: Any, *args: Any, **options: Any) -> None:  # noqa: ANN401
            super().__init__(sock, *args, **options)
            self.fp: io.BufferedReader = io.BufferedReader(_Reader(self.fp.detach(), sock))

    class Connection(base):  # type: ignore[misc]
        response_class = Response

        timeout: Any

        def connect(self) -> None:
            self.timeout = _remaining(self.timeout)
            super().connect()

        def send(self, data: Any) -> None:  # noqa: ANN401
            if self.sock is None or not isinstance(data, bytes):
                super().send(data)
                return
            timeout = self.sock.gettimeout()
            for start in range(0, len(data), _CHUNK):
                self.sock.settimeout(_remaining(timeout))
                super().send(data[start : start + _CHUNK])
            self.sock.settimeout(timeout)

    return Connection


def _guarded_pool(base: Any) -> Any:  # noqa: ANN401
    return type(base.__name__, (base,), {"ConnectionCls": guarded_connection(base.ConnectionCls)})


def guarded_manager(manager: Any) -> Any:  # noqa: ANN401
    """Return a copy of a urllib3 ``PoolManager`` with its own connections, which keep the deadline of their request."""
    guarded = copy(manager)
    guarded.pools = type(manager.pools)(10)
    guarded.pool_classes_by_scheme = {
        scheme: _guarded_pool(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
    }
    return guarded


class Transport:
    """The connection pool of a client for one sink: follows no redirect and reads no more of an error than 64 KiB.

    Args:
        api_exception: The client's class for an error status.
    """

    def __init__(self, api_exception: Any) -> None:  # noqa: ANN401
        """Start without connections."""
        self._api_exception = api_exception
        self._pools: tuple[Any, Any] = (None, None)

    def wrap(self, api: Any) -> Any:  # noqa: ANN401
        """Return a shallow copy of an api that sends through this transport; a test double's is returned unchanged.

        The copy is made for each request, so that later changes of the user's client count.
        """
        import urllib3  # noqa: PLC0415 - the client has imported it

        rest: Any = getattr(getattr(api, "api_client", None), "rest_client", None)
        manager = getattr(rest, "pool_manager", None)
        if not isinstance(manager, urllib3.PoolManager):
            return api
        original, guarded = self._pools
        if original is not manager:
            guarded = guarded_manager(manager)
            self._pools = (manager, guarded)
        rest = copy(rest)
        rest.pool_manager = _Pool(guarded, self._api_exception)
        wrapped = copy(api)
        wrapped.api_client = copy(api.api_client)
        wrapped.api_client.rest_client = rest
        return wrapped


class _Pool:
    """Sends the requests of a client's REST layer, in place of its ``pool_manager``."""

    def __init__(self, manager: Any, api_exception: Any) -> None:  # noqa: ANN401
        self._manager = manager
        self._api_exception = api_exception

    def request(self, method: str, url: str, **options: Any) -> Any:  # noqa: ANN401
        """Send a request, and return the response if its status is a success.

        Raises:
            ApiException: The client's error, with the start of the body and without the request's credentials.
        """
        response = self._manager.request(method, url, **{**options, "redirect": False, "preload_content": False})
        if 200 <= response.status < 300:  # noqa: PLR2004
            return response
        raise api_error(self._api_exception, response, options.get("headers") or {})

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._manager, name)


def api_error(api_exception: Any, response: Any, headers: Mapping[str, str]) -> Exception:  # noqa: ANN401
    """Return the client's exception for an error response of urllib3.

    Args:
        api_exception: The client's class.
        response: The response, unread.
        headers: The request's headers, whose credentials are hidden in the body.
    """
    error: Exception = api_exception(status=response.status, reason=response.reason)
    error.headers = dict(response.headers)  # type: ignore[attr-defined]
    error.body = hide_credentials(read_error_body(response), headers)  # type: ignore[attr-defined]
    return error
