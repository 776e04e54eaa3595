"""Records as OpenTelemetry logs, by OTLP over HTTP in protobuf."""

from __future__ import annotations

import gzip
import itertools
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import time_ns
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from kevents import __version__
from kevents._model.wire import parse_time, pluralize
from kevents.export._model.types import Batch, Position, Record, Reject, Stream
from kevents.export._sinks.http import Delivery, Place, Text

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord


_LOGGER: Final = logging.getLogger("kevents.export")


class OtlpSink:
    """Sends batches to an OpenTelemetry collector, or whatever takes OTLP logs over HTTP. It holds no position.

    Records look as the collector's k8seventsreceiver makes them, with `kevents.id` to tell duplicates. A collector
    that takes a part of a batch does not say which part: the whole batch is rejected then, so that the dead letters
    hold what is missing.

    Args:
        endpoint: The full URL, as `http://collector:4318/v1/logs`; or a function that gives it.
        headers: Further headers by name; a value may be a function, asked for each request.
        compress: ``gzip`` or ``none``.
        timeout: Seconds to send, and seconds without a byte of the answer.
        ca_file: A file of certificates to trust instead of the system's.
        clock: The present, in nanoseconds since the epoch.

    Raises:
        ValueError: If a value is none.
        ImportError: If httpx or opentelemetry-proto is missing.

    .. versionadded:: 0.1
    """

    holds_positions = False

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
        """Check what was given; connect to nothing."""
        if compress not in {"gzip", "none"}:
            raise ValueError(f"compress must be 'gzip' or 'none', not {compress!r}")
        _needs_proto()
        self._packs = compress == "gzip"
        self._place = Place(endpoint, headers, timeout, ca_file)
        self._clock = clock
        self._delivery = Delivery()
        self._taken_in_part: list[Record] = []
        self._why = ""

    def write(self, batch: Batch) -> None:
        """Send a batch; the collector has taken it when this returns.

        Raises:
            Retry: If there was no answer, or one that another attempt may better.
            Reject: With the records that were refused, or of which it is not known.
        """
        try:
            self._delivery.run(batch, lambda records: [records], self._send)
        except Reject as refusal:
            self._reject([*refusal.records, *self._doubtful()], str(refusal))
        self._reject(self._doubtful(), self._why)

    def _doubtful(self) -> list[Record]:
        records, self._taken_in_part = self._taken_in_part, []
        return records

    def _reject(self, records: Sequence[Record], why: str) -> None:
        if records:
            raise Reject(why, records)

    def _send(self, records: Sequence[Record]) -> None:
        body = request_of(records, self._clock()).SerializeToString()
        headers = {"content-type": "application/x-protobuf"}
        if self._packs:
            body, headers = gzip.compress(body, 6, mtime=0), {**headers, "content-encoding": "gzip"}
        self._judge(records, self._place.send(body, headers).body)

    def _judge(self, records: Sequence[Record], data: bytes) -> None:
        """See what a success says: it may be one of a part only. Nothing is sent again then (OTLP: MUST NOT)."""
        refused, message = _partial_success(data)
        why = self._place.said(message)
        if refused > 0:
            which = "which it does not say: " if refused < len(records) else ""
            self._taken_in_part.extend(records)
            self._why = f"{self._place}: {refused} of {pluralize(len(records), 'record')} refused, {which}{why}"
        elif why:
            _LOGGER.warning("%s warns: %s", self._place, why)

    def last_position(self, stream: Stream) -> Position | None:  # noqa: ARG002 - a collector cannot be asked
        """Give None: the collector cannot be asked."""
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._place.close()

    def __repr__(self) -> str:
        """With scheme and host only."""
        return f"{type(self).__name__}({str(self._place)!r})"


def _partial_success(data: bytes) -> tuple[int, str]:
    """Give how many records were refused, and why; an answer that cannot be read is a success (its status said so)."""
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415 - an optional package

    try:
        partial = logs_service_pb2.ExportLogsServiceResponse.FromString(data).partial_success
    except Exception:  # noqa: BLE001 - protobuf's own, of which there are several by version
        return 0, ""
    return partial.rejected_log_records, partial.error_message


def _needs_proto() -> None:
    try:
        import opentelemetry.proto.collector.logs.v1.logs_service_pb2  # noqa: F401, PLC0415 - an optional package
    except ImportError as missing:
        raise ImportError(f"OTLP needs opentelemetry-proto: pip install 'kevents[otlp]' ({missing})") from missing


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
