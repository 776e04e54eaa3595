"""One outage and one overload, measured and simulated: a server that is away for a minute, and a slow one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any, Final

import kevents
from kevents.testing import APIServer
from tests.bench.ours import sink_for
from tests.bench.rig import say, serving
from tests.bench.subjects import SOURCE, manifest
from tests.simulation import Kevents, Scenario, scenarios

__all__ = ["measure", "table"]

_AWAY: Final = "no connection for 60 s, 50 new events/s"
_SLOW: Final = "a server that needs 20 ms, 200 new events/s"
_AWAY_UNTIL: Final = 60.0
_PATIENCE: Final = 60.0

Row = dict[str, Any]


class Observed:
    """A sink that counts its calls and measures the time from recording an event to writing it.

    Args:
        sink: The sink that writes.
        moments: The recording times by the name of the object.
    """

    def __init__(self, sink: kevents.EventSink, moments: dict[str, float]) -> None:
        self.calls = 0
        self.lags: list[float] = []
        self._sink = sink
        self._moments = moments
        self._lock = threading.Lock()

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Create an event."""
        self._count(body["involvedObject"]["name"], lambda: self._sink.create(namespace, body))

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Patch the event."""
        self._sink.patch(namespace, name, patch)

    def _count(self, about: str, write: Callable[[], None]) -> None:
        with self._lock:
            self.calls += 1
        write()
        with self._lock:
            self.lags.append(monotonic() - self._moments[about])


def run(scenario: Scenario, sink: kevents.EventSink, *, at: float = 0.0, then: Callable[[], object] = bool) -> Row:
    """Record the events of a scenario at their times, and call `then` at the time `at`."""
    moments: dict[str, float] = {}
    observed, slowest = Observed(sink, moments), 0.0
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(observed)
        recorder, begun = broadcaster.new_recorder(SOURCE), monotonic()
        for number, (moment, _) in enumerate(scenario.arrivals):
            sleep(max(begun + moment - monotonic(), 0.0))
            if moment >= at:
                then()
                then = bool
            about = manifest(number)
            moments[about["metadata"]["name"]] = monotonic()
            before = perf_counter()
            recorder.event(about, "Normal", "Scheduled", "assigned to a node")
            slowest = max(slowest, perf_counter() - before)
        broadcaster.flush(_PATIENCE)
        ledger = broadcaster.statistics()
    return {
        "scenario": scenario.title,
        "kind": "real",
        "events": len(scenario.arrivals),
        "lost": sum(ledger.dropped.values()) + len(scenario.arrivals) - len(observed.lags),
        "calls": observed.calls,
        "median": median(observed.lags),
        "worst": max(observed.lags),
        "slowest": slowest,
    }


def simulated(scenario: Scenario) -> Row:
    """Run the scenario in simulated time."""
    outcome = Kevents(scenario).run()
    return {
        "scenario": scenario.title,
        "kind": "simulated",
        "events": len(scenario.arrivals),
        "lost": outcome.losses,
        "calls": outcome.calls,
        "median": outcome.median,
        "worst": outcome.worst,
        "slowest": None,
    }


def measure() -> list[Row]:
    """Measure and simulate both scenarios, which takes three minutes."""
    for name in ("kevents", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    away, slow = ({scenario.title: scenario for scenario in scenarios()}[title] for title in (_AWAY, _SLOW))
    say(f"outage: {_AWAY}")
    with APIServer() as server:
        server.create_namespace("prod")
        sink = sink_for(server.url, token=server.token)
        server.stop_listening()
        rows = [run(away, sink, at=_AWAY_UNTIL, then=server.listen_again), simulated(away)]
    say(f"outage: {_SLOW}")
    with serving() as slow_server:
        rows.append(run(slow, sink_for(f"{slow_server.url}/20")))
    return [*rows, simulated(slow)]


def table(rows: list[Row]) -> str:
    """Return the measured rows as Markdown. The page about reliability has the simulated ones."""
    lines = ["| scenario | events | lost | calls | median | worst | slowest `event()` |", "| --- " * 7 + "|"]
    for row in rows:
        if row["slowest"] is None:
            continue
        slowest = f"{row['slowest'] * 1000:.2f} ms"
        cells = (row["scenario"], f"{row['events']:,}", f"{row['lost']:,}", f"{row['calls']:,}")
        lines.append("| " + " | ".join((*cells, f"{row['median']:.2f} s", f"{row['worst']:.1f} s", slowest)) + " |")
    return "\n".join(lines)
