"""Resident memory of a process that records events with long messages, with a working API server and in an outage."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import re
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

import kevents
from tests.bench.rig import run_json, say
from tests.bench.subjects import SOURCE, manifest

__all__ = ["ROWS", "measure", "run_alone", "table"]

CASES: Final = ((100_000, 1_000), (1_000_000, 300))
"""Bytes of a message, and how many events are recorded."""
SINKS: Final = ("accepting", "outage")
WAYS: Final = (("steady", None), ("steady", 1024), ("burst", None))
"""How the events are recorded, and ``max_message_bytes``. The queue holds uncut messages, so one burst is enough."""
ROWS: Final = tuple(product(CASES, SINKS, WAYS))
_AHEAD: Final = 16
_POLL: Final = 0.001
_PATIENCE: Final = 300.0
_TABLE_BYTES: Final = 1_000_000
"""The table leaves out shorter messages."""
_MIB: Final = 1 << 20

Row = dict[str, Any]


class AcceptingSink:
    """Accepts every write and keeps nothing."""

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Accept a create."""

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Accept a patch."""


class OutageSink:
    """An API server that cannot be reached."""

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Fail."""
        raise kevents.UnavailableError("connection refused")

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Fail."""
        raise kevents.UnavailableError("connection refused")


def memory(name: str) -> int:
    """Memory of this process in bytes: ``VmRSS`` is the resident memory, ``VmHWM`` its peak so far."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    assert found is not None, f"the kernel does not report {name}"
    return int(found.group(1)) << 10


def run(sink: str, message_bytes: int, events: int, pace: str = "steady", limit: int | None = None) -> Row:
    """Record events about different objects in this process, each with its own message.

    Args:
        sink: ``accepting`` or ``outage``.
        message_bytes: Length of each message.
        events: Number of events.
        pace: ``steady`` waits while more than 16 events are unprocessed, so that no queue fills. ``burst`` never waits.
        limit: The broadcaster's ``max_message_bytes``.
    """
    logging.getLogger("kevents").setLevel(logging.CRITICAL)
    broadcaster = kevents.EventBroadcaster(max_message_bytes=limit)
    broadcaster.start_recording_to_sink(AcceptingSink() if sink == "accepting" else OutageSink())
    recorder = broadcaster.new_recorder(SOURCE)
    gc.collect()
    before = memory("VmRSS")
    for number in range(events):
        recorder.event(manifest(number), "Warning", "BackOff", f"{number} ".ljust(message_bytes, "x"))
        if pace == "steady":
            _wait(broadcaster, sink, _AHEAD)
    _wait(broadcaster, sink, 0)
    peak = memory("VmHWM")
    gc.collect()
    after, statistics = memory("VmRSS"), broadcaster.statistics()
    broadcaster.shutdown(0.0)
    written = statistics.watchers[0].sink
    assert written is not None
    return {
        "sink": sink,
        "pace": pace,
        "message_bytes": message_bytes,
        "max_message_bytes": limit,
        "events": statistics.recorded,
        "before": before,
        "peak": peak,
        "after": after,
        "delivered": written.delivered,
        "waiting": written.backlog,
        "dropped": {str(reason): number for reason, number in statistics.dropped.items()},
    }


def _wait(broadcaster: kevents.EventBroadcaster, sink: str, most: int) -> None:
    """Wait until at most this number of events is unprocessed. In an outage an event in the backlog is processed."""
    until = monotonic() + _PATIENCE
    while True:
        (watcher,) = broadcaster.statistics().watchers
        assert watcher.sink is not None
        if watcher.waiting + (watcher.sink.backlog if sink == "accepting" else 0) <= most:
            return
        assert monotonic() < until, f"the events are not processed: {watcher}"
        sleep(_POLL)


def measure(share: float = 1.0, rows: Sequence[Any] = ROWS) -> list[Row]:
    """Measure each row in a separate process.

    Args:
        share: Part of the events that are recorded.
        rows: Those of `ROWS` to measure.
    """
    found: list[Row] = []
    for (message_bytes, events), sink, (pace, limit) in rows:
        number = max(round(events * share), 1)
        say(f"memory: {number:,} events of {message_bytes:,} bytes, {sink}, {pace}, max_message_bytes={limit}")
        found.append(run_alone(sink, message_bytes, number, pace, limit))
    return found


def run_alone(sink: str, message_bytes: int, events: int, pace: str = "steady", limit: int | None = None) -> Row:
    """Measure one row in a separate process."""
    command = [sys.executable, "-m", "tests.bench.memory", sink, str(message_bytes), str(events), f"--pace={pace}"]
    row: Row = run_json([*command, *([] if limit is None else [f"--limit={limit}"])])
    return row


def table(rows: list[Row]) -> str:
    """Return the results with messages of 1 MB as Markdown."""
    columns = ["sink", "recorded", "`max_message_bytes`", "before", "peak", "after", "delivered", "waiting", "dropped"]
    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for row in rows:
        if row["message_bytes"] < _TABLE_BYTES:
            continue
        limit = "default" if row["max_message_bytes"] is None else f"{row['max_message_bytes']:,}"
        sizes = [f"{row[name] / _MIB:.0f} MiB" for name in ("before", "peak", "after")]
        dropped = ", ".join(f"{number:,} `{reason}`" for reason, number in row["dropped"].items()) or "0"
        cells = [row["sink"], row["pace"], limit, *sizes]
        lines.append("| " + " | ".join((*cells, f"{row['delivered']:,}", f"{row['waiting']:,}", dropped)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure one row in this process and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("sink", choices=SINKS)
    parser.add_argument("bytes", type=int, help="length of each message")
    parser.add_argument("events", type=int, help="number of events")
    parser.add_argument(
        "--pace", choices=["steady", "burst"], default="steady", help="how events are recorded (steady)"
    )
    parser.add_argument("--limit", type=int, help="the broadcaster's max_message_bytes")
    options = parser.parse_args()
    row = run(options.sink, options.bytes, options.events, options.pace, options.limit)
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
