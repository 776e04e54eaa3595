"""From a call to an event: all arguments are read during the call, converted to text, and never raise."""

from __future__ import annotations

import enum
import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any

import pytest

import kevents
from kevents import (
    DropReason,
    Event,
    EventBroadcaster,
    InvalidMessageError,
    InvalidReferenceError,
    InvalidTypeError,
    ObjectReference,
    Recorder,
    events,
)
from kevents._delivery.drop_reporter import DropReporter
from kevents._runtime.log import in_kevents
from kevents.testing import FakeRecorder
from tests.support.collector import no_collection
from tests.support.sinks import PATIENCE, ScriptedSink, about, pod, statistics_of


class Ear:
    """A broadcaster with a watcher that collects the events."""

    def __init__(self, **options: Any) -> None:
        self.drops: list[tuple[DropReason, Event | None]] = []
        self.broadcaster = EventBroadcaster(
            on_drop=lambda reason, event, _: self.drops.append((reason, event)), **options
        )
        self.heard: list[Event] = []
        self.broadcaster.start_event_watcher(self.heard.append)
        self.recorder = self.broadcaster.new_recorder("tester")

    def events(self) -> list[Event]:
        """Shut down, and return all events."""
        assert self.broadcaster.shutdown(PATIENCE) == 0
        return self.heard

    def event(self) -> Event:
        """Shut down, and return the only event."""
        (event,) = self.events()
        return event


class Mute:
    """An object whose `__str__` raises."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError("no text")


class MuteAtAll(Mute):
    """An object whose `__repr__` raises as well."""

    def __repr__(self) -> str:
        """Raise."""
        raise RuntimeError("no text")


class Text(str):
    """A subclass of str."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return another text."""
        return "something else"


class Colour(enum.Enum):
    """An enumeration."""

    RED = "red"


class Type(str, enum.Enum):
    """A user's own event types."""

    WARNING = "Warning"


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("100% of %s done %d", "100% of %s done %d"),
        ("", ""),
        (None, ""),
        (7, "7"),
        (b"caf\xc3\xa9 \xff", "café �"),
        (bytearray(b"x"), "x"),
        (ValueError("no such thing"), "no such thing"),
        (Colour.RED, "red"),
        (Text("as it is"), "as it is"),
        ({"a": 1}, "{'a': 1}"),
        ("line\nbreak\x00\x1b[31m", "line\nbreak\x00\x1b[31m"),
        ("\ud800", "\ud800"),
    ],
    ids=str,
)
def test_messages(message: object, text: str) -> None:
    """Pitfalls 8, 10: a message is stored verbatim. Any other object is stored as its text."""
    ear = Ear()
    ear.recorder.event(about(), "Normal", "R", message)
    event = ear.event()
    assert (event.message, type(event.message)) == (text, str)


@pytest.mark.parametrize("what", ["message", "reason", "annotation", "label", "key"])
def test_a_text_that_raises(what: str) -> None:
    """Pitfall 11: a text that raises makes the event invalid, which is counted and never raised."""
    ear = Ear()
    mute = Mute()
    ear.recorder.event(
        about(),
        "Normal",
        mute if what == "reason" else "R",  # type: ignore[arg-type]
        mute if what == "message" else "m",
        annotations={mute if what == "key" else "a": mute if what == "annotation" else "b"},  # type: ignore[dict-item]
        labels={"a": mute} if what == "label" else None,  # type: ignore[dict-item]
    )
    assert ear.events() == []
    assert ear.broadcaster.statistics().refused == {DropReason.INVALID_MESSAGE: 1}
    assert [reason for reason, _ in ear.drops] == [DropReason.INVALID_MESSAGE]


@pytest.mark.parametrize(
    "eventtype", ["Info", "Err", "", "Normal ", "warn", None, 3, ["Normal"], {"Normal": 1}, Colour.RED]
)
def test_wrong_types(eventtype: Any) -> None:
    """Pitfall 12: an unknown type is counted as invalid, and the event is not sent."""
    ear = Ear()
    ear.recorder.event(about(), eventtype, "R", "m")
    assert ear.events() == []
    assert ear.broadcaster.statistics().refused == {DropReason.INVALID_TYPE: 1}


