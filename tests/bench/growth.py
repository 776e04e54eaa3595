"""Time and memory of an event by the number of objects, threads, watchers and broadcasters."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from contextlib import ExitStack
from statistics import median
from time import perf_counter, process_time
from typing import Any, Final

import kevents
from tests.bench.rig import say
from tests.bench.subjects import NEVER_SKIPPED, SOURCE, event, manifest, reference

__all__ = ["measure", "tables"]

OBJECTS: Final = (10, 100, 1_000, 4_000, 10_000, 100_000)
THREADS: Final = (1, 4, 16, 64)
WATCHERS: Final = (1, 4, 16)
BROADCASTERS: Final = (1, 2, 4, 8)
_EVENTS: Final = 50_000
_BURST: Final = 500
_REPEATS: Final = 3
_MICRO: Final = 1e6
_ROOM: Final = 1_000_000

Row = dict[str, Any]


def by_objects(objects: int) -> Row:
    """Correlate 50,000 events, or two for each object, about `objects` objects in turns."""
    number = max(_EVENTS, 2 * objects)
    events = [event(serial, about=serial % objects) for serial in range(number)]
    found = []
    for _ in range(_REPEATS):
        decide = kevents.EventCorrelator(kevents.CorrelatorOptions(burst_size=NEVER_SKIPPED)).event_correlate
        begun = perf_counter()
        for each in events:
            decide(each).patch  # noqa: B018 - the property builds the patch
        found.append((perf_counter() - begun) / number * _MICRO)
    kept, keys = correlator_bytes(objects)
    return {
        "objects": objects,
        "us": median(found),
        "keys": keys,
        "bytes_per_key": kept / keys,
        "bytes_per_event": kept / number,
    }


def correlator_bytes(objects: int) -> tuple[int, int]:
    """Return the bytes a correlator keeps for one event about each of `objects` objects, and the number of its keys."""
    correlator = kevents.EventCorrelator(kevents.CorrelatorOptions(burst_size=NEVER_SKIPPED))
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for about in range(objects):
            correlator.event_correlate(event(about, about=about))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size, _ = correlator.caches["observe"]
    return after - before, size


class Held:
    """An event handler that blocks until it is released."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def __call__(self, _: kevents.Event) -> None:
        """Wait for the release."""
        self.over.wait()


def queued_bytes(obj: object, number: int = 20_000) -> float:
    """Return the bytes of an event that waits in a mailbox."""
    held = Held()
    with kevents.EventBroadcaster(queue_length=_ROOM) as broadcaster:
        broadcaster.start_event_watcher(held)
        recorder = broadcaster.new_recorder(SOURCE)
        recorder.event(obj, "Normal", "BackOff", "the first")
        gc.collect()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(number):
                recorder.event(obj, "Normal", "BackOff", "back-off restarting failed container")
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            held.over.set()
    return (after - before) / number


def emit(*, threads: int = 1, watchers: int = 1, broadcasters: int = 1, number: int = 32_000) -> Row:
    """Record `number` events from several threads without pauses until every watcher has handled them.

    Returns:
        Microseconds for each event: wall time until the last call has returned, and CPU time until all are handled.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(kevents.EventBroadcaster(queue_length=_ROOM)) for _ in range(broadcasters)]
        for broadcaster in opened:
            for _ in range(watchers):
                broadcaster.start_event_watcher(lambda _: None)
        recorders = [broadcaster.new_recorder(SOURCE) for broadcaster in opened]
        share = number // threads
        crew = [threading.Thread(target=_record, args=(recorders, share)) for _ in range(threads)]
        begun, used = perf_counter(), process_time()
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        called = perf_counter() - begun
        for broadcaster in opened:
            broadcaster.flush()
        handled = process_time() - used
        published = sum(broadcaster.statistics().published for broadcaster in opened)
    assert published == share * threads
    return {
        "threads": threads,
        "watchers": watchers,
        "broadcasters": broadcasters,
        "caller_us": called / published * _MICRO,
        "cpu_us": handled / published * _MICRO,
    }


def _record(recorders: list[kevents.EventRecorder], number: int) -> None:
    about = reference()
    for serial in range(number):
        recorders[serial % len(recorders)].event(about, "Normal", "BackOff", "back-off restarting failed container")


def measure() -> dict[str, Any]:
    """Run all measurements."""
    found: dict[str, Any] = {}
    say("growth: objects")
    found["objects"] = [by_objects(objects) for objects in OBJECTS]
    say("growth: threads, watchers, broadcasters")
    emit()  # warm-up
    rounds = [_emit_all() for _ in range(_REPEATS)]
    for kind in rounds[0]:
        found[kind] = [_median_row(rows) for rows in zip(*(each[kind] for each in rounds), strict=True)]
    found["queued_bytes"] = {"reference": queued_bytes(reference()), "dictionary": queued_bytes(manifest())}
    return found


def _emit_all() -> dict[str, list[Row]]:
    return {
        "threads": [emit(threads=threads) for threads in THREADS],
        "watchers": [emit(watchers=watchers) for watchers in WATCHERS],
        "broadcasters": [emit(broadcasters=broadcasters) for broadcasters in BROADCASTERS],
    }


def _median_row(rows: tuple[Row, ...]) -> Row:
    return {name: median(row[name] for row in rows) for name in rows[0]}


def tables(found: dict[str, Any]) -> str:
    """Return the table for the objects; threads, watchers and broadcasters are in the plot."""
    lines = ["| objects | µs per event | keys kept | bytes per key | bytes per event |", "| --- " * 5 + "|"]
    lines += [
        f"| {row['objects']:,} | {row['us']:.2f} | {row['keys']:,} | {row['bytes_per_key']:.0f} "
        f"| {row['bytes_per_event']:.0f} |"
        for row in found["objects"]
    ]
    told = ", ".join(f"{size:.0f} B about a {kind}" for kind, size in found["queued_bytes"].items())
    return "\n".join([*lines, "", f"Memory of an event in a watcher's queue: {told}."])
