"""Faults at the worst moment: misbehaving signal handlers, finalisers, sinks and event handlers."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from kevents import CorrelatorOptions, DropReason, Event, EventBroadcaster, UnavailableError
from kevents._runtime.reentrant import SHARED
from tests.support.interrupts import FINEST, interrupted, interrupted_after
from tests.support.sinks import (
    PATIENCE,
    Call,
    Gate,
    ScriptedSink,
    about,
    check_ledgers,
    join_all,
    statistics_of,
    thread_names,
)

UNLIMITED = CorrelatorOptions(burst_size=None, max_events=None)

needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers")


class Subject:
    """A broadcaster with a watcher and a sink, as a target of faults."""

    def __init__(self, sink: ScriptedSink | None = None, **options: Any) -> None:
        self.drops: list[DropReason] = []
        defaults: dict[str, Any] = {
            "correlator_options": UNLIMITED,
            "on_drop": lambda reason, *_: self.drops.append(reason),
        }
        self.broadcaster = EventBroadcaster(**(defaults | options))
        self.heard: list[str] = []
        self.sink = sink or ScriptedSink()
        self.watcher = self.broadcaster.start_event_watcher(lambda event: self.heard.append(event.message))
        self.sink_watcher = self.broadcaster.start_recording_to_sink(self.sink, retry_wait=lambda _: 0.01)
        self.recorder = self.broadcaster.new_recorder("tester")

    def record(self, message: object = "m", name: str = "web-0") -> None:
        """Record an event."""
        self.recorder.event(about(name), "Normal", "R", message)

    def end(self) -> None:
        """Check that the broadcaster shuts down, drops nothing, and has exact ledgers."""
        assert self.broadcaster.shutdown(PATIENCE) == 0
        statistics = self.broadcaster.statistics()
        check_ledgers(statistics)
        for watcher in statistics.watchers:
            assert watcher.waiting == 0
        assert self.sink.doubled == []


# -- signal handlers ---------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Subject], object]] = {
    "event": lambda subject: subject.record("outer"),
    "refused": lambda subject: subject.recorder.event(None, "Normal", "R", "m"),
    "flush": lambda subject: subject.broadcaster.flush(PATIENCE),
    "statistics": lambda subject: subject.broadcaster.statistics(),
    "stop": lambda subject: subject.watcher.stop(PATIENCE),
    "shutdown": lambda subject: subject.broadcaster.shutdown(PATIENCE),
    "start": lambda subject: subject.broadcaster.start_event_watcher(lambda _: None),
}


STEPS = pytest.mark.parametrize(
    "where", ["line", pytest.param(FINEST, marks=pytest.mark.slow)], ids=["lines", "finest"]
)
"""Before each line, or before the smallest steps."""


@STEPS
@pytest.mark.parametrize("call", CALLS)
def test_an_event_in_the_middle_of_anything(call: str, where: str) -> None:
    """Pitfall 80: a signal handler that records before any step of any call neither deadlocks nor loses an event."""
    at, more, checked = 0, True, 0
    while more:
        at += 1 if call == "event" else 3
        subject = Subject()
        if at % 2:
            subject.record("before")
        outer, inner = partial(CALLS[call], subject), partial(subject.record, "inner")
        more = interrupted(outer, at, inner, where=where)
        assert subject.broadcaster.flush(PATIENCE)
        statistics = subject.broadcaster.statistics()
        subject.end()
        # After the end an event is refused, and while this thread logs for kevents it is a recursion.
        refused = sum(statistics.refused.get(reason, 0) for reason in (DropReason.SHUTDOWN, DropReason.RECURSION))
        recorded = (at % 2) + (call == "event") + more
        assert statistics.published + refused == recorded
        if call != "stop":
            assert len(subject.heard) + refused == recorded
        assert len(subject.sink.written) + refused == recorded
        checked += more
    assert checked > 3


NESTED: dict[str, Callable[[Subject], object]] = {
    "flush": lambda subject: subject.broadcaster.flush(PATIENCE),
    "statistics": lambda subject: check_ledgers(subject.broadcaster.statistics()),
    "stop": lambda subject: subject.watcher.stop(PATIENCE),
    "shutdown": lambda subject: subject.broadcaster.shutdown(PATIENCE),
}


@STEPS
@pytest.mark.parametrize("nested", NESTED)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_in_the_middle_of_anything(call: str, nested: str, where: str) -> None:
    """Pitfall 80: a signal handler that flushes, stops or shuts down before any step of any call does not deadlock."""
    at, more = 1, True
    while more:
        at += 11 if where == "line" else 7
        subject = Subject()
        subject.record("before")
        began = monotonic()
        more = interrupted(partial(CALLS[call], subject), at, partial(NESTED[nested], subject), where=where)
        assert monotonic() - began < PATIENCE / 2
        subject.record("after")
        assert subject.broadcaster.flush(PATIENCE)
        for end in (subject.broadcaster.shutdown, subject.watcher.stop, subject.sink_watcher.stop):
            end(PATIENCE)
        assert subject.broadcaster.flush(PATIENCE)
        check_ledgers(subject.broadcaster.statistics())
        assert "before" in subject.sink.messages
        join_all()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_in_the_middle_of_anything(call: str, error: type[BaseException]) -> None:
    """A signal handler that raises at any call leaves a working broadcaster."""

    def interrupt() -> None:
        raise error

    at, more = 0, True
    while more:
        at += 1
        subject = Subject()
        if at % 2 or call in {"stop", "shutdown"}:  # otherwise the interrupted thread would be the only one
            subject.record("before")
        try:
            more = interrupted(lambda s=subject: CALLS[call](s), at, interrupt, where="call")  # type: ignore[misc]
        except error:
            more = True
        if call == "stop":
            subject.watcher.stop(PATIENCE)
        if call == "shutdown":
            subject.broadcaster.shutdown(PATIENCE)
            for watcher in (subject.watcher, subject.sink_watcher):
                watcher.stop(PATIENCE)
        else:
            subject.record("after")
            assert subject.broadcaster.flush(PATIENCE)
            assert "after" in subject.sink.messages
            subject.end()
        check_ledgers(subject.broadcaster.statistics())
        join_all()


@pytest.mark.parametrize("call", ["event", "refused"])
def test_ctrl_c_after_any_built_in_function(call: str) -> None:
    """A handler that raises when a function of the interpreter returns leaves a working broadcaster."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    at, more = 0, True
    while more:
        at += 1
        subject = Subject()
        try:
            more = interrupted_after(lambda s=subject: CALLS[call](s), at, interrupt)  # type: ignore[misc]
        except KeyboardInterrupt:
            more = True
        subject.record("after")
        assert subject.broadcaster.flush(PATIENCE)
        assert "after" in subject.sink.messages
        subject.end()
    assert at > 10


