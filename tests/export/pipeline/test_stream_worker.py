"""A stream worker reads, enriches, routes and counts each record."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic

import pytest
from tenacity import wait_none

from kevents._runtime.log import LimitedLog
from kevents.export import Chunk, Record
from kevents.export._model.options import BatchOptions, Destination, QueueOptions
from kevents.export._model.statistics import StreamStatistics
from kevents.export._pipeline.destination_worker import DestinationWorker
from kevents.export._pipeline.stream_worker import BoundedQueue, StreamWorker, pieces
from tests.export.doubles import (
    PATIENCE,
    STREAM,
    By,
    Everywhere,
    MemoryDeadLetters,
    MemorySink,
    ScriptedStream,
    chunk,
    position,
    record,
    records,
)
from tests.support.sinks import Gate


class Rig:
    """A stream, its worker, and destination workers with in-memory sinks."""

    def __init__(
        self, stream: ScriptedStream, router: Everywhere | By, sinks: dict[str, MemorySink], **parts: object
    ) -> None:
        self.errors: list[BaseException] = []
        self.sinks = sinks
        self.letters = MemoryDeadLetters()
        queue = parts.pop("queue", QueueOptions())
        log = LimitedLog()
        self.workers = {
            name: DestinationWorker(
                name,
                Destination(sink, BatchOptions(max_age=0.001), queue, retry_wait=wait_none()),  # type: ignore[arg-type]
                None,
                log,
            )
            for name, sink in sinks.items()
        }
        enricher = parts.get("enricher")
        letters = self.letters if parts.get("letters", True) else None
        self.worker = StreamWorker(stream, self.workers, router, enricher, letters, log, self.errors.append)  # type: ignore[arg-type]

    @contextmanager
    def running(self) -> Iterator[Rig]:
        """Run the workers, and stop them when everything is written."""
        for worker in self.workers.values():
            worker.start([STREAM], self.errors.append)
            assert worker.begun.wait(PATIENCE)
            worker.begin(STREAM, None)
        self.worker.start(None)
        try:
            yield self
        finally:
            self.end()

    def end(self) -> None:
        """Stop all threads and check the statistics."""
        self.worker.stop()
        assert self.worker.join(monotonic() + PATIENCE)
        for worker in self.workers.values():
            worker.flush_now()
            worker.stop()
            assert worker.join(PATIENCE)
        check(self.worker.statistics())


def check(seen: StreamStatistics) -> None:
    """Check that each record read is counted exactly once."""
    assert seen.routed + seen.unrouted + seen.failed + seen.waiting == seen.read, seen


def by_rv(record: Record) -> Sequence[str]:
    """Route even ones to `even` and those above ten to `large`."""
    return [name for name, wanted in (("even", record.rv % 2 == 0), ("large", record.rv > 10)) if wanted]


def test_routed_and_in_order() -> None:
    """Each destination receives the records of its routes in order, and the stream's position."""
    stream = ScriptedStream([chunk(1, 7), chunk(8, 14), Chunk([], position(20))])
    with Rig(stream, By(by_rv), {"even": MemorySink(), "large": MemorySink()}).running() as rig:
        rig.sinks["large"].wait(lambda: 14 in rig.sinks["large"].rvs())
    assert rig.sinks["even"].rvs() == [2, 4, 6, 8, 10, 12, 14]
    assert rig.sinks["large"].rvs() == [11, 12, 13, 14]
    seen = rig.worker.statistics()
    assert (seen.read, seen.routed, seen.unrouted, seen.waiting, seen.deliveries) == (14, 9, 5, 0, 11)
    assert position(20) == seen.position == rig.sinks["even"].positions[STREAM] == rig.sinks["large"].positions[STREAM]
    assert rig.errors == []


class Enricher:
    """Adds a key to each body and fails at given records."""

    def __init__(self, *failing: int) -> None:
        self._failing = failing
        self.threads: set[str] = set()

    def start(self) -> None:
        """Do nothing."""

    def enrich(self, records: Sequence[Record]) -> None:
        """Enrich the bodies."""
        self.threads.add(threading.current_thread().name)
        for one in records:
            if one.rv in self._failing:
                raise ValueError("a bug")
            one.body["enriched"] = True

    def close(self) -> None:
        """Do nothing."""


