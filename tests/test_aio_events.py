"""The asyncio API of events.k8s.io/v1: the same decisions about series as in threads, written by tasks."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import kevents
from kevents import aio
from kevents import events as threaded
from tests.support.aio import AsyncSink, run
from tests.support.sinks import about, check_ledgers

if TYPE_CHECKING:
    from tests.support.sinks import Call

LIMIT = 60.0


def broadcaster(sink: object, **options: Any) -> aio.EventsV1Broadcaster:
    """A broadcaster with short retries."""
    return aio.EventsV1Broadcaster(sink, **{"sleep_duration": 0.05, **options})  # type: ignore[arg-type]


def record(recorder: threaded.EventRecorder, reason: str = "Pulled", times: int = 1) -> None:
    """Record the same event several times."""
    for number in range(times):
        recorder.eventf(about(), None, "Normal", reason, "Pulling", "note %d", number)


def counts(calls: list[Call]) -> dict[str, int]:
    """The last written count of each reason."""
    reasons = {call.name: str(call.body["reason"]) for call in calls if call.verb == "create"}
    found: dict[str, int] = {}
    for call in calls:
        count = call.body.get("series", {"count": 1})["count"]
        found[reasons[call.name]] = max(count, found.get(reasons[call.name], 0))
    return found


@pytest.mark.parametrize("debug", [False, True])
def test_series(*, debug: bool) -> None:
    """A first occurrence is created, the second patched immediately, later ones at the flush; in debug mode too."""
    sink = AsyncSink()

    async def main() -> None:
        async with broadcaster(sink) as events:
            recorder = events.new_recorder("example.com/c", reporting_instance="c-1")
            assert isinstance(recorder, threaded.EventRecorder)
            for expected in (["create"], ["create", "patch"], ["create", "patch", "patch"]):
                record(recorder)
                assert await events.flush(LIMIT)
                assert [call.verb for call in sink.calls] == expected
        check_ledgers(events.statistics())

    run(main(), debug=debug)
    create, *patches = sink.written
    assert (
        create.body["reportingController"],
        create.body["reportingInstance"],
        create.body["note"],
        create.namespace,
    ) == ("example.com/c", "c-1", "note 0", "prod")
    assert [patch.body["series"]["count"] for patch in patches] == [2, 3]
    assert (sink.closed, sink.doubled) == (1, [])


def test_shutdown() -> None:
    """The end of `async with` writes the exact counts."""
    sink = AsyncSink()

    async def main() -> None:
        async with broadcaster(sink) as events:
            record(events.new_recorder("c"), times=2)
            assert await events.flush(LIMIT)
            record(events.new_recorder("c"), times=50)

    run(main())
    assert counts(sink.written) == {"Pulled": 52}


def test_same_requests_as_with_threads() -> None:
    """Both APIs write the same bodies and patches, except for names and times."""
    moment = 1_784_883_600_123_456_789

    class Plain:
        def __init__(self) -> None:
            self.written: list[dict[str, Any]] = []

        def create(self, namespace: str, body: dict[str, Any], /) -> None:
            self.written.append(body)

        def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
            self.written.append(patch)

    plain, sink = Plain(), AsyncSink()
    with threaded.EventBroadcaster(plain, clock=lambda: moment) as threads:
        for _ in range(3):
            record(threads.new_recorder("c", reporting_instance="i"))
            assert threads.flush(LIMIT)

    async def main() -> None:
        async with broadcaster(sink, clock=lambda: moment) as events:
            for _ in range(3):
                record(events.new_recorder("c", reporting_instance="i"))
                assert await events.flush(LIMIT)

    run(main())
    written = [call.body for call in sink.written]
    for bodies in (plain.written, written):
        assert bodies[0]["metadata"].pop("name").startswith("web-0.")
    assert written == plain.written


def test_coroutines_and_threads() -> None:
    """Pitfalls 1 and 3: with 20 coroutines and 4 threads recording at once, every occurrence is counted."""
    sink, coroutines, threads, each = AsyncSink(), 20, 4, 100

    async def main() -> None:
        async with broadcaster(sink) as events:
            recorder = events.new_recorder("c")

            async def coroutine(who: int) -> None:
                for _ in range(each):
                    record(recorder, f"R{who % 5}")
                    await asyncio.sleep(0)

            others = [threading.Thread(target=record, args=(recorder, "R0", each)) for _ in range(threads)]
            for thread in others:
                thread.start()
            await asyncio.gather(*map(coroutine, range(coroutines)))
            for thread in others:
                await asyncio.to_thread(thread.join)
            assert await events.flush(LIMIT)
            check_ledgers(events.statistics())

    run(main())
    assert counts(sink.written) == {"R0": 8 * each, **{f"R{number}": 4 * each for number in range(1, 5)}}


def test_before_the_loop() -> None:
    """A broadcaster that was built and used before any loop writes in the first loop that enters it."""
    sink = AsyncSink()
    events = broadcaster(sink)
    record(events.new_recorder("c"), times=3)

    async def main() -> None:
        async with events:
            assert await events.flush(LIMIT)

    run(main())
    assert counts(sink.written) == {"Pulled": 3}


def test_built_in_the_loop() -> None:
    """A broadcaster that is built in a loop writes there without `async with`."""
    sink = AsyncSink()

    async def main() -> None:
        events = broadcaster(sink)
        record(events.new_recorder("c"))
        await sink.wait_written(1)
        assert await events.shutdown() == 0

    run(main())
    assert counts(sink.written) == {"Pulled": 1}


def test_next_loop() -> None:
    """Pitfall 67: the leftovers of an ended loop, including a series' count, are written in the next loop."""
    sink = AsyncSink(held=True)
    events = broadcaster(sink)
    recorder = events.new_recorder("c")

    async def first() -> None:
        assert await events.flush(LIMIT)  # binds the broadcaster to this loop
        record(recorder)
        await sink.wait_calls(1)

    async def second() -> None:
        sink.release()
        assert await events.shutdown() == 0

    run(first())
    record(recorder, times=4)
    run(second())
    assert counts(sink.written) == {"Pulled": 5}


