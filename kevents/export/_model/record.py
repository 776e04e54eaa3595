"""From an event as the API server tells it to what is written: event-exporter's shape with the key `kevents`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Final

from kevents.export._model.types import Position, Record

Body = dict[str, Any]

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
FORMAT: Final = 1
"""What `kevents.v` says: the format of what stands under the key `kevents`."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


def body_of(event: Body, verb: str, delta: int | None, cluster_name: str = "") -> Body:
    """Give what is written of a revision of an event; the event itself is used for it.

    An event is the same whether it was listed or watched: its kind and apiVersion, which only a watch tells, are left
    away as event-exporter does, and so are `managedFields`.

    Args:
        event: As core/v1 has it, parsed, with metadata.
        verb: `ADDED` or `MODIFIED`.
        delta: How many occurrences it stands for that no revision before it stood for; None if that cannot be known.
        cluster_name: What the cluster is called; event-exporter's `clusterName`.
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
    """Give what tells a revision from all others: `<uid>:<resourceVersion>`; without a uid, namespace and name."""
    uid = metadata.get("uid") or key_of(metadata)
    return f"{uid}:{metadata.get('resourceVersion', '')}"


def key_of(metadata: Body) -> str:
    """Give an event's namespace and name; it keeps them when it is created anew after it expired."""
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def count_of(event: Body) -> int:
    """Give how many occurrences an event stands for: those of its series, else its count, else one."""
    series = event.get("series")
    count = series.get("count") if isinstance(series, dict) and series else event.get("count")
    return count if isinstance(count, int) and count > 0 else 1


def time_of(event: Body) -> str:
    """Give when the latest occurrence was, as the event tells it; empty if it tells nothing (kubectl: Last Seen)."""
    series = event.get("series")
    found = (
        (series.get("lastObservedTime") if isinstance(series, dict) else None)
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or event["metadata"].get("creationTimestamp")
    )
    return str(found or "")


def gap_record(position: Position, rv: int, why: str, now: int, read_at: float, cluster_name: str = "") -> Record:
    """Give the record of a gap: what happened between two moments may be missing, and nobody can tell what.

    Args:
        position: How far the stream had been read before the gap. It is part of `kevents.id`, so that a gap written
            twice has the same id.
        rv: Where in the stream the gap stands.
        why: `expired` or `reset`.
        now: When it was found, in nanoseconds since the epoch.
        read_at: The same by the monotonic clock, in seconds.
        cluster_name: What the cluster is called.
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
    """Give a moment since the epoch as RFC 3339, UTC, in whole seconds."""
    return (_EPOCH + timedelta(seconds=nanoseconds // 1_000_000_000)).strftime("%Y-%m-%dT%H:%M:%SZ")
