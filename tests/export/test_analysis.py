"""The recipes of docs/export-analysis.md, run on an archive."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kevents._cli.main import main
from kevents.export import Batch, FileSink, Position, Record, Stream
from kevents.export._model.types import event_time
from tests.bench.read import BEGIN, body
from tests.project.test_docs import ROOT, Block, blocks

SERVICES = ("cart", "checkout", "frontend", "mail", "orders", "payments", "search", "shipping", "stock", "users")
INCIDENTS = {"payments": (9.0, 11.25), "checkout": (9.25, 11.5), "orders": (9.5, 10.5), "search": (17.0, 18.0)}
RECORDS = 3000


def happened(number: int) -> dict[str, Any]:
    """An event of the day: warnings are rare, but frequent for the services of an incident."""
    service, hour = SERVICES[number * 7 % len(SERVICES)], 24 * number / RECORDS
    begin, end = INCIDENTS.get(service, (0, 0))
    found = body(number, BEGIN + int(hour * 3600))
    warning = number % 3 > 0 if begin <= hour <= end else number % 41 == 0
    found.update({"type": "Warning", "reason": "BackOff"} if warning else {"type": "Normal", "reason": "Pulled"})
    owner = {"kind": "Deployment", "name": service}
    own = {"topOwner": owner, "services": [service], "countDelta": 1 + number % 4}
    return {**found, "kevents": {**found["kevents"], **own}}


def make(folder: Path) -> None:
    """Write an archive of one day: closed segments, and an open one."""
    stream = Stream("5f0e7a52-2c33-4f8e-9c55-0d7c1f1f7a11")
    with closing(FileSink(folder)) as sink:
        for first in range(0, RECORDS, 100):
            bodies = [happened(number) for number in range(first, first + 100)]
            read = [Record(stream, first + at, each, 0.0) for at, each in enumerate(bodies, 1)]
            sink.write(Batch(read, Position(stream, first + 100, event_time(bodies[-1]) + 10**9)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive `events/`."""
    place = tmp_path_factory.mktemp("analysis")
    make(place / "events")
    return place


def recipes(language: str) -> list[Block]:
    """The code blocks of the page in one language."""
    return [param.values[0] for param in blocks(language) if param.values[0].page.name == "export-analysis.md"]


def expected(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[tuple[str, int]]:
    """The rows of `kevents read --count-by`."""
    assert main(["read", str(folder / "events"), *arguments]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    return [(name.rpartition("/")[2], int(number)) for name, number in rows]


BACK_OFF = ("--type", "Warning", "--reason", "BackOff", "--count-by", "owner")


def python(folder: Path, *arguments: str) -> str:
    """Run Python in the folder, and return its output."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "MPLCONFIGDIR": str(folder / "mpl")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pandas(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe for pandas finds the counts of `kevents read`."""
    pytest.importorskip("pandas", reason="needs kevents[test-analysis]")
    [block] = recipes("python")
    found = [tuple(line.split()) for line in python(folder, "-c", block.code).splitlines()[1:-1]]
    rows = expected(folder, capsys, *BACK_OFF)
    assert sorted(int(number) for _, number in found) == sorted(number for _, number in rows[:10])
    assert {(name, int(number)) for name, number in found} <= set(rows)


def test_duckdb(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipes for DuckDB and Parquet find the counts of `kevents read`, the open segment's records included."""
    duckdb = pytest.importorskip("duckdb", reason="needs kevents[test-analysis]")
    monkeypatch.chdir(folder)
    query, copy = (block.code for block in recipes("sql"))
    with duckdb.connect() as connection:
        found = connection.execute(query).fetchall()
        assert connection.execute("SELECT count(*) FROM events").fetchone() == (RECORDS,)
        reasons = connection.execute(copy).fetchall()
    rows = expected(folder, capsys, *BACK_OFF)
    assert [number for _, number in found] == [number for _, number in rows[:10]]
    assert set(found) <= set(rows)
    assert sorted(reasons) == sorted(expected(folder, capsys, "--count-by", "reason"))
    assert [path.name for path in (folder / "parquet").iterdir()] == ["dt=2026-07-24"]


@pytest.mark.parametrize("number", [0, 1])
def test_jq(folder: Path, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipes for jq find the counts of `kevents read`."""
    jq = pytest.importorskip("jq", reason="needs kevents[test-analysis]")
    [block] = recipes("bash")
    read, _, filtered = block.code.splitlines()[number].partition(" | ")
    _, _, *arguments = shlex.split(read)
    assert main(["read", str(folder / "events"), *arguments[1:]]) == 0
    lines = capsys.readouterr().out
    program = jq.compile(shlex.split(filtered)[-1])
    if number:
        [found] = program.input_text(lines, slurp=True).all()
        rows = expected(folder, capsys, "--count-by", "reason")
        assert sorted((row["reason"], row["count"]) for row in found) == sorted(rows)
    else:
        assert program.input_text(lines).all()[0].split("\t")[2] == "BackOff"
        assert len(program.input_text(lines).all()) == len(lines.splitlines())


def test_plot(folder: Path) -> None:
    """The example draws a row for each service."""
    pytest.importorskip("matplotlib", reason="needs kevents[test-analysis]")
    python(folder, str(ROOT / "examples/export/impact.py"), "events", "impact.svg")
    drawn = (folder / "impact.svg").read_text(encoding="utf-8")
    assert {name for name in SERVICES if f"<!-- {name} -->" in drawn} == set(SERVICES)
    assert "<!-- Warnings about the pods of each service -->" in drawn
