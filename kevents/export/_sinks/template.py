"""Templates: JSON or text with places for values of a record. A value never breaks the JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from kevents._model.wire import parse_time
from kevents.export._model.types import value_at

_Fill: TypeAlias = Callable[[Mapping[str, Any]], Any]

_ENCODER: Final = msgspec.json.Encoder()
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP: Final = re.compile(r"\[([^\[\]]+)\]|([^.\[\]]+)")
_PATH: Final = re.compile(r"[^.\[\]|]+(\.[^.\[\]|]+|\[[^\[\]]+\])*")


class Template:
    """A JSON body whose texts hold `{path}` for values of a record.

    `{involvedObject.name}` is a value by its path, `{metadata.labels[app.kubernetes.io/name]}` one whose key has dots,
    `{.}` the whole record; `{{` and `}}` are braces. A text that is one placeholder and nothing else becomes the value
    itself: a number stays a number, and a missing value is null. In longer texts a missing value is empty. A filter
    changes a value: `{kevents.time|unix}` is a time in seconds, `|unix_ns` in nanoseconds, `|json` a value as a text.

    Raises:
        ValueError: If it is not JSON, or a placeholder is invalid.
    """

    def __init__(self, text: str) -> None:
        try:
            value = json.loads(text)
            _ENCODER.encode(value)  # some JSON can be read and not be written: a lone surrogate, a huge number
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"the body must be JSON, with places like {{message}} in its texts: {error}") from None
        self._fill = _compile(value)

    def fill(self, record: Mapping[str, Any]) -> bytes:
        """Return the body for a record."""
        return _ENCODER.encode(self._fill(record))


class TextTemplate:
    """A text with places as in :class:`Template`; a missing value is empty.

    Raises:
        ValueError: If a placeholder is invalid.
    """

    def __init__(self, text: str) -> None:
        self._fill = _compile_text(text)

    def fill(self, record: Mapping[str, Any]) -> str:
        """Return the text for a record."""
        return _to_text(self._fill(record))


def compile_path(path: str) -> list[str]:
    """Return the steps of a path. Raises ValueError if it is invalid."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no path: write involvedObject.name or metadata.labels[example.com/key]")
    return [bracketed or plain for bracketed, plain in _STEP.findall(path)]


def _compile(value: Any) -> _Fill:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return _compile_text(value)
    if isinstance(value, dict):
        fields = {key: _compile(inner) for key, inner in value.items()}
        return lambda record: {key: fill(record) for key, fill in fields.items()}
    if isinstance(value, list):
        items = [_compile(inner) for inner in value]
        return lambda record: [fill(record) for fill in items]
    return lambda _: value


def _compile_text(text: str) -> _Fill:
    parts: list[str | _Fill] = []
    end = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[end : token.start()])
        parts.append(token[0][0] if token[0] in {"{{", "}}"} else _compile_place(token[0], text))
        end = token.end()
    parts.append(text[end:])
    used = [part for part in parts if part != ""]
    if len(used) == 1 and not isinstance(used[0], str):
        return used[0]
    return lambda record: "".join(part if isinstance(part, str) else _to_text(part(record)) for part in used)


def _compile_place(place: str, text: str) -> _Fill:
    path, bar, name = place[1:-1].partition("|")
    path, name = path.strip(), name.strip()
    if bar and name not in _FILTERS:
        raise ValueError(f"{place!r} in the body's text {text!r} has no known filter: use {', '.join(_FILTERS)}")
    change = _FILTERS[name] if bar else lambda value: value
    if path == ".":
        return change
    try:
        steps = compile_path(path)
    except ValueError:
        raise ValueError(
            f"{place!r} in the body's text {text!r} is no place: write {{involvedObject.name}}, "
            "{metadata.labels[example.com/key]} or {.}; a literal brace is written twice"
        ) from None
    return lambda record: change(value_at(record, *steps))


def _unix_ns(value: Any) -> int | None:  # noqa: ANN401 - any JSON
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        return None


def _to_text(value: Any) -> str:  # noqa: ANN401 - any JSON
    if value is None:
        return ""
    return value if isinstance(value, str) else _ENCODER.encode(value).decode()


_FILTERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "unix": lambda value: None if (found := _unix_ns(value)) is None else found // 1_000_000_000,
    "unix_ns": _unix_ns,
    "json": lambda value: _ENCODER.encode(value).decode(),
}