def test_recording_takes_no_lock() -> None:
    """A call returns while another thread holds the lock, also the first one, which starts the workers."""
    subject = Subject()
    with SHARED.lock:
        thread = threading.Thread(target=subject.record)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert subject.broadcaster.flush(PATIENCE)
    assert subject.heard == ["m"]
    subject.end()


@pytest.fixture
def timer() -> Iterator[Callable[[Callable[[], object]], None]]:
    """A signal handler that runs every half millisecond."""

    def start(handler: Callable[[], object]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)

    before = signal.getsignal(signal.SIGALRM)
    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@needs_timer
@pytest.mark.interrupts
@pytest.mark.timeout(method="thread")
def test_real_signals(timer: Callable[[Callable[[], object]], None]) -> None:
    """Pitfall 80: real signals whose handler records, during recording, flushing, statistics and shutdown."""
    subject = Subject(queue_length=1_000_000)
    signals: list[str] = []

    def handler() -> None:
        signals.append("s")
        subject.record("signal")

    timer(handler)
    recorded = 0
    while len(signals) < 300:
        for _ in range(50):
            subject.record("m", f"web-{recorded % 10}")
            recorded += 1
        subject.broadcaster.statistics()
        assert subject.broadcaster.flush(PATIENCE)
        subject.broadcaster.start_event_watcher(lambda _: None).stop(PATIENCE)
    assert subject.broadcaster.shutdown(PATIENCE) == 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    statistics = subject.broadcaster.statistics()
    check_ledgers(statistics)
    assert statistics.recorded == recorded + len(signals)
    assert len(subject.heard) == statistics.published


