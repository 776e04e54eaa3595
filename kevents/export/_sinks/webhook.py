"""Records to an HTTP server: a batch as JSON lines, or each record in a body of one's own making."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from kevents.export._model.types import Batch, Position, Record, Stream
from kevents.export._sinks.http import Delivery, Place, Text

_LINES = {"content-type": "application/x-ndjson"}
_JSON = {"content-type": "application/json"}


class WebhookSink:
    """Sends records to an HTTP server. It holds no position: wrap it in :class:`Checkpointed`.

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

    holds_positions = False

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

    def last_position(self, stream: Stream) -> Position | None:  # noqa: ARG002 - a server cannot be asked
        """Give None: the server cannot be asked."""
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._place.close()

    def __repr__(self) -> str:
        """With scheme and host only."""
        return f"{type(self).__name__}({str(self._place)!r})"


_Filled: TypeAlias = Callable[[Mapping[str, Any]], Any]

_ENCODER: Final = msgspec.json.Encoder()
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP: Final = re.compile(r"\[([^\[\]]+)\]|([^.\[\]]+)")


class Template:
    """A body in JSON whose texts hold `{path}` for what a record holds there.

    `{involvedObject.name}` is a value by its path, `{metadata.labels[app.kubernetes.io/name]}` one whose key has dots,
    `{.}` the whole record; `{{` and `}}` are braces. A text that is one place and nothing else becomes the value
    itself: a number stays a number, and what is missing is null. In longer texts what is missing is nothing.

    Args:
        text: The JSON.

    Raises:
        ValueError: If it is no JSON, or a place in it means nothing.
    """

    def __init__(self, text: str) -> None:
        """Compile it."""
        try:
            value = json.loads(text)
            _ENCODER.encode(value)  # what can be read and not written: half a character, a number beyond all measure
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"the body must be JSON, with places like {{message}} in its texts: {error}") from None
        self._fill = _compiled(value)

    def fill(self, record: Mapping[str, Any]) -> bytes:
        """Give the body for a record."""
        return _ENCODER.encode(self._fill(record))


def _compiled(value: Any) -> _Filled:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return _compiled_text(value)
    if isinstance(value, dict):
        fields = {key: _compiled(inner) for key, inner in value.items()}
        return lambda record: {key: fill(record) for key, fill in fields.items()}
    if isinstance(value, list):
        items = [_compiled(inner) for inner in value]
        return lambda record: [fill(record) for fill in items]
    return lambda _: value


def _compiled_text(text: str) -> _Filled:
    parts: list[str | _Filled] = []
    end = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[end : token.start()])
        parts.append(token[0][0] if token[0] in {"{{", "}}"} else _compiled_place(token[0], text))
        end = token.end()
    parts.append(text[end:])
    filled = [part for part in parts if part != ""]
    if len(filled) == 1 and not isinstance(filled[0], str):
        return filled[0]
    return lambda record: "".join(part if isinstance(part, str) else _as_text(part(record)) for part in filled)


def _compiled_place(place: str, text: str) -> _Filled:
    path = place[1:-1].strip()
    if path == ".":
        return lambda record: record
    steps = [bracketed or plain for bracketed, plain in _STEP.findall(path)]
    if not steps or not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[[^\[\]]+\])*", path):
        raise ValueError(
            f"{place!r} in the body's text {text!r} is no place: write {{involvedObject.name}}, "
            "{metadata.labels[example.com/key]} or {.}; a brace of its own is written twice"
        )
    return lambda record: _looked_up(record, steps)


def _looked_up(value: Any, steps: list[str]) -> Any:  # noqa: ANN401 - any JSON
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _as_text(value: Any) -> str:  # noqa: ANN401 - any JSON
    if value is None:
        return ""
    return value if isinstance(value, str) else _ENCODER.encode(value).decode()
