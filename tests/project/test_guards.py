"""The cost of work in deterministic counts: objects kept, lookups, requests and connections. Never in time."""

from __future__ import annotations

import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import kevents
from kevents import DropReason, ObjectReference
from tests.bench.ours import api_for, deliver
from tests.bench.rig import serving
from tests.bench.subjects import NEVER_SKIPPED, event, manifest, reference
from tests.support.collector import no_collection
from tests.support.sinks import PATIENCE, Gate, ScriptedSink

NUMBER = 1_000
COUNTS_HASHES = pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python 3.14 keeps the hash of a tuple")


# -- memory kept by a call -------------------------------------------------------------------------------------------


@pytest.fixture
def held() -> Iterator[kevents.EventRecorder]:
    """A recorder whose watcher is blocked on its first event, so that all other events stay in the queue."""
    gate = Gate(shut=True)
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(gate.pass_through)
        recorder = broadcaster.new_recorder("guards")
        recorder.event(reference(), "Normal", "First", "is held")
        gate.wait_entered()
        yield recorder
        gate.open()


def blocks_kept(record: Callable[[], None]) -> int:
    """The number of memory blocks that each of 1,000 calls keeps, after a warm-up."""
    for _ in range(10):
        record()
    gc.collect()
    with no_collection():
        before = sys.getallocatedblocks()
        for _ in range(NUMBER):
            record()
        return round((sys.getallocatedblocks() - before) / NUMBER)


def test_an_event_about_a_reference_keeps_three_blocks(held: kevents.EventRecorder) -> None:
    """The event, its time and its serial number."""
    about = reference()
    assert blocks_kept(lambda: held.event(about, "Normal", "BackOff", "again")) == 3


def test_an_event_about_a_manifest_keeps_three_blocks(held: kevents.EventRecorder) -> None:
    """The event, its time and its serial number. Equal manifests share a reference."""
    pod = manifest()
    assert blocks_kept(lambda: held.event(pod, "Normal", "BackOff", "again")) == 3


def test_a_bound_recorder_keeps_no_more_than_a_reference(held: kevents.EventRecorder) -> None:
    """The bound recorder creates the reference once."""
    bound = held.for_object(manifest())
    assert blocks_kept(lambda: bound.normal("BackOff", "again")) == 3


# -- lookups by the correlator ---------------------------------------------------------------------------------------


class Counted(str):
    """A string that counts how often it is hashed: once for each lookup of a key that holds it."""

    __slots__ = ("hashed",)

    def __new__(cls, text: str) -> Counted:
        """Start with no hash calls."""
        counted = super().__new__(cls, text)
        counted.hashed = 0
        return counted

    def __hash__(self) -> int:
        """Count the call."""
        self.hashed += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        """Compare as a plain string does."""
        return super().__eq__(other)


def lookups(correlator: kevents.EventCorrelator, name: str = "web-0", message: str = "again") -> int:
    """The number of times that the correlator hashes the name of the event's object."""
    counted = Counted(name)
    correlator.event_correlate(event_about(pod(counted), message))
    return counted.hashed


def pod(name: str) -> ObjectReference:
    """A reference to a pod."""
    return ObjectReference(kind="Pod", api_version="v1", namespace="prod", name=name)


def event_about(about: ObjectReference, message: str) -> kevents.Event:
    """An event about this object."""
    given = event(1)
    return kevents.Event(
        reference=about,
        type=given.type,
        reason=given.reason,
        message=message,
        source=given.source,
        time=given.time,
        serial=given.serial,
        name="web-0.1",
    )


@pytest.fixture
def correlator() -> kevents.EventCorrelator:
    """A correlator that skips nothing, and has seen one event."""
    correlator = kevents.EventCorrelator(kevents.CorrelatorOptions(burst_size=NEVER_SKIPPED))
    lookups(correlator)
    return correlator


@COUNTS_HASHES
def test_a_storm_is_one_look_up_a_memory(correlator: kevents.EventCorrelator) -> None:
    """In a storm, each of three caches has the entry, and it is already the most recent one: no cache is written."""
    assert [lookups(correlator) for _ in range(3)] == [3, 3, 3]


