"""The house: sizes of rooms and functions, and a docstring on every test."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MOST_LINES = 600
LONG = 30
LONGEST = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(folder: str) -> list[Path]:
    """All modules of a folder, with those of its folders."""
    return sorted((ROOT / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[Function]:
    """All functions of a module, methods and inner ones too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Lines of a function without its docstring, from its `def` on."""
    assert function.end_lineno is not None
    first = function.body[0]
    told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    docstring = (first.end_lineno or 0) - first.lineno + 1 if told else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_modules_have_one_subject() -> None:
    """A module of more than 600 lines has two subjects."""
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules("kevents")}
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_functions_are_small() -> None:
    """Nine of ten functions have fewer than 30 lines, and none has more than 60."""
    lengths = {
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}": length(function)
        for path in modules("kevents")
        for function in functions(path)
    }
    assert {where: lines for where, lines in lengths.items() if lines > LONGEST} == {}
    assert sum(lines < LONG for lines in lengths.values()) >= 0.9 * len(lengths)


@pytest.mark.parametrize("path", modules("tests"), ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_say_what_they_hold(path: Path) -> None:
    """Every test has a docstring, which states the rule."""
    tests = [function for function in functions(path) if function.name.startswith("test_")]
    assert [test.name for test in tests if not ast.get_docstring(test)] == []


def test_rooms_say_what_they_are() -> None:
    """Every module begins with a sentence that ends with a full stop."""
    for path in modules("kevents"):
        told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        assert told.split("\n\n")[0].endswith("."), path
