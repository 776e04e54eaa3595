"""The forms of a position: ordered numbers, JSON, and the names of folders and segments."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kevents.export._model.types import EVENTS, Position, Stream

AGE: Final = 10**20
"""What a position grows by when the storage is reset: more than any resourceVersion that was ever seen.

Positions stay in order then, as texts too: of twenty digits, which begin with 0, since no int64 needs them all, and of
twenty-one after a reset.
"""

_NUMBER: Final = re.compile(r"[1-9][0-9]{0,4000}", re.ASCII)  # int() refuses texts of more than 4,300 digits
_LIMIT: Final = 100_000


def number_of(version: str) -> int | None:
    """Give a resourceVersion as a number of any length; None if it is none, and only equality can be told.

    client-go: ``resourceversion.CompareResourceVersion``
    """
    return int(version) if _NUMBER.fullmatch(version) else None


class Order:
    """Gives a stream's resourceVersions as numbers that only grow, whatever the storage does.

    A server's own number is used as it is. When the storage was reset to an earlier state, what follows is counted in a
    new age. A server whose resourceVersions are no numbers gets numbers of our own, from the wall clock.

    Args:
        last: The number of the position; 0 without one.
        highest: The highest number that any destination holds: no list was ever older, and no age is earlier.
    """

    __slots__ = ("_base", "_highest", "_last")

    def __init__(self, last: int = 0, highest: int = 0) -> None:
        """Go on after the position, in the latest age that was seen."""
        self._highest = max(last, highest)
        self._base = self._highest // AGE * AGE
        self._last = max(last, self._base)

    @property
    def last(self) -> int:
        """The number up to which the stream has been read."""
        return self._last

    def is_reset(self, number: int) -> bool:
        """Tell whether a list of this resourceVersion is older than what has been read, now or ever."""
        return self._base + number < max(self._last, self._highest)

    def reset(self) -> int:
        """Begin a new age; give the number where it begins."""
        self._base = (max(self._last, self._highest) // AGE + 1) * AGE
        self._last = self._base
        return self._base

    def place(self, number: int) -> int:
        """Give where a resourceVersion stands in the stream."""
        return self._base + number

    def invent(self, now: int) -> int:
        """Give the next number for a server that has none, by the wall clock in nanoseconds; `advance` follows."""
        return max(self._last + 1, self._base + now)

    def advance(self, to: int) -> None:
        """It has been read up to there; going back is no advance."""
        self._last = max(self._last, to)


class Counts:
    """The count last seen of each event, by namespace and name; the ones longest unseen are forgotten.

    Args:
        limit: How many to remember.
    """

    __slots__ = ("_counts", "_limit", "forgotten")

    def __init__(self, limit: int = _LIMIT) -> None:
        """Know nothing."""
        self._limit = limit
        self._counts: OrderedDict[str, int] = OrderedDict()
        self.forgotten = 0

    def __contains__(self, key: str) -> bool:
        """Tell whether the event is remembered."""
        return key in self._counts

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._counts)

    def note(self, key: str, count: int) -> int | None:
        """Remember an event's count; give the one before, None if there is none."""
        counts = self._counts
        before = counts.get(key)
        counts[key] = count
        if before is not None:
            counts.move_to_end(key)
        elif len(counts) > self._limit:
            counts.popitem(last=False)
            self.forgotten += 1
        return before

    def delta(self, key: str, count: int, *, born: bool) -> int | None:
        """Give by how much an event's count has grown, and remember it.

        Args:
            key: Its namespace and name.
            count: Its count.
            born: Whether it is known to be new: no revision of this object was there to be read before.

        Returns:
            The number of occurrences since the last revision; None if the count before cannot be known.
        """
        before = self.note(key, count)
        if before is None:
            return count if born or count == 1 else None
        if born:  # it had expired, or was deleted, and was written again: recorders go on with the count they had
            return count - before if count > before else count
        return count - before if count >= before else None


class Ledger:
    """Which revisions have been read, for a server whose resourceVersions are no numbers.

    Args:
        limit: Of how many events to remember the last.
    """

    __slots__ = ("_limit", "_seen")

    def __init__(self, limit: int = _LIMIT) -> None:
        """Know nothing."""
        self._limit = limit
        self._seen: OrderedDict[str, str] = OrderedDict()

    def is_new(self, key: str, version: str) -> bool:
        """Tell whether a revision has not been read, and remember it."""
        if self._seen.get(key) == version:
            return False
        self._seen[key] = version
        self._seen.move_to_end(key)
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return True


VERSION: Final = 1


def position_as_json(position: Position) -> dict[str, Any]:
    """Give a position as plain values, with its stream."""
    stream = position.stream
    values: dict[str, Any] = {"v": VERSION, "cluster": stream.cluster, "scope": stream.scope}
    if stream.resource != EVENTS:
        values["resource"] = stream.resource
    return {**values, "rv": position.rv, "time": position.time}


def position_from_json(value: object) -> Position:
    """Read a position.

    Raises:
        ValueError: If it is none, or of a later version of kevents.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"a position is an object, not {type(value).__name__}")
    if value.get("v") != VERSION:
        raise ValueError(f"a position of version {value.get('v')!r}: this kevents knows version {VERSION}")
    stream = Stream(_text(value, "cluster"), _text(value, "scope"), _text(value, "resource", EVENTS))
    return Position(stream, _number(value, "rv"), _number(value, "time"))


def _text(value: Mapping[str, Any], key: str, default: object = None) -> str:
    found = value.get(key, default)
    if not isinstance(found, str):
        raise ValueError(f"a position's {key} is a text, not {found!r}")
    return found


def _number(value: Mapping[str, Any], key: str) -> int:
    found = value.get(key)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise ValueError(f"a position's {key} is a whole number, not {found!r}")
    return found


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
