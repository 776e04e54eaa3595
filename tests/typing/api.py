"""Typical user code, type-checked by mypy in strict mode and never run: the public names have the promised types."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tenacity import wait_fixed, wait_random_exponential
from typing_extensions import assert_type

import kevents
from kevents import (
    BoundRecorder,
    CoreV1EventSink,
    CorrelatorOptions,
    DropReason,
    Event,
    EventBroadcaster,
    EventCorrelator,
    EventRecorder,
    EventSink,
    EventSource,
    ObjectReference,
    Recorder,
    SinkStatistics,
    Statistics,
    StatusError,
    UnavailableError,
    Watcher,
    WatcherStatistics,
)
from kevents.testing import FakeRecorder


class Widget:
    """A class of the user."""


# -- recording -------------------------------------------------------------------------------------------------------


def recording(recorder: EventRecorder, pod: dict[str, Any], widget: Widget) -> None:
    """Record with every kind of object, message and text."""
    assert_type(recorder.event(pod, "Normal", "Started", "it runs"), None)
    recorder.event(widget, kevents.EVENT_TYPE_WARNING, "Failed", ValueError("x"))
    recorder.event(pod, "Normal", "Started", "m", annotations={"a": "1"}, labels={"app": "web"})
    assert_type(recorder.eventf(pod, "Normal", "Scaled", "%d of %s", 3, "five"), None)
    assert_type(recorder.annotated_eventf(pod, {"a": "1"}, "Normal", "Scaled", "%d", 3), None)
    recorder.annotated_eventf(pod, None, "Normal", "Scaled", "plain")
    assert_type(recorder.with_logger(logging.getLogger("mine")), EventRecorder)
    assert_type(recorder.source, EventSource)

    recorder.event(pod, "Normal", "Started")  # type: ignore[call-arg]
    recorder.event(pod, "Normal", "Started", "m", annotations=["a"])  # type: ignore[arg-type]
    recorder.event(pod, "warning", "Failed", "m")  # type: ignore[arg-type]
    recorder.event(pod, kevents.EventType.WARNING, "Failed", "m", related=widget, action="Starting")
    recorder.for_object(pod).event("Error", "Failed", "m")  # type: ignore[arg-type]
    recorder.event(pod, "Normal", "Started", "m", {"a": "1"})  # type: ignore[call-arg]


def recording_about_one(recorder: EventRecorder, pod: dict[str, Any]) -> None:
    """Record about one object, as in a handler."""
    bound = recorder.for_object(pod)
    assert_type(bound, BoundRecorder)
    assert_type(bound.normal("Started", "it runs"), None)
    assert_type(bound.warning("Failed", 404), None)
    try:
        bound.event("Normal", "Started", "m", labels={"app": "web"})
    except OSError as error:
        assert_type(bound.exception("Failed", error), None)


def reconcile(recorder: Recorder, pod: Mapping[str, object]) -> None:
    """User code annotates the protocol."""
    recorder.event(pod, "Normal", "Reconciled", "done")
    recorder.eventf(pod, "Normal", "Reconciled", "in %.1f s", 0.3)
    recorder.annotated_eventf(pod, None, "Normal", "Reconciled", "done")
    assert_type(recorder.for_object(pod), BoundRecorder)


def with_either(real: EventRecorder, pod: dict[str, Any]) -> None:
    """Real and fake recorders satisfy the protocol."""
    reconcile(real, pod)
    reconcile(FakeRecorder(), pod)
    recorders: Sequence[Recorder] = [real, FakeRecorder(EventSource("c"), strict=False)]
    for recorder in recorders:
        reconcile(recorder, pod)


# -- broadcasting ----------------------------------------------------------------------------------------------------


def broadcasting(sink: EventSink) -> None:
    """Start a broadcaster and its watchers, and shut down."""
    with EventBroadcaster() as broadcaster:
        assert_type(broadcaster, EventBroadcaster)
        assert_type(broadcaster.new_recorder("operator"), EventRecorder)
        assert_type(broadcaster.new_recorder(EventSource("operator", kevents.default_host())), EventRecorder)
        assert_type(broadcaster.start_recording_to_sink(sink), Watcher)
        assert_type(broadcaster.start_logging(logging.getLogger("x").info), Watcher)
        assert_type(broadcaster.start_logging(print), Watcher)
        assert_type(broadcaster.start_structured_logging(), Watcher)
        assert_type(broadcaster.start_structured_logging(logging.DEBUG, logger=logging.getLogger("x")), Watcher)
        with broadcaster.start_event_watcher(handler) as watcher:
            assert_type(watcher, Watcher)
        assert_type(watcher.stop(), int)
        assert_type(watcher.stop(timeout=1.5), int)
        assert_type(broadcaster.flush(), bool)
        assert_type(broadcaster.flush(timeout=2), bool)
        assert_type(broadcaster.shutdown(timeout=10), int)
        assert_type(broadcaster.statistics(), Statistics)

    broadcaster.new_recorder(7)  # type: ignore[arg-type]
    broadcaster.start_event_watcher(lambda: None)  # type: ignore[misc, arg-type]
    broadcaster.start_recording_to_sink(Widget())  # type: ignore[arg-type]


def handler(event: Event) -> None:
    """A handler reads the fields of an event."""
    assert_type(event.reference, ObjectReference)
    assert_type(event.source, EventSource)
    assert_type(event.annotations, Mapping[str, str])
    assert_type((event.type, event.reason, event.message, event.name, event.namespace), tuple[str, str, str, str, str])
    assert_type((event.count, event.time, event.first_time, event.serial), tuple[int, int, int, int])
    assert_type(event.to_dict(), dict[str, Any])
    assert_type(Event.from_dict({"reason": "Started"}), Event)

    event.count = 2  # type: ignore[misc]


def on_drop(reason: DropReason, event: Event | None, events: int) -> None:
    """Handle a lost event."""
    if reason is DropReason.QUEUE_FULL and event is not None:
        assert_type(event.reference.name, str)


def options(sink: EventSink, clock: Callable[[], int]) -> None:
    """Set every option."""
    broadcaster = EventBroadcaster(
        correlator_options=CorrelatorOptions(),
        sleep_duration=5,
        queue_length=100,
        clock=clock,
        strict=True,
        on_drop=on_drop,
        max_message_bytes=1024,
    )
    broadcaster.start_recording_to_sink(sink, senders=1, backlog=10, max_age=60, retry_wait=wait_fixed(2))
    broadcaster.start_recording_to_sink(sink, retry_wait=wait_random_exponential(max=5) + wait_fixed(1))
    broadcaster.start_recording_to_sink(sink, retry_wait=lambda state: state.attempt_number * 0.5)
    CorrelatorOptions(
        lru_cache_size=10,
        burst_size=None,
        qps=0.5,
        key_func=lambda event: (event.reference.uid, event.message),
        message_func=lambda event: event.message,
        max_events=None,
        max_interval_in_seconds=60,
        count_identical=False,
        spam_key_func=kevents.spam_key_by_object_and_reason,
        clock=clock,
    )

    EventBroadcaster(100)  # type: ignore[call-arg, arg-type]
    EventBroadcaster(sleep_duration="5")  # type: ignore[arg-type]
    CorrelatorOptions(key_func=lambda event: event.message)  # type: ignore[arg-type, return-value]
    CorrelatorOptions(qps=None)  # type: ignore[arg-type]


# -- sinks -----------------------------------------------------------------------------------------------------------


class MySink:
    """A user's sink without a base class."""

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Refuse some events."""
        if not body["message"]:
            raise StatusError(422, "Invalid", "no message", causes=["FieldValueRequired"], retry_after=None)

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Fail because there is no connection."""
        raise UnavailableError("no connection", retry_after=2.5)

    def after_fork(self) -> None:
        """Reconnect."""


