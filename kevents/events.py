"""Events through events.k8s.io/v1, with series: client-go's ``tools/events``.

A recorder tells which object it is about, what was done, and how it went. What is repeated becomes a series, whose
count is written at the second occurrence, then every half hour, and at the end::

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
    TYPES,
    EchoError,
    Formatted,
    default_host,
    event_type_of,
    refusal_of,
    text_of,
    texts_of,
)
from kevents._clients.sync import ClientEventSink
from kevents._correlation.series import SeriesDecider, SeriesOptions, key_with_note, key_without_note
from kevents._model.objects import NO_TEXTS, EventSource
from kevents._model.reference import get_reference
from kevents._model.series_event import Publishing, SeriesEvent
from kevents._model.wire import EVENTS_GROUP, clip, is_qualified_name
from kevents._runtime.log import LOGGER, is_in_kevents
from kevents.exceptions import InvalidMessageError, InvalidReferenceError

if TYPE_CHECKING:
    import logging

    from tenacity import RetryCallState

    from kevents._broadcast.recorder import Texts
    from kevents._clients.sync import EventSink
    from kevents._delivery.drop_reporter import OnDrop
    from kevents._model.objects import ObjectReference

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

    In all else it is as :class:`~kevents.CoreV1EventSink`.

    Args:
        api: An ``EventsV1Api`` or ``ApiClient``, or a callable that gives one; it may raise
            :class:`~kevents.UnavailableError` as long as there are no credentials. None: what the process or its
            environment is configured for.
        request_timeout: Seconds to connect, and seconds without a byte of the answer.

    Raises:
        ValueError: If a time-out is no positive number.
        TypeError: If ``api`` is none of these.

    .. versionadded:: 0.1
    """

    api_group = EVENTS_GROUP


class EventRecorder:
    """Records events of one controller; a broadcaster makes it (client-go: ``recorderImpl``).

    Its methods raise no ``Exception`` (Ctrl-C passes, and what else is none, as from a message's ``__str__``), never
    block, and may be called from any thread, coroutine, signal handler or finaliser.
    What cannot be recorded is counted in ``broadcaster.statistics()`` and logged. Of a strict broadcaster they raise
    :class:`~kevents.InvalidReferenceError` and its kin instead.

    .. versionadded:: 0.1
    """

    __slots__ = ("_logger", "_publisher", "_source")

    def __init__(self, source: EventSource, publisher: Publishing, logger: logging.Logger = LOGGER) -> None:
        """Keep where to publish."""
        self._source = source
        self._publisher = publisher
        self._logger = logger

    @property
    def reporting_controller(self) -> str:
        """Whose events it records."""
        return self._source.component

    @property
    def reporting_instance(self) -> str:
        """Which of its processes this is."""
        return self._source.host

    def event(
        self,
        regarding: object,
        eventtype: str,
        reason: str,
        action: str,
        note: object,
        *,
        related: object = None,
        annotations: Texts | None = None,
        labels: Texts | None = None,
    ) -> None:
        """Record what was done about an object, and how it went.

        Args:
            regarding: What it is about: a manifest, a model of a client, an :class:`~kevents.ObjectReference` ...; read
                now, so that later changes of it change nothing.
            eventtype: ``Normal`` or ``Warning``.
            reason: Why, in one CamelCase word by convention; not empty, cut to 128 bytes.
            action: What was done, in one CamelCase word by convention; not empty, cut to 128 bytes.
            note: What happened, for people; anything with a text, cut to 1024 bytes.
            related: A second object that has to do with it. One of which no reference can be made is left out.
            annotations: For the event.
            labels: For the event.
        """
        try:
            event = self._build(regarding, eventtype, reason, action, note, related, annotations, labels)
        except Exception as error:  # noqa: BLE001 - whatever the caller's values do when they are looked at
            self._publisher.refuse(*refusal_of(error), self._logger)
        else:
            self._publisher.offer(event)

    def eventf(
        self,
        regarding: object,
        related: object,
        eventtype: str,
        reason: str,
        action: str,
        note: str,
        *args: object,
    ) -> None:
        """As :meth:`event`, the note made by ``note % args`` (client-go: ``Eventf``).

        Nothing is formatted without ``args``. Where format and arguments do not fit, both are recorded as they are.
        ``related`` may be None.
        """
        self.event(regarding, eventtype, reason, action, Formatted(note, args) if args else note, related=related)

    def annotated_eventf(
        self,
        regarding: object,
        related: object,
        annotations: Texts | None,
        eventtype: str,
        reason: str,
        action: str,
        note: str,
        *args: object,
    ) -> None:
        """As :meth:`eventf`, with annotations for the event (client-go: ``AnnotatedEventf``)."""
        text = Formatted(note, args) if args else note
        self.event(regarding, eventtype, reason, action, text, related=related, annotations=annotations)

    def with_logger(self, logger: logging.Logger) -> EventRecorder:
        """The same recorder, whose refusals are logged by another logger (client-go: ``WithLogger``)."""
        return EventRecorder(self._source, self._publisher, logger)

    def _build(
        self,
        regarding: object,
        eventtype: str,
        reason: str,
        action: str,
        note: object,
        related: object,
        annotations: Texts | None,
        labels: Texts | None,
    ) -> SeriesEvent:
        if is_in_kevents():
            raise EchoError("recorded by what kevents was logging or sending")
        reference = get_reference(regarding)
        return SeriesEvent(
            regarding=reference,
            type=eventtype if type(eventtype) is str and eventtype in TYPES else event_type_of(eventtype),
            reason=_word("reason", reason),
            action=_word("action", action),
            note=clip(note if type(note) is str else text_of(note), _NOTE_LIMIT),
            source=self._source,
            time=self._publisher.now(),
            serial=0,
            related=None if related is None else self._related(related),
            annotations=texts_of(annotations) if annotations else NO_TEXTS,
            labels=texts_of(labels) if labels else NO_TEXTS,
            name="" if reference.name else str(uuid.uuid4()),
        )

    def _related(self, related: object) -> ObjectReference | None:
        """A reference to the second object; without one the event is still worth recording, as in client-go."""
        try:
            return get_reference(related)
        except InvalidReferenceError as error:
            self._publisher.doubt(InvalidReferenceError(f"related: {error}"), self._logger)
            return None

    def __repr__(self) -> str:
        """Whose events it records."""
        return f"<EventRecorder {self.reporting_controller!r}>"


