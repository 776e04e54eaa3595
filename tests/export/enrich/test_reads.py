"""The documentation of enrichment matches the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from kevents.export import Enricher, EnricherStatistics
from kevents.export._enrich.cache import STATES
from tests.export import reads

PAGE = (Path(__file__).parents[3] / "docs" / "export-enrichment.md").read_text(encoding="utf-8")


def section(heading: str) -> list[list[str]]:
    """Return the rows of the table under a heading, each as its cells."""
    text = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:] if not row[0].startswith(" ---")]


def documented(documentee: type, heading: str) -> list[str]:
    """Return the names under a heading of a docstring, from which the reference is made."""
    text = (inspect.getdoc(documentee) or "").split(f"\n{heading}:\n", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^    (\w+):", text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_table() -> None:
    """The table of reads is the output of the command."""
    assert reads.table() in PAGE


def test_aim() -> None:
    """In the table, an event costs at most 0.30 reads, fewer than with the pull request, and no label is wrong."""
    cells = {row[0]: row[1:] for row in section("Cost")}
    ours, theirs = cells["kevents"], cells["event-exporter with 144"]
    assert [float(ours[column]) <= 0.30 for column in (0, 2)] == [True, True]
    assert [float(ours[column]) < float(theirs[column]) for column in (0, 2)] == [True, True]
    assert ours[1::2] == ["0"] * 3


def test_states() -> None:
    """The page lists each state."""
    assert [row[0] for row in section("States")] == [f"`{state}`" for state in STATES]


def test_options() -> None:
    """The reference lists each option."""
    assert documented(Enricher, "Args") == list(inspect.signature(Enricher).parameters)


def test_figures() -> None:
    """The reference lists each figure of the statistics."""
    assert documented(EnricherStatistics, "Attributes") == list(EnricherStatistics.__dataclass_fields__)
