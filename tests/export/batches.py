"""Batches for the tests of sinks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kevents.export import Batch, Position, Record, Stream

CLUSTER: Final = "6f1c2d34-0000-4000-8000-00000000c1a5"
STREAM: Final = Stream(CLUSTER)
AT: Final = 1_784_883_600_000_000_000  # 2026-07-24T09:00:00Z
SECOND: Final = 1_000_000_000


def body(rv: int, message: str = "", **fields: Any) -> dict[str, Any]:
    """Return an event body as the source builds it."""
    return {
        "metadata": {
            "name": f"web-0.{rv:x}",
            "namespace": "prod",
            "uid": f"uid-{rv}",
            "resourceVersion": str(rv),
            "creationTimestamp": "2026-07-24T09:00:00Z",
        },
        "involvedObject": {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": "prod",
            "name": "web-0",
            "uid": "pod-1",
            "resourceVersion": "7",
            "fieldPath": "spec.containers{app}",
        },
        "type": "Warning",
        "reason": "BackOff",
        "message": message or f"message {rv}",
        "source": {"component": "kubelet", "host": "node-1"},
        "firstTimestamp": "2026-07-24T09:00:00Z",
        "lastTimestamp": "2026-07-24T09:00:05Z",
        "count": 3,
        "eventTime": None,
        "reportingComponent": "kubelet",
        "reportingInstance": "node-1",
        "kevents": {"v": 1, "id": f"uid-{rv}:{rv}", "verb": "ADDED", "countDelta": 1},
        **fields,
    }


def record(rv: int, message: str = "", stream: Stream = STREAM, **fields: Any) -> Record:
    """Return a record of a stream."""
    return Record(stream, rv, body(rv, message, **fields), 0.0)


def position(rv: int, stream: Stream = STREAM, seconds: float = 0.0) -> Position:
    """Return a position whose time is `seconds` after 09:00."""
    return Position(stream, rv, AT + int(seconds * SECOND))


def batch(rvs: Iterable[int], stream: Stream = STREAM, upto: int | None = None, seconds: float = 0.0) -> Batch:
    """Return a batch of records with these resourceVersions. Its position is the last of them, or `upto`."""
    records = [record(rv, stream=stream) for rv in rvs]
    return Batch(records, position(records[-1].rv if upto is None else upto, stream, seconds))


def ids(bodies: Iterable[dict[str, Any]]) -> list[str]:
    """Return the record ids of the bodies."""
    return [found["kevents"]["id"] for found in bodies]


def ids_of(rvs: Iterable[int]) -> list[str]:
    """Return the ids of the records with these resourceVersions."""
    return [f"uid-{rv}:{rv}" for rv in rvs]
