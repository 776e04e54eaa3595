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
import logging
import sys
from collections.abc import Iterator, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from itertools import count
from time import monotonic
from typing import Any, Final, TypeVar, cast

from kevents._clients.endpoint import (
    Endpoint,
    basic_authorization,
    endpoint_of,
    environment_proxy,
    loaded_configuration,
)
from kevents._clients.errors import format_redacted
from kevents._clients.sync import CoreV1EventSink, DirectTransport
from kevents._model.validation import how_to_install
from kevents.exceptions import UnavailableError

try:
    import kopf
except ImportError as missing:
    raise ImportError(f"kevents.kopf needs kopf: {how_to_install('kopf')} ({missing})") from missing

from kevents._broadcast.broadcaster import EventBroadcaster
from kevents._broadcast.recorder import EventRecorder, default_host, never_raises
from kevents._model.objects import EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING, AnyEventType, EventSource
from kevents._model.wire import Formatted, Texts, format_error, require_frames
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
        component: The component of the events' source. Its host is the pod's name.
        broadcaster: A broadcaster with your options; a sink is started on it here.
        registry: kopf's registry. None: the default one, as for ``@kopf.on``.
        silence_kopf: Switch off kopf's own posting of events (``settings.posting.enabled``).

    Raises:
        TypeError: If ``broadcaster`` is no broadcaster, or ``component`` is not a text.
    """
    recorder = KopfRecorder(component, broadcaster)
    handlers = kopf.get_default_registry() if registry is None else registry
    sink = _sink_of(recorder.broadcaster)
    sink.registry = handlers
    number = next(_numbers)  # kopf runs only one handler for each id
    started = False

    async def start(settings: kopf.OperatorSettings, **_: object) -> None:
        nonlocal started
        sink.settings = settings
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
        component: The component of the events' source. Its host is the pod's name.
        broadcaster: A broadcaster with your options. A sink is started on it here and shared by all its recorders.

    Raises:
        TypeError: If ``broadcaster`` is no broadcaster, or ``component`` is not a text.
    """

    __slots__ = ("_sink", "broadcaster")

    def __init__(self, component: str, broadcaster: EventBroadcaster | None = None) -> None:
        broadcaster = EventBroadcaster() if broadcaster is None else broadcaster
        if not isinstance(broadcaster, EventBroadcaster):
            raise TypeError(f"broadcaster must be a kevents.EventBroadcaster, not {broadcaster!r}")
        plain = broadcaster.new_recorder(EventSource(component, default_host()))
        super().__init__(plain.source, plain._publisher)  # noqa: SLF001 - a recorder of the same kind
        self.broadcaster: Final = broadcaster
        self._sink = _sink_of(broadcaster)

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
        other = KopfRecorder(self.source.component, self.broadcaster)
        other._logger = logger
        return other

    # -- life cycle of the operator ------------------------------------------------------------------------------

    async def cleanup(self, timeout: float = DRAIN_TIMEOUT) -> bool:
        """Deliver pending events, outside the event loop; False if that takes longer than ``timeout``.

        For cleanup handlers. The broadcaster stays open, because later cleanup handlers may record; those events are
        delivered at interpreter exit. Without a login it returns at once, because kopf no longer logs in.

        Args:
            timeout: Seconds.
        """
        patience = timeout if self._sink.is_logged_in() else 0.0
        return await run_in_thread("kevents-cleanup", self._flush, monotonic() + patience)

    def _flush(self, deadline: float) -> bool:
        return self.broadcaster.flush(deadline - monotonic())

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
        self._sink.keep(info)
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
_OWN_LOGINS: Final[tuple[Any, ...]] = (
    kopf.login_via_pykube,
    kopf.login_with_service_account,
    kopf.login_with_kubeconfig,
)
"""kopf's login handlers that need no handler of the operator and do not configure the official client."""

_log: Final = logging.getLogger("kevents")


class LoginSink(CoreV1EventSink):
    """Writes events with kopf's credentials, over connections of its own.

    It uses the first of these credentials that exists:

    1. those of a login handler that calls :meth:`KopfRecorder.logged_in`
    2. those that kopf's login has loaded into the official client
    3. those of kopf's own login without a client

    Attributes:
        registry: kopf's registry, which has the login handlers.
        settings: The operator's settings.
    """

    def __init__(self, *, request_timeout: tuple[float, float] = (5, 15)) -> None:
        super().__init__(request_timeout=request_timeout)
        self.registry = kopf.get_default_registry()
        self.settings = kopf.OperatorSettings()
        self._info: kopf.ConnectionInfo | None = None
        self._transport: DirectTransport = DirectTransport(self._find, self.api_group)

    def keep(self, info: object) -> None:
        """Use the result of a login handler from now on, None if it had no credentials."""
        if isinstance(info, kopf.ConnectionInfo):
            self._info = info
            self._transport.reconnect()
        elif info is not None:
            _log.error("cannot send events with a %s: log in with a kopf.ConnectionInfo", type(info).__name__)

    def is_logged_in(self) -> bool:
        """True if there are credentials."""
        try:
            self._find()
        except UnavailableError:
            return False
        return True

    def _find(self) -> Endpoint:
        try:
            info = self._info
            configuration = loaded_configuration("kubernetes") if info is None else None
            if configuration is not None:
                return endpoint_of(configuration)
            info = info or self._own_login()
            if info is not None:
                return _endpoint(info)
        except Exception as error:  # noqa: BLE001 - unusable certificates raise OSError, SSLError, binascii.Error ...
            raise UnavailableError(f"kopf's credentials are unusable: {format_redacted(error)}") from None
        raise UnavailableError(_NOT_LOGGED_IN)

    def _own_login(self) -> kopf.ConnectionInfo | None:
        """Log in as kopf does by itself, None if it has other login handlers."""
        activities = getattr(self.registry, "_activities", None)  # there is no public list of handlers
        found = [] if activities is None else activities.get_all_handlers()
        logins = {handler.fn for handler in found if handler.activity.value == "authentication"}
        own = [login for login in _OWN_LOGINS if login in logins]
        if len(own) < len(logins):
            return None
        for login in own:
            info: kopf.ConnectionInfo | None = login(settings=self.settings, logger=_log)
            if info is not None:
                return info
        return None


def _endpoint(info: kopf.ConnectionInfo) -> Endpoint:
    headers = dict(info.as_http_headers())
    if not headers and info.username and info.password:  # kopf 1.44 ignores them
        headers = {"Authorization": basic_authorization(info.username, info.password)}
    proxy = info.proxy_url
    if proxy is None and info.trust_env:
        proxy = environment_proxy(info.server)
    context = info.as_ssl_context() if info.server.startswith("https:") else None
    return Endpoint(info.server.rstrip("/"), context, lambda: headers, fixed=True, proxy=proxy or "")