@needs_timer
@pytest.mark.interrupts
@pytest.mark.timeout(method="thread")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may hit the collector
def test_real_interrupts() -> None:
    """Real signals whose handler raises KeyboardInterrupt anywhere leave a working broadcaster."""
    fired: list[None] = []

    def handler() -> None:
        fired.append(None)
        raise KeyboardInterrupt

    def storm(subject: Subject, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        while not fired:
            subject.record("m")

    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    for number in range(150):
        subject = Subject()
        fired.clear()
        with suppress(KeyboardInterrupt):
            storm(subject, 0.0002 + number * 1e-5)
        subject.record("after")
        assert subject.broadcaster.flush(PATIENCE)
        assert subject.heard[-1] == "after"
        subject.end()
    signal.signal(signal.SIGALRM, before)


# -- finalisers --------------------------------------------------------------------------------------------------------


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """Make the garbage collector run constantly, over the objects of the test only."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(7, 2, 2)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("eager_collector")
def test_finalisers_that_record() -> None:
    """Pitfall 80: finalisers that record, in any thread at any moment, do not deadlock."""
    subject = Subject(queue_length=1_000_000)
    finalised: list[None] = []

    class Noisy:
        def __init__(self) -> None:
            self.me = self  # a cycle, for the collector

        def __del__(self) -> None:
            finalised.append(None)
            subject.record("finaliser")

    def callback() -> None:
        finalised.append(None)
        subject.record("callback")

    def work() -> None:
        for number in range(400):
            noisy = Noisy()
            weakref.finalize(Noisy(), callback).atexit = False
            subject.record(noisy.me and "m", f"web-{number % 5}")
            if number % 40 == 0:
                subject.broadcaster.statistics()
                assert subject.broadcaster.flush(PATIENCE)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(4 * PATIENCE)
    gc.collect()
    assert subject.broadcaster.flush(PATIENCE)
    subject.end()
    statistics = subject.broadcaster.statistics()
    assert statistics.refused == {}  # no recursion, even if the collector ran in a sender
    assert statistics.recorded == 4 * 400 + len(finalised)
    assert statistics.recorded == statistics.published == len(subject.heard)
    assert len(finalised) >= 4 * 400 * 3


# -- sinks -------------------------------------------------------------------------------------------------------------

CALLBACKS: dict[str, Callable[[EventBroadcaster], object]] = {
    "event": lambda broadcaster: broadcaster.new_recorder("sink").event(about(), "Normal", "R", "from the sink"),
    "flush": lambda broadcaster: broadcaster.flush(),
    "statistics": lambda broadcaster: check_ledgers(broadcaster.statistics()),
    "stop": lambda broadcaster: [watcher.stop() for watcher in broadcaster._publisher.watchers],
    "shutdown": lambda broadcaster: broadcaster.shutdown(),
    "start": lambda broadcaster: broadcaster.start_event_watcher(lambda _: None),
}


@pytest.mark.parametrize("callback", CALLBACKS)
def test_a_sink_that_calls_back(callback: str) -> None:
    """A sink that calls any method of its broadcaster does not deadlock. An event that it records is a recursion."""
    subject: Subject
    done = threading.Event()

    def fault(_: Call) -> None:
        CALLBACKS[callback](subject.broadcaster)
        done.set()

    subject = Subject(ScriptedSink(always=fault))
    subject.record()
    assert done.wait(PATIENCE)
    subject.broadcaster.flush(PATIENCE)
    subject.broadcaster.shutdown(PATIENCE)
    join_all()
    assert len(subject.sink.written) == 1
    assert (DropReason.RECURSION in subject.broadcaster.statistics().refused) == (callback == "event")
    check_ledgers(subject.broadcaster.statistics())


@pytest.mark.parametrize("callback", [name for name in CALLBACKS if name != "event"])
def test_a_handler_that_calls_back(callback: str) -> None:
    """Pitfall 7: a handler that calls any method of its broadcaster does not deadlock."""
    subject = Subject()
    done = threading.Event()

    def handler(_: Event) -> None:
        CALLBACKS[callback](subject.broadcaster)
        done.set()

    subject.broadcaster.start_event_watcher(handler)
    subject.record()
    assert done.wait(PATIENCE)
    subject.broadcaster.flush(PATIENCE)
    subject.broadcaster.shutdown(PATIENCE)
    join_all()
    assert (subject.heard, subject.sink.messages) == (["m"], ["m"])
    check_ledgers(subject.broadcaster.statistics())


def test_a_handler_that_records() -> None:
    """Pitfall 7: a handler that records for each event causes no recursion and no loss."""
    subject = Subject()
    seen: list[int] = []

    def handler(event: Event) -> None:
        seen.append(threading.get_ident())
        if len(seen) < 1000:
            subject.record(f"{event.message}")

    subject.broadcaster.start_event_watcher(handler)
    subject.record()
    while len(seen) < 1000:
        assert subject.broadcaster.flush(PATIENCE)
    assert len(set(seen)) == 1
    subject.end()
    assert len(subject.heard) == 1000


def test_two_handlers_that_shut_down() -> None:
    """Two handlers that shut down the broadcaster at once do not wait for each other."""
    broadcaster = EventBroadcaster()
    meet = threading.Barrier(2)

    def handler(_: Event) -> None:
        meet.wait(PATIENCE)
        broadcaster.shutdown(PATIENCE)

    for _ in range(2):
        broadcaster.start_event_watcher(handler)
    broadcaster.new_recorder("tester").event(about(), "Normal", "R", "m")
    began = monotonic()
    broadcaster.shutdown(PATIENCE)
    join_all()
    assert monotonic() - began < PATIENCE / 2
    check_ledgers(broadcaster.statistics())


def test_a_hanging_sink_delays_no_other() -> None:
    """While a sink hangs, 5,000 `event` calls return, and the other watcher sees all events."""
    gate = Gate(shut=True)
    subject = Subject(ScriptedSink(gate=gate), queue_length=6_000)
    for number in range(5_000):
        subject.record(number, f"web-{number % 100}")
    assert subject.watcher.flush(monotonic() + PATIENCE)
    assert subject.heard == [str(number) for number in range(5_000)]
    ledger = statistics_of(subject.broadcaster, 1)
    assert ledger.sink is not None
    assert (ledger.offered, ledger.queue_full, ledger.sink.delivered) == (5_000, 0, 0)
    assert ledger.sink.in_flight <= 4
    assert subject.sink.most_at_once <= 4
    gate.open()
    assert subject.broadcaster.shutdown(PATIENCE) >= 0
    check_ledgers(subject.broadcaster.statistics())


@pytest.mark.parametrize("end", ["shutdown", "stop", "flush"])
def test_a_deadline_with_a_hanging_sink(end: str) -> None:
    """A hanging sink delays a call no longer than its deadline, and its late answer changes nothing."""
    gate = Gate(shut=True)
    subject = Subject(ScriptedSink(gate=gate))
    for number in range(10):
        subject.record(number)
    gate.wait_entered(4)
    began = monotonic()
    if end == "flush":
        assert not subject.broadcaster.flush(0.2)
    else:
        given_up = subject.sink_watcher.stop(0.2) if end == "stop" else subject.broadcaster.shutdown(0.2)
        assert given_up == 10
    assert 0.1 < monotonic() - began < PATIENCE / 2
    before = subject.sink_watcher.statistics()
    gate.open()
    if end == "stop":
        subject.watcher.stop(PATIENCE)
    if end != "flush":
        join_all()
        assert subject.sink_watcher.statistics() == before
    subject.broadcaster.shutdown(PATIENCE)
    check_ledgers(subject.broadcaster.statistics())


def test_shutdown_while_a_flush_waits() -> None:
    """A flush that waits for a hanging sink ends with another thread's shutdown, since dropped events have ended."""
    gate = Gate(shut=True)
    subject = Subject(ScriptedSink(gate=gate))
    subject.record()
    gate.wait_entered()
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(subject.broadcaster.flush()))
    thread.start()
    assert subject.broadcaster.shutdown(0.1) == 1
    thread.join(PATIENCE)
    assert results == [True]
    gate.open()