@pytest.mark.parametrize(
    ("eventtype", "expected"),
    [("warning", "Warning"), ("NORMAL", "Normal"), ("nORMAL", "Normal"), (b"WARNING", "Warning")],
)
def test_folded_types(caplog: pytest.LogCaptureFixture, eventtype: Any, expected: str) -> None:
    """Fault 22: the case of a type is ignored."""
    ear = Ear(strict=True)
    ear.recorder.event(about(), eventtype, "R", "m")
    assert (ear.event().type, caplog.messages) == (expected, [])


@pytest.mark.parametrize("eventtype", ["Error", "Critical", "Fatal", "FATAL", "error"])
def test_severe_types(caplog: pytest.LogCaptureFixture, eventtype: Any) -> None:
    """Fault 22: a type for errors is recorded as Warning, with one log line. A strict broadcaster does not raise."""
    ear = Ear(strict=True)
    for _ in range(3):
        ear.recorder.event(about(), eventtype, "R", "m")
    assert [event.type for event in ear.events()] == ["Warning"] * 3
    assert [line for line in caplog.messages if "more" not in line] == [
        f"event type '{eventtype}' is recorded as 'Warning': Kubernetes has no other"
    ]


@pytest.mark.parametrize("eventtype", [Type.WARNING, b"Warning", Text("Warning")])
def test_types_of_another_class(eventtype: Any) -> None:
    """An event type of another class is stored as a plain string."""
    ear = Ear()
    ear.recorder.event(about(), eventtype, "R", "m")
    event = ear.event()
    assert (event.type, type(event.type)) == ("Warning", str)


@pytest.mark.parametrize("reason", ["", "with spaces", "x" * 129, "umläut"])
def test_reasons(reason: str) -> None:
    """Pitfall 13: in core/v1 a reason is sent unchanged, and the server accepts it."""
    ear = Ear()
    ear.recorder.event(about(), "Normal", reason, "m")
    assert ear.event().to_dict()["reason"] == reason


def test_later_changes_change_nothing() -> None:
    """Pitfall 14: later changes by the caller do not affect the event."""
    ear = Ear()
    annotations, labels, manifest = {"a": "1"}, {"l": "1"}, pod()
    ear.recorder.event(manifest, "Normal", "R", "m", annotations=annotations, labels=labels)
    annotations["a"] = labels["l"] = "2"
    annotations["b"] = "new"
    manifest["metadata"]["name"] = "other"
    event = ear.event()
    assert (dict(event.annotations), dict(event.labels), event.reference.name) == ({"a": "1"}, {"l": "1"}, "web-0")
    with pytest.raises(TypeError):
        event.annotations["a"] = "3"  # type: ignore[index]


def test_annotations_of_any_value() -> None:
    """Keys and values are converted to text. An empty mapping adds no annotations."""
    ear = Ear()
    values: Any = {"a": 1, Colour.RED: None, Text("t"): b"x"}
    ear.recorder.event(about(), "Normal", "R", "m", annotations=values, labels={})
    event = ear.event()
    assert dict(event.annotations) == {"a": "1", "red": "", "t": "x"}
    assert {type(text) for pair in event.annotations.items() for text in pair} == {str}
    assert dict(event.labels) == {}


@pytest.mark.parametrize("annotations", ["a=b", 7, ["a"], [("a", "b")]])
def test_annotations_that_are_no_mapping(annotations: Any) -> None:
    """Annotations must be a mapping. Any other value drops the event, which is counted."""
    ear = Ear()
    ear.recorder.event(about(), "Normal", "R", "m", annotations=annotations)
    assert ear.events() == []
    assert ear.broadcaster.statistics().refused == {DropReason.INVALID_MESSAGE: 1}


