"""Parsing of an object's metadata, without unwanted annotations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kevents.export._enrich.discovery import LAST_APPLIED, Found, read_metadata, read_row, unwanted

NOTHING = unwanted([])
META: dict[str, Any] = {
    "name": "web-0",
    "uid": "u-1",
    "resourceVersion": "7",
    "creationTimestamp": "2026-11-22T12:00:00Z",
    "labels": {"app": "web"},
    "annotations": {LAST_APPLIED: "{}", "example.com/a": "1", "example.com/b": "2"},
    "ownerReferences": [{"kind": "ReplicaSet", "name": "web", "uid": "u-2", "controller": True}],
    "managedFields": [{"manager": "m"}],
}


def read(metadata: Any, without: list[str] | None = None) -> Found:
    """Read a PartialObjectMetadata."""
    body = json.dumps({"kind": "PartialObjectMetadata", "metadata": metadata}).encode()
    return read_metadata(body, unwanted(without or []))


def test_read() -> None:
    """All fields that enrichment needs are read unchanged."""
    found = read(META)
    expected = ("u-1", "7", "2026-11-22T12:00:00Z", False, META["labels"], META["annotations"], META["ownerReferences"])
    assert (
        found.uid,
        found.rv,
        found.created,
        found.terminating,
        found.labels,
        found.annotations,
        found.owners,
    ) == expected


def test_bare() -> None:
    """Missing and null fields are empty."""
    for metadata in ({}, {"labels": None, "annotations": None, "ownerReferences": None, "deletionTimestamp": None}):
        found = read(metadata)
        assert (found.uid, found.labels, found.annotations, found.owners, found.terminating) == ("", {}, {}, [], False)


def test_terminating() -> None:
    """An object with a deletionTimestamp is terminating."""
    assert read({"deletionTimestamp": "2026-11-22T12:00:00Z"}).terminating


@pytest.mark.parametrize(
    ("without", "left"),
    [
        ([], {LAST_APPLIED, "example.com/a", "example.com/b"}),
        ([LAST_APPLIED], {"example.com/a", "example.com/b"}),
        (["example.com/*"], {LAST_APPLIED}),
        (["example.com/a", LAST_APPLIED], {"example.com/b"}),
        (["example.com"], {LAST_APPLIED, "example.com/a", "example.com/b"}),
        (["*"], set()),
    ],
)
def test_unwanted(without: list[str], left: set[str]) -> None:
    """Pitfall 76: annotations are dropped by their full name or by a pattern with `*`."""
    assert set(read(META, without).annotations) == left


def test_mirror_survives_filter() -> None:
    """The static pod of a mirror is known even if its annotation is dropped."""
    assert read({"annotations": {"kubernetes.io/config.hash": "h"}}, ["*"]).stands_for("h")


@pytest.mark.parametrize("patterns", [LAST_APPLIED, [7], [None]])
def test_no_patterns(patterns: Any) -> None:
    """Pitfall 59: a single string, or a list of other values than names, is refused."""
    with pytest.raises(ValueError, match="drop_annotations must be names"):
        unwanted(patterns)


def test_nothing_else() -> None:
    """Pitfall 76: only the metadata of a whole Secret is kept."""
    body = json.dumps({"kind": "Secret", "metadata": META, "data": {"password": "aHVudGVyMg=="}}).encode()
    assert "aHVudGVyMg" not in repr(read_metadata(body, NOTHING))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"{}", b'{"metadata": []}', b'{"metadata": {"labels": {"a": 1}}}', b"\xff", b"<html>"),
        b'{"metadata": {"ownerReferences": [' + b"[" * 9999,
    ],
)
def test_no_metadata(body: bytes) -> None:
    """A body without metadata raises an error."""
    with pytest.raises(ValueError, match="no metadata"):
        read_metadata(body, NOTHING)


def table(columns: list[str], *rows: list[Any]) -> bytes:
    """Return a Table as the server sends it."""
    listed = [{"cells": cells, "object": {"metadata": META}} for cells in rows]
    return json.dumps({"columnDefinitions": [{"name": name} for name in columns], "rows": listed}).encode()


@pytest.mark.parametrize(
    ("internal", "external", "expected"),
    [("10.0.0.9", "<none>", ("10.0.0.9",)), ("10.0.0.9", "1.2.3.4", ("10.0.0.9", "1.2.3.4")), ("<none>", "", ())],
)
def test_row(internal: str, external: str, expected: tuple[str, ...]) -> None:
    """A Node's addresses are read from the columns of its table."""
    found = read_row(table(["Name", "External-IP", "Internal-IP"], ["n", external, internal]), NOTHING)
    assert (found.addresses, found.uid) == (expected, "u-1")


def test_odd_rows() -> None:
    """A table without address columns gives no addresses. A table must have exactly one row."""
    assert [
        read_row(table(columns, ["n"]), NOTHING).addresses for columns in (["Name", "Age"], ["Name", "Internal-IP"])
    ] == [(), ()]
    for body in (table(["Name"]), table(["Name"], ["a"], ["b"])):
        with pytest.raises(ValueError, match="one row"):
            read_row(body, NOTHING)
