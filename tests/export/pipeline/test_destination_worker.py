"""A destination worker writes batches in order, one at a time, retries them, and counts every record."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tenacity import stop_after_attempt, wait_fixed, wait_none
from tenacity.wait import wait_base

from kevents._runtime.log import LimitedLog
from kevents.export import Batch, Position, Record, Reject, Retry, Stream
from kevents.export._model.options import RETRY_WAIT, BatchOptions, Destination, QueueOptions
from kevents.export._model.statistics import DestinationStatistics, Progress
from kevents.export._pipeline import destination_worker as _destination_worker
from kevents.export._pipeline.destination_worker import LONGEST_RETRY_AFTER, DestinationWorker
from tests.export.doubles import PATIENCE, STREAM, Clock, MemoryDeadLetters, MemorySink, position, record, records
from tests.support.sinks import Gate

OTHER = Stream("cluster-1", "prod")


def destination(sink: MemorySink, **options: object) -> Destination:
    """Return a destination with batches of two records and immediate retries."""
    chosen = {"batch": BatchOptions(max_items=2), "retry_wait": wait_none(), **options}
    return Destination(sink, **chosen)  # type: ignore[arg-type]


def fail(error: BaseException) -> None:
    """Fail the test: no unexpected error may occur."""
    raise AssertionError from error


@contextmanager
def running_worker(
    sink: MemorySink,
    letters: MemoryDeadLetters | None = None,
    *streams: Stream,
    after: Position | None = None,
    clock: Clock | None = None,
    **options: object,
) -> Iterator[DestinationWorker]:
    """Run a worker. At the end all records are written and the statistics are checked."""
    made = DestinationWorker(
        "archive", destination(sink, **options), letters, LimitedLog(), *([clock] if clock else [])
    )
    made.start(streams or (STREAM,), fail)
    assert made.begun.wait(PATIENCE)
    for stream in streams or (STREAM,):
        made.begin(stream, after)
    try:
        yield made
    finally:
        made.flush_now()
        made.stop()
        ended = made.join(PATIENCE)
        made.abandon()
        assert made.join(PATIENCE)
        check(made.statistics())
    assert ended


def check(seen: DestinationStatistics) -> None:
    """Check that each offered record is counted exactly once."""
    parts = (seen.already_stored, seen.written, seen.dead_lettered, seen.refused, seen.dropped, seen.waiting)
    assert sum(parts) == seen.offered, seen


def offer(to: DestinationWorker, *chunks: list[Record]) -> None:
    """Offer chunks, each with the position of its last record, and wait for space."""
    for chunk in chunks:
        has_space = threading.Event()
        while not to.offer(chunk[0].stream, chunk, position(chunk[-1].rv, chunk[0].stream), has_space):
            assert has_space.wait(PATIENCE)
            has_space.clear()


def test_in_order_and_one_at_a_time() -> None:
    """Batches arrive in order, one at a time. The position follows, and the sink is closed at the end."""
    sink = MemorySink()
    with running_worker(sink) as archive:
        offer(archive, records(1, 3), records(4, 9))
    assert sink.rvs() == list(range(1, 10))
    assert (sink.most_at_once, sink.closed) == (1, 1)
    seen = archive.statistics()
    assert (seen.offered, seen.written, seen.waiting) == (9, 9, 0)
    assert seen.progress == {STREAM: Progress(position(9), position(9))}
    assert seen.bytes == sum(len(one.line()) + 1 for one in records(1, 9))


def test_the_position_waits_for_the_bytes() -> None:
    """The committed position advances only after the sink has returned."""
    gate = Gate(shut=True)
    sink = MemorySink(always=lambda _: gate.pass_through())
    with running_worker(sink) as archive:
        offer(archive, records(1, 2), records(3, 3))
        gate.wait_entered()
        seen = archive.statistics()
        assert seen.progress == {STREAM: Progress(position=position(3), committed=None)}
        assert (seen.waiting, seen.in_flight, seen.written) == (3, 2, 0)
        gate.open()
        sink.wait(lambda: sink.positions)
    assert sink.positions[STREAM] == position(3)


@pytest.mark.parametrize(
    "error",
    [
        Retry("not now"),
        RuntimeError("a bug"),
        OSError(28, "No space left on device"),
        SystemExit(),
        KeyboardInterrupt(),
    ],
)
def test_tried_until_it_has_it(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """After any exception except Reject, the same batch is retried until it succeeds. Later batches wait."""
    sink = MemorySink(faults=dict.fromkeys(range(1, 30), error))
    with caplog.at_level(logging.INFO), running_worker(sink) as archive:
        offer(archive, records(1, 4))
    assert sink.rvs() == [1, 2, 3, 4]
    seen = archive.statistics()
    assert (seen.retries, seen.failing, seen.last_error) == (29, 0, "")
    failed, back = caplog.messages  # one line of each kind for all attempts
    assert "archive does not accept records now; they wait and are retried: " in failed
    assert back == "archive accepts records again after 29 failed attempts"


def test_failing_is_seen_from_outside() -> None:
    """While attempts fail, the statistics have the time and the reason."""
    clock = Clock()
    sink = MemorySink(always=Retry("the bucket is gone"))
    with running_worker(sink, clock=clock, retry_wait=wait_fixed(1000)) as archive:
        offer(archive, records(1, 2))
        sink.wait(lambda: sink.calls and not sink.at_once)
        _until(lambda: archive.statistics().failing)
        clock.now += 50
        seen = archive.statistics()
        assert (seen.failing, seen.last_error, seen.waiting) == (1, "the bucket is gone", 2)
        assert 50.0 <= seen.oldest_age <= seen.silent_for < 50.0 + PATIENCE
        sink.always = None


def _until(what: object) -> None:
    """Wait for a condition that is guarded only by the worker's own lock."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.005)):
        if what():  # type: ignore[operator]
            return
        pause.wait(0.005)
    raise AssertionError