def test_annotations_that_change_meanwhile() -> None:
    """No event is lost when another thread keeps changing its dictionary of annotations."""
    ear = Ear()
    annotations: dict[str, str] = {}
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.is_set():
            annotations[str(number % 50)] = "x"
            annotations.pop(str((number + 25) % 50), None)
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(3000):
        ear.recorder.event(about(), "Normal", "R", "m", annotations=annotations)
    over.set()
    thread.join(PATIENCE)
    assert len(ear.events()) == 3000


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("%d done",), "%d done"),
        (("100%",), "100%"),
        (("%d of %d", 1, 2), "1 of 2"),
        (("%(a)s", {"a": 1}), "1"),
        (("%s", {"a": 1}), "{'a': 1}"),
        (("%s", (1, 2)), "(1, 2)"),
        (("%d", "x"), "%d %!(BADFORMAT 'x')"),
        (("%d %d", 1), "%d %d %!(BADFORMAT 1)"),
        (("%d", 1, 2), "%d %!(BADFORMAT 1, 2)"),
        (("%(a)s", {"b": 1}), "%(a)s %!(BADFORMAT {'b': 1})"),
        (("100%", 1), "100% %!(BADFORMAT 1)"),
        ((None, 1), " %!(BADFORMAT 1)"),
        ((b"%s", 1), "1"),
        ((7, 1), "7 %!(BADFORMAT 1)"),
    ],
    ids=str,
)
def test_formats(arguments: tuple[Any, ...], text: str) -> None:
    """Pitfall 9: without arguments nothing is formatted. If they do not match, both are recorded with a marker."""
    ear = Ear()
    ear.recorder.eventf(about(), "Normal", "R", *arguments)
    ear.recorder.annotated_eventf(about(), {"a": "b"}, "Normal", "R", *arguments)
    plain, annotated = ear.events()
    assert [plain.message, annotated.message] == [text, text]
    assert dict(annotated.annotations) == {"a": "b"}


def test_a_format_of_a_thing_without_text() -> None:
    """An argument whose `__str__` raises is shown by its repr. If that raises too, the event is dropped."""
    ear = Ear()
    ear.recorder.eventf(about(), "Normal", "R", "%s", Mute())
    ear.recorder.eventf(about(), "Normal", "R", "%s", MuteAtAll())
    assert ear.event().message[:17] == "%s %!(BADFORMAT <"
    assert ear.broadcaster.statistics().refused == {DropReason.INVALID_MESSAGE: 1}


@pytest.mark.parametrize(
    "thing",
    [None, {}, 7, "pod", {"metadata": {"name": "x"}}, {"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}}],
)
def test_objects_without_a_reference(thing: object) -> None:
    """Pitfalls 18, 19: an object without a valid reference is refused, counted and logged. So is an Event."""
    ear = Ear()
    ear.recorder.event(thing, "Normal", "R", "m")
    bound = ear.recorder.for_object(thing)
    bound.normal("R", "m")
    assert ear.events() == []
    assert ear.broadcaster.statistics().refused == {DropReason.INVALID_REFERENCE: 2}


def test_a_bound_recorder() -> None:
    """A bound recorder reads its object at construction, and has a method for each type."""
    ear = Ear()
    manifest = pod()
    bound = ear.recorder.for_object(manifest)
    manifest["metadata"]["name"] = "other"
    bound.normal("A", "a")
    bound.warning("B", "b")
    bound.exception("C", ValueError("c"))
    bound.exception("D", KeyError())
    bound.event("Normal", "E", "e", annotations={"a": "1"}, labels={"l": "2"})
    events = ear.events()
    assert [event.type for event in events] == ["Normal", "Warning", "Warning", "Warning", "Normal"]
    assert [event.message for event in events] == ["a", "b", "ValueError: c", "KeyError: ", "e"]
    assert {event.reference.name for event in events} == {"web-0"}
    assert (dict(events[-1].annotations), dict(events[-1].labels)) == ({"a": "1"}, {"l": "2"})


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda recorder: recorder.event(None, "Normal", "R", "m"), InvalidReferenceError),
        (lambda recorder: recorder.event(about(), "Info", "R", "m"), InvalidTypeError),
        (lambda recorder: recorder.event(about(), "Normal", "R", Mute()), InvalidMessageError),
        (lambda recorder: recorder.event(about(), "Normal", "R", "m", labels=3), InvalidMessageError),
        (lambda recorder: recorder.for_object(None).normal("R", "m"), InvalidReferenceError),
    ],
)
def test_a_strict_broadcaster(call: Callable[[kevents.EventRecorder], None], error: type[Exception]) -> None:
    """A strict broadcaster raises and counts an invalid event. A valid event is recorded."""
    ear = Ear(strict=True)
    with pytest.raises(error):
        call(ear.recorder)
    ear.recorder.event(about(), "Normal", "R", "m")
    statistics = ear.broadcaster.statistics()
    assert (statistics.recorded, sum(statistics.refused.values())) == (2, 1)
    assert len(ear.events()) == 1
    ear.recorder.event(about(), "Normal", "R", "too late")
    assert ear.broadcaster.statistics().refused[DropReason.SHUTDOWN] == 1


