"""The module `kevents.events`: from a recorder call to the requests to events.k8s.io/v1."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kevents
from kevents import (
    DropReason,
    InvalidMessageError,
    InvalidReferenceError,
    InvalidTypeError,
    ObjectReference,
    StatusError,
)
from kevents import events as door
from tests.support.series import NANO, START

if TYPE_CHECKING:
    from tests.support.subjects import Wire

POD = ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u-1")
SHOP = ObjectReference(kind="Pod", api_version="v1", namespace="Shop", name="web-0")
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "uid": "n"}}
LIMIT = 60.0

FORKING = """
import os
from kevents import ObjectReference, events

class Sink:
    who = "parent"
    def create(self, *args): os.write(1, f"{self.who} create\\n".encode())
    def patch(self, *args): os.write(1, f"{self.who} patch\\n".encode())

def record():
    recorder.eventf(ObjectReference(kind="Pod", name="p"), None, "Normal", "R", "A", "n")
    assert broadcaster.flush(30)

broadcaster = events.EventBroadcaster(Sink())
recorder = broadcaster.new_recorder("c")
record()
record()
child = os.fork()
if not child:
    Sink.who = "child"
    record()
    broadcaster.shutdown()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
record()
broadcaster.shutdown()
"""


class MemorySink:
    """An events.k8s.io API in memory that can fail on demand."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.fault: Callable[[str], Exception | None] = lambda verb: None
        self.changed = threading.Condition()

    def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event."""
        with self._request("create", body):
            key = (namespace, body["metadata"]["name"])
            if key in self.stored:
                raise StatusError(409, "AlreadyExists")
            self.stored[key] = body

    def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Patch an event."""
        with self._request("patch", patch):
            if (namespace, name) not in self.stored:
                raise StatusError(404, "NotFound")
            self.stored[namespace, name] = {**self.stored[namespace, name], **patch}

    def _request(self, verb: str, body: dict[str, Any]) -> threading.Condition:
        with self.changed:
            self.requests.append((verb, json.loads(json.dumps(body))))
            self.changed.notify_all()
            if error := self.fault(verb):
                raise error
        return self.changed

    def await_requests(self, number: int) -> None:
        """Wait for that number of requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= number, LIMIT), self.requests

    @property
    def verbs(self) -> list[str]:
        """The verbs of the requests, in order."""
        return [verb for verb, _ in self.requests]

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The stored events."""
        return list(self.stored.values())

    def count(self, **fields: str) -> int:
        """The number of stored occurrences of events with these fields."""
        found = [body for body in self.bodies if all(body[name] == value for name, value in fields.items())]
        return sum(body.get("series", {"count": 1})["count"] for body in found)


@pytest.fixture
def sink() -> MemorySink:
    """A sink in memory."""
    return MemorySink()


@pytest.fixture
def broadcaster(sink: MemorySink) -> Iterator[door.EventBroadcaster]:
    """A broadcaster that writes to the sink."""
    with door.EventBroadcaster(sink) as broadcaster:
        yield broadcaster


@pytest.fixture
def recorder(broadcaster: door.EventBroadcaster) -> door.EventRecorder:
    """A recorder."""
    return broadcaster.new_recorder("example.com/c", reporting_instance="c-1")


def record(recorder: door.EventRecorder, **fields: Any) -> None:
    """Record an event with the given fields changed."""
    given = {"regarding": POD, "eventtype": "Normal", "reason": "Pulled", "action": "Pulling", "note": "n"}
    recorder.event(**{**given, **fields})


def written(broadcaster: door.EventBroadcaster, sink: MemorySink) -> dict[str, Any]:
    """The only stored event, after a flush."""
    assert broadcaster.flush(LIMIT)
    (body,) = sink.bodies
    return body


def refusals(broadcaster: door.EventBroadcaster) -> dict[DropReason, int]:
    """The number of refused events, by reason."""
    return dict(broadcaster.statistics().refused)


