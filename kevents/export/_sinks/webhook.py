"""The webhook sink: a batch as JSON lines, or each record in a JSON body of the user's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from kevents.export._model.types import Record
from kevents.export._sinks.http import Endpoint, HttpSink, Text

_Fill: TypeAlias = Callable[[Mapping[str, Any]], Any]

_ENCODER: Final = msgspec.json.Encoder()
_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP: Final = re.compile(r"\[([^\[\]]+)\]|([^.\[\]]+)")


class WebhookSink(HttpSink):
    """Sends records to an HTTP server. It holds no position: wrap it in :class:`Checkpointed`.

    Without a body, a batch is one request with one record a line. With a body, each record is a request, in order. 429
    and 503 are retried after `Retry-After`, up to 60 s. A refusal (400, 409, 413, 422, ...) is narrowed down to the
    refused records, which are rejected. Errors about the endpoint and not the records (401, 403, 404, a redirect, a
    wrong certificate) are retried for ever.

    Args:
        url: The URL, or a function that returns it. All but scheme and host is treated as a secret.
        method: ``POST`` or ``PUT``.
        headers: Additional headers by name; a value may be a function, called for each request.
        body: JSON with `{path}` in its texts, see the docs; None: JSON lines.
        timeout: Seconds for a request, from the connection to the end of the answer.
        ca_file: A file of certificates to trust instead of the system's.

    Raises:
        ValueError: If an argument has a wrong value.
        ImportError: If httpx is missing.

    .. versionadded:: 0.1
    """

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
        """Check the arguments; connect to nothing."""
        if method not in {"POST", "PUT"}:
            raise ValueError(f"method must be 'POST' or 'PUT', not {method!r}")
        self._template = Template(body) if body else None
        super().__init__(Endpoint(url, headers, timeout, ca_file, method))

    def _split(self, records: Sequence[Record]) -> Iterable[Sequence[Record]]:
        return [records] if self._template is None else [[record] for record in records]

    def _send(self, records: Sequence[Record]) -> None:
        if self._template is None:
            lines = b"".join(record.line() + b"\n" for record in records)
            self._endpoint.send(lines, {"content-type": "application/x-ndjson"})
        else:
            self._endpoint.send(self._template.fill(records[0].body), {"content-type": "application/json"})


class Template:
    """A JSON body whose texts hold `{path}` for values of a record. A value never breaks the JSON.

    `{involvedObject.name}` is a value by its path, `{metadata.labels[app.kubernetes.io/name]}` one whose key has dots,
    `{.}` the whole record; `{{` and `}}` are braces. A text that is one placeholder and nothing else becomes the value
    itself: a number stays a number, and a missing value is null. In longer texts a missing value is empty.

    Args:
        text: The JSON.

    Raises:
        ValueError: If it is not JSON, or a placeholder is invalid.
    """

    def __init__(self, text: str) -> None:
        """Compile the template."""
        try:
            value = json.loads(text)
            _ENCODER.encode(value)  # some JSON can be read and not be written: a lone surrogate, a huge number
        except (ValueError, RecursionError, OverflowError) as error:
            raise ValueError(f"the body must be JSON, with places like {{message}} in its texts: {error}") from None
        self._fill = _compile(value)

    def fill(self, record: Mapping[str, Any]) -> bytes:
        """Return the body for a record."""
        return _ENCODER.encode(self._fill(record))


def _compile(value: Any) -> _Fill:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return _compile_text(value)
    if isinstance(value, dict):
        fields = {key: _compile(inner) for key, inner in value.items()}
        return lambda record: {key: fill(record) for key, fill in fields.items()}
    if isinstance(value, list):
        items = [_compile(inner) for inner in value]
        return lambda record: [fill(record) for fill in items]
    return lambda _: value


def _compile_text(text: str) -> _Fill:
    parts: list[str | _Fill] = []
    end = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[end : token.start()])
        parts.append(token[0][0] if token[0] in {"{{", "}}"} else _compile_place(token[0], text))
        end = token.end()
    parts.append(text[end:])
    used = [part for part in parts if part != ""]
    if len(used) == 1 and not isinstance(used[0], str):
        return used[0]
    return lambda record: "".join(part if isinstance(part, str) else _to_text(part(record)) for part in used)


def _compile_place(place: str, text: str) -> _Fill:
    path = place[1:-1].strip()
    if path == ".":
        return lambda record: record
    steps = [bracketed or plain for bracketed, plain in _STEP.findall(path)]
    if not steps or not re.fullmatch(r"[^.\[\]]+(\.[^.\[\]]+|\[[^\[\]]+\])*", path):
        raise ValueError(
            f"{place!r} in the body's text {text!r} is no place: write {{involvedObject.name}}, "
            "{metadata.labels[example.com/key]} or {.}; a literal brace is written twice"
        )
    return lambda record: _value_at(record, steps)


def _value_at(value: Any, steps: list[str]) -> Any:  # noqa: ANN401 - any JSON
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _to_text(value: Any) -> str:  # noqa: ANN401 - any JSON
    if value is None:
        return ""
    return value if isinstance(value, str) else _ENCODER.encode(value).decode()
