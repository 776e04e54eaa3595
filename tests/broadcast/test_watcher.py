"""One watcher: its queue, worker, ledger and shutdown."""

from __future__ import annotations

import _thread
import logging
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest

from kevents import Event, EventSource, WatcherStatistics
from kevents._broadcast.watcher import _PAGE, QueueWatcher, State, Worker
from kevents._delivery.drop_reporter import DropReporter
from kevents._delivery.handlers import CallHandler, Handled
from kevents._model.objects import memory_of
from kevents._model.statistics import DropReason
from kevents._model.wire import NO_TEXTS
from kevents._runtime.log import LimitedLog
from kevents._runtime.reentrant import Shared
from tests.support.sinks import PATIENCE, Gate, about, thread_names


class Station:
    """A single watcher, and a way to publish events to it."""

    def __init__(self, handler: Callable[[Event], object], *, queue_length: int = 10_000, **options: int) -> None:
        self.shared = Shared()
        self.serial = 0
        self.message = "m"
        self.annotations: dict[str, str] = {}
        self.make: Callable[..., Event] = Event
        self.drops: list[tuple[DropReason, int]] = []
        self.ended: list[QueueWatcher] = []
        drop_reporter = DropReporter(LimitedLog(), lambda reason, _, events: self.drops.append((reason, events)))
        self.watcher = QueueWatcher(
            "w",
            CallHandler(handler),
            self.shared,
            queue_length=queue_length,
            **options,
            drop_reporter=drop_reporter,
            on_end=self.ended.append,
        )

    def publish(self, number: int = 1) -> None:
        """Offer that many events."""
        for _ in range(number):
            self.serial += 1
            self.watcher.offer(self.event())
            self.shared.run_postponed()

    def event(self) -> Event:
        """The latest event."""
        return self.make(
            reference=about(),
            type="Normal",
            reason="R",
            message=self.message,
            source=EventSource(),
            time=0,
            serial=self.serial,
            annotations=self.annotations or NO_TEXTS,
        )

    def ledger(self, **expected: int) -> WatcherStatistics:
        """The expected ledger, with 0 for all other fields."""
        zero: dict[str, Any] = dict.fromkeys(("offered", "queue_full", "shutdown", "handled", "failed", "waiting"), 0)
        return WatcherStatistics(name="w", **(zero | expected))


@contextmanager
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make starting a thread fail, as at interpreter exit."""

    def refuse(*_: Any, **__: Any) -> int:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        yield


def test_nothing_starts_before_the_first_event() -> None:
    """A watcher has no thread before its first event, and one from then on."""
    station = Station(lambda _: None)
    assert thread_names("kevents-w") == []
    station.publish()
    assert station.watcher.flush(None)
    assert thread_names("kevents-w") == ["kevents-w"]
    assert station.watcher.stop() == 0


def test_every_event_in_order() -> None:
    """Each event is handled once, in the order of publication."""
    seen: list[int] = []
    station = Station(lambda event: seen.append(event.serial))
    station.publish(5000)
    assert station.watcher.flush(None)
    assert seen == list(range(1, 5001))
    assert station.watcher.statistics() == station.ledger(offered=5000, handled=5000)
    assert station.watcher.stop() == 0


def test_a_full_queue_drops_exactly_what_does_not_fit() -> None:
    """Pitfall 4: with a hanging handler memory is bounded, and `queue_full` is exact."""
    gate = Gate(shut=True)
    station = Station(gate.pass_through, queue_length=100)
    station.publish()
    gate.wait_entered()
    station.publish(10_000)
    assert station.watcher.statistics() == station.ledger(offered=10_001, queue_full=9_900, waiting=101)
    gate.open()
    assert station.watcher.flush(None)
    assert station.watcher.statistics() == station.ledger(offered=10_001, queue_full=9_900, handled=101)
    assert station.watcher.stop() == 0


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_handler_that_raises(error: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 6: any exception of a handler is counted and logged once, and the watcher continues."""
    caplog.set_level(logging.WARNING, "kevents")

    def handler(event: Event) -> None:
        if event.serial % 2:
            raise error("odd")

    station = Station(handler)
    station.publish(100)
    assert station.watcher.flush(None)
    assert station.watcher.statistics() == station.ledger(offered=100, handled=50, failed=50)
    assert station.watcher.stop() == 0
    assert station.drops == [(DropReason.HANDLER_FAILED, 1)] * 50
    assert [f"{error.__name__}: odd" in message for message in caplog.messages] == [True]