def test_rejected_to_the_dead_letters() -> None:
    """A rejected record is dead-lettered with the reason, the rest is written, and then the position advances."""
    letters = MemoryDeadLetters()
    seen_at_position: list[int] = []

    def refuse(batch: Batch) -> None:
        raise Reject("too long", [one for one in batch.records if one.rv == 2])

    sink = MemorySink(faults={1: refuse, 2: lambda batch: seen_at_position.append(len(letters.letters))})
    with running_worker(sink, letters) as archive:
        offer(archive, records(1, 2))
    assert letters.letters == [("archive", "too long", 2)]
    assert seen_at_position == [1]
    assert sink.batches == [Batch((), position(2))]
    seen = archive.statistics()
    assert (
        seen.written, seen.dead_lettered, seen.refused, seen.progress,
    ) == (1, 1, 0, {STREAM: Progress(position(2), position(2))})  # fmt: skip


def test_rejected_without_dead_letters(caplog: pytest.LogCaptureFixture) -> None:
    """Without dead letters, a rejected record is lost, counted, and logged with the fix."""

    def refuse(batch: Batch) -> None:
        raise Reject("too long", batch.records)

    sink = MemorySink(faults={1: refuse})
    with running_worker(sink) as archive:
        offer(archive, records(1, 2))
    seen = archive.statistics()
    assert (seen.written, seen.refused, sink.positions[STREAM]) == (0, 2, position(2))
    assert "archive refused 2 records, lost: give dead_letters a path: too long" in caplog.messages


def test_dead_letters_that_fail() -> None:
    """Failing dead letters are retried, and the position advances only after they succeed."""
    letters = MemoryDeadLetters(faults={1: Retry("disk full"), 2: OSError("disk full")})

    def refuse(batch: Batch) -> None:
        assert not letters.letters
        raise Reject("no", batch.records)

    sink = MemorySink(faults={1: refuse})
    with running_worker(sink, letters) as archive:
        offer(archive, records(1, 2))
    assert ([rv for _, _, rv in letters.letters], letters.calls) == ([1, 2], 3)
    assert sink.positions[STREAM] == position(2)


def test_a_sink_that_rejects_everything() -> None:
    """A sink that also rejects empty batches causes no endless loop. Unknown records in a rejection are ignored."""
    letters = MemoryDeadLetters()

    def refuse(batch: Batch) -> None:
        raise Reject("never", [*batch.records, record(77)])

    sink = MemorySink(always=refuse)
    with running_worker(sink, letters) as archive:
        offer(archive, records(1, 4))
    assert [rv for _, _, rv in letters.letters] == [1, 2, 3, 4]
    assert (archive.statistics().written, archive.statistics().dead_lettered) == (0, 4)


