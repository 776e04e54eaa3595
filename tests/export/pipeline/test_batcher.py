"""When a batch closes, its records and its position. The tests pass the time in."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents.export import Batch, Record, Stream
from kevents.export._model.options import BatchOptions, Destination, QueueOptions
from kevents.export._pipeline.batcher import IDLE, Batcher
from tests.export.doubles import STREAM, MemorySink, position, record, records

OTHER = Stream("cluster-1", "prod")


def batcher(limits: BatchOptions | None = None, queue: QueueOptions | None = None) -> Batcher:
    """Return a batcher for two streams without saved positions."""
    made = Batcher(limits or BatchOptions(), queue or QueueOptions())
    made.begin(STREAM, None, 0.0)
    made.begin(OTHER, None, 0.0)
    return made


def rvs(batch: Batch | None) -> list[int]:
    """Return the resourceVersions of a batch."""
    assert batch is not None
    return [one.rv for one in batch.records]


def test_an_empty_queue_has_nothing_due() -> None:
    """Nothing is due without records and positions."""
    waiting = batcher()
    assert (waiting.take(1e9), waiting.due()) == (None, inf)


def test_age_counts_from_the_first_record() -> None:
    """A batch closes 10 s after its first record."""
    waiting = batcher()
    waiting.add(STREAM, records(1, 2), position(2), 100.0)
    waiting.add(STREAM, records(3, 3), position(3), 109.0)
    assert (waiting.take(109.9), waiting.due()) == (None, 110.0)
    batch = waiting.take(110.0)
    assert (rvs(batch), batch.position) == ([1, 2, 3], position(3))  # type: ignore[union-attr]


def test_closes_when_full() -> None:
    """A full batch is due immediately. Later records have their own age."""
    waiting = batcher()
    waiting.add(STREAM, records(1, 999), position(999), 100.0)
    assert waiting.take(100.0) is None
    waiting.add(STREAM, records(1000, 1500), position(1500), 101.0)
    batch = waiting.take(101.0)
    assert (rvs(batch), batch.position) == (list(range(1, 1001)), position(1000))  # type: ignore[union-attr]
    assert (waiting.take(101.0), waiting.due()) == (None, 111.0)
    assert rvs(waiting.take(111.0)) == [*range(1001, 1501)]


def test_closes_by_bytes() -> None:
    """A batch closes before its lines exceed the byte limit. A longer record gets its own batch."""
    waiting = batcher(BatchOptions(max_bytes=300))
    sizes = [100, 100, 99, 400, 100]
    waiting.add(STREAM, [record(rv, size=size) for rv, size in enumerate(sizes, 1)], position(5), 0.0)
    assert rvs(waiting.take(0.0)) == [1, 2]  # a line of 100 bytes has 101 with its line end
    assert rvs(waiting.take(0.0)) == [3]
    assert rvs(waiting.take(0.0)) == [4]
    assert waiting.take(0.0) is None
    assert rvs(waiting.take(10.0)) == [5]


def test_the_position_of_a_piece_of_a_chunk() -> None:
    """A batch that ends within a chunk has the position of its last record. One that ends with it has the chunk's."""
    waiting = batcher(BatchOptions(max_items=2))
    waiting.add(STREAM, [record(1)], position(1, time=5), 0.0)
    assert waiting.take(99.0).position == position(1, time=5)  # type: ignore[union-attr]
    waiting.done()
    waiting.add(STREAM, [record(2), record(4), record(6)], position(9, time=7), 0.0)
    first, second = waiting.take(0.0), waiting.take(10.0)
    assert [batch.position for batch in (first, second) if batch] == [position(4, time=5), position(9, time=7)]


def test_the_time_of_a_piece_of_the_first_chunk() -> None:
    """Within the first chunk, the position's time is that of the saved position, or else the chunk's."""
    waiting = batcher(BatchOptions(max_items=2))
    waiting.begin(OTHER, position(1, OTHER, time=3), 0.0)
    for stream, time in ((OTHER, 3), (STREAM, 7)):
        waiting.add(stream, records(2, 4, stream), position(4, stream, time=7), 0.0)
        assert waiting.take(0.0).position == position(3, stream, time=time)  # type: ignore[union-attr]
        waiting.take(10.0)


