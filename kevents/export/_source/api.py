"""GET requests to the API server."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

import msgspec

from kevents._clients.client import AccessSource
from kevents._clients.errors import format_redacted, status_error
from kevents._queue.outcome import retry_after
from kevents.exceptions import UnavailableError
from kevents.export._model.types import value_at
from kevents.export._source.response_stream import GoneError, ResponseStream

JSON: Final = "application/json"

_USER_AGENT: Final = "kevents-export"
_MAX_BODY: Final = 16 << 20
_MAX_PAGE: Final = 64 << 20
_MAX_ERROR_BODY: Final = 64 << 10
_CONNECT_TIMEOUT: Final = 5.0
_TIMEOUT: Final = (_CONNECT_TIMEOUT, 15.0)
_WATCH_SLACK: Final = 15.0  # seconds that a watch may be silent after the time at which the server should have ended it


class NoAnswerError(UnavailableError):
    """The server did not answer, or not completely."""

    def __init__(self, why: str, host: str = "", *, accepted: bool = False) -> None:
        super().__init__(why)
        self.host = host  # the server's address, without credentials
        self.accepted = accepted


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read completely."""

    status: int  # the HTTP status
    body: bytes
    retry_after: float | None = None  # seconds of `Retry-After`; None without one


class ApiReader:
    """Makes GET requests, each with its own media type. Several threads may use one reader.

    Redirects are never followed and nothing is retried. `api` is as for `AccessSource`.
    """

    def __init__(self, api: object = None) -> None:
        import urllib3  # noqa: PLC0415 - a dependency of the client

        self._urllib3: Any = urllib3
        self._source = AccessSource(api)
        self._from_environment = api is None

    def check(self) -> None:
        """Raise UnavailableError if no api was given and the environment has no configuration; make no request."""
        if self._from_environment:
            self._source.access()

    def get(self, path: str, accept: str, timeout: float) -> Answer:
        """Make one request and read the answer.

        Raises NoAnswerError if there was none, or it ended early or is longer than 16 MiB, and UnavailableError while
        there are no credentials.
        """
        with closing(self.open(path, accept, (timeout, timeout))) as stream:
            try:
                return Answer(stream.status, stream.read_all(_MAX_BODY), retry_after(stream.headers, None))
            except UnavailableError as error:
                raise NoAnswerError(f"{path}: {error}", accepted=True) from None

    def open(self, path: str, accept: str, timeout: tuple[float, float], *, live: bool = False) -> ResponseStream:
        """Make one request and return the answer unread, whatever its status. Raises NoAnswerError without one."""
        access = self._source.access()
        try:
            headers = {**access.headers(), "Accept": accept}
            headers.setdefault("User-Agent", _USER_AGENT)
            response = access.pool.request(
                "GET",
                access.host + path,
                headers=headers,
                timeout=self._urllib3.Timeout(connect=timeout[0], read=timeout[1]),  # the first positional is a total
                retries=False,
                redirect=False,  # an API server redirects no request, and credentials must not follow one
                preload_content=False,
            )
        except (self._urllib3.exceptions.HTTPError, OSError) as error:
            accepted = isinstance(error, self._urllib3.exceptions.ReadTimeoutError)
            host = re.sub(r"//[^/\s]*@", "//", access.host)  # without credentials
            raise NoAnswerError(format_redacted(error), host, accepted=accepted) from None
        except Exception as error:  # noqa: BLE001 - the user's code may be asked for credentials
            raise UnavailableError(format_redacted(error)) from None
        if response.status == HTTPStatus.UNAUTHORIZED:
            self._source.renew(access)
        return ResponseStream(response, live=live)


def events_path(scope: str) -> str:
    """Return the path of the events of a namespace; of all namespaces, if it is empty."""
    return f"/api/v1/namespaces/{quote(scope, safe='')}/events" if scope else "/api/v1/events"


class ListWatch:
    """The requests of a list and its watch; one thread makes them, any thread may end them (client-go: ListWatch)."""

    def __init__(self, reader: ApiReader, path: str) -> None:
        self._reader = reader
        self._path = path  # of the objects
        self._lock = threading.Lock()  # guards the two below
        self._stream: ResponseStream | None = None
        self._ended = False

    def page(self, limit: int, token: str = "") -> bytes:
        """Return one page of the list.

        Raises TooLargeError beyond 64 MiB, GoneError if the server no longer knows the token, StatusError if it
        refuses, and UnavailableError without a complete answer.
        """
        more = f"&continue={quote(token, safe='')}" if token else ""
        with self._opened(f"{self._path}?limit={limit}{more}", _TIMEOUT) as stream:
            return stream.read_all(_MAX_PAGE)

    @contextmanager
    def watch(self, version: str, seconds: int, *, bookmarks: bool = False) -> Iterator[ResponseStream]:
        """Open a watch, which the server ends after ``seconds``. Raises GoneError if the version is too old."""
        query = f"?watch=true&resourceVersion={quote(version, safe='')}&timeoutSeconds={seconds}"
        query += "&allowWatchBookmarks=true" if bookmarks else ""
        timeout = (_CONNECT_TIMEOUT, seconds + _WATCH_SLACK)
        with self._opened(self._path + query, timeout, live=True) as stream:
            yield stream

    def cluster(self) -> str:
        """Return the UID of the namespace kube-system, which identifies a cluster for its whole life."""
        with self._opened("/api/v1/namespaces/kube-system", _TIMEOUT) as stream:
            body = stream.read_all(_MAX_PAGE)
        try:
            uid = value_at(msgspec.json.decode(body), "metadata", "uid")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnavailableError(f"the answer is not from an API server: {error}") from None
        if not isinstance(uid, str) or not uid:
            raise UnavailableError("the answer is not from an API server: the namespace kube-system has no uid")
        return uid

    def end(self) -> None:
        """End the request that is being read, and every later one, at once."""
        with self._lock:
            self._ended = True
            if self._stream is not None:
                self._stream.end()

    @contextmanager
    def _opened(self, path: str, timeout: tuple[float, float], *, live: bool = False) -> Iterator[ResponseStream]:
        with closing(self._reader.open(path, JSON, timeout, live=live)) as stream:
            if stream.status != HTTPStatus.OK:
                body, headers = stream.read_start(_MAX_ERROR_BODY), stream.headers
                answer = SimpleNamespace(status=stream.status, reason=stream.reason, body=body, headers=headers)
                raise GoneError(str(status_error(answer))) if stream.status == HTTPStatus.GONE else status_error(answer)
            self._hold(stream)
            try:
                yield stream
            finally:
                self._hold(None)

    def _hold(self, stream: ResponseStream | None) -> None:
        """Remember the stream that is being read, so that `end` can end it."""
        with self._lock:
            self._stream = stream
            if stream is not None and self._ended:
                stream.end()
