"""Records as OpenTelemetry logs, by OTLP over HTTP in protobuf."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Final, Literal

from kevents._model.wire import pluralize
from kevents.export._model.types import Batch, Position, Record, Reject, Stream
from kevents.export._sinks.http import Place, Text
from kevents.export._sinks.log_record import request_of
from kevents.export._sinks.split import Delivery

_LOGGER: Final = logging.getLogger("kevents.export")


class OtlpSink:
    """Sends batches to an OpenTelemetry collector, or whatever takes OTLP logs over HTTP. It holds no mark.

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

    holds_marks = False

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

    def last_mark(self, stream: Stream) -> Position | None:  # noqa: ARG002 - a collector cannot be asked
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