def test_strict_does_not_raise_an_echo() -> None:
    """A recursion is dropped, never raised, even by a strict broadcaster: it would surface in a log handler."""
    ear = Ear(strict=True)
    with in_kevents():
        ear.recorder.event(about(), "Normal", "R", "m")
    assert ear.events() == []
    assert ear.broadcaster.statistics().refused == {DropReason.RECURSION: 1}
    assert ear.drops == []


def test_another_logger(caplog: pytest.LogCaptureFixture) -> None:
    """A recorder with its own logger logs its refusals there."""
    ear = Ear()
    recorder = ear.recorder.with_logger(logging.getLogger("mine"))
    recorder.event(None, "Normal", "R", "m")
    assert [record.name for record in caplog.records] == ["mine"]
    assert ear.recorder.source is recorder.source
    ear.events()


def test_from_a_thread_pool() -> None:
    """Pitfalls 1, 3: recording works in any thread, also with an empty context."""
    ear = Ear()
    with ThreadPoolExecutor(4) as pool:
        for number in range(100):
            pool.submit(Context().run, ear.recorder.event, about(), "Normal", "R", str(number))
    assert {event.message for event in ear.events()} == {str(number) for number in range(100)}


def test_both_recorders_have_one_face() -> None:
    """The real and the fake recorder satisfy the protocol, with the same signatures."""
    ear = Ear()
    for recorder in (ear.recorder, FakeRecorder()):
        assert isinstance(recorder, Recorder)
        for name in ("event", "eventf", "annotated_eventf", "for_object"):
            expected = list(inspect.signature(getattr(Recorder, name)).parameters)[1:]
            assert list(inspect.signature(getattr(recorder, name)).parameters) == expected
    ear.events()


def test_a_fake_recorder_never_blocks() -> None:
    """Pitfall 70: ten thousand unread events do not block a fake recorder, and a snapshot never changes."""
    recorder = FakeRecorder()
    snapshots: list[Any] = []
    thread = threading.Thread(target=lambda: snapshots.extend(list(recorder.events) for _ in range(50)))
    thread.start()
    for number in range(10_000):
        recorder.event(about(), "Normal", "R", str(number))
    thread.join(PATIENCE)
    assert len(recorder.events) == 10_000
    for snapshot in snapshots:
        assert [event.message for event in snapshot] == [str(number) for number in range(len(snapshot))]


def test_repr() -> None:
    """A recorder's repr shows its component."""
    ear = Ear()
    assert repr(ear.recorder) == "<EventRecorder 'tester'>"
    ear.events()


