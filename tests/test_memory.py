"""Memory use with a server that never answers: bounded by the options, and events beyond the bounds are counted."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from typing import Any

import pytest

import kevents
from tests.support.load import check_ended

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EVENTS = 100_000
QUEUE = 2_000
BACKLOG = 500
EVENT_BYTES = 1_500
"""An upper bound of a waiting event: itself, its reference, message, slot and places in the queues."""
KEY_BYTES = 2_000
"""An upper bound of one key in the correlator's three caches."""
REST_BYTES = 2_000_000
"""An upper bound of all memory that does not depend on the load: threads, code objects, formatted times."""


class DeadSink:
    """Blocks until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.entered = threading.Event()

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Wait for the end of the test."""
        self.entered.set()
        self.over.wait()
        raise ConnectionResetError("it was dead")

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Wait for the end of the test."""
        self.create(namespace, patch)


class RefusingSink:
    """Refuses every connection."""

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Refuse."""
        raise ConnectionRefusedError("nobody listens")

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Refuse."""
        self.create(namespace, patch)


def record(recorder: kevents.EventRecorder, number: int) -> None:
    """Record an event with a new object, reason and message."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "prod", "name": f"web-{number}", "uid": f"{number}"},
    }
    recorder.event(pod, "Warning", f"Reason{number}", f"{number}: {'m' * 200}")


class Lost:
    """Counts the calls of `on_drop`."""

    def __init__(self) -> None:
        self.by_reason: dict[kevents.DropReason, int] = {}
        self._lock = threading.Lock()

    def __call__(self, reason: kevents.DropReason, event: kevents.Event | None, events: int) -> None:
        """Count the loss."""
        with self._lock:
            self.by_reason[reason] = self.by_reason.get(reason, 0) + events


@pytest.mark.parametrize("kind", [DeadSink, RefusingSink])
def test_memory_is_bounded(kind: type[DeadSink | RefusingSink]) -> None:
    """Pitfalls 4, 48: the options bound how many of 100,000 different events are held. Every other event is counted."""
    sink, lost, options = kind(), Lost(), kevents.CorrelatorOptions(lru_cache_size=BACKLOG)
    broadcaster = kevents.EventBroadcaster(queue_length=QUEUE, correlator_options=options, on_drop=lost)
    watcher = broadcaster.start_recording_to_sink(sink, backlog=BACKLOG)
    recorder = broadcaster.new_recorder("memory")
    record(recorder, -1)
    bound = (QUEUE + BACKLOG + watcher.handler.batch_size) * EVENT_BYTES + BACKLOG * KEY_BYTES + REST_BYTES
    gc.collect()
    tracemalloc.start()
    try:
        begin, _ = tracemalloc.get_traced_memory()
        for number in range(EVENTS):
            record(recorder, number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    print(f"\n{kind.__name__}: {(peak - begin) / 1e6:.1f} MB at most, bound {bound / 1e6:.1f} MB")  # noqa: T201
    assert peak - begin < bound

    if isinstance(sink, DeadSink):
        sink.over.set()
    given_up = broadcaster.shutdown(2)
    found = broadcaster.statistics()
    check_ended(found, EVENTS + 1)
    assert sum(found.dropped.values()) == EVENTS + 1
    assert found.dropped[kevents.DropReason.SHUTDOWN] == given_up
    assert found.dropped == lost.by_reason
    assert BACKLOG <= given_up < BACKLOG + QUEUE


def test_events_of_a_dead_sink_are_let_go() -> None:
    """After shutdown none of 20,000 events is held, although the recorder still exists."""
    broadcaster = kevents.EventBroadcaster(queue_length=20_000)
    broadcaster.start_recording_to_sink(RefusingSink())
    recorder = broadcaster.new_recorder("let-go")
    for number in range(20_000):
        record(recorder, number)
    broadcaster.shutdown(0)
    for thread in threading.enumerate():
        if thread.name.startswith("kevents"):
            thread.join(60)
    gc.collect()
    events = [thing for thing in gc.get_objects() if isinstance(thing, kevents.Event)]
    check_ended(broadcaster.statistics(), 20_000)
    assert sum(event.source is recorder.source for event in events) == 0
