"""One HTTP request at a time to one place: no redirects, no secrets in errors, bounded answers."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

from kevents import __version__
from kevents._model.validation import require_positive
from kevents._model.wire import clip, format_error
from kevents._queue.outcome import retry_after
from kevents.export._model.types import Batch, Position, Record, Reject, Retry
from kevents.export._sinks.redact import Redactor

if TYPE_CHECKING:
    import httpx


Text: TypeAlias = str | Callable[[], str]
"""A text, or a function that gives it: asked for each request, so that a renewed secret is found."""

_MOST_READ: Final = 1 << 16
_TOLD: Final = 300
_TELLING: Final = 8  # shorter parts of a path are words
_LONGEST_CONNECT: Final = 10.0
_REDIRECTS: Final = range(300, 400)
_ABOUT_THE_PLACE: Final = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 415, 421, 426, 451})
_LATER: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_HARMLESS: Final = frozenset({"content-type", "content-encoding", "accept", "user-agent"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A success.

    Attributes:
        body: Up to 64 KiB of it.
    """

    body: bytes


class RefusedError(Exception):
    """The server will never take what was sent: another part of it, it may."""


class Place:
    """Where requests go.

    Args:
        url: `https://...`; all of it but scheme and host is a secret.
        headers: Further headers; their values are secrets.
        timeout: Seconds to send, and seconds without a byte of the answer.
        ca_file: A file of certificates to trust instead of the system's.
        method: Of the request.

    Raises:
        ValueError: If a value is none.
        ImportError: If httpx is missing.
    """

    def __init__(
        self, url: Text, headers: Mapping[str, Text] | None, timeout: float, ca_file: str | None, method: str = "POST"
    ) -> None:
        """Check what was given; connect to nothing."""
        _needs_httpx()
        self._url, self._headers, self._method = url, dict(headers or {}), method
        self._timeout = require_positive("timeout", timeout)
        self._tls = _tls(ca_file)
        self._redacted = Redactor(())
        self._transport: httpx.HTTPTransport | None = None
        if isinstance(url, str):
            _check_url(url)
        _check_headers(self._headers)

    def send(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Make a request.

        Raises:
            RefusedError: If what was sent is refused.
            Retry: If there was no answer, or one that another attempt may better.
        """
        import httpx  # noqa: PLC0415 - an optional package

        try:
            request = self._request(body, headers)
            self._transport = self._transport or httpx.HTTPTransport(verify=self._tls, trust_env=False)
            response = self._transport.handle_request(request)
            try:
                data = self._read(response)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError, OSError, ValueError) as error:
            raise Retry(f"{self}: {self._redacted(format_error(error))}") from None
        return self._judged(response, data)

    def _request(self, body: bytes, headers: Mapping[str, str]) -> httpx.Request:
        import httpx  # noqa: PLC0415 - an optional package

        url = _value("the URL", self._url)
        own = {name: _value(f"the header {name}", value) for name, value in self._headers.items()}
        self._redacted = Redactor(_secrets(url, own))
        _check_url(url)
        usual = {"user-agent": f"kevents/{__version__}", "accept": "*/*", "accept-encoding": "identity"}
        merged = {**usual, **headers, **{name.lower(): value for name, value in own.items()}}
        seconds = {"connect": min(self._timeout, _LONGEST_CONNECT), "pool": self._timeout}
        return httpx.Request(
            self._method,
            url,
            content=body,
            headers=[(name.encode("ascii"), value.encode()) for name, value in merged.items()],
            extensions={"timeout": {**seconds, "read": self._timeout, "write": self._timeout}},
        )

    def _read(self, response: httpx.Response) -> bytes:
        """Read an answer up to a limit of bytes and time: the status has been told already."""
        data, deadline = b"", monotonic() + self._timeout
        for piece in response.iter_raw():
            data += piece
            if len(data) >= _MOST_READ or monotonic() > deadline:
                break
        return data[:_MOST_READ]

    def _judged(self, response: httpx.Response, data: bytes) -> Answer:
        code = response.status_code
        if code in range(200, 300):
            return Answer(data)
        why = f"{self}: {code} {self.said(data.decode('utf-8', 'replace'))}".rstrip()
        if code in _REDIRECTS:
            target = _origin(response.headers.get("location", "")) or "elsewhere in the same place"
            raise Retry(f"{self}: {code}, a redirect to {target}, which is not followed: give the URL that it leads to")
        if code in _ABOUT_THE_PLACE:
            raise Retry(f"{why} (the URL or the credentials are wrong: set right, it goes on by itself)")
        if code in _LATER or code >= _SERVER_ERROR or code < 200:  # noqa: PLR2004
            raise Retry(why, retry_after(dict(response.headers), None))
        raise RefusedError(why)

    def said(self, text: str) -> str:
        """Give what the server said, which may be what it was sent: one short line, without secrets."""
        return clip(self._redacted(text), _TOLD)

    def close(self) -> None:
        """Let go of the connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def __str__(self) -> str:
        """Scheme and host."""
        return (_origin(self._url) if isinstance(self._url, str) else "") or "the server"

    def __repr__(self) -> str:
        """With scheme and host only."""
        return f"{type(self).__name__}({str(self)!r})"


def _value(what: str, value: Text) -> str:
    try:
        found = value if isinstance(value, str) else value()
    except Exception as error:  # noqa: BLE001 - the user's function; its text may hold the secret
        raise ValueError(f"{what} cannot be had: {type(error).__name__}") from None
    if not isinstance(found, str) or any(character in found.strip() for character in "\r\n\0"):
        raise ValueError(f"{what} is no text of one line")
    return found.strip()


def _secrets(url: str, headers: Mapping[str, str]) -> list[str]:
    parts = urlsplit(url)
    told = [url, parts.path, parts.query, *(part for part in parts.path.split("/") if len(part) >= _TELLING)]
    values = [value for name, value in headers.items() if name.lower() not in _HARMLESS]
    return [*told, *values, *(word for value in values for word in value.split())]


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.hostname}{port}" if parts.scheme and parts.hostname else ""


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text may hold what is secret
        raise ValueError(
            "the URL has a host or a port that is none: it must be https://host/... or with :port"
        ) from None
    if parts.scheme not in {"http", "https"} or not host:
        what = "without a host" if parts.scheme in {"http", "https"} else repr(parts.scheme)
        raise ValueError(f"the URL must be https://host/..., not {what}")
    if parts.username or parts.password:
        raise ValueError(f"{_origin(url)}: credentials do not belong into the URL: give a header Authorization")


