"""The OTLP sink: records as OpenTelemetry logs over HTTP, in protobuf.

Body, severity and attributes are those of the collector's k8seventsreceiver, with the same names and texts (its version
of 2026, whose resource attributes are `k8s.object.*`). The time is that of the revision, not of the first occurrence.
kevents adds the enriched data by the semantic conventions: `k8s.pod.label.<key>`, `k8s.deployment.name` and the like.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from kevents import __version__
from kevents._model.validation import how_to_install
from kevents._model.wire import pluralize
from kevents.export._model.types import Record, count_of, event_time, value_at
from kevents.export._sinks.http import Endpoint, HttpSink, Text

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

_Value: TypeAlias = str | int | bool | tuple[str, ...]
_Attributes: TypeAlias = tuple[tuple[str, _Value], ...]

_LOGGER: Final = logging.getLogger("kevents.export")
_KINDS: Final = frozenset(
    ("Pod", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Node", "Namespace")
)
"""Kinds with attributes of their own in the semantic conventions."""
_SEVERITIES: Final = {"normal": 9, "warning": 13, "error": 17, "critical": 21}  # INFO, WARN, ERROR, FATAL


class OtlpSink(HttpSink):
    """Sends batches to an OpenTelemetry collector, or another server of OTLP logs. It holds no position.

    The log records are those of the collector's k8seventsreceiver; `kevents.id` identifies duplicates. A collector that
    accepts a part of a batch does not name it: the whole batch is rejected then, so that no record is lost.

    Args:
        endpoint: The full URL, as `http://collector:4318/v1/logs`; or a function that returns it.
        headers, compress, timeout, ca_file: As for :class:`WebhookSink`.
        clock: Returns the current time, in nanoseconds since the epoch.

    Raises:
        ValueError: If an argument has a wrong value.
        ImportError: If opentelemetry-proto is missing.
    """

    def __init__(
        self,
        endpoint: Text,
        *,
        headers: Mapping[str, Text] | None = None,
        compress: Literal["gzip", "none"] = "gzip",
        timeout: float = 30.0,
        ca_file: str | None = None,
        clock: Callable[[], int] = time_ns,
    ) -> None:
        try:
            import opentelemetry.proto.collector.logs.v1.logs_service_pb2  # noqa: F401, PLC0415 - an optional package
        except ImportError as missing:
            raise ImportError(f"OTLP needs opentelemetry-proto: {how_to_install('otlp')} ({missing})") from missing
        self._clock = clock
        super().__init__(Endpoint(endpoint, headers, timeout, ca_file, compress=compress))

    def _send(self, records: Sequence[Record]) -> None:
        body = request_of(records, self._clock()).SerializeToString()
        answer = self._endpoint.send(body, {"content-type": "application/x-protobuf"})
        refused, message = _partial_success(answer)
        why = self._endpoint.quote(message)
        if refused > 0:  # nothing is sent again then (OTLP: MUST NOT)
            which = "unknown which: " if refused < len(records) else ""
            number = pluralize(len(records), "record")
            self._refuse(records, f"{self._endpoint}: {refused} of {number} refused, {which}{why}")
        elif why:
            _LOGGER.warning("%s warns: %s", self._endpoint, why)


def _partial_success(data: bytes) -> tuple[int, str]:
    """Return how many records were refused, and why; an answer that cannot be read is a success, by its status."""
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415 - an optional package

    try:
        partial = logs_service_pb2.ExportLogsServiceResponse.FromString(data).partial_success
    except Exception:  # noqa: BLE001 - protobuf's errors differ by version
        return 0, ""
    return partial.rejected_log_records, partial.error_message


def request_of(records: Sequence[Record], now: int) -> ExportLogsServiceRequest:
    """Return the request for a batch; consecutive records about the same object share a resource."""
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415 - an optional package

    request = logs_service_pb2.ExportLogsServiceRequest()
    for attributes, group in itertools.groupby(records, key=_resource):
        resource = request.resource_logs.add()
        resource.resource.attributes.extend(_key_values(attributes))
        logs = resource.scope_logs.add()
        logs.scope.name, logs.scope.version = "kevents", __version__
        logs.log_records.extend(_log_record(record, now) for record in group)
    return request


def _resource(record: Record) -> _Attributes:
    body = record.body
    found: dict[str, _Value] = {}
    involved = body.get("involvedObject")
    if isinstance(involved, Mapping):  # a gap record has none
        kind, name, uid = (_text(involved.get(key)) for key in ("kind", "name", "uid"))
        found = {
            "k8s.node.name": _text(value_at(body, "source", "host")),
            "k8s.object.kind": kind,
            "k8s.object.name": name,
            "k8s.object.uid": uid,
            "k8s.object.fieldpath": _text(involved.get("fieldPath")),
            "k8s.object.api_version": _text(involved.get("apiVersion")),
            "k8s.object.resource_version": _text(involved.get("resourceVersion")),
        }
        prefix = f"k8s.{kind.lower() if kind in _KINDS else 'object'}"
        own = {f"{prefix}.name": name, f"{prefix}.uid": uid, **dict(_owners(involved, body))}
        found |= {key: value for key, value in own.items() if value}
        for field in ("label", "annotation"):
            values = involved.get(f"{field}s")
            for key, value in values.items() if isinstance(values, Mapping) else ():
                found[f"{prefix}.{field}.{key}"] = _text(value)
    cluster = {"k8s.cluster.uid": record.stream.cluster, "k8s.cluster.name": _text(body.get("clusterName"))}
    return (*found.items(), *((key, value) for key, value in cluster.items() if value))


def _owners(involved: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the names of the owners, up to the top one, and the uids that are known."""
    top = value_at(body, "kevents", "topOwner")
    path = value_at(top, "path")
    for step in path if isinstance(path, list) else ():
        kind, _, name = _text(step).partition("/")
        if kind in _KINDS:
            yield f"k8s.{kind.lower()}.name", name
    references = involved.get("ownerReferences")
    for owner in [*(references if isinstance(references, list) else ()), top]:
        kind, name, uid = (_text(value_at(owner, key)) for key in ("kind", "name", "uid"))
        if kind in _KINDS:
            yield f"k8s.{kind.lower()}.name", name
            yield f"k8s.{kind.lower()}.uid", uid
    yield "kevents.top_owner.kind", _text(value_at(top, "kind"))
    yield "kevents.top_owner.name", _text(value_at(top, "name"))