def test_an_error_without_a_text() -> None:
    """An error whose `__str__` raises is counted like any other."""

    class UntoldError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    def handler(_: Event) -> None:
        raise UntoldError

    station = Station(handler)
    station.publish(3)
    assert station.watcher.flush(None)
    assert station.watcher.statistics() == station.ledger(offered=3, failed=3)
    assert station.watcher.stop() == 0


def test_a_handler_stops_its_watcher() -> None:
    """Pitfall 7: a handler may stop its own watcher: it does not join itself, and all offered events are handled."""
    results: list[int] = []
    published, ends = threading.Event(), threading.Event()
    station = Station(lambda _: results.append(station.watcher.stop()) if published.wait(PATIENCE) else None)
    station.watcher._on_end = lambda _: ends.set() if station.watcher._worker.ended else None
    station.publish(3)
    published.set()
    assert ends.wait(PATIENCE)
    assert results == [0, 0, 0]
    assert station.watcher.statistics() == station.ledger(offered=3, handled=3)


def test_a_handler_does_not_flush() -> None:
    """In the worker's own thread flush returns False immediately: it would wait for itself."""
    results: list[bool] = []
    station = Station(lambda _: results.append(station.watcher.flush(None)))
    station.publish(2)
    assert station.watcher.flush(None)
    assert results == [False, False]
    assert station.watcher.stop() == 0


def test_flush_waits_for_what_was_there() -> None:
    """Flush returns True when all earlier events have ended, although later ones are pending."""
    first, later = Gate(shut=True), Gate(shut=True)
    station = Station(lambda event: (first if event.serial == 1 else later).pass_through())
    station.publish()
    first.wait_entered()
    assert not station.watcher.flush(monotonic())
    flushed: list[bool] = []
    waiting = threading.Thread(target=lambda: flushed.append(station.watcher.flush(None)))
    with station.shared.lock:
        waiting.start()
    _until(station, lambda: station.watcher._worker.flushing == 1)
    station.publish(5)
    first.open()
    waiting.join(PATIENCE)
    assert flushed == [True]
    later.open()
    assert station.watcher.stop() == 0


def test_flush_is_woken_by_the_last_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier events do not wake a caller of flush: each would cost a switch between threads."""
    gate = Gate(shut=True)
    station = Station(lambda _: gate.pass_through())
    station.publish(3)
    gate.wait_entered()
    flushed: list[bool] = []
    waiting = threading.Thread(target=lambda: flushed.append(station.watcher.flush(None)))
    waiting.start()
    _until(station, lambda: bool(station.watcher._targets))
    woken: list[int] = []
    changed = station.watcher._worker.changed
    notify_all = changed.notify_all

    def wake() -> None:
        woken.append(station.watcher._processed.handled)
        notify_all()

    monkeypatch.setattr(changed, "notify_all", wake)
    gate.open()
    waiting.join(PATIENCE)
    assert (flushed, woken) == ([True], [3])
    assert station.watcher.stop() == 0


def _until(station: Station, true: Callable[[], bool]) -> None:
    """Wait until a condition holds under the watcher's lock."""
    deadline = monotonic() + PATIENCE
    seen = False
    while not seen and monotonic() < deadline:
        with station.shared.lock:
            seen = true()
    assert seen


