"""The shape of objects: typed decoding with the server's error texts, rules for names and labels, and events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from kevents.testing._apiserver.requests import Cause, field_immutable, field_invalid, field_required

_MICRO: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{6})(Z|[+-]\d\d:\d\d)\Z")
_SECONDS: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)([.,]\d+)?(Z|[+-]\d\d:\d\d)\Z")

STRING: Final = "string"
INT32: Final = "int32"
INT64: Final = "int64"
TIME: Final = "v1.Time"
MICRO_TIME: Final = "v1.MicroTime"
STRING_MAP: Final = "map[string]string"
STRING_LIST: Final = "[]string"

Object = dict[str, Any]


class DecodeError(Exception):
    """A value of the wrong type, with the text of the server's decoder."""

    def __init__(self, message: str, in_patch: str = "") -> None:
        super().__init__(message)
        self.in_patch = in_patch or message  # the text of the server's patch handler


@dataclass(frozen=True)
class Struct:
    """A Go struct."""

    name: str  # the name without a package, as in error texts
    fields: Mapping[str, str | Struct]  # the type of each field, in the order of the server's output
    pointer: bool = False  # whether fields of this type are pointers: an empty object is kept


def _strings(names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), STRING)


META: Final = Struct(
    "ObjectMeta",
    {
        **_strings("name generateName namespace selfLink uid resourceVersion"),
        "generation": INT64,
        "creationTimestamp": TIME,
        "deletionTimestamp": TIME,
        "deletionGracePeriodSeconds": INT64,
        "labels": STRING_MAP,
        "annotations": STRING_MAP,
        "ownerReferences": "[]v1.OwnerReference",
        "finalizers": STRING_LIST,
        "managedFields": "[]v1.ManagedFieldsEntry",
    },
)


def decode(value: object, struct: Struct, unknown: list[str], path: str = "") -> dict[str, Any]:
    """Decode a struct from parsed JSON: the set fields that are pointers or not empty, in the struct's order.

    Raises DecodeError if a field has the wrong type, or a time cannot be read.
    """
    if not isinstance(value, dict):
        raise _wrong(value, struct.name, path)
    fields = struct.fields
    found: dict[str, Any] = {}
    for key, item in value.items():
        shape = fields.get(key)
        if shape is None:
            unknown.append(f"{path}.{key}" if path else key)
        elif item is not None:
            read = _field(item, shape, struct.name, f"{path}.{key}" if path else key, unknown)
            if read or (isinstance(shape, Struct) and shape.pointer):
                found[key] = read
    return {key: found[key] for key in fields if key in found}


def _field(item: object, shape: str | Struct, owner: str, path: str, unknown: list[str]) -> Any:  # noqa: ANN401 - any JSON
    if shape is STRING:
        if isinstance(item, str):
            return item
    elif isinstance(shape, Struct):
        if isinstance(item, dict):
            return decode(item, shape, unknown, path)
    else:
        return _scalar(item, str(shape), owner, path)
    raise _wrong(item, shape if isinstance(shape, str) else f"v1.{shape.name}", f"{owner}.{path}")


def _scalar(item: object, shape: str, owner: str, path: str) -> Any:  # noqa: ANN401 - any JSON
    if shape in {INT32, INT64}:
        bits = 31 if shape == INT32 else 63
        if isinstance(item, int) and not isinstance(item, bool) and -(1 << bits) <= item < 1 << bits:
            return item
        number = f" {item}" if isinstance(item, int | float) and not isinstance(item, bool) else ""
        raise _wrong(item, shape, f"{owner}.{path}", number)
    if shape == STRING_MAP:
        return _string_map(item, f"{owner}.{path}")
    if shape.startswith("[]"):
        return _list(item, shape, f"{owner}.{path}")
    if not isinstance(item, str):
        raise _wrong(item, STRING, f"{owner}.{path}")
    return _micro_time(item) if shape == MICRO_TIME else _time(item)


def _list(item: object, shape: str, path: str) -> list[Any]:
    if not isinstance(item, list):
        raise _wrong(item, shape, path)
    kind: type = str if shape == STRING_LIST else dict
    for value in item:
        if not isinstance(value, kind):
            raise _wrong(value, shape[2:], path)
    return item


def _string_map(item: object, path: str) -> dict[str, str]:
    if not isinstance(item, dict):
        raise _wrong(item, STRING_MAP, path)
    for value in item.values():
        if not isinstance(value, str | None):
            raise _wrong(value, STRING, path)
    return {key: item[key] or "" for key in sorted(item)}


def _wrong(item: object, wanted: str, path: str, number: str = "") -> DecodeError:
    if isinstance(item, bool):
        found = "bool"
    elif isinstance(item, int | float):
        found = "number" + number
    else:
        found = "string" if isinstance(item, str) else "array" if isinstance(item, list) else "object"
    in_patch = {"string": f"unrecognized type: {wanted}", "number": f"cannot convert int64 to {wanted}"}.get(found, "")
    return DecodeError(f"json: cannot unmarshal {found} into Go struct field {path} of type {wanted}", in_patch)


