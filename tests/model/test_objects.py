"""Events, sources and references: immutable values, and the bodies that are sent to the server."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents._model.objects import Event, EventSource, ObjectReference, SeriesEvent

POD = ObjectReference(
    kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u1", resource_version="7", field_path="spec"
)
POD_BODY = {
    "kind": "Pod",
    "apiVersion": "v1",
    "namespace": "prod",
    "name": "web-0",
    "uid": "u1",
    "resourceVersion": "7",
    "fieldPath": "spec",
}
SECOND = 1_000_000_000
TEXTS = st.text(st.characters() | st.characters(categories=["Cs"]), max_size=20)


def event(**fields: Any) -> Event:
    """An event about the pod."""
    given = {
        "reference": POD,
        "type": "Normal",
        "reason": "Started",
        "message": "up",
        "source": EventSource("kubelet", "node-1"),
        "time": 5 * SECOND,
        "serial": 255,
    }
    return Event(**{**given, **fields})


class TestReference:
    """The reference of an event's object."""

    def test_to_dict(self) -> None:
        """The body has the API's names and no empty fields."""
        assert POD.to_dict() == POD_BODY
        assert ObjectReference(kind="Node", name="n").to_dict() == {"kind": "Node", "name": "n"}

    def test_from_dict(self) -> None:
        """A reference is read from a body. Unknown keys are ignored, missing and null ones are empty."""
        assert ObjectReference.from_dict(POD_BODY) == POD
        assert ObjectReference.from_dict({"name": "a", "uid": None, "x": 1}) == ObjectReference(name="a")

    @pytest.mark.parametrize(
        "field", [field for field in ObjectReference.__slots__ if field not in {"identity", "checked"}]
    )
    def test_equality(self, field: str) -> None:
        """References are equal, and have the same hash, if all fields are equal."""
        assert ObjectReference() == ObjectReference()
        assert ObjectReference() != ObjectReference(**{field: "x"})
        assert len({ObjectReference(**{field: "x"}), ObjectReference(**{field: "x"})}) == 1
        assert ObjectReference() != "x"

    @pytest.mark.parametrize("field", ["kind", "namespace", "name", "uid", "api_version"])
    def test_identity(self, field: str) -> None:
        """All fields except resourceVersion and fieldPath belong to the identity."""
        assert ObjectReference(**{field: "x"}).identity != ObjectReference().identity
        assert ObjectReference(resource_version="7", field_path="spec").identity == ObjectReference().identity

    def test_texts(self) -> None:
        """`str` is short for log lines, `repr` is exact."""
        assert (
            str(POD),
            str(ObjectReference(kind="Node", api_version="v1", name="n")),
        ) == ("v1/Pod prod/web-0", "v1/Node n")
        assert str(ObjectReference()) == "?/? "
        assert repr(ObjectReference(kind="Node", name="n")) == "ObjectReference(kind='Node', name='n')"
        assert eval(repr(POD)) == POD

    def test_copies(self) -> None:
        """A reference can be copied and pickled."""
        assert [copy.deepcopy(POD), pickle.loads(pickle.dumps(POD))] == [POD, POD]


class TestSource:
    """The source of events."""

    def test_values(self) -> None:
        """A source has two fields, and empty ones are left out of the body."""
        assert EventSource("c", "h").to_dict() == {"component": "c", "host": "h"}
        assert EventSource().to_dict() == {}
        assert EventSource("c", "h").identity == ("c", "h")

    def test_equality(self) -> None:
        """Sources are equal if both fields are equal."""
        assert EventSource("c", "h") == EventSource("c", "h")
        assert len({EventSource("c", "h"), EventSource("c"), EventSource("", "h"), EventSource("c", "h")}) == 3
        assert EventSource() != ("", "")
        assert repr(EventSource("c", "h")) == "EventSource(component='c', host='h')"


