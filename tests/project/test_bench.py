"""The bench measures correctly: its server answers and counts, and every row has a figure."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import kevents
from kevents._broadcast.watcher import QUEUE_BYTES
from tests.bench import memory
from tests.bench.ours import api_for, deliver
from tests.bench.page import keep, put_table, read
from tests.bench.rig import ROOT, run_json, serving
from tests.bench.rows import CORRELATE, DELIVER, RECORD, Finding, Row, findings, markdown
from tests.bench.subjects import realistic
from tests.support.real_server import HOW_TO_GET, assets

OURS = [sys.executable, "-m", "tests.bench.ours"]
ROWS = [*RECORD, *CORRELATE, *DELIVER]


def figures(value: float) -> dict[str, Any]:
    """A round in which every figure has the same value."""
    found: dict[str, Any] = {}
    for path in [row.path for row in ROWS] + [row.ours for row in ROWS if row.ours]:
        place = found
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value
    return found


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    """Each round has its own ratio, since its conditions are its own. The median of the ratios counts."""
    found = findings(ROWS, [figures(2.0), figures(30.0), figures(4.0)], [figures(4.0), figures(10.0), figures(4.0)])
    assert {(finding.kevents, finding.client_go, finding.ratio) for finding in found} == {(4.0, 4.0, 1.0)}


@pytest.mark.parametrize(
    ("aim", "more_is_better", "ratio", "met"),
    [(0.5, False, 0.5, True), (0.5, False, 0.6, False), (4.0, True, 4.0, True), (4.0, True, 3.9, False)],
)
def test_when_an_aim_is_met(aim: float, more_is_better: bool, ratio: float, met: bool) -> None:  # noqa: FBT001
    """A time ratio must be at most the aim, a ratio of deliveries at least the aim."""
    assert met is Finding(Row("", (), "", aim, more_is_better), ratio, 1.0, ratio).met


def test_without_go() -> None:
    """Without Go, kevents has figures but no ratios, and no aim is met."""
    found = findings(ROWS, [figures(2.0)], [])
    assert {(f.kevents, f.client_go, f.ratio, f.met) for f in found} == {(2.0, None, None, None)}
    assert len(markdown(found).splitlines()) == len(ROWS) + 2


def test_a_table_takes_the_place_of_the_last(tmp_path: Path) -> None:
    """A measurement replaces its own part of the file and its own table in the page."""
    page = tmp_path / "performance.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n<!-- y --><!-- end of y -->\n", encoding="utf-8")
    keep(tmp_path, "x", {"figure": 1}, "| new |")
    keep(tmp_path, "y", {"figure": 2}, "| other |")
    expected = "a\n<!-- x -->\n\n| new |\n\n<!-- end of x -->\nb\n<!-- y -->\n\n| other |\n\n<!-- end of y -->\n"
    assert page.read_text(encoding="utf-8") == expected
    assert read(tmp_path) == {"x": {"figure": 1}, "y": {"figure": 2}}


def test_a_table_without_a_place() -> None:
    """A table without a place raises an error."""
    with pytest.raises(ValueError, match="no place between '<!-- x -->'"):
        put_table("<!-- y --><!-- end of y -->", "x", "| new |")


def test_the_same_realistic_mix_for_both() -> None:
    """The realistic mix is seeded: a few of 300 objects are noisy, and most messages repeat."""
    mix = realistic(5_000)
    assert mix == realistic(5_000)
    assert 250 < len({about for about, _, _ in mix}) <= 300
    assert 500 < sum(about == 0 for about, _, _ in mix) < 1_200
    assert 800 < len({message for _, _, message in mix}) < 1_200


def test_the_server_counts() -> None:
    """Four senders keep four connections open. Every create is answered after the delay in its path."""
    with serving() as server:
        found = deliver(kevents.CoreV1EventSink(api_for(f"{server.url}/1")), number=40)
        counted = server.counters()
    assert (found["delivered"], counted["created"]) == (40.0, 48)
    assert counted["connections"] - 1 <= 4
    assert found["per_second"] < 4 * 1000


def test_the_server_speaks_tls() -> None:
    """Over TLS, clients trust the server's own certificate, and its counters work too."""
    with serving(tls=True) as server:
        found = deliver(kevents.CoreV1EventSink(api_for(f"{server.url}/0", server.ca_file)), number=8, senders=2)
        counted = server.counters()
    assert (found["delivered"], counted["created"]) == (8.0, 12)
    assert counted["connections"] - 1 <= 2


