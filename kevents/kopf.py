"""Recorder for operators written with kopf, installed with one line.

An operator::

    import kevents.kopf

    recorder = kevents.kopf.install("widget-operator")


    @kopf.on.update("widgets")
    def update(body, **_):
        recorder.warn(body, "UpdateFailed", "the bucket is gone")

The recorder never blocks and never raises. It works in sync and async handlers, daemons, timers and other threads,
before kopf has logged in and in cleanup handlers. kopf's own posting stays as it is unless ``silence_kopf`` is set.
"""

from __future__ import annotations

import builtins
import json
import logging
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from copy import copy
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from urllib.parse import quote, urlsplit

from kevents._clients.sync import UNCONFIGURED_HOSTS, CoreV1EventSink
from kevents._clients.transport import Transport, api_error, format_redacted, guarded_manager
from kevents._model.objects import Json
from kevents._model.validation import how_to_install
from kevents.exceptions import UnavailableError

if TYPE_CHECKING:
    from types import ModuleType

try:
    import kopf
except ImportError as missing:
    raise ImportError(f"kevents.kopf needs kopf: {how_to_install('kopf')} ({missing})") from missing

from kevents._broadcast.broadcaster import EventBroadcaster
from kevents._broadcast.recorder import EventRecorder, Formatted, Texts, default_host, never_raises
from kevents._model.objects import EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING, AnyEventType, EventSource
from kevents._model.wire import format_error, require_frames
from kevents._runtime.aio import run_in_thread
from kevents.exceptions import InvalidReferenceError

__all__ = ["KopfRecorder", "install"]

DRAIN_TIMEOUT: Final = 10.0
"""Seconds for the cleanup handler, less than a pod's grace period of 30."""

Info = TypeVar("Info")

_SEVERAL: Final = (Sequence, AbstractSet, ValuesView, Iterator, kopf.Store)

_numbers: Final = count(1)


def install(
    component: str,
    *,
    broadcaster: EventBroadcaster | None = None,
    registry: kopf.OperatorRegistry | None = None,
    silence_kopf: bool = False,
) -> KopfRecorder:
    """Return a recorder, and deliver pending events in a cleanup handler of kopf.

    kopf runs cleanup handlers in the order of their registration. This one is registered at startup, after those of
    your modules, so that the events they record are delivered too.

    Args:
        component: The component of the events' source; its host is the pod's name.
        broadcaster: A broadcaster with your options; a sink is started on it here.
        registry: kopf's registry; None: the default one, as for ``@kopf.on``.
        silence_kopf: Switch off kopf's own posting of events (``settings.posting.enabled``).

    Raises:
        TypeError: If ``broadcaster`` is no broadcaster, or ``component`` is not a text.

    .. versionadded:: 0.1
    """
    recorder = KopfRecorder(component, broadcaster)
    handlers = kopf.get_default_registry() if registry is None else registry
    number = next(_numbers)  # kopf runs only one handler for each id
    started = False

    async def start(settings: kopf.OperatorSettings, **_: object) -> None:
        nonlocal started
        if silence_kopf:
            settings.posting.enabled = False
        if not started:
            kopf.on.cleanup(id=f"kevents-cleanup-{number}", registry=handlers)(drain)
        started = True

    async def drain(**_: object) -> None:
        await recorder.cleanup()

    kopf.on.startup(id=f"kevents-startup-{number}", registry=handlers)(start)
    return recorder


