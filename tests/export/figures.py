"""`python -m tests.export.figures` prints the figures of an export as a table for docs/export.md.

Each measurement runs in its own process against a replayed cluster in another process, so that neither event creation
nor earlier measurements count. Arguments select measurements by name.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import kubernetes.client

from kevents.export import (
    Batch,
    BatchOptions,
    ClusterEventSource,
    Destination,
    Enricher,
    Exporter,
    FileSink,
    Position,
    Retry,
    Route,
    Sink,
    Stream,
)

MANY: Final = 200_000
TEN_MINUTES: Final = 300_000
"""Events in ten minutes at 500 a second."""

_SENT: Final = re.compile(rb" at ([0-9]+)\"")


@contextmanager
def replayed(**plan: Any) -> Iterator[kubernetes.client.CoreV1Api]:
    """A client of a replayed cluster."""
    command = [sys.executable, "-m", "tests.export.replay", json.dumps(plan)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        host = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        yield kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(kubernetes.client.Configuration(host=host)))
        process.stdin.close()


def exported(
    api: Any, sink: Sink | Destination, until: Callable[[Exporter], bool], enrich: Enricher | None = None
) -> Exporter:
    """Export everything to a sink until a condition holds, and return the exporter with its statistics."""
    exporter = Exporter(
        ClusterEventSource(api), routes=[Route(to="sink", all=True)], sinks={"sink": sink}, enrich=enrich
    )
    pause = threading.Event()

    def watch() -> None:
        while not (exporter.statistics().streams and until(exporter)):
            pause.wait(0.02)
        exporter.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    exporter.run()
    watcher.join()
    return exporter


def taken(exporter: Exporter) -> int:
    """Return the number of records written, waiting or dropped."""
    [sink] = exporter.statistics().destinations
    return sink.written + sink.waiting + sink.dropped


def peak() -> int:
    """Return the peak resident size so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


class Dead:
    """A sink that accepts nothing until `alive` is set.

    Attributes:
        alive: Whether the sink accepts batches.
    """

    def __init__(self) -> None:
        self.alive = False

    def write(self, batch: Batch) -> None:
        """Accept a batch, or raise `Retry`."""
        if not self.alive:
            raise Retry("dead")

    def last_position(self, stream: Stream) -> Position | None:
        """Return no position."""
        return None

    def close(self) -> None:
        """Do nothing."""


