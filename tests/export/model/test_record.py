"""From an event to the written record: event-exporter's format with the additional key `kevents`."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from kevents.export import Position, Stream
from kevents.export._model.types import body_of, count_of, gap_record, id_of, key_of, time_of

STREAM = Stream("c-1", "prod")
NOW = 1_784_883_600_000_000_000  # 2026-07-24T09:00:00Z
WRITTEN = "2026-07-24T09:00:00Z"


def event(**fields: Any) -> dict[str, Any]:
    """Return an event as a real server sends it in a watch."""
    body = {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {
            "name": "web-0.18a2",
            "namespace": "prod",
            "uid": "u-1",
            "resourceVersion": "71",
            "creationTimestamp": WRITTEN,
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:count": {}}}],
        },
        "involvedObject": {"kind": "Pod", "namespace": "prod", "name": "web-0", "uid": "p-1", "apiVersion": "v1"},
        "reason": "BackOff",
        "message": "Back-off restarting failed container",
        "source": {"component": "kubelet", "host": "node-1"},
        "firstTimestamp": WRITTEN,
        "lastTimestamp": "2026-07-24T09:05:00Z",
        "count": 4,
        "type": "Warning",
        "eventTime": None,
        "reportingComponent": "kubelet",
        "reportingInstance": "node-1",
    }
    return {**body, **fields}


def test_shape() -> None:
    """A record has the same fields as event-exporter's, and additionally only `kevents`."""
    # Go's EnhancedEvent: corev1.Event inlined without TypeMeta and managedFields, clusterName, and an involvedObject
    # with `deleted`. Go's nil is null here, and fields that Go omits when empty are absent.
    exported = json.loads(
        """{
        "metadata": {"name": "web-0.18a2", "namespace": "prod", "uid": "u-1", "resourceVersion": "71",
                     "creationTimestamp": "2026-07-24T09:00:00Z"},
        "reason": "BackOff", "message": "Back-off restarting failed container",
        "source": {"component": "kubelet", "host": "node-1"},
        "firstTimestamp": "2026-07-24T09:00:00Z", "lastTimestamp": "2026-07-24T09:05:00Z", "count": 4,
        "type": "Warning", "eventTime": null, "reportingComponent": "kubelet", "reportingInstance": "node-1",
        "clusterName": "blue",
        "involvedObject": {"kind": "Pod", "namespace": "prod", "name": "web-0", "uid": "p-1", "apiVersion": "v1",
                           "deleted": false}}"""
    )
    body = body_of(event(), "MODIFIED", 3, "blue")
    own = body.pop("kevents")
    assert body == exported
    assert own == {"v": 1, "id": "u-1:71", "verb": "MODIFIED", "time": "2026-07-24T09:05:00Z", "countDelta": 3}


def test_list_and_watch() -> None:
    """A listed revision, which has no kind, and a watched revision give the same record."""
    watched = event()
    listed = copy.deepcopy(watched)
    del listed["kind"], listed["apiVersion"]
    assert body_of(listed, "ADDED", 1) == body_of(watched, "ADDED", 1)


@pytest.mark.parametrize("involved", [None, {}])
def test_no_object(involved: object) -> None:
    """An event without an object gets an involved object with `deleted`."""
    assert body_of(event(involvedObject=involved), "ADDED", 1)["involvedObject"] == {"deleted": False}


def test_no_uid() -> None:
    """An event without a uid is identified by namespace and name."""
    metadata = {"namespace": "prod", "name": "a", "resourceVersion": "7"}
    assert (id_of(metadata), key_of(metadata)) == ("prod/a:7", "prod/a")
    assert id_of({}) == "/:"


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"count": 4}, 4),
        ({"count": 0}, 1),
        ({"count": None}, 1),
        ({"count": -3}, 1),
        ({"count": 4, "series": {"count": 9}}, 9),
        ({"count": 4, "series": None}, 4),
        ({"count": None, "series": {}}, 1),
        ({"count": "x"}, 1),
    ],
    ids=str,
)
def test_count(fields: dict[str, Any], count: int) -> None:
    """The series count takes precedence over the count. The default is 1."""
    assert count == count_of(event(**fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"series": {"lastObservedTime": "s"}}, "s"),
        ({}, "2026-07-24T09:05:00Z"),
        ({"lastTimestamp": None, "eventTime": "e"}, "e"),
        ({"lastTimestamp": None, "firstTimestamp": "f"}, "f"),
        ({"lastTimestamp": None, "firstTimestamp": None}, WRITTEN),
        ({"lastTimestamp": None, "firstTimestamp": None, "metadata": {}}, ""),
    ],
    ids=str,
)
def test_time(fields: dict[str, Any], expected: str) -> None:
    """The time is that of the latest occurrence, from whichever field has it."""
    assert time_of(event(**fields)) == expected


def test_gap() -> None:
    """A gap contains its times, stream, last version and reason. Its id is stable."""
    position = Position(STREAM, 70, NOW)
    record = gap_record(position, 71, "expired", NOW + 7_200_000_000_000, 5.0, "blue")
    gap = {
        "why": "expired",
        "cluster": "c-1",
        "scope": "prod",
        "after": "70",
        "from": "2026-07-24T09:00:00Z",
        "until": "2026-07-24T11:00:00Z",
    }
    own = {"v": 1, "id": "gap:c-1:prod:70", "time": "2026-07-24T11:00:00Z", "gap": gap}
    assert {"clusterName": "blue", "kevents": own} == record.body
    assert (record.stream, record.rv, record.read_at, record.id) == (STREAM, 71, 5.0, "gap:c-1:prod:70")
    assert record.id == gap_record(position, 71, "expired", NOW + 9, 6.0).id