@COUNTS_HASHES
def test_a_repeat_is_two_look_ups_a_memory(correlator: kevents.EventCorrelator) -> None:
    """A repeated event is found in each cache, and moved to the most recent position."""
    lookups(correlator, name="web-1")
    assert [lookups(correlator, name=f"web-{number % 2}") for number in range(3)] == [6, 6, 6]


@COUNTS_HASHES
def test_a_skip_costs_what_a_repeat_costs() -> None:
    """Exceeding the rate limit costs no further lookup."""
    correlator = kevents.EventCorrelator(kevents.CorrelatorOptions(burst_size=1))
    assert [lookups(correlator) for _ in range(3)] == [6, 3, 3]
    assert correlator.event_correlate(event_about(pod("web-0"), "again")).skip


@COUNTS_HASHES
def test_a_combined_event_costs_what_a_repeat_costs(correlator: kevents.EventCorrelator) -> None:
    """Combining costs no further lookup from the second combined event on: its key has one text more."""
    for number in range(20):
        lookups(correlator, message=f"number {number}")
    assert lookups(correlator, message="a new one") == 3


@COUNTS_HASHES
def test_a_new_object_is_two_look_ups_a_memory(correlator: kevents.EventCorrelator) -> None:
    """A new object is a miss and a write in each cache."""
    assert lookups(correlator, name="web-1") == 6


# -- requests in a storm ---------------------------------------------------------------------------------------------


class Filtered:
    """An `on_drop` function that counts the rate-limited events and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self._events: Counter[DropReason] = Counter()
        self._changed = threading.Condition()

    def __call__(self, reason: DropReason, event: kevents.Event | None, events: int) -> None:
        """Count the events."""
        with self._changed:
            self._events[reason] += events
            self._changed.notify_all()

    def wait_for(self, number: int) -> None:
        """Wait until that number of events was filtered, and no other event was lost."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._events.total() >= number, PATIENCE), self._events
            assert self._events == {DropReason.SPAM_FILTERED: number}


def storm(events: int, text: Callable[[int], str], passed: int) -> list[Any]:
    """Record a storm about one object while its first create is in flight. Returns all requests."""
    sink, filtered = ScriptedSink(gate=Gate(shut=True)), Filtered()
    with kevents.EventBroadcaster(on_drop=filtered) as broadcaster:
        broadcaster.start_recording_to_sink(sink, senders=1)
        recorder, about = broadcaster.new_recorder("guards"), reference()
        recorder.event(about, "Warning", "BackOff", text(0))
        sink.gate.wait_entered()
        for number in range(1, events):
            recorder.event(about, "Warning", "BackOff", text(number))
        filtered.wait_for(events - passed)
        sink.gate.open()
        assert broadcaster.flush(PATIENCE)
    return [(call.verb, call.count) for call in sink.calls]


@COUNTS_HASHES
def test_a_storm_of_one_event_is_two_requests() -> None:
    """5,000 identical events: 25 pass the rate limit, one creates the object, and one patch has the full count."""
    assert storm(5_000, lambda _: "again", passed=25) == [("create", 1), ("patch", 5_000)]


@COUNTS_HASHES
def test_a_storm_of_messages_is_ten_requests() -> None:
    """5,000 different messages: nine separate events, and one combined event for all others."""
    expected = [("create", 1)] * 9 + [("create", 4_991)]
    assert storm(5_000, "number {}".format, passed=25) == expected


# -- connections -----------------------------------------------------------------------------------------------------


@pytest.mark.wire
@pytest.mark.parametrize("senders", [1, 4])
def test_one_connection_for_each_sender(senders: int) -> None:
    """Each sender keeps its own connection for all of its requests."""
    with serving() as server:
        deliver(kevents.CoreV1EventSink(api_for(f"{server.url}/20")), 12 * senders, senders)
        counted = server.counters()
    assert (counted["created"], counted["connections"]) == (14 * senders, senders + 1)
