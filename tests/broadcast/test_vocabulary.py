"""The recorders of both APIs, of kopf and of the testing module share one vocabulary."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import kevents
import kevents.events
import kevents.kopf
from kevents.testing import FakeEventsV1Recorder, FakeRecorder
from tests.support.sinks import pod

CALLS = ("event", "eventf", "normal", "warning", "exception", "for_object")
KEYWORDS = ("annotations", "labels", "related", "action")
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n-1", "uid": "u-n"}}
RECORDERS = {
    "core/v1": FakeRecorder,
    "events.k8s.io/v1": FakeEventsV1Recorder,
}
CLASSES = [
    kevents.EventRecorder,
    kevents.BoundRecorder,
    kevents.events.EventRecorder,
    kevents.kopf.KopfRecorder,
    FakeRecorder,
    FakeEventsV1Recorder,
]

Recorder = FakeRecorder | FakeEventsV1Recorder


@pytest.fixture(params=RECORDERS)
def recorder(request: pytest.FixtureRequest) -> Recorder:
    """A fake recorder of either API."""
    make: Callable[[], Recorder] = RECORDERS[request.param]
    return make()


def recorded(recorder: Recorder) -> list[tuple[str, str, str]]:
    """Type, reason and message of each event."""
    return [(event.type, event.reason, event.message) for event in recorder.events]


@pytest.mark.parametrize("recorder", CLASSES, ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_recorder_has_the_calls(recorder: type) -> None:
    """All recorders have the same methods. `normal` and `warning` take the same keywords everywhere."""
    assert [name for name in CALLS if not callable(getattr(recorder, name, None))] == []
    for name in ("normal", "warning"):
        parameters = inspect.signature(getattr(recorder, name)).parameters
        positional = [name for name, given in parameters.items() if given.kind is given.POSITIONAL_OR_KEYWORD]
        bound = recorder is kevents.BoundRecorder
        assert positional == ["self", *([] if bound else ["object"]), "reason", "message"]
        assert [name for name, given in parameters.items() if given.kind is given.KEYWORD_ONLY] == list(KEYWORDS)


def test_normal_and_warning(recorder: Recorder) -> None:
    """The object is the first argument of a recorder. A bound recorder has it already."""
    recorder.normal(pod(), "Started", "it runs")
    recorder.warning(pod(), "BackupFailed", "the bucket is gone", annotations={"a": "b"}, labels={"c": "d"})
    bound = recorder.for_object(pod())
    bound.normal("Started", "again", action="Starting")
    bound.eventf("Warning", "BackupFailed", "%s is gone", "b-1")
    assert recorded(recorder) == [
        ("Normal", "Started", "it runs"),
        ("Warning", "BackupFailed", "the bucket is gone"),
        ("Normal", "Started", "again"),
        ("Warning", "BackupFailed", "b-1 is gone"),
    ]
    assert (recorder.events[1].annotations, recorder.events[1].labels) == ({"a": "b"}, {"c": "d"})
    assert recorder.events[2].action == "Starting"


def test_exception(recorder: Recorder) -> None:
    """The error is the given one or the one being handled. Without any, the event is a plain warning."""
    bound = recorder.for_object(pod())
    recorder.exception(pod(), "Given", LookupError("no such bucket"))
    try:
        fail()
    except ConnectionError:
        recorder.exception(pod(), "Handled")
        bound.exception("Bound")
    recorder.exception(pod(), "None")
    assert recorded(recorder) == [
        ("Warning", "Given", "LookupError: no such bucket"),
        ("Warning", "Handled", "ConnectionError: refused"),
        ("Warning", "Bound", "ConnectionError: refused"),
        ("Warning", "None", ""),
    ]


def fail() -> None:
    """Raise an error as a handler might."""
    raise ConnectionError("refused")


def test_an_action_of_events_v1_is_the_reason_by_default() -> None:
    """The default action is the reason, because events.k8s.io/v1 requires an action."""
    recorder = FakeEventsV1Recorder()
    recorder.warning(pod(), "BackupFailed", "the bucket is gone")
    assert [event.action for event in recorder.events] == ["BackupFailed"]


def test_related_and_action(recorder: Recorder) -> None:
    """`related` and `action` are in the event. A related object without a reference is left out."""
    recorder.warning(pod(), "BackupFailed", "gone", related=NODE, action="BackingUp")
    lenient = type(recorder)(strict=False)
    lenient.warning(pod(), "BackupFailed", "gone", related=object())
    [event] = recorder.events
    assert event.related is not None
    assert (event.related.name, event.action) == ("n-1", "BackingUp")
    assert [event.related for event in lenient.events] == [None]


def test_body_of_core() -> None:
    """A create has action and related if they are set, in the same place as in client-go."""
    seen: list[kevents.Event] = []
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(seen.append)
        recorder = broadcaster.new_recorder("operator")
        recorder.event(pod(), "Warning", "BackupFailed", "gone", related=NODE, action="BackingUp")
        recorder.event(pod(), "Warning", "BackupFailed", "gone")
    with_both, without = (event.to_dict() for event in seen)
    assert with_both["related"] == {"kind": "Node", "apiVersion": "v1", "name": "n-1", "uid": "u-n"}
    assert list(with_both) == [*list(without)[:-2], "action", "related", *list(without)[-2:]]
    again = kevents.Event.from_dict(with_both)
    assert (again.action, again.related) == ("BackingUp", seen[0].related)


def test_no_part_of_the_identity() -> None:
    """Two events that differ only in action and related are the same event, counted twice."""
    correlator, seen = kevents.EventCorrelator(), []
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(seen.append)
        recorder = broadcaster.new_recorder("operator")
        recorder.warning(pod(), "BackupFailed", "gone", action="BackingUp")
        recorder.warning(pod(), "BackupFailed", "gone", action="Restoring", related=NODE)
    results = [correlator.event_correlate(event).event for event in seen]
    assert [event.count for event in results if event is not None] == [1, 2]


def test_event_type_enum(recorder: Recorder) -> None:
    """The enum of the types is accepted like the strings."""
    recorder.for_object(pod()).event(kevents.EventType.WARNING, "BackupFailed", "gone")
    assert [event.type for event in recorder.events] == ["Warning"]
    assert recorder.find(kevents.EVENT_TYPE_WARNING) == recorder.find(type="Warning") == recorder.events


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("info", "use normal(...) or warning(...)"),
        ("error", "use normal(...) or warning(...)"),
        ("record", "use event(...)"),
        ("flush", "use the broadcaster's method, or kevents.shutdown()"),
    ],
)
def test_method_of_another_library(recorder: Recorder, name: str, expected: str) -> None:
    """The error for a method that loggers or other libraries have names the one that recorders have."""
    for each in (recorder, recorder.for_object(pod())):
        with pytest.raises(AttributeError) as error:
            getattr(each, name)
        assert str(error.value) == f"{type(each).__name__} has no attribute {name!r}: {expected}"


def test_missing_method(recorder: Recorder) -> None:
    """Any other missing attribute is an ordinary error."""
    with pytest.raises(AttributeError, match=r"^(FakeRecorder|FakeEventsV1Recorder) has no attribute 'bogus'$"):
        recorder.bogus  # type: ignore[attr-defined]  # noqa: B018 - reading it is the test
    with pytest.raises(AttributeError, match=r"use for_object\(\.\.\.\)\.step\(\.\.\.\)"):
        recorder.step  # type: ignore[attr-defined]  # noqa: B018


class TestStep:
    """The start and the end of a step."""

    @pytest.fixture
    def bound(self, recorder: Recorder) -> Iterator[kevents.BoundRecorder]:
        """A recorder for a pod."""
        return recorder.for_object(pod())

    def test_success(self, recorder: Recorder, bound: kevents.BoundRecorder) -> None:
        """A successful step is two normal events, the second with the duration."""
        with bound.step("Backup", "writing web-0"):
            assert recorded(recorder) == [("Normal", "BackupStarted", "writing web-0")]
        [_, end] = recorder.events
        assert (end.type, end.reason) == ("Normal", "BackupSucceeded")
        assert end.message.startswith("writing web-0: done in 0.")

    def test_failure(self, recorder: Recorder, bound: kevents.BoundRecorder) -> None:
        """A failed step ends with a warning that has the error. The error is raised."""
        with pytest.raises(ConnectionError), bound.step("Backup", "writing web-0"):
            fail()
        assert recorded(recorder)[1:] == [("Warning", "BackupFailed", "writing web-0: ConnectionError: refused")]

    def test_in_a_coroutine(self, recorder: Recorder, bound: kevents.BoundRecorder) -> None:
        """The block may await. A cancelled coroutine is a failed step."""

        async def work(seconds: float) -> None:
            with bound.step("Backup", "writing web-0"):
                await asyncio.sleep(seconds)

        async def main() -> Any:
            await work(0)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(work(3600), 0)
            task = asyncio.ensure_future(work(3600))
            await asyncio.sleep(0)
            task.cancel()
            return await asyncio.gather(task, return_exceptions=True)

        asyncio.run(main())
        assert [event.reason for event in recorder.events][:2] == ["BackupStarted", "BackupSucceeded"]
        assert [event.reason for event in recorder.events][-2:] == ["BackupStarted", "BackupFailed"]