class Timed(FileSink):
    """A file sink that measures the age of each event when it is durable.

    Attributes:
        lags: The ages in seconds.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.lags: list[float] = []

    def write(self, batch: Batch) -> None:
        """Write the batch and store the ages of its events."""
        super().write(batch)
        now = time.monotonic_ns()
        sent = [int(found[1]) for one in batch.records if (found := _SENT.search(one.line()))]
        self.lags += [(now - moment) / 1e9 for moment in sent]


# -- the measurements, each in its own process
# ----------------------------------------------------------------------------


def speed(listed: int, watched: int) -> dict[str, Any]:
    """Measure the source with gzip segments and enrichment from a filled cache."""
    with replayed(listed=listed, watched=watched, objects=300) as api, tempfile.TemporaryDirectory() as folder:
        enricher = Enricher(api, qps=1e6, burst=1_000_000, wait=60.0)
        wall, processor = time.perf_counter(), time.process_time()
        exporter = exported(api, FileSink(folder), lambda exporter: taken(exporter) >= listed + watched, enricher)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    [sink] = exporter.statistics().destinations
    return {
        "events": sink.written,
        "wall": listed + watched and (listed + watched) / wall,
        "processor": (listed + watched) / processor,
        "hits": enricher.statistics().kube_api_read_cache_hits / sink.written,
        "bytes": sink.bytes / sink.written,
        "peak": peak(),
    }


def enrichment(events: int) -> dict[str, Any]:
    """Measure the processor time of the enricher for each record: that of an export with it, less one without."""

    def processor(*, enriched: bool) -> float:
        with replayed(watched=events, objects=300) as api, tempfile.TemporaryDirectory() as folder:
            enricher = Enricher(api, qps=1e6, burst=1_000_000, wait=60.0) if enriched else None
            begun = time.process_time()
            exported(api, FileSink(folder), lambda exporter: taken(exporter) >= events, enricher)
            return (time.process_time() - begun) / events

    processor(enriched=True)  # the first run imports and warms up
    without = processor(enriched=False)
    return {"events": events, "with": processor(enriched=True), "without": without}


def lag(rate: float, seconds: int, max_age: float) -> dict[str, Any]:
    """Measure the time from an event's creation to its durability, at a steady rate."""
    events = int(rate * seconds)
    with replayed(watched=events, rate=rate, objects=300) as api, tempfile.TemporaryDirectory() as folder:
        sink = Timed(folder)
        destination = Destination(sink, BatchOptions(max_items=100_000, max_age=max_age))
        exported(api, destination, lambda _: len(sink.lags) >= events * 0.95, Enricher(api, qps=1e4, burst=1000))
    lags = sorted(sink.lags)
    return {"p50": lags[len(lags) // 2], "p99": lags[len(lags) * 99 // 100], "most": lags[-1], "events": len(lags)}


def dead(events: int, when_full: str) -> dict[str, Any]:
    """Measure the memory of an export whose only sink accepts nothing while events arrive."""
    sink = Dead()
    still: list[int] = []

    def comes_to_rest(exporter: Exporter) -> bool:
        """True once reading has stopped or everything is dropped. Then the sink recovers and accepts the rest."""
        still.append(exporter.statistics().streams[0].read)
        quiet = len(still) > 200 and still[-1] == still[-200] > 0
        sink.alive = sink.alive or quiet
        return sink.alive and taken(exporter) >= events and not exporter.statistics().destinations[0].waiting

    with replayed(watched=events, objects=300) as api:
        before = peak()
        exporter = exported(api, Destination(sink, when_full=when_full), comes_to_rest)  # type: ignore[arg-type]
    [seen] = exporter.statistics().destinations
    blocked = next(read for index, read in enumerate(still) if index > 200 and read == still[index - 199])
    return {"before": before, "peak": peak(), "read": blocked, "written": seen.written, "dropped": seen.dropped}


def cold(events: int) -> dict[str, Any]:
    """Measure the memory of a first start with `events` live events."""
    with replayed(listed=events, objects=3000) as api, tempfile.TemporaryDirectory() as folder:
        before = peak()
        enricher = Enricher(api)
        exporter = exported(api, FileSink(folder), lambda exporter: taken(exporter) >= events, enricher)
    [seen] = exporter.statistics().destinations
    return {"before": before, "peak": peak(), "written": seen.written}


MEASURES: Final[dict[str, tuple[Callable[..., dict[str, Any]], dict[str, Any]]]] = {
    "speed watched": (speed, {"listed": 0, "watched": MANY}),
    "speed listed": (speed, {"listed": MANY, "watched": 0}),
    "enrichment": (enrichment, {"events": MANY // 4}),
    "lag": (lag, {"rate": 500.0, "seconds": 30, "max_age": 1.0}),
    "dead block": (dead, {"events": TEN_MINUTES, "when_full": "block"}),
    "dead drop": (dead, {"events": TEN_MINUTES, "when_full": "drop"}),
    "cold": (cold, {"events": 100_000}),
}


# -- the table -------------------------------------------------------------------------------------------------------


def _speed_row(path: str) -> Callable[[dict[str, Any]], tuple[str, str, str]]:
    def row(found: dict[str, Any]) -> tuple[str, str, str]:
        what = f"source ({path}) to gzip file, {found['events']:,} events of {found['bytes']:.0f} bytes, enriched"
        got = f"{found['wall']:,.0f} events/s; {found['processor']:,.0f} a second of processor time"
        return what, "≥ 10,000 events/s", f"{got}; {found['hits']:.1%} cache hits"

    return row


ROWS: Final[dict[str, Callable[[dict[str, Any]], tuple[str, str, str]]]] = {
    "speed watched": _speed_row("watch"),
    "speed listed": _speed_row("list"),
    "enrichment": lambda found: (
        f"processor time of the enricher for each of {found['events']:,} records about 300 objects",
        "",
        f"{(found['with'] - found['without']) * 1e6:.0f} µs, of {found['with'] * 1e6:.0f} µs for the whole export",
    ),
    "lag": lambda found: (
        f"lag at 500/s, `max_age` 1 s, {found['events']:,} events",
        "p99 ≤ 1.2 s",
        f"p50 {found['p50']:.2f} s, p99 {found['p99']:.2f} s, longest {found['most']:.2f} s",
    ),
    "dead block": lambda found: (
        "memory, the sink dead for 300,000 events (10 min at 500/s), `block`",
        "< 150 MB",
        f"{found['peak']} MB; {found['read']:,} read, then no more; {found['written']:,} written after it recovered",
    ),
    "dead drop": lambda found: (
        "the same with `drop`",
        "< 150 MB",
        f"{found['peak']} MB; {found['dropped']:,} dropped and counted",
    ),
    "cold": lambda found: (
        "memory, first start among 100,000 live events",
        "< 300 MB",
        f"{found['peak']} MB, of which {found['before']} MB were there before",
    ),
}


def measured(name: str) -> dict[str, Any]:
    """Measure in a separate process."""
    command = [sys.executable, "-m", "tests.export.figures", "--one", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> str:
    """Return a description of the machine."""
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors ({platform.machine()}), "
        f"Python {platform.python_version()}, load before and during it {busy}"
    )


def main(arguments: list[str]) -> None:
    """Measure and print the table."""
    if arguments[:1] == ["--one"]:
        logging.disable()
        function, options = MEASURES[" ".join(arguments[1:])]
        sys.stdout.write(json.dumps(function(**options)) + "\n")
        return
    lines = ["| figure | aim | found |", "| --- | --- | --- |"]
    for name in arguments or MEASURES:
        lines.append("| " + " | ".join(ROWS[name](measured(name))) + " |")
        sys.stderr.write(f"{lines[-1]}\n")
    sys.stdout.write("\n".join([*lines, "", machine(), ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