def test_default_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default host is the pod's name, or else the machine's."""
    monkeypatch.setenv("POD_NAME", "operator-0")
    assert kevents.default_host() == "operator-0"
    monkeypatch.delenv("POD_NAME")
    monkeypatch.setattr("socket.gethostname", lambda: "machine")
    assert kevents.default_host() == "machine"


def test_an_explicit_reference_without_a_name() -> None:
    """An explicit reference without a name is accepted. Its event has a random name."""
    ear = Ear()
    for _ in range(2):
        ear.recorder.event(ObjectReference(), "Normal", "R", "m")
    first, second = ear.events()
    assert len(first.name) == 36
    assert first.name != second.name
    assert statistics_of(ear.broadcaster).handled == 2


def test_a_mapping_of_ones_own() -> None:
    """Annotations may be any mapping. One that raises drops the event, which is counted."""

    class Broken(Mapping[str, str]):
        def __getitem__(self, key: str) -> str:
            raise OSError

        def __iter__(self) -> Any:
            return iter(("a",))

        def __len__(self) -> int:
            return 1

    ear = Ear()
    ear.recorder.event(about(), "Normal", "R", "m", annotations=Broken())
    assert ear.events() == []
    assert ear.broadcaster.statistics().refused == {DropReason.INVALID_MESSAGE: 1}


UNUSUAL = {**pod(), "kind": enum.Enum("Kind", {"POD": "Pod"})["POD"]}
"""A manifest that takes every step of building a reference."""


@pytest.fixture
def faults_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log internal faults of kevents instead of raising them, as in production."""
    monkeypatch.setattr(DropReporter, "raise_internal", False)


def core_call(drops: list[DropReason]) -> tuple[Any, Callable[[], None]]:
    """A broadcaster for core/v1, and a call that records."""
    broadcaster = EventBroadcaster(on_drop=lambda reason, *_: drops.append(reason))
    broadcaster.start_event_watcher(bool)
    recorder = broadcaster.new_recorder("c")
    return broadcaster, lambda: recorder.event(UNUSUAL, "Normal", "R", "m")


def series_call(drops: list[DropReason]) -> tuple[Any, Callable[[], None]]:
    """A broadcaster for events.k8s.io/v1, and a call that records."""
    broadcaster = events.EventBroadcaster(ScriptedSink(), on_drop=lambda reason, *_: drops.append(reason))
    recorder = broadcaster.new_recorder("c")
    return broadcaster, lambda: recorder.event(UNUSUAL, "Normal", "R", "A", "m")


FAULTY = [
    "kevents._broadcast.recorder.shared_reference",
    "kevents._model.reference._resolve",
    "kevents._model.reference._checked",
    "kevents._model.reference._is_namespace",
    "kevents._broadcast.watcher.QueueWatcher.offer",
]


