"""The forms of a position: numbers that only grow, JSON, and the names of folders and segments.

A name is encoded so that it never leaves its folder. Lower-case letters, digits, hyphens and inner dots stay. Every
other character becomes an underscore and the two hexadecimal digits of each of its bytes.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kevents.export._model.types import Position, Stream

AGE: Final = 10**20
"""The number that is added to resourceVersions after a reset of the storage: larger than any that was ever seen.

Positions keep their order then, as texts too: 20 digits that begin with 0, because every int64 has fewer, and 21 digits
after a reset.
"""

VERSION: Final = 1  # the version of a position's JSON
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4000}", re.ASCII)  # int() refuses texts of more than 4,300 digits
_MAX_NAME: Final = 200
_ALL: Final = "_all"
_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_SEGMENT: Final = re.compile(r"(\d{20,})-(\d{20,})\.jsonl(?:\.gz)?", re.ASCII)


def number_of(version: str) -> int | None:
    """Return a resourceVersion as a number of any length; None if it is none and can only be compared for equality.

    client-go: ``resourceversion.CompareResourceVersion``
    """
    return int(version) if _NUMBER.fullmatch(version) else None


class Order:
    """Maps a stream's resourceVersions to numbers that only grow.

    A resourceVersion is used unchanged. After a reset of the storage to an earlier state, a new age begins, and its
    start is added. A server whose resourceVersions are no numbers gets numbers from the wall clock.
    """

    __slots__ = ("_base", "_highest", "last")

    def __init__(self, last: int = 0, highest: int = 0) -> None:
        self._highest = max(last, highest)  # the highest number that any destination has committed
        self._base = self._highest // AGE * AGE
        self.last = max(last, self._base)  # the number up to which the stream has been read; 0 without a position

    def is_reset(self, number: int) -> bool:
        """True if a list of this resourceVersion is older than what has been read or committed."""
        return self._base + number < max(self.last, self._highest)

    def reset(self) -> int:
        """Start a new age and return its first number."""
        self._base = (max(self.last, self._highest) // AGE + 1) * AGE
        self.last = self._base
        return self._base

    def place(self, number: int) -> int:
        """Return the number of a resourceVersion in the stream."""
        return self._base + number

    def invent(self, now: int) -> int:
        """Return the next number for a server without numbers, from the wall clock in nanoseconds."""
        return max(self.last + 1, self._base + now)

    def advance(self, to: int) -> None:
        """Set the last number; a lower one is ignored."""
        self.last = max(self.last, to)


# -- JSON -----------------------------------------------------------------------------------------------------------


def position_as_json(position: Position) -> dict[str, Any]:
    stream = position.stream
    name = {"v": VERSION, "cluster": stream.cluster, "scope": stream.scope}
    return {**name, "rv": position.rv, "time": position.time}


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the checksum of JSON values, under the key `crc32`."""
    return {**values, "crc32": _checksum(values)}


def verify_checksum(values: Mapping[str, Any]) -> None:
    """Raise ValueError if the checksum is missing or wrong: a wrong position would skip records never stored."""
    if values.get("crc32") != _checksum({key: value for key, value in values.items() if key != "crc32"}):
        raise ValueError("a position does not match its checksum")


def _checksum(values: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, separators=(',', ':'), sort_keys=True).encode()):08x}"


def position_from_json(value: object) -> Position:
    """Read a position from JSON values. Raises ValueError if they are none, or of a later version of kevents."""
    if not isinstance(value, Mapping):
        raise ValueError(f"a position is an object, not {type(value).__name__}")
    if value.get("v") != VERSION:
        raise ValueError(f"a position of version {value.get('v')!r}: this kevents knows version {VERSION}")
    kinds: dict[str, Any] = {"cluster": str, "scope": str, "rv": int, "time": int}
    for key, kind in kinds.items():
        found = value.get(key)
        if type(found) is not kind or (isinstance(found, int) and found < 0):
            what = "a text" if kind is str else "a whole number"
            raise ValueError(f"a position's {key} is {what}, not {found!r}")
    return Position(Stream(value["cluster"], value["scope"]), value["rv"], value["time"])


# -- names of folders and segments ----------------------------------------------------------------------------------


def encode_name(name: str) -> str:
    """Encode a name as one part of a path. Raises ValueError if that is too long for a file system."""
    part = ""
    for character in name:
        if character in _SAFE or (character == "." and part):
            part += character
        else:
            part += "".join(f"_{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    if len(part) > _MAX_NAME:
        raise ValueError(f"a name of {len(name)} characters is too long for a path: {name[:40]!r}...")
    return part


def folder_of(stream: Stream) -> str:
    """Return `{cluster}/{scope}`, with `_all` for all namespaces. Raises ValueError without a cluster."""
    if not stream.cluster:
        raise ValueError("a stream without a cluster has no folder: its position would belong to any cluster")
    return f"{encode_name(stream.cluster)}/{encode_name(stream.scope) or _ALL}"


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """The name of a segment; later segments of a stream are greater."""

    last: int  # the position's resourceVersion after it
    first: int  # the resourceVersion of its first record

    def file(self, suffix: str) -> str:
        """Return the file's name: `{first}-{last}.jsonl.gz`, at least 20 digits each, so that names sort."""
        return f"{self.first:020d}-{self.last:020d}{suffix}"


def segment_name(file: str) -> SegmentName | None:
    """Parse a file's name; None if it is no segment's."""
    match = _SEGMENT.fullmatch(file)
    return SegmentName(int(match[2]), int(match[1])) if match else None