def test_the_server_returns_added_fields() -> None:
    """A create is answered with its body and the fields of a stored object, a patch with an object."""
    with serving() as server:
        answers = []
        for method, body in (("POST", {"metadata": {"name": "web-0.1"}, "count": 1}), ("PATCH", {"count": 2})):
            path = "/0/api/v1/namespaces/prod/events"
            request = Request(server.url + path, json.dumps(body).encode(), method=method)
            with urlopen(request) as answer:
                answers.append((answer.status, json.load(answer)))
    (created, event), (patched, known) = answers
    assert (
        created,
        event["metadata"]["name"],
        event["count"],
        event["metadata"]["resourceVersion"],
    ) == (201, "web-0.1", 1, "4711")
    assert (patched, known["count"]) == (200, 2)


@pytest.mark.wire
def test_every_row_is_measured() -> None:
    """The programs' figures include one for every row."""
    with serving() as server:
        found = run_json([*OURS, "--part=record", "--scale=0.001"])
        found |= run_json([*OURS, "--part=correlate", "--scale=0.001"])
        found["deliver"] = run_json([*OURS, f"--url={server.url}", '--deliver={"0":5,"1":5,"5":5,"20":5}'])
    assert len([finding for finding in findings(ROWS, [found], []) if finding.kevents > 0]) == len(ROWS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "which",
    [
        pytest.param((0, 4, 8, 9), id="every size, sink and way"),
        pytest.param(range(len(memory.ROWS)), id="every row", marks=pytest.mark.slow),
    ],
)
def test_every_event_of_the_memory_bench_is_counted(which: Sequence[int]) -> None:
    """In every row each event is delivered, waiting or dropped. The table has a line for each long message."""
    wanted = [memory.ROWS[number] for number in which]
    assert [set(values) for values in zip(*wanted)] == [set(memory.CASES), set(memory.SINKS), set(memory.WAYS)]  # noqa: B905
    rows = memory.measure(share=0.02, rows=wanted)
    assert len(rows) == len(wanted)
    for row in rows:
        assert row["delivered"] + row["waiting"] + sum(row["dropped"].values()) == row["events"], row
        assert 0 < row["before"] <= row["peak"], row
        assert 0 < row["after"] <= row["peak"] + (1 << 20), row
    assert {row["sink"] for row in rows if row["delivered"]} == {"accepting"}
    shown = [row for row in rows if row["message_bytes"] == 1_000_000]  # the page leaves out the shorter messages
    assert len(memory.table(rows).splitlines()) == 2 + len(shown)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("pace", ["steady", "burst"])
def test_memory_in_an_outage_is_bounded(pace: str) -> None:
    """Events with 300 MB of messages keep the process below a multiple of its queue's bound."""
    row = memory.run_alone("outage", message_bytes=1_000_000, events=300, pace=pace)
    assert row["peak"] - row["before"] < 3 * QUEUE_BYTES, row


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_short_soak_loses_nothing(tmp_path: Path) -> None:
    """Three recorders behind a faulty network: the real API server counts every recorded event."""
    if assets() is None:
        pytest.skip(HOW_TO_GET)
    command = [sys.executable, "-m", "tests.bench", "soak", "--minutes", "0.1", "--to", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=250)
    rows = read(tmp_path)["soak"]["found"]["rows"]
    assert len(rows) == 3
    for row in rows:
        assert row["adds_up"], row
        assert (row["dropped"], row["on_server"]) == (0, row["recorded"]), row
