"""The structure of the code: sizes of modules and contracts, docstrings, and parity of the two APIs.

Ruff limits the size and complexity of functions: C901 and PLR0915 in pyproject.toml.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kevents
from kevents import aio, events
from tests.project.sources import IN_ONE_WORKER, parsed

ROOT = Path(__file__).parents[2]
MOST_LINES = 600
MOST_MODULES = 125
MOST_CONTRACT_LINES = 80
TWINS = {
    "broadcaster": (kevents.EventBroadcaster, aio.EventBroadcaster),
    "series broadcaster": (events.EventBroadcaster, aio.EventsV1Broadcaster),
    "sink": (kevents.CoreV1EventSink, aio.CoreV1EventSink),
    "series sink": (events.EventsV1EventSink, aio.EventsV1EventSink),
    "protocol of sinks": (kevents.EventSink, aio.EventSink),
}
# An asynchronous sink owns its client and closes it. Only threads shorten the timeouts of a process's last requests.
ONE_SIDED = {"close", "within"}


def modules(folder: str) -> list[Path]:
    """All modules of a folder and its subfolders."""
    return sorted((ROOT / folder).rglob("*.py"))


def functions(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a module and the methods of its classes."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        else:
            yield from functions([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])


def test_modules_have_one_subject() -> None:
    """A module has at most 600 lines; a longer one has two subjects."""
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules("kevents")}
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_modules_are_few() -> None:
    """The package has at most 125 modules: a small one with one user is a part of it."""
    assert len(modules("kevents")) <= MOST_MODULES


def test_contracts_are_few() -> None:
    """The import contracts name packages instead of modules: they take at most 80 lines."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tables = re.findall(
        r"^\[+tool\.importlinter.*?(?=^\[+(?!\[?tool\.importlinter)|\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert 0 < sum(len(table.strip().splitlines()) for table in tables) <= MOST_CONTRACT_LINES


@IN_ONE_WORKER
def test_tests_state_their_rule() -> None:
    """Every test has a docstring that states its rule."""
    silent = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in modules("tests")
        for node in functions(parsed(path).body)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


@IN_ONE_WORKER
def test_modules_have_a_summary() -> None:
    """Every module's docstring begins with a sentence that ends with a full stop."""
    for path in modules("kevents"):
        docstring = ast.get_docstring(parsed(path)) or ""
        assert docstring.split("\n\n")[0].endswith("."), path


@IN_ONE_WORKER
def test_packages_name_their_modules() -> None:
    """The modules that a package's docstring names exist in the package."""
    named = [
        path.parent / name
        for path in modules("kevents")
        if path.name == "__init__.py"
        for name in re.findall(r"``(\w+\.py)``", ast.get_docstring(parsed(path)) or "")
    ]
    assert len(named) > 20
    assert [str(path) for path in named if not path.exists()] == []


def public(owner: type) -> dict[str, list[str]]:
    """The public methods of a class, with their parameter names."""
    return {
        name: list(inspect.signature(member).parameters) if callable(member) else []
        for name, member in inspect.getmembers(owner)
        if not name.startswith("_") and name not in ONE_SIDED
    }


@pytest.mark.parametrize("pair", TWINS)
def test_twins(pair: str) -> None:
    """Fault 43: a synchronous class and its asynchronous twin have the same public methods and parameters."""
    plain, asynchronous = map(public, TWINS[pair])
    assert asynchronous == plain


def test_watchers_are_twins() -> None:
    """Watchers of both APIs have the same methods to stop them and to read their statistics."""
    plain, asynchronous = public(kevents.Watcher), public(aio.Watcher)
    assert asynchronous.keys() == {"name", "statistics", "stop"}
    assert {name: plain[name] for name in ("statistics", "stop")} == {
        name: asynchronous[name] for name in ("statistics", "stop")
    }


@pytest.mark.xdist_group("grouped")
def test_grouped(request: pytest.FixtureRequest) -> None:
    """pytest-xdist keeps the tests of a group in one worker. Without that, each worker starts its own servers."""
    grouped = request.node.nodeid.endswith("@grouped")
    advice = f"pytest-xdist does not group tests with pytest {pytest.__version__}: install the extra test again"
    assert grouped == hasattr(request.config, "workerinput"), advice
