"""A strict reader of one table: it reports every wrong value and unknown key, and goes on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from kevents.export._model.text import did_you_mean, duration, listed, shown, size, unknown
from kevents.export._sinks.http import Redactor

KNOWN: Final = Redactor()  # every resolved secret


class SecretError(Exception):
    """A secret cannot be resolved. The text names its place, never its value."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret in an environment variable or in a file. It never holds the value.

    Args:
        env: The environment variable.
        file: The file; a line break at its end is not part of the secret.
    """

    env: str = ""
    file: str = ""

    def __str__(self) -> str:
        return f"the environment variable {self.env}" if self.env else f"the file {self.file}"

    def reveal(self) -> str:
        """Read the present value.

        Raises:
            SecretError: If it is missing or empty.
        """
        value = os.environ.get(self.env, "") if self.env else self._read()
        if not value:
            fix = "set it, or name another with { env = ... }" if self.env else "write the secret into it"
            raise SecretError(f"{self} {'is not set' if self.env else 'is empty'}: {fix}")
        KNOWN.remember(value)
        return value

    def _read(self) -> str:
        try:
            return Path(self.file).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise SecretError(f"{self} cannot be read ({error.strerror or type(error).__name__})") from None
        except UnicodeDecodeError:
            raise SecretError(f"{self} is not UTF-8 text") from None


KeyPath: TypeAlias = "tuple[str | int, ...]"

_T = TypeVar("_T")

_CREDENTIALS: Final = re.compile(r"//[^/\s]*@")
_LONGEST: Final = 120
_MOST: Final = 10**12


class TableReader:
    """Reads a table: each method removes one key and checks its value, and returns the default for a wrong one."""

    def __init__(self, table: dict[str, Any], path: KeyPath, problems: list[tuple[KeyPath, str]]) -> None:
        self.path = path  # its place in the file
        self.problems = problems  # the errors of the file: paths of keys, each with its error, value and fix
        self.table = table  # the parsed table
        self._left = dict(table)
        self._known: list[str] = []

    def wrong(self, key: str, why: str) -> None:
        """Report an error of a key; of the table, if the key is empty."""
        self.report((*self.path, key) if key else self.path, why)

    def report(self, path: KeyPath, why: str) -> None:
        """Report an error of any key of the file, unless it is known."""
        if (path, why) not in self.problems:
            self.problems.append((path, why))

    def done(self) -> None:
        """Report every key that was not read."""
        for key in self._left:
            self.wrong(key, unknown("key", key, self._known))

    # Values

    def text(
        self,
        key: str,
        default: str = "",  # the value without the key
        *,
        required: str = "",  # an example, if the key is required
        choices: Sequence[str] = (),  # the allowed values; empty for any
        meant: Mapping[str, str] | None = None,  # the hints for other common values, in lower case
    ) -> str:
        value = self._take(key, default, lambda value: isinstance(value, str), "a text", required)
        if choices and value not in choices and value != default:
            word = (meant or {}).get(value.lower())
            fix = f"; did you mean {word}?" if word else did_you_mean(value, choices)
            self.wrong(key, f"must be {listed(choices)}, not {_brief(value)}{fix}")
            return default
        if required and not value and key in self.table:
            self.wrong(key, f"must not be empty; for example {key} = {shown(required)}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:  # noqa: FBT001, FBT002 - as the other methods
        return self._take(key, default, lambda value: isinstance(value, bool), "true or false, without quotes")

    def count(self, key: str, default: int, *, least: int = 1, most: int = _MOST) -> int:
        whole = f"a whole number of at least {least}" if most == _MOST else f"a whole number from {least} to {most}"
        return self._take(key, default, lambda value: type(value) is int and least <= value <= most, whole)

    def duration(self, key: str, default: float) -> float:
        """Read a duration, ``"10s"``, in seconds."""
        must_be = 'a time with its unit, such as "10s", "1h30m" or "7d"'
        text = self._take(key, "", lambda value: _reads(duration, value), must_be)
        return duration(text) if text else default

    def size(self, key: str, default: int) -> int:
        """Read a size, ``"5MiB"``, in bytes."""
        text = self._take(
            key, "", lambda value: _reads(size, value), 'a size with its unit, such as "512KiB" or "5MiB"'
        )
        return size(text) if text else default

    def texts(self, key: str, default: Sequence[str] = ()) -> tuple[str, ...]:
        return tuple(self._take(key, list(default), _is_list_of(str), 'a list of texts, such as ["a", "b"]'))

    def url(self, key: str, example: str) -> str | Secret:
        """Read a URL, or the reference to a secret one. A URL with credentials must be secret."""
        value = self.text_or_secret(key)
        if value == "" and key not in self.table:
            self.wrong(key, f"is missing; for example {key} = {shown(example)}")
        if isinstance(value, str) and _CREDENTIALS.search(value):
            self.wrong(key, 'holds credentials: take them out, or keep the whole URL elsewhere: { env = "NAME" }')
            return ""
        return value

    def secret(self, key: str) -> Secret | None:
        """Read the reference to a secret. Another value is never shown."""
        value = self._pop(key, None)
        if not isinstance(value, dict):
            self.wrong(key, 'must not be in the file: write { env = "NAME" } or { file = "/path" }')
            return None
        [(kind, place), *more] = value.items() or [("", "")]
        if more or kind not in ("env", "file") or not isinstance(place, str) or not place:
            self.wrong(key, 'must be { env = "NAME" } or { file = "/path" }')
            return None
        return Secret(**{kind: place})

    def text_or_secret(self, key: str) -> str | Secret:
        """Read a text, or the reference to a secret one."""
        if isinstance(self._left.get(key), dict):
            return self.secret(key) or ""
        return self.text(key)

    def values(self, kind: type[_T], **methods: Callable[..., Any]) -> _T:
        """Read the fields of a dataclass, and report every other key.

        A field is read by the method that is named for it, else by the type of its default. The metadata of a field are
        further arguments of its method: ``choices``, ``least``.
        """
        fields: tuple[Field[Any], ...] = dataclass_fields(kind)  # type: ignore[arg-type]
        found = {}
        for each in fields:
            method = methods.get(each.name) or _METHODS[type(each.default)]
            found[each.name] = method(self, each.name, each.default, **each.metadata)
        self.done()
        return kind(**found)

    # Tables

    def child(self, key: str) -> TableReader:
        """Read a table; an empty one without the key."""
        value: dict[str, Any] = self._take(key, {}, lambda value: isinstance(value, dict), f"a table: [{key}]")
        return TableReader(value, (*self.path, key), self.problems)

    def children(self, key: str) -> list[TableReader]:
        """Read an array of tables."""
        value: list[dict[str, Any]] = self._take(key, [], _is_list_of(dict), f"an array of tables: [[{key}]]")
        return [TableReader(table, (*self.path, key, number), self.problems) for number, table in enumerate(value)]

    def remaining(self) -> list[str]:
        """The unread keys: for tables whose keys are names."""
        return list(self._left)

    def rest(self) -> dict[str, Any]:
        """Remove and return all unread keys, unchecked."""
        left, self._left = self._left, {}
        return left

    # Helpers

    def _pop(self, key: str, default: object) -> Any:  # noqa: ANN401
        self._known.append(key)
        return self._left.pop(key, default)

    def _take(self, key: str, default: _T, legal: Callable[[Any], bool], must_be: str, required: str = "") -> _T:
        missing = key not in self._left
        if missing and required:
            self.wrong(key, f"is missing; for example {key} = {shown(required)}")
        value = self._pop(key, default)
        if missing or legal(value):
            return value  # type: ignore[no-any-return]
        self.wrong(key, f"must be {must_be}, not {_brief(value)}")
        return default


_METHODS: Final[Mapping[type, Callable[..., Any]]] = {
    bool: TableReader.flag,
    int: TableReader.count,
    float: TableReader.duration,
    str: TableReader.text,
    tuple: TableReader.texts,
}


def _brief(value: object) -> str:
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    text = shown(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _reads(read: Callable[[str], object], value: Any) -> bool:  # noqa: ANN401
    try:
        read(value)
    except (ValueError, TypeError):
        return False
    return True


def _is_list_of(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) and item != "" for item in value)