class TestEventf:
    """From a call to the body of an event."""

    def test_all_fields(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink
    ) -> None:
        """`eventf` takes the arguments of client-go's, in the same order, and formats the note."""
        recorder.eventf(POD, NODE, "Warning", "Failed", "Binding", "%d of %s", 3, "five")
        body = written(broadcaster, sink)
        assert tuple(body[name] for name in ("type", "reason", "action", "note")) == (
            "Warning",
            "Failed",
            "Binding",
            "3 of five",
        )
        assert (
            body["regarding"],
            body["related"],
        ) == (POD.to_dict(), {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "n"})
        assert (
            body["reportingController"],
            body["reportingInstance"],
            body["metadata"]["namespace"],
        ) == ("example.com/c", "c-1", "prod")

    def test_no_related(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink
    ) -> None:
        """`related` may be None."""
        recorder.eventf(POD, None, "Normal", "R", "A", "n")
        assert "related" not in written(broadcaster, sink)

    def test_annotations(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink
    ) -> None:
        """`annotated_eventf` adds annotations, which it reads during the call."""
        annotations = {"a": "b"}
        recorder.annotated_eventf(POD, None, annotations, "Normal", "R", "A", "%s", "n")
        annotations["a"] = "c"
        body = written(broadcaster, sink)
        assert (body["metadata"]["annotations"], body["note"]) == ({"a": "b"}, "n")

    def test_labels(self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink) -> None:
        """`event` accepts labels."""
        record(recorder, labels={"a": "b"})
        assert written(broadcaster, sink)["metadata"]["labels"] == {"a": "b"}

    def test_verbatim(self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink) -> None:
        """Pitfall 8: without arguments the note is not formatted."""
        recorder.eventf(POD, None, "Normal", "R", "A", "100% of %s done %d")
        assert written(broadcaster, sink)["note"] == "100% of %s done %d"

    def test_bad_format(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink
    ) -> None:
        """Pitfall 9: if format and arguments do not match, both are recorded."""
        recorder.eventf(POD, None, "Normal", "R", "A", "%d", "x")
        assert written(broadcaster, sink)["note"] == "%d %!(BADFORMAT 'x')"

    def test_cluster_scoped(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink
    ) -> None:
        """Pitfall 32: an event about a cluster-scoped object is in the namespace `default`."""
        record(recorder, regarding=NODE)
        body = written(broadcaster, sink)
        assert (body["metadata"]["namespace"], body["regarding"].get("namespace")) == ("default", None)

    def test_no_name(self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink) -> None:
        """The event about a reference without a name has a UUID as its name."""
        record(recorder, regarding=ObjectReference(kind="Pod", namespace="prod"))
        assert len(written(broadcaster, sink)["metadata"]["name"]) == 36

    def test_microsecond_zero(self, sink: MemorySink) -> None:
        """Pitfall 22: microsecond 0 is sent as `.000001`, in creates and in series."""
        with door.EventBroadcaster(sink, clock=lambda: START // NANO * NANO) as broadcaster:
            recorder = broadcaster.new_recorder("c")
            record(recorder)
            record(recorder)
            body = written(broadcaster, sink)
        expected = "2026-07-24T09:00:00.000001Z"
        assert (body["eventTime"], body["series"]["lastObservedTime"]) == (expected, expected)


class TestLimits:
    """The API server's limits are in bytes."""

    @pytest.mark.parametrize(
        "note", ["é" * 1030, "🔥" * 1250, "x" * 5000, "世" * 342], ids=["é", "emoji", "ascii", "CJK"]
    )
    def test_note(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink, note: str
    ) -> None:
        """Pitfall 26: a note over 1024 bytes is cut at a character, with a visible mark."""
        record(recorder, note=note)
        stored = written(broadcaster, sink)["note"]
        assert stored.endswith("...")
        assert 1021 <= len(stored.encode()) <= 1024
        assert note.startswith(stored[:-3])

    @pytest.mark.parametrize("note", ["", "é" * 512, "x" * 1024])
    def test_note_that_fits(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink, note: str
    ) -> None:
        """Pitfall 29: a note of at most 1024 bytes, even an empty one, is unchanged."""
        record(recorder, note=note)
        assert written(broadcaster, sink)["note"] == note

    def test_note_of_a_series(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink
    ) -> None:
        """Pitfall 27: a series adds no prefix to its note, so that a note within the limit stays within it."""
        for _ in range(60):
            record(recorder, note="x" * 1020)
        assert written(broadcaster, sink)["note"] == "x" * 1020

    @pytest.mark.parametrize("name", ["reason", "action"])
    def test_words(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink, name: str
    ) -> None:
        """Pitfall 13: a reason or action of 129 bytes is cut to 128. Spaces are accepted."""
        record(recorder, **{name: "a " + "x" * 127})
        assert written(broadcaster, sink)[name] == "a " + "x" * 123 + "..."

    @pytest.mark.parametrize("name", ["reason", "action"])
    @pytest.mark.parametrize("value", ["", None, b""])
    def test_empty_word(
        self,
        broadcaster: door.EventBroadcaster,
        recorder: door.EventRecorder,
        sink: MemorySink,
        caplog: pytest.LogCaptureFixture,
        name: str,
        value: object,
    ) -> None:
        """Pitfall 13: an empty reason or action is refused, counted and logged, and never sent."""
        record(recorder, **{name: value})
        assert broadcaster.flush(LIMIT)
        assert (refusals(broadcaster), sink.requests) == ({DropReason.INVALID_MESSAGE: 1}, [])
        assert f"{name} is empty: events.k8s.io takes no event without one" in caplog.text

    def test_controller(self, broadcaster: door.EventBroadcaster) -> None:
        """Pitfall 30: a controller name that the server refuses is a ValueError at construction."""
        for name in ("", "c" * 64, "a b", "my controller", "é", "a/b/c", None, 7):
            with pytest.raises(ValueError, match=r"reporting_controller must be \[prefix/\]name"):
                broadcaster.new_recorder(name)  # type: ignore[arg-type]

    def test_instance(self, broadcaster: door.EventBroadcaster) -> None:
        """Pitfall 30: a long instance is cut to 128 bytes."""
        recorder = broadcaster.new_recorder("c", reporting_instance="é" * 100)
        assert recorder.reporting_instance == "é" * 62 + "..."

    @pytest.mark.parametrize("instance", ["", 7])
    def test_no_instance(self, broadcaster: door.EventBroadcaster, instance: Any) -> None:
        """An empty instance, which the server refuses, is a ValueError at construction."""
        with pytest.raises(ValueError, match="reporting_instance"):
            broadcaster.new_recorder("c", reporting_instance=instance)

    def test_default_instance(self, broadcaster: door.EventBroadcaster, monkeypatch: pytest.MonkeyPatch) -> None:
        """The default instance is the controller and the host."""
        monkeypatch.setenv("POD_NAME", "pod-7")
        recorder = broadcaster.new_recorder("example.com/c")
        assert (recorder.reporting_controller, recorder.reporting_instance) == ("example.com/c", "example.com/c-pod-7")
        assert repr(recorder) == "<EventRecorder 'example.com/c'>"


@pytest.mark.parametrize(
    ("eventtype", "expected"), [("warning", "Warning"), ("NORMAL", "Normal"), ("Fatal", "Warning")]
)
def test_types(
    broadcaster: door.EventBroadcaster,
    recorder: door.EventRecorder,
    sink: MemorySink,
    caplog: pytest.LogCaptureFixture,
    eventtype: str,
    expected: str,
) -> None:
    """Fault 22: the case of types is ignored. A type that means an error becomes Warning, with one log line."""
    record(recorder, eventtype=eventtype)
    assert broadcaster.flush(LIMIT)
    assert ([body["type"] for _, body in sink.requests], len(caplog.messages)) == (
        [expected],
        int(eventtype == "Fatal"),
    )


class TestRefused:
    """An invalid event is counted and logged. Only a strict broadcaster raises."""

    CASES = (
        ({"regarding": None}, DropReason.INVALID_REFERENCE, InvalidReferenceError),
        ({"regarding": {"kind": "Pod"}}, DropReason.INVALID_REFERENCE, InvalidReferenceError),
        (
            {"regarding": {"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}}},
            DropReason.INVALID_REFERENCE,
            InvalidReferenceError,
        ),
        ({"eventtype": "Info"}, DropReason.INVALID_TYPE, InvalidTypeError),
        ({"regarding": SHOP}, DropReason.INVALID_REFERENCE, InvalidReferenceError),
        ({"reason": ""}, DropReason.INVALID_MESSAGE, InvalidMessageError),
        ({"annotations": ["a"]}, DropReason.INVALID_MESSAGE, InvalidMessageError),
    )

    @pytest.mark.parametrize(("fields", "reason", "error"), CASES)
    def test_counted(
        self,
        broadcaster: door.EventBroadcaster,
        recorder: door.EventRecorder,
        sink: MemorySink,
        fields: dict[str, Any],
        reason: DropReason,
        error: type[Exception],
    ) -> None:
        """A refused event is counted under its reason, and not sent."""
        record(recorder, **fields)
        assert broadcaster.flush(LIMIT)
        assert (refusals(broadcaster), sink.requests) == ({reason: 1}, [])

    @pytest.mark.parametrize(("fields", "reason", "error"), CASES)
    def test_strict(self, sink: MemorySink, fields: dict[str, Any], reason: DropReason, error: type[Exception]) -> None:
        """A strict broadcaster raises the error."""
        with door.EventBroadcaster(sink, strict=True) as broadcaster, pytest.raises(error):
            record(broadcaster.new_recorder("c"), **fields)

    def test_related(
        self,
        broadcaster: door.EventBroadcaster,
        recorder: door.EventRecorder,
        sink: MemorySink,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """An invalid related object is left out and logged. The event itself is recorded."""
        record(recorder, related={"kind": "Pod"})
        assert "related" not in written(broadcaster, sink)
        assert "recorded without a part: related: " in caplog.text

    def test_strict_related(self, sink: MemorySink) -> None:
        """A strict broadcaster raises for an invalid related object, too."""
        with (
            door.EventBroadcaster(sink, strict=True) as broadcaster,
            pytest.raises(InvalidReferenceError, match="related"),
        ):
            record(broadcaster.new_recorder("c"), related={"kind": "Pod"})

    def test_text_that_raises(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink
    ) -> None:
        """Pitfall 11: a note whose `__str__` raises is refused."""

        class Mute:
            def __str__(self) -> str:
                raise RuntimeError

        record(recorder, note=Mute())
        assert refusals(broadcaster) == {DropReason.INVALID_MESSAGE: 1}

    def test_echo(self, broadcaster: door.EventBroadcaster, sink: MemorySink) -> None:
        """Events recorded by the event logging of kevents itself are refused as recursion."""
        recorder = broadcaster.new_recorder("c")
        broadcaster.start_logging(lambda *_: record(recorder, reason="Echo"))
        record(recorder)
        assert broadcaster.flush(LIMIT)
        assert refusals(broadcaster) == {DropReason.RECURSION: 1}

    def test_with_logger(self, broadcaster: door.EventBroadcaster, caplog: pytest.LogCaptureFixture) -> None:
        """`with_logger` sets the logger of refusals."""
        recorder = broadcaster.new_recorder("c").with_logger(logging.getLogger("mine"))
        record(recorder, regarding=None)
        assert [entry.name for entry in caplog.records] == ["mine"]


class TestSeries:
    """Repeated events, through the threads."""

    def test_second_at_once(
        self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink
    ) -> None:
        """The second occurrence is patched immediately. The third one waits."""
        record(recorder)
        sink.await_requests(1)
        record(recorder)
        sink.await_requests(2)
        for reason in ("Pulled", "Pulled", "Other"):
            record(recorder, reason=reason)
        sink.await_requests(3)
        assert [(verb, body.get("series", {"count": 1})["count"]) for verb, body in sink.requests] == [
            ("create", 1),
            ("patch", 2),
            ("create", 1),
        ]
        assert sink.count(reason="Other") == 1

    def test_flush(self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink) -> None:
        """Each flush writes the current count of every series."""
        for number in range(1, 4):
            for reason in "AB":
                for _ in range(20):
                    record(recorder, reason=reason)
            assert broadcaster.flush(LIMIT)
            assert (sink.count(reason="A"), sink.count(reason="B")) == (20 * number, 20 * number)
        assert len(sink.stored) == 2

    def test_shutdown(self, sink: MemorySink) -> None:
        """Shutdown writes the final count of every series and drops nothing."""
        broadcaster = door.EventBroadcaster(sink)
        recorder = broadcaster.new_recorder("c")
        for _ in range(3):
            record(recorder)
            sink.await_requests(1)
        assert (broadcaster.shutdown(LIMIT), sink.count()) == (0, 3)

    def test_silence(self, sink: MemorySink) -> None:
        """After the silence the final count is written without a flush."""
        with door.EventBroadcaster(sink, series_options=door.SeriesOptions(finish_after=0.2)) as broadcaster:
            recorder = broadcaster.new_recorder("c")
            record(recorder)
            sink.await_requests(1)
            for _ in range(4):
                record(recorder)
            with sink.changed:
                assert sink.changed.wait_for(lambda: sink.count() == 5, LIMIT)

    def test_eviction(self, sink: MemorySink) -> None:
        """The count of an evicted series is written without a flush."""
        with door.EventBroadcaster(sink, series_options=door.SeriesOptions(lru_cache_size=1)) as broadcaster:
            recorder = broadcaster.new_recorder("c")
            for number in range(1, 3):
                record(recorder, reason="A")
                sink.await_requests(number)
            record(recorder, reason="A")
            record(recorder, reason="B")
            with sink.changed:
                assert sink.changed.wait_for(lambda: (sink.count(reason="A"), sink.count(reason="B")) == (3, 1), LIMIT)
            found = broadcaster.statistics().watchers[0].sink
        assert found is not None
        assert (found.cache_sizes, found.cache_evictions) == ({"series": 1}, {"series": 1})

    def test_gone(self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder, sink: MemorySink) -> None:
        """Pitfall 36: an expired event is created again with its series and its name."""
        record(recorder)
        assert broadcaster.flush(LIMIT)
        name = written(broadcaster, sink)["metadata"]["name"]
        sink.stored.clear()
        record(recorder)
        body = written(broadcaster, sink)
        assert (
            body["metadata"]["name"],
            body["series"]["count"],
            sink.verbs,
        ) == (name, 2, ["create", "patch", "create"])

    def test_lost_answer(self, sink: MemorySink) -> None:
        """Pitfall 38: a create whose answer was lost is not duplicated, and a series of one is never sent."""
        lost = iter([kevents.UnavailableError("lost")])
        create = sink.create

        def forgetful(namespace: str, body: dict[str, Any], /) -> None:
            create(namespace, body)
            for error in lost:
                raise error

        sink.create = forgetful  # type: ignore[method-assign]
        with door.EventBroadcaster(sink, sleep_duration=0.01) as broadcaster:
            record(broadcaster.new_recorder("c"))
            assert "series" not in written(broadcaster, sink)
        assert (sink.verbs, sink.requests[-1][1]) == (["create", "create", "patch"], {"metadata": {}})

    def test_many_threads(self, broadcaster: door.EventBroadcaster, sink: MemorySink) -> None:
        """Several threads may record. Every occurrence is counted."""
        recorder = broadcaster.new_recorder("c")

        def work() -> None:
            for number in range(500):
                record(recorder, reason=f"R{number % 5}")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert broadcaster.flush(LIMIT)
        assert [sink.count(reason=f"R{number}") for number in range(5)] == [400] * 5
        found = broadcaster.statistics().watchers[0].sink
        assert found is not None
        assert (found.accepted, found.delivered, found.backlog) == (2000, 2000, 0)

    def test_forbidden(self, sink: MemorySink, caplog: pytest.LogCaptureFixture) -> None:
        """Pitfall 44: a refused patch is logged with the missing rule and the right API group."""
        denied = StatusError(403, "Forbidden", 'events is forbidden: User "u" cannot patch resource "events"')
        sink.fault = lambda verb: denied if verb == "patch" else None
        told = threading.Event()
        with door.EventBroadcaster(sink, on_drop=lambda *_: told.set()) as broadcaster:
            recorder = broadcaster.new_recorder("c")
            record(recorder)
            assert broadcaster.flush(LIMIT)
            record(recorder)
            assert broadcaster.flush(LIMIT)
            assert broadcaster.statistics().dropped == {DropReason.REJECTED: 1}
            assert told.wait(LIMIT)
        assert 'grant apiGroups: ["events.k8s.io"], resources: ["events"], verbs: ["create", "patch"]' in caplog.text


class TestBroadcaster:
    """The broadcaster works as the one of core/v1."""

    def test_starts_nothing(self, sink: MemorySink) -> None:
        """Building a broadcaster and a recorder starts no thread."""
        before = threading.active_count()
        with door.EventBroadcaster(sink) as broadcaster:
            broadcaster.new_recorder("c")
            assert threading.active_count() == before

    def test_watchers(self, broadcaster: door.EventBroadcaster, recorder: door.EventRecorder) -> None:
        """A watcher's handler receives events with all their fields. The logging watchers log them."""
        seen: list[door.SeriesEvent] = []
        lines: list[str] = []
        broadcaster.start_event_watcher(seen.append)
        broadcaster.start_logging(lambda text, *args: lines.append(text % args))
        record(recorder, related=NODE)
        assert broadcaster.flush(LIMIT)
        (event,) = seen
        assert (event.regarding, event.action, event.note, event.related.name) == (POD, "Pulling", "n", "node-1")  # type: ignore[union-attr]
        assert lines[0].endswith("type: 'Normal' reason: 'Pulled' action: 'Pulling' n")

    def test_after_shutdown(self, sink: MemorySink) -> None:
        """An event recorded after shutdown is counted as dropped."""
        broadcaster = door.EventBroadcaster(sink)
        recorder = broadcaster.new_recorder("c")
        assert broadcaster.shutdown() == 0
        record(recorder)
        assert broadcaster.statistics().dropped == {DropReason.SHUTDOWN: 1}

    def test_on_drop(self, sink: MemorySink) -> None:
        """`on_drop` receives the lost event with all its fields."""
        lost: list[Any] = []
        told = threading.Event()

        def on_drop(*what: Any) -> None:
            lost.append(what)
            told.set()

        sink.fault = lambda verb: StatusError(422, "Invalid", "no")
        with door.EventBroadcaster(sink, on_drop=on_drop) as broadcaster:
            record(broadcaster.new_recorder("c"))
            assert told.wait(LIMIT)
        ((reason, event, number),) = lost
        assert (reason, event.action, number) == (DropReason.REJECTED, "Pulling", 1)

    def test_core_sink(self) -> None:
        """A sink for core/v1, whose requests the server would refuse, is a TypeError."""
        with pytest.raises(TypeError, match="use an EventsV1EventSink"):
            door.EventBroadcaster(kevents.CoreV1EventSink())

    @pytest.mark.parametrize("sink", [None, "https://example.com"])
    def test_no_sink(self, sink: Any) -> None:
        """An object that is not a sink is a TypeError."""
        with pytest.raises(TypeError):
            door.EventBroadcaster(sink)

    def test_options(self, sink: MemorySink) -> None:
        """An invalid option is a ValueError."""
        wrong: list[dict[str, Any]] = [
            {"series_options": {}}, {"senders": 0}, {"backlog": 1.5}, {"max_age": -1}, {"clock": None},
            {"queue_length": 0}, {"sleep_duration": 0}, {"on_drop": "log"},
        ]  # fmt: skip
        for options in wrong:
            with pytest.raises(ValueError, match=next(iter(options))):
                door.EventBroadcaster(sink, **options)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_fork(self) -> None:
        """In a forked child every series starts anew: parent and child never share an event."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORKING], check=True, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.split("\n")[:-1] == ["parent create", "parent patch", "child create", "parent patch"]

    def test_public_names(self) -> None:
        """All public names are importable, and sorted."""
        assert sorted(door.__all__) == door.__all__
        assert all(hasattr(door, name) for name in door.__all__)

    def test_light(self) -> None:
        """Importing the module loads no client, nor asyncio, except through old versions of tenacity."""
        program = (
            "import sys, tenacity; before = {*sys.modules}; import kevents.events; "
            "sys.exit(bool({'kubernetes', 'asyncio'} & ({*sys.modules} - before)))"
        )
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.wire
class TestSink:
    """`EventsV1EventSink` over the official client, against the embedded and the real API server."""

    @pytest.fixture
    def make(self, wire: Wire, tmp_path: Path) -> Callable[..., door.EventsV1EventSink]:
        """Make a sink for a user."""
        from kubernetes.config import new_client_from_config

        def make(user: str = "admin") -> door.EventsV1EventSink:
            config = json.loads(wire.subject.server.kubeconfig().read_text(encoding="utf-8"))
            config["users"][0]["user"]["token"] = wire.subject.tokens[user]
            path = tmp_path / user
            path.write_text(json.dumps(config), encoding="utf-8")
            return door.EventsV1EventSink(new_client_from_config(config_file=str(path)))

        return make

    def test_create_and_patch(self, wire: Wire, make: Callable[..., door.EventsV1EventSink]) -> None:
        """Created and patched events are stored field by field, with times of six digits."""
        sink = make()
        body = wire.new_event(related={"kind": "Node", "name": "n", "apiVersion": "v1"})
        sink.create(wire.namespace, body)
        series = {"count": 2, "lastObservedTime": "2026-07-24T09:00:07.000001Z"}
        sink.patch(wire.namespace, "pod.1", {"series": series})
        stored = wire.ok("GET", f"{wire.new_events}/pod.1")
        assert {name: stored[name] for name in (*body, "series")} | {"metadata": body["metadata"]} == {
            **body,
            "series": series,
        }

    def test_patch_of_nothing(self, wire: Wire, make: Callable[..., door.EventsV1EventSink]) -> None:
        """The empty patch for a series of one is accepted and changes nothing."""
        sink = make()
        sink.create(wire.namespace, wire.new_event())
        before = wire.ok("GET", f"{wire.new_events}/pod.1")
        sink.patch(wire.namespace, "pod.1", {"metadata": {}})
        assert wire.ok("GET", f"{wire.new_events}/pod.1") == before

    @pytest.mark.parametrize("fraction", ["000001", "120000", "999999"])
    def test_microseconds(self, wire: Wire, make: Callable[..., door.EventsV1EventSink], fraction: str) -> None:
        """Pitfall 22: a create with a series, whose body the client 37 rewrites, keeps its six digits."""
        moment = f"2026-07-24T09:00:00.{fraction}Z"
        series = {"count": 2, "lastObservedTime": moment}
        make().create(wire.namespace, wire.new_event(eventTime=moment, series=series))
        stored = wire.ok("GET", f"{wire.new_events}/pod.1")
        assert (stored["eventTime"], stored["series"]) == (moment, series)

    def test_refusals(self, wire: Wire, make: Callable[..., door.EventsV1EventSink]) -> None:
        """Refusals with 409, 404, 422 and 403 raise StatusError with that code."""
        sink = make()
        sink.create(wire.namespace, wire.new_event())
        patch = {"series": {"count": 2, "lastObservedTime": "2026-07-24T09:00:07.000001Z"}}
        elsewhere = "no-such-namespace"
        there = {"kind": "Pod", "namespace": elsewhere, "name": "pod", "apiVersion": "v1"}
        calls: list[tuple[int, Callable[..., None], tuple[Any, ...]]] = [
            (409, sink.create, (wire.namespace, wire.new_event())),
            (404, sink.patch, (wire.namespace, "pod.9", patch)),
            (
                404,
                sink.create,
                (elsewhere, wire.new_event(metadata={"name": "x", "namespace": elsewhere}, regarding=there)),
            ),
            (422, sink.create, (wire.namespace, wire.new_event("pod.2", reportingController="a b"))),
            (403, make("creator").patch, (wire.namespace, "pod.1", patch)),
            (403, make("stranger").create, (wire.namespace, wire.new_event("pod.3"))),
        ]
        for code, call, args in calls:
            with pytest.raises(StatusError) as caught:
                call(*args)
            assert caught.value.code == code

    def test_wrong_api(self) -> None:
        """An api of the other group is a TypeError for both sinks. The right one and an ApiClient are accepted."""
        from kubernetes import client

        api = client.ApiClient(client.Configuration(host="http://127.0.0.1:1"))
        for sink, wrong, right in (
            (door.EventsV1EventSink, client.CoreV1Api, client.EventsV1Api),
            (kevents.CoreV1EventSink, client.EventsV1Api, client.CoreV1Api),
        ):
            with pytest.raises(TypeError, match=f"not an? {wrong.__name__}: its events have another shape"):
                sink(wrong(api))
            assert sink.__name__ in repr(sink(right(api)))
            assert isinstance(sink(api), kevents.EventSink)
