"""Where a stream's data lies: names of folders and segments, from streams and positions and back.

A name never leaves the place it is put in, whatever it is made of: what is no lower-case letter, digit, hyphen or
inner dot is written as an underscore with the two hexadecimal digits of each of its bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from kevents.export._model.types import EVENTS, Stream

_LONGEST: Final = 200
_ALL: Final = "_all"
_OF: Final = "_of_"  # "_o" is no byte in hexadecimal: never part of an encoded name
_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_SEGMENT: Final = re.compile(r"(\d{20,})-(\d{20,})\.jsonl(?:\.gz)?", re.ASCII)


def encoded(name: str) -> str:
    """Give a name as a part of a path; `decoded` gives it back.

    Raises:
        ValueError: If it is too long for a file system.
    """
    parts = [
        character if character in _SAFE or (character == "." and place > 0) else _escaped(character)
        for place, character in enumerate(name)
    ]
    text = "".join(parts)
    return _short(text, name)


def _short(part: str, name: str) -> str:
    if len(part) > _LONGEST:
        raise ValueError(f"a name of {len(name)} characters is too long for a path: {name[:40]!r}...")
    return part


def _escaped(character: str) -> str:
    return "".join(f"_{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))


def decoded(part: str) -> str:
    """Give the name that a part of a path stands for.

    Raises:
        ValueError: If it stands for none.
    """
    if not re.fullmatch(r"(?!\.)([a-z0-9.-]|_[0-9a-f]{2})*", part, re.ASCII):
        raise ValueError(f"{part!r} is no encoded name")
    raw = re.sub(rb"_([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), part.encode())
    return raw.decode("utf-8", "surrogatepass")


def place_of(stream: Stream) -> str:
    """Give a stream's folder: `{cluster}/{scope}`, `_all` for all namespaces.

    Raises:
        ValueError: If the stream has no cluster, or a name is too long.
    """
    if not stream.cluster:
        raise ValueError("a stream without a cluster has no place: its position would be anybody's")
    scope = encoded(stream.scope) or _ALL
    if stream.resource != EVENTS:
        scope = _short(f"{encoded(stream.resource)}{_OF}{scope}", stream.resource + stream.scope)
    return f"{encoded(stream.cluster)}/{scope}"


def stream_of(place: str) -> Stream:
    """Give the stream whose folder this is.

    Raises:
        ValueError: If it is none's.
    """
    cluster, _, scope = place.partition("/")
    resource, of, rest = scope.rpartition(_OF)
    return Stream(decoded(cluster), "" if rest == _ALL else decoded(rest), decoded(resource) if of else EVENTS)


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """What the name of a segment says; later segments of a stream are greater.

    Attributes:
        last: The position's resourceVersion after it.
        first: The resourceVersion of its first record.
    """

    last: int
    first: int

    def file(self, suffix: str) -> str:
        """Give the file's name: `{first}-{last}.jsonl.gz`, twenty digits each at least, so that names sort."""
        return f"{self.first:020d}-{self.last:020d}{suffix}"


def segment_name(file: str) -> SegmentName | None:
    """Read a file's name; None if it is no segment's."""
    match = _SEGMENT.fullmatch(file)
    return SegmentName(int(match[2]), int(match[1])) if match else None
