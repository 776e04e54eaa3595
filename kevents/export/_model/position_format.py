"""A position as JSON, as destinations keep it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kevents.export._model.types import EVENTS, Position, Stream

VERSION: Final = 1


def position_as_json(position: Position) -> dict[str, Any]:
    """Give a position as plain values, with its stream."""
    stream = position.stream
    values: dict[str, Any] = {"v": VERSION, "cluster": stream.cluster, "scope": stream.scope}
    if stream.resource != EVENTS:
        values["resource"] = stream.resource
    return {**values, "rv": position.rv, "time": position.time}


def position_from_json(value: object) -> Position:
    """Read a position.

    Raises:
        ValueError: If it is none, or of a later version of kevents.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"a position is an object, not {type(value).__name__}")
    if value.get("v") != VERSION:
        raise ValueError(f"a position of version {value.get('v')!r}: this kevents knows version {VERSION}")
    stream = Stream(_text(value, "cluster"), _text(value, "scope"), _text(value, "resource", EVENTS))
    return Position(stream, _number(value, "rv"), _number(value, "time"))


def _text(value: Mapping[str, Any], key: str, default: object = None) -> str:
    found = value.get(key, default)
    if not isinstance(found, str):
        raise ValueError(f"a position's {key} is a text, not {found!r}")
    return found


def _number(value: Mapping[str, Any], key: str) -> int:
    found = value.get(key)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise ValueError(f"a position's {key} is a whole number, not {found!r}")
    return found