class KopfRecorder(EventRecorder):
    """Records events about kopf's bodies and other objects, one object or several at once.

    An :class:`~kevents.EventRecorder` with kopf's methods. :func:`install` builds one. To write the cleanup handler
    yourself, build it directly and await :meth:`cleanup` in the handler. Events wait until kopf has logged in, unless
    the program has loaded a configuration into the official client. No other identity is ever used.

    Args:
        component: The component of the events' source; its host is the pod's name.
        broadcaster: A broadcaster with your options. A sink is started on it here and shared by all its recorders.

    Raises:
        TypeError: If ``broadcaster`` is no broadcaster, or ``component`` is not a text.

    .. versionadded:: 0.1
    """

    __slots__ = ("_login", "broadcaster")

    def __init__(self, component: str, broadcaster: EventBroadcaster | None = None) -> None:
        """Start a sink that connects once kopf has logged in."""
        broadcaster = EventBroadcaster() if broadcaster is None else broadcaster
        if not isinstance(broadcaster, EventBroadcaster):
            raise TypeError(f"broadcaster must be a kevents.EventBroadcaster, not {broadcaster!r}")
        plain = broadcaster.new_recorder(EventSource(component, default_host()))
        super().__init__(plain.source, plain._publisher)  # noqa: SLF001 - a recorder of the same kind
        self.broadcaster: Final = broadcaster
        self._login = _sink_of(broadcaster).login

    # -- recording -----------------------------------------------------------------------------------------------

    @never_raises
    def event(
        self,
        object: object,  # noqa: A002 - client-go's name
        eventtype: AnyEventType | None = None,
        reason: str = "",
        message: object = "",
        *,
        type: AnyEventType | None = None,  # noqa: A002 - kopf's name
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
        backoffs: object = None,  # noqa: ARG002 - kopf's name
    ) -> None:
        """Record an event, or one for each object of a list or another iterable (kopf: ``kopf.event``).

        Args:
            object: The object or objects of the event.
            eventtype: ``Normal`` or ``Warning``.
            reason: As of :meth:`kevents.EventRecorder.event`, like the arguments that are not listed here.
            message: As there.
            type: kopf's name of ``eventtype``.
            annotations: As there.
            labels: As there.
            related: As there.
            action: As there.
            backoffs: Accepted because ``kopf.event`` has it; without effect, because the work queue retries.
        """
        eventtype = cast("AnyEventType", type if eventtype is None else eventtype)
        try:
            objects = list(_each(object))
        except Exception as error:  # noqa: BLE001 - the caller's iterable may raise anything
            require_frames(error)
            trouble = InvalidReferenceError(f"cannot iterate over the objects: {format_error(error)}")
            self._publisher.refuse(trouble, self._known_event(trouble, None, eventtype, reason, message), self._logger)
            return
        for each in objects:
            super().event(
                each, eventtype, reason, message, annotations=annotations, labels=labels, related=related, action=action
            )

    _record = event

    def info(self, object: object, reason: str, message: object = "", *, backoffs: object = None) -> None:  # noqa: A002, ARG002
        """Record a ``Normal`` event (kopf: ``kopf.info``)."""
        self.event(object, EVENT_TYPE_NORMAL, reason, message)

    def warn(self, object: object, reason: str, message: object = "", *, backoffs: object = None) -> None:  # noqa: A002, ARG002
        """Record a ``Warning`` event (kopf: ``kopf.warn``)."""
        self.event(object, EVENT_TYPE_WARNING, reason, message)

    @never_raises
    def exception(
        self,
        object: object,  # noqa: A002
        reason: str = "",
        error: BaseException | None = None,
        *,
        message: object = "",
        exc: BaseException | None = None,
        backoffs: object = None,  # noqa: ARG002
    ) -> None:
        """Record an error as a ``Warning`` event (kopf: ``kopf.exception``).

        Args:
            object: The object or objects of the event.
            reason: Default the error's type.
            error: Default the exception that is being handled.
            message: Text before the error's text.
            exc: kopf's name of ``error``.
            backoffs: As of :meth:`event`.
        """
        error = error or exc or sys.exc_info()[1]
        if error is not None:
            text = format_error(error)
            message = text if _is_missing(message) else Formatted("%s %s", (message, text))
        if _is_missing(reason):
            reason = "Error" if error is None else builtins.type(error).__name__
        self.event(object, EVENT_TYPE_WARNING, reason, message)

    def with_logger(self, logger: logging.Logger) -> KopfRecorder:
        """Return the same recorder with another logger for refused events (client-go: ``WithLogger``)."""
        other = copy(self)
        other._logger = logger  # noqa: SLF001 - a copy of itself
        return other

    # -- life cycle of the operator ------------------------------------------------------------------------------

    async def cleanup(self, timeout: float = DRAIN_TIMEOUT) -> bool:
        """Deliver pending events, outside the event loop; False if that takes longer than ``timeout``.

        For cleanup handlers. The broadcaster stays open, because later cleanup handlers may record; those events are
        delivered at interpreter exit. Without a login it returns at once, because kopf no longer logs in.

        Args:
            timeout: Seconds.
        """
        patience = timeout if self._login.is_there() else 0.0
        return await run_in_thread("kevents-cleanup", self._flush, monotonic() + patience)

    def _flush(self, deadline: float | None) -> bool:
        return self.broadcaster.flush(None if deadline is None else deadline - monotonic())

    def logged_in(self, info: Info) -> Info:
        """Record with the credentials of your own login handler, from each login on.

        .. code-block:: python

            @kopf.on.login()
            def login(**kwargs):
                return recorder.logged_in(kopf.login_with_service_account(**kwargs))

        Args:
            info: The ``kopf.ConnectionInfo`` that the handler returns, or None.

        Returns:
            ``info``, unchanged.
        """
        self._login.keep(info)
        return info


