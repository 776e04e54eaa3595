"""Broadcasters: they publish each recorded event to every watcher, and flush and end all watchers together."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from kevents._broadcast.recorder import EventRecorder, reason_of, to_source
from kevents._broadcast.watcher import QueueWatcher, Watcher
from kevents._correlation.correlator import CoreDecider
from kevents._correlation.options import CorrelatorOptions
from kevents._delivery.dispatcher import Dispatcher, SenderThreadPool
from kevents._delivery.drop_reporter import DropReporter, OnDrop
from kevents._delivery.handlers import CallHandler, log_plainly, log_structured
from kevents._model.objects import QUEUE_BYTES, Event
from kevents._model.statistics import DropReason, Statistics
from kevents._model.validation import require_callable, require_count, require_positive, require_sink
from kevents._model.wire import CORE_GROUP, format_error, pluralize
from kevents._runtime.lifecycle import ProcessBound, register
from kevents._runtime.log import LimitedLog, log_line
from kevents._runtime.reentrant import MILLISECOND, SHARED, Counter, time_left

if TYPE_CHECKING:
    from types import TracebackType

    from tenacity import RetryCallState
    from typing_extensions import Self

    from kevents._clients.sync import EventSink
    from kevents._correlation.correlator import Decider
    from kevents._delivery.handlers import Handler
    from kevents._model.objects import EventSource
    from kevents.exceptions import InvalidEventError

E = TypeVar("E", bound=Event)

_END_OF_TIME: Final = 1 << 63
_MESSAGE_START: Final = 100


class WatcherPublisher:
    """Publishes events to watchers, sets their serial numbers and counts them. Open, then draining, then stopped.

    Recorders refer to it instead of the broadcaster, so that it lives as long as events can be recorded.
    """

    def __init__(self, drop_reporter: DropReporter, clock: Callable[[], int], *, strict: bool) -> None:
        self.shared = SHARED
        self.open = True
        self.watchers: tuple[QueueWatcher, ...] = ()
        self.now = clock if clock is time.time_ns else partial(self._guarded_clock, clock)
        self._drop_reporter = drop_reporter
        self._strict = strict
        self._reset()
        register(self)

    def _reset(self) -> None:
        self._stopped = threading.Event()
        self._closer = 0  # the thread that shuts down
        self._free = threading.Event()  # set while no thread shuts down
        self._free.set()
        self._published, self._no_watcher = Counter(), Counter()
        self._refused = {reason: Counter() for reason in DropReason}

    # -- recording -----------------------------------------------------------------------------------------------

    def publish(self, event: Event) -> None:
        """Offer an event to every watcher, or count why it is dropped. A RecursionError has changed nothing."""
        shared, watchers = self.shared, self.watchers
        if not self.open:
            next(self._refused[DropReason.SHUTDOWN].steps)
            shared.postponed += ((self._drop_reporter.report, (DropReason.SHUTDOWN, event, 1, "recorded too late")),)
        elif not watchers:
            next(self._no_watcher.steps)
            shared.postponed += ((self._drop_reporter.report, (DropReason.NO_WATCHER, event)),)
        else:
            if event.time >= shared.serial_time:
                shared.serial_time = (event.time // MILLISECOND + 1) * MILLISECOND
            event.serial = shared.serial_time + next(shared.numbers)
            for watcher in watchers:
                try:
                    watcher.offer(event)
                except RecursionError:  # an earlier watcher has the event already, so it cannot be published again
                    shared.postponed += ((watcher.offer, (event,)),)
            try:
                next(self._published.steps)  # last: a fault above is counted by refuse()
            except RecursionError:
                shared.postponed += ((next, (self._published.steps,)),)
        if shared.postponed:
            try:  # noqa: SIM105 - suppress() needs a frame
                shared.run_postponed()
            except RecursionError:  # a later call runs them; raised, it would have the event published twice
                pass

    def refuse(self, error: Exception, event: Event | None, logger: logging.Logger) -> None:
        """Count and log a call that made no event, of which the parts in ``event`` are known. Raises if strict."""
        reason = reason_of(error)
        next(self._refused[reason].steps)
        self.shared.postponed += ((self._report_refused, (reason, error, event, logger)),)
        try:  # noqa: SIM105 - suppress() needs a frame
            self.shared.run_postponed()
        except RecursionError:  # a later call runs them
            pass
        strict = self._strict or (reason is DropReason.INTERNAL and self._drop_reporter.raise_internal)
        if strict and reason is not DropReason.RECURSION:
            raise error

    def _report_refused(
        self, reason: DropReason, error: Exception, event: Event | None, logger: logging.Logger
    ) -> None:
        message = "" if event is None else event.message
        more = f"; the message begins with {message[:_MESSAGE_START]!r}" if message else ""
        if reason is DropReason.INTERNAL:
            self._drop_reporter.report_fault(error, event, more, logger=logger)
        else:
            self._drop_reporter.report(reason, event, why=str(error) + more, logger=logger)

    def omit(self, error: InvalidEventError, logger: logging.Logger) -> None:
        if self._strict:
            raise error
        text = f"an event is recorded without a part: {error}"
        self._drop_reporter.log.log_limited(("omitted", type(error)), text, logger=logger)

    def report_change(self, text: str, logger: logging.Logger) -> None:
        self._drop_reporter.log.log_limited(("changed", text), text, logger=logger)

    def _guarded_clock(self, clock: Callable[[], int]) -> int:
        try:
            now = clock()
            if isinstance(now, int) and 0 <= now < _END_OF_TIME:
                return now
            problem = f"returned {now!r}, which is not nanoseconds since the epoch"
        except Exception as error:  # noqa: BLE001 - a user's clock must not lose an event
            problem = f"raised {format_error(error)}"
        text = f"the clock {problem}; the system clock is used"
        self.shared.call(partial(self._drop_reporter.log.log_limited, "clock", text, level=logging.ERROR))
        return time.time_ns()

    # -- watchers ------------------------------------------------------------------------------------------------

    def add(self, watcher: QueueWatcher) -> QueueWatcher | None:
        """Add a watcher. Returns it, or another one that writes to the same sink already. None after shutdown."""
        sink = watcher.handler.sink
        with self.shared.lock:
            same = next((other for other in self.watchers if sink is not None and other.handler.sink is sink), None)
            if same is None and self.open:
                self.watchers = (*self.watchers, watcher)
                return watcher
            return same

    def remove(self, watcher: QueueWatcher) -> None:
        """Remove a stopped watcher. After shutdown watchers stay, for the statistics."""
        with self.shared.lock:
            if self.open:
                self.watchers = tuple(other for other in self.watchers if other is not watcher)

    # -- flush and shutdown --------------------------------------------------------------------------------------

    def flush(self, deadline: float | None, cancelled: Callable[[], bool] = bool) -> bool:
        """Wait until all events published so far have ended. False at the deadline and in a watcher's thread."""
        if self.owns_this_thread():
            return False
        self.shared.run_postponed()
        with ExitStack() as stack:  # all watchers begin before the first is waited for
            targets = [(watcher, stack.enter_context(watcher.flushing())) for watcher in self.watchers]
            flushed = [watcher.await_flush(target, deadline, cancelled) for watcher, target in targets]
        return all(flushed)

    def wake(self) -> None:
        """Let callers that wait for a flush check again whether it is cancelled."""
        for watcher in self.watchers:
            watcher.wake()

    def shutdown(self, deadline: float) -> int:
        """Shut down, or wait for a running shutdown. Returns the number of dropped events, 0 if another caller has it.

        The next call continues a shutdown that Ctrl-C interrupted or that began in a watcher's own thread.
        """
        try:
            while not self.begin_shutdown(deadline):
                if not self.await_shutdown(deadline):
                    return 0
            return self.end_shutdown(deadline)
        except BaseException:
            if self._closer == threading.get_ident():
                self._leave()
            raise

    def begin_shutdown(self, deadline: float) -> bool:
        """Refuse further events and start to drain the queues. False if a shutdown is running or complete."""
        self.shared.run_postponed()
        with self.shared.lock:
            if self._closer or self._stopped.is_set():
                return False
            self._closer = threading.get_ident()
            self._free.clear()
            self.open = False
        for watcher in self.watchers:
            watcher.begin_stop(deadline)
        return True

    def end_shutdown(self, deadline: float) -> int:
        """Wait for the end of all watchers. Returns the number of events dropped at the deadline."""
        dropped = sum(watcher.end_stop(deadline) for watcher in self.watchers)
        if self.owns_this_thread():
            self._leave()
            return dropped
        self._stopped.set()
        self._leave()
        self._drop_reporter.log.log_suppressed()
        if dropped:
            log_line(logging.WARNING, f"shutdown dropped {pluralize(dropped, 'event')} at its deadline")
        return dropped

    def _leave(self) -> None:
        """Let another caller continue the shutdown, unless it is complete."""
        with self.shared.lock:
            self._closer = 0
            self._free.set()

    def await_shutdown(self, deadline: float) -> bool:
        """Wait for a shutdown in another thread. True if that left it incomplete, so that the caller must continue.

        It does not wait in the thread that began it, nor in a watcher's thread.
        """
        if self._closer == threading.get_ident() or self.owns_this_thread():
            return False
        return self._free.wait(time_left(deadline)) and not self._stopped.is_set()

    def flush_at_exit(self, deadline: float) -> None:
        """Flush and stay open. Shut down instead if there is no thread for the events and none can be started."""
        if all(watcher.can_work() for watcher in self.watchers):
            self.flush(deadline)
        elif self.begin_shutdown(deadline):
            self.end_shutdown(deadline)

    def owns_this_thread(self) -> bool:
        return any(watcher.owns_this_thread() for watcher in self.watchers)

    def after_fork(self) -> None:
        """In the child: start with nothing recorded and the same watchers. The parent's events stay with the parent."""
        self._reset()
        self._drop_reporter.log.reset()
        if not self.open:
            self._stopped.set()
        for watcher in self.watchers:
            watcher.after_fork()

    def statistics(self) -> Statistics:
        """A snapshot of the statistics of the broadcaster and its watchers. They agree while no event is recorded."""
        self.shared.run_postponed()
        refused = {reason: events for reason, counter in self._refused.items() if (events := counter.value)}
        published, no_watcher = self._published.value, self._no_watcher.value
        return Statistics(
            recorded=published + no_watcher + sum(refused.values()),
            refused=refused,
            no_watcher=no_watcher,
            published=published,
            watchers=tuple(watcher.statistics() for watcher in self.watchers),
        )


