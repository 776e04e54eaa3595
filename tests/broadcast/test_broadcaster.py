"""The broadcaster: from recorders to every watcher, flush and shutdown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from kevents import CorrelatorOptions, DropReason, Event, EventBroadcaster, UnavailableError, Watcher
from tests.support.polling import poll
from tests.support.sinks import (
    PATIENCE,
    Gate,
    ScriptedSink,
    about,
    await_end,
    check_ledgers,
    statistics_of,
    thread_names,
)


@pytest.fixture
def broadcaster() -> EventBroadcaster:
    """A broadcaster that the test shuts down."""
    return EventBroadcaster()


def record(broadcaster: EventBroadcaster, number: int = 1, name: str = "web-0") -> None:
    """Record events with the messages 0, 1, 2 ..."""
    recorder = broadcaster.new_recorder("tester")
    for message in range(number):
        recorder.event(about(name), "Normal", "R", str(message))


def test_building_starts_nothing(broadcaster: EventBroadcaster) -> None:
    """A broadcaster, a recorder, a watcher or a sink starts no thread before the first event."""
    broadcaster.new_recorder("tester").for_object(about())
    broadcaster.start_event_watcher(lambda _: None)
    broadcaster.start_recording_to_sink(ScriptedSink())
    broadcaster.start_logging(lambda *_: None)
    assert thread_names() == []
    assert broadcaster.shutdown() == 0
    assert thread_names() == []


def test_every_watcher_sees_every_event(broadcaster: EventBroadcaster) -> None:
    """All watchers receive the same event objects in the same order."""
    heard: list[list[Event]] = [[], [], []]
    for events in heard:
        broadcaster.start_event_watcher(events.append)
    record(broadcaster, 500)
    assert broadcaster.flush(PATIENCE)
    assert [event.message for event in heard[0]] == [str(number) for number in range(500)]
    assert all(one is two is three for one, two, three in zip(*heard, strict=True))
    assert broadcaster.shutdown() == 0


def test_a_watcher_sees_what_comes_after_it(broadcaster: EventBroadcaster) -> None:
    """A watcher sees only the events between its start and its stop."""
    first: list[Event] = []
    second: list[Event] = []
    broadcaster.start_event_watcher(first.append)
    record(broadcaster)
    with broadcaster.start_event_watcher(second.append) as watcher:
        record(broadcaster, 2)
    record(broadcaster)
    assert watcher.stop() == 0
    assert broadcaster.shutdown() == 0
    assert (len(first), len(second)) == (4, 2)


def test_a_slow_watcher_hurts_itself() -> None:
    """Pitfall 5: a hanging watcher loses only its own events. A fast one beside it sees all of them."""
    broadcaster = EventBroadcaster(queue_length=2_000)
    gate = Gate(shut=True)
    fast: list[Event] = []
    broadcaster.start_event_watcher(gate.pass_through)
    broadcaster.start_event_watcher(fast.append)
    record(broadcaster)
    gate.wait_entered()
    for _ in range(10):
        record(broadcaster, 1_000)
        assert broadcaster._publisher.watchers[1].flush(monotonic() + PATIENCE)
    slow = statistics_of(broadcaster)
    assert (slow.offered, slow.queue_full, slow.waiting) == (10_001, 8_000, 2_001)
    assert (len(fast), statistics_of(broadcaster, 1).queue_full) == (10_001, 0)
    gate.open()
    assert broadcaster.shutdown(PATIENCE) == 0


def test_no_watcher(broadcaster: EventBroadcaster, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 20: without a watcher events are dropped and counted, and one warning names the call to make."""
    record(broadcaster, 50)
    assert broadcaster.statistics().no_watcher == 50
    assert broadcaster.statistics().dropped == {DropReason.NO_WATCHER: 50}
    assert len(caplog.messages) == 1
    assert "start_recording_to_sink" in caplog.messages[0]
    assert broadcaster.shutdown() == 0


