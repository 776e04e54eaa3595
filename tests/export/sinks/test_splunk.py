"""The Splunk sink: fields, times and codes, against a strict server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from kevents.export import Batch, Reject, Retry, SplunkSink
from tests.export.batches import batch, body, ids, ids_of, position, record
from tests.export.products import Splunk
from tests.export.receiver import Answer
from tests.export.sink_contract import Place, SinkContract

TOKEN = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def server() -> Iterator[Splunk]:
    """A strict server."""
    with closing(Splunk(TOKEN)) as found:
        yield found


def hec(server: Splunk, **options: Any) -> SplunkSink:
    """Return a sink for the server."""
    return SplunkSink(f"{server.url}{Splunk.path}", **{"token": lambda: f"{TOKEN}\n", "timeout": 10, **options})


class TestSplunkSink(SinkContract):
    """The contract."""

    @pytest.fixture
    def place(self, server: Splunk) -> Place:
        """A strict server."""
        return Place(lambda: hec(server), lambda: [event["event"] for event in server.events])


def test_fields(server: Splunk) -> None:
    """An event has its time in seconds, its host and the configured fields."""
    with closing(hec(server, index="k8s")) as sink:
        sink.write(Batch([record(7, eventTime=None, lastTimestamp="2026-07-24T09:00:05.250000Z")], position(7)))
    [event] = server.events
    assert {**event, "event": event["event"]["kevents"]["id"]} == {
        "time": "1784883605.250",
        "host": "node-1",
        "source": "kevents",
        "sourcetype": "kube:events",
        "index": "k8s",
        "event": "uid-7:7",
    }


def test_bad_event(server: Splunk) -> None:
    """Only the event that Splunk refuses is rejected."""
    records = [record(rv, "a bad one" if rv == 3 else "") for rv in range(1, 6)]
    with closing(hec(server)) as sink, pytest.raises(Reject, match=r"400 .*Invalid data format") as caught:
        sink.write(Batch(records, position(5)))
    assert ids(found.body for found in caught.value.records) == ids_of([3])
    assert sorted(ids(event["event"] for event in server.events)) == ids_of([1, 2, 4, 5])


def test_configuration(server: Splunk) -> None:
    """A wrong token or index is a configuration error: the batch is retried and nothing is rejected."""
    with closing(hec(server, token="wrong")) as sink, pytest.raises(Retry, match=r"403 .*Invalid token"):
        sink.write(batch([1]))
    with closing(hec(server, index="elsewhere")) as sink:
        with pytest.raises(Retry, match=r"400 .*Incorrect index"):
            sink.write(batch([1]))
        server.indexes.add("elsewhere")
        sink.write(batch([1]))
    assert [event["event"] for event in server.events] == [body(1)]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b'{"text":"Server is shutting down","code":23}'),
        Answer(200, b"<html>a login page</html>"),
        Answer(200),
        Answer(503, b'{"text":"Server is busy","code":9}'),
        Answer(500, b'{"text":"Internal server error","code":8}'),
    ],
)
def test_no_success(server: Splunk, answer: Answer) -> None:
    """Only an answer with code 0 is a success."""
    server.answers = [answer]
    with closing(hec(server)) as sink:
        with pytest.raises(Retry):
            sink.write(batch([1]))
        sink.write(batch([1]))
    assert len(server.events) == 1


def test_the_token_is_secret(server: Splunk) -> None:
    """The error does not contain the token."""
    server.answers = [Answer(403, f"Invalid token {TOKEN}".encode())]
    with closing(hec(server)) as sink, pytest.raises(Retry) as caught:
        sink.write(batch([1]))
    assert TOKEN not in f"{caught.value} {sink!r}"
