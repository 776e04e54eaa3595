"""Events: the stored form, its views in both API versions, and validation."""

from __future__ import annotations

import re
from typing import Any, Final

from kevents.testing._apiserver.requests import Cause, field_immutable, field_invalid, field_required
from kevents.testing._apiserver.schema import (
    INT32,
    META,
    MICRO_TIME,
    STRING,
    TIME,
    Struct,
    qualified_name_faults,
)

Object = dict[str, Any]

REFERENCE: Final = Struct(
    "ObjectReference",
    dict.fromkeys(("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"), STRING),
)
RELATED: Final = Struct("ObjectReference", REFERENCE.fields, pointer=True)
SOURCE: Final = Struct("EventSource", {"component": STRING, "host": STRING})
SERIES: Final = Struct("EventSeries", {"count": INT32, "lastObservedTime": MICRO_TIME}, pointer=True)

CORE: Final = Struct(
    "Event",
    {
        "kind": STRING,
        "apiVersion": STRING,
        "metadata": META,
        "involvedObject": REFERENCE,
        "reason": STRING,
        "message": STRING,
        "source": SOURCE,
        "firstTimestamp": TIME,
        "lastTimestamp": TIME,
        "count": INT32,
        "type": STRING,
        "eventTime": MICRO_TIME,
        "series": SERIES,
        "action": STRING,
        "related": RELATED,
        "reportingComponent": STRING,
        "reportingInstance": STRING,
    },
)
EVENTS: Final = Struct(
    "Event",
    {
        "kind": STRING,
        "apiVersion": STRING,
        "metadata": META,
        "eventTime": MICRO_TIME,
        "series": SERIES,
        "reportingController": STRING,
        "reportingInstance": STRING,
        "action": STRING,
        "reason": STRING,
        "regarding": REFERENCE,
        "related": RELATED,
        "note": STRING,
        "type": STRING,
        "deprecatedSource": SOURCE,
        "deprecatedFirstTimestamp": TIME,
        "deprecatedLastTimestamp": TIME,
        "deprecatedCount": INT32,
    },
)

TO_CORE: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_CORE_ALWAYS: Final[Object] = {
    "involvedObject": {},
    "source": {},
    "firstTimestamp": None,
    "lastTimestamp": None,
    "eventTime": None,
    "reportingComponent": "",
    "reportingInstance": "",
}
_EVENTS_ALWAYS: Final[Object] = {
    "eventTime": None,
    "regarding": {},
    "deprecatedSource": {},
    "deprecatedFirstTimestamp": None,
    "deprecatedLastTimestamp": None,
}
_IMMUTABLE: Final = (
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "reason",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingController",
    "reportingInstance",
)
_GO_NAME: Final = re.compile("Api|Uid")
_MESSAGE_BYTES: Final = 1024
_SERIES_MINIMUM: Final = 2
_SHORT_BYTES: Final = 128
_ZERO_TIMES: Final = ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z")


def from_view(view: Object, group: str) -> Object:
    """Return the stored form: the field names of core/v1, and only the fields that are set."""
    if not group:
        return view
    return {TO_CORE.get(key, key): value for key, value in view.items()}


def to_view(stored: Object, group: str, api_version: str) -> Object:
    """Return the event in the form of an API group, its fields in the server's order."""
    head: Object = {"kind": "Event", "apiVersion": api_version}
    if not group:
        known = {**_CORE_ALWAYS, **_counted(stored, "")}
        return head | {key: known[key] for key in CORE.fields if key in known}
    known = {**_EVENTS_ALWAYS, **_counted(stored, group)}
    return head | {
        key: value
        for key in EVENTS.fields
        if (value := known.get(TO_CORE.get(key, key), known.get(key, _MISSING))) is not _MISSING
    }


def _counted(event: Object, group: str) -> Object:
    if (series := event.get("series")) is None:
        return event
    count = {"count": series.get("count", 0)} if group or "count" in series else {}  # core/v1 omits 0
    return {**event, "series": {**count, "lastObservedTime": series.get("lastObservedTime")}}