def test_the_same_sink_twice(broadcaster: EventBroadcaster, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 20: starting the same sink again gives a warning and the existing watcher. Nothing is written twice."""
    sink = ScriptedSink()
    watcher = broadcaster.start_recording_to_sink(sink)
    assert watcher is broadcaster.start_recording_to_sink(sink)
    assert "this sink is recorded to already, by sink-1; it is not started again" in caplog.messages
    record(broadcaster)
    assert broadcaster.flush(PATIENCE)
    assert len(sink.calls) == 1
    assert watcher.stop() == 0
    assert watcher is not broadcaster.start_recording_to_sink(sink)
    record(broadcaster)
    assert broadcaster.shutdown() == 0
    assert len(sink.calls) == 2


def test_shutdown_delivers() -> None:
    """Pitfall 62: shutdown with 500 queued events and a healthy sink delivers all of them."""
    options = CorrelatorOptions(burst_size=None, max_events=None)
    broadcaster = EventBroadcaster(correlator_options=options)
    sink = ScriptedSink()
    broadcaster.start_recording_to_sink(sink)
    record(broadcaster, 500)
    assert broadcaster.shutdown(PATIENCE) == 0
    assert sorted(sink.messages) == sorted(str(number) for number in range(500))
    check_ledgers(broadcaster.statistics())


def test_shutdown_with_a_dead_sink(caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 63: with a dead sink shutdown returns at its deadline, and drops the rest without busy retries."""
    broadcaster = EventBroadcaster(correlator_options=CorrelatorOptions(burst_size=None, max_events=None))
    sink = ScriptedSink(always=UnavailableError("connection refused"))
    broadcaster.start_recording_to_sink(sink)
    record(broadcaster, 500)
    began = monotonic()
    assert broadcaster.shutdown(1.0) == 500
    assert 0.9 <= monotonic() - began < PATIENCE / 2
    statistics = broadcaster.statistics()
    assert statistics.dropped[DropReason.SHUTDOWN] == 500
    assert len(sink.calls) <= 500 + 4 + 1.0 / 0.125  # each once until the breaker opens, then single probes
    assert "shutdown dropped 500 events at its deadline" in caplog.messages
    assert len(caplog.messages) < 6
    check_ledgers(statistics)


def test_shutdown_behind_a_closed_gate() -> None:
    """Pitfall 63: during shutdown a dead sink gets single probes, for any number of pending events."""
    broadcaster = EventBroadcaster(correlator_options=CorrelatorOptions(burst_size=None, max_events=None))
    sink = ScriptedSink(always=UnavailableError("connection refused"))
    broadcaster.start_recording_to_sink(sink, retry_wait=lambda _: 0.1)
    record(broadcaster, 508)
    assert broadcaster.shutdown(1.0) == 508
    assert len(sink.calls) <= 4 + 0.25 / 0.0125 + 1.0 / 0.125
    check_ledgers(broadcaster.statistics())


@pytest.mark.parametrize("repeat", range(10))
def test_shutdown_reports_the_number_given_up(repeat: int) -> None:
    """The result of shutdown equals the number in the ledger, whichever thread sees the deadline first."""
    broadcaster = EventBroadcaster(correlator_options=CorrelatorOptions(burst_size=None, max_events=None))
    broadcaster.start_recording_to_sink(ScriptedSink(always=UnavailableError()))
    gate = Gate(shut=True)
    broadcaster.start_event_watcher(gate.pass_through)
    record(broadcaster, 20)
    gate.wait_entered()
    assert broadcaster.shutdown(0.02 + repeat / 1000) == 40
    assert broadcaster.statistics().dropped == {DropReason.SHUTDOWN: 40}
    assert broadcaster.shutdown() == 0
    gate.open()
    await_end(broadcaster)


def test_recording_after_shutdown(broadcaster: EventBroadcaster, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 64: an event recorded after shutdown is counted as dropped, never an exception."""
    broadcaster.start_event_watcher(lambda _: None)
    assert broadcaster.shutdown() == 0
    record(broadcaster, 10)
    statistics = broadcaster.statistics()
    assert (statistics.recorded, statistics.refused, statistics.published) == (10, {DropReason.SHUTDOWN: 10}, 0)
    assert len(caplog.messages) == 1


def test_threads_that_go_on_recording() -> None:
    """Pitfall 64: recording during and after shutdown raises nothing, and every event is counted."""
    broadcaster = EventBroadcaster(queue_length=100_000)
    heard: list[Event] = []
    broadcaster.start_event_watcher(heard.append)
    begun, over, errors = threading.Barrier(9), threading.Event(), []
    recorded: list[int] = []

    def work() -> None:
        recorder = broadcaster.new_recorder("tester")
        number = 0
        begun.wait(PATIENCE)
        try:
            while not over.is_set() or number < 200:
                recorder.event(about(), "Normal", "R", "m")
                number += 1
        except BaseException as error:  # noqa: BLE001
            errors.append(error)
        recorded.append(number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.wait(PATIENCE)
    given_up = broadcaster.shutdown(PATIENCE)
    over.set()
    for thread in threads:
        thread.join(PATIENCE)
    statistics = broadcaster.statistics()
    assert (errors, given_up) == ([], 0)
    assert statistics.recorded == sum(recorded)
    assert statistics.published == len(heard) == statistics.watchers[0].handled
    check_ledgers(statistics)


def test_every_method_in_every_state(broadcaster: EventBroadcaster, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 65: a shutdown before the start or twice is legal. A start after it is logged and has no effect."""
    assert [broadcaster.shutdown(), broadcaster.shutdown()] == [0, 0]
    heard: list[Event] = []
    watchers = [
        broadcaster.start_event_watcher(heard.append),
        broadcaster.start_recording_to_sink(ScriptedSink()),
        broadcaster.start_logging(heard.append),
        broadcaster.start_structured_logging(),
    ]
    assert len(caplog.messages) == 4
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    record(broadcaster)
    assert broadcaster.flush(PATIENCE)
    assert [watcher.stop() for watcher in watchers] == [0, 0, 0, 0]
    assert [watcher.flush(None) for watcher in watchers] == [True] * 4
    assert heard == []
    with broadcaster as same:
        assert same is broadcaster
    check_ledgers(broadcaster.statistics())


def test_a_flush_hurries_all_before_it_waits_for_one() -> None:
    """A flush hastens all watchers before it waits for one: a hanging handler does not delay another sink's retry."""
    gate, sink = Gate(shut=True), ScriptedSink({1: UnavailableError("away")})
    with EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(lambda _: gate.pass_through())
        broadcaster.start_recording_to_sink(sink, retry_wait=lambda _: 3600.0)
        record(broadcaster)
        sink.wait_calls(1)
        assert poll(lambda: _waits_to_be_tried_again(broadcaster), PATIENCE)
        flushing = threading.Thread(target=broadcaster.flush)
        flushing.start()
        sink.wait_calls(2)
        assert flushing.is_alive()
        gate.open()
        flushing.join(PATIENCE)
        assert not flushing.is_alive()


def _waits_to_be_tried_again(broadcaster: EventBroadcaster) -> bool:
    sink = statistics_of(broadcaster, 1).sink
    return sink is not None and (sink.in_flight, sink.backlog) == (0, 1)


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, float("nan"), -1, 0, 0.0])
def test_any_timeout(timeout: float) -> None:
    """Any timeout is accepted by flush and shutdown: infinite, NaN, negative or zero."""
    broadcaster = EventBroadcaster()
    broadcaster.start_recording_to_sink(ScriptedSink())
    record(broadcaster)
    assert broadcaster.flush(PATIENCE)
    assert broadcaster.flush(timeout)
    assert 0 <= broadcaster.shutdown(timeout) <= 1
    assert broadcaster.shutdown(timeout) == 0
    await_end(broadcaster)


