"""The ledgers add up in every snapshot and agree while no event is recorded. Events keep their order."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents import CorrelatorOptions, DropReason, Event, EventBroadcaster, StatusError, UnavailableError, Watcher
from tests.support.sinks import PATIENCE, Call, Gate, ScriptedSink, about, await_end, check_ledgers

THREADS = 16
EVENTS = 300
BREATH = 0.001
"""Seconds between two snapshots: a thread that never waits would keep the GIL from the senders."""

Fault = BaseException | None
FAULTS: list[Fault] = [
    None, None, None, RuntimeError("odd"), UnavailableError(), StatusError(422, "Invalid"), StatusError(503),
    StatusError(404, "NotFound"), StatusError(409, "AlreadyExists"), ValueError("never"), SystemExit(), OSError(),
]  # fmt: skip


class Storm:
    """Threads that record and threads that make all other calls, at the same time, while one reads the ledgers.

    Args:
        broadcaster: The broadcaster under load.
        seed: The random seed.
        each: The number of events of each thread.
    """

    def __init__(self, broadcaster: EventBroadcaster, seed: int, each: int) -> None:
        self.broadcaster = broadcaster
        self.seed = seed
        self.each = each
        self.heard: list[Event] = []
        self._looks = threading.Semaphore(0)
        self.errors: list[BaseException] = []
        self._over = threading.Event()
        self._begin = threading.Barrier(THREADS + 4)

    def run(self, *, shut_down_in_between: bool) -> int:
        """Run all threads. Returns the number of events that shutdown dropped."""
        work: list[Callable[[], None]] = [
            *[lambda number=number: self._record(number) for number in range(THREADS)],
            self._look, self._come_and_go, self._flush,
        ]  # fmt: skip
        threads = [threading.Thread(target=self._guard, args=(job,)) for job in work]
        for thread in threads:
            thread.start()
        self._begin.wait(PATIENCE)
        looked = all(self._looks.acquire(timeout=PATIENCE) for _ in range(4))
        if not shut_down_in_between:
            for thread in threads[:THREADS]:
                thread.join(PATIENCE)
        given_up = self.broadcaster.shutdown(PATIENCE)
        for thread in threads[:THREADS]:
            thread.join(PATIENCE)
        self._over.set()
        for thread in threads:
            thread.join(PATIENCE)
        assert (self.errors, looked) == ([], True)
        return given_up

    def _guard(self, job: Callable[[], None]) -> None:
        try:
            self._begin.wait(PATIENCE)
            job()
        except BaseException as error:  # noqa: BLE001
            self.errors.append(error)

    def _record(self, thread: int) -> None:
        recorder = self.broadcaster.new_recorder(f"thread-{thread}")
        chance = random.Random(self.seed + thread)
        for number in range(self.each):
            if chance.random() < 0.05:
                recorder.event(None, "Normal", "R", "refused")
            recorder.event(about(f"web-{chance.randrange(20)}"), "Normal", f"R{chance.randrange(3)}", f"{number}")

    def _look(self) -> None:
        previous: dict[str, int] = {}
        while not self._over.wait(BREATH):
            statistics = self.broadcaster.statistics()
            check_ledgers(statistics)
            growing = {"recorded": statistics.recorded, "published": statistics.published}
            for watcher in statistics.watchers:
                growing |= {f"{watcher.name} offered": watcher.offered, f"{watcher.name} handled": watcher.handled}
                if watcher.sink is not None:
                    growing[f"{watcher.name} accepted"] = watcher.sink.accepted
                    growing[f"{watcher.name} delivered"] = watcher.sink.delivered
            assert [name for name, value in growing.items() if value < previous.get(name, 0)] == []
            previous |= growing
            self._looks.release()

    def _come_and_go(self) -> None:
        chance = random.Random(self.seed)
        watchers: list[Watcher] = []
        while not self._over.wait(BREATH):
            watchers.append(self.broadcaster.start_event_watcher(lambda _: 1 / 0 if chance.random() < 0.1 else None))
            if len(watchers) > 3 or chance.random() < 0.5:
                watcher = watchers.pop(chance.randrange(len(watchers)))
                given_up = watcher.stop(PATIENCE)
                ledger = watcher.statistics()
                assert (given_up, ledger.waiting) == (0, 0)
                # An event that is being recorded while the watcher stops is dropped as shutdown.
                assert ledger.queue_full + ledger.handled + ledger.failed + ledger.shutdown == ledger.offered
        for watcher in watchers:
            watcher.stop(PATIENCE)

    def _flush(self) -> None:
        while not self._over.wait(BREATH):
            self.broadcaster.flush(0.05)


def faulty(seed: int) -> Callable[[Call], None]:
    """A sink that fails at random."""
    chance = random.Random(seed)
    lock = threading.Lock()

    def fault(_: Call) -> None:
        with lock:
            error = chance.choice(FAULTS)
        if error is not None:
            raise error

    return fault


@pytest.mark.parametrize("shut_down_in_between", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_in_a_storm(seed: int, *, shut_down_in_between: bool) -> None:
    """Every event is counted once while watchers come and go, a sink fails, and flush and shutdown run."""
    broadcaster = EventBroadcaster(
        queue_length=300, sleep_duration=0.05, correlator_options=CorrelatorOptions(burst_size=100)
    )
    storm = Storm(broadcaster, seed, EVENTS)
    broadcaster.start_event_watcher(storm.heard.append)
    sinks = [ScriptedSink(always=faulty(seed)), ScriptedSink()]
    for sink in sinks:
        broadcaster.start_recording_to_sink(sink, backlog=50, retry_wait=lambda _: 0.01)
    given_up = storm.run(shut_down_in_between=shut_down_in_between)
    assert given_up == 0, "a request dropped in flight may still be written, outside of the ledger"
    statistics = broadcaster.statistics()
    check_ledgers(statistics)
    refused = statistics.refused
    assert statistics.recorded - refused.get(DropReason.INVALID_REFERENCE, 0) == THREADS * EVENTS
    listener, first, second = statistics.watchers[:3]
    assert {watcher.offered for watcher in (listener, first, second)} == {statistics.published}
    assert listener.handled == len(storm.heard)
    for sink, ledger in zip(sinks, (first, second), strict=True):
        assert ledger.sink is not None
        assert (ledger.sink.accepted, ledger.sink.backlog, ledger.waiting) == (ledger.handled, 0, 0)
        assert sink.doubled == []
        assert sink.most_at_once <= 4
        assert ledger.sink.created + ledger.sink.patched == len(sink.written)
    assert sum(_given_up(watcher.sink) for watcher in statistics.watchers) == 0
    late = sum(watcher.shutdown for watcher in statistics.watchers)  # were being recorded when their watcher ended
    assert late <= (THREADS * len(statistics.watchers) if shut_down_in_between else 0)


def _given_up(sink: Any) -> int:
    return 0 if sink is None else sink.dropped.get(DropReason.SHUTDOWN, 0)


def test_order_of_each_thread() -> None:
    """Serial numbers differ, and in every queue each thread's events keep their order."""
    broadcaster = EventBroadcaster(queue_length=100_000)
    heard: list[Event] = []
    broadcaster.start_event_watcher(heard.append)
    begin = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        recorder = broadcaster.new_recorder(str(thread))
        begin.wait(PATIENCE)
        for number in range(500):
            recorder.event(about(), "Normal", "R", str(number))

    _run(work)
    assert broadcaster.shutdown(PATIENCE) == 0
    assert len({event.serial for event in heard}) == THREADS * 500
    messages: dict[str, list[str]] = defaultdict(list)
    serials: dict[str, list[int]] = defaultdict(list)
    for event in heard:
        messages[event.source.component].append(event.message)
        serials[event.source.component].append(event.serial)
    assert list(messages.values()) == [[str(number) for number in range(500)]] * THREADS
    assert [numbers == sorted(numbers) for numbers in serials.values()] == [True] * THREADS


