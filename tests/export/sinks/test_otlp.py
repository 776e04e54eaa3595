"""The OTLP sink: the requests are decoded with the OpenTelemetry protobufs."""

from __future__ import annotations

import gzip
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_ERROR,
    SEVERITY_NUMBER_FATAL,
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_UNSPECIFIED,
    SEVERITY_NUMBER_WARN,
    LogRecord,
)

import kevents
from kevents.export import Batch, OtlpSink, Record, Reject, Retry
from kevents.export._model.types import gap_record
from tests.export.batches import AT, CLUSTER, SECOND, STREAM, batch, body, ids_of, position, record
from tests.export.receiver import Answer, Scripted
from tests.export.sink_contract import Place, SinkContract

ROOT = Path(__file__).parents[3]


def requests(server: Scripted) -> list[ExportLogsServiceRequest]:
    """Decode the requests as a receiver does."""
    found = []
    for asked in server.requests:
        assert (
            asked.method,
            asked.path,
            asked.headers["content-type"],
        ) == ("POST", "/v1/logs", "application/x-protobuf")
        packed = asked.headers.get("content-encoding") == "gzip"
        found.append(ExportLogsServiceRequest.FromString(gzip.decompress(asked.body) if packed else asked.body))
    return found


def logs(server: Scripted) -> list[LogRecord]:
    """Return all log records in order."""
    return [
        log
        for request in requests(server)
        for resource in request.resource_logs
        for scope in resource.scope_logs
        for log in scope.log_records
    ]


def values(attributes: Any) -> dict[str, Any]:
    """Return attributes as plain values."""
    return {found.key: getattr(found.value, found.value.WhichOneof("value")) for found in attributes}


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A receiver."""
    with closing(Scripted()) as found:
        yield found


@pytest.fixture(params=["gzip", "none"])
def sink(request: pytest.FixtureRequest, server: Scripted) -> Iterator[OtlpSink]:
    """A sink for the receiver."""
    with closing(OtlpSink(f"{server.url}/v1/logs", compress=request.param, clock=lambda: AT + 9)) as found:
        yield found


class TestOtlpSink(SinkContract):
    """The contract, with events restored from the log records."""

    @pytest.fixture
    def place(self, server: Scripted) -> Place:
        """A receiver."""

        def received() -> list[dict[str, Any]]:
            found = []
            for log in logs(server):
                name = values(log.attributes)["kevents.id"]
                whole = body(int(name.partition(":")[2]))
                found.append({**whole, "message": log.body.string_value, "kevents": {**whole["kevents"], "id": name}})
            return found

        return Place(lambda: OtlpSink(f"{server.url}/v1/logs"), received)


# -- the mapping ----------------------------------------------------------------------------------------------------


def test_as_the_receiver_maps_it(server: Scripted, sink: OtlpSink) -> None:
    """An event has the same attributes as in the collector's k8seventsreceiver, and additional ones."""
    sink.write(Batch([record(7, clusterName="prod-1", action="Restarting")], position(7)))
    [request] = requests(server)
    [resource] = request.resource_logs
    expected = {
        "k8s.node.name": "node-1",
        "k8s.object.kind": "Pod",
        "k8s.object.name": "web-0",
        "k8s.object.uid": "pod-1",
        "k8s.object.fieldpath": "spec.containers{app}",
        "k8s.object.api_version": "v1",
        "k8s.object.resource_version": "7",
        "k8s.pod.name": "web-0",
        "k8s.pod.uid": "pod-1",
        "k8s.cluster.uid": CLUSTER,
        "k8s.cluster.name": "prod-1",
    }
    assert values(resource.resource.attributes) == expected
    [scope] = resource.scope_logs
    assert (scope.scope.name, scope.scope.version) == ("kevents", kevents.__version__)
    [log] = scope.log_records
    expected_attributes = {
        "k8s.event.reason": "BackOff",
        "k8s.event.action": "Restarting",
        "k8s.event.start_time": "2026-07-24 09:00:00 +0000 UTC",
        "k8s.event.name": "web-0.7",
        "k8s.event.uid": "uid-7",
        "k8s.namespace.name": "prod",
        "k8s.event.reporting_controller": "kubelet",
        "k8s.event.reporting_instance": "node-1",
        "k8s.event.count": 3,
        "kevents.id": "uid-7:7",
        "kevents.count_delta": 1,
    }
    assert values(log.attributes) == expected_attributes
    assert (
        log.body.string_value,
        log.severity_number,
        log.severity_text,
    ) == ("message 7", SEVERITY_NUMBER_WARN, "Warning")
    assert (log.time_unix_nano, log.observed_time_unix_nano) == (AT + 5 * SECOND, AT + 9)


