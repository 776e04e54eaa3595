"""The cost for the application: the work of its other threads during recording, and the duration of `event()`."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import monotonic, perf_counter, sleep
from typing import Any, Final

import kevents
from tests.bench.ours import sink_for
from tests.bench.rig import Server, say, serving
from tests.bench.subjects import SOURCE, manifest, realistic

__all__ = ["measure", "tables"]

RATES: Final = (100, 1_000, 10_000)
CALLERS: Final = 16
CALLER_RATE: Final = 100
_SECONDS: Final = 0.6
_ROUNDS: Final = 8
_LATENCY_SECONDS: Final = 10.0
_TICK: Final = 0.002
_DELAY: Final = 5
_DEAD: Final = 1_000_000
"""Delays of the server in milliseconds: a working one, and one that never answers."""

Record = Callable[[int], None]


def burn(ended: Callable[[], bool]) -> int:
    """Do CPU-bound work and return the amount done."""
    done = 0
    while not ended():
        for _ in range(1000):
            done += 1
    return done


def talk(ended: Callable[[], bool]) -> int:
    """Do work that yields the CPU at each step and return the amount done."""
    source, target = os.pipe()
    done = 0
    while not ended():
        for _ in range(50):
            os.write(target, b"x")
            os.read(source, 1)
            done += 1
    os.close(source)
    os.close(target)
    return done


WORK: Final = {"computing": burn, "talking": talk}


def throughput(work: Callable[[Callable[[], bool]], int], rate: int, record: Record) -> float:
    """Return the work done per second while another thread calls `record` at a rate."""
    ended = threading.Event()
    pacer = threading.Thread(target=pace, args=(rate, record, ended.is_set))
    pacer.start()
    begun = monotonic()
    done = work(lambda: monotonic() - begun > _SECONDS)
    seconds = monotonic() - begun
    ended.set()
    pacer.join()
    return done / seconds


def pace(rate: int, record: Record, ended: Callable[[], bool]) -> None:
    """Call `record` `rate` times a second, several times in a row if needed."""
    begun, number = monotonic(), 0
    while not ended():
        due = int((monotonic() - begun) * rate)
        while number < due and not ended():
            record(number)
            number += 1
        sleep(max(_TICK, 1 / rate))


@contextmanager
def recording(server: Server, delay: int = _DELAY) -> Iterator[tuple[Record, kevents.EventBroadcaster]]:
    """Yield a function that records events of the realistic mix and a broadcaster that writes them to the server."""
    mix = realistic(60_000)
    manifests = [manifest(number) for number in range(300)]
    broadcaster = kevents.EventBroadcaster()
    broadcaster.start_recording_to_sink(sink_for(f"{server.url}/{delay}"))
    recorder = broadcaster.new_recorder(SOURCE)

    def record(number: int) -> None:
        about, reason, message = mix[number % len(mix)]
        recorder.event(manifests[about], "Normal", reason, message)

    try:
        yield record, broadcaster
    finally:
        broadcaster.shutdown(0.5)


def beside(name: str, rate: int, server: Server) -> dict[str, Any]:
    """Return the share of the work that is left while events are recorded, from rounds with and without recording."""
    shares = []
    before = requests(server)
    with recording(server) as (record, broadcaster):
        for _ in range(_ROUNDS):
            beside_events = throughput(WORK[name], rate, record)
            broadcaster.flush()
            shares.append(beside_events / throughput(WORK[name], rate, lambda _: None))
        recorded = broadcaster.statistics().recorded
    written = (requests(server) - before) / recorded
    return {"work": name, "rate": rate, "left": median(shares), "written": written}


def requests(server: Server) -> int:
    """Return the number of writes the server has answered."""
    counters = server.counters()
    return counters["created"] + counters["patched"]


def latencies(record: Record) -> list[float]:
    """Return the duration of each call in microseconds, for 16 threads with 100 calls a second each."""
    found: list[list[float]] = [[] for _ in range(CALLERS)]
    crew = [threading.Thread(target=_call, args=(record, which, calls)) for which, calls in enumerate(found)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return sorted(call for calls in found for call in calls)


def _call(record: Record, which: int, calls: list[float]) -> None:
    begun = monotonic() + which / (CALLERS * CALLER_RATE)
    for number in range(round(_LATENCY_SECONDS * CALLER_RATE)):
        sleep(max(begun + number / CALLER_RATE - monotonic(), 0.0))
        before = perf_counter()
        record(number * CALLERS + which)
        calls.append((perf_counter() - before) * 1e6)


def call_times(title: str, delay: int, server: Server) -> dict[str, Any]:
    """Return percentiles of the call duration and the longest garbage collection, with a working or dead sink."""
    with recording(server, delay) as (record, _), collections() as pauses:
        found = latencies(record)
    return {"sink": title, "calls": len(found), **percentiles(found), "collector": max(pauses, default=0.0)}


@contextmanager
def collections() -> Iterator[list[float]]:
    """Yield the durations of garbage collections during the block, in microseconds."""
    pauses: list[float] = []
    begun = 0.0

    def heard(phase: str, _: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = perf_counter()
        else:
            pauses.append((perf_counter() - begun) * 1e6)

    gc.callbacks.append(heard)
    try:
        yield pauses
    finally:
        gc.callbacks.remove(heard)


@contextmanager
def frozen() -> Iterator[None]:
    """Exclude all existing objects from garbage collection."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def percentiles(found: list[float]) -> dict[str, float]:
    """Return percentiles of sorted values."""
    places = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {name: found[min(int(len(found) * place), len(found) - 1)] for name, place in places.items()} | {
        "worst": found[-1]
    }


def measure() -> dict[str, Any]:
    """Run all measurements."""
    logging.getLogger("kevents").setLevel(logging.CRITICAL)  # dropped events at the end of a measurement are expected
    with serving() as server:
        shares = []
        for name in WORK:
            for rate in RATES:
                say(f"cost: {name} beside {rate} events a second")
                shares.append(beside(name, rate, server))
        say("cost: the time of a call")
        nothing = percentiles(latencies(lambda _: None))
        times = [{"sink": "none: an empty function", "calls": 0, **nothing, "collector": 0.0}]
        times.append(call_times("answers after 5 ms", _DELAY, server))
        times.append(call_times("never answers", _DEAD, server))
        with frozen():
            times.append(call_times("never answers, after `gc.freeze()`", _DEAD, server))
    return {"left": shares, "calls": times}


def tables(found: dict[str, Any]) -> str:
    """Return one table for the work that is left and one for the calls."""
    lines = ["| work of another thread | events/s | work left | requests per event |", "| --- " * 4 + "|"]
    lines += [
        f"| {row['work']} | {row['rate']:,} | {row['left'] * 100:.1f} % | {row['written']:.2f} |"
        for row in found["left"]
    ]
    lines += ["", "| sink | p50 | p99 | p99.9 | worst | longest collection |", "| --- " * 6 + "|"]
    for row in found["calls"]:
        cells = " | ".join(f"{row[name]:,.0f} µs" for name in ("p50", "p99", "p99.9", "worst", "collector"))
        lines.append(f"| {row['sink']} | {cells} |")
    return "\n".join(lines)
