"""JSON that is nested deeper than can be read, read without what lies that deep."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    import msgspec

_T = TypeVar("_T")

_DEEPEST: Final = 64
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[][{}]', re.DOTALL)


def decoded(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    """Decode JSON, of which somebody may have nested a part so deeply that nothing of it could be read.

    Args:
        decoder: Of msgspec.
        data: The JSON.

    Raises:
        msgspec.DecodeError: It is none, or not what the decoder expects.
        UnicodeDecodeError: It is no UTF-8.
    """
    try:
        return decoder.decode(data)
    except RecursionError:
        return decoder.decode(shallow(data))


def shallow(data: bytes) -> bytes:
    """Give JSON with null in place of what lies deeper than 64 levels; what is no JSON remains none."""
    kept: list[bytes] = []
    at = depth = 0
    for token in _TOKEN.finditer(data):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == _DEEPEST + 1:
                kept.append(data[at : token.start()])
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == _DEEPEST:
                kept.append(b"null")
                at = token.end()
    return b"".join([*kept, data[at:] if depth <= _DEEPEST else b""])