CLOCKS: dict[str, Callable[[], Callable[[], Any]]] = {
    "frozen": lambda: lambda: 10**18,
    "back": lambda: iter(range(10**18, 0, -1)).__next__,
    "broken": lambda: lambda: "now",
    "jumping": lambda: lambda: random.randrange(10**18),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_serials_over_broadcasters(clock: str) -> None:
    """Serial numbers are unique over threads and broadcasters, and grow in each thread, with any clock."""
    heard: list[list[Event]] = [[], []]
    broadcasters = [EventBroadcaster(clock=CLOCKS[clock](), queue_length=100_000) for _ in heard]
    for broadcaster, events in zip(broadcasters, heard, strict=True):
        broadcaster.start_event_watcher(events.append)

    def work(thread: int) -> None:
        recorders = [broadcaster.new_recorder(str(thread)) for broadcaster in broadcasters]
        for number in range(100):
            recorders[number % 2].event(about(), "Normal", "R", str(number))

    _run(work)
    for broadcaster, events in zip(broadcasters, heard, strict=True):
        assert broadcaster.shutdown(PATIENCE) == 0
        assert len(events) == THREADS * 50
    everything = sorted(heard[0] + heard[1], key=lambda event: event.serial)
    assert THREADS * 100 == len({event.serial for event in everything}) == len({event.name for event in everything})
    for thread in range(THREADS):
        messages = [int(event.message) for event in everything if event.source.component == str(thread)]
        assert messages == sorted(messages)


def _run(work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)


STEPS = st.sampled_from(
    [
        "record",
        "record",
        "record",
        "refuse",
        "full",
        "start",
        "stop",
        "flush",
        "hang",
        "release",
        "fail",
        "mend",
        "shutdown",
    ]
)


@given(steps=st.lists(STEPS, max_size=25), faults=st.lists(st.sampled_from(FAULTS), max_size=10))
def test_in_any_order(  # noqa: C901, PLR0912 - noqa: C901, PLR0912 - one case per step
    steps: list[str], faults: list[Fault]
) -> None:
    """After any sequence of calls the ledgers are exact, and at the end nothing is pending."""
    broadcaster = EventBroadcaster(queue_length=20, sleep_duration=0.02)
    recorder = broadcaster.new_recorder("tester")
    gate, broken = Gate(), [False]
    script: dict[int, Any] = {number: error for number, error in enumerate(faults, start=1) if error is not None}

    def handler(_: Event) -> None:
        gate.pass_through()
        if broken[0]:
            raise RuntimeError("odd")

    main = [
        broadcaster.start_event_watcher(handler),
        broadcaster.start_recording_to_sink(ScriptedSink(faults=script, gate=gate), retry_wait=lambda _: 0.001),
    ]
    others: list[Watcher] = []
    stopped: list[Watcher] = []
    shut = False
    for step in steps:
        match step:
            case "record":
                recorder.event(about(), "Normal", "R", step)
            case "refuse":
                recorder.event(about(), "Bad", "R", step)
            case "full":
                for number in range(30):
                    recorder.event(about(f"web-{number}"), "Normal", "R", step)
            case "start":
                others.append(broadcaster.start_event_watcher(handler))
            case "stop" if others:
                stopped.append(others.pop())
                stopped[-1].stop(0.01)
            case "flush":
                broadcaster.flush(0.01)
            case "hang":
                gate.shut()
            case "release":
                gate.open()
            case "fail" | "mend":
                broken[0] = step == "fail"
            case "shutdown":
                broadcaster.shutdown(0.01)
                shut = True
        check_ledgers(broadcaster.statistics())
    gate.open()
    given_up = broadcaster.shutdown(PATIENCE)
    await_end(broadcaster, *stopped)
    statistics = broadcaster.statistics()
    check_ledgers(statistics)
    assert given_up == 0
    for watcher in main:
        ledger = watcher.statistics()
        assert (ledger.offered, ledger.waiting) == (statistics.published, 0)
        assert ledger.sink is None or (ledger.handled, ledger.sink.backlog) == (ledger.sink.accepted, 0)
        assert shut or ledger.shutdown == 0