def _is_missing(text: object) -> bool:
    """True for None and empty text. Does not call methods of the text's class, which may raise."""
    return text is None or (issubclass(type(text), str) and not str.__len__(cast("str", text)))


def _each(objects: object) -> Iterator[object]:
    """Yield one object, or each object of nested sequences. Mappings and models count as one object."""
    if isinstance(objects, str | bytes) or not isinstance(objects, _SEVERAL):
        yield objects
    else:
        for each in objects:
            yield from _each(each)


def _sink_of(broadcaster: EventBroadcaster) -> LoginSink:
    """Return the broadcaster's sink for kopf. All its recorders share it, else each event would be sent twice."""
    for watcher in broadcaster._publisher.watchers:  # noqa: SLF001 - there is no public list of watchers
        if isinstance(watcher.handler.sink, LoginSink):
            return watcher.handler.sink
    sink = LoginSink()
    broadcaster.start_recording_to_sink(sink)
    return sink


_NOT_LOGGED_IN: Final = (
    "kopf has not logged in yet; if its login handler is your own, let that return recorder.logged_in(...)"
)
_CONNECTIONS: Final = 16

_log: Final = logging.getLogger("kevents")


class Login:
    """kopf's credentials: the connection of a login handler, else the client's loaded configuration."""

    def __init__(self) -> None:
        """Not logged in yet."""
        self.info: kopf.ConnectionInfo | None = None

    def keep(self, info: object) -> None:
        """Keep the result of a login handler, None if it had no credentials."""
        if isinstance(info, kopf.ConnectionInfo):
            self.info = info
        elif info is not None:
            _log.error("cannot send events with a %s: log in with a kopf.ConnectionInfo", type(info).__name__)

    def is_there(self) -> bool:
        """True if there are credentials."""
        return self.info is not None or _configuration().host not in UNCONFIGURED_HOSTS

    def api(self) -> object:
        """Return an api for a sink, which calls this at its first request, after a 401 and after a fork.

        Raises:
            UnavailableError: If there are no credentials yet.
        """
        import kubernetes.client  # noqa: PLC0415 - already imported by the sink

        if not self.is_there():
            raise UnavailableError(_NOT_LOGGED_IN)
        connection = ConnectionApi(self, kubernetes.client)
        return connection if self.info is not None else DefaultApi(self, kubernetes.client, connection)


class LoginSink(CoreV1EventSink):
    """Writes events with kopf's credentials."""

    def __init__(self) -> None:
        """Not logged in yet."""
        self.login: Final = Login()
        super().__init__(self.login.api)


def _configuration() -> Any:  # noqa: ANN401 - the official client has no usable types
    """Return the configuration loaded in the process, usually by kopf's login."""
    import kubernetes.client  # noqa: PLC0415 - already imported by the sink

    return kubernetes.client.Configuration.get_default_copy()


