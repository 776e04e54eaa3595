"""Typical user code of the optional modules, type-checked by mypy in strict mode and never run."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

import kevents
from kevents import aio, events
from kevents.testing import FakeEventsV1Recorder, FakeSink, RecordedEvent


class Plain:
    """A user's sink for threads."""

    def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event."""

    def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Patch an event."""


class Awaited:
    """A user's sink for an event loop."""

    async def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event."""

    async def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Patch an event."""


def series(pod: dict[str, Any], recorder: events.EventRecorder) -> None:
    """Record through events.k8s.io/v1 in threads."""
    assert_type(recorder.eventf(pod, None, "Normal", "Pulled", "Pulling", "%d of %s", 3, "five"), None)
    assert_type(recorder.event(pod, "Normal", "Pulled", "Pulling", ValueError("x"), related=pod), None)
    recorder.eventf(pod, "Normal", "Pulled", "Pulling", "n")  # type: ignore[call-arg, arg-type]

    def key(event: events.SeriesEvent) -> object:
        return event.action, event.note

    options = events.SeriesOptions(key_func=key, series_interval=60)
    with events.EventBroadcaster(events.EventsV1EventSink(), series_options=options) as broadcaster:
        assert_type(broadcaster.new_recorder("c", reporting_instance="c-1"), events.EventRecorder)
        broadcaster.start_event_watcher(key)
    events.EventBroadcaster(Plain())
    events.EventBroadcaster(FakeSink(api_group="events.k8s.io"))
    events.EventBroadcaster(Awaited())  # type: ignore[arg-type]


async def asynchronous(pod: dict[str, Any]) -> None:
    """Use both broadcasters of the asyncio API."""
    async with aio.EventBroadcaster() as broadcaster:
        assert_type(broadcaster, aio.EventBroadcaster)
        assert_type(broadcaster.new_recorder("c"), kevents.EventRecorder)
        assert_type(broadcaster.start_recording_to_sink(aio.CoreV1EventSink()), aio.Watcher)
        broadcaster.start_recording_to_sink(Awaited())
        broadcaster.start_recording_to_sink(Plain())  # type: ignore[arg-type]
        broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())  # type: ignore[arg-type]
        async for event in broadcaster.start_event_watcher():
            assert_type(event, kevents.Event)
        assert_type(await broadcaster.flush(timeout=1), bool)
        assert_type(await broadcaster.shutdown(1), int)

    async with aio.EventsV1Broadcaster(aio.EventsV1EventSink(), senders=2) as new:
        assert_type(new, aio.EventsV1Broadcaster)
        assert_type(new.new_recorder("c"), events.EventRecorder)
        stream = new.start_event_watcher()
        assert_type(stream, aio.EventStream[events.SeriesEvent])
        async for occurrence in stream:
            assert_type((occurrence.action, occurrence.note), tuple[str, str])
    aio.EventsV1Broadcaster(Plain())  # type: ignore[arg-type]


def faking(pod: dict[str, Any]) -> None:
    """A fake recorder stands in for the real one."""
    fake = FakeEventsV1Recorder("c")
    series(pod, fake)
    assert_type(fake.assert_event("Normal", action="Pulling", object=pod, times=2), tuple[RecordedEvent, ...])
    assert_type(fake.events[0].related, kevents.ObjectReference | None)
