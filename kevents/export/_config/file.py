"""Loads the configuration of an export: a strict TOML file, whose errors are all reported at once, with their lines."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from kevents._model.wire import printable
from kevents.export._config.schema import Config, read
from kevents.export._config.table_reader import KeyPath, Problems, TableReader

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TOKEN: Final = re.compile(
    r"""
    (?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<multi>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5})
    |(?P<text>"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<mark>[\[\]{}=,.\n])
    |(?P<bare>[^\s\[\]{}=,."'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPED: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}
_PARSER: Final = re.compile(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


class ConfigError(Exception):
    """The configuration is invalid."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines  # one line for each error


def load(file: str | Path) -> Config:
    """Load a configuration file.

    Raises:
        ConfigError: If it is unreadable or invalid: each error with its line, key, value and fix.
    """
    try:
        text = Path(file).read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError([f"{file}: cannot be read ({error.strerror or type(error).__name__})"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{file}: is not UTF-8 text (byte {error.start}): save it as UTF-8"]) from None
    return parse(text.removeprefix("\ufeff"), str(file))


def parse(text: str, file: str = "configuration") -> Config:
    """Load a configuration from a text. Raises ConfigError if it is invalid."""
    text = text.replace("\r\n", "\n")
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or an integer with more digits than Python reads
        raise ConfigError([_syntax_error(file, str(error), text)]) from None
    except RecursionError:
        raise ConfigError([f"{file}: is nested too deeply"]) from None
    problems = Problems()
    config = read(TableReader(table, (), problems), file)
    if problems.found:
        lines = Lines(text)
        found = sorted(problems.found, key=lambda problem: lines.of(problem[0]))
        raise ConfigError([printable(f"{file}:{lines.of(path)}: {_key(path)}{why}") for path, why in found])
    return config


def _key(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return f"{text}: " if text else ""


def _syntax_error(file: str, error: str, text: str) -> str:
    match = _PARSER.fullmatch(error)
    why, line, column = match.groups() if match else (error, None, None)
    place = f"{file}:{line or text.count(chr(10)) + 1}"
    fix = "; texts need double quotes" if why == "Invalid value" else ""
    return f"{place}: is not valid TOML: {why}{f', column {column}' if column else ''}{fix}"


class Lines:
    """The line numbers of all keys of a TOML text, which the TOML parser does not give."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._found: dict[KeyPath, int] = {}
        self._lengths: dict[KeyPath, int] = {}  # of arrays of tables
        table: KeyPath = ()
        while self._next < len(self._tokens):
            word, _ = self._tokens[self._next]
            if word == "[":
                table = self._header()
            elif word == "\n":
                self._next += 1
            else:
                self._pair(table)

    def of(self, path: KeyPath) -> int:
        """The line of a key, else of the nearest table around it, else 1."""
        while path and path not in self._found:
            path = path[:-1]
        return self._found.get(path, 1)

    def _header(self) -> KeyPath:
        """Read ``[a.b]`` or ``[[a.b]]``, and return the path of the table."""
        line = self._tokens[self._next][1]
        brackets = 2 if self._tokens[self._next + 1][0] == "[" else 1
        self._next += brackets
        *above, last = self._key("]")
        self._next += brackets
        path: KeyPath = ()
        for part in above:
            path = (*path, part)
            if path in self._lengths:  # the header continues the last table of an array
                path = (*path, self._lengths[path] - 1)
        path = (*path, last)
        self._found.setdefault(path, line)
        if brackets == 1:
            return path
        number = self._lengths.get(path, 0)
        self._lengths[path] = number + 1
        path = (*path, number)
        self._found[path] = line
        return path

    def _pair(self, table: KeyPath) -> None:
        """Read ``a.b = value``."""
        line = self._tokens[self._next][1]
        path = (*table, *self._key("="))
        for length in range(len(table) + 1, len(path) + 1):
            self._found.setdefault(path[:length], line)
        self._next += 1
        self._value(path)

    def _key(self, end: str) -> list[str]:
        parts = []
        while (word := self._tokens[self._next][0]) != end:
            if word != ".":
                parts.append(_unquoted(word))
            self._next += 1
        return parts

    def _value(self, path: KeyPath) -> None:
        """Read a value. An array or inline table ends with its bracket, another value before a separator."""
        opening, number = self._tokens[self._next][0], 0
        if opening not in ("[", "{"):
            while self._tokens[self._next][0] not in (",", "]", "}", "\n"):
                self._next += 1
            return
        self._next += 1
        while (token := self._tokens[self._next])[0] not in ("]", "}"):
            if token[0] in ("\n", ","):
                self._next += 1
            elif opening == "{":
                self._pair(path)
            else:
                item: KeyPath = (*path, number)
                self._found[item] = token[1]
                self._value(item)
                number += 1
        self._next += 1


def _tokens(text: str) -> list[tuple[str, int]]:
    """The tokens other than space and comments, each with its line."""
    tokens, line = [], 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            tokens.append((match[0], line))
        line += match[0].count("\n")
    return [*tokens, ("\n", line)]


def _unquoted(word: str) -> str:
    if word[0] == "'":
        return word[1:-1]
    if word[0] == '"':
        return _ESCAPE.sub(_unescaped, word[1:-1])
    return word


def _unescaped(match: re.Match[str]) -> str:
    if code := match[1] or match[2]:
        return chr(int(code, 16))
    return _ESCAPED.get(match[3], match[3])