def test_the_position_at_the_seam_of_two_chunks() -> None:
    """A batch that ends with a chunk has the chunk's position, even if the next chunk is queued."""
    waiting = batcher(BatchOptions(max_items=2))
    waiting.add(STREAM, records(1, 2), position(5), 0.0)
    waiting.add(STREAM, records(6, 6), position(6), 0.0)
    batch = waiting.take(0.0)
    assert (rvs(batch), batch.position) == ([1, 2], position(5))  # type: ignore[union-attr]


def test_one_resource_version_stays_together() -> None:
    """Records with the same resourceVersion stay in one batch: a position between them would lose the second."""
    waiting = batcher(BatchOptions(max_items=2))
    waiting.add(STREAM, [record(1), record(2), record(2), record(3)], position(3), 0.0)
    assert rvs(waiting.take(0.0)) == [1, 2, 2]


def test_records_left_out_by_a_route_move_the_position() -> None:
    """A chunk without records for the destination advances the position of the pending batch."""
    waiting = batcher()
    waiting.add(STREAM, records(1, 1), position(1), 0.0)
    waiting.add(STREAM, [], position(50, time=3), 5.0)
    assert waiting.take(10.0).position == position(50, time=3)  # type: ignore[union-attr]


def test_an_idle_position() -> None:
    """A position that advances without records is written once a minute."""
    waiting = batcher()
    waiting.add(STREAM, [], position(7), 10.0)
    assert waiting.due() == IDLE
    batch = waiting.take(IDLE)
    assert (rvs(batch), batch.position) == ([], position(7))  # type: ignore[union-attr]
    waiting.done()
    assert waiting.due() == inf
    waiting.add(STREAM, [], position(8), 61.0)
    assert waiting.due() == 2 * IDLE


def test_a_position_that_the_destination_holds() -> None:
    """The position that the destination already has is not written again."""
    waiting = Batcher(BatchOptions(), QueueOptions())
    waiting.begin(STREAM, position(7), 0.0)
    waiting.add(STREAM, [], position(7), 1.0)
    assert waiting.due() == inf
    waiting.add(STREAM, [], position(7, time=9), 1.0)  # the same position with a later time
    assert waiting.take(IDLE).position == position(7, time=9)  # type: ignore[union-attr]


def test_streams_apart() -> None:
    """A batch belongs to one stream. The stream that has waited longest is first."""
    waiting = batcher()
    waiting.add(OTHER, records(5, 6, OTHER), position(6, OTHER), 1.0)
    waiting.add(STREAM, records(1, 2), position(2), 0.5)
    assert rvs(waiting.take(20.0)) == [1, 2]
    assert rvs(waiting.take(20.0)) == [5, 6]


def test_a_full_queue_is_due() -> None:
    """With a full queue, the oldest stream is due immediately, because no record can be added to its batch."""
    waiting = batcher(queue=QueueOptions(max_items=10))
    waiting.add(STREAM, records(1, 4), position(4), 2.0)
    waiting.add(OTHER, records(1, 6, OTHER), position(6, OTHER), 1.0)
    assert (waiting.full, waiting.free) == (True, 0)
    assert rvs(waiting.take(2.0)) == [1, 2, 3, 4, 5, 6]
    assert waiting.full  # a batch in flight occupies its space until it is done
    assert waiting.in_flight == 6
    waiting.done()
    assert (waiting.full, waiting.free, waiting.in_flight) == (False, 6, 0)
    assert waiting.take(2.0) is None


def test_full_by_bytes() -> None:
    """The queue is also bounded in bytes."""
    waiting = batcher(queue=QueueOptions(max_bytes=500))
    waiting.add(STREAM, [record(1, size=499)], position(1), 0.0)
    assert (waiting.full, waiting.bytes) == (True, 500)
    assert rvs(waiting.take(0.0)) == [1]
    waiting.done()
    assert (waiting.full, waiting.bytes) == (False, 0)


