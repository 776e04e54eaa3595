"""The asyncio API: in one loop and several, with threads, and with loops that end too early."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kevents
from kevents import CorrelatorOptions, DropReason, StatusError, UnavailableError, aio
from kevents._delivery.sender_tasks import send
from kevents._queue.outcome import Unavailable
from kevents._queue.work_item import Attempt
from kevents._queue.workqueue import WorkQueue
from kevents._runtime.aio import run_in_thread
from kevents.testing import FakeSink
from tests.simulation import Occurrence
from tests.support.aio import AsyncSink, run
from tests.support.polling import poll
from tests.support.sinks import PATIENCE, Gate, about, check_ledgers, pod

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

ROOT = Path(__file__).parent.parent
PLAIN = CorrelatorOptions(max_events=None, burst_size=None)
debug_or_not = pytest.mark.parametrize("debug", [False, True])


def broadcaster(**options: Any) -> aio.EventBroadcaster:
    """A broadcaster that counts every occurrence and has short retries."""
    return aio.EventBroadcaster(correlator_options=PLAIN, **{"sleep_duration": 0.05, **options})


def sink_statistics(found: aio.EventBroadcaster | aio.Watcher) -> kevents.SinkStatistics:
    """The statistics of the sink."""
    watcher = found.statistics()
    if isinstance(watcher, kevents.Statistics):
        (watcher,) = (each for each in watcher.watchers if each.sink is not None)
    assert watcher.sink is not None
    return watcher.sink


def script(code: str) -> subprocess.CompletedProcess[str]:
    """Run a script in its own process, with warnings as errors and asyncio in debug mode."""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def ended() -> Iterator[list[aio.EventBroadcaster]]:
    """Shut down broadcasters whose loop has ended before them, as the exit hook does."""
    broadcasters: list[aio.EventBroadcaster] = []
    yield broadcasters
    for each in broadcasters:
        each._core.shutdown(1)


def with_events(
    body: Callable[..., Coroutine[Any, Any, None]], sink: AsyncSink, *, senders: int = 4, **options: Any
) -> aio.EventBroadcaster:
    """Run a test's body with a broadcaster and its sink, and check the ledgers at the end."""

    async def main() -> aio.EventBroadcaster:
        async with broadcaster(**options) as events:
            events.start_recording_to_sink(sink, senders=senders)
            await body(events, sink)
        check_ledgers(events.statistics())
        return events

    found: aio.EventBroadcaster = run(main(), debug=True)
    return found


# -- delivering ------------------------------------------------------------------------------------------------------


@debug_or_not
def test_delivers(*, debug: bool) -> None:
    """Pitfall 2: events that a coroutine records with plain calls are written by the end, in debug mode too."""
    sink = AsyncSink()

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(sink)
            recorder = events.new_recorder("c")
            assert isinstance(recorder, kevents.EventRecorder)
            for number in range(20):
                recorder.event(about(), "Normal", "Step", f"number {number}")

    run(main(), debug=debug)
    assert sorted(sink.messages, key=lambda text: int(text[7:])) == [f"number {number}" for number in range(20)]
    assert sink.doubled == []
    assert sink.closed == 1


def test_counts() -> None:
    """Repeated events are one API object with a growing count: a create, then patches."""
    sink = AsyncSink()

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(sink)
            for _ in range(3):
                events.new_recorder("c").event(about(), "Normal", "Same", "again")
                assert await events.flush()

    run(main())
    assert [(call.verb, call.count) for call in sink.written] == [("create", 1), ("patch", 2), ("patch", 3)]


def test_several_at_once() -> None:
    """As many requests are in flight as there are senders, but never two for one event."""
    sink = AsyncSink(held=True)

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(sink, senders=3)
            for number in range(9):
                events.new_recorder("c").event(about(), "Normal", "Step", f"number {number}")
            await sink.wait_calls(3)
            assert sink_statistics(events).in_flight == 3
            sink.release()
            assert await events.flush()

    run(main())
    assert (len(sink.written), sink.most_at_once, sink.doubled) == (9, 3, [])


def test_busy_loop() -> None:
    """Pitfall 1: recording from a thread pool while the loop is blocked returns immediately. Delivery follows later."""
    sink = AsyncSink()

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(sink)
            recorder = events.new_recorder("c")
            with ThreadPoolExecutor(2) as pool:  # the end of the block blocks the loop
                list(pool.map(lambda n: recorder.event(about(), "Normal", "Step", f"number {n}"), range(50)))
            assert sink.calls == []
            assert await events.flush()

    run(main())
    assert len(sink.written) == 50


def test_bare_thread() -> None:
    """Pitfall 3: a thread without a loop and with an empty context records like any other."""
    sink = AsyncSink()

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(sink)
            recorder = events.new_recorder("c")
            thread = threading.Thread(target=recorder.event, args=(pod(), "Normal", "Step", "from a thread"))
            thread.start()
            await sink.wait_written(1)
            thread.join()

    run(main())
    assert sink.messages == ["from a thread"]


