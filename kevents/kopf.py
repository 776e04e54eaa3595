"""Events for operators written with kopf: one line installs a recorder that works in every handler.

    import kevents.kopf

    recorder = kevents.kopf.install("widget-operator")

    @kopf.on.update("widgets")
    def update(body, **_):
        recorder.warn(body, "UpdateFailed", "the bucket is gone")

The recorder never waits and never raises: in handlers of both kinds, in daemons, timers and bare threads, before kopf
has logged in and in cleanup handlers. kopf's own posting is left alone unless asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from copy import copy
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from kevents._broadcaster import EventBroadcaster
from kevents._client import told_safely
from kevents._objects import EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING, EventSource, Json
from kevents._recorder import EventRecorder, Formatted, Texts, default_host
from kevents._sink import CoreV1EventSink
from kevents._statistics import DropReason
from kevents._wire import told
from kevents.exceptions import InvalidReferenceError, UnavailableError

try:
    import kopf
except ImportError as missing:
    raise ImportError(f"kevents.kopf needs kopf: pip install 'kevents[kopf]' ({missing})") from missing

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["KopfRecorder", "ObjectLogHandler", "install"]

DRAIN_TIMEOUT: Final = 10.0
"""Seconds for the cleanup handler: well inside a pod's grace period of 30."""

Info = TypeVar("Info")

_SEVERAL: Final = (Sequence, AbstractSet, ValuesView, Iterator, kopf.Store)
_UNCONFIGURED: Final = ("", "http://localhost", "https://localhost")
_NOT_LOGGED_IN: Final = (
    "kopf has not logged in yet; if its login handler is your own, let that return recorder.logged_in(...)"
)
_MOST_READ: Final = 1 << 20
_CONNECTIONS: Final = 16

_log: Final = logging.getLogger("kevents")
_numbers: Final = count(1)


