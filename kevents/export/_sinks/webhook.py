"""The webhook sink: a batch as JSON lines, or records in a JSON body of the user's.

The body is a template with places for values of a record. A value never breaks the JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from kevents._model.wire import parse_time
from kevents.export._model.types import Record, Retry, value_at
from kevents.export._sinks.http import Endpoint, HttpSink, Text

METHODS: Final = ("POST", "PUT", "PATCH")

_Fill: TypeAlias = Callable[[Mapping[str, Any]], Any]

_TOKEN: Final = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_STEP: Final = re.compile(r"\[([^\[\]]+)\]|([^.\[\]]+)")
_PATH: Final = re.compile(r"[^.\[\]|]+(\.[^.\[\]|]+|\[[^\[\]]+\])*")


def compile_template(text: str) -> Callable[[Mapping[str, Any]], bytes]:
    """Compile a JSON body whose texts hold `{path}` for values of a record. Returns a function of the record.

    `{involvedObject.name}` is a value by its path, `{metadata.labels[app.kubernetes.io/name]}` one whose key has dots,
    `{.}` the whole record; `{{` and `}}` are braces. A text that is one placeholder and nothing else becomes the value
    itself: a number stays a number, and a missing value is null. In longer texts a missing value is empty. A filter
    changes a value: `{kevents.time|unix}` is a time in seconds, `|unix_ns` in nanoseconds, `|json` a value as a text.
    Raises ValueError if the text is not JSON, or a placeholder is invalid.
    """
    try:
        value = json.loads(text)
        msgspec.json.encode(value)  # some JSON can be read and not be written: a lone surrogate, a huge number
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"the body must be JSON, with places like {{message}} in its texts: {error}") from None
    fill = _compile(value)
    return lambda record: msgspec.json.encode(fill(record))


def compile_text(text: str) -> Callable[[Mapping[str, Any]], str]:
    """Compile a text with places as in a template; a missing value is empty. Raises ValueError for an invalid place."""
    fill = _compile_places(text)
    return lambda record: _to_text(fill(record))


def compile_path(path: str) -> list[str]:
    """Return the steps of a path. Raises ValueError if it is invalid."""
    if not _PATH.fullmatch(path):
        raise ValueError(f"{path!r} is no path: write involvedObject.name or metadata.labels[example.com/key]")
    return [bracketed or plain for bracketed, plain in _STEP.findall(path)]


def _compile(value: Any) -> _Fill:  # noqa: ANN401 - any JSON
    if isinstance(value, str):
        return _compile_places(value)
    if isinstance(value, dict):
        fields = {key: _compile(inner) for key, inner in value.items()}
        return lambda record: {key: fill(record) for key, fill in fields.items()}
    if isinstance(value, list):
        items = [_compile(inner) for inner in value]
        return lambda record: [fill(record) for fill in items]
    return lambda _: value


def _compile_places(text: str) -> _Fill:
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
    path, bar, name = place[1:-1].partition("|")
    path, name = path.strip(), name.strip()
    if bar and name not in _FILTERS:
        raise ValueError(f"{place!r} in the body's text {text!r} has no known filter: use {', '.join(_FILTERS)}")
    change = _FILTERS[name] if bar else lambda value: value
    if path == ".":
        return change
    try:
        steps = compile_path(path)
    except ValueError:
        raise ValueError(
            f"{place!r} in the body's text {text!r} is no place: write {{involvedObject.name}}, "
            "{metadata.labels[example.com/key]} or {.}; a literal brace is written twice"
        ) from None
    return lambda record: change(value_at(record, *steps))


def _unix_ns(value: Any) -> int | None:  # noqa: ANN401 - any JSON
    try:
        return parse_time(value)
    except (ValueError, OverflowError):
        return None


def _to_text(value: Any) -> str:  # noqa: ANN401 - any JSON
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


_FILTERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "unix": lambda value: None if (found := _unix_ns(value)) is None else found // 1_000_000_000,
    "unix_ns": _unix_ns,
    "json": lambda value: msgspec.json.encode(value).decode(),
}


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
        self._template = compile_template(body) if body else None
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
            bodies = separator.join(self._template(record.body) for record in records)
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