def test_flush_ends_the_wait_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush ends the wait of a worker for more events."""
    monkeypatch.setattr("kevents._broadcast.watcher._BATCH_WAIT", 60.0)
    station = Station(lambda _: None)
    station.publish()
    assert station.watcher.flush(None)  # the first event finds no worker, and so no wait for more
    _until(station, lambda: station.watcher._worker.state is State.IDLE)
    station.publish()
    _until(station, lambda: station.watcher._worker.state is State.BATCHING)
    assert station.watcher.flush(monotonic() + PATIENCE)
    _until(station, lambda: station.watcher._worker.state is State.IDLE)
    station.publish()
    _until(station, lambda: station.watcher._worker.state is State.BATCHING)
    assert station.watcher.stop(PATIENCE) == 0
    assert station.watcher.statistics() == station.ledger(offered=3, handled=3)


def test_a_queue_that_fills_ends_the_wait_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that fills ends the wait of a worker for more events."""
    monkeypatch.setattr("kevents._broadcast.watcher._BATCH_WAIT", 60.0)
    done = Gate()
    station = Station(lambda _: done.pass_through(), queue_length=8)
    station.publish()
    done.wait_entered()
    _until(station, lambda: station.watcher._worker.state is State.IDLE)
    station.publish()
    _until(station, lambda: station.watcher._worker.state is State.BATCHING)
    station.publish(2)
    done.wait_entered(4)
    assert station.watcher.stop() == 0


def test_many_events_are_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker takes the lock once for a whole batch of events."""
    gate, takes = Gate(shut=True), []
    station = Station(lambda _: gate.pass_through())
    take = station.watcher._take
    monkeypatch.setattr(station.watcher, "_take", lambda: takes.append(None) or take())
    station.publish()
    gate.wait_entered()
    station.publish(500)
    gate.open()
    gate.wait_entered(501)
    assert station.watcher.stop() == 0
    assert len(takes) <= 12  # one event, eight times at most 64 events, no event, the end


def test_events_are_given_up_in_the_middle_of_a_batch() -> None:
    """At the deadline handled events count as handled. The event in the handler is dropped, even if it ends later."""
    held = Gate(shut=True)
    station = Station(lambda event: held.pass_through() if event.serial > 2 else None)
    with station.shared.lock:  # the worker takes all of them at once
        station.publish(5)
    held.wait_entered()
    assert station.watcher.stop(0.0) == 3
    assert station.watcher.statistics() == station.ledger(offered=5, handled=2, shutdown=3)
    held.open()
    _join("kevents-w")
    assert station.watcher.statistics() == station.ledger(offered=5, handled=2, shutdown=3)


def test_a_later_stop_has_a_deadline_of_its_own() -> None:
    """Pitfall: a stop after an interrupted one has its own deadline, not the first one's."""
    drained: list[float] = []
    station = Station(lambda _: None)
    station.watcher.handler.begin_stop = drained.append  # type: ignore[method-assign]
    station.watcher.begin_stop(1.0)
    station.watcher.begin_stop(10.0)
    assert drained == [1.0, 10.0]
    assert station.watcher.stop() == 0


