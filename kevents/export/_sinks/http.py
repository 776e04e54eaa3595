"""The base of HTTP sinks, and their requests: no redirects, no secrets in errors, bounded answers."""

from __future__ import annotations

import gzip
import re
import ssl
import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, quote, urlsplit

from kevents import __version__
from kevents._clients.errors import HIDDEN, hide, secret_forms
from kevents._clients.sync import deadline, guarded_connection
from kevents._model.validation import require_positive
from kevents._model.wire import clip, format_error, printable
from kevents._queue.outcome import retry_after
from kevents.export._model.types import Batch, Position, Record, Reject, Retry, SinkWithoutPosition

_LONGEST: Final = 600
_MOST_SEARCHED: Final = 4096
_USER = re.compile(r"(?<=://)[^/?#\s@]+@")
_QUERY = re.compile(r"(?<=[a-z0-9/_.-])\?[^\s<>\"')]*(?:=|%3D)[^\s<>\"')]*", re.IGNORECASE)


class Redactor:
    """Removes known secrets, users in URLs and the queries of URLs from texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: set[str] = set().union(*map(secret_forms, secrets))

    def remember(self, secret: str) -> None:
        """Hide one more secret from now on, in each of its forms."""
        self._forms = self._forms | secret_forms(secret)

    def clean(self, text: str) -> str:
        """Remove the known secrets. Call it before a text is escaped, quoted or cut, which may leave half a secret."""
        return hide(text, self._forms)

    def __call__(self, text: str) -> str:
        """Return a foreign text as one printable line without secrets, clipped."""
        text = self.clean(text)[:_MOST_SEARCHED]
        text = _QUERY.sub(f"?{HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
        return clip(printable(text), _LONGEST)


Text: TypeAlias = str | Callable[[], str]
"""A text, or a function that returns it: called for each request, so that a renewed secret is used."""

MOST_REFUSALS: Final = 64
"""Refused requests for one batch while its refused records are searched; then the rest is refused as a whole."""

_LONGEST_ANSWER: Final = 1 << 16  # bytes
_PIECE: Final = 1 << 14  # bytes read at once
_LONGEST_QUOTE: Final = 300  # characters of the answer in an error
_SHORTEST_SECRET: Final = 8  # shorter parts of a path are ordinary words
_LONGEST_CONNECT: Final = 10.0
_REDIRECTS: Final = range(300, 400)
_WRONG_ENDPOINT: Final = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 415, 421, 426, 451})
_LATER: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_PUBLIC_HEADERS: Final = frozenset({"content-type", "content-encoding", "accept", "user-agent"})
_CONNECTIONS: Final = {"http": guarded_connection(HTTPConnection), "https": guarded_connection(HTTPSConnection)}


class RefusedError(Exception):
    """The server will never accept this request. It may accept a part of it."""

    def __init__(self, why: str, body: bytes) -> None:
        super().__init__(why)
        self.body = body  # the beginning of the answer


class Endpoint:
    """One URL, to which requests are sent one at a time, over one connection. Raises ValueError for wrong arguments."""

    def __init__(
        self,
        url: Text,  # `https://...`; everything but scheme and host is treated as a secret
        headers: Mapping[str, Text] | None,  # additional headers; their values are secrets
        timeout: float,  # seconds for a request, from the connection to the end of the answer
        ca_file: str | None,  # a file of certificates to trust instead of the system's
        *,
        method: str = "POST",
        compress: str = "none",  # `gzip` or `none`
        path: str = "",  # added to the URL
    ) -> None:
        if compress not in {"gzip", "none"}:
            raise ValueError(f"compress must be 'gzip' or 'none', not {compress!r}")
        self._compresses = compress == "gzip"
        self._path = path
        self._url, self._headers, self._method = url, dict(headers or {}), method
        self._timeout = require_positive("timeout", timeout)
        try:
            self._tls = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"ca_file {ca_file!r} cannot be read: {error}") from None
        self._redacted = Redactor()
        self._connection: Any = None
        self._connected: tuple[str, str] = ("", "")  # scheme and address of the connection
        if isinstance(url, str):
            _check_url(self._whole(url))
        for name, value in self._headers.items():
            if not _HEADER.fullmatch(name):
                raise ValueError(f"headers: {name!r} is not the name of a header: use ASCII letters, digits and -")
            if isinstance(value, str):
                _value(f"the header {name}", value)

    def send(self, body: bytes, headers: Mapping[str, str], *, longest: int = _LONGEST_ANSWER) -> bytes:
        """Send a request, and return the beginning of a successful answer, at most `longest` bytes.

        Raises RefusedError if the server refuses it, and Retry without an answer, or if another attempt may succeed.
        """
        if self._compresses:
            body, headers = gzip.compress(body, 6, mtime=0), {**headers, "content-encoding": "gzip"}
        try:
            with deadline(self._timeout), closing(self._request(body, headers)) as response:
                data = b""
                with suppress(TimeoutError):  # a cut body is enough: the status is known
                    while piece := response.read(min(_PIECE, longest - len(data))):
                        data += piece
                reusable = response.isclosed() and not response.will_close
        except (HTTPException, OSError, ValueError) as error:
            self.close()
            raise Retry(f"{self}: {self._redacted(format_error(error))}") from None
        if not reusable:
            self.close()
        self._raise_for_status(response.status, dict(response.getheaders()), data)
        return data

    def _request(self, body: bytes, headers: Mapping[str, str]) -> HTTPResponse:
        url = self._whole(_value("the URL", self._url))
        own = {name: _value(f"the header {name}", value) for name, value in self._headers.items()}
        self._redacted = Redactor(_secrets(url, own))
        parts = _check_url(url)
        defaults = {"user-agent": f"kevents/{__version__}", "accept": "*/*", "accept-encoding": "identity"}
        merged = {**defaults, **headers, **{name.lower(): value for name, value in own.items()}}
        target = quote(f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", safe=string.punctuation)
        connection = self._connect(parts)
        with suppress(BrokenPipeError, ConnectionResetError):  # a server may refuse a long body before it has read it
            connection.request(self._method, target, body, {name: value.encode() for name, value in merged.items()})
        response: HTTPResponse = connection.getresponse()
        return response

    def _connect(self, parts: SplitResult) -> Any:  # noqa: ANN401 - a guarded connection
        from urllib3.util.wait import wait_for_read  # noqa: PLC0415 - a dependency of the client

        where = parts.scheme, parts.netloc
        sock = self._connection.sock if where == self._connected else None
        if sock is None or wait_for_read(sock, timeout=0.0):  # an idle connection is readable once it was closed
            self.close()
            options = {"context": self._tls} if parts.scheme == "https" else {}
            timeout = min(self._timeout, _LONGEST_CONNECT)
            self._connection = _CONNECTIONS[parts.scheme](parts.hostname, parts.port, timeout=timeout, **options)
            self._connection.connect()
            self._connection.sock.settimeout(None)  # the deadline decides
            self._connected = where
        return self._connection

    def _raise_for_status(self, code: int, headers: Mapping[str, str], data: bytes) -> None:
        if code in range(200, 300):
            return
        why = f"{self}: {code} {self.quote(data)}".rstrip()
        if code in _REDIRECTS:
            location = next((value for name, value in headers.items() if name.lower() == "location"), "")
            target = _origin(location) or "another path of the same server"
            raise Retry(f"{self}: {code}, a redirect to {target}, which is not followed: configure the final URL")
        if code in _WRONG_ENDPOINT:
            raise Retry(f"{why} (the URL or the credentials are wrong; once corrected, the export continues by itself)")
        if code in _LATER or code >= _SERVER_ERROR or code < 200:  # noqa: PLR2004
            raise Retry(why, retry_after(headers, None))
        raise RefusedError(why, data)

    def quote(self, text: str | bytes) -> str:
        """Return a server's text as one short line without secrets: it may repeat the request."""
        return clip(self._redacted(text if isinstance(text, str) else text.decode("utf-8", "replace")), _LONGEST_QUOTE)

    def close(self) -> None:
        connection, self._connection, self._connected = self._connection, None, ("", "")
        if connection is not None:
            connection.close()

    def _whole(self, url: str) -> str:
        if self._path and ("?" in url or "#" in url):
            raise ValueError("the URL must be the base address, without ? and #")
        return f"{url.strip().rstrip('/')}{self._path}" if self._path else url

    def __str__(self) -> str:
        return (_origin(self._url) if isinstance(self._url, str) else "") or "the server"


