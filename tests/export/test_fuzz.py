"""Fuzz tests of files, server responses and configurations: input is read, or refused with the documented error.

Run more examples with ``--hypothesis-profile=fuzz``: see ``docs/changing.md``.
"""

from __future__ import annotations

import json
from contextlib import suppress
from io import BytesIO
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kevents.exceptions import UnavailableError
from kevents.export import Position, Stream, read_records
from kevents.export._config.file import ConfigError, parse
from kevents.export._enrich.discovery import Discovery, Unread
from kevents.export._model.position import (
    folder_of,
    position_as_json,
    position_from_json,
    segment_name,
)
from kevents.export._model.text import duration, size
from kevents.export._route.routes import ConditionError, compile_condition
from kevents.export._sinks.local_files import Checkpointed, CheckpointError
from kevents.export._sinks.segments import BatchHeader, Gzip, Plain, header_of
from kevents.export._sinks.webhook import compile_template
from kevents.export._source.listing import Backlog, collect
from kevents.export._source.response_stream import Unchunker, WatchDecoder
from kevents.export._source.revision_filter import RevisionFilter
from tests.export.batches import body, position
from tests.support.collector import no_collection
from tests.support.foreign import ANYTHING, JSON, TEXTS, spoilt, tried
from tests.test_fuzz import BODY, fuzz

EVENT: dict[str, Any] = {**BODY, "metadata": {**BODY["metadata"], "uid": "u", "resourceVersion": "7"}}
DEEP = "[" * 9_000
SPOILING = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "double"]), st.floats(0, 1), st.integers(0, 255)), max_size=4
)


def spoil(data: bytes, faults: list[tuple[str, float, int]]) -> bytes:
    """Return the bytes with some of them flipped, cut off, inserted or duplicated."""
    for what, where, value in faults:
        at = round(where * len(data))
        if what == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (value or 1)]) + data[at + 1 :]
        elif what == "cut":
            data = data[:at]
        elif what == "insert":
            data = data[:at] + bytes([value] * (value + 1)) + data[at:]
        elif what == "double":
            data = data + data[at:]
    return data


def as_json(value: Any) -> bytes:
    """Return any value as JSON that a server may send, including numbers that are too large."""
    try:
        return json.dumps(value).encode()
    except ValueError:  # a number with more digits than Python prints
        return b'{"type": 1e999, "object": ' + b"9" * 5000 + b"}"


# -- server responses -----------------------------------------------------------------------------------------------


@fuzz
@given(st.lists(spoilt({"type": "MODIFIED", "object": EVENT}) | JSON, max_size=4), SPOILING, st.integers(1, 400))
@example([{"type": "ADDED", "object": {"metadata": {"resourceVersion": 5}}}], [], 400)
@example([{"type": "ADDED", "object": {"metadata": {"resourceVersion": "x", "name": {}}}}], [], 400)
def test_watches(told: list[Any], faults: list[tuple[str, float, int]], piece: int) -> None:
    """A watch gives writable records or sets an error. It never raises."""
    data = spoil(b"".join(as_json(line) + b"\n" for line in told), faults)
    decoder = WatchDecoder(RevisionFilter(Stream("c"), None), "1")
    for at in range(0, len(data), piece):
        for record in decoder.decode(data[at : at + piece], 10**18, 1.0):
            assert record.id == json.loads(record.line())["kevents"]["id"]
        if decoder.error is not None:
            break
    assert decoder.version


@pytest.mark.parametrize("depth", [10_000, 60_000])
@pytest.mark.parametrize("piece", ["[", '{"a":', '{"type":"ADDED","object":'])
def test_watches_that_are_deep(piece: str, depth: int) -> None:
    """A line that is nested too deeply ends the watch with an error."""
    line = piece * depth
    decoder = WatchDecoder(RevisionFilter(Stream("c"), None), "1")
    with no_collection():
        assert decoder.decode(line.encode() + b"\n", 0, 0.0) == []
    assert isinstance(decoder.error, UnavailableError)


class Pages:
    """A connection that returns the same page for every request."""

    def __init__(self, page: bytes) -> None:
        self._page = page

    def page(self, limit: int, token: str = "") -> bytes:
        """Return the page."""
        return self._page


@fuzz
@given(
    spoilt({"metadata": {"resourceVersion": "9"}, "items": {}}), st.lists(spoilt(EVENT) | JSON, max_size=3), SPOILING
)
@example({"metadata": {"resourceVersion": "9"}, "items": DEEP}, [], [])
def test_lists(page: Any, items: list[Any], faults: list[tuple[str, float, int]]) -> None:
    """A list yields its readable items or raises `UnavailableError`."""
    if isinstance(page, dict) and page.get("items") == {}:
        page["items"] = items
    if isinstance(page, dict) and isinstance(page.get("metadata"), dict):
        page["metadata"].pop("continue", None)
    revisions = RevisionFilter(Stream("c"), Position(Stream("c"), 3, 0))
    backlog = Backlog(1 << 20)
    line = Pages(spoil(as_json(page), faults))
    listed = tried(collect, line, revisions, backlog, 500, revisions.order.reset, refusal=UnavailableError)
    backlog.close()
    assert listed is None or listed.unreadable <= listed.items


