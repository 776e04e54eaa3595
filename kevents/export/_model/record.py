"""The body of a record: event-exporter's shape with the key `kevents`, made from an event of the API server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from kevents._model.wire import parse_time
from kevents.export._model.types import Position, Record

Body = dict[str, Any]

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
FORMAT: Final = 1
"""The value of `kevents.v`: the version of the format."""

_TIMES: Final = (
    ("kevents", "time"),
    ("series", "lastObservedTime"),
    ("lastTimestamp",),
    ("eventTime",),
    ("firstTimestamp",),
    ("metadata", "creationTimestamp"),
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def body_of(event: Body, verb: str, delta: int | None, cluster_name: str = "") -> Body:
    """Turn an event into a record's body, in place.

    The body is the same for listed and watched events: `kind` and `apiVersion`, which only a watch sends, are removed
    as in event-exporter, and so are `managedFields`.

    Args:
        event: The decoded event of core/v1, with metadata.
        verb: `ADDED` or `MODIFIED`.
        delta: The number of occurrences since the last revision; None if it cannot be known.
        cluster_name: The cluster's name; event-exporter's `clusterName`.
    """
    event.pop("kind", None)
    event.pop("apiVersion", None)
    metadata = event["metadata"]
    metadata.pop("managedFields", None)
    involved = event.get("involvedObject")
    if not isinstance(involved, dict):
        involved = {}
    involved["deleted"] = False
    event["involvedObject"] = involved
    event["clusterName"] = cluster_name
    event["kevents"] = {
        "v": FORMAT,
        "id": id_of(metadata),
        "verb": verb,
        "time": time_of(event),
        "countDelta": delta,
    }
    return event


def id_of(metadata: Body) -> str:
    """Return the id of a revision: `<uid>:<resourceVersion>`; without a uid, namespace and name stand for it."""
    uid = metadata.get("uid") or key_of(metadata)
    return f"{uid}:{metadata.get('resourceVersion', '')}"


def key_of(metadata: Body) -> str:
    """Return an event's namespace and name, which stay the same if it is written again after it expired."""
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def count_of(event: Body) -> int:
    """Return the number of occurrences of an event: of its series, else its count, else 1."""
    series = event.get("series")
    for count in (series.get("count") if isinstance(series, dict) else None, event.get("count")):
        if isinstance(count, int) and count > 0:
            return count
    return 1


def time_of(event: Body) -> str:
    """Return the time of the latest occurrence; empty if the event has none (kubectl: Last Seen)."""
    series = event.get("series")
    found = (
        (series.get("lastObservedTime") if isinstance(series, dict) else None)
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or event["metadata"].get("creationTimestamp")
    )
    return str(found or "")


def event_time(body: Mapping[str, Any]) -> int:
    """Return the time of a record's latest occurrence, in nanoseconds since the epoch; 0 without any."""
    for keys in _TIMES:
        value: Any = body
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        try:
            return max(parse_time(value), 0)
        except (ValueError, OverflowError):
            continue
    return 0


def gap_record(position: Position, rv: int, why: str, now: int, read_at: float, cluster_name: str = "") -> Record:
    """Return the record of a gap: events between two times may be missing.

    Args:
        position: The stream's position before the gap. It is part of `kevents.id`, so that a gap written twice has the
            same id.
        rv: The gap's place in the stream.
        why: `expired` or `reset`.
        now: When it was found, in nanoseconds since the epoch.
        read_at: The same by the monotonic clock, in seconds.
        cluster_name: The cluster's name.
    """
    stream = position.stream
    found = moment(now)
    gap = {
        "why": why,
        "cluster": stream.cluster,
        "scope": stream.scope,
        "after": str(position.rv),
        "from": moment(position.time),
        "until": found,
    }
    identity = f"gap:{stream.cluster}:{stream.scope}:{position.rv}"
    body = {"clusterName": cluster_name, "kevents": {"v": FORMAT, "id": identity, "time": found, "gap": gap}}
    return Record(stream, rv, body, read_at)


def moment(nanoseconds: int) -> str:
    """Return a time since the epoch as RFC 3339, UTC, in whole seconds."""
    return (_EPOCH + timedelta(seconds=nanoseconds // 1_000_000_000)).strftime("%Y-%m-%dT%H:%M:%SZ")