def _value(what: str, value: Text) -> str:
    try:
        found = value if isinstance(value, str) else value()
    except Exception as error:  # noqa: BLE001 - the user's function; its text may hold the secret
        raise ValueError(f"{what} is not available: {type(error).__name__}") from None
    if not isinstance(found, str) or any(character in found.strip() for character in "\r\n\0"):
        raise ValueError(f"{what} is not a text of one line")
    return found.strip()


def _secrets(url: str, headers: Mapping[str, str]) -> list[str]:
    parts = urlsplit(url)
    long = [part for part in parts.path.split("/") if len(part) >= _SHORTEST_SECRET]
    values = [value for name, value in headers.items() if name.lower() not in _PUBLIC_HEADERS]
    return [url, parts.path, parts.query, *long, *values, *(word for value in values for word in value.split())]


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.scheme and parts.hostname else ""


def _check_url(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text may hold a secret
        raise ValueError("the URL has an invalid host or port: https://host/... or https://host:port/...") from None
    if parts.scheme not in _CONNECTIONS or not host:
        what = "without a host" if parts.scheme in _CONNECTIONS else repr(parts.scheme)
        raise ValueError(f"the URL must be https://host/..., not {what}")
    if parts.username or parts.password:
        raise ValueError(f"{_origin(url)}: credentials do not belong in the URL: set a header Authorization")
    return parts


class HttpSink(SinkWithoutPosition, ABC):
    """Base class of sinks that send a batch as one or more requests. They hold no position.

    A refused request is halved until the refused records are found, unless `_halves` is False. When the same batch is
    written again after a failure, the sink continues where it stopped.
    """

    _halves = True

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._key: tuple[Position, int, str] | None = None  # of the batch
        self._parts: list[Sequence[Record]] = []  # not answered yet, the next one last
        self._refused: list[Record] = []
        self._why = ""
        self._refusals = 0

    def write(self, batch: Batch) -> None:
        """Send a batch; the server has accepted it when this returns. Raises Retry and Reject with their records."""
        if not batch.records:
            return
        key = (batch.position, len(batch.records), batch.records[0].id)
        if key != self._key:
            self._key, self._parts = key, [*self._split(batch.records)][::-1]
            self._refused, self._why, self._refusals = [], "", 0
        try:
            while self._parts:
                self._parts[-1:] = self._send_or_halve(self._parts[-1])
        except Retry as error:
            error.pending = [*self._refused, *(record for part in self._parts for record in part)]
            raise
        refused, self._key = self._refused, None
        if refused:
            raise Reject(self._why, refused)

    def _send_or_halve(self, part: Sequence[Record]) -> list[Sequence[Record]]:
        """Send a part; return the halves of a refused one, the first half last."""
        try:
            self._send(part)
        except RefusedError as error:
            self._refusals += 1
            if self._halves and len(part) > 1 and self._refusals < MOST_REFUSALS:
                middle = len(part) // 2
                return [part[middle:], part[:middle]]
            self._refuse(part, str(error))
        return []

    def _refuse(self, records: Sequence[Record], why: str) -> None:
        """Reject these records once the whole batch is sent."""
        self._refused.extend(records)
        self._why = why

    def _split(self, records: Sequence[Record]) -> Iterable[Sequence[Record]]:
        """Split the records of a batch into those of each request; by default one request."""
        return [records]

    @abstractmethod
    def _send(self, records: Sequence[Record]) -> None:
        """Send one request; raises `RefusedError` and `Retry` as the endpoint does."""

    def close(self) -> None:
        """Close the connection."""
        self._endpoint.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._endpoint)!r})"