def test_given_up_when_it_is_asked_to() -> None:
    """With `retry_stop`, a batch that failed too often is dead-lettered and the next one is written."""
    letters = MemoryDeadLetters()
    sink = MemorySink(faults=dict.fromkeys((1, 2, 3), Retry("no")))
    with running_worker(sink, letters, retry_stop=stop_after_attempt(3)) as archive:
        offer(archive, records(1, 4))
    assert letters.letters == [("archive", "given up: Retry: no", rv) for rv in (1, 2)]
    assert sink.rvs() == [3, 4]
    assert (archive.statistics().dead_lettered, archive.statistics().written) == (2, 2)


def test_given_up_in_part() -> None:
    """Fault 33: only the unacknowledged records of a batch that is given up are dead-lettered."""
    letters = MemoryDeadLetters()

    def accept_one(batch: Batch) -> None:
        raise Retry("no", pending=batch.records[1:])

    sink = MemorySink(always=accept_one)
    with running_worker(sink, letters, retry_stop=stop_after_attempt(2)) as archive:
        offer(archive, records(1, 2))
    assert [rv for _, _, rv in letters.letters] == [2]
    seen = archive.statistics()
    assert (seen.written, seen.dead_lettered, seen.waiting) == (1, 1, 0)


def test_block() -> None:
    """A full queue accepts no records and sets the event once it has space."""
    gate = Gate(shut=True)
    sink = MemorySink(always=lambda _: gate.pass_through())
    with running_worker(sink, queue=QueueOptions(max_items=4)) as archive:
        offer(archive, records(1, 4))
        has_space = threading.Event()
        assert not archive.offer(STREAM, records(5, 6), position(6), has_space)
        assert archive.offer(STREAM, [], position(4, time=5), has_space)  # a position needs no space
        gate.wait_entered()
        assert (archive.statistics().offered, archive.statistics().dropped, has_space.is_set()) == (4, 0, False)
        gate.open()
        assert has_space.wait(PATIENCE)
        offer(archive, records(5, 6))
    assert sink.rvs() == [1, 2, 3, 4, 5, 6]


def test_drop(caplog: pytest.LogCaptureFixture) -> None:
    """With `drop`, records that do not fit are dropped, counted and logged. The position passes them."""
    gate = Gate(shut=True)
    sink = MemorySink(always=lambda _: gate.pass_through())
    with running_worker(sink, queue=QueueOptions(max_items=4), when_full="drop") as archive:
        offer(archive, records(1, 7), records(8, 9))
        assert (archive.statistics().offered, archive.statistics().dropped, archive.statistics().waiting) == (9, 5, 4)
        gate.open()
    assert (sink.rvs(), sink.positions[STREAM]) == ([1, 2, 3, 4], position(9))
    assert "dropped 3 records for archive: its queue is full and when_full is 'drop'" in caplog.messages


def test_earlier_content() -> None:
    """Records that the sink already holds are skipped, and its position never goes back."""
    sink = MemorySink(positions={STREAM: position(5)})
    with running_worker(sink, after=position(1)) as archive:
        assert archive.stored[STREAM] == position(5)
        offer(archive, records(2, 3))
        assert archive.statistics().progress == {STREAM: Progress(position(3), position(5))}
        offer(archive, records(4, 7))
    assert sink.rvs() == [6, 7]
    seen = archive.statistics()
    assert (seen.offered, seen.already_stored, seen.written) == (6, 4, 2)


def test_streams_have_positions_of_their_own() -> None:
    """Each stream has its own position."""
    sink = MemorySink(positions={OTHER: position(100, OTHER)})
    with running_worker(sink, None, STREAM, OTHER) as archive:
        offer(archive, records(1, 2), records(99, 102, OTHER))
    assert (sink.rvs(STREAM), sink.rvs(OTHER)) == ([1, 2], [101, 102])
    assert sink.positions == {STREAM: position(2), OTHER: position(102, OTHER)}