def _moment(text: str, match: re.Match[str] | None) -> datetime | None:
    if match is None:
        return None
    fraction = (match[2] or ".0").replace(",", ".")[:7]
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        return datetime.fromisoformat(f"{match[1]}{fraction.ljust(7, '0')}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError) as error:
        part = str(error).partition(" ")[0]  # Python's text begins with the part, such as "day is out of range"
        raise DecodeError(f'parsing time "{text}": {part} out of range') from None


def _time(text: str) -> str:
    if (moment := _moment(text, _SECONDS.match(text))) is None:
        raise DecodeError(_unreadable(text, "2006-01-02T15:04:05Z07:00", "2006"))
    return moment.replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def _micro_time(text: str) -> str:
    if (moment := _moment(text, _MICRO.match(text))) is None:
        raise DecodeError(_unreadable(text, "2006-01-02T15:04:05.000000Z07:00", ".000000"))
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _unreadable(text: str, layout: str, part: str) -> str:
    rest = text
    if part == ".000000":
        seconds = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?", text)
        rest = text[seconds.end() :] if seconds else text
        part = "2006" if seconds is None else "Z07:00" if seconds[1] else part
    return f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{part}"'


_QUALIFIED: Final = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_VALUE: Final = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?\Z")
_LABEL_BYTES: Final = 63
_SUBDOMAIN_BYTES: Final = 253
_ANNOTATIONS_BYTES: Final = 262_144

_NAME_PART_TEXT: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_SUBDOMAIN_TEXT: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def qualified_name_faults(value: str) -> list[str]:
    """Return the reasons why `value` is no qualified name, such as a label key."""
    prefix, slash, name = value.rpartition("/")
    faults = []
    if slash and not prefix:
        faults.append("prefix part must be non-empty")
    elif slash and not _SUBDOMAIN.match(prefix):
        faults.append(f"prefix part {_SUBDOMAIN_TEXT}")
    if not name:
        faults.append("name part must be non-empty")
    elif len(name) > _LABEL_BYTES:
        faults.append(f"name part must be no more than {_LABEL_BYTES} bytes")
    if not _QUALIFIED.match(name):
        faults.append(_NAME_PART_TEXT)
    return faults


def object_name_causes(name: str, rule: str) -> list[Cause]:
    """Validate an object's name."""
    if not name:
        return [field_required("metadata.name", "name or generateName is required")]
    if name in {".", ".."}:
        return [field_invalid("metadata.name", name, f"may not be '{name}'")]
    causes = [field_invalid("metadata.name", name, f"may not contain '{char}'") for char in "/%" if char in name]
    if causes or rule == "segment":  # the name of an event in core/v1 must only be a part of a path
        return causes
    pattern, limit, text = (
        (_LABEL, _LABEL_BYTES, _LABEL_TEXT) if rule == "label" else (_SUBDOMAIN, _SUBDOMAIN_BYTES, _SUBDOMAIN_TEXT)
    )
    if len(name) > limit:
        causes.append(field_invalid("metadata.name", name, f"must be no more than {limit} characters"))
    if not pattern.match(name):
        causes.append(field_invalid("metadata.name", name, text))
    return causes


def metadata_causes(metadata: dict[str, Any]) -> list[Cause]:
    """Validate labels, annotations, finalizers and owner references."""
    causes = []
    for key, value in metadata.get("labels", {}).items():
        causes += [field_invalid("metadata.labels", key, fault) for fault in qualified_name_faults(key)]
        if len(value) > _LABEL_BYTES:
            causes.append(field_invalid("metadata.labels", value, f"must be no more than {_LABEL_BYTES} bytes"))
        if not _VALUE.match(value):
            causes.append(field_invalid("metadata.labels", value, _VALUE_TEXT))
    annotations = metadata.get("annotations", {})
    for key in annotations:
        causes += [field_invalid("metadata.annotations", key, fault) for fault in qualified_name_faults(key.lower())]
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES:
        note = f"Too long: may not be more than {_ANNOTATIONS_BYTES} bytes"
        causes.append(Cause("FieldValueTooLong", note, "metadata.annotations"))
    for name in metadata.get("finalizers", ()):
        causes += [field_invalid("metadata.finalizers", name, fault) for fault in qualified_name_faults(name)]
    for owner in metadata.get("ownerReferences", ()):
        for key, subject in (("apiVersion", "version "), ("kind", ""), ("name", ""), ("uid", "")):
            if not owner.get(key):
                causes.append(field_invalid(f"metadata.ownerReferences.{key}", "", f"{subject}must not be empty"))
    return causes


# -- events: the stored form, its views in both API versions, and validation

REFERENCE: Final = Struct("ObjectReference", _strings("kind namespace name uid apiVersion resourceVersion fieldPath"))
RELATED: Final = Struct("ObjectReference", REFERENCE.fields, pointer=True)
SOURCE: Final = Struct("EventSource", _strings("component host"))
SERIES: Final = Struct("EventSeries", {"count": INT32, "lastObservedTime": MICRO_TIME}, pointer=True)

CORE: Final = Struct(
    "Event",
    {
        **_strings("kind apiVersion"),
        "metadata": META,
        "involvedObject": REFERENCE,
        **_strings("reason message"),
        "source": SOURCE,
        "firstTimestamp": TIME,
        "lastTimestamp": TIME,
        "count": INT32,
        "type": STRING,
        "eventTime": MICRO_TIME,
        "series": SERIES,
        "action": STRING,
        "related": RELATED,
        **_strings("reportingComponent reportingInstance"),
    },
)
EVENTS: Final = Struct(
    "Event",
    {
        **_strings("kind apiVersion"),
        "metadata": META,
        "eventTime": MICRO_TIME,
        "series": SERIES,
        **_strings("reportingController reportingInstance action reason"),
        "regarding": REFERENCE,
        "related": RELATED,
        **_strings("note type"),
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
_IMMUTABLE: Final = [
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
]
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
    """Validate a new event; events.k8s.io is stricter than core/v1."""
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
