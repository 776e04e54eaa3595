"""Decoding of typed objects: which fields a struct has, and how wrong ones are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "INT32",
    "INT64",
    "META",
    "MICRO_TIME",
    "STRING",
    "STRING_LIST",
    "STRING_MAP",
    "TIME",
    "DecodeError",
    "Struct",
    "decode",
]

_MICRO: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{6})(Z|[+-]\d\d:\d\d)\Z")
_SECONDS: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)\Z")

STRING: Final = "string"
INT32: Final = "int32"
INT64: Final = "int64"
TIME: Final = "v1.Time"
MICRO_TIME: Final = "v1.MicroTime"
STRING_MAP: Final = "map[string]string"
STRING_LIST: Final = "[]string"

Shape = "str | Struct"


class DecodeError(Exception):
    """A value that has the wrong shape, in the words of the server's decoder.

    Attributes:
        in_patch: The same in the words of its patch handler.
    """

    def __init__(self, message: str, in_patch: str = "") -> None:
        super().__init__(message)
        self.in_patch = in_patch or message


@dataclass(frozen=True)
class Struct:
    """The fields of a struct in the order in which they are written.

    Attributes:
        name: The bare name, which leads the texts of errors.
        fields: The shape of each field.
    """

    name: str
    fields: Mapping[str, str | Struct]


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
    """Read a struct from parsed JSON.

    Args:
        value: What the JSON holds.
        struct: What it should be.
        unknown: Collects the paths of the fields that the struct does not have; they are left away.
        path: Where in the whole object the struct stands.

    Returns:
        The fields that are set, in the struct's order; empty ones are left away.

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
        elif item is not None and (read := _field(item, shape, struct.name, f"{path}.{key}" if path else key, unknown)):
            found[key] = read
    return {key: found[key] for key in fields if key in found}


def _field(item: object, shape: str | Struct, owner: str, path: str, unknown: list[str]) -> Any:  # noqa: ANN401 - whatever JSON holds
    if shape is STRING:
        if isinstance(item, str):
            return item
    elif isinstance(shape, Struct):
        if isinstance(item, dict):
            return decode(item, shape, unknown, path)
    else:
        return _scalar(item, str(shape), owner, path)
    raise _wrong(item, shape if isinstance(shape, str) else f"v1.{shape.name}", f"{owner}.{path}")


def _scalar(item: object, shape: str, owner: str, path: str) -> Any:  # noqa: ANN401 - whatever JSON holds
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
    fraction = (match[2] or ".0")[:7]
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        return datetime.fromisoformat(f"{match[1]}{fraction.ljust(7, '0')}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise DecodeError(f'parsing time "{text}": out of range') from None


def _time(text: str) -> str:
    if (moment := _moment(text, _SECONDS.match(text))) is None:
        raise DecodeError(_unreadable(text, "2006-01-02T15:04:05Z07:00", "2006"))
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(text: str) -> str:
    if (moment := _moment(text, _MICRO.match(text))) is None:
        raise DecodeError(_unreadable(text, "2006-01-02T15:04:05.000000Z07:00", ".000000"))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _unreadable(text: str, layout: str, part: str) -> str:
    rest = text
    if part == ".000000":
        seconds = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text)
        rest, part = (text[seconds.end() :], part) if seconds else (text, "2006")
    return f'parsing time "{text}" as "{layout}": cannot parse "{rest}" as "{part}"'