def test_before_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Events recorded before any loop runs are written when the broadcaster is entered."""
    sink = AsyncSink()
    events = broadcaster()
    watcher = events.start_recording_to_sink(sink)
    recorder = events.new_recorder("c")
    for number in range(5):
        recorder.event(about(), "Normal", "Step", f"number {number}")
    assert events._core.flush(0) is False

    async def main() -> None:
        async with events:
            await sink.wait_written(5)

    run(main())
    assert sink_statistics(watcher).delivered == 5
    assert sum("no event loop yet" in record.getMessage() for record in caplog.records) <= 1


def test_without_a_loop(caplog: pytest.LogCaptureFixture) -> None:
    """A batch that arrives before any loop is logged with advice, and waits."""
    sink = AsyncSink()
    events = broadcaster()
    events.start_recording_to_sink(sink)
    events.new_recorder("c").event(about(), "Normal", "Step", "early")
    assert poll(lambda: "no event loop yet: events wait until `async with` the broadcaster" in caplog.text, 30)
    assert sink_statistics(events).backlog == 1
    run(events.shutdown())
    assert sink.messages == ["early"]


def test_without_entering() -> None:
    """The first awaited call binds a sink that was started outside of a loop."""
    sink = AsyncSink()
    events = broadcaster()
    events.start_recording_to_sink(sink)
    events.new_recorder("c").event(about(), "Normal", "Step", "early")

    async def main() -> None:
        assert await events.flush(10)
        assert sink.messages == ["early"]
        assert await events.shutdown() == 0

    run(main())


def test_two_loops() -> None:
    """Events recorded in two loops are written in the loop where the sink was started. Both can flush."""
    sink = AsyncSink()
    loops = set()
    sink._always = lambda _: loops.add(asyncio.get_running_loop())
    events = broadcaster()
    recorder = events.new_recorder("c")
    started, done = threading.Event(), threading.Event()

    async def first() -> asyncio.AbstractEventLoop:
        async with events:
            events.start_recording_to_sink(sink)
            started.set()
            recorder.event(about(), "Normal", "Step", "first")
            await asyncio.to_thread(done.wait, 30)
            return asyncio.get_running_loop()

    async def second() -> None:
        recorder.event(about(), "Normal", "Step", "second")
        assert await events.flush(10)
        assert sorted(sink.messages) == ["first", "second"]

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, first())
        assert started.wait(60)
        try:
            run(second())
        finally:
            done.set()
        assert loops == {future.result()}


def test_delays_no_other_caller() -> None:
    """A sink that never awaits does not block the loop: other coroutines run after each request."""
    turns: list[int] = []

    class Hasty:
        async def create(self, namespace: str, body: dict[str, Any], /) -> None:
            turns.append(0)

        async def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
            turns.append(0)

    async def main() -> None:
        async with broadcaster() as events:
            for number in range(200):
                events.new_recorder("c").event(about(), "Normal", "Step", f"number {number}")
            events.start_recording_to_sink(Hasty(), senders=1)
            for number in range(200):
                events.new_recorder("c").event(about(), "Normal", "Step", f"number {number}")
            while len(turns) < 200:
                if turns and turns[-1] == 0:
                    turns[-1] = 1
                await asyncio.sleep(0)

    run(main())
    assert turns[:199] == [1] * 199


def test_context() -> None:
    """The sender tasks do not inherit the context of the code that started them."""
    request: ContextVar[str] = ContextVar("request", default="nobody's")
    seen: list[str] = []
    sink = AsyncSink(always=lambda _: seen.append(request.get()))

    async def main() -> None:
        events = broadcaster()
        request.set("somebody's")
        events.start_recording_to_sink(sink)
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        assert await events.flush()
        await events.shutdown()

    run(main())
    assert seen == ["nobody's"]


def test_echo() -> None:
    """Events that a sink records are refused as recursion. Events of other tasks at the same time are not."""
    with_events(_echo, AsyncSink(held=True))


async def _echo(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
    recorder = events.new_recorder("c")
    sink._faults[1] = lambda _: recorder.event(about(), "Normal", "Echo", "echo")
    recorder.event(about(), "Normal", "Step", "first")
    await sink.wait_calls(1)
    recorder.event(about(), "Normal", "Step", "meanwhile")
    sink.release()
    assert await events.flush()
    assert sorted(sink.messages) == ["first", "meanwhile"]
    assert events.statistics().dropped == {DropReason.RECURSION: 1}


def test_threads_left_by_a_sink() -> None:
    """A task that a sink started may record once its request is over."""
    later: list[asyncio.Task[None]] = []

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        recorder, over = events.new_recorder("c"), asyncio.Event()

        async def refresh() -> None:
            recorder.event(about("early"), "Normal", "Echo", "during the request")
            await over.wait()
            recorder.event(about("later"), "Normal", "Step", "after the request")

        async def start(_: object) -> None:
            later.append(asyncio.ensure_future(refresh()))
            await asyncio.sleep(0)

        sink._faults[1] = start
        recorder.event(about(), "Normal", "Step", "first")
        assert await events.flush()
        over.set()
        await later[0]
        assert await events.flush()
        assert sink.messages == ["first", "after the request"]
        assert events.statistics().refused == {DropReason.RECURSION: 1}

    with_events(body, AsyncSink())


# -- trouble ---------------------------------------------------------------------------------------------------------


def test_outage() -> None:
    """Pitfall 40: an outage of the server loses no event."""

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        for number in range(20):
            events.new_recorder("c").event(about(), "Normal", "Step", f"number {number}")
        await sink.wait_written(20)
        assert await events.flush()
        assert sink_statistics(events).delivered == 20

    with_events(body, AsyncSink({number: UnavailableError("away") for number in range(1, 15)}))


@pytest.mark.parametrize("error", [SystemExit(3), BaseException("odd"), RuntimeError("x"), ConnectionResetError()])
def test_whatever_a_sink_raises(error: BaseException) -> None:
    """An exception of a sink, even an exit, ends neither the loop nor the task. The event is retried."""

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        await sink.wait_written(1)

    sink = AsyncSink({1: error})
    with_events(body, sink, sleep_duration=0.01)
    assert [call.verb for call in sink.calls] == ["create", "create"]


def test_a_timeout_of_asyncio() -> None:
    """A timeout of asyncio is Unavailable, even in Python 3.10, where it is no OSError."""

    class Sink:
        """A sink that times out."""

        async def create(self, namespace: str, body: dict[str, Any], /) -> None:
            """Time out."""
            raise asyncio.TimeoutError("too slow")

        async def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
            """Never called."""

    queue = WorkQueue(senders=1, backlog=1, max_age=1.0, sleep_duration=1.0, jitter=lambda: 1.0)
    queue.offer(Occurrence("a"), 0.0, present=False)
    attempt = queue.take(0.0)
    assert isinstance(attempt, Attempt)
    assert run(send(Sink(), attempt)) == Unavailable("TimeoutError: too slow")


def test_a_sink_that_ends_its_task() -> None:
    """A sink that raises GeneratorExit ends its task, but another task writes the event."""

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        assert await events.flush(PATIENCE)
        assert sink.messages == ["x"]
        assert sink_statistics(events).in_flight == 0

    with_events(body, AsyncSink({1: GeneratorExit()}), senders=1)


def test_interrupted() -> None:
    """Ctrl-C during a send leaves the loop, and the event is written nevertheless."""
    events = broadcaster()
    sink = AsyncSink({1: KeyboardInterrupt()})

    async def main() -> None:
        events.start_recording_to_sink(sink)
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        await asyncio.Event().wait()  # until Ctrl-C

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert run(events.shutdown()) == 0
    assert sink.messages == ["x"]
    assert sink_statistics(events).delivered == 1


def test_refused() -> None:
    """An event that the server refuses is dropped and counted by its code. The next one proceeds."""

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        for text in ("bad", "good"):
            events.new_recorder("c").event(about(), "Normal", "Step", text)
            assert await events.flush()
        assert sink_statistics(events).rejected_by_code == {422: 1}
        assert sink.messages == ["good"]

    with_events(body, AsyncSink({1: StatusError(422, "Invalid")}))


def sender_tasks() -> list[asyncio.Task[Any]]:
    """The tasks of kevents in this loop."""
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("kevents-")]


@debug_or_not
def test_cancelled_in_the_middle(*, debug: bool) -> None:
    """Pitfall 67: a task that is cancelled during a send returns its event, and another task writes it."""
    sink = AsyncSink(held=True)

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(sink)
            events.new_recorder("c").event(about(), "Normal", "Step", "x")
            await sink.wait_calls(1)
            tasks = sender_tasks()
            assert len(tasks) == 4
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert [task.cancelled() for task in tasks] == [True] * 4
            assert (sink_statistics(events).backlog, sink_statistics(events).in_flight) == (1, 0)
            assert sink.closed == 1
            sink.release()
            await sink.wait_written(1)
            assert await events.flush()
            check_ledgers(events.statistics())

    run(main(), debug=debug)
    assert sink.messages == ["x"]


def test_a_sink_that_cancels() -> None:
    """A sink that cancels its own task, or raises CancelledError, loses no event."""

    def cancel(_: object) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        sink._faults = {1: asyncio.CancelledError(), 2: cancel}
        for text in ("a", "b", "c"):
            events.new_recorder("c").event(about(), "Normal", "Step", text)
        await sink.wait_written(3)

    sink = AsyncSink()
    with_events(body, sink, sleep_duration=0.01)
    assert set(sink.messages) == {"a", "b", "c"}


def test_close_fails() -> None:
    """An exception of a sink's `close` is only logged."""

    class Unclosable(AsyncSink):
        async def close(self) -> None:
            raise RuntimeError("stuck")

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        events.new_recorder("c").event(about(), "Normal", "Step", "x")

    sink = Unclosable()
    with_events(body, sink)
    assert sink.messages == ["x"]


