"""The Loki sink: records as log lines, by the push API in JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from time import time_ns
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from kevents.export._model.types import Record, event_time
from kevents.export._sinks.http import Endpoint, HttpSink, Text
from kevents.export._sinks.webhook import compile_text

DEFAULT_LABELS: Final = MappingProxyType(
    {
        "job": "kevents",
        "namespace": "{involvedObject.namespace}",
        "kind": "{involvedObject.kind}",
        "type": "{type}",
    }
)
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)


class LokiSink(HttpSink):
    """Sends batches to Grafana Loki. It holds no position: wrap it in :class:`Checkpointed`.

    The line is the record as JSON, its time that of the event's latest occurrence. The lines of a stream are sorted by
    time. After a failure Loki ignores lines that it has already: they are equal, with the same time and labels. Loki
    refuses lines that are too old (`reject_old_samples_max_age`); those go to the dead letters.

    Args:
        url: The whole push address, as `http://loki:3100/loki/api/v1/push`; or a function that returns it.
        labels: The labels of a stream, by name: texts with `{path}` for values of a record. Few values are best: each
            combination is a stream. Empty values are left out.
        tenant: The tenant, sent as `X-Scope-OrgID`.
        headers, compress, timeout, ca_file: As for :class:`WebhookSink`.
        clock: Returns the current time in nanoseconds since the epoch, for records without a time.

    Raises:
        ValueError: If an argument has a wrong value.
    """

    def __init__(
        self,
        url: Text,
        *,
        labels: Mapping[str, str] = DEFAULT_LABELS,
        tenant: str | None = None,
        headers: Mapping[str, Text] | None = None,
        compress: Literal["gzip", "none"] = "gzip",
        timeout: float = 30.0,
        ca_file: str | None = None,
        clock: Callable[[], int] = time_ns,
    ) -> None:
        self._labels = compile_labels(labels)
        self._clock = clock
        own: dict[str, Text] = {**(headers or {})}
        if tenant:
            own["X-Scope-OrgID"] = tenant
        super().__init__(Endpoint(url, own, timeout, ca_file, compress=compress))

    def _send(self, records: Sequence[Record]) -> None:
        streams: dict[tuple[tuple[str, str], ...], list[tuple[int, str]]] = {}
        for record in records:
            labels = tuple((name, value) for name, fill in self._labels if (value := fill(record.body)))
            line = (event_time(record.body) or self._clock(), record.line().decode())
            streams.setdefault(labels or (("job", "kevents"),), []).append(line)
        pushed = []
        for labels, lines in streams.items():
            values = [(str(time), line) for time, line in sorted(lines, key=itemgetter(0))]
            pushed.append({"stream": dict(labels), "values": values})
        self._endpoint.send(msgspec.json.encode({"streams": pushed}), {"content-type": "application/json"})


def compile_labels(labels: Mapping[str, str]) -> list[tuple[str, Callable[[Mapping[str, Any]], str]]]:
    """Compile the labels of streams. Raises ValueError if there is none, a name is invalid, or a template is."""
    if not labels:
        raise ValueError("labels: Loki needs at least one label")
    for name in labels:
        if not _LABEL.fullmatch(name):
            raise ValueError(f"labels: {name!r} is not the name of a label: use ASCII letters, digits and _")
    return [(name, compile_text(text)) for name, text in labels.items()]