def test_a_sink_that_raises_its_own_mutable_error() -> None:
    """The same exception object can be raised repeatedly."""
    error = UnavailableError("the same")
    faults: dict[int, Any] = dict.fromkeys(range(1, 30), error)
    subject = Subject(ScriptedSink(faults=faults), sleep_duration=0.01)
    for number in range(50):
        subject.record(number)
    subject.end()
    assert len(set(subject.sink.messages)) == 50


# -- logs and on_drop --------------------------------------------------------------------------------------------------


class Recording(logging.Handler):
    """A log handler that records an event for every log record."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.subject = subject
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Record."""
        self.records.append(record.name)
        self.subject.record(record.getMessage())


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, at its lowest level."""
    logger = logging.getLogger()
    level, handlers = logger.level, list(logger.handlers)
    logger.setLevel(logging.DEBUG)
    yield logger
    logger.setLevel(level)
    for handler in set(logger.handlers) - set(handlers):
        logger.removeHandler(handler)


def test_a_log_handler_that_records(root_logger: logging.Logger) -> None:
    """Events that a log handler records about log lines of kevents, or of its client, are refused: no loop."""
    chatter = logging.getLogger("a-client-that-logs-each-request")
    sink = ScriptedSink(always=lambda _: chatter.debug("POST /api/v1/namespaces"))
    subject = Subject(sink)
    handler = Recording(subject)
    root_logger.addHandler(handler)
    for number in range(20):
        subject.record(number)
        subject.recorder.event(None, "Normal", "R", "refused")
    logging.getLogger("mine").warning("an event of its own")
    assert subject.broadcaster.flush(PATIENCE)
    root_logger.removeHandler(handler)
    subject.end()
    statistics = subject.broadcaster.statistics()
    own = handler.records.count("mine")
    echoes = len(handler.records) - own
    assert (own, statistics.published) == (1, 21)
    assert (statistics.refused[DropReason.RECURSION], statistics.refused[DropReason.INVALID_REFERENCE]) == (echoes, 20)
    assert handler.records.count(chatter.name) == len(sink.calls)
    assert 1 <= echoes - len(sink.calls) < 10, "kevents' own lines are few"
    assert DropReason.RECURSION not in subject.drops


def test_a_log_handler_that_records_in_every_thread(root_logger: logging.Logger) -> None:
    """Threads that log through a recording handler, while others record and events are dropped, do not deadlock."""
    subject = Subject(queue_length=10)
    handler = Recording(subject)
    root_logger.addHandler(handler)

    def work() -> None:
        for number in range(50):
            logging.getLogger("mine").info("x")
            subject.record(number)
            subject.recorder.event(None, "Normal", "R", "m")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    root_logger.removeHandler(handler)
    subject.broadcaster.shutdown(PATIENCE)
    check_ledgers(subject.broadcaster.statistics())


@pytest.mark.parametrize("error", [ValueError, SystemExit, GeneratorExit])
def test_a_broken_log_handler(root_logger: logging.Logger, error: type[BaseException]) -> None:
    """A log handler that raises disturbs neither callers nor workers nor senders."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "kevents":
                raise error

    handler = Broken()
    root_logger.addHandler(handler)
    subject = Subject(ScriptedSink(faults={1: UnavailableError(), 2: ValueError("never")}), queue_length=1000)
    subject.broadcaster.start_event_watcher(lambda _: 1 / 0)
    for number in range(100):
        subject.record(number)
        subject.recorder.event(about(), "Bad", "R", "m")
    subject.end()
    root_logger.removeHandler(handler)
    assert len(subject.heard) == 100
    assert len(subject.sink.written) == 99