class EventBroadcaster(Broadcaster[SeriesEvent]):
    """Gives recorders, and writes what they record through a sink (client-go: ``NewBroadcaster``).

    A context manager that shuts down at the end. Building one starts nothing; threads start with the first event.
    Flush and shutdown write the present count of every series.

    Besides ``sink``, usually an :class:`EventsV1EventSink`, and ``series_options`` (what counts as the same, and how
    often its count is written; None: client-go's defaults) it takes the options of :class:`kevents.EventBroadcaster`
    and of its ``start_recording_to_sink``. Series that wait for their time do not count against the ``backlog``.

    Raises:
        TypeError: If the sink is none, an asynchronous one, or one for core/v1; if a function is a coroutine function.
        ValueError: If an option makes no sense.

    .. versionadded:: 0.1
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
        clock: Callable[[], int] = time.time_ns,
        strict: bool = False,
        on_drop: OnDrop | None = None,
    ) -> None:
        """Check the options, and record to the sink from now on."""
        if series_options is not None and not isinstance(series_options, SeriesOptions):
            raise ValueError(f"series_options must be SeriesOptions, not {series_options!r}")
        super().__init__(
            sleep_duration=sleep_duration,
            queue_length=queue_length,
            clock=clock,
            strict=strict,
            on_drop=on_drop,
            api_group=EVENTS_GROUP,
        )
        self._require_sink(sink)
        new_decider = partial(SeriesDecider, series_options or SeriesOptions())
        self._record_to(sink, new_decider, senders=senders, backlog=backlog, max_age=max_age, retry_wait=retry_wait)

    def new_recorder(self, reporting_controller: str, *, reporting_instance: str | None = None) -> EventRecorder:
        """A recorder of a controller's events (client-go: ``NewRecorder``).

        Args:
            reporting_controller: ``[prefix/]name``, as ``example.com/backup-operator``: the API server takes no other.
            reporting_instance: Which of its processes this is, cut to 128 bytes; None: the controller's name, a dash
                and :func:`kevents.default_host`.

        Raises:
            ValueError: If the API server would refuse one of them.
        """
        return EventRecorder(reporting_source(reporting_controller, reporting_instance), self._publisher)


def reporting_source(controller: str, instance: str | None) -> EventSource:
    """The source of a controller's events.

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


def _word(name: str, value: object) -> str:
    """A reason or an action, as the API server takes it."""
    text = value if type(value) is str else text_of(value)
    if not text:
        raise InvalidMessageError(f"{name} is empty: {EVENTS_GROUP} takes no event without one")
    return clip(text, _WORD_LIMIT)
