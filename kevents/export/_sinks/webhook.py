"""Records to an HTTP server: a batch as JSON lines, or each record in a body of one's own making."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kevents.export._model.types import Batch, Position, Record, Stream
from kevents.export._sinks.http import Place, Text
from kevents.export._sinks.split import Delivery
from kevents.export._sinks.template import Template

_LINES = {"content-type": "application/x-ndjson"}
_JSON = {"content-type": "application/json"}


class WebhookSink:
    """Sends records to an HTTP server. It holds no mark: wrap it in :class:`Checkpointed`.

    Without a body of one's own, a batch is one request with a record a line. With one, each record is a request, in
    order. 429 and 503 are waited for as they ask (`Retry-After`, up to 60 s). A refusal (400, 409, 413, 422, ...) is
    narrowed down to the records that are refused; those are rejected. What speaks of the place and not of the records
    (401, 403, 404, a redirect, a certificate that does not match) is tried again, without end.

    Args:
        url: Where to; or a function that gives it. All but scheme and host is taken for a secret.
        method: ``POST`` or ``PUT``.
        headers: Further headers by name; a value may be a function, asked for each request.
        body: JSON with `{path}` in its texts, see the docs; None: JSON lines.
        timeout: Seconds to send, and seconds without a byte of the answer.
        ca_file: A file of certificates to trust instead of the system's.

    Raises:
        ValueError: If a value is none.
        ImportError: If httpx is missing.

    .. versionadded:: 0.1
    """

    holds_marks = False

    def __init__(
        self,
        url: Text,
        *,
        method: str = "POST",
        headers: Mapping[str, Text] | None = None,
        body: str | None = None,
        timeout: float = 30.0,
        ca_file: str | None = None,
    ) -> None:
        """Check what was given; connect to nothing."""
        if method not in {"POST", "PUT"}:
            raise ValueError(f"method must be 'POST' or 'PUT', not {method!r}")
        self._template = Template(body) if body else None
        self._place = Place(url, headers, timeout, ca_file, method)
        self._delivery = Delivery()

    def write(self, batch: Batch) -> None:
        """Send a batch; it has been answered with a success when this returns.

        Raises:
            Retry: If there was no answer, or one that another attempt may better; it goes on where it was.
            Reject: With the records that the server refuses; the others have been taken.
        """
        self._delivery.run(batch, self._parts, self._send)

    def _parts(self, records: Sequence[Record]) -> Iterable[Sequence[Record]]:
        return [records] if self._template is None else [[record] for record in records]

    def _send(self, records: Sequence[Record]) -> None:
        if self._template is None:
            self._place.send(b"".join(record.line() + b"\n" for record in records), _LINES)
        else:
            self._place.send(self._template.fill(records[0].body), _JSON)

    def last_mark(self, stream: Stream) -> Position | None:  # noqa: ARG002 - a server cannot be asked
        """Give None: the server cannot be asked."""
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._place.close()

    def __repr__(self) -> str:
        """With scheme and host only."""
        return f"{type(self).__name__}({str(self._place)!r})"
