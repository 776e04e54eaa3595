"""Publishes each recorded event to every watcher, and sees to it that all of them come to an end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from kevents._broadcast.publisher import Publisher
from kevents._broadcast.recorder import EventRecorder, source_of
from kevents._broadcast.watcher import Watcher
from kevents._correlation.decisions import CoreDecider
from kevents._correlation.options import CorrelatorOptions
from kevents._delivery.dispatcher import Dispatcher
from kevents._delivery.drop_reporter import DropReporter, OnDrop
from kevents._delivery.handlers import CallHandler, log_plainly, log_structured
from kevents._delivery.sender_threads import SenderThreadPool
from kevents._model.objects import Event
from kevents._model.validation import require_callable, require_count, require_positive, require_sink
from kevents._model.wire import CORE_GROUP
from kevents._runtime.log import LimitedLog, log_limited

if TYPE_CHECKING:
    from types import TracebackType

    from tenacity import RetryCallState
    from typing_extensions import Self

    from kevents._clients.sync import EventSink
    from kevents._correlation.decisions import Decider
    from kevents._delivery.handlers import Handler
    from kevents._model.objects import EventSource
    from kevents._model.statistics import Statistics

E = TypeVar("E", bound=Event)


class Broadcaster(Generic[E]):
    """What the broadcasters of both APIs have in common: watchers, and one end for all of them.

    Its options are theirs, but for the API group in which the events are written.
    """

    def __init__(
        self,
        *,
        sleep_duration: float,
        queue_length: int,
        clock: Callable[[], int],
        strict: bool,
        on_drop: OnDrop | None,
        api_group: str = CORE_GROUP,
    ) -> None:
        """Check the options."""
        require_callable("clock", clock)
        if on_drop is not None:
            require_callable("on_drop", on_drop)
        self._sleep_duration = require_positive("sleep_duration", sleep_duration)
        self._queue_length = require_count("queue_length", queue_length)
        self._api_group = api_group
        self._losses = DropReporter(LimitedLog(), on_drop, api_group)
        self._publisher = Publisher(self._losses, clock, strict=strict)
        self._numbers = count(1)

    # -- watchers ------------------------------------------------------------------------------------------------

    def start_logging(self, logf: Callable[..., object]) -> Watcher:
        """Log each event through a printf-like function, as ``logger.info`` (client-go: ``StartLogging``).

        Args:
            logf: Called with a format and its arguments; line breaks and control characters are escaped.

        Raises:
            ValueError: If it cannot be called.
            TypeError: If it is a coroutine function.
        """
        require_callable("logf", logf)

        return self._start(self._name("logging"), CallHandler(partial(log_plainly, logf)))

    def start_structured_logging(self, level: int = logging.INFO, *, logger: logging.Logger | None = None) -> Watcher:
        """Log each event as ``Event occurred`` with its fields as ``extra`` (client-go: ``StartStructuredLogging``).

        Args:
            level: Of the records.
            logger: Without one, the logger ``kevents.events``.
        """
        require_count("level", level)
        target = logging.getLogger("kevents.events") if logger is None else logger
        require_callable("logger.log", getattr(target, "log", None))

        return self._start(self._name("structured-logging"), CallHandler(partial(log_structured, target, level)))

    def start_event_watcher(self, handler: Callable[[E], object]) -> Watcher:
        """Call a handler with each event, in a thread of its own (client-go: ``StartEventWatcher``).

        Args:
            handler: What it raises is counted and logged; the watcher goes on.

        Raises:
            ValueError: If it cannot be called.
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
        new_delivery = partial(
            Dispatcher,
            self._losses,
            new_decider,
            senders=require_count("senders", senders),
            backlog=require_count("backlog", backlog),
            max_age=require_positive("max_age", max_age),
            sleep_duration=self._sleep_duration,
            retry_wait=retry_wait,
        )
        name = self._name("sink")
        return self._start(name, self._new_crew(new_delivery, sink, senders, name))

    def _new_crew(self, new_delivery: Callable[..., Dispatcher], sink: EventSink, senders: int, name: str) -> Handler:
        """What sends: threads, unless a face of another kind says otherwise."""
        return SenderThreadPool(new_delivery(), sink, senders, name)

    def _require_sink(self, sink: object) -> None:
        """A sink that what sends can call, and that writes these events."""
        require_sink(sink, self._api_group)

    def _start(self, name: str, handler: Handler) -> Watcher:
        watcher = Watcher(
            name,
            handler,
            self._publisher.turn,
            queue_length=self._queue_length,
            losses=self._losses,
            on_end=self._publisher.remove,
        )
        added = self._publisher.add(watcher)
        if added is None:
            log_limited(logging.ERROR, f"{name} was started after shutdown: it is stopped already")
            watcher.begin_stop(monotonic())
            return watcher
        if added is not watcher:
            log_limited(logging.WARNING, f"this sink is recorded to already, by {added.name}; it is not started again")
        return added

    def _name(self, kind: str) -> str:
        return f"{kind}-{next(self._numbers)}"

    # -- the end -------------------------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything recorded before the call has ended, in every watcher.

        Args:
            timeout: Seconds; None: as long as it takes.

        Returns:
            True when all of it was delivered, or dropped for a reason; False at the time-out, and at once in a
            thread of one of the watchers.
        """
        return self._publisher.flush(None if timeout is None else monotonic() + timeout)

    def shutdown(self, timeout: float = 5.0) -> int:
        """Take no more events, deliver what there is, and end (client-go: ``Shutdown``).

        A second call waits for the first, or goes on with it where Ctrl-C interrupted it or a watcher's own thread,
        which cannot wait for itself, made it. Events recorded from now on are dropped and counted.

        Args:
            timeout: Seconds after which what is left is given up.

        Returns:
            How many events were given up, over all watchers; 0 for a call that another one ends.
        """
        deadline = monotonic() + timeout
        return self._publisher.shutdown(deadline)

    def statistics(self) -> Statistics:
        """A snapshot of the ledgers, each exact in itself."""
        return self._publisher.statistics()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shut down."""
        self.shutdown()