def _check_headers(headers: Mapping[str, Text]) -> None:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"headers: {name!r} is no name of a header: letters, digits and - of ASCII")
        if isinstance(value, str):
            _value(f"the header {name}", value)


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"ca_file {ca_file!r} cannot be read: {error}") from None


def _needs_httpx() -> None:
    try:
        import httpx  # noqa: F401, PLC0415 - an optional package
    except ImportError as missing:
        raise ImportError(f"this destination needs httpx: pip install 'kevents[export]' ({missing})") from missing


MOST_REQUESTS: Final = 64
"""How many requests narrowing down costs at most, for a batch; what is left then is refused as a whole."""

_Key: TypeAlias = tuple[Position, int, str]


class Delivery:
    """The batch that is under way: which of its records the destination has answered for.

    An attempt that fails in the middle is gone on with, not begun anew, when the same batch comes again.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._key: _Key | None = None
        self._parts: list[Sequence[Record]] = []
        self._refused: list[Record] = []
        self._why = ""
        self._requests = 0

    def run(
        self,
        batch: Batch,
        parts: Callable[[Sequence[Record]], Iterable[Sequence[Record]]],
        send: Callable[[Sequence[Record]], None],
    ) -> None:
        """Send a batch part by part.

        Args:
            batch: What is to be sent.
            parts: Cuts it into what is sent at once.
            send: Sends a part.

        Raises:
            Retry: As `send` does.
            Reject: Some of it was refused; everything else has been taken.
        """
        if not batch.records:
            return
        key = (batch.position, len(batch.records), batch.records[0].id)
        if key != self._key:
            self._key, self._parts = key, [*parts(batch.records)][::-1]
            self._refused, self._why, self._requests = [], "", 0
        while self._parts:
            self._send(self._parts[-1], send)
        refused, self._key = self._refused, None
        if refused:
            raise Reject(self._why, refused)

    def _send(self, part: Sequence[Record], send: Callable[[Sequence[Record]], None]) -> None:
        """Send the last part; one that is refused is halved, the earlier half first."""
        rest: list[Sequence[Record]] = []
        try:
            send(part)
        except RefusedError as error:
            self._why = str(error)
            self._requests += 1
            if len(part) > 1 and self._requests < MOST_REQUESTS:
                middle = len(part) // 2
                rest = [part[middle:], part[:middle]]
            else:
                self._refused.extend(part)
        self._parts[-1:] = rest