def install(
    component: str,
    *,
    broadcaster: EventBroadcaster | None = None,
    registry: kopf.OperatorRegistry | None = None,
    silence_kopf: bool = False,
) -> KopfRecorder:
    """Give a recorder, and let kopf drain it at cleanup.

    kopf runs cleanup handlers in the order of their registration. Ours is registered at startup, when those of your
    modules are registered already, so that what they record is delivered too.

    Args:
        component: The events' source; its host is the pod's name.
        broadcaster: One with options of your own; it is started on a sink here.
        registry: kopf's; None: the default one, as for ``@kopf.on``.
        silence_kopf: Whether kopf's own posting of events is switched off (``settings.posting.enabled``).

    Raises:
        TypeError: If the broadcaster is none.

    .. versionadded:: 0.1
    """
    recorder = KopfRecorder(component, broadcaster)
    handlers = kopf.get_default_registry() if registry is None else registry
    number = next(_numbers)  # kopf runs one handler of an id
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
    """Records events about kopf's bodies, or anything else that has a reference; about one object or several.

    An :class:`~kevents.EventRecorder` with kopf's habits. :func:`install` builds one; whoever writes the cleanup
    handler himself builds it directly, and awaits :meth:`cleanup` there. What is recorded before kopf has logged in
    waits; no other identity is ever used.

    Args:
        component: The events' source; its host is the pod's name.
        broadcaster: One with options of your own; it is started on a sink here.

    Raises:
        TypeError: If the broadcaster is none.

    .. versionadded:: 0.1
    """

    __slots__ = ("_login", "broadcaster")

    def __init__(self, component: str, broadcaster: EventBroadcaster | None = None) -> None:
        """Start on a sink that connects when kopf has logged in."""
        broadcaster = EventBroadcaster() if broadcaster is None else broadcaster
        if not isinstance(broadcaster, EventBroadcaster):
            raise TypeError(f"broadcaster must be a kevents.EventBroadcaster, not {broadcaster!r}")
        plain = broadcaster.new_recorder(EventSource(component, default_host()))
        super().__init__(plain.source, plain._publish, plain._refuse)  # noqa: SLF001 - a recorder of the same kind
        self.broadcaster: Final = broadcaster
        self._login = _Login()
        broadcaster.start_recording_to_sink(CoreV1EventSink(self._login.api))

    # -- recording -----------------------------------------------------------------------------------------------

    def event(
        self,
        object: object,  # noqa: A002 - client-go's name
        eventtype: str,
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
    ) -> None:
        """As of any recorder; of a list or another iterable, one about each object in it (kopf: ``kopf.event``)."""
        try:
            objects = list(_each(object))
        except Exception as error:  # noqa: BLE001 - whatever the caller's iterable does
            trouble = InvalidReferenceError(f"the objects cannot be listed: {told(error)}")
            self._refuse(DropReason.INVALID_REFERENCE, trouble, self._logger)
            return
        for each in objects:
            super().event(each, eventtype, reason, message, annotations=annotations, labels=labels)

    def info(self, object: object, reason: str, message: object = "") -> None:  # noqa: A002
        """Record a ``Normal`` event (kopf: ``kopf.info``)."""
        self.event(object, EVENT_TYPE_NORMAL, reason, message)

    def warn(self, object: object, reason: str, message: object = "") -> None:  # noqa: A002
        """Record a ``Warning`` event (kopf: ``kopf.warn``)."""
        self.event(object, EVENT_TYPE_WARNING, reason, message)

    def exception(
        self,
        object: object,  # noqa: A002
        reason: str = "",
        message: object = "",
        exc: BaseException | None = None,
    ) -> None:
        """Record an error as a ``Warning`` event (kopf: ``kopf.exception``).

        Args:
            object: What it happened to.
            reason: Without one, the error's type.
            message: Goes before the error's text.
            exc: The error; None: the one being handled.
        """
        error = sys.exc_info()[1] if exc is None else exc
        if error is not None:
            reason = reason or type(error).__name__
            text = told(error)
            message = text if isinstance(message, str) and not message else Formatted("%s %s", (message, text))
        self.event(object, EVENT_TYPE_WARNING, reason or "Error", message)

    def with_logger(self, logger: logging.Logger) -> KopfRecorder:
        """The same recorder, whose refusals are logged by another logger (client-go: ``WithLogger``)."""
        other = copy(self)
        other._logger = logger  # noqa: SLF001 - a copy of itself
        return other

    # -- kopf's life ---------------------------------------------------------------------------------------------

    async def cleanup(self, timeout: float = DRAIN_TIMEOUT) -> bool:
        """For a cleanup handler: deliver what there is, off the event loop; False if it takes longer.

        The broadcaster stays open, since later cleanup handlers may record: the interpreter's exit drains once more.
        Without a login nothing is waited for: kopf does not log in any more.

        Args:
            timeout: Seconds.
        """
        patience = timeout if self._login.is_there() else 0.0
        return await asyncio.to_thread(self.broadcaster.flush, patience)

    def logged_in(self, info: Info) -> Info:
        """For a login handler of one's own: record with the same credentials, and with those of any later login.

        .. code-block:: python

            @kopf.on.login()
            def login(**kwargs):
                return recorder.logged_in(kopf.login_with_service_account(**kwargs))

        Args:
            info: The ``kopf.ConnectionInfo`` that the handler returns, or None.

        Returns:
            The same.
        """
        self._login.keep(info)
        return info


def _each(objects: object) -> Iterator[object]:
    """One object, or each of several, however nested: not what merely can be iterated, as mappings and models can."""
    if isinstance(objects, str | bytes) or not isinstance(objects, _SEVERAL):
        yield objects
    else:
        for each in objects:
            yield from _each(each)


class _Login:
    """What kopf has logged in with: the connection that a login handler gave, else the client's configuration."""

    def __init__(self) -> None:
        self.info: kopf.ConnectionInfo | None = None

    def keep(self, info: object) -> None:
        if isinstance(info, kopf.ConnectionInfo):
            self.info = info
        elif info is not None:
            _log.error("events cannot be sent by a %s: log in with a kopf.ConnectionInfo", type(info).__name__)

    def is_there(self) -> bool:
        return self.info is not None or _configuration().host not in _UNCONFIGURED

    def api(self) -> object:
        """For a sink: asked at its first request, after a 401 and after a fork.

        Raises:
            UnavailableError: If there are no credentials yet.
        """
        import kubernetes.client  # noqa: PLC0415 - the sink has imported it

        if not self.is_there():
            raise UnavailableError(_NOT_LOGGED_IN)
        if self.info is not None:
            return _ConnectionApi(self, kubernetes.client)
        configuration = _configuration()
        configuration.retries = False  # the work queue retries, at times of its own
        return kubernetes.client.ApiClient(configuration=configuration)


def _configuration() -> Any:  # noqa: ANN401 - the official client has no usable types
    """What the process has loaded: by kopf's login, unless the user did it before."""
    import kubernetes.client  # noqa: PLC0415 - the sink has imported it

    return kubernetes.client.Configuration.get_default_copy()