ON_DROP: dict[str, Callable[[EventBroadcaster], object]] = {
    "raises": lambda _: 1 / 0,
    "exits": lambda _: sys.exit(1),
    "records": lambda broadcaster: broadcaster.new_recorder("drop").event(None, "Bad", "", ""),
    "flushes": lambda broadcaster: broadcaster.flush(PATIENCE),
    "shuts down": lambda broadcaster: broadcaster.shutdown(PATIENCE),
    "looks": lambda broadcaster: check_ledgers(broadcaster.statistics()),
}


@pytest.mark.parametrize("on_drop", ON_DROP)
def test_on_drop_that_misbehaves(on_drop: str) -> None:
    """`on_drop` may raise, record, flush, shut down or read statistics: nothing hangs or dies."""
    told: list[DropReason] = []
    subject: Subject

    def dropped(reason: DropReason, *_: object) -> None:
        told.append(reason)
        ON_DROP[on_drop](subject.broadcaster)

    options = CorrelatorOptions(burst_size=3)
    sink = ScriptedSink(faults={1: ValueError("never")})
    subject = Subject(sink, on_drop=dropped, correlator_options=options, queue_length=50)
    subject.broadcaster.start_event_watcher(lambda _: 1 / 0)
    for number in range(200):
        subject.record(number)
    subject.recorder.event(None, "Normal", "R", "m")
    subject.broadcaster.flush(PATIENCE)
    subject.broadcaster.shutdown(PATIENCE)
    join_all()
    statistics = subject.broadcaster.statistics()
    check_ledgers(statistics)
    assert {DropReason.SPAM_FILTERED, DropReason.HANDLER_FAILED, DropReason.INVALID_REFERENCE} <= set(told)
    assert (DropReason.RECURSION in statistics.refused) == (on_drop == "records")
    assert DropReason.RECURSION not in told


