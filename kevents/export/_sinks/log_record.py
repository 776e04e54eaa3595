"""A record as an OpenTelemetry log record, as the collector's k8seventsreceiver makes it of an event.

Body, severity, time, and the attributes of record and resource are the receiver's, by the same names and with the same
texts (its version of 2026, whose resource attributes are `k8s.object.*`). Beside them stand `k8s.cluster.uid` and
`k8s.cluster.name` on the resource, and `kevents.id` and `kevents.count_delta` on the record.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kevents import __version__
from kevents._model.wire import parse_time
from kevents.export._model.types import Record

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

_Attributes: TypeAlias = tuple[tuple[str, str | int], ...]

SCOPE: Final = "kevents"
_SEVERITIES: Final = {"normal": 9, "warning": 13, "error": 17, "critical": 21}  # INFO, WARN, ERROR, FATAL


def request_of(records: Sequence[Record], now: int) -> ExportLogsServiceRequest:
    """Give the request for a batch: neighbours about the same object share a resource.

    Args:
        records: In order.
        now: The present, in nanoseconds since the epoch: when they were observed.
    """
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415 - an optional package

    request = logs_service_pb2.ExportLogsServiceRequest()
    for attributes, group in itertools.groupby(records, key=_resource):
        resource = request.resource_logs.add()
        resource.resource.attributes.extend(_key_values(attributes))
        logs = resource.scope_logs.add()
        logs.scope.name = SCOPE
        logs.scope.version = __version__
        logs.log_records.extend(_log_record(record, now) for record in group)
    return request


def _resource(record: Record) -> _Attributes:
    body = record.body
    cluster = (("k8s.cluster.uid", record.stream.cluster), ("k8s.cluster.name", _text(body.get("clusterName"))))
    told = tuple((key, value) for key, value in cluster if value)
    involved = body.get("involvedObject")
    if not isinstance(involved, Mapping):  # a word of the export's own
        return told
    return (
        ("k8s.node.name", _text(_within(body, "source", "host"))),
        ("k8s.object.kind", _text(involved.get("kind"))),
        ("k8s.object.name", _text(involved.get("name"))),
        ("k8s.object.uid", _text(involved.get("uid"))),
        ("k8s.object.fieldpath", _text(involved.get("fieldPath"))),
        ("k8s.object.api_version", _text(involved.get("apiVersion"))),
        ("k8s.object.resource_version", _text(involved.get("resourceVersion"))),
        *told,
    )


def _log_record(record: Record, now: int) -> LogRecord:
    from opentelemetry.proto.logs.v1 import logs_pb2  # noqa: PLC0415 - an optional package

    body = record.body
    found = logs_pb2.LogRecord(observed_time_unix_nano=now)
    gap = _within(body, "kevents", "gap")
    if gap is not None:
        found.time_unix_nano = now
        found.severity_number, found.severity_text = _SEVERITIES["warning"], "Warning"  # type: ignore[assignment]
        found.body.string_value = "gap: " + json.dumps(gap, ensure_ascii=False)
        found.attributes.extend(_key_values((("kevents.id", record.id), ("kevents.gap", _text(_within(gap, "why"))))))
        return found
    kind = _text(body.get("type"))
    if kind.lower() in _SEVERITIES:
        found.severity_number, found.severity_text = _SEVERITIES[kind.lower()], kind  # type: ignore[assignment]
    found.time_unix_nano = _moment(body)
    found.body.string_value = _text(body.get("message"))
    found.attributes.extend(_key_values(_attributes(record)))
    return found


def _attributes(record: Record) -> Iterable[tuple[str, str | int]]:
    body = record.body
    yield "k8s.event.reason", _text(body.get("reason"))
    yield "k8s.event.action", _text(body.get("action"))
    yield "k8s.event.start_time", _go_time(_within(body, "metadata", "creationTimestamp"))
    yield "k8s.event.name", _text(_within(body, "metadata", "name"))
    yield "k8s.event.uid", _text(_within(body, "metadata", "uid"))
    yield "k8s.namespace.name", _text(_within(body, "involvedObject", "namespace"))
    yield "k8s.event.reporting_controller", _text(body.get("reportingComponent"))
    yield "k8s.event.reporting_instance", _text(body.get("reportingInstance"))
    count = body.get("count")
    if isinstance(count, int) and count:
        yield "k8s.event.count", count
    yield "kevents.id", record.id
    delta = _within(body, "kevents", "countDelta")
    if isinstance(delta, int):
        yield "kevents.count_delta", delta


def _moment(body: Mapping[str, Any]) -> int:
    """When it happened (the receiver: `eventTime`, else the last time, else the first); 0 if it does not tell."""
    for key in ("eventTime", "lastTimestamp", "firstTimestamp"):
        try:
            return max(parse_time(body[key]), 0)
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
    return 0


def _go_time(text: object) -> str:
    """Give a time as Go prints it, which is what the receiver writes."""
    whole = _text(text)
    return f"{whole[:10]} {whole[11:19]} +0000 UTC" if whole.endswith("Z") and len(whole) == 20 else whole  # noqa: PLR2004


def _key_values(attributes: Iterable[tuple[str, str | int]]) -> Iterable[KeyValue]:
    from opentelemetry.proto.common.v1 import common_pb2  # noqa: PLC0415 - an optional package

    for key, value in attributes:
        told = {"string_value": value} if isinstance(value, str) else {"int_value": value}
        yield common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(**told))


def _within(value: object, *keys: str) -> Any:  # noqa: ANN401 - any JSON
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
