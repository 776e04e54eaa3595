"""What a route asks of one value: compiled once, told in words."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kevents.export._model.suggestions import listed, shown, unknown

Test: TypeAlias = Callable[[Any], bool]

_KEYS: Final = {
    "text": ("equals", "one_of", "regex", "glob", "exists", "not"),
    "number": ("equals", "one_of", "min", "max", "exists", "not"),
    "flag": ("equals", "exists", "not"),
}
_TYPES: Final[dict[str, type]] = {"text": str, "number": int, "flag": bool}
_AN: Final = {"text": "a text", "number": "a whole number", "flag": "true or false"}


class ConditionError(ValueError):
    """A condition that means nothing.

    Args:
        why: What is wrong, with the value and the fix.
        path: Where inside the condition: keys and indices.
    """

    def __init__(self, why: str, path: tuple[str | int, ...] = ()) -> None:
        """Take the reason and the place."""
        super().__init__(why)
        self.why = why
        self.path = path


@dataclass(frozen=True, slots=True)
class Condition:
    """One value's test.

    Attributes:
        matches: The test; it is given what an event holds, None if it holds nothing.
        told: What it asks, as the end of a sentence: ``is "Pod"``.
    """

    matches: Test
    told: str


def compiled(value: object, shape: str = "text", path: tuple[str | int, ...] = ()) -> Condition:
    """Compile a condition.

    Args:
        value: A plain value (equality), a list or set (one of), a table with one of ``equals``, ``one_of``, ``regex``
            (full match), ``glob``, ``min`` and ``max``, ``exists``, any with ``not = true``, or a callable.
        shape: What it is about: a ``text``, a ``number`` or a ``flag``.
        path: Where the value stands, for errors.

    Raises:
        ConditionError: If it means nothing.
    """
    if isinstance(value, Mapping):
        return _table(value, shape, path)
    if isinstance(value, list | tuple | AbstractSet):
        return _one_of(list(value) if isinstance(value, list | tuple) else sorted(value, key=str), shape, path)
    if callable(value):
        return Condition(value, f"satisfies {getattr(value, '__name__', 'a function')}")
    return _equals(value, shape, path)


def _equals(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:
    expected = _plain(value, shape, path)
    return Condition(lambda found: bool(found == expected), f"is {shown(expected)}")


def _plain(value: object, shape: str, path: tuple[str | int, ...]) -> Any:  # noqa: ANN401
    if type(value) is not _TYPES[shape]:  # also a bool, which is an int to Python, is no number
        raise ConditionError(f"must be {_AN[shape]}, not {shown(value)}", path)
    return value


def _one_of(values: list[Any], shape: str, path: tuple[str | int, ...]) -> Condition:
    if not values:
        raise ConditionError("an empty list matches nothing: name at least one value, or leave the condition out", path)
    if all(type(value) is _TYPES[shape] for value in values):
        members = frozenset(values)
        told = f"is {listed(values)}" if len(values) == 1 else f"is one of {listed(values)}"
        return Condition(lambda found: type(found) is _TYPES[shape] and found in members, told)
    parts = [compiled(value, shape, (*path, number)) for number, value in enumerate(values)]
    tests = [part.matches for part in parts]
    return Condition(lambda found: any(test(found) for test in tests), " or ".join(part.told for part in parts))


def _table(table: Mapping[str, Any], shape: str, path: tuple[str | int, ...]) -> Condition:
    possible = _KEYS[shape]
    for key in table:
        if key not in possible:
            raise ConditionError(unknown("key", key, possible, of="a condition"), (*path, key))
    negated = _plain(table.get("not", False), "flag", (*path, "not"))
    asked = [key for key in table if key != "not"]
    if len(asked) != 1 and set(asked) != {"min", "max"}:
        one = listed(key for key in possible if key != "not")
        raise ConditionError(f"a condition holds exactly one of {one}, not {listed(asked) if asked else 'none'}", path)
    condition = _asked(table, asked, shape, path)
    return _negation(condition) if negated else condition


def _asked(table: Mapping[str, Any], asked: list[str], shape: str, path: tuple[str | int, ...]) -> Condition:
    if {"min", "max"} & set(asked):
        return _range(table, path)
    key = asked[0]
    makers: dict[str, Callable[[Any, str, tuple[str | int, ...]], Condition]] = {
        "equals": _equals,
        "one_of": _list,
        "regex": _regex,
        "glob": _glob,
        "exists": _exists,
    }
    return makers[key](table[key], shape, (*path, key))


def _list(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:
    if not isinstance(value, list | tuple | AbstractSet):
        raise ConditionError(f"must be a list, not {shown(value)}", path)
    return compiled(value, shape, path)


def _regex(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:
    text = _plain(value, shape, path)
    try:
        pattern = re.compile(text, re.DOTALL)  # a message may hold line breaks
    except (re.error, RecursionError, OverflowError) as error:
        raise ConditionError(
            f"{shown(text)} is no regular expression: {error}; a literal character is written with a backslash before "
            "it, inside single quotes: '\\.'",
            path,
        ) from None
    return Condition(
        lambda found: isinstance(found, str) and pattern.fullmatch(found) is not None, f"matches all of {shown(text)}"
    )


def _glob(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:
    text = _plain(value, shape, path)
    pattern = re.compile(fnmatch.translate(text))
    return Condition(
        lambda found: isinstance(found, str) and pattern.match(found) is not None, f"is like {shown(text)}"
    )


def _exists(value: object, shape: str, path: tuple[str | int, ...]) -> Condition:  # noqa: ARG001
    wanted = _plain(value, "flag", path)
    told = "is there" if wanted else "is not there"
    return Condition(lambda found: (found not in (None, "")) == wanted, told)


def _range(table: Mapping[str, Any], path: tuple[str | int, ...]) -> Condition:
    least, most = (_plain(table[key], "number", (*path, key)) if key in table else None for key in ("min", "max"))
    if least is not None and most is not None and least > most:
        raise ConditionError(f"min {least} is above max {most}: nothing matches", path)

    def within(found: object) -> bool:
        if isinstance(found, bool) or not isinstance(found, int):
            return False
        return (least is None or found >= least) and (most is None or found <= most)

    parts = [f"at least {least}"] if least is not None else []
    parts += [f"at most {most}"] if most is not None else []
    return Condition(within, f"is {' and '.join(parts)}")


def _negation(condition: Condition) -> Condition:
    matches = condition.matches
    return Condition(lambda found: not matches(found), f"not: {condition.told}")
