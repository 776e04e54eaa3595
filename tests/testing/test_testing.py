"""The fakes behave like the real recorder, sink and clock, and store the calls."""

from __future__ import annotations

import copy
import doctest
import logging
import re
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest

import kevents
from kevents import DropReason, StatusError, UnavailableError
from kevents import events as door
from kevents.testing import (
    FakeClock,
    FakeEventsV1Recorder,
    FakeRecorder,
    FakeSink,
    LostAnswer,
    RecordedEvent,
    SinkRequest,
    Status,
)
from kevents.testing import recorder as recorder_room
from kevents.testing import sink as sink_room

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "prod", "uid": "u-1"}}
OTHER = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "prod", "uid": "u-2"}}
Call = Callable[[Any], object]


class Broken:
    """An object whose `str` raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def body(name: str = "web-0.1", namespace: str = "prod", **fields: object) -> dict[str, Any]:
    """Return the body of a create."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": "web-0"},
        "reason": "Started",
        "message": "up",
        "type": "Normal",
        "count": 1,
        "firstTimestamp": "2026-07-24T09:00:00Z",
        "lastTimestamp": "2026-07-24T09:00:00Z",
        **fields,
    }


PATCH = {"count": 2, "lastTimestamp": "2026-07-24T09:00:07Z", "message": "again"}


@pytest.mark.parametrize("room", [recorder_room, sink_room], ids=lambda room: room.__name__)
def test_docstrings(room: Any, caplog: pytest.LogCaptureFixture) -> None:
    """The examples in the docstrings are correct."""
    assert doctest.testmod(room).failed == 0


# -- FakeRecorder ------------------------------------------------------------------------------------------------

NOWHERE = kevents.ObjectReference(kind="Pod", api_version="v1", namespace="50%", name="web-0")
GOOD: list[Call] = [
    lambda r: r.event(POD, "Normal", "Started", "up"),
    lambda r: r.event(POD, "Warning", "Failed", "why", annotations={"a": "1"}, labels={"b": "2"}),
    lambda r: r.event(POD, "Normal", "Started", "100% of %s done %d"),
    lambda r: r.event(POD, "Normal", "Started", None),
    lambda r: r.event(POD, "Normal", "", ValueError("as a message")),
    lambda r: r.eventf(POD, "Normal", "Started", "%d of %d", 1, 2),
    lambda r: r.eventf(POD, "Normal", "Started", "%d", "x"),
    lambda r: r.annotated_eventf(POD, {"a": "1"}, "Normal", "Started", "%s", "up"),
    lambda r: r.for_object(POD).normal("Started", "up"),
    lambda r: r.for_object(POD).exception("Failed", KeyError("k")),
    lambda r: r.with_logger(logging.getLogger("another")).event(POD, "Normal", "Started", "up"),
    lambda r: r.event(kevents.ObjectReference(name="bare"), "Normal", "Started", "up"),
    lambda r: r.event(POD, "warning", "Started", "up"),
    lambda r: r.event(POD, "Critical", "Started", "up"),
    lambda r: r.event({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}, "Normal", "Started", "up"),
]
BAD: list[tuple[Call, DropReason]] = [
    (lambda r: r.event(None, "Normal", "Started", "up"), DropReason.INVALID_REFERENCE),
    (lambda r: r.event({"metadata": {}}, "Normal", "Started", "up"), DropReason.INVALID_REFERENCE),
    (lambda r: r.event(body(), "Normal", "Started", "about an Event"), DropReason.INVALID_REFERENCE),
    (lambda r: r.for_object(None).normal("Started", "up"), DropReason.INVALID_REFERENCE),
    (lambda r: r.event(NOWHERE, "Normal", "R", "m"), DropReason.INVALID_REFERENCE),
    (lambda r: r.event(POD, "Info", "Started", "up"), DropReason.INVALID_TYPE),
    (lambda r: r.event(POD, "Normal", "Started", Broken()), DropReason.INVALID_MESSAGE),
    (lambda r: r.event(POD, "Normal", "Started", "up", annotations=["no mapping"]), DropReason.INVALID_MESSAGE),
]