# -- waiting and ending ----------------------------------------------------------------------------------------------


@debug_or_not
def test_flush_at_its_time_out(*, debug: bool) -> None:
    """A flush returns False at its timeout. The loop keeps running meanwhile, and nothing is dropped."""
    sink = AsyncSink(held=True)

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(sink)
            events.new_recorder("c").event(about(), "Normal", "Step", "x")
            await sink.wait_calls(1)
            assert False is await events.flush(0.01)
            assert False is await events.flush(0)
            sink.release()
            assert True is await events.flush(10)

    run(main(), debug=debug)
    assert sink.messages == ["x"]


def test_cancelled_flush() -> None:
    """A cancelled flush, as by `wait_for`, leaves no thread behind, even if nothing else happens."""
    sink = AsyncSink(held=True)

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(sink)
            stream = events.start_event_watcher()
            events.new_recorder("c").event(about(), "Normal", "Step", "x")
            await sink.wait_calls(1)
            for _ in range(3):  # blocked by the sink's request, or by the unread stream
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(events.flush(), 0.01)
            left = [thread for thread in threading.enumerate() if thread.name == "kevents-flush"]
            for thread in left:
                await asyncio.to_thread(thread.join, 10)
            assert [thread for thread in left if thread.is_alive()] == []
            sink.release()
            assert await anext(stream)

    run(main())


def test_flush_where_it_cannot_wait() -> None:
    """A flush in a sink, in a watcher's thread or in the task that reads a stream returns False immediately."""
    found: list[bool] = []

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        async def flush(_: object) -> None:
            found.append(await events.flush())

        sink._always = flush
        events.start_event_watcher(lambda _: found.append(asyncio.run(events.flush())))
        stream = events.start_event_watcher()
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        async for _ in stream:
            found.append(await events.flush())
            break
        await stream.stop()
        assert await events.flush()

    with_events(body, AsyncSink())
    assert found == [False] * 3


def test_hung_sink_at_the_end() -> None:
    """Pitfall 63: at the deadline of shutdown, requests in flight are cancelled, and the rest is counted and logged."""
    sink = AsyncSink(held=True)
    drops: list[tuple[DropReason, int]] = []

    async def main() -> None:
        events = broadcaster(on_drop=lambda reason, _, number: drops.append((reason, number)))
        events.start_recording_to_sink(sink)
        for number in range(30):
            events.new_recorder("c").event(about(), "Normal", "Step", f"number {number}")
        await sink.wait_calls(4)
        began = time.monotonic()
        assert await events.shutdown(0.2) == 30
        assert time.monotonic() - began < 30
        assert sender_tasks() == []
        assert sink._under_way == []
        check_ledgers(events.statistics())

    run(main(), debug=True)
    assert drops == [(DropReason.SHUTDOWN, 1)] * 30
    assert sink.closed == 1


def test_dead_sink_at_the_end() -> None:
    """Pitfall 63: a shutdown without a server returns at its deadline, with the number of dropped events."""
    sink = AsyncSink(always=ConnectionRefusedError())

    async def main() -> None:
        events = broadcaster(sleep_duration=10.0)
        events.start_recording_to_sink(sink)
        for number in range(500):
            events.new_recorder("c").event(about(), "Normal", "Step", f"number {number}")
        assert await events.shutdown(0.3) == 500
        check_ledgers(events.statistics())

    run(main())


