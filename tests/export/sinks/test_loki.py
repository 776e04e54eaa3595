"""The Loki sink: labels, times, order and refusals, against a strict server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from kevents.export import Batch, LokiSink, Reject, Retry
from kevents.export._model.types import gap_record
from tests.export.batches import AT, SECOND, batch, ids, ids_of, position, record
from tests.export.products import Loki
from tests.export.receiver import Answer
from tests.export.sink_contract import Place, SinkContract


@pytest.fixture
def server() -> Iterator[Loki]:
    """A strict server."""
    with closing(Loki()) as found:
        yield found


def push(server: Loki, **options: Any) -> LokiSink:
    """Return a sink for the server."""
    return LokiSink(f"{server.url}{Loki.path}", timeout=10, **options)


class TestLokiSink(SinkContract):
    """The contract."""

    @pytest.fixture
    def place(self, server: Loki) -> Place:
        """A strict server."""
        return Place(lambda: push(server), lambda: [json.loads(line) for line in server.order])


def test_labels(server: Loki) -> None:
    """Streams are grouped by the configured labels. Empty values are omitted."""
    other = {**record(1).body["involvedObject"], "namespace": "", "kind": "Node", "name": "n"}
    records = [record(1), record(2, involvedObject=other), record(3)]
    with closing(push(server, labels={"app": "kevents", "namespace": "{involvedObject.namespace}"})) as sink:
        sink.write(Batch(records, position(3)))
    found = {labels: ids(json.loads(line) for _, line in lines) for labels, lines in server.lines.items()}
    assert found == {
        (("app", "kevents"), ("namespace", "prod")): ids_of([1, 3]),
        (("app", "kevents"),): ids_of([2]),
    }
    assert len(server.requests) == 1


def test_no_label_left(server: Loki) -> None:
    """A record without any label value gets a default label, because Loki requires one."""
    with closing(push(server, labels={"node": "{source.nothing}"})) as sink:
        sink.write(batch([1]))
    assert list(server.lines) == [(("job", "kevents"),)]


def test_times(server: Loki) -> None:
    """Lines have the event's time in nanoseconds and are sorted by it. The default is the current time."""
    late = record(1, lastTimestamp="2026-07-24T09:00:09Z")
    early = record(2, lastTimestamp=None, series={"count": 2, "lastObservedTime": "2026-07-24T09:00:01.123456Z"})
    bare = record(3, lastTimestamp=None, firstTimestamp=None, metadata={})
    with closing(push(server, clock=lambda: AT + 20 * SECOND)) as sink:
        sink.write(Batch([late, early, bare, gap_record(position(3), 4, "expired", AT, 0.0)], position(4)))
    times = [time - AT for lines in server.lines.values() for time, _ in lines]
    assert sorted(times) == [0, 1_123_456_000, 9 * SECOND, 20 * SECOND]
    [sent] = server.lines[("job", "kevents"), ("kind", "Pod"), ("namespace", "prod"), ("type", "Warning")][:1]
    assert sent[0] == AT + 1_123_456_000


def test_tenant(server: Loki) -> None:
    """The tenant is sent. Without it, the 401 is retried."""
    server.tenant = "team-a"
    with closing(push(server)) as sink, pytest.raises(Retry, match="401 no org id"):
        sink.write(batch([1]))
    with closing(push(server, tenant="team-a")) as sink:
        sink.write(batch([1]))
    assert ids(json.loads(line) for line in server.order) == ids_of([1])


def test_too_old(server: Loki) -> None:
    """Only the lines that Loki refuses are rejected. Lines that are sent again are stored once."""
    server.oldest = AT + 3 * SECOND
    records = [record(rv, lastTimestamp=f"2026-07-24T09:00:0{rv}Z") for rv in range(1, 7)]
    with closing(push(server)) as sink, pytest.raises(Reject, match="timestamp too old") as caught:
        sink.write(Batch(records, position(6)))
    assert ids(found.body for found in caught.value.records) == ids_of([1, 2])
    assert sorted(ids(json.loads(line) for line in server.order)) == ids_of([3, 4, 5, 6])


@pytest.mark.parametrize("answer", [Answer(429, headers={"retry-after": "7"}), Answer(500, b"empty ring")])
def test_busy(server: Loki, answer: Answer) -> None:
    """A busy server is retried after its Retry-After."""
    server.answers = [answer]
    with closing(push(server)) as sink:
        with pytest.raises(Retry) as caught:
            sink.write(batch([1]))
        assert caught.value.after == (7.0 if answer.status == 429 else None)
        sink.write(batch([1]))
    assert len(server.order) == 1


@pytest.mark.parametrize(
    ("labels", "error"),
    [({}, "at least one label"), ({"a-b": "x"}, "not the name of a label"), ({"a": "{x"}, "is no place")],
)
def test_wrong_labels(labels: dict[str, str], error: str) -> None:
    """Invalid labels are refused by the constructor."""
    with pytest.raises(ValueError, match=error):
        LokiSink("http://x", labels=labels)