def test_idle_means_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 69: an idle watcher waits without a timeout, so that only the next event wakes it."""
    station = Station(lambda _: None)
    station.publish(10)
    assert station.watcher.flush(None)
    _until(station, lambda: station.watcher._worker.state is State.IDLE)
    takes: list[None] = []
    take = station.watcher._take
    monkeypatch.setattr(station.watcher, "_take", lambda: takes.append(None) or take())
    for _ in range(100):
        assert station.watcher.flush(None)
    assert takes == []
    station.publish()
    assert station.watcher.flush(None)
    assert 1 <= len(takes) <= 2
    assert station.watcher.stop() == 0


def test_stop_handles_what_is_there() -> None:
    """Stopping handles all offered events. A second stop does nothing."""
    seen: list[int] = []
    station = Station(lambda event: seen.append(event.serial))
    station.publish(1000)
    assert [station.watcher.stop(), station.watcher.stop()] == [0, 0]
    assert len(seen) == 1000
    assert set(station.ended) == {station.watcher}


def test_stop_at_the_deadline() -> None:
    """At the deadline the queued events and the one in a hanging handler are dropped, reported and counted once."""
    gate = Gate(shut=True)
    station = Station(gate.pass_through)
    station.publish(5)
    gate.wait_entered()
    assert station.watcher.stop(0.05) == 5
    assert station.drops == [(DropReason.SHUTDOWN, 5)]
    assert station.watcher.statistics() == station.ledger(offered=5, shutdown=5)
    gate.open()
    _join("kevents-w")
    assert station.watcher.statistics() == station.ledger(offered=5, shutdown=5)
    assert gate.entered == 1
    assert station.watcher.stop() == 0
    assert station.drops == [(DropReason.SHUTDOWN, 5)]


def _join(name: str) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(PATIENCE)


def test_stop_before_any_event() -> None:
    """A watcher without events stops without ever starting a thread."""
    station = Station(lambda _: None)
    with station.watcher as watcher:
        assert station.watcher is watcher
    assert thread_names("kevents-w") == []
    assert station.watcher.flush(None)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, float("nan"), -1.0, 0])
def test_stop_with_any_timeout(timeout: float) -> None:
    """Any timeout is accepted by stop: infinite, NaN, negative or zero."""
    station = Station(lambda _: None)
    station.publish()
    assert station.watcher.flush(None)
    given_up = station.watcher.stop(timeout)
    assert given_up == 0
    station.watcher.flush(monotonic() + timeout)


def test_stop_in_many_threads_at_once() -> None:
    """When several threads stop a watcher at once, events are handled once, and all calls return."""
    for _ in range(50):
        station = Station(lambda _: None)
        station.publish(3)
        begin = threading.Barrier(4)
        results: list[int] = []

        def stop(station: Station = station, begin: threading.Barrier = begin, results: list[int] = results) -> None:
            begin.wait(PATIENCE)
            results.append(station.watcher.stop())

        threads = [threading.Thread(target=stop) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert results == [0] * 4
        assert station.watcher.statistics() == station.ledger(offered=3, handled=3)


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 82: if no thread can be started, events are still recorded, and `stop` handles them in its own thread."""
    threads: list[threading.Thread] = []
    station = Station(lambda _: threads.append(threading.current_thread()))
    with no_threads(monkeypatch):
        station.publish(3)
        assert station.watcher.statistics() == station.ledger(offered=3, waiting=3)
        assert station.watcher.stop() == 0
    assert threads == [threading.current_thread()] * 3
    assert station.watcher.statistics() == station.ledger(offered=3, handled=3)


def test_a_handler_that_stops_in_the_callers_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that `stop` calls in its own thread may stop and flush, as in any worker."""
    results: list[object] = []
    station = Station(lambda _: results.extend((station.watcher.stop(PATIENCE), station.watcher.flush(None))))
    with no_threads(monkeypatch):
        station.publish(2)
        assert station.watcher.stop(2 * PATIENCE) == 0
    assert results == [0, False, 0, False]


@pytest.mark.parametrize("then", ["event", "flush"])
def test_a_thread_later(monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    """A thread that could not be started is tried again at the next event, and by flush."""
    station = Station(lambda _: None)
    with no_threads(monkeypatch):
        station.publish(3)
    if then == "event":
        station.publish()
    assert station.watcher.flush(None)
    assert station.watcher.statistics().handled == (4 if then == "event" else 3)
    assert station.watcher.stop() == 0


def test_only_a_bare_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the worker cannot be started by the starting thread, that thread does the worker's work."""
    seen: list[int] = []
    station = Station(lambda event: seen.append(event.serial))
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "kevents-w":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    station.publish(3)
    assert station.watcher.flush(None)
    assert seen == [1, 2, 3]
    assert station.watcher.stop() == 0