def test_stubborn_sink() -> None:
    """A sink that resists cancellation delays shutdown only for a moment."""
    release = asyncio.Event()

    async def stay(_: object) -> None:
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async def main() -> None:
        events = broadcaster()
        events.start_recording_to_sink(AsyncSink(always=stay))
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        began = time.monotonic()
        assert await events.shutdown(0.1) == 1
        assert time.monotonic() - began < 30
        release.set()

    run(main())


@pytest.mark.parametrize("timeout", [float("inf"), 1e10, threading.TIMEOUT_MAX])
def test_patient(timeout: float) -> None:
    """With a very long timeout, stop and shutdown return when all events are delivered, and raise nothing."""
    sink, other = AsyncSink(), AsyncSink()

    async def main() -> None:
        events = broadcaster()
        watcher = events.start_recording_to_sink(sink)
        events.start_recording_to_sink(other)
        events.new_recorder("c").event(about(), "Normal", "Step", "m")
        assert await events.flush(timeout)
        assert await watcher.stop(timeout) == 0
        assert await events.shutdown(timeout) == 0

    run(main())
    assert ["m"] == sink.messages == other.messages


def test_repeated_shutdown() -> None:
    """Pitfall 65: a second shutdown waits for the first and returns 0. Later calls do nothing."""
    sink = AsyncSink(held=True)

    async def main() -> None:
        events = broadcaster()
        events.start_recording_to_sink(sink)
        recorder = events.new_recorder("c")
        recorder.event(about(), "Normal", "Step", "x")
        await sink.wait_calls(1)
        first, second = asyncio.ensure_future(events.shutdown(30)), asyncio.ensure_future(events.shutdown(30))
        await asyncio.sleep(0)
        assert not second.done()
        sink.release()
        assert await first == 0
        assert await second == 0
        recorder.event(about(), "Normal", "Step", "too late")
        assert events.statistics().refused == {DropReason.SHUTDOWN: 1}
        assert await events.shutdown() == 0
        assert True is await events.flush()
        late = events.start_recording_to_sink(AsyncSink())
        assert await late.stop() == 0
        assert await broadcaster().shutdown() == 0

    run(main())
    assert sink.messages == ["x"]


def test_cancelled_shutdown() -> None:
    """A cancelled shutdown continues, and a later one waits for it."""
    sink = AsyncSink(held=True)

    async def main() -> None:
        events = broadcaster()
        events.start_recording_to_sink(sink)
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        await sink.wait_calls(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(events.shutdown(30), 0.01)
        sink.release()
        assert await events.shutdown(30) == 0

    run(main())
    assert (sink.messages, sink.closed) == (["x"], 1)


def test_shutdown_in_a_sink() -> None:
    """Pitfall 7: a sink or handler that shuts down its own broadcaster waits for nothing."""

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        async def end(_: object) -> None:
            assert await events.shutdown() == 0

        sink._always = end
        events.start_event_watcher(lambda _: asyncio.run(events.shutdown()))
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        await sink.wait_written(1)

    with_events(body, AsyncSink())


def test_shutdown_during_one_from_a_watcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown that waits for a watcher's own shutdown continues as soon as that thread has done its part."""
    gate, begun = Gate(shut=True), threading.Event()

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        publisher = events._core._publisher
        await_shutdown, begin_shutdown = publisher.await_shutdown, publisher.begin_shutdown
        monkeypatch.setattr(publisher, "await_shutdown", lambda until: (gate.open(), await_shutdown(until))[1])
        monkeypatch.setattr(publisher, "begin_shutdown", lambda until: (begin_shutdown(until), begun.set())[0])
        events.start_event_watcher(lambda _: events._core.shutdown(PATIENCE))
        events.start_event_watcher(lambda _: gate.pass_through())
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        assert await asyncio.get_running_loop().run_in_executor(None, begun.wait, PATIENCE)
        assert await asyncio.wait_for(events.shutdown(3600), PATIENCE) == 0
        assert sink.messages == ["x"]

    with_events(body, AsyncSink())


def test_stopping_one_watcher() -> None:
    """`async with` on a watcher stops it and closes its sink. Others continue, and the sink can be started again."""
    sink, other = AsyncSink(), AsyncSink()

    async def main() -> None:
        async with broadcaster() as events:
            events.start_recording_to_sink(other)
            async with events.start_recording_to_sink(sink) as watcher:
                assert events.start_recording_to_sink(sink) is watcher
                events.new_recorder("c").event(about(), "Normal", "Step", "both")
            assert (sink.messages, sink.closed, other.closed) == (["both"], 1, 0)
            events.new_recorder("c").event(about(), "Normal", "Step", "other")
            await other.wait_written(2)
            async with events.start_recording_to_sink(sink):
                events.new_recorder("c").event(about(), "Normal", "Step", "again")
        assert set(other.messages) == {"both", "other", "again"}
        assert set(sink.messages) == {"both", "again"}

    run(main())


def test_many_cycles() -> None:
    """Pitfall 66: a hundred started and stopped broadcasters leave neither threads nor tasks."""

    async def main() -> None:
        for _ in range(100):
            sink = AsyncSink()
            async with broadcaster() as events:
                events.start_recording_to_sink(sink)
                events.new_recorder("c").event(about(), "Normal", "Step", "x")
            assert sink.messages == ["x"]
        assert sender_tasks() == []
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("kevents-sink")] == []

    run(main())


def test_idle() -> None:
    """Pitfall 69: an idle broadcaster has nothing scheduled in the loop."""

    async def body(events: aio.EventBroadcaster, sink: AsyncSink) -> None:
        events.new_recorder("c").event(about(), "Normal", "Step", "x")
        await sink.wait_written(1)
        assert await events.flush()
        loop: Any = asyncio.get_running_loop()
        ours = [handle for handle in loop._scheduled if "bell" in repr(handle) or "kevents" in repr(handle)]
        assert [handle for handle in ours if not handle.cancelled()] == []

    with_events(body, AsyncSink())