@pytest.mark.parametrize(
    ("kind", "number", "text"),
    [
        ("Normal", SEVERITY_NUMBER_INFO, "Normal"),
        ("warning", SEVERITY_NUMBER_WARN, "warning"),
        ("Error", SEVERITY_NUMBER_ERROR, "Error"),
        ("Critical", SEVERITY_NUMBER_FATAL, "Critical"),
        ("Other", SEVERITY_NUMBER_UNSPECIFIED, ""),
        (None, SEVERITY_NUMBER_UNSPECIFIED, ""),
    ],
)
def test_severity(server: Scripted, sink: OtlpSink, kind: Any, number: int, text: str) -> None:
    """The type determines the severity. An unknown type has none."""
    sink.write(Batch([record(1, type=kind)], position(1)))
    [log] = logs(server)
    assert (log.severity_number, log.severity_text) == (number, text)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"eventTime": "2026-07-24T09:00:07.500000Z", "lastTimestamp": None}, 7.5),
        ({}, 5),
        ({"lastTimestamp": None}, 0),
        ({"lastTimestamp": None, "firstTimestamp": None}, 0),  # the creation time
        ({"lastTimestamp": "soon", "firstTimestamp": "2026-07-24T11:00:03+02:00"}, 3),
    ],
)
def test_time(server: Scripted, sink: OtlpSink, fields: dict[str, Any], seconds: float) -> None:
    """The time is that of the latest occurrence, then of the first, then of the creation."""
    sink.write(Batch([record(1, **fields)], position(1)))
    assert logs(server)[0].time_unix_nano == AT + int(seconds * SECOND)


def test_series(server: Scripted, sink: OtlpSink) -> None:
    """Each revision of a series has its own time and count."""

    def revision(rv: int, seconds: int) -> Record:
        times = {"eventTime": "2026-07-24T09:00:00.000000Z", "firstTimestamp": None, "lastTimestamp": None}
        series = {"count": rv, "lastObservedTime": f"2026-07-24T09:00:{seconds:02}.250000Z"}
        return record(rv, **times, count=None, series=series)

    sink.write(Batch([revision(1, 10), revision(2, 20), revision(3, 30)], position(3)))
    assert [
        ((log.time_unix_nano - AT) / SECOND, values(log.attributes)["k8s.event.count"]) for log in logs(server)
    ] == [(10.25, 1), (20.25, 2), (30.25, 3)]