def test_log_lines_are_few(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of losses of each kind are one log line, and one line with the exact number at the end."""
    broadcaster = EventBroadcaster(queue_length=1)
    recorder = broadcaster.new_recorder("tester")
    for _ in range(1000):
        recorder.event(None, "Normal", "R", "m")
        recorder.event(about(), "Bad", "R", "m")
        recorder.event(about(), "Normal", "R", "m")
    gate = Gate(shut=True)
    broadcaster.start_event_watcher(gate.pass_through)
    recorder.event(about(), "Normal", "R", "m")
    gate.wait_entered()
    for _ in range(1001):
        recorder.event(about(), "Normal", "R", "m")
    assert len(caplog.messages) == 4
    gate.open()
    assert broadcaster.shutdown(PATIENCE) == 0
    sums = [message for message in caplog.messages if message.startswith("999 more like the last line about ")]
    assert len(sums) == 4
    assert len(caplog.messages) == 8
    check_ledgers(broadcaster.statistics())


# -- resources ---------------------------------------------------------------------------------------------------------


def _open_files() -> int:
    path = Path("/proc/self/fd")
    return len(list(path.iterdir())) if path.exists() else 0


def _broadcasters() -> int:
    return sum(isinstance(thing, EventBroadcaster) for thing in gc.get_objects())


def _cycle(number: int) -> None:
    subject = Subject()
    subject.record(number)
    if number % 3 == 0:
        assert subject.broadcaster.flush(PATIENCE)
    if number % 3 == 1:
        subject.watcher.stop(PATIENCE)
    subject.end()
    assert subject.sink.messages == [str(number)]


@pytest.mark.parametrize("cycles", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_cycles(cycles: int) -> None:
    """Pitfall 66: a hundred broadcasters leave no thread, file, lock or broadcaster behind."""
    _cycle(0)
    join_all()
    gc.collect()
    files, threads = _open_files(), thread_names()
    before = _broadcasters()
    for number in range(cycles):
        _cycle(number)
    join_all()
    gc.collect()
    assert _open_files() == files
    assert thread_names() == threads
    deadline = monotonic() + PATIENCE
    while before < _broadcasters() and monotonic() < deadline:  # a bare thread may just be ending
        gc.collect()
    assert before >= _broadcasters()


def test_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 69: an idle broadcaster never wakes up: the worker is parked, the senders wait without a timeout."""
    subject = Subject()
    parked = threading.Semaphore(0)
    waits: list[tuple[int, float | None]] = []
    delivery = subject.sink_watcher.handler
    wait = delivery.wait

    def observed(version: int, seconds: float | None) -> None:
        if delivery.statistics().delivered and version == delivery._queue.version:  # after the event, and for a change
            waits.append((threading.get_ident(), seconds))
            parked.release()
        wait(version, seconds)

    monkeypatch.setattr(delivery, "wait", observed)
    subject.record()
    assert subject.broadcaster.flush(PATIENCE)
    assert parked.acquire(timeout=PATIENCE)
    for _ in range(50):
        assert subject.broadcaster.flush(PATIENCE)
        subject.broadcaster.statistics()
    assert waits == [(thread, None) for thread in dict(waits)]  # each sender waits once
    subject.end()


def test_many_threads_and_watchers_that_come_and_go() -> None:
    """Thirty-two threads record while watchers start and stop: a permanent watcher sees all events."""
    subject = Subject(queue_length=100_000)
    over = threading.Event()

    def work() -> None:
        for number in range(50):
            subject.record(number)

    def come_and_go() -> None:
        while not over.is_set():
            with subject.broadcaster.start_event_watcher(lambda _: None) as watcher:
                watcher.flush(monotonic() + PATIENCE)

    others = [threading.Thread(target=come_and_go) for _ in range(4)]
    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in others + threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    over.set()
    for thread in others:
        thread.join(PATIENCE)
    subject.end()
    assert len(subject.heard) == 32 * 50
