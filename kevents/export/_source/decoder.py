"""Decodes what the API server sends: pages of lists and lines of watches, also where an event is nested too deeply."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from kevents._model.wire import clip
from kevents.exceptions import StatusError, UnavailableError
from kevents.export._model.types import Record
from kevents.export._source.api import GoneError
from kevents.export._source.revision_filter import RevisionFilter

_T = TypeVar("_T")

_MAX_DEPTH: Final = 64
_MAX_LINE: Final = 1 << 24
_MAX_MESSAGE: Final = 200
_GONE: Final = 410
_CHANGES: Final = ("ADDED", "MODIFIED")  # a tuple, because a line may hold an unhashable value there
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)
_FAILURES: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _ListMetadata(msgspec.Struct, rename={"more": "continue"}):
    resourceVersion: str = ""  # noqa: N815 - the API's name
    more: str = ""


class Page(msgspec.Struct):
    """A page of a list, its events undecoded."""

    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


_PAGE: Final = msgspec.json.Decoder(Page)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])


def decode(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    """Decode JSON. Values nested deeper than 64 levels become null.

    Args:
        decoder: A msgspec decoder.
        data: The JSON.

    Raises:
        msgspec.DecodeError: It is no JSON, or not what the decoder expects.
        UnicodeDecodeError: It is no UTF-8.
    """
    try:
        return decoder.decode(data)
    except RecursionError:
        return decoder.decode(limit_depth(data))


def limit_depth(data: bytes) -> bytes:
    """Replace values nested deeper than 64 levels by null. Invalid JSON stays invalid."""
    kept: list[bytes] = []
    at = depth = 0
    for token in _TOKEN.finditer(data):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == _MAX_DEPTH + 1:
                kept.append(data[at : token.start()])
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == _MAX_DEPTH:
                kept.append(b"null")
                at = token.end()
    return b"".join([*kept, data[at:] if depth <= _MAX_DEPTH else b""])


def decode_page(body: bytes) -> Page:
    """Decode a page of a list.

    Raises:
        UnavailableError: It is none, or it has no resourceVersion.
    """
    try:
        page = decode(_PAGE, body)
    except _FAILURES as error:
        raise UnavailableError(f"the answer is no list of events: {error}") from None
    if not page.metadata.resourceVersion:
        raise UnavailableError("the answer is no list of events: it has no resourceVersion")
    return page


class WatchDecoder:
    """Decodes one watch.

    Args:
        revisions: The stream's filter, which gets each event.
        version: The resourceVersion after which the watch began.

    Attributes:
        version: The resourceVersion after which the next watch begins: that of the last event.
        events: The number of events of any type.
        unreadable: The number of lines that held no event.
        error: The error that ended the watch, from an ERROR event or a broken line; None: none so far.
    """

    def __init__(self, revisions: RevisionFilter, version: str) -> None:
        """Start at the beginning of the watch."""
        self.version = version
        self.events = 0
        self.unreadable = 0
        self.error: Exception | None = None
        self._revisions = revisions
        self._rest = b""

    def decode(self, data: bytes, now: int, read_at: float) -> list[Record]:
        """Return the records of the bytes that arrived. An incomplete line waits for its end.

        Args:
            data: The bytes.
            now: The time of arrival in nanoseconds since the epoch.
            read_at: The same by the monotonic clock, in seconds.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MAX_LINE:
            self.error = UnavailableError(f"the answer is no watch: a line is longer than {_MAX_LINE} bytes")
            return []
        records = []
        for line in lines:
            if line:
                record = self._line(line, now, read_at)
                if record is not None:
                    records.append(record)
            if self.error is not None:
                break
        return records

    def _line(self, line: bytes, now: int, read_at: float) -> Record | None:
        try:
            change = decode(_OBJECT, line)
        except _FAILURES as error:
            self.error = UnavailableError(f"the answer is no watch: {error}")
            return None
        verb, event = change.get("type"), change.get("object")
        if verb == "ERROR":
            self.error = _error_of(event)
            return None
        metadata = event.get("metadata") if isinstance(event, dict) else None
        version = metadata.get("resourceVersion", "") if isinstance(metadata, dict) else None
        if not isinstance(event, dict) or not isinstance(version, str):
            self.unreadable += 1
            return None
        self.events += 1
        record = self._revisions.watched(verb, event, now, read_at) if verb in _CHANGES else None
        if version:
            self.version = version
            self._revisions.advance(version)
        return record


def _error_of(status: object) -> Exception:
    """The exception for the Status of an ERROR event."""
    found = status if isinstance(status, dict) else {}
    code, reason, message = found.get("code"), str(found.get("reason", "")), str(found.get("message", ""))
    if code == _GONE or reason in {"Expired", "Gone"}:
        return GoneError(message)
    return StatusError(code if isinstance(code, int) else 0, reason, clip(message, _MAX_MESSAGE))