def test_enriched(server: Scripted, sink: OtlpSink) -> None:
    """Fault 24: enriched data is sent as attributes, named by the semantic conventions."""
    enriched = record(7)
    enriched.body["involvedObject"] |= {
        "labels": {"app": "web", "example.com/team": "shop"},
        "annotations": {"note": "n"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5", "uid": "rs-1", "controller": True}],
        "deleted": True,
    }
    enriched.body["kevents"] |= {
        "object": {"state": "gone", "stale": True},
        "topOwner": {"kind": "Deployment", "name": "web", "uid": "d-1", "path": ["ReplicaSet/web-5", "Deployment/web"]},
        "services": ["web", "web-headless"],
        "node": {"addresses": ["10.0.0.1"]},
    }
    sink.write(Batch([enriched], position(7)))
    [request] = requests(server)
    resource = values(request.resource_logs[0].resource.attributes)
    expected = {
        "k8s.pod.name": "web-0",
        "k8s.pod.uid": "pod-1",
        "k8s.pod.label.app": "web",
        "k8s.pod.label.example.com/team": "shop",
        "k8s.pod.annotation.note": "n",
        "k8s.replicaset.name": "web-5",
        "k8s.replicaset.uid": "rs-1",
        "k8s.deployment.name": "web",
        "k8s.deployment.uid": "d-1",
        "k8s.node.name": "node-1",
        "kevents.top_owner.kind": "Deployment",
        "kevents.top_owner.name": "web",
    }
    assert {key: resource.get(key) for key in expected} == expected
    attributes = values(logs(server)[0].attributes)
    assert [item.string_value for item in attributes["kevents.services"].values] == ["web", "web-headless"]
    assert [item.string_value for item in attributes["kevents.node.addresses"].values] == ["10.0.0.1"]
    assert [attributes[f"kevents.object.{key}"] for key in ("state", "stale", "deleted")] == ["gone", True, True]


@pytest.mark.parametrize(
    ("kind", "prefix"), [("Deployment", "k8s.deployment"), ("Node", "k8s.node"), ("Backup", "k8s.object")]
)
def test_labels_of_a_kind(server: Scripted, sink: OtlpSink, kind: str, prefix: str) -> None:
    """Labels have the prefix of their kind. Kinds without conventions use `k8s.object`."""
    involved = {"kind": kind, "name": "x", "uid": "u", "labels": {"app": "web"}}
    sink.write(Batch([record(7, involvedObject=involved)], position(7)))
    [request] = requests(server)
    attributes = values(request.resource_logs[0].resource.attributes)
    assert [attributes[f"{prefix}.{key}"] for key in ("label.app", "name", "uid")] == ["web", "x", "u"]
    keys = [found.key for found in request.resource_logs[0].resource.attributes]
    assert sorted(keys) == sorted(set(keys))


def test_a_bare_event(server: Scripted, sink: OtlpSink) -> None:
    """An event with few fields is sent with empty texts, as the receiver does."""
    bare = {"metadata": {}, "involvedObject": {}, "kevents": {"v": 1, "id": "x:1", "countDelta": None}, "count": 0}
    sink.write(Batch([Record(STREAM, 1, bare, 0.0)], position(1)))
    [log] = logs(server)
    told = values(log.attributes)
    assert (
        told["kevents.id"],
        told["k8s.event.reason"],
        "k8s.event.count" in told,
        "kevents.count_delta" in told,
    ) == ("x:1", "", False, False)
    assert (log.time_unix_nano, log.body) == (0, AnyValue(string_value=""))


def test_a_gap(server: Scripted, sink: OtlpSink) -> None:
    """A gap is a warning about the cluster without an object."""
    sink.write(Batch([gap_record(position(3), 4, "expired", AT, 0.0)], position(4)))
    [request] = requests(server)
    [resource] = request.resource_logs
    assert values(resource.resource.attributes) == {"k8s.cluster.uid": CLUSTER}
    [log] = resource.scope_logs[0].log_records
    assert (
        log.severity_number,
        values(log.attributes)["kevents.id"],
        values(log.attributes)["kevents.gap"],
    ) == (SEVERITY_NUMBER_WARN, f"gap:{CLUSTER}::3", "expired")
    assert json.loads(log.body.string_value.removeprefix("gap: "))["why"] == "expired"


def test_resources(server: Scripted, sink: OtlpSink) -> None:
    """Consecutive records about one object share a resource, and the order is kept."""
    other = {**body(1)["involvedObject"], "name": "web-1"}
    records = [record(1), record(2), record(3, involvedObject=other), record(4)]
    sink.write(Batch(records, position(4)))
    [request] = requests(server)
    names = [values(resource.resource.attributes)["k8s.object.name"] for resource in request.resource_logs]
    assert (
        names,
        [values(log.attributes)["kevents.id"] for log in logs(server)],
    ) == (["web-0", "web-1", "web-0"], ids_of([1, 2, 3, 4]))


# -- answers ----------------------------------------------------------------------------------------------------


def partial(rejected: int, message: str = "") -> Answer:
    """Return an answer with a partial success."""
    told = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
    return Answer(200, ExportLogsServiceResponse(partial_success=told).SerializeToString())


@pytest.mark.parametrize("rejected", [1, 3, 7])
def test_partial_success(server: Scripted, sink: OtlpSink, rejected: int) -> None:
    """A collector does not name the records it refuses, so the whole batch is rejected and not sent again."""
    server.answers = [partial(rejected, "too old")]
    with pytest.raises(Reject, match=f"{rejected} of 3 records refused, .*too old") as caught:
        sink.write(batch([1, 2, 3]))
    assert ([found.id for found in caught.value.records], len(server.requests)) == (ids_of([1, 2, 3]), 1)
    sink.write(batch([4]))
    assert len(server.requests) == 2


def test_a_warning(server: Scripted, sink: OtlpSink, caplog: pytest.LogCaptureFixture) -> None:
    """A message without a refusal is logged as a warning, and the batch is accepted."""
    server.answers = [partial(0, "please use gRPC")]
    with caplog.at_level(logging.WARNING):
        sink.write(batch([1]))
    assert f"{server.url} warns: please use gRPC" in caplog.text


def test_a_collector_that_repeats_a_secret(server: Scripted, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfalls 71, 72: a collector's message becomes one printable line, with credentials redacted."""
    said = f"{'x' * 250}\n{'my-tenant-token-' * 3}"
    server.answers = [partial(1, said), partial(0, said)]
    with closing(OtlpSink(f"{server.url}/v1/logs", headers={"x-api-key": "my-tenant-token-" * 3})) as sink:
        with pytest.raises(Reject, match=r"x\\n\(not shown\)$"):
            sink.write(batch([1]))
        with caplog.at_level(logging.WARNING):
            sink.write(batch([2]))
    assert caplog.messages[0][-14:] == "x\\n(not shown)"


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff" * 20, b"<html>"])
def test_an_odd_success(server: Scripted, sink: OtlpSink, data: bytes) -> None:
    """Pitfall 35: a 2xx is a success, whatever the body."""
    server.answers = [Answer(200, data)]
    sink.write(batch([1]))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_later(server: Scripted, sink: OtlpSink, status: int) -> None:
    """OTLP's retryable answers are retried after the collector's Retry-After."""
    server.answers = [Answer(status, headers={"Retry-After": "4"})]
    with pytest.raises(Retry) as caught:
        sink.write(batch([1]))
    assert caught.value.after == 4.0


def test_refused(server: Scripted, sink: OtlpSink) -> None:
    """A refused batch is narrowed down to refused and uncertain records."""
    server.answers = [Answer(400, b"no"), partial(1, "late"), Answer(400, b"no"), Answer(), Answer(400, b"not this")]
    with pytest.raises(Reject, match="not this") as caught:
        sink.write(batch([1, 2, 3, 4]))
    assert sorted(found.id for found in caught.value.records) == sorted(ids_of([1, 2, 4]))


# -- other --------------------------------------------------------------------------------------------------------


def test_pitfall_72(server: Scripted) -> None:
    """Pitfall 72: headers appear in no error and no repr."""
    token = "hush-hush-token"
    server.answers = [Answer(401, f"unknown token {token}".encode())]
    with closing(OtlpSink(server.url, headers={"x-api-key": token})) as sink:
        with pytest.raises(Retry, match=r"401 unknown token \(not shown\)") as caught:
            sink.write(batch([1]))
        assert token not in f"{caught.value!r} {sink!r}"
    assert server.requests[0].headers["x-api-key"] == token


def test_wrong_values() -> None:
    """An invalid option is refused by the constructor."""
    with pytest.raises(ValueError, match="compress must be"):
        OtlpSink("http://x", compress="zstd")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be https://host"):
        OtlpSink("collector:4317")


def test_no_position(sink: OtlpSink) -> None:
    """A collector holds no position."""
    assert (sink.last_position(STREAM), sink.holds_positions) == (None, False)


def test_without_protobuf() -> None:
    """Without opentelemetry-proto, the error names the extra."""
    script = (
        "import sys; sys.modules['opentelemetry.proto'] = None\nfrom kevents.export import OtlpSink\n"
        "try:\n    OtlpSink('https://x')\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OTLP needs opentelemetry-proto: pip install 'kevents[otlp]'")
