"""The asyncio face: the same recorders, correlator, series, work queue and statistics; only the senders are tasks.

A broadcaster here is used with ``async with``, and its ends are awaited::

    from kevents import aio

    async with aio.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(aio.CoreV1EventSink())
        recorder = broadcaster.new_recorder("backup-operator")
        recorder.event(pod, "Warning", "BackupFailed", "the bucket is gone")
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from kevents._broadcast.aio_broadcaster import AsyncBroadcaster, TaskBroadcaster
from kevents._broadcast.aio_watcher import EventStream, Watcher, bind
from kevents._broadcast.broadcaster import EventBroadcaster as ThreadedBroadcaster
from kevents._clients.aio import CoreV1EventSink, EventSink, EventsV1EventSink
from kevents._model.objects import Event
from kevents._model.series_event import SeriesEvent
from kevents.events import EventBroadcaster as ThreadedEventsV1Broadcaster

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from kevents._broadcast.recorder import EventRecorder
    from kevents._correlation.options import CorrelatorOptions
    from kevents._correlation.series import SeriesOptions
    from kevents._delivery.drop_reporter import OnDrop
    from kevents._model.objects import EventSource
    from kevents.events import EventRecorder as EventsV1Recorder

__all__ = [
    "CoreV1EventSink",
    "EventBroadcaster",
    "EventSink",
    "EventStream",
    "EventsV1Broadcaster",
    "EventsV1EventSink",
    "Watcher",
]


class _CoreTasks(TaskBroadcaster[Event], ThreadedBroadcaster):
    """The inside of the broadcaster for core/v1."""


class _SeriesTasks(TaskBroadcaster[SeriesEvent], ThreadedEventsV1Broadcaster):
    """The inside of the broadcaster for events.k8s.io/v1."""


class EventBroadcaster(AsyncBroadcaster[Event]):
    """Gives recorders, and hands what they record to watchers (client-go: ``NewBroadcaster``).

    As :class:`kevents.EventBroadcaster`, whose options it takes, for asynchronous sinks. Its recorders are the same
    plain calls, never awaited, in coroutines of any loop and in threads. ``async with`` shuts down at the end.
    ``on_drop`` is called in whatever thread notices a loss, the loop's too.

    A sink's tasks live in the loop that runs when it is started; if none does, in the first in which the broadcaster
    is entered or awaited. If that loop ends before ``await shutdown()``, what is left waits for the next one of these,
    and is given up, counted and logged, at the interpreter's exit.

    Raises:
        ValueError: If an option makes no sense.
        TypeError: If a function is a coroutine function.

    .. versionadded:: 0.1
    """

    _core: _CoreTasks

    def __init__(
        self,
        *,
        correlator_options: CorrelatorOptions | None = None,
        sleep_duration: float = 10.0,
        queue_length: int = 10_000,
        clock: Callable[[], int] = time.time_ns,
        strict: bool = False,
        on_drop: OnDrop | None = None,
        max_message_bytes: int | None = None,
    ) -> None:
        """Check the options."""
        super().__init__(
            _CoreTasks(
                correlator_options=correlator_options,
                sleep_duration=sleep_duration,
                queue_length=queue_length,
                clock=clock,
                strict=strict,
                on_drop=on_drop,
                max_message_bytes=max_message_bytes,
            )
        )

    def new_recorder(self, source: EventSource | str) -> EventRecorder:
        """A recorder of events of a source (client-go: ``NewRecorder``).

        Args:
            source: Or the component's name alone; the host is then left empty.
        """
        return self._core.new_recorder(source)

    def start_recording_to_sink(
        self,
        sink: EventSink,
        *,
        senders: int = 4,
        backlog: int = 4096,
        max_age: float = 3600.0,
        retry_wait: Callable[[RetryCallState], float] | None = None,
    ) -> Watcher:
        """Write events to the API server (client-go: ``StartRecordingToSink``).

        As :meth:`kevents.EventBroadcaster.start_recording_to_sink`, whose options it takes; ``senders`` are tasks.

        Args:
            sink: Usually a :class:`CoreV1EventSink`. The same sink again gives the watcher that exists.
            senders: How many requests may be under way at once.
            backlog: How many different events may wait to be written.
            max_age: Seconds after which an event that cannot be written is given up.
            retry_wait: A tenacity wait for the pauses between tries.

        Raises:
            TypeError: If the sink is none, one that is called in threads, or one for another API.
            ValueError: If a number makes no sense.
        """
        watcher = self._core.start_recording_to_sink(
            cast("Any", sink), senders=senders, backlog=backlog, max_age=max_age, retry_wait=retry_wait
        )
        bind(watcher)
        return self._shown(watcher)


class EventsV1Broadcaster(AsyncBroadcaster[SeriesEvent]):
    """Gives recorders, and writes what they record through events.k8s.io/v1 (client-go: ``tools/events``).

    As :class:`kevents.events.EventBroadcaster`, whose options it takes, for an asynchronous sink; loop, end and
    recorders' calls are as of :class:`EventBroadcaster`::

        async with aio.EventsV1Broadcaster(aio.EventsV1EventSink()) as broadcaster:
            recorder = broadcaster.new_recorder("example.com/backup-operator")
            recorder.eventf(pod, node, "Warning", "BackupFailed", "BackingUp", "no room in bucket %s", "b-1")

    Raises:
        TypeError: If the sink is none, one that is called in threads, or one for core/v1; if a function is a coroutine
            function.
        ValueError: If an option makes no sense.

    .. versionadded:: 0.1
    """

    _core: _SeriesTasks

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
        super().__init__(
            _SeriesTasks(
                cast("Any", sink),
                series_options=series_options,
                senders=senders,
                backlog=backlog,
                max_age=max_age,
                retry_wait=retry_wait,
                sleep_duration=sleep_duration,
                queue_length=queue_length,
                clock=clock,
                strict=strict,
                on_drop=on_drop,
            )
        )

    def new_recorder(self, reporting_controller: str, *, reporting_instance: str | None = None) -> EventsV1Recorder:
        """A recorder of a controller's events (client-go: ``NewRecorder``).

        Args:
            reporting_controller: ``[prefix/]name``, as ``example.com/backup-operator``: the API server takes no other.
            reporting_instance: Which of its processes this is, cut to 128 bytes; None: the controller's name, a dash
                and :func:`kevents.default_host`.

        Raises:
            ValueError: If the API server would refuse one of them.
        """
        return self._core.new_recorder(reporting_controller, reporting_instance=reporting_instance)