@pytest.mark.parametrize("make", [core_call, series_call])
@pytest.mark.parametrize("place", FAULTY)
@pytest.mark.usefixtures("faults_are_caught")
def test_a_fault_of_kevents(make: Any, place: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """A fault of kevents is dropped as `internal`, its traceback is logged once, and nothing is raised."""

    def fault(*_: object) -> None:
        raise KeyError("ours")

    drops: list[DropReason] = []
    broadcaster, record = make(drops)
    with monkeypatch.context() as patch:
        for path in {place, place.replace("_broadcast.recorder", "events")}:
            patch.setattr(path, fault)
        for _ in range(3):
            record()
    assert (broadcaster.statistics().recorded, broadcaster.statistics().refused) == (3, {DropReason.INTERNAL: 3})
    assert drops == [DropReason.INTERNAL] * 3
    traces = [record for record in caplog.records if record.exc_info]
    assert [str(record.exc_info[1]) for record in traces] == ["'ours'"]
    assert broadcaster.shutdown() == 0


@pytest.mark.parametrize("make", [core_call, series_call])
def test_a_fault_of_kevents_fails_a_test(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests of kevents an internal fault is raised, and counted as well."""
    broadcaster, record = make([])
    with monkeypatch.context() as patch:
        patch.setattr("kevents._broadcast.watcher.QueueWatcher.offer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            record()
    assert broadcaster.statistics().refused == {DropReason.INTERNAL: 1}
    assert broadcaster.shutdown() == 0


class Hostile:
    """An object whose attributes and methods all raise."""

    def __getattribute__(self, name: str) -> Any:
        """Raise."""
        raise RuntimeError(name)

    def __bool__(self) -> bool:
        """Raise."""
        raise RuntimeError("bool")

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError("str")


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize("new", [EventBroadcaster, lambda **_: events.EventBroadcaster(ScriptedSink())])
def test_a_value_that_raises_is_no_fault_of_kevents(place: int, new: Any) -> None:
    """A caller's value that raises makes the call invalid, never `internal`, in any argument."""
    broadcaster = new()
    recorder = broadcaster.new_recorder("c")
    values: list[Any] = [about(), "Normal", "R", "m", None, None]
    values[place] = Hostile()
    if isinstance(broadcaster, EventBroadcaster):
        recorder.event(*values[:4], annotations=values[4], labels=values[5])
    else:
        recorder.event(*values[:3], "A", values[3], annotations=values[4], labels=values[5])
    (reason,) = broadcaster.statistics().refused
    assert reason is (DropReason.INVALID_REFERENCE if place == 0 else DropReason.INVALID_MESSAGE)
    assert broadcaster.shutdown() == 0


# -- reports of refused events -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["core", "events"])
def test_a_refused_event_can_be_found(api: str, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 13: the log line and `on_drop` have the object, the reason and the start of the message."""
    drops: list[Any] = []
    if api == "core":
        broadcaster: Any = EventBroadcaster(on_drop=lambda *drop: drops.append(drop))
        broadcaster.new_recorder("c").event(pod(), "Oops", "SplitBrain", "two leaders" + "!" * 200)
    else:
        broadcaster = events.EventBroadcaster(ScriptedSink(), on_drop=lambda *drop: drops.append(drop))
        broadcaster.new_recorder("c").event(pod(), "Oops", "SplitBrain", "Electing", "two leaders" + "!" * 200)
    ((reason, event, number),) = drops
    assert (reason, number) == (DropReason.INVALID_TYPE, 1)
    assert (event.reference, event.type, event.reason) == (about(), "Oops", "SplitBrain")
    assert event.message == "two leaders" + "!" * 200
    (line,) = caplog.messages
    expected = "dropped an event about v1/Pod prod/web-0 (reason SplitBrain), invalid_type: event type 'Oops' is not"
    assert line.startswith(expected)
    assert line.endswith("the message begins with 'two leaders" + "!" * 89 + "'")
    broadcaster.shutdown()


KNOWN = [
    ({"metadata": {"name": "web-0", "namespace": "prod"}}, ObjectReference(namespace="prod", name="web-0")),
    ({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": 7}}, ObjectReference(kind="Pod", api_version="v1")),
    (None, ObjectReference()),
    ("prod/web-0", ObjectReference()),
]


@pytest.mark.parametrize(("thing", "reference"), KNOWN, ids=["no kind", "no name", "none", "text"])
def test_the_object_of_a_refused_event(thing: object, reference: ObjectReference) -> None:
    """The readable parts of an object without a valid reference are reported."""
    ear = Ear()
    ear.recorder.event(thing, "Normal", "R", Mute())
    ((reason, event),) = ear.drops
    assert event is not None
    assert (reason, event.reference, event.reason, event.message) == (DropReason.INVALID_REFERENCE, reference, "R", "")
    ear.events()


def test_a_long_reason_that_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Fault 14: a reason of megabytes does not fill the log, and the line still has the cause of the refusal."""
    ear = Ear()
    ear.recorder.event(pod("x" * 1_000_000), "Oops", "R" * 3_200_000, "m" * 1_000_000)
    (line,) = caplog.messages
    assert len(line) <= 1000
    assert "event type 'Oops' is not supported" in line
    ear.events()


# -- near the recursion limit ------------------------------------------------------------------------------------------


_FAR = 100


def nest(frames: int) -> None:
    """Nest that many calls."""
    if frames > 1:
        nest(frames - 1)


def call_near_the_end(frames: int, call: Callable[[], None]) -> None:
    """Call a function where only that many more calls can be nested."""
    try:
        nest(frames + _FAR)
    except RecursionError:
        call_at_the_end(frames, call)
    else:
        call_below(_FAR // 2, frames, call)


def call_below(levels: int, frames: int, call: Callable[[], None]) -> None:
    """Nest so many calls at once: there is room for them."""
    if levels:
        call_below(levels - 1, frames, call)
    else:
        call_near_the_end(frames, call)


def call_at_the_end(frames: int, call: Callable[[], None]) -> None:
    """Nest calls one by one."""
    try:
        nest(frames + 1)
    except RecursionError:
        call()
    else:
        call_at_the_end(frames, call)


def core_calls(broadcaster: EventBroadcaster) -> dict[str, Callable[[], None]]:
    """Each recording method of core/v1."""
    recorder, thing = broadcaster.new_recorder("c"), pod()
    bound = recorder.for_object(thing)
    return {
        "event": partial(recorder.event, thing, "Normal", "R", "m"),
        "eventf": partial(recorder.eventf, thing, "Normal", "R", "m%s", 1),
        "annotated_eventf": partial(recorder.annotated_eventf, thing, {"a": "b"}, "Normal", "R", "m%s", 1),
        "normal": partial(recorder.normal, thing, "R", "m"),
        "exception": partial(recorder.exception, thing, "R", ValueError("m")),
        "refused": partial(recorder.event, None, "Normal", "R", "m"),
        "bound normal": partial(bound.normal, "R", "m"),
        "bound eventf": partial(bound.eventf, "Normal", "R", "m%s", 1),
        "bound exception": partial(bound.exception, "R", ValueError("m")),
    }


def series_calls(broadcaster: events.EventBroadcaster) -> dict[str, Callable[[], None]]:
    """Each recording method of events.k8s.io/v1."""
    recorder, thing = broadcaster.new_recorder("c"), pod()
    bound = recorder.for_object(thing)
    return {
        "event": partial(recorder.event, thing, "Normal", "R", "A", "m"),
        "eventf": partial(recorder.eventf, thing, None, "Normal", "R", "A", "m%s", 1),
        "annotated_eventf": partial(recorder.annotated_eventf, thing, None, {"a": "b"}, "Normal", "R", "A", "m%s", 1),
        "warning": partial(recorder.warning, thing, "R", "m"),
        "refused": partial(recorder.event, None, "Normal", "R", "A", "m"),
        "bound normal": partial(bound.normal, "R", "m"),
    }


@pytest.mark.parametrize("api", ["core", "events"])
def test_near_the_end_of_the_stack(api: str) -> None:
    """Fault 10: two calls below the recursion limit no method raises, and each call is counted and recorded once."""
    broadcaster: Any = EventBroadcaster() if api == "core" else events.EventBroadcaster(ScriptedSink())
    heard: list[list[Event]] = [[], []]
    for each in heard:
        broadcaster.start_event_watcher(each.append)
    calls = core_calls(broadcaster) if api == "core" else series_calls(broadcaster)
    number = 0
    with no_collection():
        for call in calls.values():
            for frames in range(3, 50):  # one of them is the partial
                call_near_the_end(frames, call)
                number += 1
    assert broadcaster.flush(PATIENCE)
    statistics = broadcaster.statistics()
    refused = number // len(calls)
    assert (statistics.recorded, statistics.refused) == (number, {DropReason.INVALID_REFERENCE: refused})
    assert [len(each) for each in heard] == [number - refused] * 2
    assert [watcher.offered for watcher in statistics.watchers] == [number - refused] * len(statistics.watchers)
    assert broadcaster.shutdown(PATIENCE) == 0


def test_a_text_without_end_is_the_caller_s() -> None:
    """A `__str__` that recurses without end is refused as invalid."""

    class Endless:
        def __str__(self) -> str:
            return str(self)

    ear = Ear()
    with no_collection():
        ear.recorder.event(about(), "Normal", "R", Endless())
        call_near_the_end(4, lambda: ear.recorder.event(about(), "Normal", "R", Endless()))
    assert ear.events() == []
    assert ear.broadcaster.statistics().refused == {DropReason.INVALID_MESSAGE: 2}