def test_two_shutdowns_at_once(broadcaster: EventBroadcaster) -> None:
    """A shutdown during another one waits for it and returns 0. The first one returns the number of dropped events."""
    gate = Gate(shut=True)
    broadcaster.start_event_watcher(gate.pass_through)
    record(broadcaster, 3)
    gate.wait_entered()
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(broadcaster.shutdown(0.2))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    gate.open()
    await_end(broadcaster)
    assert sorted(results) == [0, 0, 0, 0, 3]
    check_ledgers(broadcaster.statistics())


def test_flush_in_two_threads(broadcaster: EventBroadcaster) -> None:
    """Several threads may flush at once. Each returns True when the recorded events have ended."""
    sink = ScriptedSink(gate=Gate(shut=True))
    broadcaster.start_recording_to_sink(sink)
    record(broadcaster)
    assert not broadcaster.flush(0.01)
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(broadcaster.flush())) for _ in range(4)]
    for thread in threads:
        thread.start()
    sink.gate.open()
    for thread in threads:
        thread.join(PATIENCE)
    assert results == [True] * 4
    assert broadcaster.shutdown() == 0


@pytest.mark.parametrize("end", ["flush", "shutdown"])
def test_in_a_retry_wait(end: str) -> None:
    """Flush and shutdown retry an event in back-off at once, instead of waiting for its time."""
    broadcaster = EventBroadcaster()
    sink = ScriptedSink(faults={1: RuntimeError("odd")})
    broadcaster.start_recording_to_sink(sink, retry_wait=lambda _: 1000.0)
    record(broadcaster)
    sink.wait_calls(1)
    began = monotonic()
    assert broadcaster.flush(PATIENCE) if end == "flush" else broadcaster.shutdown(PATIENCE) == 0
    assert monotonic() - began < PATIENCE / 2
    assert sink.messages == ["0"]
    assert broadcaster.shutdown() == 0


