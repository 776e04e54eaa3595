"""A table of a configuration, read strictly: every wrong value and unknown key is told, none stops the reading."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeVar

from kevents._model.wire import printable
from kevents.export._config.lines import Lines, Path
from kevents.export._config.secrets import Secret
from kevents.export._model.text import did_you_mean, duration, listed, shown, size, unknown

_T = TypeVar("_T")

_CREDENTIALS: Final = re.compile(r"//[^/\s]*@")
_LONGEST: Final = 120
_NO_TEXTS: Final[Mapping[str, str]] = MappingProxyType({})
_MOST: Final = 10**12


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: Of which key.
        why: What is wrong, with the value and the fix.
    """

    path: Path
    why: str


class Problems:
    """Everything that is wrong with one file."""

    def __init__(self) -> None:
        """Nothing is."""
        self._found: list[Problem] = []

    def add(self, path: Path, why: str) -> None:
        """Tell one more; the same of one key is told once."""
        if (problem := Problem(path, why)) not in self._found:
            self._found.append(problem)

    def about(self, path: Path) -> bool:
        """Whether something is wrong at a place."""
        return any(problem.path == path for problem in self._found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def told(self, file: str, lines: Lines) -> list[str]:
        """Give one line for each, in the order of the file: ``cfg.toml:3: sinks.a.path: must be a text, not 5``."""
        found = sorted(self._found, key=lambda problem: lines.of(problem.path))
        return [printable(f"{file}:{lines.of(each.path)}: {_colon(each.path)}{each.why}") for each in found]


def _colon(path: Path) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f"{text}: " if text else ""


class TableReader:
    """A table that is being read: each method takes one key out, checks it, and gives a default for a wrong one.

    Args:
        table: What the parser gave.
        path: Where it stands.
        problems: Where what is wrong is told.

    Attributes:
        table: All of it, as the parser gave it.
    """

    def __init__(self, table: dict[str, Any], path: Path, problems: Problems) -> None:
        """Take the table."""
        self.path = path
        self.problems = problems
        self.table = table
        self._left = dict(table)
        self._asked: list[str] = []

    def wrong(self, key: str, why: str) -> None:
        """Tell that a key is wrong; an empty one: the table."""
        self.problems.add((*self.path, key) if key else self.path, why)

    def is_list(self, key: str) -> bool:
        """Whether a key holds a list."""
        return isinstance(self.table.get(key), list)

    def done(self) -> None:
        """Tell every key that nobody has asked for."""
        for key in self._left:
            self.wrong(key, unknown("key", key, self._asked))

    # Values

    def text(
        self,
        key: str,
        default: str = "",
        *,
        required: str = "",
        choices: Sequence[str] = (),
        meant: Mapping[str, str] = _NO_TEXTS,
    ) -> str:
        """Take a text.

        Args:
            key: Its key.
            default: Without one.
            required: An example, if there must be one.
            choices: What it may be, if not anything.
            meant: What is meant by other names for them, in small letters.
        """
        value = self._take(key, default, lambda value: isinstance(value, str), "a text", required)
        if choices and value not in choices and value != default:
            word = meant.get(value.lower())
            fix = f"; did you mean {word}?" if word else did_you_mean(value, choices)
            self.wrong(key, f"must be {listed(choices)}, not {_brief(value)}{fix}")
            return default
        if required and not value and key in self.table:
            self.wrong(key, f"must not be empty; for example {key} = {shown(required)}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Take true or false."""
        return self._take(key, default, lambda value: isinstance(value, bool), "true or false, without quotes")

    def count(self, key: str, default: int, *, least: int = 1, most: int = _MOST) -> int:
        """Take a whole number."""
        whole = f"a whole number of at least {least}" if most == _MOST else f"a whole number from {least} to {most}"
        return self._take(key, default, lambda value: type(value) is int and least <= value <= most, whole)

    def duration(self, key: str, default: float) -> float:
        """Take a time, ``"10s"``; in seconds."""
        return self._measure(key, default, duration, 'a time with its unit, such as "10s", "1h30m" or "7d"')

    def size(self, key: str, default: int) -> int:
        """Take a size, ``"5MiB"``; in bytes."""
        return self._measure(key, default, size, 'a size with its unit, such as "512KiB" or "5MiB"')

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of texts."""
        value: list[str] = self._take(key, [], _is_texts, 'a list of texts, such as ["a", "b"]')
        return tuple(value)

    def url(self, key: str, example: str) -> str | Secret:
        """Take a URL, which may itself be a secret; one with credentials in it must be."""
        value = self.text_or_secret(key)
        if value == "" and key not in self.table:
            self.wrong(key, f"is missing; for example {key} = {shown(example)}")
        if isinstance(value, str) and _CREDENTIALS.search(value):
            self.wrong(key, 'holds credentials: take them out, or keep the whole URL elsewhere: { env = "NAME" }')
            return ""
        return value

    def secret(self, key: str) -> Secret | None:
        """Take a secret: a table that says where it is. What stands there instead is not shown."""
        value = self._pop(key, None)
        if not isinstance(value, dict):
            self.wrong(key, 'must not stand in the file: say { env = "NAME" } or { file = "/path" }')
            return None
        return self._secret(key, value)

    def text_or_secret(self, key: str) -> str | Secret:
        """Take a text, or a table that says where it is."""
        if isinstance(self._left.get(key), dict):
            return self.secret(key) or ""
        return self.text(key)

    # Tables

    def section(self, key: str) -> TableReader:
        """Take a table; an empty one without."""
        value: dict[str, Any] = self._take(key, {}, lambda value: isinstance(value, dict), f"a table: [{key}]")
        return TableReader(value, (*self.path, key), self.problems)

    def sections(self, key: str) -> list[TableReader]:
        """Take an array of tables."""
        value: list[dict[str, Any]] = self._take(key, [], _is_tables, f"an array of tables: [[{key}]]")
        return [TableReader(table, (*self.path, key, number), self.problems) for number, table in enumerate(value)]

    def keys(self) -> list[str]:
        """Give the keys that are left: for tables whose keys are names."""
        return list(self._left)

    def rest(self) -> dict[str, Any]:
        """Take everything that is left, as it is."""
        left, self._left = self._left, {}
        return left

    # Inside

    def _pop(self, key: str, default: object) -> Any:  # noqa: ANN401
        self._asked.append(key)
        return self._left.pop(key, default)

    def _take(self, key: str, default: _T, legal: Callable[[Any], bool], what: str, required: str = "") -> _T:
        there = key in self._left
        value = self._pop(key, default)
        if not there and required:
            self.wrong(key, f"is missing; for example {key} = {shown(required)}")
        if there and not legal(value):
            self.wrong(key, f"must be {what}, not {_brief(value)}")
            return default
        return value  # type: ignore[no-any-return]

    def _measure(self, key: str, default: _T, read: Callable[[str], _T], what: str) -> _T:
        there = key in self._left
        value = self._pop(key, default)
        if not there:
            return default
        try:
            return read(value)
        except (ValueError, TypeError):
            self.wrong(key, f"must be {what}, not {_brief(value)}")
            return default

    def _secret(self, key: str, table: dict[str, Any]) -> Secret | None:
        [(kind, value), *more] = table.items() or [("", "")]
        if more or kind not in ("env", "file") or not isinstance(value, str) or not value:
            self.wrong(key, 'must be { env = "NAME" } or { file = "/path" }')
            return None
        return Secret(**{kind: value})


def _brief(value: object) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = shown(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)
