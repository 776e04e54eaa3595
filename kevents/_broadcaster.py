"""Publishes each recorded event to every watcher, and sees to it that all of them come to an end."""

from __future__ import annotations

import inspect
import logging
import math
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from enum import Enum
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Final

from kevents._delivery import Delivery
from kevents._handlers import CallHandler
from kevents._log import LimitedLog, say, speaking
from kevents._losses import Losses, OnDrop
from kevents._objects import Event, EventSource, ObjectReference
from kevents._options import CorrelatorOptions
from kevents._recorder import EventRecorder, Texts
from kevents._senders import SenderCrew
from kevents._sink import EventSink
from kevents._statistics import DropReason, Statistics
from kevents._turn import Turn
from kevents._watcher import Watcher
from kevents._wire import printable, told

if TYPE_CHECKING:
    from types import TracebackType

    from tenacity import RetryCallState

    from kevents._handlers import Handler
    from kevents.exceptions import InvalidEventError

_TURN: Final = Turn()
"""One for the process: serial numbers grow strictly over all broadcasters."""

_LATEST = 1 << 63


class _State(Enum):
    OPEN = "open"
    DRAINING = "draining"
    STOPPED = "stopped"


class EventBroadcaster:
    """Gives recorders, and hands what they record to watchers (client-go: ``NewBroadcaster``).

    A context manager that shuts down at the end. Building one starts nothing; threads start with the first event.

    Args:
        correlator_options: What counts as the same, for every sink; None: client-go's defaults.
        sleep_duration: The longest pause between two tries to write, in seconds.
        queue_length: How many events each watcher's mailbox holds; what does not fit is dropped and counted.
        clock: Nanoseconds since the epoch, for the events' names and times.
        strict: Whether recorders raise what they would otherwise log: for tests.
        on_drop: Called with reason, event (or None) and the number of recorded events for every loss.
        max_message_bytes: To which messages are cut; None: only to what the API server could ever store.

    Raises:
        ValueError: If an option makes no sense.

    .. versionadded:: 0.1
    """

    def __init__(  # noqa: PLR0913
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
        if correlator_options is not None and not isinstance(correlator_options, CorrelatorOptions):
            raise ValueError(f"correlator_options must be CorrelatorOptions, not {correlator_options!r}")
        _require_callable("clock", clock)
        if on_drop is not None:
            _require_callable("on_drop", on_drop)
        if max_message_bytes is not None:
            _require_count("max_message_bytes", max_message_bytes)
        self._options = correlator_options
        self._sleep_duration = _require_seconds("sleep_duration", sleep_duration)
        self._queue_length = _require_count("queue_length", queue_length)
        self._clock = clock if clock is time.time_ns else partial(self._guarded_clock, clock)
        self._strict = strict
        self._max_message_bytes = max_message_bytes
        self._turn = _TURN
        self._losses = Losses(LimitedLog(threading.RLock()), on_drop)
        self._state = _State.OPEN
        self._stopped = threading.Event()
        self._stopper = 0
        self._numbers = count(1)
        self._watchers: tuple[Watcher, ...] = ()
        self._recorded = self._no_watcher = 0
        self._refused: Counter[DropReason] = Counter()

    # -- recording -----------------------------------------------------------------------------------------------

    def new_recorder(self, source: EventSource | str) -> EventRecorder:
        """A recorder of events of a source (client-go: ``NewRecorder``).

        Args:
            source: Or the component's name alone; the host is then left empty.
        """
        if isinstance(source, str):
            source = EventSource(source)
        if not isinstance(source, EventSource):
            raise TypeError(f"source must be an EventSource or a component's name, not {source!r}")
        return EventRecorder(source, self._publish, self._refuse)

    def _publish(  # noqa: PLR0913
        self,
        reference: ObjectReference,
        source: EventSource,
        eventtype: str,
        reason: str,
        message: str,
        annotations: Texts,
        labels: Texts,
    ) -> None:
        now = self._clock()

        def admit() -> None:
            self._recorded += 1
            if self._state is not _State.OPEN:
                self._refused[DropReason.SHUTDOWN] += 1
                self._turn.afterwards(partial(self._losses.tell, DropReason.SHUTDOWN, None, why="recorded too late"))
                return
            event = Event(
                reference=reference,
                type=eventtype,
                reason=reason,
                message=message,
                source=source,
                time=now,
                serial=self._turn.serial(now),
                annotations=annotations,
                labels=labels,
                name="" if reference.name else str(uuid.uuid4()),
            )
            self._offer(event)

        self._turn.run(admit)

    def _offer(self, event: Event) -> None:
        watchers = self._watchers
        if not watchers:
            self._no_watcher += 1
            self._turn.afterwards(partial(self._losses.tell, DropReason.NO_WATCHER, event))
        for watcher in watchers:
            if not watcher.offer(event):
                self._turn.afterwards(partial(self._losses.tell, DropReason.QUEUE_FULL, event, kind=watcher.name))

    def _refuse(self, reason: DropReason, error: InvalidEventError, logger: logging.Logger) -> None:
        self._turn.run(partial(self._count_refused, reason))
        self._losses.tell(reason, None, why=str(error), logger=logger)
        if self._strict and reason is not DropReason.RECURSION:
            raise error

    def _count_refused(self, reason: DropReason) -> None:
        self._recorded += 1
        self._refused[reason] += 1

    def _guarded_clock(self, clock: Callable[[], int]) -> int:
        try:
            now = clock()
            if isinstance(now, int) and 0 <= now < _LATEST:
                return now
            trouble = f"gave {now!r}, no nanoseconds since the epoch"
        except Exception as error:  # noqa: BLE001 - a user's clock must not lose an event
            trouble = f"raised {told(error)}"
        self._losses.log.say("clock", f"the clock {trouble}; the system's is used", level=logging.ERROR)
        return time.time_ns()

    # -- watchers ------------------------------------------------------------------------------------------------

    def start_logging(self, logf: Callable[..., object]) -> Watcher:
        """Log each event through a printf-like function, as ``logger.info`` (client-go: ``StartLogging``).

        Args:
            logf: Called with a format and its arguments; line breaks and control characters are escaped.
        """
        _require_callable("logf", logf)

        def log(event: Event) -> None:
            with speaking():
                logf(
                    "Event(%s): type: '%s' reason: '%s' %s",
                    printable(repr(event.reference)),
                    event.type,
                    printable(event.reason),
                    printable(event.message),
                )

        return self._start("logging", CallHandler(log))

    def start_structured_logging(self, level: int = logging.INFO, *, logger: logging.Logger | None = None) -> Watcher:
        """Log each event as ``Event occurred`` with its fields as ``extra`` (client-go: ``StartStructuredLogging``).

        Args:
            level: Of the records.
            logger: Without one, the logger ``kevents.events``.
        """
        target = logger or logging.getLogger("kevents.events")

        def log(event: Event) -> None:
            reference = event.reference
            fields = {
                "object": f"{reference.namespace}/{reference.name}" if reference.namespace else reference.name,
                "field_path": reference.field_path,
                "kind": reference.kind,
                "api_version": reference.api_version,
                "type": event.type,
                "reason": event.reason,
                "event_message": event.message,  # "message" is the log record's own
            }
            fields = {name: printable(value) for name, value in fields.items()}
            with speaking():
                target.log(level, "Event occurred", extra=fields)

        return self._start("structured-logging", CallHandler(log))

    def start_event_watcher(self, handler: Callable[[Event], object]) -> Watcher:
        """Call a handler with each event, in a thread of its own (client-go: ``StartEventWatcher``).

        Args:
            handler: What it raises is counted and logged; the watcher goes on.
        """
        _require_callable("handler", handler)
        return self._start("watcher", CallHandler(handler))

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
            sink: Usually a :class:`~kevents.CoreV1EventSink`. The same sink again gives the watcher that exists.
            senders: How many requests may be under way at once.
            backlog: How many different events may wait to be written.
            max_age: Seconds after which an event that cannot be written is given up: as long as the API server
                keeps events.
            retry_wait: A tenacity wait for the pauses between tries; None: 1, 2, 4 ... seconds up to the
                broadcaster's ``sleep_duration``, a random share of each.

        Raises:
            TypeError: If the sink is none, or an asynchronous one.
            ValueError: If a number makes no sense.
        """
        _require_sink(sink)
        for watcher in self._watchers:
            if isinstance(watcher.handler, SenderCrew) and watcher.handler.sink is sink:
                say(logging.WARNING, f"this sink is recorded to already, by {watcher.name}; it is not started again")
                return watcher
        delivery = Delivery(
            self._losses,
            self._options,
            senders=_require_count("senders", senders),
            backlog=_require_count("backlog", backlog),
            max_age=_require_seconds("max_age", max_age),
            sleep_duration=self._sleep_duration,
            retry_wait=retry_wait,
            max_message_bytes=self._max_message_bytes,
        )
        name = f"sink-{next(self._numbers)}"
        return self._start(name, SenderCrew(delivery, sink, senders, name), numbered=True)

    def _start(self, name: str, handler: Handler, *, numbered: bool = False) -> Watcher:
        watcher = Watcher(
            name if numbered else f"{name}-{next(self._numbers)}",
            handler,
            self._turn,
            queue_length=self._queue_length,
            losses=self._losses,
            on_end=self._forget,
        )
        with self._turn.lock:
            open_ = self._state is _State.OPEN
            if open_:
                self._watchers = (*self._watchers, watcher)
        if not open_:
            say(logging.ERROR, f"{watcher.name} was started after shutdown: it is stopped already")
            watcher.begin_stop(monotonic())
        return watcher

    def _forget(self, watcher: Watcher) -> None:
        """A watcher was stopped; those that shutdown stops stay, for the statistics."""
        with self._turn.lock:
            if self._state is _State.OPEN:
                self._watchers = tuple(other for other in self._watchers if other is not watcher)

    # -- the end -------------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything recorded before the call has ended, in every watcher.

        Args:
            timeout: Seconds; None: as long as it takes.

        Returns:
            True when all of it was delivered, or dropped for a reason; False at the time-out, and at once in a
            thread of one of the watchers.
        """
        deadline = None if timeout is None else monotonic() + timeout
        watchers = self._watchers
        if self._owns_this_thread():
            return False
        return all([watcher.flush(deadline) for watcher in watchers])

    def shutdown(self, timeout: float = 5.0) -> int:
        """Take no more events, deliver what there is, and end (client-go: ``Shutdown``).

        A second call waits for the first. Events recorded from now on are dropped and counted.

        Args:
            timeout: Seconds after which what is left is given up.

        Returns:
            How many events were given up, over all watchers; 0 for every call but the first.
        """
        deadline = monotonic() + timeout
        with self._turn.lock:
            first = self._state is _State.OPEN
            if first:
                self._state = _State.DRAINING
                self._stopper = threading.get_ident()
            watchers = self._watchers
        if not first:
            if self._stopper != threading.get_ident() and not self._owns_this_thread():
                self._stopped.wait(max(deadline - monotonic(), 0.0))
            return 0
        for watcher in watchers:
            watcher.begin_stop(deadline)
        given_up = sum(watcher.end_stop(deadline) for watcher in watchers)
        self._state = _State.STOPPED
        self._stopped.set()
        self._losses.log.sum_up()
        if given_up:
            say(logging.WARNING, f"shutdown gave up {given_up} events after {timeout:g} s")
        return given_up

    def _owns_this_thread(self) -> bool:
        return any(watcher.owns_this_thread() for watcher in self._watchers)

    def statistics(self) -> Statistics:
        """A snapshot of the ledgers, each exact in itself."""
        with self._turn.lock:
            watchers = self._watchers
            recorded, no_watcher, refused = self._recorded, self._no_watcher, dict(self._refused)
        return Statistics(
            recorded=recorded,
            refused=refused,
            no_watcher=no_watcher,
            published=recorded - no_watcher - sum(refused.values()),
            watchers=tuple(watcher.statistics() for watcher in watchers),
        )

    def __enter__(self) -> EventBroadcaster:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        self.shutdown()


def _require_callable(name: str, value: object) -> None:
    if not callable(value):
        raise ValueError(f"{name} must be callable, not {value!r}")


def _require_count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def _require_seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a number of seconds above 0, not {value!r}")
    return float(value)


def _require_sink(sink: object) -> None:
    for method in ("create", "patch"):
        function = getattr(sink, method, None)
        if not callable(function):
            raise TypeError(f"{type(sink).__name__} is no EventSink: it has no method {method}")
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{type(sink).__name__}.{method} is a coroutine function: this broadcaster needs a plain one")
