"""Reads records from destinations without the code of the export."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import obstore
import obstore.store


def bodies_in(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the records of a segment: gzip or plain lines. Lines that only hold a position are skipped."""
    plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    for line in plain.splitlines():
        body = json.loads(line)
        if "id" in body.get("kevents", {}):
            yield body


def bodies_in_folder(path: Path) -> list[dict[str, Any]]:
    """Return the records of a folder of segments, including open segments."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and ".jsonl" in file.name)
    return [body for file in files for body in bodies_in(file.read_bytes())]


def ids_in_folder(path: Path) -> list[str]:
    """Return the ids of the records in a folder."""
    return [body["kevents"]["id"] for body in bodies_in_folder(path)]


def bodies_in_store(url: str, options: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the records of an object store."""
    plain = {"client_options": {"allow_http": True}} if options else {}
    store: Any = obstore.store.from_url(url, config=options, **plain)  # type: ignore[call-overload]
    keys = sorted(found["path"] for page in obstore.list(store) for found in page)
    return [body for key in keys if ".jsonl" in key for body in bodies_in(bytes(obstore.get(store, key).bytes()))]


def ids_in_store(url: str, options: dict[str, Any] | None = None) -> list[str]:
    """Return the ids of the records in an object store."""
    return [body["kevents"]["id"] for body in bodies_in_store(url, options)]
