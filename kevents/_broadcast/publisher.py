"""From the caller's thread into every watcher's mailbox: counted, until the end.

This is the inside of a broadcaster. Recorders hold on to it, so that it lives as long as anybody can record.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from kevents._model.objects import Event, EventSource, ObjectReference
from kevents._model.statistics import DropReason, Statistics
from kevents._model.wire import format_error, pluralize
from kevents._runtime.lifecycle import enlist
from kevents._runtime.log import log_limited
from kevents._runtime.reentrant import SECTION, time_left

if TYPE_CHECKING:
    from kevents._broadcast.recorder import Texts
    from kevents._broadcast.watcher import Watcher
    from kevents._delivery.drop_reporter import DropReporter
    from kevents.exceptions import InvalidEventError

_LATEST = 1 << 63


class Publisher:
    """Holds the watchers, gives each event its serial number, and counts. Open, then draining, then stopped.

    Args:
        losses: Tells of what is lost.
        clock: Nanoseconds since the epoch.
        strict: Whether a refused event raises.
    """

    def __init__(self, losses: DropReporter, clock: Callable[[], int], *, strict: bool) -> None:
        """Open, with no watcher."""
        self.turn = SECTION
        self.open = True
        self.watchers: tuple[Watcher, ...] = ()
        self._losses = losses
        self._clock = clock if clock is time.time_ns else partial(self._guarded_clock, clock)
        self._strict = strict
        self._renew()
        enlist(self)

    def _renew(self) -> None:
        self._stopped = threading.Event()
        self._closer = 0
        self._left = threading.Event()  # set while nobody is the closer
        self._left.set()
        self._recorded = self._no_watcher = 0
        self._refused: Counter[DropReason] = Counter()

    # -- recording -----------------------------------------------------------------------------------------------

    def publish(
        self,
        reference: ObjectReference,
        source: EventSource,
        eventtype: str,
        reason: str,
        message: str,
        annotations: Texts,
        labels: Texts,
    ) -> None:
        """Offer an event to every watcher, or count why not. Any thread, at any moment."""
        now = self._clock()
        event = Event(reference, eventtype, reason, message, source, now, 0, annotations, labels)
        if not reference.name:
            event = event.replace(name=str(uuid.uuid4()))
        self.turn.run(self._admit, event)

    def now(self) -> int:
        """The present, as an event is to have it: nanoseconds since the epoch."""
        return self._clock()

    def offer(self, event: Event) -> None:
        """As :meth:`publish`, an event that its recorder has built, of any API, without a serial number yet."""
        self.turn.run(self._admit, event)

    def _admit(self, event: Event) -> None:
        self._recorded += 1
        if not self.open:
            self._refused[DropReason.SHUTDOWN] += 1
            self.turn.defer(partial(self._losses.report, DropReason.SHUTDOWN, event, why="recorded too late"))
            return
        event.serial = self.turn.serial(event.time)
        watchers = self.watchers
        if not watchers:
            self._no_watcher += 1
            self.turn.defer(partial(self._losses.report, DropReason.NO_WATCHER, event))
        for watcher in watchers:
            if not watcher.offer(event):
                self.turn.defer(partial(self._losses.report, DropReason.QUEUE_FULL, event, kind=watcher.name))

    def refuse(self, reason: DropReason, error: InvalidEventError, logger: logging.Logger) -> None:
        """Count an event that cannot be recorded.

        Raises:
            InvalidEventError: If the broadcaster is strict.
        """
        tell = partial(self._losses.report, reason, None, why=str(error), logger=logger)
        self.turn.run(self._count_refused, (reason, tell))
        if self._strict and reason is not DropReason.RECURSION:
            raise error

    def doubt(self, error: InvalidEventError, logger: logging.Logger) -> None:
        """Tell that a part of an event, which it can do without, cannot be recorded.

        Raises:
            InvalidEventError: If the broadcaster is strict.
        """
        if self._strict:
            raise error
        self._losses.log.log_limited(
            ("doubt", type(error)), f"an event is recorded without a part: {error}", logger=logger
        )

    def _count_refused(self, refusal: tuple[DropReason, Callable[[], None]]) -> None:
        reason, tell = refusal
        self._recorded += 1
        self._refused[reason] += 1
        self.turn.defer(tell)

    def _guarded_clock(self, clock: Callable[[], int]) -> int:
        try:
            now = clock()
            if isinstance(now, int) and 0 <= now < _LATEST:
                return now
            trouble = f"gave {now!r}, no nanoseconds since the epoch"
        except Exception as error:  # noqa: BLE001 - a user's clock must not lose an event
            trouble = f"raised {format_error(error)}"
        text = f"the clock {trouble}; the system's is used"
        self.turn.defer(partial(self._losses.log.log_limited, "clock", text, level=logging.ERROR))
        self.turn.run_deferred()
        return time.time_ns()

    # -- watchers ------------------------------------------------------------------------------------------------

    def add(self, watcher: Watcher) -> Watcher | None:
        """Let a watcher see what is published from now on: this one, or the one that feeds the same sink already.

        Returns:
            Which; None after the end.
        """
        sink = watcher.handler.sink
        with self.turn.lock:
            twin = next((other for other in self.watchers if sink is not None and other.handler.sink is sink), None)
            if twin is None and self.open:
                self.watchers = (*self.watchers, watcher)
                return watcher
            return twin

    def remove(self, watcher: Watcher) -> None:
        """A watcher was stopped; those that the end stops stay, for the statistics."""
        with self.turn.lock:
            if self.open:
                self.watchers = tuple(other for other in self.watchers if other is not watcher)

    # -- the end -------------------------------------------------------------------------------------------------

    def flush(self, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:
        """Wait until everything published so far has ended; False at the deadline, or in a watcher's thread."""
        if self.owns_this_thread():
            return False
        with ExitStack() as stack:  # all of them hurry before any is waited for
            marks = [(watcher, stack.enter_context(watcher.hurrying())) for watcher in self.watchers]
            flushed = [
                watcher.await_flush(mark, deadline, given_up) for watcher, mark in marks
            ]  # each, also if one fails
        return all(flushed)

    def nudge(self) -> None:
        """Whoever waits for a flush asks again whether to go on waiting."""
        for watcher in self.watchers:
            watcher.nudge()

    def shutdown(self, deadline: float) -> int:
        """End, or wait for whoever is at it; how many events were given up, 0 if that is another's to say.

        What Ctrl-C interrupted, or a watcher's thread began, which cannot wait for itself, the next call goes on with.
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
        """Refuse every later event, and hurry with those there are; False if somebody is at it, or it is over."""
        with self.turn.lock:
            if self._closer or self._stopped.is_set():
                return False
            self._closer = threading.get_ident()
            self._left.clear()
            self.open = False
        for watcher in self.watchers:
            watcher.begin_stop(deadline)
        return True

    def end_shutdown(self, deadline: float) -> int:
        """Wait for the end of all watchers; how many events were given up at the deadline."""
        given_up = sum(watcher.end_stop(deadline) for watcher in self.watchers)
        if self.owns_this_thread():
            self._leave()
            return given_up
        self._stopped.set()
        self._leave()
        self._losses.log.sum_up()
        if given_up:
            log_limited(logging.WARNING, f"shutdown gave up {pluralize(given_up, 'event')} at its deadline")
        return given_up

    def _leave(self) -> None:
        """Nobody is at the shutdown: whoever waits for it goes on with it, unless it is over."""
        with self.turn.lock:
            self._closer = 0
            self._left.set()

    def flush_at_exit(self, deadline: float) -> None:
        """Deliver what there is, and stay open; but end if there is no thread, and none to be had, to deliver it."""
        if all(watcher.can_work() for watcher in self.watchers):
            self.flush(deadline)
        elif self.begin_shutdown(deadline):
            self.end_shutdown(deadline)

    def await_shutdown(self, deadline: float) -> bool:
        """Wait for a shutdown that somebody else began; not in the thread that did, nor in a watcher's.

        Returns:
            Whether he left it, so that it is to be gone on with.
        """
        if self._closer == threading.get_ident() or self.owns_this_thread():
            return False
        return self._left.wait(time_left(deadline)) and not self._stopped.is_set()

    def owns_this_thread(self) -> bool:
        """Whether the calling thread is one of a watcher's."""
        return any(watcher.owns_this_thread() for watcher in self.watchers)

    def after_fork(self) -> None:
        """In the child: nothing is recorded yet, and the same watchers begin anew. The parent's events are its own."""
        self._renew()
        self._losses.log.renew()
        if not self.open:
            self._stopped.set()
        for watcher in self.watchers:
            watcher.after_fork()

    def statistics(self) -> Statistics:
        """A snapshot of the ledgers, each exact in itself."""
        with self.turn.lock:
            watchers = self.watchers
            recorded, no_watcher, refused = self._recorded, self._no_watcher, dict(self._refused)
        return Statistics(
            recorded=recorded,
            refused=refused,
            no_watcher=no_watcher,
            published=recorded - no_watcher - sum(refused.values()),
            watchers=tuple(watcher.statistics() for watcher in watchers),
        )
