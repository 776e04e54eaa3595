"""The columns and cells that kubectl prints."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kevents.testing._apiserver.kinds import Kind

__all__ = ["columns", "row"]

Object = dict[str, Any]

_NANOSECONDS: Final = 1_000_000_000
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "y": 365 * 86_400}
_STEPS: Final = (  # up to so many seconds, in this unit, and in that one besides
    (120, "s", ""),
    (600, "m", "s"),
    (3 * 3600, "m", ""),
    (8 * 3600, "h", "m"),
    (48 * 3600, "h", ""),
    (8 * 86_400, "d", "h"),
    (2 * 365 * 86_400, "d", ""),
    (8 * 365 * 86_400, "y", "d"),
)

_EVENT_COLUMNS: Final = (
    ("Last Seen", 0),
    ("Type", 0),
    ("Reason", 0),
    ("Object", 0),
    ("Subobject", 1),
    ("Source", 1),
    ("Message", 0),
    ("First Seen", 1),
    ("Count", 1),
    ("Name", 1),
)
_COLUMNS: Final = {
    "events": _EVENT_COLUMNS,
    "namespaces.": (("Name", 0), ("Status", 0), ("Age", 0)),
    "pods.": (("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0)),
    "configmaps.": (("Name", 0), ("Data", 0), ("Age", 0)),
}
_PLAIN: Final = (("Name", 0), ("Age", 0))


def columns(kind: Kind) -> list[Object]:
    """Give the definitions of a kind's columns; those of priority 1 are for wide output."""
    return [
        {
            "name": name,
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": f"{name} of the {kind.kind}",
            "priority": priority,
        }
        for name, priority in _COLUMNS.get(kind.bucket, _PLAIN)
    ]


def row(kind: Kind, stored: Object, now: int) -> list[object]:
    """Give the cells of an object.

    Args:
        kind: Its kind.
        stored: It.
        now: The wall clock in nanoseconds.
    """
    if kind.bucket == "events":
        return _event(stored, now)
    metadata = stored["metadata"]
    return [metadata.get("name", ""), *_middle(kind.bucket, stored), _age(metadata.get("creationTimestamp"), now)]


def _middle(bucket: str, stored: Object) -> list[object]:
    if bucket == "pods.":
        return _pod(stored)
    if bucket == "namespaces.":
        return [stored.get("status", {}).get("phase", "")]
    return [len(stored.get("data", {}))] if bucket == "configmaps." else []


def _pod(pod: Object) -> list[object]:
    containers = pod.get("spec", {}).get("containers", [])
    statuses = pod.get("status", {}).get("containerStatuses", [])
    ready = sum(bool(status.get("ready")) for status in statuses)
    restarts = sum(status.get("restartCount", 0) for status in statuses)
    return [f"{ready}/{len(containers)}", pod.get("status", {}).get("phase", ""), str(restarts)]


def _event(event: Object, now: int) -> list[object]:
    involved = event.get("involvedObject", {})
    kind, name = involved.get("kind", ""), involved.get("name", "")
    first = event.get("firstTimestamp") or event.get("eventTime")
    series = event.get("series")
    last = series.get("lastObservedTime") if series else event.get("lastTimestamp") or first
    count = series.get("count", 0) if series else event.get("count") or 1
    return [
        _age(last, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind.lower()}/{name}" if name else kind.lower(),
        involved.get("fieldPath", ""),
        _source(event),
        event.get("message", "").strip(),
        _age(first, now),
        count,
        event["metadata"].get("name", ""),
    ]


def _source(event: Object) -> str:
    source = event.get("source", {})
    component = source.get("component") or event.get("reportingComponent", "")
    host = source.get("host") or event.get("reportingInstance", "")
    return f"{component}, {host}" if host else component


def _age(text: str | None, now: int) -> str:
    if not text:
        return "<unknown>"
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    seconds = int(now / _NANOSECONDS - moment.astimezone(timezone.utc).timestamp())
    return _duration(seconds)


def _duration(seconds: int) -> str:
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    for limit, large, small in _STEPS:
        if seconds < limit:
            return _pair(seconds, large, small)
    return _pair(seconds, "y", "")


def _pair(seconds: int, large: str, small: str) -> str:
    whole, rest = divmod(seconds, _UNITS[large])
    part = rest // _UNITS[small] if small else 0
    return f"{whole}{large}{part}{small}" if part else f"{whole}{large}"