class AsyncSink:
    """A sink for `kevents.aio`, which is not an EventSink."""

    async def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Create an event."""

    async def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Patch an event."""


class HalfSink:
    """A sink without `patch`."""

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Create an event."""


def sinks(broadcaster: EventBroadcaster, api: object) -> None:
    """Sinks satisfy the protocol by structure."""
    mine: EventSink = MySink()
    theirs: EventSink = CoreV1EventSink()
    for sink in (mine, theirs, CoreV1EventSink(api, request_timeout=(2, 10.5)), CoreV1EventSink(lambda: api)):
        assert_type(broadcaster.start_recording_to_sink(sink), Watcher)
        assert_type(sink.create("default", {"reason": "Started"}), None)
        assert_type(sink.patch("default", "web-0.1", {"count": 2}), None)

    half: EventSink = HalfSink()  # type: ignore[assignment]
    awaited: EventSink = AsyncSink()  # type: ignore[assignment]
    CoreV1EventSink(request_timeout=5)  # type: ignore[arg-type]
    broadcaster.start_recording_to_sink(half)
    broadcaster.start_recording_to_sink(awaited)


def errors(error: kevents.KeventsError) -> None:
    """Handle each error of the tree."""
    match error:
        case StatusError():
            assert_type((error.code, error.reason, error.message), tuple[int, str, str])
            assert_type(error.causes, tuple[str, ...])
            assert_type(error.retry_after, float | None)
        case UnavailableError():
            assert_type(error.retry_after, float | None)
        case kevents.InvalidEventError():
            value: ValueError = error
            raise value


# -- looking and correlating -----------------------------------------------------------------------------------------


def statistics(broadcaster: EventBroadcaster) -> None:
    """Read the statistics: plain numbers with plain names."""
    snapshot = broadcaster.statistics()
    assert_type((snapshot.recorded, snapshot.published, snapshot.no_watcher), tuple[int, int, int])
    assert_type(snapshot.refused, Mapping[DropReason, int])
    assert_type(snapshot.dropped, dict[DropReason, int])
    for watcher in snapshot.watchers:
        assert_type(watcher, WatcherStatistics)
        assert_type(watcher.sink, SinkStatistics | None)
        if watcher.sink is not None:
            assert_type(watcher.sink.delivered, int)
            assert_type(watcher.sink.rejected_by_code, Mapping[int, int])
            assert_type((watcher.sink.oldest_age, watcher.sink.server_available), tuple[float, bool])

    snapshot.recorded = 0  # type: ignore[misc]


def references(pod: dict[str, Any]) -> None:
    """Create references, also about user classes."""
    kevents.register(Widget, "example.com/v1", "Widget")
    assert_type(kevents.get_reference(pod), ObjectReference)
    assert_type(kevents.get_partial_reference(pod, "spec.containers{app}"), ObjectReference)
    reference = ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u", field_path="x")
    assert_type((reference.kind, reference.resource_version), tuple[str, str])

    ObjectReference("Pod")  # type: ignore[call-arg]
    ObjectReference(apiVersion="v1")  # type: ignore[call-arg]
    kevents.register("Widget", "example.com/v1", "Widget")  # type: ignore[arg-type]


def correlating(event: Event) -> None:
    """Use the correlator directly."""
    correlator = EventCorrelator(CorrelatorOptions())
    result = correlator.event_correlate(event)
    assert_type(result.skip, bool)
    assert_type(result.event, Event | None)
    assert_type(result.patch, dict[str, Any] | None)
    if result.event is not None:
        assert_type(correlator.update_state(result.event), None)
    assert_type(kevents.EventSourceObjectSpamFilter(CorrelatorOptions()).filter(event), bool)
    aggregated, _key = kevents.EventAggregator(CorrelatorOptions()).event_aggregate(event)
    assert_type(aggregated, Event)