def test_protocol() -> None:
    """A FakeRecorder is a Recorder and an EventRecorder."""
    assert isinstance(FakeRecorder(), kevents.Recorder)
    assert isinstance(FakeRecorder(), kevents.EventRecorder)


@pytest.mark.parametrize("call", GOOD)
def test_same_event_as_the_real_one(call: Call) -> None:
    """A call creates the same event in the fake as in the real recorder."""
    real: list[RecordedEvent] = []

    def keep(event: kevents.Event) -> None:
        real.append(
            RecordedEvent(
                event.reference,
                event.type,
                event.reason,
                event.message,
                event.annotations,
                event.labels,
                event.source,
            )
        )

    with kevents.EventBroadcaster(strict=True) as broadcaster:
        broadcaster.start_event_watcher(keep)
        call(broadcaster.new_recorder("fake"))
    fake = FakeRecorder()
    call(fake)
    assert list(fake.events) == real


@pytest.mark.parametrize(("call", "reason"), BAD)
def test_same_refusal_as_the_real_one(call: Call, reason: DropReason, caplog: pytest.LogCaptureFixture) -> None:
    """The fake refuses the same calls as a strict broadcaster, with the same error, and stores them."""
    with kevents.EventBroadcaster(strict=True) as broadcaster, pytest.raises(kevents.InvalidEventError) as real:
        call(broadcaster.new_recorder("fake"))
    fake = FakeRecorder()
    with pytest.raises(real.type, match=re.escape(str(real.value))):
        call(fake)
    assert (fake.events, [refusal.reason for refusal in fake.refused]) == ((), [reason])


@pytest.mark.parametrize(("call", "reason"), BAD)
def test_not_strict(call: Call, reason: DropReason, caplog: pytest.LogCaptureFixture) -> None:
    """With `strict=False`, a refused call raises nothing and is stored and logged, as by the real recorder."""
    fake = FakeRecorder(strict=False)
    call(fake)
    assert [refusal.reason for refusal in fake.refused] == [reason]
    assert [(record.name, record.levelno) for record in caplog.records] == [("kevents", logging.WARNING)]
    assert re.search(rf"refused an event about .*, {reason}: ", caplog.text)


def test_structured() -> None:
    """A recorded event has the parts of the call by name and is immutable."""
    fake = FakeRecorder(kevents.EventSource("operator", "node-1"))
    fake.event(POD, "Warning", "Failed", "why", annotations={"a": "1"}, labels={"b": "2"})
    (event,) = fake.events
    assert (event.reference.kind, event.reference.namespace, event.reference.name) == ("Pod", "prod", "web-0")
    assert (event.type, event.reason, event.message) == ("Warning", "Failed", "why")
    assert (dict(event.annotations), dict(event.labels)) == ({"a": "1"}, {"b": "2"})
    assert (event.source.component, event.source.host) == ("operator", "node-1")
    with pytest.raises(AttributeError):
        event.reason = "Other"  # type: ignore[misc]


def test_later_changes_change_nothing() -> None:
    """Object, annotations and labels are read during the call."""
    pod, texts = copy.deepcopy(POD), {"a": "1"}
    fake = FakeRecorder()
    bound = fake.for_object(pod)
    fake.event(pod, "Normal", "Started", "up", annotations=texts, labels=texts)
    pod["metadata"]["name"] = "other"  # type: ignore[index]
    texts["a"] = "2"
    bound.normal("Started", "up")
    assert [event.reference.name for event in fake.events] == ["web-0", "web-0"]
    assert (fake.events[0].annotations["a"], fake.events[0].labels["a"]) == ("1", "1")