def test_completed_before_it_is_routed() -> None:
    """Records are enriched before they are routed, in one thread."""
    enricher = Enricher()
    router = By(lambda record: ["all"] if record.body.get("enriched") else [])
    stream = ScriptedStream([chunk(1, 3), chunk(4, 5)])
    with Rig(stream, router, {"all": MemorySink()}, enricher=enricher).running() as rig:
        rig.sinks["all"].wait(lambda: len(rig.sinks["all"].rvs()) == 5)
    assert enricher.threads == {"kevents-export-route-all"}


def test_an_enricher_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """If the enricher fails, the records are delivered unchanged."""
    stream = ScriptedStream([chunk(1, 3), chunk(4, 5)])
    with Rig(stream, Everywhere("all"), {"all": MemorySink()}, enricher=Enricher(2)).running() as rig:
        rig.sinks["all"].wait(lambda: len(rig.sinks["all"].rvs()) == 5)
    assert rig.sinks["all"].rvs() == [1, 2, 3, 4, 5]
    assert "the enricher raised ValueError: a bug; the records go on unchanged" in caplog.messages


@pytest.mark.parametrize("answer", [ZeroDivisionError("odd"), ["nowhere"]])
def test_a_route_that_fails(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    """A record that breaks a route or is routed to an unknown sink is dead-lettered. Later records are delivered."""

    def targets(record: Record) -> Sequence[str]:
        if record.rv != 2:
            return ["all"]
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[return-value]

    with Rig(ScriptedStream([chunk(1, 3)]), By(targets), {"all": MemorySink()}).running() as rig:
        rig.sinks["all"].wait(lambda: 3 in rig.sinks["all"].rvs())
    assert rig.sinks["all"].rvs() == [1, 3]
    why = (
        "routing it raised ZeroDivisionError: odd"
        if answer != ["nowhere"]
        else "a route leads to 'nowhere', which is no destination"
    )
    assert rig.letters.letters == [("routes", why, 2)]
    assert (rig.worker.statistics().failed, rig.worker.statistics().routed) == (1, 2)
    assert f"a record could not be routed and is in the dead letters: {why}" in caplog.messages


@pytest.mark.parametrize("letters", [True, False])
def test_a_route_that_fails_without_dead_letters(letters: bool, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001
    """Without working dead letters, the record is lost, counted and logged."""
    router = By(lambda record: ["nowhere"])
    rig = Rig(ScriptedStream([chunk(1, 1)]), router, {"all": MemorySink()}, letters=letters)
    rig.letters.faults[1] = OSError("disk full")
    with rig.running():
        rig.sinks["all"].wait(lambda: True)
    assert rig.worker.statistics().failed == 1
    lost = "lost: the dead letters raised OSError: disk full" if letters else "lost: give dead_letters a path"
    assert f"a record could not be routed and is {lost}" in "".join(caplog.messages)


def test_gaps_are_counted() -> None:
    """A gap is counted as a record and as a gap."""
    gap = record(5)
    gap.body["kevents"]["gap"] = {"why": "expired"}
    stream = ScriptedStream([Chunk([gap, record(6)], position(6))])
    with Rig(stream, Everywhere("all"), {"all": MemorySink()}).running() as rig:
        rig.sinks["all"].wait(lambda: 6 in rig.sinks["all"].rvs())
    assert (rig.worker.statistics().read, rig.worker.statistics().gaps) == (2, 1)


def test_one_that_is_full_keeps_nothing_from_the_others() -> None:
    """A full destination does not delay a chunk for the others. Then reading stops."""
    gate = Gate(shut=True)
    sinks = {"dead": MemorySink(always=lambda _: gate.pass_through()), "well": MemorySink()}
    stream = ScriptedStream([chunk(first, first + 99) for first in range(1, 10_001, 100)])
    with Rig(stream, Everywhere("dead", "well"), sinks, queue=QueueOptions(max_items=100)).running():
        sinks["well"].wait(lambda: 200 in sinks["well"].rvs())
        gate.wait_entered()
        assert stream.given <= 2 + 5 + 2  # two queued, five in the bounded queue, one in each thread
        gate.open()
        sinks["dead"].wait(lambda: 10_000 in sinks["dead"].rvs())
    assert sinks["dead"].rvs() == sinks["well"].rvs() == list(range(1, 10_001))


def test_abandoned_while_it_waits_for_room() -> None:
    """A record that only some destinations accepted counts as waiting."""
    gate = Gate(shut=True)
    sinks = {"dead": MemorySink(always=lambda _: gate.pass_through()), "well": MemorySink()}
    stream = ScriptedStream([chunk(1, 100), chunk(101, 200), chunk(201, 300)])
    with Rig(stream, Everywhere("dead", "well"), sinks, queue=QueueOptions(max_items=100)).running() as rig:
        sinks["well"].wait(lambda: 200 in sinks["well"].rvs())
        gate.wait_entered()
        rig.worker.abandon()
        rig.worker._threads[1].join(PATIENCE)
        gate.open()
    seen = rig.worker.statistics()
    assert (seen.routed, seen.waiting, rig.errors) == (100, seen.read - 100, [])
    assert sinks["dead"].rvs() == [*range(1, 101)]


def test_an_error_of_the_source() -> None:
    """An error of the source is passed to `fail`. Records read before are written."""
    rig = Rig(ScriptedStream([chunk(1, 3)], error=PermissionError("no")), Everywhere("all"), {"all": MemorySink()})
    with rig.running():
        rig.sinks["all"].wait(lambda: 3 in rig.sinks["all"].rvs())
    assert [type(error).__name__ for error in rig.errors] == ["PermissionError"]


def test_a_stream_that_ends_by_itself() -> None:
    """A stream that ends without being stopped is an error, because later events would be lost."""
    stream = ScriptedStream()
    stream.read = lambda *_: iter([chunk(1, 1)])  # type: ignore[method-assign]
    with Rig(stream, Everywhere("all"), {"all": MemorySink()}).running() as rig:
        rig.sinks["all"].wait(lambda: 1 in rig.sinks["all"].rvs())
    assert [str(error) for error in rig.errors] == ["the stream of all namespaces ended without being stopped"]


class Heard(list[BaseException]):
    """A list of errors that sets an event with the first one."""

    def __init__(self, event: threading.Event) -> None:
        super().__init__()
        self._event = event

    def append(self, error: BaseException) -> None:
        """Append an error and set the event."""
        super().append(error)
        self._event.set()


def test_unexpected_error() -> None:
    """An error in the routing thread is passed to `fail` and also ends the reading thread."""
    rig = Rig(ScriptedStream([chunk(1, 3)] * 9), Everywhere("all"), {"all": MemorySink()})
    rig.workers["all"].offer = lambda *_, **__: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    told = threading.Event()
    rig.errors = Heard(told)
    rig.worker._fail = rig.errors.append
    with rig.running():
        assert told.wait(PATIENCE)
    assert [type(error).__name__ for error in rig.errors] == ["ZeroDivisionError"]
    assert rig.worker.statistics().waiting == rig.worker.statistics().read > 0


def test_pieces() -> None:
    """A long chunk is split into pieces with their own positions, but never within one resourceVersion."""
    short = chunk(1, 5)
    assert list(pieces(short, None, 5)) == [short]
    found = list(pieces(Chunk(records(1, 12), position(20, time=3)), position(0, time=2), 5))
    assert [(piece.records[0].rv, piece.records[-1].rv, piece.position) for piece in found] == [
        (1, 5, position(5, time=2)),
        (6, 10, position(10, time=2)),
        (11, 12, position(20, time=3)),
    ]
    twins = Chunk([record(rv) for rv in (1, 2, 2, 2, 3)], position(3))
    assert [[one.rv for one in piece.records] for piece in pieces(twins, None, 2)] == [[1, 2, 2, 2], [3]]
    last = Chunk([record(rv) for rv in (1, 2, 3, 3)], position(9))
    assert [piece.position for piece in pieces(last, None, 3)] == [last.position]


def test_bounded_queue_ends() -> None:
    """A closed queue still returns its chunks, an abandoned one returns none. Both wake waiting threads."""
    between = BoundedQueue(limit=2)
    assert between.put(chunk(1, 2))
    answers: list[bool] = []
    writer = threading.Thread(target=lambda: answers.append(between.put(chunk(3, 4))))
    writer.start()
    between.close()
    writer.join(PATIENCE)
    assert (answers, between.get().position, between.get()) == ([False], chunk(1, 2).position, None)  # type: ignore[union-attr]
    between = BoundedQueue()
    assert between.put(chunk(1, 2))
    between.abandon()
    assert (between.get(), between.put(chunk(3, 3))) == (None, False)