class Broadcaster(ProcessBound, Generic[E]):
    """Base of the broadcasters of both APIs: it starts watchers and ends them.

    Its options are documented there; ``api_group`` is the group of the events that its sinks write.
    """

    _sender_pool: type[Dispatcher] = SenderThreadPool

    def __init__(
        self,
        *,
        sleep_duration: float,
        queue_length: int,
        queue_bytes: int,
        clock: Callable[[], int],
        strict: bool,
        on_drop: OnDrop | None,
        api_group: str = CORE_GROUP,
    ) -> None:
        require_callable("clock", clock)
        if on_drop is not None:
            require_callable("on_drop", on_drop)
        self._sleep_duration = require_positive("sleep_duration", sleep_duration)
        self._queue_length = require_count("queue_length", queue_length)
        self._queue_bytes = require_count("queue_bytes", queue_bytes)
        self._api_group = api_group
        self._drop_reporter = DropReporter(LimitedLog(), on_drop, api_group)
        self._publisher = WatcherPublisher(self._drop_reporter, clock, strict=strict)
        self._numbers = count(1)

    # -- watchers ------------------------------------------------------------------------------------------------

    def start_logging(self, logf: Callable[..., object]) -> Watcher:
        """Log each event through a printf-like function, as ``logger.info`` (client-go: ``StartLogging``).

        Args:
            logf: Called with a format and its arguments. Line breaks and control characters are escaped.

        Raises:
            ValueError: If it is not callable.
            TypeError: If it is a coroutine function.
        """
        require_callable("logf", logf)
        return self._start(self._name("logging"), CallHandler(partial(log_plainly, logf)))

    def start_structured_logging(self, level: int = logging.INFO, *, logger: logging.Logger | None = None) -> Watcher:
        """Log each event as ``Event occurred`` with its fields as ``extra`` (client-go: ``StartStructuredLogging``).

        Args:
            level: Level of the log records.
            logger: Default: the logger ``kevents.events``.
        """
        require_count("level", level)
        target = logging.getLogger("kevents.events") if logger is None else logger
        require_callable("logger.log", getattr(target, "log", None))
        return self._start(self._name("structured-logging"), CallHandler(partial(log_structured, target, level)))

    def start_event_watcher(self, handler: Callable[[E], object]) -> Watcher:
        """Call a handler with each event, in a thread of its own (client-go: ``StartEventWatcher``).

        Args:
            handler: Its exceptions are counted and logged; the watcher continues.

        Raises:
            ValueError: If it is not callable.
            TypeError: If it is a coroutine function.
        """
        require_callable("handler", handler)
        return self._start(self._name("watcher"), CallHandler(cast("Callable[[Event], object]", handler)))

    def _record_to(
        self,
        sink: EventSink,
        new_decider: Callable[[], Decider],
        *,
        senders: int,
        backlog: int,
        max_age: float,
        retry_wait: Callable[[RetryCallState], float] | None,
    ) -> Watcher:
        if retry_wait is not None:
            require_callable("retry_wait", retry_wait)
        pool = self._sender_pool(
            self._drop_reporter,
            new_decider,
            sink,
            senders=require_count("senders", senders),
            backlog=require_count("backlog", backlog),
            backlog_bytes=self._queue_bytes,
            max_age=require_positive("max_age", max_age),
            sleep_duration=self._sleep_duration,
            retry_wait=retry_wait,
            name=self._name("sink"),
        )
        return self._start(pool.name, pool)

    def _require_sink(self, sink: object) -> None:
        require_sink(sink, self._api_group)

    def _start(self, name: str, handler: Handler) -> QueueWatcher:
        publisher = self._publisher
        watcher = QueueWatcher(
            name,
            handler,
            publisher.shared,
            queue_length=self._queue_length,
            queue_bytes=self._queue_bytes,
            drop_reporter=self._drop_reporter,
            on_end=publisher.remove,
        )
        added = publisher.add(watcher)
        if added is None:
            log_line(logging.ERROR, f"{name} was started after shutdown: it is stopped already")
            watcher.begin_stop(monotonic())
            return watcher
        if added is not watcher:
            log_line(logging.WARNING, f"this sink is recorded to already, by {added.name}; it is not started again")
        return added

    def _name(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    # -- flush and shutdown --------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until every event recorded before the call has ended, in every watcher.

        Args:
            timeout: Seconds. None for no timeout.

        Returns:
            True if each was delivered, or dropped for a reason. False at the timeout, and at once in a thread of one
            of the watchers.
        """
        return self._publisher.flush(None if timeout is None else monotonic() + timeout)

    def shutdown(self, timeout: float = 5.0) -> int:
        """Refuse further events, deliver the pending ones, and end (client-go: ``Shutdown``).

        A second call waits for the first. It continues a shutdown that Ctrl-C interrupted, or that a watcher's own
        thread began, which cannot wait for itself. Events recorded later are dropped and counted.

        Args:
            timeout: Seconds after which the remaining events are dropped.

        Returns:
            Number of dropped events over all watchers. 0 if another call reports them.
        """
        return self._publisher.shutdown(monotonic() + timeout)

    def statistics(self) -> Statistics:
        """A snapshot of the statistics of the broadcaster and its watchers. They agree while no event is recorded."""
        return self._publisher.statistics()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()


class EventBroadcaster(Broadcaster[Event]):
    """Creates recorders and passes their events to watchers (client-go: ``NewBroadcaster``).

    As a context manager it shuts down at the end of the block. Creating it starts nothing; threads start with the
    first event.

    Args:
        correlator_options: The options of every sink's correlator. None for client-go's defaults.
        sleep_duration: Longest pause in seconds between two attempts to write an event. The server or a ``retry_wait``
            may ask for longer ones.
        queue_length: Number of events that the queue of each watcher holds. Further ones are dropped and counted.
        queue_bytes: Bytes of memory that the events in the queue of each watcher take, with those being handled, and
            again those that wait to be written. An event in a queue counts as at least 1 KiB. Further ones are dropped
            and counted.
        clock: Nanoseconds since the epoch, for the names and times of events.
        strict: Whether recorders raise errors instead of logging them. Meant for tests.
        on_drop: Called with reason, event (or None) and number of recorded events for every loss except ``recursion``.
        max_message_bytes: Longer messages are cut. None: only those that the API server can never store.

    Raises:
        ValueError: If an option is out of range or of the wrong type.
        TypeError: If a function is a coroutine function.
    """

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
        if correlator_options is not None and not isinstance(correlator_options, CorrelatorOptions):
            raise ValueError(f"correlator_options must be CorrelatorOptions, not {correlator_options!r}")
        if max_message_bytes is not None:
            require_count("max_message_bytes", max_message_bytes)
        super().__init__(
            sleep_duration=sleep_duration,
            queue_length=queue_length,
            queue_bytes=queue_bytes,
            clock=clock,
            strict=strict,
            on_drop=on_drop,
        )
        self._options = correlator_options
        self._max_message_bytes = max_message_bytes

    def new_recorder(self, source: EventSource | str) -> EventRecorder:
        """Create a recorder (client-go: ``NewRecorder``).

        Args:
            source: Source of its events, or only the component's name.

        Raises:
            TypeError: If it is neither, or one of its fields is not a str.
        """
        return EventRecorder(to_source(source), self._publisher)

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
            sink: Usually a :class:`~kevents.CoreV1EventSink`. For a sink that is in use the existing watcher is
                returned.
            senders: Maximum number of concurrent requests.
            backlog: Maximum number of different events that wait to be written.
            max_age: Seconds after which an event that cannot be written is dropped. The default is the time for which
                the API server keeps events.
            retry_wait: A tenacity wait for the pauses between attempts. None: 1, 2, 4 ... seconds up to the
                broadcaster's ``sleep_duration``, each shortened at random by up to a half.

        Raises:
            TypeError: If the sink has no ``create`` and ``patch``, is asynchronous or writes to another API; if
                ``retry_wait`` is a coroutine function.
            ValueError: If a number is out of range.
        """
        self._require_sink(sink)
        new_decider = partial(CoreDecider, self._options, self._max_message_bytes)
        return self._record_to(
            sink, new_decider, senders=senders, backlog=backlog, max_age=max_age, retry_wait=retry_wait
        )