def test_never_blocks() -> None:
    """Pitfall 70: 10,000 unread events block no recorder, and snapshots do not change."""
    fake = FakeRecorder()
    threads = [
        threading.Thread(target=lambda: [fake.event(POD, "Normal", "Started", "up") for _ in range(2_500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    snapshots = [fake.events for _ in range(50)]
    sizes = [len(snapshot) for snapshot in snapshots]
    for thread in threads:
        thread.join()
    assert len(fake.events) == 10_000
    assert sizes == [len(snapshot) for snapshot in snapshots] == sorted(sizes)


def test_strings() -> None:
    """`strings` has client-go's format: type, reason, message, optionally the object, then sorted annotations."""
    fake = FakeRecorder()
    fake.event(POD, "Normal", "Started", "up")
    fake.event(POD, "Warning", "Failed", "why", annotations={"b": "2", "a": "1"})
    assert fake.strings() == ["Normal Started up", "Warning Failed why map[a:1 b:2]"]
    assert fake.strings(include_object=True) == [
        "Normal Started up involvedObject{kind=Pod,apiVersion=v1}",
        "Warning Failed why involvedObject{kind=Pod,apiVersion=v1} map[a:1 b:2]",
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, 3),
        ({"type": "Warning"}, 2),
        ({"type": "Warning", "reason": "Failed"}, 2),
        ({"reason": "failed"}, 0),
        ({"message": "disk"}, 2),
        ({"message": "d.sk"}, 0),
        ({"message": re.compile("d.sk (one|two)$")}, 2),
        ({"object": POD}, 2),
        ({"object": OTHER, "message": "two"}, 1),
        ({"object": kevents.ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0")}, 2),
        ({"object": {**POD, "metadata": {**POD["metadata"], "uid": "u-9"}}}, 0),  # type: ignore[dict-item]
    ],
)
def test_find_and_assert(wanted: dict[str, Any], found: int) -> None:
    """`find` and `assert_event` match all given arguments: text as a substring, a pattern as a search."""
    fake = FakeRecorder()
    fake.event(POD, "Normal", "Started", "up")
    fake.event(POD, "Warning", "Failed", "disk one")
    fake.event(OTHER, "Warning", "Failed", "disk two")
    assert found == len(fake.find(**wanted)) == len(fake.assert_event(**wanted, times=found))
    with pytest.raises(AssertionError):
        fake.assert_event(**wanted, times=found + 1)
    if found:
        assert fake.assert_event(**wanted) == fake.find(**wanted)
    else:
        with pytest.raises(AssertionError):
            fake.assert_event(**wanted)


def test_failure_shows_what_was_recorded() -> None:
    """A failing assertion shows each event with its differing fields, escaped, and the refusals."""
    fake = FakeRecorder(strict=False)
    fake.event(POD, "Normal", "Started", "up\x1b[2J")
    fake.event(OTHER, "Warning", "Failed", "disk two")
    fake.event(None, "Warning", "Failed", "disk")
    with pytest.raises(AssertionError) as caught:
        fake.assert_event("Warning", "Failed", message="disk", object=POD, times=2)
    first, *lines = str(caught.value).splitlines()
    expected = "type 'Warning', reason 'Failed', a message with 'disk', object v1/Pod prod/web-0 2 times"
    assert first == f"expected an event with {expected}, found 0 among 2 recorded"
    assert lines[0] == "  Normal Started up\\x1b[2J (v1/Pod prod/web-0)   <- other type, reason, message"
    assert lines[1] == "  Warning Failed disk two (v1/Pod prod/web-1)   <- other object"
    assert lines[2].startswith("  refused, invalid_reference: ")


def test_failure_stays_short() -> None:
    """With many events, a failing assertion shows only the latest."""
    fake = FakeRecorder()
    for number in range(100):
        fake.event(POD, "Normal", "Started", f"event {number}")
    with pytest.raises(AssertionError) as caught:
        fake.assert_event("Warning")
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[1]) == (22, "  ... 80 earlier ones, and then")
    assert "event 99" in lines[-1]


def test_wait_for() -> None:
    """`wait_for` returns once another thread has recorded enough matching events."""
    fake = FakeRecorder()
    halfway = threading.Event()

    def record() -> None:
        fake.event(POD, "Normal", "Started", "one")
        halfway.wait()
        fake.event(POD, "Warning", "Failed", "does not fit")
        fake.event(POD, "Normal", "Started", "two")

    thread = threading.Thread(target=record)
    thread.start()
    assert [event.message for event in fake.wait_for("Normal")] == ["one"]
    halfway.set()
    assert [event.message for event in fake.wait_for("Normal", times=2)] == ["one", "two"]
    thread.join()


def test_wait_for_in_vain() -> None:
    """`wait_for` fails after its timeout and shows the recorded events."""
    fake = FakeRecorder()
    fake.event(POD, "Normal", "Started", "one")
    with pytest.raises(AssertionError, match=r"2 times within 0.01 s, found 1 among 1 recorded\n  Normal Started one"):
        fake.wait_for("Normal", times=2, timeout=0.01)


@pytest.mark.parametrize("times", [0, -1])
def test_wait_for_nothing(times: int) -> None:
    """`wait_for` refuses `times` below 1, because it would return immediately."""
    with pytest.raises(ValueError, match=f"not {times}"):
        FakeRecorder().wait_for("Warning", times=times)


def test_clear() -> None:
    """`clear` removes events and refusals. Earlier snapshots keep theirs."""
    fake = FakeRecorder(strict=False)
    fake.event(POD, "Normal", "Started", "up")
    fake.event(None, "Normal", "Started", "up")
    before = fake.events
    fake.clear()
    assert (len(before), fake.events, fake.refused) == (1, (), ())


# -- FakeEventsV1Recorder ----------------------------------------------------------------------------------------

SERIES_GOOD: list[Call] = [
    lambda r: r.eventf(POD, OTHER, "Normal", "Started", "Starting", "%d of %s", 3, "five"),
    lambda r: r.eventf(POD, None, "Warning", "Failed", "Starting", "100% of %s"),
    lambda r: r.annotated_eventf(POD, None, {"a": "b"}, "Normal", "Started", "Starting", "up"),
    lambda r: r.event(POD, "Normal", "x" * 200, "Starting", "é" * 1030, labels={"c": "d"}),
]
SERIES_BAD: list[tuple[Call, DropReason]] = [
    (lambda r: r.eventf(None, None, "Normal", "Started", "Starting", "up"), DropReason.INVALID_REFERENCE),
    (lambda r: r.event(NOWHERE, "Normal", "R", "A", "m"), DropReason.INVALID_REFERENCE),
    (lambda r: r.eventf(POD, None, "Info", "Started", "Starting", "up"), DropReason.INVALID_TYPE),
    (lambda r: r.eventf(POD, None, "Normal", "Started", "", "up"), DropReason.INVALID_MESSAGE),
    (lambda r: r.event(POD, "Normal", "Started", "Starting", Broken()), DropReason.INVALID_MESSAGE),
]


@pytest.mark.parametrize("call", SERIES_GOOD)
def test_same_series_event_as_the_real_one(call: Call) -> None:
    """A call creates the same event in the events.k8s.io fake as in the real recorder."""
    real: list[door.SeriesEvent] = []
    with door.EventBroadcaster(FakeSink(api_group="events.k8s.io"), strict=True) as broadcaster:
        broadcaster.start_event_watcher(real.append)
        call(broadcaster.new_recorder("example.com/fake"))
    fake = FakeEventsV1Recorder("example.com/fake")
    call(fake)
    [event], [expected] = fake.events, real
    for name in ("reference", "related", "type", "reason", "action", "message", "annotations", "labels", "source"):
        assert getattr(event, name) == getattr(expected, name), name


@pytest.mark.parametrize(("call", "reason"), SERIES_BAD)
def test_same_refusal_of_a_series_event(call: Call, reason: DropReason, caplog: pytest.LogCaptureFixture) -> None:
    """The fake refuses the same calls as the events.k8s.io recorder, with the same error."""
    with (
        door.EventBroadcaster(FakeSink(api_group="events.k8s.io"), strict=True) as broadcaster,
        pytest.raises(kevents.InvalidEventError) as real,
    ):
        call(broadcaster.new_recorder("fake"))
    fake, lenient = FakeEventsV1Recorder(), FakeEventsV1Recorder(strict=False)
    with pytest.raises(real.type, match=re.escape(str(real.value))):
        call(fake)
    call(lenient)
    assert [reason] == [refusal.reason for refusal in fake.refused] == [each.reason for each in lenient.refused]
    assert re.search(rf"refused an event about .*, {reason}: ", caplog.text)


def test_related_object_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An invalid related object raises in the strict fake and is omitted otherwise."""
    with pytest.raises(kevents.InvalidReferenceError, match="related"):
        FakeEventsV1Recorder().eventf(POD, 7, "Normal", "Started", "Starting", "up")
    fake = FakeEventsV1Recorder(strict=False)
    fake.eventf(POD, 7, "Normal", "Started", "Starting", "up")
    assert [event.related for event in fake.events] == [None]
    assert "recorded an event without a part: related" in caplog.text


def test_series_event_is_looked_for() -> None:
    """The events.k8s.io fake is an EventRecorder with the same assertions, which also accept an action."""
    fake = FakeEventsV1Recorder()
    assert isinstance(fake, door.EventRecorder)
    fake.eventf(POD, OTHER, "Warning", "Failed", "Pulling", "no room")
    fake.eventf(POD, None, "Warning", "Failed", "Starting", "no room")
    [event] = fake.assert_event("Warning", "Failed", action="Pulling", message="room", object=POD, times=1)
    assert (event.related.name if event.related else "", event.source.component) == ("web-1", "fake")
    assert fake.strings() == ["Warning Failed no room"] * 2
    assert len(fake.wait_for(reason="Failed", times=2)) == 2
    with pytest.raises(AssertionError) as caught:
        fake.assert_event(action="Stopping")
    first, second, _ = str(caught.value).splitlines()
    assert first == "expected an event with action 'Stopping', found 0 among 2 recorded"
    assert second == "  Warning Failed no room (v1/Pod prod/web-0, Pulling)   <- other action"
    assert repr(fake) == "<FakeEventsV1Recorder 'fake', 2 events>"
    fake.clear()
    assert fake.events == ()


def test_name_of_a_controller() -> None:
    """The fake refuses the same controller names as the real broadcaster."""
    with pytest.raises(ValueError, match="reporting_controller"):
        FakeEventsV1Recorder("a b")


# -- FakeSink ----------------------------------------------------------------------------------------------------


def refused(call: Callable[[], object]) -> tuple[int, str]:
    """Return the error of a refused call."""
    with pytest.raises(StatusError) as caught:
        call()
    return caught.value.code, caught.value.reason


def test_sink_protocol() -> None:
    """A FakeSink is an EventSink."""
    assert isinstance(FakeSink(), kevents.EventSink)


def test_create_and_patch() -> None:
    """A patch changes only its own fields of the created event."""
    sink = FakeSink()
    sink.create("prod", body())
    sink.patch("prod", "web-0.1", PATCH)
    (event,) = sink.events()
    expected = {"count": 2, "lastTimestamp": "2026-07-24T09:00:07Z", "message": "again", "reason": "Started"}
    assert {key: event[key] for key in expected} == expected
    assert [(request.verb, request.namespace, request.name) for request in sink.requests] == [
        ("create", "prod", "web-0.1"),
        ("patch", "prod", "web-0.1"),
    ]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda sink: sink.create("prod", body()), (409, "AlreadyExists")),
        (lambda sink: sink.patch("prod", "unknown", PATCH), (404, "NotFound")),
        (lambda sink: sink.patch("dev", "web-0.1", PATCH), (404, "NotFound")),
        (lambda sink: sink.create("kube-system", body("n", "kube-system", involvedObject={})), (422, "Invalid")),
        (
            lambda sink: sink.create("default", body("n", "default", involvedObject={"namespace": "x"})),
            (422, "Invalid"),
        ),
        (lambda sink: sink.create("prod", body("a/b")), (422, "Invalid")),
        (lambda sink: sink.create("prod", body("")), (422, "Invalid")),
        (lambda sink: sink.create("dev", body("n", "prod")), (400, "BadRequest")),
        (lambda sink: sink.create("prod", body("n", count="many")), (400, "BadRequest")),
        (lambda sink: sink.create("prod", body("n", eventTime="2026-07-24T09:00:00Z")), (400, "BadRequest")),
        (lambda sink: sink.create("gone", body("n", "gone")), (404, "NotFound")),
    ],
)
def test_refuses_as_a_real_server(call: Call, expected: tuple[int, str]) -> None:
    """The fake refuses invalid requests with the server's code and reason, and its events do not change."""
    sink = FakeSink(namespaces=["default", "dev", "kube-system", "prod"])
    sink.create("prod", body())
    before = sink.events()
    assert refused(lambda: call(sink)) == expected
    assert sink.events() == before
    assert [getattr(request.error, "code", None) for request in sink.requests] == [None, expected[0]]


def test_accepts_as_a_real_server() -> None:
    """The fake accepts long messages, long reasons, unusual types and unusual names, like core/v1."""
    sink = FakeSink()
    sink.create("default", body("A b:7", "default", involvedObject={}, message="m" * 5000, reason="r" * 200, type="?"))
    assert [event["metadata"]["name"] for event in sink.events("default")] == ["A b:7"]


def test_values_outside_json_cannot_be_sent() -> None:
    """A body that is not JSON serializable raises as in a real client, before it is counted."""
    sink = FakeSink()
    with pytest.raises(TypeError):
        sink.create("prod", body(message=object()))
    assert (sink.requests, sink.under_way) == ((), 0)


def test_faults_by_number() -> None:
    """A fault applies to the call with its number, and that write is not stored."""
    sink = FakeSink(faults={1: StatusError(503), 3: UnavailableError("gone")})
    with pytest.raises(StatusError):
        sink.create("prod", body())
    sink.create("prod", body())
    with pytest.raises(UnavailableError, match="gone"):
        sink.patch("prod", "web-0.1", PATCH)
    assert [getattr(request.error, "code", None) for request in sink.requests] == [503, None, None]
    assert [event["count"] for event in sink.events()] == [1]


def test_faults_by_function() -> None:
    """A fault function is called for each request."""
    asked: list[SinkRequest] = []

    def fault(request: SinkRequest) -> BaseException | None:
        asked.append(request)
        return OSError("reset") if request.verb == "patch" else None

    sink = FakeSink(faults=fault)
    sink.create("prod", body())
    with pytest.raises(OSError, match="reset"):
        sink.patch("prod", "web-0.1", PATCH)
    assert [(request.number, request.verb) for request in asked] == [(1, "create"), (2, "patch")]


@pytest.mark.parametrize(
    ("faults", "error", "text"),
    [
        ({1: 503}, TypeError, "not 503"),
        ({1: Status(503)}, TypeError, "an exception"),
        ({1: StatusError}, TypeError, "LostAnswer"),
        ({0: StatusError(503)}, ValueError, "from 1, not 0"),
        ({"1": StatusError(503)}, ValueError, "not '1'"),
    ],
    ids=["number", "fault of a server", "class", "call 0", "text"],
)
def test_no_fault(faults: Any, error: type[Exception], text: str) -> None:
    """An invalid fault is refused by the constructor."""
    with pytest.raises(error, match=text):
        FakeSink(faults=faults)


def test_function_that_gives_no_fault() -> None:
    """A fault function that returns no fault raises during the call."""
    sink = FakeSink(faults=lambda _: Status(503))  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="not Status"):
        sink.create("prod", {"metadata": {"name": "a"}})


def test_lost_answer() -> None:
    """With a lost answer, the write is stored and an error is raised."""
    sink = FakeSink(faults={1: LostAnswer(), 2: LostAnswer(TimeoutError("read"))})
    with pytest.raises(UnavailableError):
        sink.create("prod", body())
    with pytest.raises(TimeoutError, match="read"):
        sink.patch("prod", "web-0.1", PATCH)
    assert [event["count"] for event in sink.events()] == [2]


def test_lost_answer_under_a_broadcaster() -> None:
    """A create whose answer was lost is found to exist and is patched: one object with the full count."""
    sink = FakeSink(faults={1: LostAnswer()})
    with kevents.EventBroadcaster(sleep_duration=0.01) as broadcaster:
        broadcaster.start_recording_to_sink(sink)
        for _ in range(5):
            broadcaster.new_recorder("op").event(POD, "Normal", "Started", "up")
        assert broadcaster.flush(5)
    assert [event["count"] for event in sink.events()] == [5]
    assert [request.verb for request in sink.requests[:3]] == ["create", "create", "patch"]
    assert [getattr(request.error, "code", None) for request in sink.requests[:3]] == [None, 409, None]


def test_expire() -> None:
    """An expired event is 404, and a broadcaster creates it again."""
    clock = FakeClock()
    sink = FakeSink(event_ttl=3600, clock=clock)
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(sink)
        recorder = broadcaster.new_recorder("op")
        for forget in (lambda: clock.advance(3600), lambda: sink.expire("*"), lambda: None):
            recorder.event(POD, "Normal", "Started", "up")
            assert broadcaster.flush(5)
            forget()
    assert [event["count"] for event in sink.events()] == [3]
    assert [request.verb for request in sink.requests] == ["create", "patch", "create", "patch", "create"]


def test_series() -> None:
    """A sink for events.k8s.io has the rules of that API and returns its bodies."""
    sink = FakeSink(api_group="events.k8s.io", faults={1: StatusError(503), 2: LostAnswer()})
    with door.EventBroadcaster(sink, sleep_duration=0.01) as broadcaster:
        recorder = broadcaster.new_recorder("c")
        for number in range(5):
            recorder.eventf(POD, None, "Normal", "Started", "Starting", "up %d", number)
    [event] = sink.events()
    assert (
        event["apiVersion"],
        event["note"],
        event["action"],
        event["series"]["count"],
    ) == ("events.k8s.io/v1", "up 0", "Starting", 5)
    assert refused(
        lambda: sink.create("prod", {**event, "metadata": {"name": "n", "namespace": "prod"}, "action": ""})
    ) == (422, "Invalid")
    assert refused(lambda: sink.patch("prod", event["metadata"]["name"], {"note": "other"})) == (422, "Invalid")
    assert sink.violations == ()


def test_group_of_a_sink() -> None:
    """A broadcaster refuses a sink of another API, and a sink refuses an unknown API group."""
    with pytest.raises(TypeError, match=r"FakeSink writes events\.k8s\.io/v1 events"):
        kevents.EventBroadcaster().start_recording_to_sink(FakeSink(api_group="events.k8s.io"))
    with pytest.raises(TypeError, match=r"FakeSink writes core/v1 events"):
        door.EventBroadcaster(FakeSink())
    with pytest.raises(ValueError, match=r"^api_group must be .* not 'apps'$"):
        FakeSink(api_group="apps")


def test_hang_and_release() -> None:
    """Calls hang until `release`. Meanwhile they are visible and counted as in progress."""
    sink = FakeSink()
    sink.hang()
    threads = [threading.Thread(target=sink.create, args=("prod", body(f"e.{number}"))) for number in range(3)]
    for thread in threads:
        thread.start()
    assert sink.wait_for(lambda: sink.under_way == 3)
    assert [(request.done, request.error) for request in sink.requests] == [(False, None)] * 3
    assert sink.events() == []
    sink.release()
    for thread in threads:
        thread.join()
    assert (sink.under_way, sink.most_at_once, sink.violations) == (0, 3, ())
    assert len(sink.events()) == 3


def test_two_at_once_for_one_event() -> None:
    """A second concurrent call for one event raises an AssertionError and is stored as a violation."""
    sink = FakeSink()
    sink.hang()
    errors: list[BaseException | None] = []

    def create() -> None:
        try:
            sink.create("prod", body())
        except AssertionError as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert sink.wait_for(lambda: sink.under_way == 2)
    sink.release()
    for thread in threads:
        thread.join()
    assert [str(error) for error in errors] == ["two calls at once for prod/web-0.1"]
    assert [request.number for request in sink.violations] == [2]


def test_a_broadcaster_never_has_two_at_once() -> None:
    """With many events and faults, a broadcaster never makes two concurrent calls for one event."""
    sink = FakeSink(faults=lambda request: UnavailableError() if request.number % 3 == 0 else None)
    with kevents.EventBroadcaster(sleep_duration=0.01) as broadcaster:
        broadcaster.start_recording_to_sink(sink)
        recorder = broadcaster.new_recorder("op")
        for number in range(200):
            recorder.event({**POD, "metadata": {"name": f"web-{number % 10}"}}, "Normal", "Started", "up")
        assert broadcaster.flush(20)
    assert sink.violations == ()
    assert [event["count"] for event in sink.events()] == [20] * 10


def test_wait_in_vain() -> None:
    """`wait_for` returns whether its condition became true."""
    sink = FakeSink()
    assert not sink.wait_for(lambda: sink.requests, timeout=0.01)


def test_copies() -> None:
    """The fake stores and returns copies."""
    sink = FakeSink()
    given = body()
    sink.create("prod", given)
    given["reason"] = sink.events()[0]["reason"] = "Changed"
    assert (sink.events()[0]["reason"], sink.requests[0].body["reason"]) == ("Started", "Started")


# -- FakeClock ---------------------------------------------------------------------------------------------------


def test_clock() -> None:
    """The clock stands still, moves by seconds in both directions, and can be set."""
    clock = FakeClock(1_000)
    assert (clock(), clock()) == (1_000, 1_000)
    clock.advance(1.5)
    assert clock() == 1_500_001_000
    clock.advance(-1)
    assert clock() == 500_001_000
    clock.set(datetime(1970, 1, 2, tzinfo=timezone.utc))
    assert clock() == 86_400 * 10**9
    assert clock.now == datetime(1970, 1, 2, tzinfo=timezone.utc)


def test_clock_needs_a_zone() -> None:
    """A datetime without a time zone is refused."""
    with pytest.raises(ValueError, match="without a zone"):
        FakeClock(datetime(2026, 1, 1))  # noqa: DTZ001 - the tested mistake


def test_clock_of_a_broadcaster() -> None:
    """A clock sets the times of a broadcaster's events and of the correlator."""
    clock = FakeClock(datetime(2026, 7, 24, 9, tzinfo=timezone.utc))
    sink = FakeSink()
    options = kevents.CorrelatorOptions(clock=clock, burst_size=1)
    with kevents.EventBroadcaster(clock=clock, correlator_options=options) as broadcaster:
        broadcaster.start_recording_to_sink(sink)
        recorder = broadcaster.new_recorder("op")
        for seconds in (0, 0, 300):
            clock.advance(seconds)
            recorder.event(POD, "Normal", "Started", "up")
            assert broadcaster.flush(5)
    (event,) = sink.events()
    assert (
        event["firstTimestamp"],
        event["lastTimestamp"],
        event["count"],
    ) == ("2026-07-24T09:00:00Z", "2026-07-24T09:05:00Z", 3)


# -- repr ----------------------------------------------------------------------------------------


def test_fakes_show_how_much_they_hold() -> None:
    """The repr of a fake shows its time or its number of items."""
    fake, sink = FakeRecorder("operator"), FakeSink()
    fake.event(POD, "Normal", "Started", "up")
    sink.create("prod", body())
    sink.patch("prod", "web-0.1", PATCH)
    assert repr(fake) == "<FakeRecorder 'operator', 1 events>"
    assert repr(sink) == "<FakeSink 1 events, 2 requests>"
    assert repr(FakeClock(datetime(2026, 7, 24, 9, tzinfo=timezone.utc))) == "<FakeClock 2026-07-24T09:00:00+00:00>"


def test_an_event_to_compare_with() -> None:
    """A RecordedEvent without annotations and labels has empty ones. Both are read-only."""
    event = RecordedEvent(kevents.ObjectReference(name="web-0"), "Normal", "Started", "up")
    assert (event.annotations, event.labels, event.source) == ({}, {}, kevents.EventSource())
    with pytest.raises(TypeError):
        event.labels["a"] = "1"  # type: ignore[index]


def test_long_refusals_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    """Fault 14: a log line of a fake recorder has at most 1,000 characters, too."""
    FakeRecorder(strict=False).event(POD, "x" * 3_000_000, "y" * 3_000_000, "m")
    assert [len(message) <= 1_000 for message in caplog.messages] == [True]
