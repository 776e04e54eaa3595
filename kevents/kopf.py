"""Events for operators written with kopf: one line installs a recorder that works in every handler.

An operator::

    import kevents.kopf

    recorder = kevents.kopf.install("widget-operator")


    @kopf.on.update("widgets")
    def update(body, **_):
        recorder.warn(body, "UpdateFailed", "the bucket is gone")

The recorder never waits and never raises: in handlers of both kinds, in daemons, timers and bare threads, before kopf
has logged in and in cleanup handlers. kopf's own posting is left alone unless asked.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from copy import copy
from itertools import count
from time import monotonic
from typing import Final, TypeVar, cast

try:
    import kopf
except ImportError as missing:
    raise ImportError(f"kevents.kopf needs kopf: pip install 'kevents[kopf]' ({missing})") from missing

from kevents._broadcast.broadcaster import EventBroadcaster
from kevents._broadcast.recorder import EventRecorder, Formatted, Texts, default_host
from kevents._clients.kopf_login import LoginSink
from kevents._model.objects import EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING, EventSource
from kevents._model.statistics import DropReason
from kevents._model.wire import format_error
from kevents._runtime.aio_threads import in_thread
from kevents.exceptions import InvalidReferenceError

__all__ = ["KopfRecorder", "ObjectLogHandler", "install"]

DRAIN_TIMEOUT: Final = 10.0
"""Seconds for the cleanup handler: well inside a pod's grace period of 30."""

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
    """Give a recorder, and let kopf drain it at cleanup.

    kopf runs cleanup handlers in the order of their registration. Ours is registered at startup, when those of your
    modules are registered already, so that what they record is delivered too.

    Args:
        component: The events' source; its host is the pod's name.
        broadcaster: One with options of your own; it is started on a sink here.
        registry: kopf's; None: the default one, as for ``@kopf.on``.
        silence_kopf: Whether kopf's own posting of events is switched off (``settings.posting.enabled``).

    Raises:
        TypeError: If the broadcaster is none, or the component no text.

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
    waits, unless the program has loaded a configuration into the official client; no other identity is ever used.

    Args:
        component: The events' source; its host is the pod's name.
        broadcaster: One with options of your own; it is started on a sink here, which all its recorders share.

    Raises:
        TypeError: If the broadcaster is none, or the component no text.

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
        self._login = _sink_of(broadcaster).login

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
            trouble = InvalidReferenceError(f"the objects cannot be listed: {format_error(error)}")
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
            text = format_error(error)
            message = text if _is_missing(message) else Formatted("%s %s", (message, text))
        if _is_missing(reason):
            reason = "Error" if error is None else type(error).__name__
        self.event(object, EVENT_TYPE_WARNING, reason, message)

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
        return await in_thread("kevents-cleanup", self._flush, monotonic() + patience)

    def _flush(self, deadline: float | None) -> bool:
        return self.broadcaster.flush(None if deadline is None else deadline - monotonic())

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


def _is_missing(text: object) -> bool:
    """Whether a text is None or empty; its own class, which may raise, is not asked."""
    return text is None or (issubclass(type(text), str) and not str.__len__(cast("str", text)))


def _each(objects: object) -> Iterator[object]:
    """One object, or each of several, however nested: not what merely can be iterated, as mappings and models can."""
    if isinstance(objects, str | bytes) or not isinstance(objects, _SEVERAL):
        yield objects
    else:
        for each in objects:
            yield from _each(each)


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
        return text if error is None else f"{text} {format_error(error)}"


def _sink_of(broadcaster: EventBroadcaster) -> LoginSink:
    """The sink on which a broadcaster is started for kopf: one for all its recorders, or each event is sent twice."""
    for watcher in broadcaster._publisher.watchers:  # noqa: SLF001 - its listeners are known to itself only
        if isinstance(watcher.handler.sink, LoginSink):
            return watcher.handler.sink
    sink = LoginSink()
    broadcaster.start_recording_to_sink(sink)
    return sink