def test_stopping_in_its_own_thread() -> None:
    """A handler that stops its own watcher, in any loop, is not waited for, and drops nothing yet."""
    given_up: list[int] = []

    async def main() -> None:
        async with broadcaster() as events:

            def handler(_: object) -> None:
                given_up.append(asyncio.run(watcher.stop(3600)))

            watcher = events.start_event_watcher(handler)
            events.new_recorder("c").event(about(), "Normal", "Step", "one")
            await events.flush(10)

    run(main())
    assert given_up == [0]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_wait_that_raises(error: type[BaseException]) -> None:
    """An exception of a wait in a thread is raised in the awaiting task, which would wait forever otherwise."""

    def wait(_: float | None) -> None:
        raise error

    async def main() -> None:
        with pytest.raises(error):
            await asyncio.wait_for(run_in_thread("w", wait, None), PATIENCE)

    run(main())


def test_no_thread_to_wait_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started for a wait, the result without a wait is returned immediately."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> float | None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            waited = run_in_thread("w", lambda deadline: deadline, None)
        return await waited

    before = time.monotonic()
    assert before <= run(main()) <= time.monotonic()


# -- loops that end --------------------------------------------------------------------------------------------------


def test_loop_ends_before_shutdown(ended: list[aio.EventBroadcaster], caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 67: the leftovers of an ended loop are counted as `shutdown` at the end, and logged."""
    events = broadcaster()
    ended.append(events)
    sink = AsyncSink(held=True)
    recorder = events.new_recorder("c")

    async def main() -> None:
        events.start_recording_to_sink(sink)
        recorder.event(about(), "Normal", "Step", "under way")
        await sink.wait_calls(1)

    run(main())
    assert sink.closed == 1
    recorder.event(about(), "Normal", "Step", "after the loop")
    assert False is events._core.flush(0.05)
    assert events._core.shutdown(30) == 2
    assert events.statistics().dropped == {DropReason.SHUTDOWN: 2}
    check_ledgers(events.statistics())
    logged = [record.getMessage() for record in caplog.records]
    assert any("the event loop of sink-1 is closed" in line for line in logged)
    assert any("shutdown dropped 2 events" in line for line in logged)


def test_next_loop() -> None:
    """The leftovers of an ended loop are written in the next loop that awaits the broadcaster."""
    events = broadcaster()
    sink = AsyncSink(held=True)
    recorder = events.new_recorder("c")

    async def first() -> None:
        events.start_recording_to_sink(sink)
        recorder.event(about(), "Normal", "Step", "under way")
        await sink.wait_calls(1)

    async def second() -> None:
        sink.release()
        assert await events.flush(30)
        assert await events.shutdown() == 0

    run(first())
    recorder.event(about(), "Normal", "Step", "between")
    run(second())
    assert set(sink.messages) == {"under way", "between"}


@pytest.mark.parametrize("idle", [False, True])
def test_loop_closed_by_force(idle: bool) -> None:  # noqa: FBT001
    """A loop that is closed with running tasks loses no event: another one takes over, without warnings."""
    events = broadcaster()
    sink = AsyncSink(held=not idle)
    loop = asyncio.new_event_loop()

    async def first() -> None:
        events.start_recording_to_sink(sink)
        for number in range(10):
            events.new_recorder("c").event(about(), "Normal", "Step", f"number {number}")
        await (sink.wait_written(10) if idle else sink.wait_calls(4))

    loop.run_until_complete(first())
    loop.close()
    gc.collect()
    sink._waiting.clear()

    async def second() -> None:
        sink.release()
        assert await events.shutdown(30) == 0

    run(second())
    assert set(sink.messages) == {f"number {number}" for number in range(10)}
    check_ledgers(events.statistics())


def test_loop_that_pauses() -> None:
    """A paused loop is replaced by a running one. Its tasks end when it continues."""
    events = broadcaster()
    sink = AsyncSink()
    loop = asyncio.new_event_loop()

    async def first() -> None:
        events.start_recording_to_sink(sink)
        events.new_recorder("c").event(about(), "Normal", "Step", "first")
        await sink.wait_written(1)

    async def second() -> None:
        events.new_recorder("c").event(about(), "Normal", "Step", "second")
        assert await events.flush(30)
        assert await events.shutdown() == 0

    async def third() -> None:
        await asyncio.wait(sender_tasks())

    loop.run_until_complete(first())
    run(second())
    loop.run_until_complete(third())
    loop.close()
    assert sink.messages == ["first", "second"]


def test_wait_in_another_loop() -> None:
    """A flush in one loop does not hang when the loop of the tasks ends: they continue in the first one."""
    sink = AsyncSink(held=True)
    events = broadcaster()
    started, ended = threading.Event(), threading.Event()

    async def first() -> None:
        events.start_recording_to_sink(sink)
        events.new_recorder("c").event(about(), "Normal", "Step", "m")
        await sink.wait_calls(1)
        started.set()
        await asyncio.to_thread(ended.wait, 30)

    async def second(pool: ThreadPoolExecutor) -> None:
        future = pool.submit(run, first())
        assert await asyncio.to_thread(started.wait, 30)
        flushing = asyncio.create_task(events.flush(30))
        await asyncio.sleep(0)
        ended.set()
        await asyncio.wrap_future(future)
        sink.release()
        assert await flushing
        assert await events.shutdown() == 0

    with ThreadPoolExecutor(1) as pool:
        run(second(pool))
    assert sink.messages == ["m"]


def test_late_call_of_a_loop_that_was_left() -> None:
    """A late wake-up in a loop that was replaced does not touch the tasks of the new loop."""
    events = broadcaster()
    sink = AsyncSink()
    left = asyncio.new_event_loop()
    troubles: list[dict[str, Any]] = []
    tasks: set[asyncio.Task[Any]] = set()
    left.set_exception_handler(lambda _, context: troubles.append(context))

    async def first() -> None:
        events.start_recording_to_sink(sink)
        events.new_recorder("c").event(about(), "Normal", "Step", "first")
        await sink.wait_written(1)
        tasks.update(sender_tasks())  # from Python 3.14 on, only this thread can list them

    async def second() -> None:
        assert await events.flush(30)
        await asyncio.to_thread(left.run_until_complete, third())
        assert await events.shutdown() == 0

    async def third() -> None:
        await asyncio.wait(tasks)

    try:
        left.run_until_complete(first())
        crew: Any = events._core._publisher.watchers[0].handler
        events.new_recorder("c").event(about(), "Normal", "Step", "second")
        assert poll(lambda: crew._ringing, 30)
        run(second(), debug=True)
    finally:
        left.close()
        asyncio.run(events.shutdown(0))
    assert troubles == []
    assert sink.messages == ["first", "second"]


def test_late_finding_of_a_closed_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds a loop closed, after another has taken over, changes nothing in the new one."""
    events = broadcaster()
    sink = AsyncSink()
    left = asyncio.new_event_loop()

    async def first() -> None:
        events.start_recording_to_sink(sink)
        assert await events.flush(30)

    async def take_over() -> None:
        sink._held = True
        events._bind()
        await sink.wait_calls(1)

    async def second() -> None:
        loop = asyncio.get_running_loop()

        def is_closed() -> bool:
            monkeypatch.undo()
            asyncio.run_coroutine_threadsafe(take_over(), loop).result(60)
            return True

        monkeypatch.setattr(left, "is_closed", is_closed)
        events.new_recorder("c").event(about(), "Normal", "Step", "m")
        assert await asyncio.to_thread(poll, lambda: events.statistics().watchers[0].handled, 30)
        sink.release()
        assert await events.flush(30)
        assert await events.shutdown() == 0

    left.run_until_complete(first())
    left.close()
    run(second())
    assert [call.message for call in sink.calls] == ["m"]


COMMON = """
    import asyncio, sys
    from kevents import aio
    from tests.support.aio import AsyncSink
    from tests.support.sinks import about

    sink = AsyncSink(held=HELD)
    events = aio.EventBroadcaster(on_drop=lambda reason, event, number: print(reason, number))
    recorder = events.new_recorder("c")

    async def main():
        events.start_recording_to_sink(sink)
        for number in range(5):
            recorder.event(about(), "Normal", "Step", f"number {number}")
        await (sink.wait_calls(4) if HELD else events.flush())
"""
ENDS = {
    "asyncio.run": "asyncio.run(main())",
    "closed by force": "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    "before a task began": """
    async def begin():
        events.start_recording_to_sink(sink)
        for number in range(5):
            recorder.event(about(), "Normal", "Step", f"number {number}")
        crew = events._core._publisher.watchers[0].handler
        while crew.statistics().accepted < 5:
            pass
        crew._ring()
        asyncio.get_running_loop().stop()
    loop = asyncio.new_event_loop()
    task = loop.create_task(begin())
    loop.run_forever()
    loop.close()
    """,
    "raised": """
    async def failing():
        await main()
        raise RuntimeError("as asked")
    try:
        asyncio.run(failing())
    except RuntimeError:
        pass
    """,
}


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_process_ends(end: str, held: bool) -> None:  # noqa: FBT001
    """Pitfall 67: however the loop ends, the process exits without asyncio warnings and reports the dropped events."""
    code = textwrap.dedent(COMMON).replace("HELD", str(held)) + textwrap.dedent(end)
    done = script(code)
    assert done.returncode == 0, done.stderr
    for word in ("never awaited", "was destroyed", "Warning", "Traceback"):
        assert word not in done.stderr, done.stderr
    if held or "begin" in end:
        assert done.stdout.splitlines() == ["shutdown 1"] * 5, done.stdout
        assert "dropped 5 events" in done.stderr


def test_loop_that_never_goes_on(ended: list[aio.EventBroadcaster]) -> None:
    """A shutdown from outside does not wait for a stopped loop. The events of its tasks are dropped."""
    events = broadcaster()
    ended.append(events)
    sink = AsyncSink(held=True)
    loop = asyncio.new_event_loop()

    async def first() -> None:
        events.start_recording_to_sink(sink)
        events.new_recorder("c").event(about(), "Normal", "Step", "first")
        await sink.wait_calls(1)

    async def second() -> None:
        sink.release()
        await asyncio.wait(sender_tasks())

    loop.run_until_complete(first())
    crew: Any = events._core._publisher.watchers[0].handler
    assert events._core.shutdown(0.05) == 1
    crew.await_end(time.monotonic() + 3600)
    loop.run_until_complete(second())
    loop.close()
    check_ledgers(events.statistics())
    assert events.statistics().dropped == {DropReason.SHUTDOWN: 1}


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this system has no fork")
def test_fork() -> None:
    """Pitfall 21: a child starts anew in its own loop, and sends none of the parent's events."""
    done = script(
        """
        import asyncio, os, warnings
        from kevents import aio
        from tests.support.aio import AsyncSink
        from tests.support.sinks import about

        warnings.simplefilter("ignore", DeprecationWarning)
        sink = AsyncSink(held=True)
        events = aio.EventBroadcaster()
        recorder = events.new_recorder("c")

        async def main():
            events.start_recording_to_sink(sink)
            recorder.event(about(), "Normal", "Step", "parent")
            await sink.wait_calls(1)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        pid = os.fork()
        if pid == 0:
            async def child():
                sink._waiting.clear()
                sink.calls.clear()
                sink.release()
                async with events:
                    recorder.event(about(), "Normal", "Step", "child")
            asyncio.run(child())
            print(sink.messages, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        sink.release()
        loop.run_until_complete(events.shutdown())
        loop.close()
        print(sink.messages, flush=True)
        """
    )
    assert done.stdout.splitlines() == ["['child']", "['parent']"], done.stderr
    # asyncio's debug mode reports slow steps by the wall clock, and a busy machine has many.
    assert [line for line in done.stderr.splitlines() if not line.startswith("Executing <")] == []


# -- streams ---------------------------------------------------------------------------------------------------------


@debug_or_not
def test_stream(*, debug: bool) -> None:
    """`async for` yields the events in order, recorded in any thread, and ends with the broadcaster."""

    async def read(stream: aio.EventStream) -> list[str]:
        return [event.message async for event in stream]

    async def main() -> list[str]:
        async with broadcaster() as events:
            reading = asyncio.ensure_future(read(events.start_event_watcher()))
            await asyncio.sleep(0)
            recorder = events.new_recorder("c")
            for number in range(200):
                recorder.event(about(), "Normal", "Step", f"number {number}")
            assert await events.flush()
            await asyncio.to_thread(recorder.event, about(), "Normal", "Step", "from a thread")
        check_ledgers(events.statistics())
        return await reading

    assert run(main(), debug=debug) == [*(f"number {number}" for number in range(200)), "from a thread"]


def test_flush_where_events_are_waited_for() -> None:
    """A flush in the task that reads a stream with a timeout returns False, on any Python."""

    async def main() -> None:
        async with broadcaster() as events:
            stream = events.start_event_watcher()
            for number in range(2):
                events.new_recorder("c").event(about(), "Normal", "Step", f"number {number}")
            event = await asyncio.wait_for(anext(stream), 60)
            assert event.message == "number 0"
            with pytest.raises(StopIteration) as ended:  # immediately, without a first wait
                events.flush().send(None)
            assert False is ended.value.value

    run(main())


def test_slow_reader() -> None:
    """An unread stream drops and counts the events beyond its queue. The others can still be read."""

    async def main() -> None:
        events = broadcaster(queue_length=10)
        stream = events.start_event_watcher()
        recorder = events.new_recorder("c")
        for number in range(500):
            recorder.event(about(), "Normal", "Step", f"number {number}")
        dropped = stream.statistics().queue_full
        assert 500 - 10 - 64 <= dropped <= 500 - 10
        assert stream.statistics().offered == 500
        assert False is await events.flush(0.01)
        assert await events.shutdown(10) == 0
        check_ledgers(events.statistics())
        read = [event.message async for event in stream]
        assert len(read) == 500 - dropped
        assert read[0] == "number 0"

    run(main())


def test_reader_that_leaves() -> None:
    """A reader that is cancelled misses nothing when it returns, even in another loop; `stop` ends the stream."""
    events = broadcaster()
    stream = events.start_event_watcher()
    recorder = events.new_recorder("c")

    async def impatient() -> None:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext_of(stream), 0.001)
        assert stream._handler._waiting == [], "cancelled readers are forgotten"
        recorder.event(about(), "Normal", "Step", "x")
        assert (await anext_of(stream)).message == "x"

    async def other() -> None:
        recorder.event(about(), "Normal", "Step", "y")
        assert (await anext_of(stream)).message == "y"
        async with stream:
            recorder.event(about(), "Normal", "Step", "z")
        assert [event.message async for event in stream] == ["z"]
        assert await events.shutdown() == 0

    run(impatient())
    run(other())


async def anext_of(stream: aio.EventStream) -> kevents.Event:
    """The next event, as a coroutine for every iterator."""
    return await stream.__anext__()


def test_other_watchers(caplog: pytest.LogCaptureFixture) -> None:
    """Logging and handlers work as in the API for threads, but stopping them is awaited."""
    seen: list[str] = []

    async def main() -> None:
        async with broadcaster() as events:
            events.start_logging(logging.getLogger("plain").warning)
            events.start_structured_logging(logging.WARNING, logger=logging.getLogger("structured"))
            watcher = events.start_event_watcher(lambda event: seen.append(event.message))
            assert watcher.name.startswith("watcher-")
            events.new_recorder("c").event(about(), "Normal", "Step", "x")
            assert await events.flush()
            assert watcher.statistics().handled == 1

    run(main())
    assert seen == ["x"]
    assert {"plain", "structured"} <= {record.name for record in caplog.records}


# -- wrong input -----------------------------------------------------------------------------------------------------


def test_sinks_of_the_other_kind() -> None:
    """A sink of the wrong kind is refused with the name of the broadcaster that accepts it."""
    with pytest.raises(TypeError, match=r"is not a coroutine function.*kevents\.EventBroadcaster"):
        broadcaster().start_recording_to_sink(FakeSink())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is not a coroutine function"):
        broadcaster().start_recording_to_sink(kevents.CoreV1EventSink(lambda: None))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"is a coroutine function: use a broadcaster of kevents\.aio"):
        kevents.EventBroadcaster().start_recording_to_sink(AsyncSink())  # type: ignore[arg-type]
    for thing in (None, "https://example.com", object()):
        with pytest.raises(TypeError, match="has no method create"):
            broadcaster().start_recording_to_sink(thing)  # type: ignore[arg-type]


