"""A recorder call makes the same event as in client-go v0.36.3: every recorded case is replayed."""

from __future__ import annotations

import json
import logging
import re
import uuid
from pathlib import Path
from typing import Any, Final

import pytest
from kubernetes import client

from kevents import DropReason, Event, EventBroadcaster, EventSource, ObjectReference
from kevents._model.wire import format_time

pytestmark = pytest.mark.wire

TRACE: Final = Path(__file__).parents[1] / "traces" / "recorder" / "recorder.json"
CASES: Final = {case["name"]: case for case in json.loads(TRACE.read_text(encoding="utf-8"))}
NOW: Final = 1_784_883_600_123_456_789
REFERENCE: Final = {"apiVersion": "api_version", "fieldPath": "field_path", "resourceVersion": "resource_version"}

# client-go names these by a bare UUID; here the object stays recognisable (record-semantics.md, section 8).
OUR_NAMES: Final = {
    "upper-case-name": r"rack\.7-slot-3-[0-9a-f]{8}\.<hex>",
    "long-name": r"a{227}-[0-9a-f]{8}\.<hex>",
}
OUR_TYPES: Final = {"Error": "Warning", "normal": "Normal"}


def metadata_of(body: dict[str, Any]) -> client.V1ObjectMeta:
    """The metadata of an object, as a model."""
    fields = {"resource_version": "resourceVersion", "name": "name", "namespace": "namespace", "uid": "uid"}
    metadata = body["metadata"]
    texts = {ours: metadata.get(theirs) for ours, theirs in fields.items()}
    return client.V1ObjectMeta(**texts, labels=metadata.get("labels"), annotations=metadata.get("annotations"))


def subject(case: dict[str, Any]) -> object:
    """The object of a case in its usual Python form.

    With a kind and metadata it is a manifest. Without a kind, where client-go looks up the type, it is a model of the
    official client. Without metadata it is a reference.
    """
    body = case["object"]
    if "metadata" not in body:
        return ObjectReference(**{REFERENCE.get(key, key): value for key, value in body.items()})
    if "kind" in body:
        return body
    if "items" in body:
        return client.V1PodList(
            items=[], metadata=client.V1ListMeta(resource_version=body["metadata"]["resourceVersion"])
        )
    model = client.V1Node if case["name"] == "cluster-scoped" else client.V1Pod
    return model(metadata=metadata_of(body))


def recorded(case: dict[str, Any]) -> tuple[list[Event], EventBroadcaster]:
    """The events that a watcher sees when a case is recorded."""
    seen: list[Event] = []
    broadcaster = EventBroadcaster(clock=lambda: NOW)
    with broadcaster:
        broadcaster.start_event_watcher(seen.append)
        recorder = broadcaster.new_recorder(EventSource(**case["source"]))
        call = (subject(case), case["type"], case["reason"], case["message"])
        if "annotations" in case:
            recorder.annotated_eventf(call[0], case["annotations"], *call[1:])
        else:
            recorder.event(*call)
        assert broadcaster.flush(10)
    return seen, broadcaster


def shape(name: str, serial: int) -> str:
    """A name without its time or random part."""
    with_hex = re.sub(rf"\.{serial:x}$", ".<hex>", name)
    if with_hex == name and uuid.UUID(name).version == 4:
        return "<uuid>"
    return with_hex


@pytest.mark.parametrize("case", [case for case in CASES.values() if case["queued"]], ids=lambda case: case["name"])
def test_event(case: dict[str, Any]) -> None:
    """A watcher receives client-go's event, including its name."""
    (event,), _ = recorded(case)
    body = event.to_dict()
    name = body["metadata"]["name"]
    assert NOW == event.time <= event.serial
    found = shape(name, event.serial)
    if case["name"] in OUR_NAMES:
        assert re.fullmatch(OUR_NAMES[case["name"]], found), name
        assert len(name) <= 253
    else:
        assert found == case["name_shape"]
    assert {key: body.pop(key) for key in ("apiVersion", "kind")} == {"apiVersion": "v1", "kind": "Event"}
    assert body == expected(case, name)


def expected(case: dict[str, Any], name: str) -> dict[str, Any]:
    """The event of the trace with its placeholders filled in. Its null eventTime is left out."""
    text = json.dumps(case["event"]).replace("<now>", format_time(NOW)).replace("<name>", name)
    body: dict[str, Any] = json.loads(text)
    assert body.pop("eventTime") is None
    return body


@pytest.mark.parametrize(
    "case", [case for case in CASES.values() if case["type"] in OUR_TYPES], ids=lambda case: case["name"]
)
def test_types_of_ours(case: dict[str, Any]) -> None:
    """Fault 22: kevents records types in another case and types for errors, which client-go refuses."""
    (event,), _ = recorded(case)
    assert (case["queued"], event.type) == (False, OUR_TYPES[case["type"]])


@pytest.mark.parametrize(
    "case",
    [case for case in CASES.values() if not (case["queued"] or case["type"] in OUR_TYPES)],
    ids=lambda case: case["name"],
)
def test_refused(case: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """An event that client-go does not queue is refused here, too: logged and, unlike there, counted."""
    with caplog.at_level(logging.WARNING, "kevents"):
        seen, broadcaster = recorded(case)
    statistics = broadcaster.statistics()
    assert (seen, statistics.recorded, statistics.dropped) == ([], 1, {DropReason.INVALID_TYPE: 1})
    assert f"event type {case['type']!r} is not supported" in caplog.text


def test_every_case() -> None:
    """All cases of the trace are loaded, including those that differ on purpose."""
    assert len(CASES) == 14
    assert OUR_NAMES.keys() < CASES.keys()


def test_none(caplog: pytest.LogCaptureFixture) -> None:
    """None as the object is logged and counted as an invalid reference. Nothing is raised."""
    with caplog.at_level(logging.WARNING, "kevents"), EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(lambda event: None)
        broadcaster.new_recorder("c").event(None, "Normal", "Reason", "m")
        assert broadcaster.statistics().dropped == {DropReason.INVALID_REFERENCE: 1}
    assert "None" in caplog.text


@pytest.mark.parametrize("api_version", ["v1", "events.k8s.io/v1"])
def test_events_about_events(api_version: str) -> None:
    """An event about an Event is refused, unlike in client-go, because it could cause itself (section 8)."""
    event = {"apiVersion": api_version, "kind": "Event", "metadata": {"name": "e.1", "namespace": "default"}}
    with EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(lambda event: None)
        broadcaster.new_recorder("c").event(event, "Normal", "Reason", "m")
        assert broadcaster.statistics().dropped == {DropReason.INVALID_REFERENCE: 1}
