"""Which line of a TOML text a key stands on: what the parser does not tell."""

from __future__ import annotations

import re
from typing import Final, TypeAlias

Path: TypeAlias = "tuple[str | int, ...]"

_TOKEN: Final = re.compile(
    r"""
    (?P<space>[ \t\r]+|\#[^\n]*)
    |(?P<multi>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5})
    |(?P<text>"(?:\\.|[^"\\\n])*"|'[^'\n]*')
    |(?P<mark>\[\[|\]\]|[\[\]{}=,.\n])
    |(?P<bare>[^\s\[\]{}=,."'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")
_ESCAPED: Final = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


class Lines:
    """The lines of the keys of a TOML text, tables, arrays of tables and inline tables included.

    Args:
        text: What a TOML parser has taken: it is not checked again.
    """

    def __init__(self, text: str) -> None:
        """Find every key."""
        self._tokens = _tokens(text)
        self._next = 0
        self._found: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}
        self._read()

    def of(self, path: Path) -> int:
        """Give the line of a key, else that of the nearest table around it; 1 for the whole file."""
        while path and path not in self._found:
            path = path[:-1]
        return self._found.get(path, 1)

    # Statements

    def _read(self) -> None:
        table: Path = ()
        while self._next < len(self._tokens):
            word, line = self._tokens[self._next]
            if word == "\n":
                self._next += 1
            elif word in ("[", "[["):
                self._next += 1
                table = self._header(line, of_array=word == "[[")
            else:
                self._pair(table)

    def _header(self, line: int, *, of_array: bool) -> Path:
        *above, last = self._key(("]", "]]"))
        self._next += 1
        path: Path = ()
        for part in above:
            path = self._latest((*path, part))
        path = (*path, last)
        self._found.setdefault(path, line)
        if of_array:
            number = self._lengths.get(path, 0)
            self._lengths[path] = number + 1
            path = (*path, number)
            self._found[path] = line
        return path

    def _latest(self, path: Path) -> Path:
        """The last table of an array of tables, which is what a longer header means."""
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _pair(self, table: Path) -> None:
        line = self._tokens[self._next][1]
        path = (*table, *self._key(("=",)))
        for length in range(len(table) + 1, len(path) + 1):
            self._found.setdefault(path[:length], line)
        self._next += 1
        self._value(path)

    def _key(self, ends: tuple[str, ...]) -> list[str]:
        parts = []
        while (word := self._tokens[self._next][0]) not in ends:
            if word != ".":
                parts.append(_name(word))
            self._next += 1
        return parts

    # Values

    def _value(self, path: Path) -> None:
        word = self._tokens[self._next][0]
        if word in ("[", "[["):
            self._array(path)
        elif word == "{":
            self._inline(path)
        else:
            while self._next < len(self._tokens) and self._tokens[self._next][0] not in (",", "]", "]]", "}", "\n"):
                self._next += 1

    def _array(self, path: Path) -> None:
        self._split("[[", "[")
        self._next += 1
        number = 0
        while True:
            self._split("]]", "]")
            word, line = self._tokens[self._next]
            if word == "]":
                self._next += 1
                return
            if word in ("\n", ","):
                self._next += 1
                continue
            self._found[(*path, number)] = line
            self._value((*path, number))
            number += 1

    def _inline(self, path: Path) -> None:
        self._next += 1
        while (word := self._tokens[self._next][0]) != "}":
            if word in ("\n", ","):
                self._next += 1
            else:
                self._pair(path)
        self._next += 1

    def _split(self, double: str, single: str) -> None:
        """Take a double bracket for two: inside a value there are no headers."""
        word, line = self._tokens[self._next]
        if word == double:
            self._tokens[self._next : self._next + 1] = [(single, line), (single, line)]


def _tokens(text: str) -> list[tuple[str, int]]:
    """The tokens that matter, each with its line."""
    tokens, line = [], 1
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "space":
            tokens.append((match[0], line))
        line += match[0].count("\n")
    return [*tokens, ("\n", line)]


def _name(word: str) -> str:
    if word[0] == "'":
        return word[1:-1]
    if word[0] == '"':
        return _ESCAPE.sub(_unescaped, word[1:-1])
    return word


def _unescaped(match: re.Match[str]) -> str:
    if code := match[1] or match[2]:
        return chr(int(code, 16))
    return _ESCAPED.get(match[3], match[3])
