"""JSON that is nested too deeply to be read."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import msgspec
import pytest

from kevents.export._model.depth_limit import decoded, shallow
from tests.support.collector import no_collection

DECODER = msgspec.json.Decoder(Any)


def nested(depth: int, inner: object) -> object:
    """A value within so many lists and objects by turns."""
    for level in range(depth):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


def inmost(value: object) -> object:
    """What is inside of lists."""
    while isinstance(value, list):
        [value] = value
    return value


def test_what_lies_deep_is_null() -> None:
    """What lies deeper than 64 levels is null, all else is as it was; brackets in texts are none."""
    texts = ['}]"\\', "\\", "[" * 100, {"{[": "]"}]
    value = [*texts, nested(62, [[1], {"b": [2]}, 3]), nested(201, 0), *texts]
    expected = [*texts, nested(62, [None, None, 3]), nested(63, None), *texts]
    assert json.loads(shallow(json.dumps(value, indent=1).encode())) == expected


def test_decoded() -> None:
    """What can be read is read as it is; what is too deep, without its depth; what is no JSON, not at all."""
    assert decoded(DECODER, json.dumps(nested(100, 7)).encode()) == nested(100, 7)
    deep = b'{"a":1,"b":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    with no_collection():
        assert [decoded(DECODER, deep)["a"], inmost(decoded(DECODER, deep)["b"])] == [1, None]
        for data in (b"[" * 50_000, b"[" * 50_000 + b"{" * 9, b"[" * 50_000 + b'"'):
            with pytest.raises(msgspec.DecodeError):
                decoded(DECODER, data)


def test_a_long_page() -> None:
    """A page of many megabytes is made shallow in seconds."""
    data = b"[" + b'{"a":"' + b'\\\\"' * 1_000_000 + b'"},' + b"[" * 500_000 + b"]" * 500_000 + b"]"
    began = process_time()
    assert len(shallow(data)) < len(data)
    assert process_time() - began < 10
