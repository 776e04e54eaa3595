"""The values that pass through an export: streams and positions, records, chunks, batches; and the seam to sinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from kevents._model.wire import format_time, parse_time

Body = dict[str, Any]

ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
SECOND: Final = 1_000_000_000  # in nanoseconds, as all times of positions and records
FORMAT: Final = 1  # the value of `kevents.v`: the version of the format
_TIMES: Final = (
    ("kevents", "time"),
    ("series", "lastObservedTime"),
    ("lastTimestamp",),
    ("eventTime",),
    ("firstTimestamp",),
    ("metadata", "creationTimestamp"),
)
END_OF_TIME: Final = 10**21  # later than any time, in nanoseconds since the epoch


def value_at(value: Any, *steps: str) -> Any:  # noqa: ANN401 - any JSON
    """Return the value at a path of keys and indexes; None if there is none."""
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def body_of(event: Body, verb: str, delta: int | None, cluster_name: str = "") -> Body:
    """Turn an event into a record's body, in place.

    The body is the same for listed and watched events: `kind` and `apiVersion`, which only a watch sends, are removed
    as in event-exporter, and so are `managedFields`.
    """
    event.pop("kind", None)
    event.pop("apiVersion", None)
    metadata = event["metadata"]
    metadata.pop("managedFields", None)
    involved = event.get("involvedObject")
    if not isinstance(involved, dict):
        involved = {}
    involved["deleted"] = False
    event["involvedObject"] = involved
    event["clusterName"] = cluster_name
    event["kevents"] = {"v": FORMAT, "id": id_of(metadata), "verb": verb, "time": time_of(event), "countDelta": delta}
    return event


def id_of(metadata: Body) -> str:
    """Return the id of a revision: `<uid>:<resourceVersion>`; without a uid, namespace and name stand for it."""
    uid = metadata.get("uid") or key_of(metadata)
    return f"{uid}:{metadata.get('resourceVersion', '')}"


def key_of(metadata: Body) -> str:
    """Return an event's namespace and name, which stay the same if it is written again after it expired."""
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def count_of(event: Body) -> int:
    """Return the number of occurrences of an event: of its series, else its count, else 1."""
    for count in (value_at(event, "series", "count"), event.get("count")):
        if isinstance(count, int) and count > 0:
            return count
    return 1


def time_of(event: Body) -> str:
    """Return the time of the latest occurrence; empty if the event has none (kubectl: Last Seen)."""
    series = event.get("series")
    found = (
        (series.get("lastObservedTime") if isinstance(series, dict) else None)
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or value_at(event, "metadata", "creationTimestamp")
    )
    return str(found or "")


_parsed: Final = lru_cache(maxsize=1024)(parse_time)  # many events have the same time


def event_time(body: Mapping[str, Any]) -> int:
    """Return the time of a record's latest occurrence, in nanoseconds since the epoch; 0 without any."""
    for keys in _TIMES:
        try:
            return max(_parsed(value_at(body, *keys)), 0)
        except (TypeError, ValueError, OverflowError):  # TypeError: a list or an object
            continue
    return 0


def time_span(body: Mapping[str, Any]) -> tuple[int, int]:
    """Return the times between which a record happened, in nanoseconds since the epoch: a gap record has a period."""
    gap = value_at(body, "kevents", "gap")
    if not isinstance(gap, Mapping):
        time = event_time(body)
        return time, time
    begin, end = (event_time({"firstTimestamp": gap.get(key)}) for key in ("from", "until"))
    return begin, end or END_OF_TIME


def day_folder(nanoseconds: int) -> str:
    """Return the name of a day's folder in UTC: ``dt=2026-07-24``."""
    return f"dt={format_time(nanoseconds)[:10]}"


def gap_record(position: Position, rv: int, why: str, now: int, read_at: float, cluster_name: str = "") -> Record:
    """Return the record of a gap: events between two times may be missing.

    The position before the gap is part of `kevents.id`, so that a gap written twice has the same id. `now` is in
    nanoseconds since the epoch, `read_at` the same by the monotonic clock, in seconds.
    """
    stream = position.stream
    found = format_time(now)
    gap = {
        "why": why,
        "cluster": stream.cluster,
        "scope": stream.scope,
        "after": str(position.rv),
        "from": format_time(position.time),
        "until": found,
    }
    identity = f"gap:{stream.cluster}:{stream.scope}:{position.rv}"
    body = {"clusterName": cluster_name, "kevents": {"v": FORMAT, "id": identity, "time": found, "gap": gap}}
    return Record(stream, rv, body, read_at)