@fuzz
@given(st.lists(st.binary(max_size=30)), SPOILING, st.integers(1, 50))
def test_chunks(chunks: list[bytes], faults: list[tuple[str, float, int]], piece: int) -> None:
    """Chunks are decoded at any read boundaries. Malformed chunks raise `UnavailableError`."""
    whole = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    data = spoil(whole, faults)
    frames, found = Unchunker(), b""
    try:
        for at in range(0, len(data), piece):
            found += frames.feed(data[at : at + piece])
    except UnavailableError:
        assert faults
    else:
        assert faults or found == b"".join(chunks)


@fuzz
@given(
    JSON | st.just({"groups": [{"name": "apps", "versions": [{"version": "v1"}]}]}),
    SPOILING,
    st.sampled_from(["/apis", "/api/v1"]),
)
@example(DEEP, [], "/apis")
def test_discovery(document: Any, faults: list[tuple[str, float, int]], path: str) -> None:
    """Discovery accepts a document or refuses it."""
    discovery = Discovery()
    data = document.encode() if document == DEEP else as_json(document)
    tried(discovery.learn, path, spoil(data, faults), 0.0)
    assert not isinstance(discovery.resolve("", "Pod", 0.0), Unread) or path == "/apis"


# -- files ----------------------------------------------------------------------------------------------------------


def segment(form: Gzip | Plain, batches: int) -> bytes:
    """Return a segment of `batches` batches with three records each."""
    lines = [as_json(body(rv)) for rv in range(1, 1 + 3 * batches)]
    parts = (lines[at : at + 3] for at in range(0, len(lines), 3))
    return b"".join(
        form.encode(part, BatchHeader(position(3 * at + 3), 3 * at + 1, 3)) for at, part in enumerate(parts)
    )


@fuzz
@given(st.sampled_from([Gzip(), Plain()]), st.integers(0, 4), SPOILING, st.booleans())
def test_segments(tmp_path_factory: pytest.TempPathFactory, form: Any, batches: int, faults: Any, is_open: Any) -> None:
    """A damaged segment yields its complete records and reports the damage. An intact one yields all records."""
    data = spoil(segment(form, batches), faults)
    file = tmp_path_factory.getbasetemp() / f"{'current' if is_open else 'fuzz'}{form.suffix}"
    file.write_bytes(data)
    damages: list[Any] = []
    found = list(read_records(file, on_damage=damages.append))
    assert all(damage.file == str(file) and 0 <= damage.offset <= len(data) for damage in damages)
    if not faults:
        assert (found, damages) == ([body(rv) for rv in range(1, 1 + 3 * batches)], [])


@fuzz
@given(st.sampled_from([Gzip(), Plain()]), st.integers(0, 3), SPOILING)
def test_batches_in_segments(form: Any, batches: int, faults: Any) -> None:
    """Complete batches are found in order and within the file."""
    data = spoil(segment(form, batches), faults)
    ends = [0, *(end for _, end in form.scan(BytesIO(data), 0))]
    assert ends == sorted(set(ends))
    assert ends[-1] <= len(data)
    assert faults or (ends[-1], len(ends)) == (len(data), batches + 1)
    behind = form.after(BytesIO(data), ends[-1])
    assert behind is None or ends[-1] <= behind <= len(data)


@fuzz
@given(JSON | spoilt(position_as_json(position(5)) | {"first": 1, "records": 2}) | st.just(DEEP))
@example({**position_as_json(position(5)), "first": None, "records": 2})
@example(DEEP)
def test_positions_in_segments(value: Any) -> None:
    """The header of a batch is a valid position or None, in a gzip member and in a line."""
    text = value.encode() if value == DEEP else as_json(value)
    head = Gzip().encode([], BatchHeader(position(5), 5, 0))[:10]
    extra = b"kE" + len(text[:60_000]).to_bytes(2, "little") + text[:60_000]
    for held in (
        header_of(head + len(extra).to_bytes(2, "little") + extra),
        header_of(b'{"kevents":{"v":1,"position":' + text + b',"crc32":0}}\n'),
    ):
        assert held is None or (held.header.position.rv >= 0 and held.header.records >= 0)
    list(Plain().scan(BytesIO(b'{"kevents":{"v":1,"position":' + text + b',"crc32":0}}\n'), 0))


@fuzz
@given(ANYTHING | spoilt(position_as_json(position(5))))
def test_positions(value: Any) -> None:
    """A position is restored from its JSON, or refused with a ValueError."""
    found = tried(position_from_json, value)
    if found is not None:
        assert position_from_json(position_as_json(found)) == found


