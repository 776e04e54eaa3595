"""The shape of objects: typed decoding with the server's error texts, and the rules for names and labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.requests import Cause, field_invalid, field_required

if TYPE_CHECKING:
    from collections.abc import Mapping

_MICRO: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{6})(Z|[+-]\d\d:\d\d)\Z")
_SECONDS: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)([.,]\d+)?(Z|[+-]\d\d:\d\d)\Z")

STRING: Final = "string"
INT32: Final = "int32"
INT64: Final = "int64"
TIME: Final = "v1.Time"
MICRO_TIME: Final = "v1.MicroTime"
STRING_MAP: Final = "map[string]string"
STRING_LIST: Final = "[]string"

Shape = "str | Struct"


class DecodeError(Exception):
    """A value of the wrong type, with the text of the server's decoder.

    Attributes:
        in_patch: The text of the server's patch handler.
    """

    def __init__(self, message: str, in_patch: str = "") -> None:
        super().__init__(message)
        self.in_patch = in_patch or message


@dataclass(frozen=True)
class Struct:
    """A Go struct.

    Attributes:
        name: The name without a package, as in error texts.
        fields: The type of each field, in the order of the server's output.
        pointer: Whether fields of this type are pointers: an empty object is kept.
    """

    name: str
    fields: Mapping[str, str | Struct]
    pointer: bool = False


META: Final = Struct(
    "ObjectMeta",
    {
        "name": STRING,
        "generateName": STRING,
        "namespace": STRING,
        "selfLink": STRING,
        "uid": STRING,
        "resourceVersion": STRING,
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
    """Decode a struct from parsed JSON.

    Args:
        value: The JSON.
        struct: The expected type.
        unknown: Gets the paths of unknown fields, which are dropped.
        path: The path of the struct in the whole object.

    Returns:
        The fields that are set and, unless they are pointers, not empty, in the struct's order.

    Raises:
        DecodeError: A field has the wrong type, or a time cannot be read.
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


def path_segment_causes(name: str) -> list[Cause]:
    """Return the errors of a name that cannot be part of a path, the only rule for events in core/v1."""
    if name in {".", ".."}:
        return [field_invalid("metadata.name", name, f"may not be '{name}'")]
    return [field_invalid("metadata.name", name, f"may not contain '{char}'") for char in "/%" if char in name]


def object_name_causes(name: str, rule: str) -> list[Cause]:
    """Validate an object's name.

    Args:
        name: The name; empty if the object has neither `name` nor `generateName`.
        rule: `segment` for a part of a path, `subdomain` for most kinds, `label` for namespaces.

    Returns:
        The validation errors.
    """
    if not name:
        return [field_required("metadata.name", "name or generateName is required")]
    if causes := path_segment_causes(name):
        return causes
    if rule == "segment":
        return []
    pattern, limit, text = (
        (_LABEL, _LABEL_BYTES, _LABEL_TEXT) if rule == "label" else (_SUBDOMAIN, _SUBDOMAIN_BYTES, _SUBDOMAIN_TEXT)
    )
    causes = []
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