class _ConnectionApi:
    """The two calls of a ``CoreV1Api`` that a sink makes, over the connection that kopf's login handler gave."""

    def __init__(self, login: _Login, client: ModuleType) -> None:
        self._login = login
        self._client = client
        self._lock = threading.Lock()
        self._connected: tuple[kopf.ConnectionInfo, Any] | None = None

    def create_namespaced_event(self, namespace: str, body: Json, **options: Any) -> Any:  # noqa: ANN401
        return self._request("POST", _path(namespace), "application/json", body, options["_request_timeout"])

    def patch_namespaced_event(self, name: str, namespace: str, body: Json, **options: Any) -> Any:  # noqa: ANN401
        patch = "application/strategic-merge-patch+json"
        return self._request("PATCH", _path(namespace, name), patch, body, options["_request_timeout"])

    def _request(self, method: str, path: str, content_type: str, body: Json, timeout: tuple[float, float]) -> Any:  # noqa: ANN401
        import urllib3  # noqa: PLC0415 - the sink has imported it

        info, pool = self._connection()
        answer = pool.request(
            method,
            info.server.rstrip("/") + path,
            body=json.dumps(body).encode(),
            headers={**_authorization(info), "Content-Type": content_type, "User-Agent": "kevents"},
            timeout=urllib3.Timeout(connect=timeout[0], read=timeout[1]),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        if 200 <= answer.status < 300:  # noqa: PLR2004
            return answer
        error: Any = self._client.ApiException(status=answer.status, reason=answer.reason)
        error.headers = dict(answer.headers)
        error.body = answer.read(_MOST_READ)
        if len(error.body) == _MOST_READ:
            answer.close()
        answer.release_conn()
        raise error

    def _connection(self) -> tuple[kopf.ConnectionInfo, Any]:
        """The newest credentials and their connections.

        Raises:
            UnavailableError: If a certificate or key cannot be read: kopf may log in again.
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
            return info, _pool(info)
        except Exception as error:  # noqa: BLE001 - OSError, SSLError, binascii.Error ...
            raise UnavailableError(f"kopf's credentials cannot be used: {told_safely(error)}") from None


def _path(*names: str) -> str:
    namespace, *name = (quote(part, safe="") for part in names)
    return "/".join(("/api/v1/namespaces", namespace, "events", *name))


def _authorization(info: kopf.ConnectionInfo) -> Mapping[str, str]:
    """The header; kopf 1.44 leaves name and password out of its own."""
    import urllib3  # noqa: PLC0415 - the sink has imported it

    headers = info.as_http_headers()
    if headers or not (info.username and info.password):
        return headers
    return urllib3.make_headers(basic_auth=f"{info.username}:{info.password}")


def _pool(info: kopf.ConnectionInfo) -> Any:  # noqa: ANN401 - of urllib3, which comes with the official client
    import urllib3  # noqa: PLC0415 - the sink has imported it

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


class ObjectLogHandler(logging.Handler):
    """Turns what is logged about an object, by handlers and by kopf itself, into events. Experimental.

    kopf's ``logger.warning(...)`` in a handler carries the object's reference in ``record.k8s_ref``, which is no
    documented interface of kopf: it is tested with kopf 1.44 and 1.45.

    .. code-block:: python

        logging.getLogger("kopf.objects").addHandler(kevents.kopf.ObjectLogHandler(recorder))

    Args:
        recorder: Which records.
        reason: Of the events.
        level: Below which records are left alone. Those below ``WARNING`` become ``Normal`` events.

    .. versionadded:: 0.1
    """

    def __init__(self, recorder: EventRecorder, *, reason: str = "Logging", level: int = logging.WARNING) -> None:
        """Keep the recorder."""
        super().__init__(level)
        self._recorder = recorder
        self._reason = reason

    def emit(self, record: logging.LogRecord) -> None:
        """Record an event, unless kopf marked the record as not for events."""
        reference = getattr(record, "k8s_ref", None)
        if reference is None or getattr(record, "k8s_skip", False):
            return
        eventtype = EVENT_TYPE_WARNING if record.levelno >= logging.WARNING else EVENT_TYPE_NORMAL
        try:
            self._recorder.event(reference, eventtype, self._reason, _Text(record))
        except Exception:  # noqa: BLE001 - of a strict recorder: as any log handler
            self.handleError(record)


class _Text:
    """A log record's text, with its error and without a traceback; made where a failure is caught."""

    def __init__(self, record: logging.LogRecord) -> None:
        self._record = record

    def __str__(self) -> str:
        error = self._record.exc_info[1] if self._record.exc_info else None
        text = self._record.getMessage()
        return text if error is None else f"{text} {told(error)}"