def _log_record(record: Record, now: int) -> LogRecord:
    from opentelemetry.proto.logs.v1 import logs_pb2  # noqa: PLC0415 - an optional package

    body = record.body
    log = logs_pb2.LogRecord(observed_time_unix_nano=now)
    gap = value_at(body, "kevents", "gap")
    if gap is not None:
        log.time_unix_nano = now
        log.severity_number, log.severity_text = _SEVERITIES["warning"], "Warning"  # type: ignore[assignment]
        log.body.string_value = "gap: " + json.dumps(gap, ensure_ascii=False)
        log.attributes.extend(_key_values((("kevents.id", record.id), ("kevents.gap", _text(value_at(gap, "why"))))))
        return log
    kind = _text(body.get("type"))
    if kind.lower() in _SEVERITIES:
        log.severity_number, log.severity_text = _SEVERITIES[kind.lower()], kind  # type: ignore[assignment]
    log.time_unix_nano = event_time(body)
    log.body.string_value = _text(body.get("message"))
    log.attributes.extend(_key_values(_attributes(record)))
    return log


def _attributes(record: Record) -> Iterator[tuple[str, _Value]]:
    body = record.body
    yield "k8s.event.reason", _text(body.get("reason"))
    yield "k8s.event.action", _text(body.get("action"))
    yield "k8s.event.start_time", _go_time(value_at(body, "metadata", "creationTimestamp"))
    yield "k8s.event.name", _text(value_at(body, "metadata", "name"))
    yield "k8s.event.uid", _text(value_at(body, "metadata", "uid"))
    yield "k8s.namespace.name", _text(value_at(body, "involvedObject", "namespace"))
    yield "k8s.event.reporting_controller", _text(body.get("reportingComponent"))
    yield "k8s.event.reporting_instance", _text(body.get("reportingInstance"))
    if body.get("count") or body.get("series"):  # the receiver leaves out a count of 0
        yield "k8s.event.count", count_of(dict(body))
    yield "kevents.id", record.id
    kevents = body["kevents"]
    if isinstance(kevents.get("countDelta"), int):
        yield "kevents.count_delta", kevents["countDelta"]
    if state := _text(value_at(kevents, "object", "state")):
        yield "kevents.object.state", state
        yield "kevents.object.stale", bool(value_at(kevents, "object", "stale"))
        yield "kevents.object.deleted", bool(value_at(body, "involvedObject", "deleted"))
    for key, values in (
        ("kevents.services", kevents.get("services")),
        ("kevents.node.addresses", value_at(kevents, "node", "addresses")),
    ):
        if values:
            yield key, tuple(map(str, values))


def _go_time(text: object) -> str:
    """Return a time as Go prints it, like the receiver."""
    whole = _text(text)
    return f"{whole[:10]} {whole[11:19]} +0000 UTC" if whole.endswith("Z") and len(whole) == 20 else whole  # noqa: PLR2004


def _key_values(attributes: Iterable[tuple[str, _Value]]) -> Iterator[KeyValue]:
    from opentelemetry.proto.common.v1 import common_pb2  # noqa: PLC0415 - an optional package

    for key, value in attributes:
        typed = common_pb2.AnyValue()
        if isinstance(value, bool):
            typed.bool_value = value
        elif isinstance(value, int):
            typed.int_value = value
        elif isinstance(value, str):
            typed.string_value = value
        else:
            typed.array_value.values.extend(common_pb2.AnyValue(string_value=item) for item in value)
        yield common_pb2.KeyValue(key=key, value=typed)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