def without_zero_times(event: Object) -> Object:
    """Return an event without Go's zero times, which the server accepts as set and shows as null."""
    event = {key: value for key, value in event.items() if value not in _ZERO_TIMES}
    if series := event.get("series"):
        event["series"] = {key: value for key, value in series.items() if value not in _ZERO_TIMES}
    return event


_MISSING: Final = object()


def validate_create(event: Object, group: str, metadata: list[Cause]) -> list[Cause]:
    """Validate a new event; events.k8s.io is stricter than core/v1.

    Args:
        event: The event in its stored form.
        group: The API group of the request.
        metadata: The errors of its metadata; core/v1 reports them only if there are no others.

    Returns:
        The validation errors.
    """
    causes = _validate(event, group)
    if not group:
        return causes or metadata
    causes += metadata
    causes += _series(event.get("series"))
    if not event.get("eventTime"):
        causes.append(field_required("eventTime"))
    if (kind := event.get("type", "")) not in {"Normal", "Warning"}:
        causes.append(field_invalid("type", "", f"has invalid value: {kind}"))
    causes += [
        field_invalid(name, "", "needs to be unset")
        for name in ("firstTimestamp", "lastTimestamp", "count", "source")
        if event.get(name)
    ]
    return causes


def validate_update(new: Object, old: Object, group: str) -> list[Cause]:
    """Validate a changed event: through events.k8s.io only series and metadata may change."""
    causes = _validate(new, group)
    if not group:
        return causes
    if new.get("series") != old.get("series"):
        causes += _series(new.get("series"))
    for name in _IMMUTABLE:
        key = "reportingComponent" if name == "reportingController" else name
        if new.get(key) != old.get(key):
            causes.append(_changed(name, new.get(key)))
    return causes


def _changed(name: str, value: object) -> Cause:
    if isinstance(value, dict):
        fields = REFERENCE.fields if name in {"involvedObject", "related"} else SOURCE.fields
        pairs = ",".join(f'"{_go_name(key)}":"{value.get(key, "")}"' for key in fields)
        return Cause("FieldValueInvalid", f"Invalid value: {{{pairs}}}: field is immutable", name)
    if isinstance(value, int):
        return Cause("FieldValueInvalid", f"Invalid value: {value}: field is immutable", name)
    return field_immutable(name, str(value or ""))


def _go_name(key: str) -> str:
    return _GO_NAME.sub(lambda match: match[0].upper(), key[0].upper() + key[1:])


def _validate(event: Object, group: str) -> list[Cause]:
    namespace = event["metadata"].get("namespace", "")
    involved = event.get("involvedObject", {}).get("namespace", "")
    causes: list[Cause] = []
    if not event.get("eventTime"):
        if namespace not in {involved or "default", involved}:
            causes.append(field_invalid("involvedObject.namespace", involved, "does not match event.namespace"))
        return causes
    if not involved and namespace not in {"default", "kube-system"}:
        causes.append(field_invalid("involvedObject.namespace", involved, "does not match event.namespace"))
    causes += _controller(event.get("reportingComponent", ""), group)
    for name in ("reportingInstance", "action", "reason"):
        causes += _short(name, event.get(name, ""))
    if len(event.get("message", "").encode()) > _MESSAGE_BYTES:
        causes.append(field_invalid("message", "", f"can have at most {_MESSAGE_BYTES} characters"))
    return causes


def _controller(value: str, group: str) -> list[Cause]:
    field = "reportingController" if group else "reportingComponent"
    missing = [] if value else [field_required(field)]
    return missing + [field_invalid(field, value, fault) for fault in qualified_name_faults(value)]


def _short(field: str, value: str) -> list[Cause]:
    if not value:
        return [field_required(field)]
    if len(value.encode()) > _SHORT_BYTES:
        return [field_invalid(field, "", f"can have at most {_SHORT_BYTES} characters")]
    return []


def _series(series: Object | None) -> list[Cause]:
    if series is None:
        return []
    causes = []
    if series.get("count", 0) < _SERIES_MINIMUM:
        causes.append(field_invalid("series.count", "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        causes.append(field_required("series.lastObservedTime"))
    return causes
