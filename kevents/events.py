"""Events through events.k8s.io/v1, with series: client-go's ``tools/events``.

A recorder states which object an event is about, which action was taken, and the result. Repeated events become a
series. Its count is written at the second occurrence, then every half hour, and at the end::

    from kevents import events

    with events.EventBroadcaster(events.EventsV1EventSink()) as broadcaster:
        recorder = broadcaster.new_recorder("example.com/backup-operator")
        recorder.eventf(pod, node, "Warning", "BackupFailed", "BackingUp", "no room in bucket %s", "b-1")
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from kevents._broadcast.broadcaster import Broadcaster
from kevents._broadcast.recorder import (
    BaseRecorder,
    RecursiveEventError,
    call_later,
    default_host,
    never_raises,
    to_event_type,
    to_related,
)
from kevents._clients.sync import ClientEventSink
from kevents._correlation.series import SeriesDecider, SeriesOptions, key_with_note, key_without_note
from kevents._model.objects import QUEUE_BYTES, AnyEventType, EventSource, SeriesEvent
from kevents._model.reference import shared_reference
from kevents._model.wire import EVENTS_GROUP, NO_TEXTS, Formatted, Texts, clip, is_qualified_name, to_text, to_texts
from kevents._runtime.log import is_in_kevents
from kevents._runtime.reentrant import SHARED
from kevents.exceptions import InvalidMessageError

if TYPE_CHECKING:
    import logging

    from tenacity import RetryCallState

    from kevents._clients.sync import EventSink
    from kevents._delivery.drop_reporter import OnDrop

__all__ = [
    "EventBroadcaster",
    "EventRecorder",
    "EventsV1EventSink",
    "SeriesEvent",
    "SeriesOptions",
    "key_with_note",
    "key_without_note",
]

_NOTE_LIMIT: Final = 1024
_WORD_LIMIT: Final = 128  # of reason, action and reporting instance


class EventsV1EventSink(ClientEventSink):
    """Writes events.k8s.io/v1 events through the official Kubernetes client (client-go: ``EventSinkImpl``).

    Otherwise it is the same as :class:`~kevents.CoreV1EventSink`.

    Args:
        api: An ``EventsV1Api`` or ``ApiClient``, or a callable that returns one. The callable may raise
            :class:`~kevents.UnavailableError` while there are no credentials. None: the configuration of the process or
            its environment.
        request_timeout: Seconds to connect, and seconds without a byte of the response.

    Raises:
        ValueError: If a timeout is not a positive number.
        TypeError: If ``api`` is of another type.
    """

    api_group = EVENTS_GROUP


class EventRecorder(BaseRecorder):
    """Records events of one controller. A broadcaster creates it (client-go: ``recorderImpl``).

    Its methods never block and raise no ``Exception``, as those of :class:`kevents.EventRecorder`. A recorder of a
    strict broadcaster raises :class:`~kevents.InvalidReferenceError` and its siblings.
    """

    __slots__ = ()

    _class = SeriesEvent

    @property
    def reporting_controller(self) -> str:
        """Name of the controller whose events it records."""
        return self.source.component

    @property
    def reporting_instance(self) -> str:
        """Name of the controller's process."""
        return self.source.host

    def event(
        self,
        regarding: object,
        eventtype: AnyEventType,
        reason: str,
        action: str,
        note: object,
        *,
        related: object = None,
        annotations: Texts | None = None,
        labels: Texts | None = None,
    ) -> None:
        """Record an action on an object and its result.

        Args:
            regarding: A manifest, a client's model, an :class:`~kevents.ObjectReference` ... It is read now; later
                changes have no effect.
            eventtype: ``Normal`` or ``Warning``, in upper or lower case. ``Error``, ``Critical`` and ``Fatal`` are
                recorded as ``Warning``, with a log line.
            reason: Why, by convention one CamelCase word; not empty, cut to 128 bytes.
            action: Which action was taken, by convention one CamelCase word; not empty, cut to 128 bytes.
            note: Human-readable description: a text, or any object with a ``__str__``; cut to 1024 bytes.
            related: A second object. It is left out if no reference can be made from it.
            annotations: Annotations of the event.
            labels: Labels of the event.
        """
        publisher = self._publisher
        try:
            try:
                if is_in_kevents():
                    raise RecursiveEventError  # noqa: TRY301 - handled as every refusal
                reference = shared_reference(regarding)
                event = SeriesEvent(
                    regarding=reference,
                    type=to_event_type(eventtype, publisher, self._logger),
                    reason=_require_word("reason", reason),
                    action=_require_word("action", action),
                    note=clip(note if type(note) is str else to_text(note), _NOTE_LIMIT),
                    source=self.source,
                    time=publisher.now(),
                    serial=0,
                    related=None if related is None else to_related(related, publisher, self._logger),
                    annotations=NO_TEXTS if annotations is None else to_texts(annotations),
                    labels=NO_TEXTS if labels is None else to_texts(labels),
                    name="" if reference.name else str(uuid.uuid4()),
                )
                publisher.publish(event)
            except RecursionError:
                raise
            except Exception as error:  # noqa: BLE001 - reason_of() distinguishes the caller's values from a fault of ours
                publisher.refuse(error, self._known_event(error, regarding, eventtype, reason, note), self._logger)
        except RecursionError:  # the stack ends: a new call is impossible, and an operator leaves this one for later
            options = (("related", related), ("annotations", annotations), ("labels", labels))
            SHARED.postponed += ((call_later, (self.event, (regarding, eventtype, reason, action, note), options)),)

    @never_raises
    def eventf(
        self,
        regarding: object,
        related: object,
        eventtype: AnyEventType,
        reason: str,
        action: str,
        note: str,
        *args: object,
    ) -> None:
        """Record an event with the note ``note % args`` (client-go: ``Eventf``). ``related`` may be None.

        Without ``args`` nothing is formatted. If the arguments do not fit the format, both are recorded unchanged.
        """
        self.event(regarding, eventtype, reason, action, Formatted(note, args) if args else note, related=related)

    @never_raises
    def annotated_eventf(
        self,
        regarding: object,
        related: object,
        annotations: Texts | None,
        eventtype: AnyEventType,
        reason: str,
        action: str,
        note: str,
        *args: object,
    ) -> None:
        """Like :meth:`eventf`, with annotations (client-go: ``AnnotatedEventf``)."""
        text = Formatted(note, args) if args else note
        self.event(regarding, eventtype, reason, action, text, related=related, annotations=annotations)

    def with_logger(self, logger: logging.Logger) -> EventRecorder:
        """A copy of the recorder that logs refused events through another logger (client-go: ``WithLogger``)."""
        return EventRecorder(self.source, self._publisher, logger)

    @never_raises
    def _record(
        self,
        object: object,  # noqa: A002
        eventtype: AnyEventType,
        reason: str,
        message: object,
        *,
        annotations: Texts | None = None,
        labels: Texts | None = None,
        related: object = None,
        action: str | None = None,
    ) -> None:
        """Record an event in the order of core/v1. The API needs an action. By default it is the reason."""
        action = reason if action is None else action
        self.event(object, eventtype, reason, action, message, related=related, annotations=annotations, labels=labels)

    def __repr__(self) -> str:
        """The controller."""
        return f"<EventRecorder {self.reporting_controller!r}>"