def test_flush_now() -> None:
    """With `flushing`, all records and positions are due."""
    waiting = batcher()
    waiting.add(STREAM, records(1, 1), position(1), 50.0)
    waiting.add(OTHER, [], position(9, OTHER), 50.0)
    waiting.flushing = True
    assert {len(rvs(waiting.take(50.0))), len(rvs(waiting.take(50.0)))} == {0, 1}
    assert waiting.take(50.0) is None


def test_the_oldest() -> None:
    """The age of the oldest record counts from when it was added, in flight or not."""
    waiting = batcher()
    assert waiting.oldest() == inf
    waiting.add(STREAM, records(1, 1), position(1), 3.0)
    waiting.add(OTHER, records(1, 1, OTHER), position(1, OTHER), 5.0)
    assert waiting.oldest() == 3.0
    waiting.take(13.0)
    assert waiting.oldest() == 3.0
    waiting.done()
    assert waiting.oldest() == 5.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (lambda: BatchOptions(max_items=0), "max_items must be a whole number of at least 1, not 0"),
        (lambda: BatchOptions(max_bytes=1.5), "max_bytes must be a whole number of at least 1, not 1.5"),  # type: ignore[arg-type]
        (lambda: BatchOptions(max_age=0), "max_age must be a number from 1e-09 to 1e+09, not 0"),
        (lambda: QueueOptions(max_items=-1), "queue max_items must be a whole number of at least 1, not -1"),
        (lambda: QueueOptions(max_bytes=True), "queue max_bytes must be a whole number of at least 1, not True"),
        (lambda: Destination(MemorySink(), when_full="wait"), "when_full must be 'block' or 'drop', not 'wait'"),  # type: ignore[arg-type]
        (lambda: Destination(object()), "object is not a sink: it has no method write"),  # type: ignore[arg-type]
        (lambda: Destination(MemorySink(), write_timeout=-1), "write_timeout must be a number from"),
    ],
)
def test_wrong_options(options: object, said: str) -> None:
    """The error of an invalid option names the option, its value and the allowed values."""
    with pytest.raises(ValueError, match=said.replace("+", r"\+")):
        options()  # type: ignore[operator]


@given(
    chunks=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.floats(0, 30)), max_size=30),
    limits=st.builds(BatchOptions, max_items=st.integers(1, 9), max_bytes=st.integers(40, 400), max_age=st.just(10.0)),
    bound=st.integers(1, 20),
)
def test_laws(chunks: list[tuple[int, int, float]], limits: BatchOptions, bound: int) -> None:
    """All records leave once, in order and within the limits, and no position is ahead of its records."""
    waiting = Batcher(limits, QueueOptions(max_items=bound))
    waiting.begin(STREAM, None, 0.0)
    now, rv, came, left, promised = 0.0, 0, [], [], -1

    def check(batch: Batch) -> None:
        nonlocal promised
        size = sum(len(one.line()) + 1 for one in batch.records)
        assert len(batch.records) <= limits.max_items
        assert size <= limits.max_bytes or len(batch.records) == 1
        assert batch.position.rv >= promised
        promised = batch.position.rv
        left.extend(one.rv for one in batch.records)
        assert left == [one for one in came if one <= promised]  # no record up to the position is missing
        waiting.done()

    for count, skipped, seconds in chunks:
        now += seconds
        new: list[Record] = [record(rv + step) for step in range(1, count + 1)]
        rv += count + skipped
        came += [one.rv for one in new]
        waiting.add(STREAM, new, position(rv), now)
        while (batch := waiting.take(now)) is not None:
            check(batch)
        assert waiting.items < max(bound, limits.max_items)
        assert waiting.due() > now
    waiting.flushing = True
    while (batch := waiting.take(now)) is not None:
        check(batch)
    assert (left, waiting.items, waiting.bytes) == (came, 0, 0)
    assert (promised if chunks else 0) == rv
