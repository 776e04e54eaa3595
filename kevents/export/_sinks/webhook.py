"""The webhook sink: a batch as JSON lines, or records in a JSON body of the user's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from kevents.export._model.types import Record, Retry, value_at
from kevents.export._sinks.http import Endpoint, HttpSink, Text
from kevents.export._sinks.template import Template, compile_path

METHODS = ("POST", "PUT", "PATCH")


class WebhookSink(HttpSink):
    """Sends records to an HTTP server. It holds no position: wrap it in :class:`Checkpointed`.

    Without a body, a batch is one request with one record a line. With a body, each record is a request, in order; with
    `prefix`, `separator` or `suffix`, a batch is one request with the bodies of its records between them. 429 and 503
    are retried after `Retry-After`, up to 60 s. A refusal (400, 409, 413, 422, ...) is narrowed down to the refused
    records, which are rejected. Errors about the endpoint and not the records (401, 403, 404, a redirect, a wrong
    certificate) are retried for ever.

    Args:
        url: The URL, or a function that returns it. All but scheme and host is treated as a secret.
        method: ``POST``, ``PUT`` or ``PATCH``.
        headers: Additional headers by name; a value may be a function, called for each request.
        body: JSON with `{path}` in its texts, see the docs; None: JSON lines.
        prefix: Sent before the bodies of a batch, such as ``[``.
        separator: Sent between the bodies of a batch, such as ``,``.
        suffix: Sent after the bodies of a batch, such as ``]``.
        ok_when: Values that the JSON of a successful answer must have, by path, such as ``{"ok": True}``. An answer
            without them is retried.
        compress: ``gzip`` or ``none``.
        timeout: Seconds for a request, from the connection to the end of the answer.
        ca_file: A file of certificates to trust instead of the system's.

    Raises:
        ValueError: If an argument has a wrong value.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        url: Text,
        *,
        method: str = "POST",
        headers: Mapping[str, Text] | None = None,
        body: str | None = None,
        prefix: str = "",
        separator: str = "",
        suffix: str = "",
        ok_when: Mapping[str, Any] | None = None,
        compress: Literal["gzip", "none"] = "none",
        timeout: float = 30.0,
        ca_file: str | None = None,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"method must be 'POST', 'PUT' or 'PATCH', not {method!r}")
        self._template = Template(body) if body else None
        self._around = tuple(text.encode() for text in (prefix, separator, suffix))
        if any(self._around) and self._template is None:
            raise ValueError("prefix, separator and suffix need a body")
        self._ok_when = [(compile_path(path), value) for path, value in (ok_when or {}).items()]
        super().__init__(Endpoint(url, headers, timeout, ca_file, method=method, compress=compress))

    def _split(self, records: Sequence[Record]) -> Iterable[Sequence[Record]]:
        return [records] if self._template is None or any(self._around) else [[record] for record in records]

    def _send(self, records: Sequence[Record]) -> None:
        if self._template is None:
            lines = b"".join(record.line() + b"\n" for record in records)
            answer = self._endpoint.send(lines, {"content-type": "application/x-ndjson"})
        else:
            prefix, separator, suffix = self._around
            bodies = separator.join(self._template.fill(record.body) for record in records)
            answer = self._endpoint.send(prefix + bodies + suffix, {"content-type": "application/json"})
        if self._ok_when and not self._is_ok(answer):
            text = self._endpoint.quote(answer)
            raise Retry(f"{self._endpoint}: the answer does not fulfil ok_when: {text}")

    def _is_ok(self, answer: bytes) -> bool:
        try:
            found = msgspec.json.decode(answer)
        except msgspec.DecodeError:
            return False
        return all(value_at(found, *steps) == value for steps, value in self._ok_when)