def test_asked_until_it_answers() -> None:
    """A sink is asked for its positions until it answers: reading cannot start without them."""
    sink = MemorySink(positions={STREAM: position(3)}, ask_faults=dict.fromkeys(range(1, 20), Retry("no connection")))
    with running_worker(sink) as archive:
        assert (archive.stored[STREAM], archive.unknown) == (position(3), set())


def test_one_that_drops_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    """A sink with `drop` is asked three times, so that a dead sink does not delay the start of the others."""
    sink = MemorySink(ask_faults=dict.fromkeys(range(1, 20), Retry("no connection")))
    with running_worker(sink, when_full="drop") as archive:
        assert (archive.stored[STREAM], archive.unknown, sink.asked) == (None, {STREAM}, 3)
    assert any("archive did not return its position" in line for line in caplog.messages)


def test_one_that_drops_is_asked_again() -> None:
    """It returns its position before its first write, and records below that position are skipped."""
    faults = dict.fromkeys(range(1, 6), Retry("no connection"))
    sink = MemorySink(positions={STREAM: position(5)}, ask_faults=faults)
    with running_worker(sink, when_full="drop") as archive:
        offer(archive, records(1, 2))
        sink.wait(lambda: sink.batches)
        assert (sink.rvs(), sink.positions[STREAM]) == ([], position(5))
        offer(archive, records(3, 7))
    assert (sink.rvs(), sink.positions[STREAM], sink.asked) == ([6, 7], position(7), 6)
    seen = archive.statistics()
    assert (seen.offered, seen.already_stored, seen.written) == (7, 5, 2)
    assert archive.statistics().progress == {STREAM: Progress(position(7), position(7))}


def test_one_that_drops_and_holds_nothing() -> None:
    """Records that arrived before it returned an empty position are written."""
    sink = MemorySink(ask_faults=dict.fromkeys(range(1, 6), Retry("no connection")))
    with running_worker(sink, when_full="drop") as archive:
        offer(archive, records(1, 2))
    assert (sink.rvs(), archive.statistics().already_stored, sink.asked) == ([1, 2], 0, 6)


def test_a_sink_that_never_reports_a_position() -> None:
    """If a sink never returns its position, `retry_stop` applies to its batches as well."""
    sink = MemorySink(ask_faults=dict.fromkeys(range(1, 100), Retry("no connection")))
    letters = MemoryDeadLetters()
    with running_worker(sink, letters, when_full="drop", retry_stop=stop_after_attempt(2)) as archive:
        offer(archive, records(1, 2))
    assert (sink.rvs(), [rv for _, _, rv in letters.letters]) == ([], [1, 2])
    assert archive.statistics().dead_lettered == 2


def test_an_end_that_nothing_hinders() -> None:
    """A worker whose sink always fails can be abandoned.

    Its records count as waiting, and later offers do not block.
    """
    sink = MemorySink(always=Retry("dead"))
    archive = DestinationWorker("archive", destination(sink, queue=QueueOptions(max_items=2)), None, LimitedLog())
    archive.start([STREAM], fail)
    assert archive.begun.wait(PATIENCE)
    archive.begin(STREAM, None)
    offer(archive, records(1, 2))
    archive.abandon()
    assert archive.join(PATIENCE)
    offer(archive, records(3, 4))
    assert (archive.statistics().waiting, archive.statistics().offered, sink.closed) == (4, 4, 1)
    check(archive.statistics())


def test_flush_now_ends_a_long_pause() -> None:
    """`flush_now` cuts a long retry delay short."""
    sink = MemorySink(faults={1: Retry("later", after=50.0)})
    with running_worker(sink) as archive:
        offer(archive, records(1, 2))
        _until(lambda: archive.statistics().failing)
    assert sink.rvs() == [1, 2]


def test_a_write_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """A write that does not return is reported as overdue, and no other write starts."""
    clock = Clock()
    gate = Gate(shut=True)
    sink = MemorySink(always=lambda _: gate.pass_through())
    with running_worker(sink, clock=clock) as archive:
        offer(archive, records(1, 4))
        gate.wait_entered()
        archive.log_overdue()
        assert not archive.statistics().overdue
        clock.now += 61
        archive.log_overdue()
        assert archive.statistics().overdue
        assert 61.0 <= archive.statistics().in_flight_for < 61.0 + PATIENCE
        gate.open()
    assert sink.most_at_once == 1
    assert any(
        re.match(r"archive has not answered a write for 6\d s; the export keeps waiting for it", one)
        for one in caplog.messages
    )