def test_a_coroutine_function_as_handler() -> None:
    """A coroutine function as a handler is refused with advice."""

    async def handler(_: kevents.Event) -> None:
        raise NotImplementedError

    class Handler:
        async def __call__(self, _: kevents.Event) -> None:
            raise NotImplementedError

    for each in (handler, Handler()):
        with pytest.raises(TypeError, match="async for event"):
            broadcaster().start_event_watcher(each)
        with pytest.raises(TypeError, match="must be a plain function"):
            broadcaster().start_logging(each)


def test_options() -> None:
    """Options and their checks are the same as in the API for threads."""
    wrong: list[dict[str, Any]] = [
        {"queue_length": 0},
        {"sleep_duration": -1},
        {"clock": None},
        {"correlator_options": {}},
    ]
    for options in wrong:
        with pytest.raises(ValueError, match=next(iter(options))):
            aio.EventBroadcaster(**options)
    for senders in (0, 1.5, True):
        with pytest.raises(ValueError, match="senders"):
            broadcaster().start_recording_to_sink(AsyncSink(), senders=senders)  # type: ignore[arg-type]


def test_strict() -> None:
    """A strict broadcaster raises into the coroutine that records."""
    with pytest.raises(kevents.InvalidReferenceError):
        broadcaster(strict=True).new_recorder("c").event(None, "Normal", "Step", "x")