class EventBroadcaster(Broadcaster[SeriesEvent]):
    """Creates recorders and writes their events through a sink (client-go: ``NewBroadcaster``).

    As a context manager it shuts down at the end of the block. Creating it starts nothing; threads start with the
    first event. Flush and shutdown write the present count of every series.

    Besides ``sink``, usually an :class:`EventsV1EventSink`, and ``series_options`` (None: client-go's defaults) it
    takes the options of :class:`kevents.EventBroadcaster` and of its ``start_recording_to_sink``. Series whose next
    write is not due do not count against the ``backlog``.

    Raises:
        TypeError: If the sink has no ``create`` and ``patch``, is asynchronous or writes to core/v1; if a function is
            a coroutine function.
        ValueError: If an option is out of range or of the wrong type.
    """

    def __init__(
        self,
        sink: EventSink,
        *,
        series_options: SeriesOptions | None = None,
        senders: int = 4,
        backlog: int = 4096,
        max_age: float = 3600.0,
        retry_wait: Callable[[RetryCallState], float] | None = None,
        sleep_duration: float = 10.0,
        queue_length: int = 10_000,
        queue_bytes: int = QUEUE_BYTES,
        clock: Callable[[], int] = time.time_ns,
        strict: bool = False,
        on_drop: OnDrop | None = None,
    ) -> None:
        if series_options is not None and not isinstance(series_options, SeriesOptions):
            raise ValueError(f"series_options must be SeriesOptions, not {series_options!r}")
        super().__init__(
            sleep_duration=sleep_duration,
            queue_length=queue_length,
            queue_bytes=queue_bytes,
            clock=clock,
            strict=strict,
            on_drop=on_drop,
            api_group=EVENTS_GROUP,
        )
        self._require_sink(sink)
        new_decider = partial(SeriesDecider, series_options or SeriesOptions())
        self._record_to(sink, new_decider, senders=senders, backlog=backlog, max_age=max_age, retry_wait=retry_wait)

    def new_recorder(self, reporting_controller: str, *, reporting_instance: str | None = None) -> EventRecorder:
        """Create a recorder (client-go: ``NewRecorder``).

        Args:
            reporting_controller: ``[prefix/]name``, for example ``example.com/backup-operator``.
            reporting_instance: Name of this process, cut to 128 bytes. None: the controller's name, a dash and
                :func:`kevents.default_host`.

        Raises:
            ValueError: If the API server would refuse one of them.
        """
        return EventRecorder(reporting_source(reporting_controller, reporting_instance), self._publisher)


def reporting_source(controller: str, instance: str | None) -> EventSource:
    """The source of a controller's events, checked.

    Raises:
        ValueError: If the API server would refuse controller or instance.
    """
    if not isinstance(controller, str) or not is_qualified_name(controller):
        raise ValueError(
            f"reporting_controller must be [prefix/]name, not {controller!r}: at most 63 letters, "
            "digits, '-', '_' and '.', beginning and ending with a letter or digit, and as a prefix a DNS name"
        )
    instance = f"{controller}-{default_host()}" if instance is None else instance
    if not isinstance(instance, str) or not instance:
        raise ValueError(f"reporting_instance must be a text that is not empty, not {instance!r}")
    return EventSource(controller, clip(instance, _WORD_LIMIT))


def _require_word(name: str, value: object) -> str:
    """A reason or an action, cut to the API's limit."""
    text = value if type(value) is str else to_text(value)
    if not text:
        raise InvalidMessageError(f"{name} is empty: {EVENTS_GROUP} takes no event without one")
    return clip(text, _WORD_LIMIT)