def test_a_sink_that_cannot_be_closed(caplog: pytest.LogCaptureFixture) -> None:
    """An error while closing is logged, and the worker ends."""
    sink = MemorySink()
    sink.close = lambda: (_ for _ in ()).throw(OSError("gone"))  # type: ignore[method-assign]
    with running_worker(sink), caplog.at_level(logging.ERROR):
        pass
    assert caplog.messages == ["closing archive raised OSError: gone"]


def test_unexpected_faults_are_reported() -> None:
    """An unexpected error of the worker is passed to `fail`, and the sink is closed."""
    errors: list[BaseException] = []
    sink = MemorySink()
    archive = DestinationWorker("archive", destination(sink), None, LimitedLog())
    archive._batcher.take = lambda now: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    archive.start([STREAM], errors.append)
    assert archive.join(PATIENCE)
    assert ([type(error) for error in errors], sink.closed) == ([ZeroDivisionError], 1)


def test_one_whose_thread_has_died() -> None:
    """A worker that died wakes waiting stream workers and accepts their records as waiting."""
    gate = Gate(shut=True)
    sink = MemorySink(always=lambda _: gate.pass_through() or 1 / 0)
    sink.final_errors = (ZeroDivisionError,)  # type: ignore[attr-defined]
    errors: list[BaseException] = []
    archive = DestinationWorker("archive", destination(sink, queue=QueueOptions(max_items=2)), None, LimitedLog())
    archive.start([STREAM], errors.append)
    assert archive.begun.wait(PATIENCE)
    archive.begin(STREAM, None)
    has_space = threading.Event()
    offer(archive, records(1, 2))
    assert not archive.offer(STREAM, records(3, 4), position(4), has_space)
    gate.wait_entered()
    gate.open()
    assert has_space.wait(PATIENCE)
    offer(archive, records(3, 4), records(5, 6))
    assert archive.join(PATIENCE)
    assert ([type(error) for error in errors], archive.statistics().waiting) == ([ZeroDivisionError], 6)
    check(archive.statistics())


def test_one_that_never_began() -> None:
    """A worker that was never started still closes its sink."""
    sink = MemorySink()
    archive = DestinationWorker("archive", destination(sink), None, LimitedLog())
    archive.abandon()
    assert (archive.join(0.0), sink.closed) == (True, 1)


class _Broken(wait_base):
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __call__(self, retry_state: object) -> float:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]


class _State:
    """The retry state that tenacity passes to a wait."""

    def __init__(self, error: BaseException, number: int = 1) -> None:
        self.attempt_number = number
        self.outcome = self
        self._error = error

    def exception(self) -> BaseException:
        """Return the exception of the attempt."""
        return self._error


def test_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A valid `after` takes precedence, up to the maximum. A broken wait falls back to the default."""

    def waiting(wait: wait_base) -> Callable[[Any], float]:
        return DestinationWorker("a", destination(MemorySink(), retry_wait=wait), None, LimitedLog())._seconds_to_wait

    monkeypatch.setattr(_destination_worker, "RETRY_WAIT", wait_fixed(9))
    asked = waiting(wait_fixed(7))
    for wish, expected in ((3.0, 3.0), (0.0, 0.0), (1e9, LONGEST_RETRY_AFTER), (-1.0, 7), (float("nan"), 7), (None, 7)):
        assert asked(_State(Retry("", after=wish))) == expected
    assert asked(_State(OSError())) == 7
    for broken in (ValueError("no"), float("inf"), -1.0, "soon", None):
        assert waiting(_Broken(broken))(_State(OSError())) == 9


@pytest.mark.parametrize(("number", "longest"), [(1, 0.5), (2, 1.0), (5, 8.0), (8, 60.0), (100_000, 60.0)])
def test_the_default_wait(number: int, longest: float) -> None:
    """The default wait has full jitter: from zero to a limit that doubles up to a minute."""
    found = [RETRY_WAIT(_State(OSError(), number)) for _ in range(300)]  # type: ignore[arg-type]
    assert 0.0 <= min(found) < longest / 4
    assert longest * 0.75 < max(found) <= longest
