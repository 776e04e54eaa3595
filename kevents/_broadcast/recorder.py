"""Recorders: they turn a call into an event and publish it."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import wraps
from time import monotonic
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, Protocol, runtime_checkable

from kevents._model.objects import (
    EVENT_TYPE_NORMAL,
    EVENT_TYPE_WARNING,
    AnyEventType,
    Event,
    EventSource,
    ObjectReference,
)
from kevents._model.reference import get_reference, known_reference, shared_reference
from kevents._model.statistics import DropReason
from kevents._model.wire import NO_TEXTS, Formatted, Texts, format_error, to_text, to_texts
from kevents._runtime.lifecycle import ProcessBound
from kevents._runtime.log import LOGGER, MARK, is_in_kevents
from kevents._runtime.reentrant import SHARED
from kevents.exceptions import InvalidEventError, InvalidMessageError, InvalidReferenceError, InvalidTypeError

if TYPE_CHECKING:
    import logging

_OTHER_WORDS: Final = {
    **dict.fromkeys(("info", "debug", "error", "critical", "fatal", "warn"), "normal(...) or warning(...)"),
    **dict.fromkeys(("record", "emit", "send", "post", "create", "log"), "event(...)"),
    **dict.fromkeys(("flush", "shutdown", "close"), "the broadcaster's method, or kevents.shutdown()"),
    "step": "for_object(...).step(...)",
}
"""Methods that recorders do not have, but loggers and other libraries do, and what to use instead."""

P = ParamSpec("P")

_new = object.__new__
_FOLDED_TYPES: Final = {eventtype.lower(): eventtype for eventtype in (EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING)}
_SEVERE_TYPES: Final = frozenset({"error", "critical", "fatal"})


class Publisher(Protocol):
    """Receives the events of recorders of both APIs: a broadcaster's publisher, or that of a fake recorder."""

    @property
    def now(self) -> Callable[[], int]:
        """The clock for events, in nanoseconds since the epoch. Never raises."""

    def publish(self, event: Event, /) -> None:
        """Publish an event. Its serial number is set here."""

    def refuse(self, error: Exception, event: Event | None, logger: logging.Logger, /) -> None:
        """Count and log a call that made no event, of which the given parts are known. Raises if strict."""

    def omit(self, error: InvalidEventError, logger: logging.Logger, /) -> None:
        """Log an optional part that is left out of an event. A strict publisher raises the error."""

    def report_change(self, text: str, logger: logging.Logger, /) -> None:
        """Log a value that was replaced to record an event."""


def default_host() -> str:
    """Host for an :class:`~kevents.EventSource`: the environment variable ``POD_NAME``, or the host name."""
    return os.environ.get("POD_NAME") or socket.gethostname()


def call_later(
    record: Callable[..., None], args: tuple[object, ...], options: Mapping[str, object] | Iterable[tuple[str, object]]
) -> None:
    """Make a recorder's call again, whose caller has returned."""
    with suppress(Exception):  # raised by a strict recorder
        record(*args, **dict(options))


def never_raises(method: Callable[P, None]) -> Callable[P, None]:
    """Make a method that is called where the stack ends return at once; the call is made later."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except RecursionError:
            SHARED.postponed += ((call_later, (call, args, kwargs)),)

    return call


@runtime_checkable
class Recorder(Protocol):
    """Interface of :class:`EventRecorder` and the fake recorder, for annotations (client-go: ``EventRecorder``)."""

    def event(
        self,
        object: object,  # noqa: A002 - client-go's name
        eventtype: AnyEventType,
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record an event about an object."""

    def eventf(self, object: object, eventtype: AnyEventType, reason: str, message_fmt: str, *args: object) -> None:  # noqa: A002
        """Record an event with a formatted message."""

    def annotated_eventf(
        self,
        object: object,  # noqa: A002
        annotations: Texts | None,
        eventtype: AnyEventType,
        reason: str,
        message_fmt: str,
        *args: object,
    ) -> None:
        """Record an event with annotations and a formatted message."""

    def normal(
        self,
        object: object,  # noqa: A002
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record a ``Normal`` event."""

    def warning(
        self,
        object: object,  # noqa: A002
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record a ``Warning`` event."""

    def exception(self, object: object, reason: str, error: BaseException | None = None) -> None:  # noqa: A002
        """Record an error as a ``Warning`` event."""

    def for_object(self, object: object) -> BoundRecorder:  # noqa: A002
        """Create a recorder for one object."""


class _Hinted:
    """Says which method to use in place of one that a recorder does not have."""

    __slots__ = ()

    if not TYPE_CHECKING:  # a type checker must find a method that does not exist

        def __getattr__(self, name: str) -> NoReturn:
            word = _OTHER_WORDS.get(name)
            hint = f": use {word}" if word else ""
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}", name=name, obj=self)