def test_recorded_after_the_loop() -> None:
    """Pitfall 67: events recorded after the loop has closed are counted as dropped at the end."""
    sink = AsyncSink()
    events = broadcaster(sink)
    recorder = events.new_recorder("c")

    async def main() -> None:
        record(recorder)
        assert await events.flush(LIMIT)

    run(main())
    record(recorder, "Late", times=3)
    assert events._core.shutdown(LIMIT) == 3
    assert events.statistics().dropped == {kevents.DropReason.SHUTDOWN: 3}
    check_ledgers(events.statistics())


def test_long_note() -> None:
    """Pitfall 26: a note of 5,000 bytes of emoji is cut to 1,024 bytes at a character."""
    sink = AsyncSink()

    async def main() -> None:
        async with broadcaster(sink) as events:
            events.new_recorder("c").event(about(), "Normal", "R", "A", "🔥" * 1250)

    run(main())
    assert [call.body["note"] for call in sink.written] == ["🔥" * 255 + "..."]


def test_gone() -> None:
    """Pitfall 36: after a 404 a patch becomes a create of the same name, with its series."""
    sink = AsyncSink({2: kevents.StatusError(404, "NotFound")})

    async def main() -> None:
        async with broadcaster(sink) as events:
            for _ in range(2):
                record(events.new_recorder("c"))
                assert await events.flush(LIMIT)

    run(main())
    assert [call.verb for call in sink.calls] == ["create", "patch", "create"]
    assert (sink.calls[2].name, sink.calls[2].body["series"]["count"]) == (sink.calls[0].name, 2)


def test_watchers() -> None:
    """A stream yields events with their action and note."""

    async def main() -> None:
        async with broadcaster(AsyncSink()) as events:
            stream = events.start_event_watcher()
            record(events.new_recorder("c"))
            event = await stream.__anext__()
            assert isinstance(event, threaded.SeriesEvent)
            assert (event.action, event.note, event.reporting_controller) == ("Pulling", "note 0", "c")
            await stream.stop()

    run(main())


def test_refused() -> None:
    """Pitfall 13: an empty action is refused in the call, and counted."""
    sink = AsyncSink()

    async def main() -> None:
        async with broadcaster(sink) as events:
            events.new_recorder("c").event(about(), "Normal", "R", "", "n")
            assert events.statistics().refused == {kevents.DropReason.INVALID_MESSAGE: 1}

    run(main())
    assert sink.calls == []


def test_options() -> None:
    """Options, defaults and their checks are the same as in the API for threads."""
    pairs: tuple[tuple[Callable[..., object], Callable[..., object]], ...] = (
        (threaded.EventBroadcaster, aio.EventsV1Broadcaster),
        (threaded.EventBroadcaster.new_recorder, aio.EventsV1Broadcaster.new_recorder),
        (kevents.EventBroadcaster, aio.EventBroadcaster),
        (kevents.EventBroadcaster.new_recorder, aio.EventBroadcaster.new_recorder),
        (kevents.EventBroadcaster.start_recording_to_sink, aio.EventBroadcaster.start_recording_to_sink),
        (threaded.EventsV1EventSink, aio.EventsV1EventSink),
    )
    for threads, tasks in pairs:
        expected, found = inspect.signature(threads).parameters, inspect.signature(tasks).parameters
        assert [(p.name, p.default, p.kind) for p in found.values()] == [
            (p.name, p.default, p.kind) for p in expected.values()
        ]
    for options in ({"series_options": {}}, {"senders": 0}, {"clock": None}, {"retry_wait": 3}):
        with pytest.raises(ValueError, match=next(iter(options))):
            broadcaster(AsyncSink(), **options)
    for name in ("", "a b", "x" * 64):
        with pytest.raises(ValueError, match="reporting_controller"):
            broadcaster(AsyncSink()).new_recorder(name)


def test_sinks_of_the_other_kind() -> None:
    """A plain sink is refused with the name of the broadcaster that accepts it. A core/v1 sink is refused too."""
    plain = threaded.EventsV1EventSink(lambda: None)
    with pytest.raises(TypeError, match=r"is not a coroutine function.*kevents\.events\.EventBroadcaster"):
        broadcaster(plain)
    with pytest.raises(TypeError, match=r"is a coroutine function: use a broadcaster of kevents\.aio"):
        threaded.EventBroadcaster(aio.EventsV1EventSink(lambda: None))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"CoreV1EventSink writes core/v1 events.*use an EventsV1EventSink"):
        broadcaster(aio.CoreV1EventSink(lambda: None))
    with pytest.raises(TypeError, match=r"EventsV1EventSink writes events\.k8s\.io/v1 .*use a CoreV1EventSink"):
        aio.EventBroadcaster().start_recording_to_sink(aio.EventsV1EventSink(lambda: None))
    with pytest.raises(TypeError, match="use a CoreV1EventSink"):
        kevents.EventBroadcaster().start_recording_to_sink(plain)
    for thing in (None, "https://example.com"):
        with pytest.raises(TypeError, match="has no method create"):
            broadcaster(thing)
