"""The asyncio API. Senders are tasks; recorders, correlator, work queue and statistics are the same as with threads.

Use a broadcaster with ``async with``, and await its ``flush`` and ``shutdown``::

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

from kevents._broadcast.aio import AsyncBroadcaster, EventStream, TaskBroadcaster, Watcher
from kevents._broadcast.broadcaster import EventBroadcaster as ThreadedBroadcaster
from kevents._clients.aio import CoreV1EventSink, EventSink, EventsV1EventSink
from kevents._model.objects import QUEUE_BYTES, Event, SeriesEvent
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
    """Implementation for core/v1."""


class _SeriesTasks(TaskBroadcaster[SeriesEvent], ThreadedEventsV1Broadcaster):
    """Implementation for events.k8s.io/v1."""


class EventBroadcaster(AsyncBroadcaster[Event]):
    """Creates recorders and passes their events to watchers (client-go: ``NewBroadcaster``).

    It takes the options of :class:`kevents.EventBroadcaster`, for asynchronous sinks. ``async with`` shuts it down at
    the end of the block. Its recorders are called without ``await``, in coroutines of any loop and in threads.
    ``on_drop`` may be called in any thread, also in the loop's.

    Sender tasks run in the loop in which the sink is started. Without a running loop they run in the first one in which
    the broadcaster is entered or awaited. If that loop ends before ``await shutdown()``, pending events wait for
    another loop. At interpreter exit they are dropped, counted and logged.

    Raises:
        ValueError: If an option is out of range or of the wrong type.
        TypeError: If a function is a coroutine function.
    """

    _core: _CoreTasks

    def __init__(
        self,
        *,
        correlator_options: CorrelatorOptions | None = None,
        sleep_duration: float = 10.0,
        queue_length: int = 10_000,
        queue_bytes: int = QUEUE_BYTES,
        clock: Callable[[], int] = time.time_ns,
        strict: bool = False,
        on_drop: OnDrop | None = None,
        max_message_bytes: int | None = None,
    ) -> None:
        core = _CoreTasks(
            correlator_options=correlator_options,
            sleep_duration=sleep_duration,
            queue_length=queue_length,
            queue_bytes=queue_bytes,
            clock=clock,
            strict=strict,
            on_drop=on_drop,
            max_message_bytes=max_message_bytes,
        )
        super().__init__(core)

    def new_recorder(self, source: EventSource | str) -> EventRecorder:
        """Create a recorder (client-go: ``NewRecorder``).

        Args:
            source: Source of its events, or only the component's name.
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

        The options are those of :meth:`kevents.EventBroadcaster.start_recording_to_sink`.

        Args:
            sink: Usually a :class:`CoreV1EventSink`. For a sink that is in use the existing watcher is returned.
            senders: Maximum number of concurrent requests, each in a task.
            backlog: Maximum number of different events that wait to be written.
            max_age: Seconds after which an event that cannot be written is dropped.
            retry_wait: A tenacity wait for the pauses between attempts.

        Raises:
            TypeError: If the sink's methods are not coroutine functions, or it writes to another API.
            ValueError: If a number is out of range.
        """
        watcher = self._core.start_recording_to_sink(
            cast("Any", sink), senders=senders, backlog=backlog, max_age=max_age, retry_wait=retry_wait
        )
        return self._wrap(watcher)


class EventsV1Broadcaster(AsyncBroadcaster[SeriesEvent]):
    """Creates recorders and writes their events through events.k8s.io/v1 (client-go: ``tools/events``).

    It takes the options of :class:`kevents.events.EventBroadcaster`, for an asynchronous sink. Loops, shutdown and
    recording work as in :class:`EventBroadcaster`::

        async with aio.EventsV1Broadcaster(aio.EventsV1EventSink()) as broadcaster:
            recorder = broadcaster.new_recorder("example.com/backup-operator")
            recorder.eventf(pod, node, "Warning", "BackupFailed", "BackingUp", "no room in bucket %s", "b-1")

    Raises:
        TypeError: If the sink's methods are not coroutine functions, or it writes to core/v1; if another function is a
            coroutine function.
        ValueError: If an option is out of range or of the wrong type.
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
        queue_bytes: int = QUEUE_BYTES,
        clock: Callable[[], int] = time.time_ns,
        strict: bool = False,
        on_drop: OnDrop | None = None,
    ) -> None:
        core = _SeriesTasks(
            cast("Any", sink),
            series_options=series_options,
            senders=senders,
            backlog=backlog,
            max_age=max_age,
            retry_wait=retry_wait,
            sleep_duration=sleep_duration,
            queue_length=queue_length,
            queue_bytes=queue_bytes,
            clock=clock,
            strict=strict,
            on_drop=on_drop,
        )
        super().__init__(core)

    def new_recorder(self, reporting_controller: str, *, reporting_instance: str | None = None) -> EventsV1Recorder:
        """Create a recorder (client-go: ``NewRecorder``).

        Args:
            reporting_controller: ``[prefix/]name``, for example ``example.com/backup-operator``.
            reporting_instance: Name of this process, cut to 128 bytes. None: the controller's name, a dash and
                :func:`kevents.default_host`.

        Raises:
            ValueError: If the API server would refuse one of them.
        """
        return self._core.new_recorder(reporting_controller, reporting_instance=reporting_instance)