class DefaultApi:
    """Two methods of a ``CoreV1Api``, with the loaded configuration until a login handler returns a connection.

    Args:
        login: The credentials.
        client: The official client.
        connection: The api over a login handler's connection.
    """

    def __init__(self, login: Login, client: Any, connection: ConnectionApi) -> None:  # noqa: ANN401
        """Connect at the first call."""
        configuration = _configuration()
        configuration.retries = False  # the work queue retries
        self._login = login
        self._transport = Transport(client.ApiException)
        self._loaded = client.CoreV1Api(client.ApiClient(configuration=configuration))
        self._connection = connection

    def create_namespaced_event(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Create an event."""
        return self._current().create_namespaced_event(*args, **options)

    def patch_namespaced_event(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Patch an event."""
        return self._current().patch_namespaced_event(*args, **options)

    def _current(self) -> Any:  # noqa: ANN401
        return self._transport.wrap(self._loaded) if self._login.info is None else self._connection


class ConnectionApi:
    """The two methods of a ``CoreV1Api`` that a sink calls, over the connection of kopf's login handler."""

    def __init__(self, login: Login, client: ModuleType) -> None:
        """Connect at the first call."""
        self._login = login
        self._client = client
        self._lock = threading.Lock()
        self._connected: tuple[kopf.ConnectionInfo, Any] | None = None

    def create_namespaced_event(self, namespace: str, body: Json, **options: Any) -> Any:  # noqa: ANN401
        """Create an event."""
        return self._request("POST", _path(namespace), "application/json", body, options["_request_timeout"])

    def patch_namespaced_event(self, name: str, namespace: str, body: Json, **options: Any) -> Any:  # noqa: ANN401
        """Patch an event."""
        patch = "application/strategic-merge-patch+json"
        return self._request("PATCH", _path(namespace, name), patch, body, options["_request_timeout"])

    def _request(self, method: str, path: str, content_type: str, body: Json, timeout: tuple[float, float]) -> Any:  # noqa: ANN401
        import urllib3  # noqa: PLC0415 - already imported by the sink

        info, pool = self._connection()
        headers = {**_authorization(info), "Content-Type": content_type, "User-Agent": "kevents"}
        answer = pool.request(
            method,
            info.server.rstrip("/") + path,
            body=json.dumps(body).encode(),
            headers=headers,
            timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        if 200 <= answer.status < 300:  # noqa: PLR2004
            return answer
        raise api_error(self._client.ApiException, answer, headers)

    def _connection(self) -> tuple[kopf.ConnectionInfo, Any]:
        """Return the newest credentials and their connection pool.

        Raises:
            UnavailableError: If a certificate or key cannot be read; kopf may log in again.
        """
        with self._lock:
            if self._connected is None or self._connected[0] is not self._login.info:
                self._connected = self._connect()
            return self._connected

    def _connect(self) -> tuple[kopf.ConnectionInfo, Any]:
        info = self._login.info
        if info is None:
            raise UnavailableError(_NOT_LOGGED_IN)
        try:
            return info, guarded_manager(_pool(info))
        except Exception as error:  # noqa: BLE001 - it raises OSError, SSLError, binascii.Error ...
            raise UnavailableError(f"kopf's credentials are unusable: {format_redacted(error)}") from None


def _path(*names: str) -> str:
    namespace, *name = (quote(part, safe="") for part in names)
    return "/".join(("/api/v1/namespaces", namespace, "events", *name))


def _authorization(info: kopf.ConnectionInfo) -> Mapping[str, str]:
    """Return the Authorization header; kopf 1.44 ignores user name and password."""
    import urllib3  # noqa: PLC0415 - already imported by the sink

    headers = info.as_http_headers()
    if headers or not (info.username and info.password):
        return headers
    return urllib3.make_headers(basic_auth=f"{info.username}:{info.password}")


def _pool(info: kopf.ConnectionInfo) -> Any:  # noqa: ANN401 - urllib3 is a dependency of the official client
    import urllib3  # noqa: PLC0415 - already imported by the sink

    context = info.as_ssl_context()
    options: dict[str, Any] = {
        "ssl_context": context,
        "cert_reqs": context.verify_mode,
        "maxsize": _CONNECTIONS,
    }
    server = urlsplit(info.server)
    proxy = info.proxy_url
    if proxy is None and info.trust_env and not urllib.request.proxy_bypass(server.hostname or ""):
        proxy = urllib.request.getproxies().get(server.scheme)
    if not proxy:
        return urllib3.PoolManager(**options)
    headers = urllib3.make_headers(proxy_basic_auth=urllib3.util.parse_url(proxy).auth)
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