class EventBroadcaster(Broadcaster[Event]):
    """Gives recorders, and hands what they record to watchers (client-go: ``NewBroadcaster``).

    A context manager that shuts down at the end. Building one starts nothing; threads start with the first event.

    Args:
        correlator_options: What counts as the same, for every sink; None: client-go's defaults.
        sleep_duration: The longest pause between two tries to write that is not asked for by the server or by a
            ``retry_wait``, in seconds.
        queue_length: How many events each watcher's mailbox holds; what does not fit is dropped and counted.
        clock: Nanoseconds since the epoch, for the events' names and times.
        strict: Whether recorders raise what they would otherwise log: for tests.
        on_drop: Called with reason, event (or None) and the number of recorded events for every loss but kevents'
            own echo (``recursion``).
        max_message_bytes: To which messages are cut; None: only to what the API server could ever store.

    Raises:
        ValueError: If an option makes no sense.
        TypeError: If a function is a coroutine function.

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
        if correlator_options is not None and not isinstance(correlator_options, CorrelatorOptions):
            raise ValueError(f"correlator_options must be CorrelatorOptions, not {correlator_options!r}")
        if max_message_bytes is not None:
            require_count("max_message_bytes", max_message_bytes)
        super().__init__(
            sleep_duration=sleep_duration, queue_length=queue_length, clock=clock, strict=strict, on_drop=on_drop
        )
        self._options = correlator_options
        self._max_message_bytes = max_message_bytes

    def new_recorder(self, source: EventSource | str) -> EventRecorder:
        """A recorder of events of a source (client-go: ``NewRecorder``).

        Args:
            source: Or the component's name alone; the host is then left empty.

        Raises:
            TypeError: If it is neither, or a part of it no text.
        """
        return EventRecorder(source_of(source), self._publisher.publish, self._publisher.refuse)

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
            TypeError: If the sink is none, an asynchronous one, or one for events of another API; if ``retry_wait``
                is a coroutine function.
            ValueError: If a number makes no sense.
        """
        self._require_sink(sink)
        new_decider = partial(CoreDecider, self._options, self._max_message_bytes)
        return self._record_to(
            sink, new_decider, senders=senders, backlog=backlog, max_age=max_age, retry_wait=retry_wait
        )