def test_imports() -> None:
    """`import kevents.aio` loads no client of the API and no HTTP library."""
    done = script(
        """
        import sys
        import kevents.aio
        print([name for name in ("kubernetes", "kubernetes_asyncio", "aiohttp", "urllib3") if name in sys.modules])
        """
    )
    assert done.stdout.strip() == "[]", done.stderr


# -- many events at once ---------------------------------------------------------------------------------------------

LOAD = 20_000
COROUTINES = 50
THREADS = 8
LONGEST_CALLBACK = 0.005


class Stopwatch:
    """Measures the processor time of the loop's thread in callbacks of kevents, without garbage collection.

    Attributes:
        longest: The longest callback in seconds, by name.
        count: The number of callbacks.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.longest: dict[str, float] = {}
        self.count = 0
        self._collecting = 0.0
        self._began: dict[int, float] = {}
        self._run_handle = asyncio.events.Handle._run

        def measured(handle: Any) -> None:
            self._measure(handle)

        monkeypatch.setattr(asyncio.events.Handle, "_run", measured)
        gc.callbacks.append(self._collect)

    def stop(self) -> None:
        """Unregister from the garbage collector."""
        gc.callbacks.remove(self._collect)

    def _collect(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._began[threading.get_ident()] = time.thread_time()
        elif threading.current_thread() is threading.main_thread():
            self._collecting += time.thread_time() - self._began[threading.get_ident()]

    def time(self) -> float:
        """The processor time of the loop's thread so far, in seconds."""
        return time.thread_time() - self._collecting

    def _measure(self, handle: Any) -> None:
        before = self.time()
        self._run_handle(handle)
        took = self.time() - before
        if (name := self._name(handle._callback)) is not None:
            self.count += 1
            self.longest[name] = max(self.longest.get(name, 0.0), took)

    @staticmethod
    def _name(callback: Any) -> str | None:
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            return owner.get_name().rsplit("-", 1)[0] if owner.get_name().startswith("kevents-") else None
        module = getattr(callback, "__module__", None) or type(owner).__module__
        return getattr(callback, "__qualname__", "?") if module.startswith("kevents.") else None


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stopwatch]:
    """A running stopwatch."""
    stopwatch = Stopwatch(monkeypatch)
    yield stopwatch
    stopwatch.stop()