class BaseRecorder(_Hinted, ProcessBound):
    """The parts that the recorders of both APIs share."""

    __slots__ = ("_logger", "_publisher", "source")

    _class: type[Event] = Event
    _record: Callable[..., None]
    """Records an event: object, type, reason and message, with the keywords of ``normal``."""

    def __init__(self, source: EventSource, publisher: Publisher, logger: logging.Logger = LOGGER) -> None:
        self.source: Final = source
        self._publisher = publisher
        self._logger = logger

    def normal(
        self,
        object: object,  # noqa: A002
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record a ``Normal`` event. The arguments are those of ``event``."""
        self._record(
            object,
            EVENT_TYPE_NORMAL,
            reason,
            message,
            annotations=annotations,
            labels=labels,
            related=related,
            action=action,
        )

    def warning(
        self,
        object: object,  # noqa: A002
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record a ``Warning`` event. The arguments are those of ``event``."""
        self._record(
            object,
            EVENT_TYPE_WARNING,
            reason,
            message,
            annotations=annotations,
            labels=labels,
            related=related,
            action=action,
        )

    @never_raises
    def exception(self, object: object, reason: str, error: BaseException | None = None) -> None:  # noqa: A002
        """Record an error as a ``Warning`` event, with its type and text as the message.

        Args:
            object: As of ``event``.
            reason: As of ``event``.
            error: By default the exception that is being handled. Without one, the message is empty.
        """
        self._record(object, EVENT_TYPE_WARNING, reason, text_of_error(error))

    def for_object(self, object: object) -> BoundRecorder:  # noqa: A002
        """A recorder for one object.

        Args:
            object: Read now. If no reference can be made from it, every event about it is refused.
        """
        try:
            return BoundRecorder(self, get_reference(object))
        except Exception:  # noqa: BLE001 - every event about it reports the error
            return BoundRecorder(self, object)

    def _known_event(
        self, error: Exception, about: object, eventtype: object, reason: object, message: object
    ) -> Event | None:
        """The event of a refused call, with the values that can be read. None for a recursion."""
        if isinstance(error, RecursiveEventError):
            return None
        try:
            reference = get_reference(about)
        except Exception:  # noqa: BLE001 - the error that is reported is the first one
            reference = known_reference(about)
        texts = []
        for value in (eventtype, reason, message):
            try:
                texts.append(to_text(value))
            except InvalidMessageError:
                texts.append("")
        kind, word, text = texts
        event = _new(self._class)
        Event.__init__(event, reference, kind, word, text, self.source, self._publisher.now(), 0)
        return event


class EventRecorder(BaseRecorder):
    """Records events of one source. A broadcaster creates it (client-go: ``recorderImpl``).

    Its methods never block, and they raise no ``Exception``. They may be called from any thread, coroutine, signal
    handler or finaliser. A call that cannot be recorded is logged and counted in ``broadcaster.statistics()``; a
    recorder of a strict broadcaster raises instead. ``KeyboardInterrupt`` and other exceptions that are no
    ``Exception`` pass, for example from a message's ``__str__``.
    """

    __slots__ = ()

    def event(
        self,
        object: object,  # noqa: A002 - client-go's name
        eventtype: AnyEventType,
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record an event about an object (client-go: ``Event``).

        Args:
            object: A manifest, a client's model, an :class:`~kevents.ObjectReference` ... It is read now; later changes
                have no effect.
            eventtype: ``Normal`` or ``Warning``, in upper or lower case. ``Error``, ``Critical`` and ``Fatal`` are
                recorded as ``Warning``, with a log line.
            reason: Why the event happened, by convention one CamelCase word.
            message: Human-readable description: a text, or any object with a ``__str__``.
            annotations: Annotations of the event.
            labels: Labels of the event.
            related: A second object. It is left out, with a log line, if no reference can be made from it.
            action: Which action was taken, by convention one CamelCase word. Neither ``related`` nor ``action`` decides
                whether two events are the same.
        """
        publisher = self._publisher
        try:
            try:
                if MARK.get() is not None and is_in_kevents():
                    raise RecursiveEventError  # noqa: TRY301 - handled as every refusal
                reference = object if type(object) is ObjectReference and object.checked else shared_reference(object)
                kind = (
                    eventtype
                    if eventtype is EVENT_TYPE_NORMAL or eventtype is EVENT_TYPE_WARNING
                    else to_event_type(eventtype, publisher, self._logger)
                )
                if type(reason) is str and type(message) is str:
                    text, note = reason, message
                else:
                    text, note = to_text(reason), to_text(message)
                notes = NO_TEXTS if annotations is None else to_texts(annotations)
                marks = NO_TEXTS if labels is None else to_texts(labels)
                now = publisher.now()
                name = "" if reference.name else str(uuid.uuid4())
                done = "" if action is None else to_text(action)
                other = None if related is None else to_related(related, publisher, self._logger)
                event = _new(Event)  # the call of the class takes longer
                Event.__init__(
                    event, reference, kind, text, note, self.source, now, 0, notes, marks, 1, None, name, done, other
                )
                publisher.publish(event)
            except RecursionError:
                raise
            except Exception as error:  # noqa: BLE001 - reason_of() distinguishes the caller's values from a fault of ours
                publisher.refuse(error, self._known_event(error, object, eventtype, reason, message), self._logger)
        except RecursionError:  # the stack ends: a new call is impossible, and an operator leaves this one for later
            options = (("annotations", annotations), ("labels", labels), ("related", related), ("action", action))
            SHARED.postponed += ((call_later, (self.event, (object, eventtype, reason, message), options)),)

    _record = event

    @never_raises
    def eventf(self, object: object, eventtype: AnyEventType, reason: str, message_fmt: str, *args: object) -> None:  # noqa: A002
        """Record an event with the message ``message_fmt % args`` (client-go: ``Eventf``).

        Without ``args`` nothing is formatted. If the arguments do not fit the format, both are recorded unchanged.
        """
        self.event(object, eventtype, reason, Formatted(message_fmt, args) if args else message_fmt)

    @never_raises
    def annotated_eventf(
        self,
        object: object,  # noqa: A002
        annotations: Texts | None,
        eventtype: AnyEventType,
        reason: str,
        message_fmt: str,
        *args: object,
    ) -> None:
        """Like :meth:`eventf`, with annotations (client-go: ``AnnotatedEventf``)."""
        message = Formatted(message_fmt, args) if args else message_fmt
        self.event(object, eventtype, reason, message, annotations=annotations)

    def with_logger(self, logger: logging.Logger) -> EventRecorder:
        """A copy of the recorder that logs refused events through another logger (client-go: ``WithLogger``)."""
        return EventRecorder(self.source, self._publisher, logger)

    def __repr__(self) -> str:
        return f"<EventRecorder {self.source.component!r}>"


class BoundRecorder(_Hinted, ProcessBound):
    """Records events about one object, through either API."""

    __slots__ = ("_object", "_recorder")

    def __init__(self, recorder: BaseRecorder, object: object) -> None:  # noqa: A002
        self._recorder = recorder
        self._object = object

    @never_raises
    def event(
        self,
        eventtype: AnyEventType,
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Like :meth:`EventRecorder.event`."""
        self._recorder._record(  # noqa: SLF001 - one call for both APIs
            self._object,
            eventtype,
            reason,
            message,
            annotations=annotations,
            labels=labels,
            related=related,
            action=action,
        )

    @never_raises
    def eventf(self, eventtype: AnyEventType, reason: str, message_fmt: str, *args: object) -> None:
        """Like :meth:`EventRecorder.eventf`."""
        self.event(eventtype, reason, Formatted(message_fmt, args) if args else message_fmt)

    def normal(
        self,
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record a ``Normal`` event."""
        self.event(
            EVENT_TYPE_NORMAL, reason, message, annotations=annotations, labels=labels, related=related, action=action
        )

    def warning(
        self,
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record a ``Warning`` event."""
        self.event(
            EVENT_TYPE_WARNING, reason, message, annotations=annotations, labels=labels, related=related, action=action
        )

    @never_raises
    def exception(self, reason: str, error: BaseException | None = None) -> None:
        """Record an error as a ``Warning`` event. By default the exception that is being handled."""
        self.event(EVENT_TYPE_WARNING, reason, text_of_error(error))

    def for_object(self, object: object) -> BoundRecorder:  # noqa: A002
        """A recorder for another object."""
        return self._recorder.for_object(object)

    @contextmanager
    def step(self, name: str, message: str) -> Iterator[None]:
        """Record the start and the end of a piece of work, in functions and coroutines.

        ``with events.step("Backup", "writing web-0 to the bucket"):`` records ``BackupStarted``, then
        ``BackupSucceeded`` with the duration, or ``BackupFailed`` as a ``Warning`` with the error, which is raised.

        Args:
            name: The first part of the reasons, one CamelCase word.
            message: A description of the work.
        """
        self.normal(f"{name}Started", message)
        begun = monotonic()
        try:
            yield
        except BaseException as error:
            self.warning(f"{name}Failed", f"{message}: {format_error(error)}")
            raise
        self.normal(f"{name}Succeeded", f"{message}: done in {monotonic() - begun:.1f} s")


def text_of_error(error: BaseException | None) -> str:
    """Type and text of an error, by default of the exception that is being handled. Empty without one."""
    error = sys.exc_info()[1] if error is None else error
    return "" if error is None else format_error(error)


def to_related(related: object, publisher: Publisher, logger: logging.Logger) -> ObjectReference | None:
    """A reference to the second object of an event, or None. The event is recorded without it, as in client-go."""
    try:
        return get_reference(related)
    except InvalidReferenceError as error:
        publisher.omit(InvalidReferenceError(f"related: {error}"), logger)
        return None


class RecursiveEventError(InvalidEventError):
    """The event was recorded from within kevents' own logging, sink or callback."""

    def __str__(self) -> str:
        return "recorded from within kevents' own logging, sink or callback"


def to_source(source: object) -> EventSource:
    """The source of a recorder's events, from an EventSource or a component name. Raises TypeError."""
    if isinstance(source, str):
        return EventSource(source)
    if not isinstance(source, EventSource):
        raise TypeError(f"source must be an EventSource or a component's name, not {source!r}")
    for name, part in (("component", source.component), ("host", source.host)):
        if not isinstance(part, str):
            raise TypeError(f"the source's {name} must be a text, not {part!r}")
    return source


def to_event_type(eventtype: object, publisher: Publisher, logger: logging.Logger) -> str:
    """The event type as the API has it, from any case. Types of errors become ``Warning``. Raises InvalidTypeError."""
    text = to_text(eventtype)
    folded = text[:80].lower()
    if folded in _FOLDED_TYPES:
        return _FOLDED_TYPES[folded]
    if folded in _SEVERE_TYPES:
        publisher.report_change(f"event type {text!r} is recorded as 'Warning': Kubernetes has no other", logger)
        return EVENT_TYPE_WARNING
    raise InvalidTypeError(f"event type {text[:80]!r} is not supported: it must be 'Normal' or 'Warning'")


def reason_of(error: Exception) -> DropReason:
    """Why a call is refused. An error that is not about the caller's values is a fault of kevents: ``internal``."""
    match error:
        case RecursiveEventError():
            return DropReason.RECURSION
        case InvalidTypeError():
            return DropReason.INVALID_TYPE
        case InvalidReferenceError():
            return DropReason.INVALID_REFERENCE
        case InvalidEventError():
            return DropReason.INVALID_MESSAGE
        case _:
            return DropReason.INTERNAL
