"""The lines of keys in TOML texts, as an editor counts them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export._config.lines import Lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TEXT = '''\
# a comment with [brackets] and "quotes"
top = 1
"quoted.key" = "a # no comment"

[a.b]
text = """
[not.a.table]
x = 5
"""
other = \'\'\'
y = "z\'\'\'
after.dotted = [
  "one", # with a comment
  { kind = "two", more = { deep = 1.5 } },
  # [another]
]
[[list]]
x = 2026-07-24T09:00:00Z
[list.sub]
y = [[1, 2], [3]]
[[list]]
x = -inf
[[list.inner]]
z = { }
[ "spaced" . \'out\' ]
last = true
'''
EXPECTED = {
    ("top",): 2,
    ("quoted.key",): 3,
    ("a", "b"): 5,
    ("a", "b", "text"): 6,
    ("a", "b", "other"): 10,
    ("a", "b", "after", "dotted"): 12,
    ("a", "b", "after", "dotted", 0): 13,
    ("a", "b", "after", "dotted", 1): 14,
    ("a", "b", "after", "dotted", 1, "kind"): 14,
    ("a", "b", "after", "dotted", 1, "more"): 14,
    ("a", "b", "after", "dotted", 1, "more", "deep"): 14,
    ("list", 0): 17,
    ("list", 0, "x"): 18,
    ("list", 0, "sub"): 19,
    ("list", 0, "sub", "y"): 20,
    ("list", 0, "sub", "y", 1, 0): 20,
    ("list", 1): 21,
    ("list", 1, "x"): 22,
    ("list", 1, "inner", 0): 23,
    ("list", 1, "inner", 0, "z"): 24,
    ("spaced", "out"): 25,
    ("spaced", "out", "last"): 26,
}


@pytest.mark.parametrize("path", EXPECTED, ids=str)
def test_line(path: tuple[str | int, ...]) -> None:
    """Each key stands on the line where it is written."""
    assert tomllib.loads(TEXT)
    assert Lines(TEXT).of(path) == EXPECTED[path]


def test_no_such_key() -> None:
    """What is not there is looked for in the table around it, and else at the top."""
    assert Lines(TEXT).of(("list", 0, "x", "y")) == 18
    assert Lines(TEXT).of(("list", 0, "missing")) == 17
    assert Lines(TEXT).of(("missing",)) == 1
    assert Lines("").of(()) == 1


KEYS = st.sampled_from(["a", "b-c", '"d e"', "'f.g'", '"\\u00e9\\n"', "h.i", "1"])
VALUES = st.recursive(
    st.sampled_from(["1", "1.5", '"x"', "'y'", '"""\n[z]\n"""', "true", '"\\""', "'''\na = 1'''", "[]", "{}"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(inner, max_size=3).map(lambda items: "[\n" + "".join(f"{item}, # c\n" for item in items) + "]"),
        st.dictionaries(KEYS, inner, max_size=2).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)
HEADERS = st.sampled_from(["", "[t]", "[t.u]", "[[l]]", "[l.m]", "[[l.n]]", '["q.r"]', "# comment"])
STATEMENTS = st.tuples(HEADERS, st.dictionaries(KEYS, VALUES, max_size=3))


def keys(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of everything in a parsed file."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from keys(part, (*path, key))


@given(st.lists(STATEMENTS, max_size=5))
def test_every_key_is_found(statements: list[tuple[str, dict[str, str]]]) -> None:
    """Whatever the parser takes: every key it gives has a line of the text, and nothing is invented."""
    text = "".join(f"{header}\n" + "".join(f"{k} = {v}\n" for k, v in table.items()) for header, table in statements)
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    found = Lines(text)._found
    implicit = {path[:length] for path in found for length in range(len(path))}
    assert set(found) <= set(keys(parsed)) <= set(found) | implicit
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())
