"""The asyncio face: the same recorder, correlator, work queue and statistics; only the senders are tasks.

A broadcaster here is used with ``async with``, and its ends are awaited::

    from kevents import aio

    async with aio.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(aio.CoreV1EventSink())
        recorder = broadcaster.new_recorder("backup-operator")
        recorder.event(pod, "Warning", "BackupFailed", "the bucket is gone")
"""

from __future__ import annotations

import inspect
import logging
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast, overload

from kevents._aio_core import TaskBroadcaster
from kevents._aio_sink import CoreV1EventSink, EventSink
from kevents._aio_stream import StreamHandler
from kevents._aio_threads import in_thread
from kevents._aio_watcher import EventStream, Watcher, bind
from kevents._log import is_speaking

if TYPE_CHECKING:
    from types import TracebackType

    from tenacity import RetryCallState
    from typing_extensions import Self

    from kevents._losses import OnDrop
    from kevents._objects import Event, EventSource
    from kevents._options import CorrelatorOptions
    from kevents._recorder import EventRecorder
    from kevents._statistics import Statistics
    from kevents._watcher import Watcher as ThreadedWatcher

__all__ = ["CoreV1EventSink", "EventBroadcaster", "EventSink", "EventStream", "Watcher"]


class EventBroadcaster:
    """Gives recorders, and hands what they record to watchers (client-go: ``NewBroadcaster``).

    As :class:`kevents.EventBroadcaster`, with the same options, for asynchronous sinks. Its recorders are the same
    plain calls, never awaited, in coroutines of any loop and in threads. ``async with`` shuts down at the end.

    A sink's tasks live in the loop that runs when it is started; if none does, in the first in which the broadcaster
    is entered or awaited. If that loop ends before ``await shutdown()``, what is left waits for the next one of these,
    and is given up, counted and logged, at the interpreter's exit.

    Args:
        correlator_options: What counts as the same, for every sink; None: client-go's defaults.
        sleep_duration: The longest pause between two tries to write that is not asked for by the server or by a
            ``retry_wait``, in seconds.
        queue_length: How many events each watcher's mailbox holds; what does not fit is dropped and counted.
        clock: Nanoseconds since the epoch, for the events' names and times.
        strict: Whether recorders raise what they would otherwise log: for tests.
        on_drop: Called with reason, event (or None) and the number of recorded events for every loss, in whatever
            thread notices it, the loop's too.
        max_message_bytes: To which messages are cut; None: only to what the API server could ever store.

    Raises:
        ValueError: If an option makes no sense.

    .. versionadded:: 0.1
    """

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
        self._core = TaskBroadcaster(
            correlator_options=correlator_options,
            sleep_duration=sleep_duration,
            queue_length=queue_length,
            clock=clock,
            strict=strict,
            on_drop=on_drop,
            max_message_bytes=max_message_bytes,
        )
        self._watchers: weakref.WeakValueDictionary[str, Watcher] = weakref.WeakValueDictionary()

    def new_recorder(self, source: EventSource | str) -> EventRecorder:
        """A recorder of events of a source (client-go: ``NewRecorder``).

        Args:
            source: Or the component's name alone; the host is then left empty.
        """
        return self._core.new_recorder(source)

    # -- watchers ------------------------------------------------------------------------------------------------

    def start_logging(self, logf: Callable[..., object]) -> Watcher:
        """Log each event through a printf-like function, in a thread of its own (client-go: ``StartLogging``).

        Args:
            logf: Called with a format and its arguments, as ``logger.info``.
        """
        return self._shown(self._core.start_logging(logf))

    def start_structured_logging(self, level: int = logging.INFO, *, logger: logging.Logger | None = None) -> Watcher:
        """Log each event with its fields as ``extra`` (client-go: ``StartStructuredLogging``).

        Args:
            level: Of the records.
            logger: Without one, the logger ``kevents.events``.
        """
        return self._shown(self._core.start_structured_logging(level, logger=logger))

    @overload
    def start_event_watcher(self) -> EventStream: ...

    @overload
    def start_event_watcher(self, handler: Callable[[Event], object]) -> Watcher: ...

    def start_event_watcher(self, handler: Callable[[Event], object] | None = None) -> Watcher:
        """Iterate over the events, or call a handler with each, in a thread (client-go: ``StartEventWatcher``).

        Args:
            handler: A plain function; what it raises is counted and logged. None: the watcher is an
                :class:`EventStream`.

        Raises:
            TypeError: If the handler is a coroutine function.
        """
        if handler is None:
            stream = StreamHandler()
            return EventStream(self._core.start_with(stream), stream)
        if inspect.iscoroutinefunction(handler):
            raise TypeError(
                "a handler is called in a thread; iterate instead: `async for event in start_event_watcher()`"
            )
        return self._shown(self._core.start_event_watcher(handler))

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

        Args:
            sink: Usually a :class:`CoreV1EventSink`. The same sink again gives the watcher that exists.
            senders: How many requests may be under way at once.
            backlog: How many different events may wait to be written.
            max_age: Seconds after which an event that cannot be written is given up.
            retry_wait: A tenacity wait for the pauses between tries.

        Raises:
            TypeError: If the sink is none, or one that is called in threads.
            ValueError: If a number makes no sense.
        """
        watcher = self._core.start_recording_to_sink(
            cast("Any", sink), senders=senders, backlog=backlog, max_age=max_age, retry_wait=retry_wait
        )
        bind(watcher)
        return self._shown(watcher)

    def _shown(self, watcher: ThreadedWatcher) -> Watcher:
        return self._watchers.setdefault(watcher.name, Watcher(watcher))

    # -- the end -------------------------------------------------------------------------------------------------

    async def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything recorded before the call has ended, in every watcher.

        It can be cancelled, as by ``asyncio.wait_for``.

        Args:
            timeout: Seconds; None: as long as it takes.

        Returns:
            True when all of it was delivered, or dropped for a reason; False at the time-out, and at once where it
            cannot be waited for: in a thread of one of the watchers, in a sink, in the task that reads a stream.
        """
        self._core.bind()
        if is_speaking() or self._core.is_busy_here():
            return False
        given_up = threading.Event()
        try:
            return await in_thread(
                "kevents-flush",
                partial(self._core.flush_until, given_up.is_set),
                None if timeout is None else monotonic() + timeout,
            )
        finally:
            given_up.set()

    async def shutdown(self, timeout: float = 5.0) -> int:
        """Take no more events, deliver what there is, and end; close what kevents opened (client-go: ``Shutdown``).

        A second call waits for the first; one that is cancelled goes on by itself. Events recorded from now on are
        dropped and counted.

        Args:
            timeout: Seconds after which what is left is given up, requests that are under way too.

        Returns:
            How many events were given up, over all watchers; 0 for every call but the first, and at once where it
            cannot be waited for: in a sink.
        """
        self._core.bind()
        deadline = monotonic() + timeout
        end = self._core.begin_shutdown(deadline)
        if self._core.owns_this_thread():
            return end(deadline)
        given_up = in_thread("kevents-shutdown", end, deadline)
        return 0 if is_speaking() else await given_up

    def statistics(self) -> Statistics:
        """A snapshot of the ledgers, each exact in itself."""
        return self._core.statistics()

    async def __aenter__(self) -> Self:
        """Itself."""
        self._core.bind()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        await self.shutdown()
