"""The Splunk sink: records as events, by the HTTP Event Collector (HEC)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import time_ns
from typing import Any, Final, Literal
from uuid import uuid4

import msgspec

from kevents.export._model.types import Record, Retry, event_time, value_at
from kevents.export._sinks.http import Endpoint, HttpSink, RefusedError, Text

_BAD_EVENTS: Final = frozenset({5, 6, 12, 13, 15})
"""Codes about the events that were sent: no data, invalid format, event missing or blank, invalid indexed fields."""


class SplunkSink(HttpSink):
    """Sends batches to Splunk's HTTP Event Collector. It holds no position: wrap it in :class:`Checkpointed`.

    A batch is accepted if the answer has the code 0. Errors about the events (code 6, 12, 13, 15) reject the events.
    All others are retried: they concern the token, the index or the server.

    Args:
        url: The whole address, as `https://splunk:8088/services/collector/event`; or a function that returns it.
        token: The token of the collector; or a function that returns it.
        index: The index; None: the token's.
        sourcetype: The source type.
        source: The source.
        headers, compress, timeout, ca_file: As for :class:`WebhookSink`.
        clock: Returns the current time in nanoseconds since the epoch, for records without a time.

    Raises:
        ValueError: If an argument has a wrong value.
    """

    def __init__(
        self,
        url: Text,
        *,
        token: Text,
        index: str | None = None,
        sourcetype: str = "kube:events",
        source: str = "kevents",
        headers: Mapping[str, Text] | None = None,
        compress: Literal["gzip", "none"] = "gzip",
        timeout: float = 30.0,
        ca_file: str | None = None,
        clock: Callable[[], int] = time_ns,
    ) -> None:
        fields = {"index": index, "sourcetype": sourcetype, "source": source}
        self._fields = {key: value for key, value in fields.items() if value}
        self._clock = clock
        own: dict[str, Text] = {
            "X-Splunk-Request-Channel": str(uuid4()),  # required where the token has acknowledgement switched on
            **(headers or {}),
            "Authorization": lambda: f"Splunk {(token if isinstance(token, str) else token()).strip()}",
        }
        # The code in the body of a 400 distinguishes wrong events from a wrong configuration of the token.
        super().__init__(Endpoint(url, own, timeout, ca_file, compress=compress))

    def _send(self, records: Sequence[Record]) -> None:
        body = b"\n".join(msgspec.json.encode(self._event(record)) for record in records)
        try:
            answer = self._endpoint.send(body, {"content-type": "application/json"})
        except RefusedError as refused:
            code = _code(refused.body)
            if code is None or code in _BAD_EVENTS:
                raise
            raise Retry(str(refused)) from None
        code = _code(answer)
        if code != 0:
            text = self._endpoint.quote(answer[:1000])
            raise Retry(f"{self._endpoint}: not a success of an event collector: {text}")

    def _event(self, record: Record) -> dict[str, Any]:
        host = value_at(record.body, "source", "host") or value_at(record.body, "reportingInstance")
        own = {"host": host} if isinstance(host, str) and host else {}
        seconds, nanoseconds = divmod(event_time(record.body) or self._clock(), 1_000_000_000)
        return {"time": f"{seconds}.{nanoseconds // 1_000_000:03d}", **own, **self._fields, "event": record.body}


def _code(answer: bytes) -> int | None:
    """Return the code of an answer; None if it is not one of a collector."""
    try:
        code = value_at(msgspec.json.decode(answer), "code")
    except msgspec.DecodeError:
        return None
    return code if isinstance(code, int) else None