@pytest.mark.parametrize("end", ["flush", "shutdown"])
def test_behind_a_closed_gate(end: str) -> None:
    """With an open circuit breaker flush and shutdown probe at once, and deliver all events if the server is back."""
    broadcaster = EventBroadcaster(correlator_options=CorrelatorOptions(max_events=None), sleep_duration=1000.0)
    down = [True]

    def fault(_: object) -> None:
        if down:
            raise UnavailableError

    sink = ScriptedSink(always=fault)
    watcher = broadcaster.start_recording_to_sink(sink, retry_wait=lambda _: 0.05)
    record(broadcaster, 10)
    _until(lambda: statistics_of(broadcaster).sink.server_available is False)  # type: ignore[union-attr]
    down.clear()
    assert broadcaster.flush(PATIENCE) if end == "flush" else broadcaster.shutdown(PATIENCE) == 0
    assert len(set(sink.messages)) == 10
    assert watcher.stop() == 0
    assert broadcaster.shutdown() == 0


def _until(true: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not true():
        assert monotonic() < deadline


def test_flush_from_a_watcher(broadcaster: EventBroadcaster) -> None:
    """In a watcher's thread flush returns False immediately, for the whole broadcaster."""
    results: list[bool] = []
    broadcaster.start_event_watcher(lambda _: results.append(broadcaster.flush()))
    broadcaster.start_recording_to_sink(ScriptedSink(always=lambda _: results.append(broadcaster.flush())))
    record(broadcaster)
    assert broadcaster.flush(PATIENCE)
    assert results == [False, False]
    assert broadcaster.shutdown() == 0


CLOCKS: dict[str, Callable[[], Any]] = {
    "frozen": lambda: 1_700_000_000_000_000_000,
    "zero": lambda: 0,
    "negative": lambda: -1,
    "float": time.time,
    "text": lambda: "now",
    "none": lambda: None,
    "far": lambda: 1 << 63,
    "raises": lambda: 1 / 0,
    "mute": lambda: (_ for _ in ()).throw(Exception()),
}


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_clocks(clock: str, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 24: names differ and serial numbers grow with any clock. A broken clock is logged."""
    broadcaster = EventBroadcaster(clock=CLOCKS[clock])
    heard: list[Event] = []
    broadcaster.start_event_watcher(heard.append)
    before = time.time_ns()
    record(broadcaster, 50)
    assert broadcaster.shutdown() == 0
    serials = [event.serial for event in heard]
    assert serials == sorted(set(serials))
    assert len({event.name for event in heard}) == 50
    broken = clock not in {"frozen", "zero"}
    assert any("the clock " in message for message in caplog.messages) == broken
    assert all(before <= event.time <= time.time_ns() for event in heard) == broken
    assert len(caplog.messages) <= 2


def test_serial_numbers(broadcaster: EventBroadcaster) -> None:
    """Serial numbers are near the time, and grow even if the clock stands still."""
    heard: list[Event] = []
    before = time.time_ns()
    standing = EventBroadcaster(clock=lambda: before)
    standing.start_event_watcher(heard.append)
    record(standing, 5000)
    assert standing.shutdown() == 0
    assert broadcaster.shutdown() == 0
    serials = [event.serial for event in heard]
    assert serials == list(range(serials[0], serials[0] + 5000))
    assert abs(serials[0] - before) < 60 * 10**9


def test_a_clock_that_goes_back(broadcaster: EventBroadcaster) -> None:
    """Pitfall 24: with a clock that goes back each event has its time, and serial numbers still grow."""
    times = iter(range(10**18, 0, -(10**15)))
    backwards = EventBroadcaster(clock=lambda: next(times))
    heard: list[Event] = []
    backwards.start_event_watcher(heard.append)
    record(backwards, 20)
    assert backwards.shutdown() == 0
    assert [event.time for event in heard] == [10**18 - number * 10**15 for number in range(20)]
    serials = [event.serial for event in heard]
    assert serials == sorted(set(serials))
    assert broadcaster.shutdown() == 0


def test_on_drop_hears_every_loss() -> None:
    """`on_drop` is called for every lost event, in agreement with the ledgers."""
    told: dict[DropReason, int] = {}

    def on_drop(reason: DropReason, _: Event | None, events: int) -> None:
        told[reason] = told.get(reason, 0) + events

    broadcaster = EventBroadcaster(on_drop=on_drop, queue_length=5, correlator_options=CorrelatorOptions(burst_size=3))
    record(broadcaster, 2)
    gate = Gate(shut=True)
    broadcaster.start_event_watcher(gate.pass_through)
    record(broadcaster)
    gate.wait_entered()
    record(broadcaster, 20)
    broadcaster.new_recorder("x").event(None, "Normal", "R", "m")
    broadcaster.new_recorder("x").event(about(), "Bad", "R", "m")
    broadcaster.start_recording_to_sink(ScriptedSink(always=ValueError("never")))
    record(broadcaster, 5)
    broadcaster._publisher.watchers[1].flush(monotonic() + PATIENCE)
    assert broadcaster.shutdown(0.05) == 6
    record(broadcaster, 4)
    gate.open()
    await_end(broadcaster)
    assert told == broadcaster.statistics().dropped
    assert set(told) == {
        DropReason.NO_WATCHER, DropReason.QUEUE_FULL, DropReason.INVALID_REFERENCE, DropReason.INVALID_TYPE,
        DropReason.REJECTED, DropReason.SPAM_FILTERED, DropReason.SHUTDOWN,
    }  # fmt: skip


def test_names_of_watchers(broadcaster: EventBroadcaster) -> None:
    """A watcher's name shows its kind and is unique."""
    watchers: list[Watcher] = [
        broadcaster.start_event_watcher(print),
        broadcaster.start_logging(print),
        broadcaster.start_structured_logging(),
        broadcaster.start_recording_to_sink(ScriptedSink()),
        broadcaster.start_event_watcher(print),
    ]
    assert [w.name for w in watchers] == ["watcher-1", "logging-2", "structured-logging-3", "sink-4", "watcher-5"]
    assert [w.name for w in broadcaster.statistics().watchers] == [watcher.name for watcher in watchers]
    assert broadcaster.shutdown() == 0


def test_the_same_sink_from_two_threads(broadcaster: EventBroadcaster, caplog: pytest.LogCaptureFixture) -> None:
    """A sink that two threads start at the same time is started once."""
    sink, together, made = ScriptedSink(), threading.Barrier(2), broadcaster._sender_pool

    def both_have_begun(*args: Any, **options: Any) -> Any:
        together.wait(PATIENCE)
        return made(*args, **options)

    broadcaster._sender_pool = both_have_begun  # type: ignore[assignment]
    watchers: list[Watcher] = []
    threads = [
        threading.Thread(target=lambda: watchers.append(broadcaster.start_recording_to_sink(sink))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    record(broadcaster)
    assert broadcaster.shutdown(PATIENCE) == 0
    assert watchers[0] is watchers[1]
    assert len(sink.calls) == 1
    assert [line.split(",")[0] for line in caplog.messages] == ["this sink is recorded to already"]


def test_an_interrupted_shutdown_goes_on(broadcaster: EventBroadcaster) -> None:
    """A shutdown after one that Ctrl-C interrupted continues it: pending events are delivered."""
    sink = ScriptedSink(faults={1: UnavailableError()})
    watcher = broadcaster.start_recording_to_sink(sink, retry_wait=lambda _: 1000.0)
    record(broadcaster, 3)
    sink.wait_calls(1)
    stop = watcher.handler.stop

    def interrupted(_: float) -> int:
        watcher.handler.stop = stop  # type: ignore[method-assign]
        raise KeyboardInterrupt

    watcher.handler.stop = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broadcaster.shutdown(PATIENCE)
    assert broadcaster.shutdown(PATIENCE) == 0
    assert (statistics_of(broadcaster).sink.delivered, watcher.statistics().waiting) == (3, 0)  # type: ignore[union-attr]
    assert thread_names() == []


def test_shutdown_after_one_from_a_watcher(broadcaster: EventBroadcaster) -> None:
    """After a shutdown from a watcher's thread, which cannot wait for itself, the next call waits for the end."""
    begun, gate = threading.Event(), Gate(shut=True)
    given_up: list[int] = []

    def handler(_: Event) -> None:
        given_up.append(broadcaster.shutdown())
        begun.set()
        gate.pass_through()

    watcher = broadcaster.start_event_watcher(handler)
    record(broadcaster)
    assert begun.wait(PATIENCE)
    ended = threading.Thread(target=lambda: given_up.append(broadcaster.shutdown(PATIENCE)))
    ended.start()
    assert not broadcaster._publisher._stopped.is_set()
    gate.open()
    ended.join(PATIENCE)
    assert given_up == [0, 0]
    assert watcher.statistics().handled == 1
    assert thread_names() == []


def _waited_for(broadcaster: EventBroadcaster, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """An event that is set when a thread waits for another thread's shutdown."""
    waiting, publisher = threading.Event(), broadcaster._publisher
    await_shutdown = publisher.await_shutdown

    def noted(deadline: float) -> object:
        waiting.set()
        return await_shutdown(deadline)

    monkeypatch.setattr(publisher, "await_shutdown", noted)
    return waiting


def test_shutdown_during_one_from_a_watcher(broadcaster: EventBroadcaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown that waits for a watcher's own shutdown continues as soon as that thread has done its part."""
    waiting, begun = _waited_for(broadcaster, monkeypatch), threading.Event()
    given_up: list[int] = []
    other = Gate(shut=True)

    def handler(_: Event) -> None:
        given_up.append(broadcaster.shutdown(PATIENCE))

    broadcaster.start_event_watcher(handler)
    broadcaster.start_event_watcher(lambda _: (begun.set(), other.pass_through()))
    record(broadcaster)
    assert begun.wait(PATIENCE)
    _until(lambda: not broadcaster._publisher.open)
    ended = threading.Thread(target=lambda: given_up.append(broadcaster.shutdown(3600)))
    ended.start()
    assert waiting.wait(PATIENCE)
    other.open()
    ended.join(PATIENCE)
    assert not ended.is_alive()
    assert given_up == [0, 0]
    assert broadcaster.shutdown(3600) == 0
    assert thread_names() == []


def test_shutdown_during_an_interrupted_one(broadcaster: EventBroadcaster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown that waits for an interrupted one takes over immediately."""
    waiting = _waited_for(broadcaster, monkeypatch)
    sink = ScriptedSink()
    watcher = broadcaster.start_recording_to_sink(sink)
    record(broadcaster)
    stop, given_up = watcher.handler.stop, []
    others = threading.Thread(target=lambda: given_up.append(broadcaster.shutdown(3600)))

    def interrupted(_: float) -> int:
        watcher.handler.stop = stop  # type: ignore[method-assign]
        others.start()
        assert waiting.wait(PATIENCE)
        raise KeyboardInterrupt

    watcher.handler.stop = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broadcaster.shutdown(PATIENCE)
    others.join(PATIENCE)
    assert not others.is_alive()
    assert given_up == [0]
    assert thread_names() == []
