"""The same figures on several interpreters, in turns: Python versions with and without the GIL."""

from __future__ import annotations

from statistics import median
from typing import Any, Final

from tests.bench.rig import run_json, say

__all__ = ["measure", "table"]

_ROWS: Final = {
    "event() in bursts": ("emit", "reference", "burst_us"),
    "identical -> patch": ("correlate", "identical"),
    "new objects -> create": ("correlate", "objects"),
    "16 threads, processor until handled": ("threads", "cpu_us"),
}
_TELL: Final = """\
import json, sys, sysconfig
free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
print(json.dumps("%d.%d.%d" % sys.version_info[:3] + (" free-threaded" if free else "")))
"""
_THREADS: Final = """\
import json
from tests.bench.growth import emit
emit()
print(json.dumps(emit(threads=16)))
"""


def measure(pythons: list[str], rounds: int) -> dict[str, Any]:
    """Return the medians of all rounds by version.

    Raises:
        CalledProcessError: If an interpreter lacks the packages of `kevents[test]`.
    """
    versions = {run_json([python, "-c", _TELL]): python for python in pythons}
    found: dict[str, list[Any]] = {version: [] for version in versions}
    for number in range(rounds):
        for version, python in versions.items():
            say(f"versions: round {number + 1} of {rounds}: {version}")
            figures = run_json([python, "-m", "tests.bench.ours"])
            found[version].append({**figures, "threads": run_json([python, "-c", _THREADS])})
    return {version: _medians(figures) for version, figures in found.items()}


def _medians(figures: list[Any]) -> dict[str, float]:
    return {row: median(_at(found, path) for found in figures) for row, path in _ROWS.items()}


def _at(found: Any, path: tuple[str, ...]) -> float:
    for key in path:
        found = found[key]
    return float(found)


def table(found: dict[str, Any]) -> str:
    """Return a table with a column for each version, in microseconds per event."""
    lines = ["| µs per event | " + " | ".join(found) + " |", "| --- " * (1 + len(found)) + "|"]
    rows = ([row, *(f"{figures[row]:.2f}" for figures in found.values())] for row in _ROWS)
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])
