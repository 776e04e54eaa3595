"""Decoding of list pages, watch lines and deeply nested JSON."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import msgspec
import pytest

from kevents.exceptions import StatusError, UnavailableError
from kevents.export import Record, Stream
from kevents.export._source.response_stream import GoneError, WatchDecoder, decode, limit_depth
from kevents.export._source.revision_filter import RevisionFilter
from tests.support.collector import no_collection

STREAM = Stream("c-1")
HOUR = 3_600_000_000_000
NOW = 1_784_883_600_000_000_000  # 2026-07-24T09:00:00Z
MINUTES_LATER = "2026-07-24T09:05:00Z"
MINUTES_BEFORE = "2026-07-24T08:55:00Z"


def event(name: str, version: str, **fields: Any) -> dict[str, Any]:
    """Return an event without a uid."""
    return {"metadata": {"namespace": "prod", "name": name, "resourceVersion": version}, "count": 1, **fields}


def line(verb: str, body: object) -> bytes:
    """Return one watch line."""
    return json.dumps({"type": verb, "object": body}).encode() + b"\n"


def told(records: list[Record | None]) -> list[tuple[str, int, Any]]:
    """Return id, number and count of each record."""
    return [(record.id, record.rv, record.body["kevents"]["countDelta"]) for record in records if record is not None]


class TestWatchDecoder:
    """Decoding of a watch's bytes."""

    def take(self, *data: bytes) -> tuple[WatchDecoder, list[Record]]:
        """Decode pieces of bytes."""
        decoder = WatchDecoder(RevisionFilter(STREAM, None), "70")
        records = [record for piece in data for record in decoder.decode(piece, NOW, 0.0)]
        return decoder, records

    def test_lines(self) -> None:
        """Lines are joined across reads. An incomplete line is kept for the next read."""
        data = line("ADDED", event("a", "71")) + line("MODIFIED", event("a", "72", count=2))
        decoder, records = self.take(data[:50], data[50:100], data[100:-1])
        assert (told([*records]), decoder.version) == ([("prod/a:71", 71, 1)], "71")

    def test_others(self) -> None:
        """Deletions and bookmarks advance the version without a record."""
        data = line("DELETED", event("a", "71")) + line("BOOKMARK", {"metadata": {"resourceVersion": "75"}})
        decoder, records = self.take(data)
        assert (records, decoder.version, decoder.events) == ([], "75", 2)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            ({"code": 410, "reason": "Expired"}, GoneError),
            ({"code": 500, "reason": "Expired"}, GoneError),
            ({"code": 410}, GoneError),
            ({"code": 500, "message": "etcdserver: no leader"}, StatusError),
            ({}, StatusError),
            (None, StatusError),
            ([], StatusError),
        ],
        ids=str,
    )
    def test_errors(self, status: object, kind: type[Exception]) -> None:
        """An ERROR line ends the watch. Events before it are delivered."""
        decoder, records = self.take(line("ADDED", event("a", "71")) + line("ERROR", status) + b"rubbish\n")
        assert (kind, 1) == (type(decoder.error), len(records))

    def test_no_json(self) -> None:
        """Invalid JSON and overlong lines end the watch. Empty lines are skipped."""
        decoder, records = self.take(b"\n\n<html>\n")
        assert (UnavailableError, []) == (type(decoder.error), records)
        decoder, records = self.take(b"x" * (1 << 24), b"x")
        assert (str(decoder.error), records) == ("the answer is no watch: a line is longer than 16777216 bytes", [])

    @pytest.mark.parametrize("body", [None, 7, {}, {"metadata": None}, {"metadata": 7}])
    def test_unreadable(self, body: object) -> None:
        """A line without a valid event is counted and skipped."""
        decoder, records = self.take(line("ADDED", body) + line("ADDED", event("a", "71")))
        assert (decoder.unreadable, len(records), decoder.error) == (1, 1, None)

    def test_odd_fields(self) -> None:
        """Fields of unexpected types are kept unchanged."""
        odd = event("a", "71", series=7, involvedObject="x", count="many", lastTimestamp=5)
        _, records = self.take(line("ADDED", odd))
        assert (records[0].body["series"], records[0].body["kevents"]["countDelta"]) == (7, 1)


DECODER = msgspec.json.Decoder(Any)


def nested(depth: int, inner: object) -> object:
    """Return a value nested in `depth` alternating lists and objects."""
    for level in range(depth):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


def inmost(value: object) -> object:
    """Return the innermost value of nested lists."""
    while isinstance(value, list):
        [value] = value
    return value


def test_deep_values_become_null() -> None:
    """Values deeper than 64 levels become null. The rest is unchanged, including brackets in strings."""
    texts = ['}]"\\', "\\", "[" * 100, {"{[": "]"}]
    value = [*texts, nested(62, [[1], {"b": [2]}, 3]), nested(201, 0), *texts]
    expected = [*texts, nested(62, [None, None, 3]), nested(63, None), *texts]
    assert json.loads(limit_depth(json.dumps(value, indent=1).encode())) == expected


def test_decoded() -> None:
    """Valid JSON is decoded unchanged, values nested too deeply become null, and invalid JSON raises an error."""
    assert decode(DECODER, json.dumps(nested(100, 7)).encode()) == nested(100, 7)
    deep = b'{"a":1,"b":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    with no_collection():
        assert [decode(DECODER, deep)["a"], inmost(decode(DECODER, deep)["b"])] == [1, None]
        for data in (b"[" * 50_000, b"[" * 50_000 + b"{" * 9, b"[" * 50_000 + b'"'):
            with pytest.raises(msgspec.DecodeError):
                decode(DECODER, data)


def test_a_long_page() -> None:
    """A page of many megabytes is flattened within seconds."""
    data = b"[" + b'{"a":"' + b'\\\\"' * 1_000_000 + b'"},' + b"[" * 500_000 + b"]" * 500_000 + b"]"
    began = process_time()
    assert len(limit_depth(data)) < len(data)
    assert process_time() - began < 10
