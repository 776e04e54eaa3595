"""Field and label selectors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.status import bad_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from kevents.testing._apiserver.kinds import Kind

__all__ = ["Predicate", "selector"]

Object = dict[str, Any]
Predicate = "Callable[[Object], bool]"

_TERM: Final = re.compile(r"\s*([^=!]+?)\s*(!=|==|=)(.*)", re.DOTALL)
_SET: Final = re.compile(r"\s*(\S+)\s+(in|notin)\s*\(([^)]*)\)\s*\Z")
_KEY: Final = re.compile(r"\s*(!?)\s*([-A-Za-z0-9_./]+)\s*\Z")
_EQUAL: Final = re.compile(r"\s*([-A-Za-z0-9_./]+)\s*(!=|==|=)\s*([-A-Za-z0-9_.]*)\s*\Z")
_ORDER: Final = re.compile(r"\s*([-A-Za-z0-9_./]+)\s*([<>])\s*(\d+)\s*\Z")
_NUMBER: Final = re.compile(r"\d+\Z")
_COMMAS: Final = re.compile(r",(?![^(]*\))")
_UNESCAPED: Final = re.compile(r"(?<!\\),")


def selector(kind: Kind, fields: str, labels: str) -> Callable[[Object], bool] | None:
    """Read the selectors of a request.

    Args:
        kind: Whose objects are selected.
        fields: The `fieldSelector`, or empty.
        labels: The `labelSelector`, or empty.

    Returns:
        A predicate over stored objects; None when everything is selected.

    Raises:
        APIError: 400 for a selector that cannot be understood.
    """
    tests = [_field_test(kind, term) for term in _UNESCAPED.split(fields) if term] if fields else []
    tests += [_label_test(term) for term in _COMMAS.split(labels) if term.strip()] if labels else []
    if not tests:
        return None
    return lambda stored: all(test(stored) for test in tests)


def _field_test(kind: Kind, term: str) -> Callable[[Object], bool]:
    if (match := _TERM.match(term)) is None:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    name, operator, value = match[1], match[2], re.sub(r"\\([\\,=])", r"\1", match[3])
    if name not in kind.field_labels and not _common(kind, name):
        raise bad_request(f"field label not supported: {name}")
    path = _path(name)
    wanted = operator != "!="
    return lambda stored: (_value(stored, path) == value) is wanted


def _common(kind: Kind, name: str) -> bool:
    return name == "metadata.name" or (name == "metadata.namespace" and kind.namespaced)


def _path(name: str) -> list[str]:
    first, *rest = name.split(".")
    if first == "regarding":
        return ["involvedObject", *rest]
    return ["reportingComponent"] if first == "reportingController" else [first, *rest]


def _value(stored: Object, path: list[str]) -> str:
    if path == ["source"]:
        component = stored.get("source", {}).get("component")
        return str(component or stored.get("reportingComponent", ""))
    value: object = stored
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _label_test(term: str) -> Callable[[Object], bool]:
    if match := _SET.match(term):
        values = {value.strip() for value in match[3].split(",")}
        key, within = match[1], match[2] == "in"
        return lambda stored: (_labels(stored).get(key) in values) is within
    if match := _KEY.match(term):
        key, present = match[2], not match[1]
        return lambda stored: (key in _labels(stored)) is present
    if match := _EQUAL.match(term):
        key, equal, value = match[1], match[2] != "!=", match[3]
        return lambda stored: (_labels(stored).get(key) == value) is equal
    if match := _ORDER.match(term):
        key, sign, limit = match[1], 1 if match[2] == ">" else -1, int(match[3])
        return lambda stored: _is_beyond(_labels(stored).get(key, ""), sign, limit)
    raise bad_request(f"unable to parse requirement: found '{term}', expected: identifier")


def _is_beyond(text: str, sign: int, limit: int) -> bool:
    return _NUMBER.match(text) is not None and (int(text) - limit) * sign > 0


def _labels(stored: Object) -> dict[str, str]:
    labels: dict[str, str] = stored["metadata"].get("labels", {})
    return labels