_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Stream:
    """One list and watch, with its own order and positions.

    Attributes:
        cluster: The UID of the namespace `kube-system`, which identifies the cluster.
        scope: The namespace; empty: all.
    """

    cluster: str
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream has been read, or how much of it a destination has committed.

    Attributes:
        stream: The stream.
        rv: The resourceVersion up to which, inclusively, nothing is missing.
        time: The time up to which nothing is missing, in nanoseconds since the epoch by the wall clock. This is the
            time of the read. For a position within the records of one read it is the time of the read before.
    """

    stream: Stream
    rv: int
    time: int


class Record:
    """One revision of an event, or a gap record.

    Args:
        stream: The stream.
        rv: Its resourceVersion; the records of a stream pass in this order.
        body: The JSON object that is written: event-exporter's shape with the key `kevents`. The enricher completes it
            in place; it does not change after the first call of `line`.
        read_at: The time of the read, in seconds by the monotonic clock.
    """

    __slots__ = ("_line", "body", "read_at", "rv", "stream")

    def __init__(self, stream: Stream, rv: int, body: dict[str, Any], read_at: float) -> None:
        self.stream = stream
        self.rv = rv
        self.body = body
        self.read_at = read_at
        self._line: bytes | None = None

    @property
    def id(self) -> str:
        """The id that identifies duplicates: `<uid>:<resourceVersion>` of the event."""
        return str(self.body["kevents"]["id"])

    def line(self) -> bytes:
        """Return the record as a line of JSON without its line end; it is encoded once for all destinations."""
        if self._line is None:
            self._line = _ENCODER.encode(self.body)
        return self._line


@dataclass(frozen=True, slots=True)
class Chunk:
    """The result of one read of a stream.

    Attributes:
        records: The records in the order of their resourceVersions, possibly none.
        position: The stream's position after them.
    """

    records: Sequence[Record]
    position: Position


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one write to a destination; all of one stream, in order.

    Attributes:
        records: The records; empty if only the position has moved, because no record matched for a while.
        position: How far the stream had been read when the batch closed: at least the last record's resourceVersion.
            No later batch for this destination has a record up to it.
    """

    records: Sequence[Record]
    position: Position


class Retry(Exception):  # noqa: N818  (an answer, not an error: the batch is tried again)
    """Raised by a sink that cannot write now; the same batch is written again.

    Args:
        why: The reason for the log, without secrets.
        after: How long the destination asks to wait, in seconds; None: the exporter's own back-off.
        pending: The records of the batch that were not acknowledged; None: all. If the batch is given up, only these go
            to the dead letters.
    """

    def __init__(self, why: str, after: float | None = None, pending: Sequence[Record] | None = None) -> None:
        super().__init__(why)
        self.after = after
        self.pending = pending


class Reject(Exception):  # noqa: N818  (an answer, not an error: the position moves on)
    """Raised by a sink that never accepts some records of a batch; the others are durable.

    Args:
        why: The cause, for the log and the dead letters, without secrets.
        records: The rejected records.
    """

    def __init__(self, why: str, records: Sequence[Record]) -> None:
        super().__init__(why)
        self.records = records


class Sink(Protocol):
    """A destination. It is called from one thread at a time, with one batch in flight."""

    def write(self, batch: Batch) -> None:
        """Write a batch with its position; return only when both are durable.

        Raises:
            Retry: The batch must be written again. It may have been written already: where the destination stores the
                position, writing it twice must do no harm.
            Reject: Some records are never accepted.
        """
        ...

    def last_position(self, stream: Stream) -> Position | None:
        """Return the committed position of a stream; None if there is none, or the sink cannot know."""
        ...

    def close(self) -> None:
        """Close files and connections; a closed sink is not used again."""
        ...


class SinkWithoutPosition:
    """Base class of sinks that hold no position; `Checkpointed` keeps it for them."""

    holds_positions = False

    def last_position(self, stream: Stream) -> Position | None:  # noqa: ARG002 - the same for every stream
        """Return None: the destination cannot be asked."""
        return None
