"""The Elasticsearch sink: document ids, indexes and answers per document, against a strict server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from kevents.export import Batch, ElasticsearchSink, Reject, Retry
from kevents.export._sinks.elasticsearch import check_index
from tests.export.batches import batch, ids, ids_of, position, record
from tests.export.products import Elasticsearch
from tests.export.receiver import Answer
from tests.export.sink_contract import Place, SinkContract


@pytest.fixture
def server() -> Iterator[Elasticsearch]:
    """A strict server."""
    with closing(Elasticsearch()) as found:
        yield found


@pytest.fixture(params=["gzip", "none"])
def sink(request: pytest.FixtureRequest, server: Elasticsearch) -> Iterator[ElasticsearchSink]:
    """A sink for the server."""
    with closing(ElasticsearchSink(f"{server.url}/", compress=request.param, timeout=10)) as found:
        yield found


class TestElasticsearchSink(SinkContract):
    """The contract."""

    @pytest.fixture
    def place(self, server: Elasticsearch) -> Place:
        """A strict server."""

        def received() -> list[dict[str, Any]]:
            found = [{**document} for document in server.documents.values()]
            for document in found:
                assert document.pop("@timestamp") == "2026-07-24T09:00:05Z"
            return found

        return Place(lambda: ElasticsearchSink(server.url), received)


def test_documents(server: Elasticsearch, sink: ElasticsearchSink) -> None:
    """A document's id is the record's id, and its index is named after the event's day."""
    later = record(2, lastTimestamp="2026-07-25T00:00:00Z")
    sink.write(Batch([record(1), later], position(2)))
    assert list(server.documents) == [("k8s-events-2026.07.24", "uid-1:1"), ("k8s-events-2026.07.25", "uid-2:2")]


def test_again(server: Elasticsearch, sink: ElasticsearchSink) -> None:
    """A batch that another process sends again creates no duplicates: 409 means already stored."""
    sink.write(batch([1, 2]))
    with closing(ElasticsearchSink(server.url)) as other:
        other.write(batch([1, 2, 3]))
    assert server.created == ids_of([1, 2, 3])


def test_answers_of_documents(server: Elasticsearch, sink: ElasticsearchSink) -> None:
    """Busy documents are retried alone, refused ones are rejected with their reason, and the others are stored."""
    server.faults = {"uid-2:2": [429, 503], "uid-3:3": [400], "uid-4:4": [429]}
    for pending in ([2, 3, 4], [2, 3]):
        with pytest.raises(Retry, match="es_rejected_execution_exception") as again:
            sink.write(batch([1, 2, 3, 4, 5]))
        assert sorted(found.id for found in again.value.pending or ()) == ids_of(pending)
    with pytest.raises(Reject, match="400 document_parsing_exception: uid-3:3") as caught:
        sink.write(batch([1, 2, 3, 4, 5]))
    assert ids(found.body for found in caught.value.records) == ids_of([3])
    assert sorted(server.created) == ids_of([1, 2, 4, 5])
    assert len(server.requests) == 3


def test_too_large(server: Elasticsearch, sink: ElasticsearchSink) -> None:
    """A request that is too large is split in half."""
    server.largest = 4000
    sink.write(batch(range(1, 9)))
    assert server.created == ids_of(range(1, 9))


@pytest.mark.parametrize("data", [b"", b"<html>", b'{"items":[]}', b'{"items":[{"create":{"status":201}}]}', b"[]"])
def test_another_server(server: Elasticsearch, sink: ElasticsearchSink, data: bytes) -> None:
    """An answer that is not from the bulk API is retried."""
    server.answers = [Answer(200, data)]
    with pytest.raises(Retry, match="not the answer of a bulk API"):
        sink.write(batch([1, 2]))
    sink.write(batch([1, 2]))
    assert server.created == ids_of([1, 2])


def test_a_large_answer(server: Elasticsearch, sink: ElasticsearchSink) -> None:
    """The answer to a large batch is read completely."""
    server.faults = {f"uid-{rv}:{rv}": [400] for rv in range(1, 1001)}
    with pytest.raises(Reject) as caught:
        sink.write(batch(range(1, 2001)))
    assert (len(caught.value.records), len(server.created)) == (1000, 1000)


def test_base_address(server: Elasticsearch) -> None:
    """A base URL can have a path, and surrounding spaces are removed."""
    server.path = "/es/_bulk"
    with closing(ElasticsearchSink(lambda: f"{server.url}/es/ ")) as sink:
        sink.write(batch([1]))
    assert server.created == ids_of([1])
    with pytest.raises(ValueError, match="must be the base address"):
        ElasticsearchSink(f"{server.url}/?pretty=true")


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
def test_unavailable(server: Elasticsearch, sink: ElasticsearchSink, status: int) -> None:
    """An error answer to the whole request is retried."""
    server.answers = [Answer(status)]
    with pytest.raises(Retry):
        sink.write(batch([1]))


@pytest.mark.parametrize(
    "index", ["Events", "a b", "_x", "-x", "a/b", "a*", "", "..", "events-%q", "events-%", "a%Yb%"]
)
def test_wrong_index(index: str) -> None:
    """An index name that Elasticsearch would refuse is refused by the constructor."""
    with pytest.raises(ValueError, match=r"^index: "):
        ElasticsearchSink("http://x", index=index)


@pytest.mark.parametrize("index", ["k8s-events", "k8s-events-%Y.%m.%d", "logs-k8s.events-default", "é-%H"])
def test_index(index: str) -> None:
    """Valid index names are accepted."""
    check_index(index)