@pytest.mark.parametrize("end", ["flush", "stop"])
def test_a_start_that_was_interrupted(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush and stop repeat a start that Ctrl-C interrupted."""
    station = Station(lambda _: None)
    with monkeypatch.context() as patch:
        patch.setattr(station.watcher._worker, "start", bool)
        station.publish(2)
    assert station.watcher.flush(None) if end == "flush" else station.watcher.stop() == 0
    assert station.watcher.statistics().handled == 2
    assert station.watcher.stop() == 0


def test_only_one_worker() -> None:
    """A watcher that is started several times at once has one worker, and handles no event twice."""
    for _ in range(50):
        seen: list[int] = []
        station = Station(lambda event, seen=seen: seen.append(event.serial))  # type: ignore[misc]
        station.publish(20)
        for _ in range(5):
            station.watcher._worker.start()
        assert station.watcher.flush(None)
        assert seen == list(range(1, 21))
        assert station.watcher.stop() == 0


def test_a_failing_watcher_ends() -> None:
    """A watcher whose every event fails still ends."""
    station = Station(lambda _: 1 / 0)
    station.publish(500)
    assert station.watcher.stop() == 0
    assert station.watcher.statistics() == station.ledger(offered=500, failed=500)


def test_a_batch_that_came_too_late() -> None:
    """Events that the handler refuses as too late are dropped. Earlier failures stay failures."""

    class Late(CallHandler):
        def handle(self, batch: Sequence[Event]) -> Handled:
            return Handled([(event, ValueError()) for event in batch if event.serial == 1], too_late=True)

    station = Station(bool)
    station.watcher.handler = Late(bool)
    station.publish(3)
    assert station.watcher.flush(None)
    assert station.watcher.statistics() == station.ledger(offered=3, failed=1, shutdown=2)
    assert station.watcher.stop() == 2
    assert sorted(station.drops) == [(DropReason.HANDLER_FAILED, 1), (DropReason.SHUTDOWN, 1), (DropReason.SHUTDOWN, 1)]


@pytest.mark.parametrize("deadline", [PATIENCE, 0.0], ids=["handled", "at the deadline"])
def test_an_event_that_is_recorded_while_the_watcher_ends(deadline: float) -> None:
    """An event that is appended to the queue of a watcher that has ended is dropped, counted and reported."""
    gate = Gate(shut=deadline == 0.0)
    station = Station(gate.pass_through)
    station.publish()
    gate.wait_entered()
    given_up = station.watcher.stop(deadline)
    gate.open()
    _join("kevents-w")
    station.publish(2)
    assert station.watcher.flush(None)
    assert station.watcher.statistics() == station.ledger(offered=3, shutdown=2 + given_up, handled=1 - given_up)
    assert station.drops == [(DropReason.SHUTDOWN, 1)] * (2 + given_up)
    assert station.watcher.stop() == 0


def test_the_last_events_are_taken() -> None:
    """An event that is recorded between the worker's last look at the queue and its end is handled."""
    seen: list[int] = []
    station = Station(lambda event: seen.append(event.serial))
    take = station.watcher._take

    def late() -> list[Event]:
        events = take()
        if not events and not station.watcher._complete:
            station.publish()
        return events

    station.watcher._closing = True
    station.watcher._take = late  # type: ignore[method-assign]
    station.watcher._worker.run()
    assert seen == [1]
    assert station.watcher.statistics() == station.ledger(offered=1, handled=1)


@pytest.mark.parametrize("moment", ["idle", "looking"])
def test_an_event_while_the_worker_falls_asleep(moment: str) -> None:
    """An event that is recorded as the worker falls asleep is seen by its last look, or wakes it."""
    seen: list[int] = []
    station = Station(lambda event: seen.append(event.serial))
    worker, looks = station.watcher._worker, []

    def look() -> bool:
        looks.append(None)
        if len(looks) == 1 and moment == "idle":
            station.publish()
        found = station.watcher._has_work()
        if len(looks) == 1 and moment == "looking":
            station.publish()
        return found

    worker.state = State.AWAKE
    worker.sleep(look)
    assert (len(looks), worker.state) == (1, State.AWAKE)
    assert len(station.watcher._queue) == 1


def test_work_is_done_once() -> None:
    """A worker whose work was begun elsewhere, or has ended, does nothing."""
    done: list[int] = []
    worker = Worker("w", Shared(), bool, lambda: done.append(1))
    worker.run()
    worker.run()
    assert done == [1]
    worker.reset()
    worker.ended = True
    worker.run()
    assert done == [1]


def test_woken_before_it_sleeps() -> None:
    """A worker that was woken before it sleeps looks for work first. Woken while it looks, it does not sleep."""
    worker = Worker("w", Shared(), bool, bool)
    worker.state = State.AWAKE
    worker.flushing = 1
    worker.notify()
    worker.notify()
    looks: list[None] = []

    def look() -> bool:
        looks.append(None)
        if len(looks) < 3:
            worker.notify()
        return len(looks) == 3

    for _ in range(3):
        worker.sleep(look)
    assert len(looks) == 3
    assert worker.state is State.AWAKE


def test_a_stopped_watcher_stays_so_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher that was stopped before a fork handles nothing in the child."""
    seen: list[int] = []
    station = Station(lambda event: seen.append(event.serial))
    station.publish()
    assert station.watcher.stop() == 0
    station.shared.reset()
    station.watcher.after_fork()
    with no_threads(monkeypatch):
        station.publish()
    station.watcher._worker.run()
    assert seen == [1]


def test_a_queue_is_bounded_in_bytes() -> None:
    """Fault 5: long messages fill a queue before its length does, including those being handled. One always fits."""
    gate = Gate(shut=True)
    station = Station(gate.pass_through, queue_bytes=10_000_000)
    station.message = "m" * 1_000_000
    station.publish()
    gate.wait_entered()
    station.publish(20)
    assert station.watcher.statistics() == station.ledger(offered=21, queue_full=12, waiting=9)
    gate.open()
    assert station.watcher.flush(None)
    station.message = "m" * 20_000_000
    station.publish()
    assert station.watcher.flush(None)
    assert station.watcher.statistics() == station.ledger(offered=22, queue_full=12, handled=10)
    assert station.watcher.stop() == 0


def test_annotations_count_as_memory() -> None:
    """Annotations fill a queue as long messages do, and short events need a page each."""
    gate = Gate(shut=True)
    station = Station(gate.pass_through, queue_bytes=10 * 1024)
    station.publish()
    gate.wait_entered()
    station.publish(20)
    assert station.watcher.statistics() == station.ledger(offered=21, queue_full=10, waiting=11)
    gate.open()
    assert station.watcher.flush(None)
    gate.shut()
    station.annotations = {"a": "v" * 4096}
    station.publish()
    gate.wait_entered(12)
    station.publish(20)
    assert station.watcher.statistics() == station.ledger(offered=42, queue_full=29, handled=11, waiting=2)
    gate.open()
    assert station.watcher.stop() == 0


class WeaklyReferenced(Event):
    """An event that can have weak references."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("events", [1, 40])
def test_handled_events_are_not_kept(events: int) -> None:
    """Fault 5: an idle worker references no event, and a busy one only the event in its handler."""
    made: list[weakref.ref[Event]] = []
    alive: list[int] = []
    gate = Gate(shut=True)

    def make(**fields: Any) -> Event:
        event = WeaklyReferenced(**fields)
        made.append(weakref.ref(event))
        return event

    def living() -> int:
        return sum(reference() is not None for reference in made)

    def handler(event: Event) -> None:
        gate.pass_through(event)
        alive.append(living())

    station = Station(handler)
    station.make = make
    station.publish(events)
    gate.open()
    assert station.watcher.flush(None)
    assert alive == list(range(events, 0, -1))
    until = monotonic() + PATIENCE
    while living() and monotonic() < until:  # the worker wakes the caller of flush before it is idle
        threading.Event().wait(0.001)
    assert living() == 0
    assert station.watcher.stop() == 0


@pytest.mark.parametrize(
    "message", ["", "a" * 399, "a" * 400, "ä" * 89, "\U0001f600" * 89, "\U0001f600" * 90, "\U0001f600" * 399], ids=len
)
def test_a_short_event_fits_into_a_page(message: str) -> None:
    """The pages that an event counts for have room for its memory, and are those that its end gives back."""
    gate = Gate(shut=True)
    station = Station(gate.pass_through)
    station.message = message
    station.publish()
    gate.wait_entered()
    assert len(station.watcher._more_pages) == memory_of(station.event()) // _PAGE
    gate.open()
    assert station.watcher.flush(None)
    assert len(station.watcher._more_pages) == 0
    assert station.watcher.stop() == 0
