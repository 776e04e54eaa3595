"""The requests of a source, through the official client: a page of events, a watch of them, and who the cluster is."""

from __future__ import annotations

import re
import threading
from typing import Any, Final

import msgspec

from kevents._clients.sync import ClientSource, format_redacted, status_error
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._source.response_stream import ResponseStream

_GONE: Final = 410
_UNAUTHORIZED: Final = 401
_MOST_READ: Final = 1 << 26
_SLACK: Final = 15.0


class GoneError(Exception):
    """The server does not know the resourceVersion any more, or the page that was asked for."""


class NoAnswerError(UnavailableError):
    """Whoever was asked did not answer, or not to the end.

    Args:
        why: What became of the request.
        host: Who was asked, without credentials.
    """

    def __init__(self, why: str, host: str) -> None:
        """Keep both."""
        super().__init__(why)
        self.host = host


class _Metadata(msgspec.Struct):
    uid: str = ""


class _Namespace(msgspec.Struct):
    metadata: _Metadata


_NAMESPACE: Final = msgspec.json.Decoder(_Namespace)


class EventsApi:
    """Asks the API server; several threads may, each with a `Requests` of its own.

    Args:
        api: A ``CoreV1Api`` or ``ApiClient``, or a callable that gives one; None: what the environment says.
        timeout: Seconds to connect, and seconds without a byte of the answer.

    Raises:
        ImportError: If the official client is not installed.
        TypeError: If ``api`` is none of these.
    """

    def __init__(self, api: object = None, timeout: tuple[float, float] = (5.0, 15.0)) -> None:
        """Import the client; connect to nothing."""
        import kubernetes.client  # noqa: PLC0415 - the export's other rooms need not load it
        import kubernetes.config  # noqa: PLC0415
        import urllib3.exceptions  # noqa: PLC0415

        self.timeout = timeout
        self._source = ClientSource(api)
        self._from_environment = api is None
        self._refusal: type[Exception] = kubernetes.client.ApiException
        self._transport = (urllib3.exceptions.HTTPError, OSError)
        self._credentials = kubernetes.config.ConfigException

    def check(self) -> None:
        """Look for the environment's configuration if nothing else was given; no request is made.

        Raises:
            UnavailableError: If there is none.
        """
        if self._from_environment:
            self._source.api()

    def ask(self, method: str, *arguments: object, timeout: tuple[float, float], **options: object) -> Any:  # noqa: ANN401
        """Make a request, and give the response, its body unread.

        Raises:
            GoneError: 410.
            StatusError: Any other refusal.
            NoAnswerError: There was no answer.
            UnavailableError: There are no credentials.
        """
        api = self._source.api()
        try:
            return getattr(api, method)(*arguments, _preload_content=False, _request_timeout=timeout, **options)
        except self._refusal as error:
            raise self._refused(api, error) from None
        except self._transport as error:
            raise NoAnswerError(format_redacted(error), _host(api)) from None
        except self._credentials as error:
            raise UnavailableError(format_redacted(error)) from None
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error.__context__, self._refusal):  # the client 36 stumbles over what is no UTF-8
                raise self._refused(api, error.__context__) from None
            raise UnavailableError(format_redacted(error)) from None  # a header made of credentials with a line break

    def read(self, feed: ResponseStream, most: int | None = None) -> bytes:
        """Read what has come of an answer, or with `most` the whole of it.

        Raises:
            UnavailableError: The connection failed.
        """
        try:
            return feed.read() if most is None else feed.whole(most)
        except UnavailableError:
            raise
        except self._transport as error:
            raise UnavailableError(format_redacted(error)) from None
        except (ValueError, AttributeError) as error:  # a connection that was ended while it was read
            raise UnavailableError(format_redacted(error)) from None

    def _refused(self, api: object, error: Exception) -> Exception:
        refusal = status_error(error)
        if isinstance(refusal, StatusError):
            if refusal.code == _GONE:
                return GoneError(str(refusal))
            if refusal.code == _UNAUTHORIZED:
                self._source.renew(api)
            return refusal
        return NoAnswerError(str(refusal), _host(api))


def _host(api: object) -> str:
    """Whom an api asks; whatever else stands in the address is nobody's business."""
    client = getattr(api, "api_client", None)
    return re.sub(r"//[^/\s]*@", "//", str(getattr(getattr(client, "configuration", None), "host", "its address")))


class Requests:
    """One thread's requests, which any thread can end.

    Args:
        api: What asks.
        scope: The namespace whose events are asked for; empty: all.
    """

    def __init__(self, api: EventsApi, scope: str = "") -> None:
        """Ask for nothing yet."""
        self._api = api
        self._scope = scope
        self._lock = threading.Lock()
        self._feed: ResponseStream | None = None
        self._ended = False

    def page(self, limit: int, token: str = "") -> bytes:
        """Give a page of the list, as it came."""
        options: dict[str, object] = {"limit": limit}
        if token:
            options["_continue"] = token
        with self._open(self._events(self._api.timeout, options)) as feed:
            return self._api.read(feed, _MOST_READ)

    def watch(self, version: str, seconds: int) -> _Answer:
        """Begin a watch from a resourceVersion that the server ends after so many seconds; a context manager."""
        timeout = (self._api.timeout[0], seconds + _SLACK)
        options: dict[str, object] = {"watch": True, "resource_version": version, "timeout_seconds": seconds}
        return _Answer(self, ResponseStream(self._events(timeout, options), live=True))

    def read(self, feed: ResponseStream) -> bytes:
        """Wait for more of a watch; empty at its end."""
        return self._api.read(feed)

    def cluster(self) -> str:
        """Give the UID of the namespace kube-system, which a cluster keeps for its life.

        Raises:
            UnavailableError: What came is no namespace.
        """
        with self._open(self._api.ask("read_namespace", "kube-system", timeout=self._api.timeout)) as feed:
            body = self._api.read(feed, _MOST_READ)
        try:
            uid = _NAMESPACE.decode(body).metadata.uid
        except msgspec.DecodeError as error:
            raise UnavailableError(f"what answers is no API server: {error}") from None
        if not uid:
            raise UnavailableError("the namespace kube-system has no uid")
        return uid

    def end(self) -> None:
        """End what is being read, and whatever is begun later, at once."""
        with self._lock:
            self._ended = True
            if self._feed is not None:
                self._feed.end()

    def _events(self, timeout: tuple[float, float], options: dict[str, object]) -> Any:  # noqa: ANN401
        if self._scope:
            return self._api.ask("list_namespaced_event", self._scope, timeout=timeout, **options)
        return self._api.ask("list_event_for_all_namespaces", timeout=timeout, **options)

    def _open(self, response: Any) -> _Answer:  # noqa: ANN401
        return _Answer(self, ResponseStream(response))

    def hold(self, feed: ResponseStream | None) -> None:
        """Note what is being read, so that it can be ended."""
        with self._lock:
            self._feed = feed
            if feed is not None and self._ended:
                feed.end()


class _Answer:
    """An answer that is being read: ended with the thread's requests, closed with its block."""

    def __init__(self, requests: Requests, feed: ResponseStream) -> None:
        self._requests = requests
        self._feed = feed

    def __enter__(self) -> ResponseStream:
        """Note it."""
        self._requests.hold(self._feed)
        return self._feed

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self._requests.hold(None)
        self._feed.close()
