"""GET requests to the API server, in whatever form of answer is asked for."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from kevents._clients.sync import ClientSource, format_redacted
from kevents._queue.outcome import retry_after
from kevents.exceptions import UnavailableError

JSON: Final = "application/json"

_USER_AGENT = "kevents-export"
_MOST_READ = 16 << 20
_UNAUTHORIZED = 401
_OK = 200
_CONNECT_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered.

    Attributes:
        status: The HTTP status.
        body: What it sent.
        retry_after: For how many seconds it asks to be left alone, None if it does not.
    """

    status: int
    body: bytes
    retry_after: float | None = None


class UnansweredError(UnavailableError):
    """The server took the request, and did not answer in time: it may be this one that it cannot answer."""


class ApiReader:
    """Reads from an API server through the official client's connections and credentials.

    The client's typed methods have no say in the form of an answer, and `call_api` has another signature in each
    generation; its pool, its configuration and its authentication are the same in all (31 to 37).

    Args:
        api: A ``CoreV1Api`` or ``ApiClient``, or a callable that gives one; None: what the environment says.

    Raises:
        TypeError: If ``api`` is none of these.
        ImportError: If the official client is not installed.
    """

    def __init__(self, api: object = None) -> None:
        """Import the client; connect to nothing."""
        import urllib3  # noqa: PLC0415 - the client brings it

        self._urllib3: Any = urllib3
        self._source = ClientSource(api)

    def get(self, path: str, accept: str, timeout: float) -> Answer:
        """Make one request.

        Args:
            path: Path and query; names in it are quoted.
            accept: The form of the answer.
            timeout: Seconds to connect, and seconds without a byte of the answer.

        Raises:
            UnansweredError: The answer did not come, or not to its end.
            UnavailableError: The server could not be asked, or there are no credentials yet.
        """
        api = self._source.api()
        response = self._send(api, path, accept, (timeout, timeout))
        try:
            body = response.read(_MOST_READ + 1)
        except (self._urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            raise UnansweredError(format_redacted(error)) from None
        if len(body) > _MOST_READ:
            response.close()
            raise UnansweredError(f"the answer to {path} is longer than {_MOST_READ} bytes")
        response.release_conn()
        if response.status == _UNAUTHORIZED:
            self._source.renew(api)
        return Answer(response.status, body, _delay(response))

    def watch(self, path: str, timeout: float) -> Watch:
        """Open a watch.

        Args:
            path: Path and query.
            timeout: Seconds without a byte, after which the connection is taken for dead.

        Raises:
            UnavailableError: There was no answer, or none but an error: its text says which.
        """
        api = self._source.api()
        response = self._send(api, path, JSON, (_CONNECT_TIMEOUT, timeout))
        if response.status != _OK:
            with suppress(self._urllib3.exceptions.HTTPError, OSError):
                response.read(_MOST_READ)
            response.close()
            if response.status == _UNAUTHORIZED:
                self._source.renew(api)
            raise UnavailableError(f"a watch was answered with {response.status}", retry_after=_delay(response))
        return Watch(response, self._urllib3.exceptions.HTTPError)

    def _send(self, api: Any, path: str, accept: str, timeout: tuple[float, float]) -> Any:  # noqa: ANN401
        try:
            client = api.api_client
            pool, configuration = client.rest_client.pool_manager, client.configuration
            headers = {**client.default_headers, **_credentials(configuration), "Accept": accept}
            headers.setdefault("User-Agent", _USER_AGENT)
            return pool.request(
                "GET",
                configuration.host + path,
                headers=headers,
                timeout=self._urllib3.Timeout(*timeout),
                retries=False,
                redirect=False,  # an API server sends nobody elsewhere, least of all with credentials
                preload_content=False,
            )
        except self._urllib3.exceptions.ReadTimeoutError as error:
            raise UnansweredError(format_redacted(error)) from None
        except Exception as error:  # noqa: BLE001 - of the transport, or of whatever makes credentials
            raise UnavailableError(format_redacted(error)) from None


class Watch:
    """An answer that does not end: lines as they come; one thread reads, any may close.

    Args:
        response: Of urllib3, not yet read.
        http_error: The root of urllib3's errors.
    """

    def __init__(self, response: Any, http_error: type[Exception]) -> None:  # noqa: ANN401
        """Take the response."""
        self._response = response
        self._http_error = http_error
        self._socket = getattr(getattr(response, "connection", None), "sock", None)

    def lines(self) -> Iterator[bytes]:
        """Give each line without its end, until the server ends the watch.

        Raises:
            UnavailableError: The connection broke, or was closed here.
        """
        rest = b""
        try:
            for part in self._response.stream(1 << 16, decode_content=True):
                *whole, rest = (rest + part).split(b"\n")
                if len(rest) > _MOST_READ:
                    raise UnavailableError(f"a line of a watch is longer than {_MOST_READ} bytes")
                yield from whole
        except (self._http_error, OSError, ValueError, AttributeError) as error:  # the last two: closed meanwhile
            raise UnavailableError(format_redacted(error)) from None
        finally:
            self._response.close()

    def close(self) -> None:
        """Wake who reads: the connection ends."""
        if self._socket is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # of TLS too: its reader keeps what it needs


def _credentials(configuration: Any) -> dict[str, str]:  # noqa: ANN401
    """The headers that authenticate; asking for them renews a token that is too old."""
    settings: Mapping[str, Mapping[str, str]] = configuration.auth_settings()
    return {each["key"]: each["value"] for each in settings.values() if each["in"] == "header" and each["value"]}


def _delay(response: Any) -> float | None:  # noqa: ANN401
    return retry_after(dict(response.headers), None)
