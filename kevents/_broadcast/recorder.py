"""From a call to an event published: what operators hold in their hands."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from kevents._model.objects import EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING, NO_TEXTS, EventSource, ObjectReference
from kevents._model.reference import get_reference
from kevents._model.statistics import DropReason
from kevents._model.wire import format_error
from kevents._runtime.log import LOGGER, is_in_kevents
from kevents.exceptions import InvalidEventError, InvalidMessageError, InvalidReferenceError, InvalidTypeError

if TYPE_CHECKING:
    import logging

Texts = Mapping[str, str]
Publish = Callable[[ObjectReference, EventSource, str, str, str, Texts, Texts], None]
Refuse = Callable[[DropReason, InvalidEventError, "logging.Logger"], None]

TYPES: Final = frozenset({EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING})


def default_host() -> str:
    """The host for an :class:`~kevents.EventSource`: the pod's name (``POD_NAME``), else the machine's.

    .. versionadded:: 0.1
    """
    return os.environ.get("POD_NAME") or socket.gethostname()


@runtime_checkable
class Recorder(Protocol):
    """What code that records asks for: an :class:`EventRecorder`, or a fake one (client-go: ``EventRecorder``).

    .. versionadded:: 0.1
    """

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
        """Record an event about an object."""

    def eventf(self, object: object, eventtype: str, reason: str, message_fmt: str, *args: object) -> None:  # noqa: A002
        """Record an event with a formatted message."""

    def annotated_eventf(
        self,
        object: object,  # noqa: A002
        annotations: Texts | None,
        eventtype: str,
        reason: str,
        message_fmt: str,
        *args: object,
    ) -> None:
        """Record an event with annotations and a formatted message."""

    def for_object(self, object: object) -> BoundRecorder:  # noqa: A002
        """Give a recorder for this object."""


class EventRecorder:
    """Records events of one source; a broadcaster makes it (client-go: ``recorderImpl``).

    Its methods raise no ``Exception`` (Ctrl-C passes, and what else is none, as from a message's ``__str__``), never
    block, and may be called from any thread, coroutine, signal handler or finaliser.
    What cannot be recorded is counted in ``broadcaster.statistics()`` and logged. Of a strict broadcaster they raise
    :class:`~kevents.InvalidReferenceError` and its kin instead.

    .. versionadded:: 0.1
    """

    __slots__ = ("_logger", "_publish", "_refuse", "source")

    def __init__(self, source: EventSource, publish: Publish, refuse: Refuse, logger: logging.Logger = LOGGER) -> None:
        """Keep where to publish."""
        self.source: Final = source
        self._publish = publish
        self._refuse = refuse
        self._logger = logger

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
        """Record that something happened to an object (client-go: ``Event``).

        Args:
            object: What it happened to: a manifest, a model of a client, an :class:`~kevents.ObjectReference` ...;
                read now, so that later changes of it change nothing.
            eventtype: ``Normal`` or ``Warning``.
            reason: Why, in one CamelCase word by convention.
            message: What happened, for people; anything with a text.
            annotations: For the event.
            labels: For the event.
        """
        try:
            if is_in_kevents():
                raise EchoError("recorded by what kevents was logging or sending")  # noqa: TRY301 - as all refusals
            reference = get_reference(object)
            if type(eventtype) is not str or eventtype not in TYPES:
                eventtype = event_type_of(eventtype)
            if type(reason) is not str or type(message) is not str:
                reason, message = text_of(reason), text_of(message)
            annotations = NO_TEXTS if not annotations else texts_of(annotations)
            labels = NO_TEXTS if not labels else texts_of(labels)
        except Exception as error:  # noqa: BLE001 - whatever the caller's values do when they are looked at
            self._refuse(*refusal_of(error), self._logger)
        else:
            self._publish(reference, self.source, eventtype, reason, message, annotations, labels)

    def eventf(self, object: object, eventtype: str, reason: str, message_fmt: str, *args: object) -> None:  # noqa: A002
        """As :meth:`event`, the message made by ``message_fmt % args`` (client-go: ``Eventf``).

        Nothing is formatted without ``args``. Where format and arguments do not fit, both are recorded as they are.
        """
        self.event(object, eventtype, reason, Formatted(message_fmt, args) if args else message_fmt)

    def annotated_eventf(
        self,
        object: object,  # noqa: A002
        annotations: Texts | None,
        eventtype: str,
        reason: str,
        message_fmt: str,
        *args: object,
    ) -> None:
        """As :meth:`eventf`, with annotations for the event (client-go: ``AnnotatedEventf``)."""
        message = Formatted(message_fmt, args) if args else message_fmt
        self.event(object, eventtype, reason, message, annotations=annotations)

    def with_logger(self, logger: logging.Logger) -> EventRecorder:
        """The same recorder, whose refusals are logged by another logger (client-go: ``WithLogger``)."""
        return EventRecorder(self.source, self._publish, self._refuse, logger)

    def for_object(self, object: object) -> BoundRecorder:  # noqa: A002
        """A recorder for one object, pleasant in a handler.

        Args:
            object: Read now if a reference can be made of it; otherwise every event about it is refused.
        """
        try:
            return BoundRecorder(self, get_reference(object))
        except InvalidReferenceError:
            return BoundRecorder(self, object)

    def __repr__(self) -> str:
        """Whose events it records."""
        return f"<EventRecorder {self.source.component!r}>"


class BoundRecorder:
    """Records events about one object.

    .. versionadded:: 0.1
    """

    __slots__ = ("_object", "_recorder")

    def __init__(self, recorder: Recorder, object: object) -> None:  # noqa: A002
        """Keep both; :meth:`EventRecorder.for_object` makes it."""
        self._recorder = recorder
        self._object = object

    def event(
        self,
        eventtype: str,
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
    ) -> None:
        """As :meth:`EventRecorder.event`."""
        self._recorder.event(self._object, eventtype, reason, message, annotations=annotations, labels=labels)

    def normal(self, reason: str, message: object) -> None:
        """Record a ``Normal`` event."""
        self._recorder.event(self._object, EVENT_TYPE_NORMAL, reason, message)

    def warning(self, reason: str, message: object) -> None:
        """Record a ``Warning`` event."""
        self._recorder.event(self._object, EVENT_TYPE_WARNING, reason, message)

    def exception(self, reason: str, error: BaseException) -> None:
        """Record a ``Warning`` event with the error's type and text."""
        self._recorder.event(self._object, EVENT_TYPE_WARNING, reason, format_error(error))


class EchoError(InvalidEventError):
    """kevents heard its own echo."""


class Formatted:
    """A format and its arguments, whose text is made where a failure is caught."""

    __slots__ = ("_args", "_format")

    def __init__(self, message_fmt: str, args: tuple[object, ...]) -> None:
        """Keep both."""
        self._format = message_fmt
        self._args = args

    def __str__(self) -> str:
        """The text; a format that does not fit is shown with its arguments."""
        values = self._args[0] if len(self._args) == 1 and isinstance(self._args[0], Mapping) else self._args
        try:
            return text_of(self._format) % values
        except Exception:  # noqa: BLE001 - a wrong format must not lose the event
            return f"{text_of(self._format)} %!(BADFORMAT {', '.join(repr(value) for value in self._args)})"


def source_of(source: object) -> EventSource:
    """The source of a recorder's events, of which the component's name may be all there is.

    Raises:
        TypeError: If it is none, or a part of it no text.
    """
    if isinstance(source, str):
        return EventSource(source)
    if not isinstance(source, EventSource):
        raise TypeError(f"source must be an EventSource or a component's name, not {source!r}")
    for name, part in (("component", source.component), ("host", source.host)):
        if not isinstance(part, str):
            raise TypeError(f"the source's {name} must be a text, not {part!r}")
    return source


def event_type_of(eventtype: object) -> str:
    """The event type, as an exact text.

    Raises:
        InvalidTypeError: If it is neither of the two.
    """
    text = text_of(eventtype)
    if text not in TYPES:
        raise InvalidTypeError(f"event type {text[:80]!r} is not supported: it must be 'Normal' or 'Warning'")
    return text


def text_of(value: object) -> str:
    """The text of anything: an Enum's value, bytes as UTF-8, nothing for None.

    Raises:
        InvalidMessageError: If making it raises.
    """
    if isinstance(value, Enum):
        return text_of(value.value)
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception as error:
        raise InvalidMessageError(
            f"the text of a {type(value).__name__} cannot be had: {format_error(error)}"
        ) from error
    return str.__str__(text)  # an exact str also of a subclass


def texts_of(texts: Texts) -> Texts:
    """Annotations or labels, copied.

    Raises:
        InvalidMessageError: If they are no mapping, or a text of theirs cannot be had.
    """
    if not isinstance(texts, Mapping):
        raise InvalidMessageError(f"annotations and labels must map text to text, not be a {type(texts).__name__}")
    return MappingProxyType({text_of(key): text_of(value) for key, value in dict(texts).items()})


def refusal_of(error: Exception) -> tuple[DropReason, InvalidEventError]:
    """Why an event is refused, from what its values raised when they were looked at."""
    match error:
        case EchoError():
            return DropReason.RECURSION, error
        case InvalidTypeError():
            return DropReason.INVALID_TYPE, error
        case InvalidReferenceError():
            return DropReason.INVALID_REFERENCE, error
        case InvalidEventError():
            return DropReason.INVALID_MESSAGE, error
        case _:
            return DropReason.INVALID_MESSAGE, InvalidMessageError(format_error(error))