class TestEvent:
    """An event."""

    def test_create_body(self) -> None:
        """The core/v1 body is the same as in client-go."""
        assert event(annotations={"a": "1"}, labels={"l": "2"}, count=2, first_time=3 * SECOND).to_dict() == {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "web-0.ff", "namespace": "prod", "annotations": {"a": "1"}, "labels": {"l": "2"}},
            "involvedObject": POD_BODY,
            "reason": "Started",
            "message": "up",
            "source": {"component": "kubelet", "host": "node-1"},
            "firstTimestamp": "1970-01-01T00:00:03Z",
            "lastTimestamp": "1970-01-01T00:00:05Z",
            "count": 2,
            "type": "Normal",
            "reportingComponent": "kubelet",
            "reportingInstance": "node-1",
        }

    def test_create_without_extras(self) -> None:
        """Empty annotations and labels are left out. The first time defaults to the last."""
        body = event().to_dict()
        assert body["metadata"] == {"name": "web-0.ff", "namespace": "prod"}
        assert body["lastTimestamp"] == body["firstTimestamp"]

    def test_patch_body(self) -> None:
        """Pitfall 31: a patch has count, lastTimestamp and, unless empty, the message."""
        patch = {"count": 3, "lastTimestamp": "1970-01-01T00:00:05Z"}
        assert event(count=3).to_patch() == {**patch, "message": "up"}
        assert event(count=3, message="").to_patch() == patch

    def test_cluster_scoped(self) -> None:
        """Pitfall 32: an event about a cluster-scoped object is in "default", and its reference has no namespace."""
        body = event(reference=ObjectReference(kind="Node", name="n")).to_dict()
        assert body["metadata"]["namespace"] == "default"
        assert body["involvedObject"] == {"kind": "Node", "name": "n"}

    def test_name(self) -> None:
        """A given name is kept. The default name consists of the object's name and the serial."""
        assert (event().name, event(name="mine").name) == ("web-0.ff", "mine")
        assert event(message="other").name == event().name

    def test_replace(self) -> None:
        """A changed copy keeps the name. The original is unchanged."""
        first = event()
        copies = [first.replace(count=2), first.replace(count=2)]
        assert [one.name for one in copies] == [first.name] * 2
        other = first.replace(message="m", count=9, first_time=1, name="n")
        assert (other.message, other.count, other.first_time, other.name) == ("m", 9, 1, "n")
        assert (first.message, first.count, first.first_time) == ("up", 1, 5 * SECOND)
        assert (other.time, other.serial, other.source) == (first.time, first.serial, first.source)
        assert (first.replace(message="").message, event(name="mine").replace(count=2).name) == ("", "mine")

    @given(message=TEXTS, reason=TEXTS, key=TEXTS, value=TEXTS, name=TEXTS)
    def test_always_json(self, message: str, reason: str, key: str, value: str, name: str) -> None:
        """Pitfall 28: both bodies are valid JSON in UTF-8 for any text."""
        made = event(
            message=message,
            reason=reason,
            annotations={key: value},
            labels={key: value},
            reference=ObjectReference(name=name, namespace=name, uid=name),
            source=EventSource(name, name),
        )
        for body in (made.to_dict(), made.to_patch()):
            assert json.loads(json.dumps(body, ensure_ascii=False).encode()) == body

    def test_from_dict(self) -> None:
        """A written body is read as the same event."""
        written = event(annotations={"a": "1"}, labels={"l": "2"}, count=4, first_time=3 * SECOND)
        assert Event.from_dict(written.to_dict()).to_dict() == written.to_dict()

    def test_from_other_s_body(self) -> None:
        """Bodies with only eventTime, as in events.k8s.io, and with null fields can be read."""
        body = {
            "metadata": {"name": "x", "annotations": None, "labels": None},
            "eventTime": "1970-01-01T00:00:05.000001Z",
            "firstTimestamp": None,
            "lastTimestamp": None,
            "count": None,
            "source": {},
            "involvedObject": None,
            "reportingComponent": "c",
            "reportingInstance": "h",
            "message": None,
        }
        read = Event.from_dict(body)
        assert (read.time, read.first_time, read.count, read.message) == (5_000_001_000, 5_000_001_000, 1, "")
        assert (read.source, read.name, read.reference) == (EventSource("c", "h"), "x", ObjectReference())
        assert (Event.from_dict({}).time, Event.from_dict({}).count) == (0, 1)

    def test_from_series(self) -> None:
        """Faults 15 and 16: count and last time of a core/v1 series take precedence over the fields beside it."""
        series = {"count": 7, "lastObservedTime": "1970-01-01T00:00:09.000001Z"}
        times = {"eventTime": "1970-01-01T00:00:05.000001Z", "firstTimestamp": None, "lastTimestamp": None}
        for beside in ({}, {"lastTimestamp": times["eventTime"], "count": 1}):
            read = Event.from_dict({**times, **beside, "series": series})
            assert (read.count, read.first_time, read.time) == (7, 5_000_001_000, 9_000_001_000)

    @pytest.mark.parametrize("module", ["kubernetes.client", "kubernetes.aio.client", "kubernetes_asyncio.client"])
    def test_from_model(self, module: str) -> None:
        """Fault 16: ``to_dict()`` of a client's model, in snake_case and with datetimes, is read completely."""
        client = pytest.importorskip(module, reason=f"{module} is not installed")
        noon = datetime(2026, 7, 24, 12, tzinfo=timezone.utc)
        model = client.CoreV1Event(
            metadata=client.V1ObjectMeta(name="web-0.17", namespace="prod", labels={"a": "b"}),
            involved_object=client.V1ObjectReference(kind="Pod", api_version="v1", name="web-0", resource_version="4"),
            first_timestamp=noon,
            last_timestamp=noon + timedelta(seconds=5),
            reporting_component="c",
            reporting_instance="h",
            series=client.CoreV1EventSeries(count=3, last_observed_time=noon + timedelta(seconds=9)),
        )
        read = Event.from_dict(model.to_dict())
        assert read.reference == ObjectReference(kind="Pod", api_version="v1", name="web-0", resource_version="4")
        assert (read.name, dict(read.labels), read.source) == ("web-0.17", {"a": "b"}, EventSource("c", "h"))
        assert (read.count, read.time - read.first_time) == (3, 9 * SECOND)

    def test_from_body_of_the_other_api(self) -> None:
        """Fault 16: a body of events.k8s.io/v1 is read completely, by the class of core/v1 too."""
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "web-0.17"},
            "regarding": {"kind": "Pod", "name": "web-0"},
            "note": "n",
            "reportingController": "c",
            "eventTime": "1970-01-01T00:00:05.000001Z",
            "deprecatedCount": 2,
        }
        read = Event.from_dict(body)
        assert (read.reference.name, read.message, read.source.component, read.count) == ("web-0", "n", "c", 2)
        assert (SeriesEvent.from_dict(body).note, SeriesEvent.from_dict(event().to_dict()).note) == ("n", "up")

    @pytest.mark.parametrize(
        "body",
        [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0"}},
            {"metadata": {"name": "web-0"}, "spec": {}, "status": {}},
            {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": "NotFound"},
            {"apiVersion": "v1", "kind": "EventList", "items": []},
            {"api_version": "calendar.example.com/v1", "kind": "Event"},
            [],
            [{"kind": "Event"}],
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("cls", [Event, SeriesEvent])
    def test_from_another_object(self, cls: type[Event], body: Any) -> None:
        """Fault 16: a Pod, a Status and a list are refused."""
        with pytest.raises(ValueError, match="not an Event object of the API"):
            cls.from_dict(body)

    def test_from_dict_bad_time(self) -> None:
        """A time without a zone is refused."""
        with pytest.raises(ValueError, match="zone"):
            Event.from_dict({"lastTimestamp": "2026-07-24T09:00:00"})

    @pytest.mark.parametrize(
        "body",
        [{"metadata": ["x"]}, {"count": [1]}, {"source": 7}, {"count": float("inf")}, {"metadata": {"labels": "x"}}],
        ids=repr,
    )
    def test_from_dict_of_no_event(self, body: Any) -> None:
        """A body with a value of the wrong type is refused."""
        with pytest.raises(ValueError, match="not an Event object of the API"):
            Event.from_dict(body)

    def test_repr(self) -> None:
        """The repr shows at most eighty characters of the message."""
        assert repr(event(message="x" * 80))[-86:] == f"x1 '{'x' * 80}'>"
        assert repr(event(message="x" * 81))[-86:] == f"x1 '{'x' * 77}...'>"
        assert repr(event()) == "<Event v1/Pod prod/web-0 Normal Started x1 'up'>"
        assert len(repr(event(message="x" * 10_000))) < 160
