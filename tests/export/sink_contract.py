"""The contract of every sink as a test suite: subclass `SinkContract` and provide the fixture `place`.

    class TestMySink(PositionContract):
        @pytest.fixture
        def place(self, tmp_path):
            return Place(lambda: MySink(tmp_path), lambda: [... the bodies that the destination holds ...])

`PositionContract` is for sinks that store the position themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from kevents.export import Batch, Sink, Stream
from tests.export.batches import CLUSTER, STREAM, batch, body, ids, ids_of, position, record

OTHER = Stream(CLUSTER, "prod")
TEXTS = {
    "emoji": "🔥 pod 世界 é",
    "NUL": "a\x00b",
    "lines": "one\ntwo\r\nthree\u2028four\u0085",
    "escapes": '\x1b[31mred\x1b[0m "\\/<&>',
    "a position": '{"kevents":{"v":1,"position":{"rv":7}}}',
    "a placeholder": "{message} {{}} ${x} %s",
}


@dataclass
class Place:
    """A destination under test.

    Attributes:
        make: Creates a sink for it, as a new process would.
        received: Returns the stored bodies in the destination's order.
    """

    make: Callable[[], Sink]
    received: Callable[[], list[dict[str, Any]]]

    @contextmanager
    def sink(self) -> Iterator[Sink]:
        """Yield a sink and close it afterwards."""
        with closing(self.make()) as sink:
            yield sink


class SinkContract:
    """The contract of every sink."""

    @pytest.fixture
    def place(self) -> Place:
        """Return the destination. Subclasses override this."""
        raise NotImplementedError

    @pytest.fixture
    def sink(self, place: Place) -> Iterator[Sink]:
        """A sink for the destination."""
        with place.sink() as sink:
            yield sink

    def test_order(self, place: Place, sink: Sink) -> None:
        """Records arrive complete and in order, batch after batch."""
        for first in (1, 11, 21):
            sink.write(batch(range(first, first + 10)))
        assert ids(place.received()) == ids_of(range(1, 31))
        assert place.received()[-1] == body(30)

    def test_durable_on_return(self, place: Place, sink: Sink) -> None:
        """A batch is stored when `write` returns."""
        sink.write(batch([1]))
        assert ids(place.received()) == ids_of([1])

    def test_empty_batch(self, place: Place, sink: Sink) -> None:
        """A batch without records adds no record."""
        sink.write(batch([], upto=5))
        sink.write(batch([6], upto=9))
        sink.write(batch([], upto=12))
        assert ids(place.received()) == ids_of([6])

    @pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
    def test_texts(self, place: Place, sink: Sink, text: str) -> None:
        """Every text arrives unchanged, and so do the records around it."""
        sink.write(Batch([record(1), record(2, text), record(3)], position(3)))
        assert [found["message"] for found in place.received()] == ["message 1", text, "message 3"]

    def test_huge_record(self, place: Place, sink: Sink) -> None:
        """A record of 3 MiB arrives, and so does the next one."""
        sink.write(Batch([record(1, "x" * (3 << 20))], position(1)))
        sink.write(batch([2]))
        assert [len(found["message"]) for found in place.received()] == [3 << 20, 9]

    def test_nothing_is_changed(self, sink: Sink) -> None:
        """A sink does not modify the records: other sinks receive the same objects."""
        found = record(1)
        sink.write(Batch([found], position(1)))
        assert (found.body, found.rv, found.stream) == (body(1), 1, STREAM)

    def test_unknown_stream(self, sink: Sink) -> None:
        """A destination has no position for an unknown stream."""
        assert sink.last_position(STREAM) is None

    def test_close(self, place: Place) -> None:
        """A sink can be closed without use, and twice."""
        sink = place.make()
        sink.close()
        sink.close()
        assert place.received() == []


class PositionContract(SinkContract):
    """The contract of sinks that store the position themselves."""

    def test_position(self, sink: Sink) -> None:
        """The saved position and its time are the batch's, not those of the last record."""
        sink.write(batch([1, 2], upto=7, seconds=1.5))
        assert sink.last_position(STREAM) == position(7, seconds=1.5)

    def test_position_of_an_empty_batch(self, place: Place, sink: Sink) -> None:
        """A batch without records advances the position, before the first record and after it."""
        sink.write(batch([], upto=5))
        assert sink.last_position(STREAM) == position(5)
        sink.write(batch([6]))
        sink.write(batch([], upto=9, seconds=60))
        sink.close()
        with place.sink() as again:
            assert again.last_position(STREAM) == position(9, seconds=60)

    def test_position_is_found_again(self, place: Place, sink: Sink) -> None:
        """A new process resumes at the position of the last batch."""
        sink.write(batch([1, 2]))
        sink.write(batch([3, 4], upto=8, seconds=10))
        sink.close()
        with place.sink() as again:
            assert again.last_position(STREAM) == position(8, seconds=10)
            again.write(batch([9]))
            assert again.last_position(STREAM) == position(9)
        assert ids(place.received()) == ids_of([1, 2, 3, 4, 9])

    def test_the_same_batch_again(self, place: Place, sink: Sink) -> None:
        """A repeated batch is written once, in the same process and after a restart."""
        sink.write(batch([1, 2], upto=3))
        sink.write(batch([1, 2], upto=3))
        sink.close()
        with place.sink() as again:
            again.write(batch([1, 2], upto=3))
        assert ids(place.received()) == ids_of([1, 2])

    def test_overlap(self, place: Place, sink: Sink) -> None:
        """Records that the destination already holds are skipped."""
        sink.write(batch([1, 2, 3]))
        sink.close()
        with place.sink() as again:
            again.write(batch([2, 3, 4]))
            assert again.last_position(STREAM) == position(4)
        assert ids(place.received()) == ids_of([1, 2, 3, 4])

    def test_streams(self, place: Place, sink: Sink) -> None:
        """Each stream has its own position."""
        sink.write(batch([5, 6]))
        sink.write(batch([1, 2], OTHER))
        sink.close()
        with place.sink() as again:
            assert [again.last_position(STREAM), again.last_position(OTHER)] == [position(6), position(2, OTHER)]
        assert sorted(ids(place.received())) == sorted(ids_of([1, 2, 5, 6]))

    def test_long_resource_versions(self, place: Place, sink: Sink) -> None:
        """ResourceVersions of any length are ordered as numbers and restored."""
        long = 10**24
        sink.write(batch([10**19 - 1, 10**20 + 1]))
        sink.write(batch([long]))
        sink.close()
        with place.sink() as again:
            assert again.last_position(STREAM) == position(long)
        assert ids(place.received()) == ids_of([10**19 - 1, 10**20 + 1, long])

    def test_held_already(self, place: Place, sink: Sink) -> None:
        """A batch below the saved position is skipped and does not move it back."""
        sink.write(batch([100, 200]))
        sink.write(batch([3, 4], seconds=1))
        sink.close()
        with place.sink() as again:
            assert again.last_position(STREAM) == position(200)
            again.write(batch([100, 150], seconds=2))
            again.write(batch([201], seconds=3))
        with place.sink() as again:
            assert again.last_position(STREAM) == position(201, seconds=3)
        assert ids(place.received()) == ids_of([100, 200, 201])
