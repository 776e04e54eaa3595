"""From a call to an event published: what operators hold in their hands."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from kevents._log import LOGGER, is_speaking
from kevents._objects import EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING, EventSource, ObjectReference
from kevents._reference import get_reference
from kevents._statistics import DropReason
from kevents._wire import told
from kevents.exceptions import InvalidEventError, InvalidMessageError, InvalidReferenceError, InvalidTypeError

if TYPE_CHECKING:
    import logging

Texts = Mapping[str, str]
Publish = Callable[[ObjectReference, EventSource, str, str, str, Texts, Texts], None]
Refuse = Callable[[DropReason, InvalidEventError, "logging.Logger"], None]

_NO_TEXTS: Final[Texts] = MappingProxyType({})
_TYPES: Final = frozenset({EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING})


def default_host() -> str:
    """The host for an :class:`~kevents.EventSource`: the pod's name (``POD_NAME``), else the machine's.

    .. versionadded:: 0.1
    """
    return os.environ.get("POD_NAME") or socket.gethostname()


@runtime_checkable
class Recorder(Protocol):
    """What code that records asks for: an :class:`EventRecorder`, or a fake one in tests (client-go: ``EventRecorder``).

    .. versionadded:: 0.1
    """

    def event(  # noqa: PLR0913
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

    def annotated_eventf(  # noqa: PLR0913
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

    Its methods never raise, never block and may be called from any thread, coroutine, signal handler or finaliser.
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

    def event(  # noqa: PLR0913
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
            if is_speaking():
                raise _RecursionRefused("recorded by what kevents was logging or sending")
            reference = get_reference(object)
            if eventtype not in _TYPES:
                eventtype = _event_type(eventtype)
            if type(reason) is not str or type(message) is not str:
                reason, message = _text(reason), _text(message)
            annotations = _NO_TEXTS if not annotations else _texts(annotations)
            labels = _NO_TEXTS if not labels else _texts(labels)
        except Exception as error:  # noqa: BLE001 - whatever the caller's values do when they are looked at
            self._refuse(*_refusal(error), self._logger)
        else:
            self._publish(reference, self.source, eventtype, reason, message, annotations, labels)

    def eventf(self, object: object, eventtype: str, reason: str, message_fmt: str, *args: object) -> None:  # noqa: A002
        """As :meth:`event`, the message made by ``message_fmt % args`` (client-go: ``Eventf``).

        Nothing is formatted without ``args``. Where format and arguments do not fit, both are recorded as they are.
        """
        self.event(object, eventtype, reason, _Formatted(message_fmt, args) if args else message_fmt)

    def annotated_eventf(  # noqa: PLR0913
        self,
        object: object,  # noqa: A002
        annotations: Texts | None,
        eventtype: str,
        reason: str,
        message_fmt: str,
        *args: object,
    ) -> None:
        """As :meth:`eventf`, with annotations for the event (client-go: ``AnnotatedEventf``)."""
        message = _Formatted(message_fmt, args) if args else message_fmt
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
        self._recorder.event(self._object, EVENT_TYPE_WARNING, reason, told(error))


class _RecursionRefused(InvalidEventError):
    """kevents heard its own echo."""


class _Formatted:
    """A format and its arguments, whose text is made where a failure is caught."""

    __slots__ = ("_args", "_format")

    def __init__(self, message_fmt: str, args: tuple[object, ...]) -> None:
        self._format = message_fmt
        self._args = args

    def __str__(self) -> str:
        values = self._args[0] if len(self._args) == 1 and isinstance(self._args[0], Mapping) else self._args
        try:
            return _text(self._format) % values
        except Exception:  # noqa: BLE001 - a wrong format must not lose the event
            return f"{_text(self._format)} %!(BADFORMAT {', '.join(repr(value) for value in self._args)})"


def _event_type(eventtype: object) -> str:
    text = _text(eventtype)
    if text not in _TYPES:
        raise InvalidTypeError(f"event type {text[:80]!r} is not supported: it must be 'Normal' or 'Warning'")
    return text


def _text(value: object) -> str:
    """The text of anything: an Enum's value, bytes as UTF-8, nothing for None."""
    if isinstance(value, Enum):
        return _text(value.value)
    if value is None:
        return ""
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception as error:
        raise InvalidMessageError(f"the text of a {type(value).__name__} cannot be had: {told(error)}") from error
    return str.__str__(text)  # an exact str also of a subclass


def _texts(texts: Texts) -> Texts:
    if not isinstance(texts, Mapping):
        raise InvalidMessageError(f"annotations and labels must be a mapping of text to text, not {type(texts).__name__}")
    return MappingProxyType({_text(key): _text(value) for key, value in texts.items()})


def _refusal(error: Exception) -> tuple[DropReason, InvalidEventError]:
    match error:
        case _RecursionRefused():
            return DropReason.RECURSION, error
        case InvalidTypeError():
            return DropReason.INVALID_TYPE, error
        case InvalidReferenceError():
            return DropReason.INVALID_REFERENCE, error
        case InvalidEventError():
            return DropReason.INVALID_MESSAGE, error
        case _:
            return DropReason.INVALID_MESSAGE, InvalidMessageError(told(error))