@fuzz
@given(
    JSON | st.builds(lambda position: {"v": 1, "positions": [position]}, spoilt(position_as_json(position(5)))),
    SPOILING,
)
@example(DEEP, [])
def test_checkpoints(tmp_path_factory: pytest.TempPathFactory, value: Any, faults: Any) -> None:
    """A checkpoint is read, or refused with an error that names the file."""
    file = tmp_path_factory.getbasetemp() / "checkpoint.json"
    file.write_bytes(spoil(value.encode() if value == DEEP else as_json(value), faults))
    with suppress(CheckpointError):
        found = Checkpointed(None, file).last_position(position(5).stream)  # type: ignore[arg-type]
        assert found is None or found.rv >= 0


@fuzz
@given(TEXTS, TEXTS)
def test_places(cluster: str, scope: str) -> None:
    """A stream's folder never leaves the base folder and identifies one stream, or the name is refused."""
    place = tried(folder_of, Stream(cluster, scope))
    if place is not None:
        parts = [unquote(part.replace("_", "%"), errors="surrogatepass") for part in place.split("/")]
        assert parts == [cluster, scope or "%all"]
        assert all(part and not part.startswith(".") for part in place.split("/"))
        assert place.count("/") == 1


@fuzz
@given(TEXTS | st.text("abz0_.-/%of", max_size=12))
def test_names_of_places(text: str) -> None:
    """A segment name stands for one name, or is refused."""
    found = segment_name(f"{text}.jsonl")
    assert found is None or segment_name(found.file(".jsonl")) == found


# -- configurations -------------------------------------------------------------------------------------------------

CONFIGURATION = """\
grace = "20s"
[source]
namespaces = ["shop"]
[enrich]
cache_size = 10
[health]
listen = "127.0.0.1:9090"
[sinks.out]
type = "file"
path = "events/"
keep_for = "7d"
queue = { max_items = 50, max_bytes = "1MiB" }
[[routes]]
sinks = ["out"]
match = { type = "Warning", count = { min = 2 }, reason = { regex = "Back.*" } }
"""
WORDS = st.sampled_from(
    [
        *CONFIGURATION.split(),
        *("[", "]", "{", "}", "=", '"', "'''", "\n", ".", "\x00", "\ud800"),
        *("9" * 5000, "0x" + "f" * 5000, "1e999", "nan", "-inf", "0000-01-01", "2026-07-24T09:00:00+99:99"),
        *('"' + "9" * 400 + 'd"', '"' + "9" * 400 + 'MiB"'),
    ]
)


@fuzz
@given(st.lists(st.tuples(st.integers(0, 40), WORDS | TEXTS), max_size=3))
@example([(2, "9" * 5000)])
@example([(2, "0x" + "f" * 5000)])
@example([(2, '"' + "9" * 400 + 'd"')])
def test_configurations(changes: list[tuple[int, str]]) -> None:
    """A configuration is read, or each problem is one line that names the file."""
    words = CONFIGURATION.replace("\n", " \n ").split(" ")
    for place, word in changes:
        words[place % len(words)] = word
    found = problems_of(" ".join(words))
    assert all(line.startswith("cfg.toml:") and "\n" not in line for line in found)


def problems_of(text: str) -> list[str]:
    """Return the problems of a configuration, and check that the values of a valid one are within bounds."""
    try:
        assert 0 < parse(text, "cfg.toml").grace < 10**9
    except ConfigError as error:
        return error.lines or ["silent"]
    return []


@fuzz
@given(st.text("0123456789.hmsdMiBk ", max_size=8) | TEXTS | st.sampled_from(["9" * 400 + "d", "9" * 400 + "MiB"]))
def test_measures(text: str) -> None:
    """A duration and a size are finite and positive, or refused with a ValueError."""
    assert all(found is None or 0 < found < 10**16 for found in (tried(duration, text), tried(size, text)))


@fuzz
@given(
    ANYTHING
    | st.dictionaries(st.sampled_from(["equals", "one_of", "regex", "glob", "min", "max", "exists", "not"]), ANYTHING),
    st.sampled_from(["text", "number", "flag"]),
    ANYTHING,
)
@example([False], "flag", [])
def test_conditions(value: Any, shape: str, found: Any) -> None:
    """A condition returns a bool for any value of an event, or is refused."""
    condition = tried(compile_condition, value, shape, refusal=ConditionError)
    if condition is not None:
        assert condition.matches(found) in {True, False}


@fuzz
@given(
    JSON.map(as_json) | st.text('{}[]."a0, ', max_size=12).map(as_json) | st.just(DEEP.encode()),
    JSON,
)
def test_templates(text: bytes, value: Any) -> None:
    """A template gives JSON, or is refused."""
    template = tried(compile_template, text.decode())
    if template is not None:
        assert template({**body(7), "message": value if isinstance(value, str) else ""}) is not None