@pytest.mark.measured
def test_load(stopwatch: Stopwatch, capsys: pytest.CaptureFixture[str]) -> None:
    """20,000 events from 50 coroutines and 8 threads: all are counted, and no callback takes more than 5 ms."""
    sink = AsyncSink()
    each = LOAD // (COROUTINES + THREADS)
    slowest: list[float] = []

    def record(recorder: kevents.EventRecorder, who: int, number: int) -> None:
        recorder.event(about(f"web-{who % 20}"), "Normal", f"Step{number % 10}", f"number {number % 50}")

    def many(recorder: kevents.EventRecorder, who: int) -> None:
        for number in range(each):
            record(recorder, who, number)

    async def coroutine(recorder: kevents.EventRecorder, who: int) -> None:
        longest = 0.0
        for number in range(each):
            before = stopwatch.time()
            record(recorder, who, number)
            longest = max(longest, stopwatch.time() - before)
            await asyncio.sleep(0)
        slowest.append(longest)

    async def main() -> tuple[float, kevents.Statistics]:
        async with broadcaster(queue_length=LOAD) as events:
            events.start_recording_to_sink(sink)
            recorder = events.new_recorder("c")
            with ThreadPoolExecutor(THREADS) as pool:
                began = time.perf_counter()
                loop = asyncio.get_running_loop()
                threads = [loop.run_in_executor(pool, many, recorder, who) for who in range(THREADS)]
                await asyncio.gather(*(coroutine(recorder, who) for who in range(COROUTINES)), *threads)
                for number in range(LOAD - each * (COROUTINES + THREADS)):
                    record(recorder, 0, number)
                assert await events.flush(60)
                return time.perf_counter() - began, events.statistics()

    took, statistics = run(main())
    check_ledgers(statistics)
    assert (statistics.recorded, statistics.published, statistics.dropped) == (LOAD, LOAD, {})
    assert sink_statistics_of(statistics).delivered == LOAD
    assert sink.doubled == []
    counts: dict[str, int] = {}
    for call in sink.written:
        counts[call.name] = max(counts.get(call.name, 0), call.count)
    assert sum(counts.values()) == LOAD
    with capsys.disabled():
        figures = {name: f"{longest * 1000:.2f} ms" for name, longest in stopwatch.longest.items()}
        print(  # noqa: T201
            f"\n{LOAD} events in {took:.1f} s, {len(sink.calls)} requests, slowest call {max(slowest) * 1000:.2f} ms"
        )
        print(f"longest of {stopwatch.count} callbacks: {figures}")  # noqa: T201
    assert max(stopwatch.longest.values()) < LONGEST_CALLBACK
    assert max(slowest) < LONGEST_CALLBACK


@pytest.mark.measured
@pytest.mark.parametrize("dead", [False, True])
def test_full_backlog_at_the_end(stopwatch: Stopwatch, dead: bool) -> None:  # noqa: FBT001
    """Dropping 4,096 events at the deadline of a shutdown takes no callback of more than 5 ms either."""
    sink = AsyncSink(always=ConnectionRefusedError()) if dead else AsyncSink(held=True)

    async def main() -> None:
        events = broadcaster(sleep_duration=10.0)
        events.start_recording_to_sink(sink)
        for number in range(4096):
            events.new_recorder("c").event(about(f"web-{number % 100}"), "Normal", "Step", f"number {number}")
        assert False is await events.flush(0.5)
        assert await events.shutdown(0.5) == 4096
        check_ledgers(events.statistics())

    run(main())
    assert max(stopwatch.longest.values()) < LONGEST_CALLBACK, stopwatch.longest


def sink_statistics_of(statistics: kevents.Statistics) -> kevents.SinkStatistics:
    """The statistics of the only sink."""
    (sink,) = (watcher.sink for watcher in statistics.watchers)
    assert sink is not None
    return sink
