"""A JSON body with places for what a record holds: compiled once, never broken by what is filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

_Filled: TypeAlias = Callable[[Mapping[str, Any]], Any]

_ENCODER: Final = msgspec.json.Encoder()
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP: Final = re.compile(r"\[([^\[\]]+)\]|([^.\[\]]+)")


class Template:
    """A body in JSON whose texts hold `{path}` for what a record holds there.

    `{involvedObject.name}` is a value by its path, `{metadata.labels[app.kubernetes.io/name]}` one whose key has dots,
    `{.}` the whole record; `{{` and `}}` are braces. A text that is one place and nothing else becomes the value
    itself: a number stays a number, and what is missing is null. In longer texts what is missing is nothing.

    Args:
        text: The JSON.

    Raises:
        ValueError: If it is no JSON, or a place in it means nothing.
    """

    def __init__(self, text: str) -> None:
        """Compile it."""
        try:
            value = json.loads(text)
            _ENCODER.encode(value)  # what can be read and not written: half a character, a number beyond all measure
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"the body must be JSON, with places like {{message}} in its texts: {error}") from None
        self._fill = _compiled(value)

    def fill(self, record: Mapping[str, Any]) -> bytes:
        """Give the body for a record."""
        return _ENCODER.encode(self._fill(record))


def _compiled(value: Any) -> _Filled:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return _compiled_text(value)
    if isinstance(value, dict):
        fields = {key: _compiled(inner) for key, inner in value.items()}
        return lambda record: {key: fill(record) for key, fill in fields.items()}
    if isinstance(value, list):
        items = [_compiled(inner) for inner in value]
        return lambda record: [fill(record) for fill in items]
    return lambda _: value


def _compiled_text(text: str) -> _Filled:
    parts: list[str | _Filled] = []
    end = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[end : token.start()])
        parts.append(token[0][0] if token[0] in {"{{", "}}"} else _compiled_place(token[0], text))
        end = token.end()
    parts.append(text[end:])
    filled = [part for part in parts if part != ""]
    if len(filled) == 1 and not isinstance(filled[0], str):
        return filled[0]
    return lambda record: "".join(part if isinstance(part, str) else _as_text(part(record)) for part in filled)


def _compiled_place(place: str, text: str) -> _Filled:
    path = place[1:-1].strip()
    if path == ".":
        return lambda record: record
    steps = [bracketed or plain for bracketed, plain in _STEP.findall(path)]
    if not steps or not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[[^\[\]]+\])*", path):
        raise ValueError(
            f"{place!r} in the body's text {text!r} is no place: write {{involvedObject.name}}, "
            "{metadata.labels[example.com/key]} or {.}; a brace of its own is written twice"
        )
    return lambda record: _looked_up(record, steps)


def _looked_up(value: Any, steps: list[str]) -> Any:  # noqa: ANN401 - any JSON
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _as_text(value: Any) -> str:  # noqa: ANN401 - any JSON
    if value is None:
        return ""
    return value if isinstance(value, str) else _ENCODER.encode(value).decode()
