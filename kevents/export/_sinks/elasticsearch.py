"""The Elasticsearch sink: records as documents, by the bulk API. OpenSearch has the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from http import HTTPStatus
from typing import Final, Literal

import msgspec

from kevents._model.wire import pluralize
from kevents.export._model.types import Record, Retry, event_time, value_at
from kevents.export._sinks.http import Endpoint, HttpSink, Text

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_PATH: Final = "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"
_LONGEST_ANSWER: Final = 16 << 20
_DIRECTIVE: Final = re.compile(r"%(.?)", re.DOTALL)
_INDEX: Final = re.compile(r'(?![-_+])(?!\.{1,2}$)[^A-Z\\/*?"<>| ,#:\x00-\x1f]{1,200}')
_STORED: Final = frozenset({200, 201, 409})


class ElasticsearchSink(HttpSink):
    """Writes records to Elasticsearch or OpenSearch. It holds no position: wrap it in :class:`Checkpointed`.

    Each record is created under its id, `kevents.id`, so that a repeated batch doubles nothing. `@timestamp` is the
    time of the event's latest occurrence. The status of each document is read: 201 and 409 mean that it is stored, 429
    and 5xx are retried for these documents only, and other errors reject the document.

    Args:
        url: The base address, as `https://elastic:9200`; or a function that returns it.
        index: The name of the index or data stream, with `%Y`, `%m`, `%d` and `%H` of the event's time in UTC.
        headers, compress, timeout, ca_file: As for :class:`WebhookSink`.

    Raises:
        ValueError: If an argument has a wrong value.
    """

    def __init__(
        self,
        url: Text,
        *,
        index: str = "k8s-events-%Y.%m.%d",
        headers: Mapping[str, Text] | None = None,
        compress: Literal["gzip", "none"] = "gzip",
        timeout: float = 30.0,
        ca_file: str | None = None,
    ) -> None:
        check_index(index)
        self._index = index
        super().__init__(Endpoint(url, headers, timeout, ca_file, compress=compress, path=_PATH))

    def _send(self, records: Sequence[Record]) -> None:
        lines = []
        for record in records:
            moment = _EPOCH + timedelta(microseconds=event_time(record.body) // 1000)
            action = {"create": {"_index": moment.strftime(self._index), "_id": record.id}}
            lines += [action, {"@timestamp": moment, **record.body}]
        body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        answer = self._endpoint.send(body, {"content-type": "application/x-ndjson"}, longest=_LONGEST_ANSWER)
        self._read_items(records, answer)

    def _read_items(self, records: Sequence[Record], answer: bytes) -> None:
        """Settle each record by the status of its item. Raises Retry with the documents that must be sent again."""
        try:
            items = msgspec.json.decode(answer)["items"]
            results = [(int(result["status"]), result) for [result] in (item.values() for item in items)]
        except (msgspec.DecodeError, KeyError, TypeError, ValueError, AttributeError):
            results = []
        if len(results) != len(records):
            text = self._endpoint.quote(answer[:1000])
            raise Retry(f"{self._endpoint}: not the answer of a bulk API, the URL must be the base address: {text}")
        again: list[Record] = []
        why = ""
        for record, (status, result) in zip(records, results, strict=True):
            if status in _STORED:
                continue
            kind, reason = value_at(result, "error", "type"), value_at(result, "error", "reason")
            quoted = self._endpoint.quote(f"{kind or 'error'}: {reason or 'no reason given'}")
            error = f"{self._endpoint}: {status} {quoted}"
            if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                again.append(record)
                why = error
            else:
                self._refuse([record], error)
        if again:
            self._parts[-1] = again
            raise Retry(f"{why} ({pluralize(len(again), 'document')})")


def check_index(index: str) -> None:
    """Raise ValueError if a directive of an index's pattern is unknown, or Elasticsearch allows no such name."""
    for directive in _DIRECTIVE.findall(index):
        if directive not in {"Y", "m", "d", "H"}:
            raise ValueError(f"index: %{directive} is not known: use %Y, %m, %d and %H")
    if not _INDEX.fullmatch(_DIRECTIVE.sub("0", index)):
        raise ValueError(
            f'index: {index!r} is not the name of an index: lower case, without spaces and \\ / * ? " < > | , # :'
        )
