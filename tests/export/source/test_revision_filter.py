"""Which revisions are new, what a watch's lines are, and whether anything may be missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kevents.export import Position, Record, Stream
from kevents.export._model.position import AGE
from kevents.export._source.revision_filter import (
    EventHeader,
    LastCounts,
    Metadata,
    RevisionFilter,
    SeenRevisions,
    Series,
)

STREAM = Stream("c-1")
HOUR = 3_600_000_000_000
NOW = 1_784_883_600_000_000_000  # 2026-07-24T09:00:00Z
MINUTES_LATER = "2026-07-24T09:05:00Z"
MINUTES_BEFORE = "2026-07-24T08:55:00Z"


def event(name: str, version: str, **fields: Any) -> dict[str, Any]:
    """Give an event without uid."""
    return {"metadata": {"namespace": "prod", "name": name, "resourceVersion": version}, "count": 1, **fields}


def line(verb: str, body: object) -> bytes:
    """Give a line of a watch."""
    return json.dumps({"type": verb, "object": body}).encode() + b"\n"


def told(records: list[Record | None]) -> list[tuple[str, int, Any]]:
    """Give id, number and count of records."""
    return [(record.id, record.rv, record.body["kevents"]["countDelta"]) for record in records if record is not None]


class TestRevisionFilter:
    """What is new."""

    def test_old(self) -> None:
        """A revision that is not above the position is old: it is counted and not told."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        found = [
            revisions.watched("ADDED", event("a", version), NOW, 0.0) for version in ("70", "71", "71", "69", "72")
        ]
        assert told(found) == [("prod/a:71", 71, 1), ("prod/a:72", 72, 1)]
        assert (revisions.old, revisions.order.last) == (3, 72)

    def test_long_numbers(self) -> None:
        """ResourceVersions are numbers of any length."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 999, NOW))
        assert told([revisions.watched("ADDED", event("a", "1000"), NOW, 0.0)]) == [("prod/a:1000", 1000, 1)]

    def test_no_numbers(self) -> None:
        """Where they are none, a revision is new that was not seen, and gets a number from the clock."""
        revisions = RevisionFilter(STREAM, Position(STREAM, NOW + 5, NOW))
        found = [
            revisions.watched("ADDED", event("a", "x"), NOW, 0.0),
            revisions.listed(event("a", "x"), NOW, 0.0),
            revisions.watched("MODIFIED", event("a", "y", count=3), NOW, 0.0),
            revisions.listed(event("b", "z"), NOW + 100, 0.0),
        ]
        assert told(found) == [("prod/a:x", NOW + 6, 1), ("prod/a:y", NOW + 7, 2), ("prod/b:z", NOW + 100, 1)]

    def test_sift(self) -> None:
        """Of a list what is above the position is taken; of the others the counts are remembered."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        heads = [EventHeader(Metadata("a", "prod", "60"), 4), EventHeader(Metadata("b", "prod", "71"), 1)]
        assert [revisions.sift(head) for head in heads] == [None, 71]
        assert told([revisions.watched("MODIFIED", event("a", "72", count=6), NOW, 0.0)]) == [("prod/a:72", 72, 2)]

    @pytest.mark.parametrize(
        ("head", "occurrences"),
        [
            (EventHeader(Metadata(), 4), 4),
            (EventHeader(Metadata(), 4, Series(7)), 7),
            (EventHeader(Metadata(), None, Series(None)), 1),
            (EventHeader(Metadata(), 0), 1),
        ],
        ids=str,
    )
    def test_occurrences(self, head: EventHeader, occurrences: int) -> None:
        """A listed event counts as it does elsewhere."""
        assert occurrences == head.occurrences

    @pytest.mark.parametrize(
        ("created", "delta"),
        [(MINUTES_LATER, 5), (MINUTES_BEFORE, None), ("2026-07-24T09:00:30Z", None), (None, None)],
        ids=str,
    )
    def test_first_list_after_a_position(self, created: str | None, delta: int | None) -> None:
        """The count of an event that was certainly created after the position is known; clocks may differ."""
        body = event("a", "71", count=5)
        if created:
            body["metadata"]["creationTimestamp"] = created
        found = RevisionFilter(STREAM, Position(STREAM, 70, NOW)).listed(body, NOW + HOUR, 0.0)
        assert [("prod/a:71", 71, delta)] == told([found])

    def test_later_lists(self) -> None:
        """After a whole list, an event that is not known is new; after `now`, only what is counted as one is."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        revisions.listed_all()
        assert told([revisions.listed(event("a", "71", count=5), NOW, 0.0)]) == [("prod/a:71", 71, 5)]
        revisions = RevisionFilter(STREAM, None)
        revisions.skip_to("70", NOW)
        found = [revisions.listed(event("a", "71", count=5), NOW, 0.0), revisions.listed(event("b", "72"), NOW, 0.0)]
        assert told(found) == [("prod/a:71", 71, None), ("prod/b:72", 72, 1)]

    def test_first_only(self) -> None:
        """With `first`, what was certainly there before the position was told then; in doubt it is told again."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW), first_only=True)
        bodies = [event("a", "71", count=2), event("b", "72", count=2), event("b", "73", count=3)]
        bodies[0]["metadata"]["creationTimestamp"] = MINUTES_BEFORE
        assert told([revisions.listed(body, NOW, 0.0) for body in bodies]) == [("prod/b:72", 72, None)]
        assert revisions.order.last == 73

    def test_skip_to_an_earlier_storage(self) -> None:
        """`now` on a storage that was reset begins a new age, so that destinations do not take it for old."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        revisions.skip_to("5", NOW)
        assert told([revisions.watched("ADDED", event("a", "6"), NOW, 0.0)]) == [("prod/a:6", AGE + 6, 1)]


class TestLastCounts:
    """By how much counts grow."""

    def test_one_to_twenty(self) -> None:
        """An event counted from 1 to 20 has grown by 20 in sum."""
        counts = LastCounts()
        deltas = [counts.delta("a", count, born=count == 1) for count in range(1, 21)]
        assert deltas == [1] * 20

    def test_missed(self) -> None:
        """Revisions that were not seen are counted by the next."""
        counts = LastCounts()
        assert [counts.delta("a", 1, born=True), counts.delta("a", 7, born=False)] == [1, 6]

    def test_unknown(self) -> None:
        """Where the count before cannot be known, nothing is made up; a count of one needs none."""
        counts = LastCounts()
        assert (counts.delta("a", 7, born=False), counts.delta("b", 1, born=False)) == (None, 1)
        assert counts.delta("a", 8, born=False) == 1

    def test_same_again(self) -> None:
        """A revision that is no occurrence adds none."""
        counts = LastCounts()
        assert [counts.delta("a", 3, born=True), counts.delta("a", 3, born=False)] == [3, 0]

    def test_written_again(self) -> None:
        """An expired event that its recorder writes again with a count that goes on has grown by the difference."""
        counts = LastCounts()
        counts.delta("a", 5, born=True)
        assert counts.delta("a", 6, born=True) == 1

    def test_begun_again(self) -> None:
        """One that begins anew counts from the beginning; a count that is put back is not known."""
        counts = LastCounts()
        counts.delta("a", 5, born=True)
        assert (counts.delta("a", 1, born=True), counts.delta("a", 4, born=False)) == (1, 3)
        assert counts.delta("a", 2, born=False) is None

    def test_bounded(self) -> None:
        """The events longest unseen are forgotten, and that is counted."""
        counts = LastCounts(2)
        for key in ("a", "b", "a", "c"):
            counts.note(key, 2)
        assert ("a" in counts, "b" in counts, "c" in counts) == (True, False, True)
        assert (len(counts), counts.forgotten) == (2, 1)
        assert counts.delta("b", 3, born=False) is None


class TestSeenRevisions:
    """Revisions of servers whose versions are no numbers."""

    def test_new(self) -> None:
        """A revision is new once."""
        seen = SeenRevisions()
        told = [seen.is_new("a", "x"), seen.is_new("a", "x"), seen.is_new("a", "y"), seen.is_new("b", "y")]
        assert told == [True, False, True, True]

    def test_bounded(self) -> None:
        """What was longest unseen is forgotten, and taken for new."""
        seen = SeenRevisions(2)
        for key in "abc":
            seen.is_new(key, "x")
        assert (seen.is_new("c", "x"), seen.is_new("a", "x")) == (False, True)


def test_memory_of_revisions() -> None:
    """It remembers as many events as its limit, and forgets the one that was longest not read."""
    seen = SeenRevisions(limit=2)
    assert [seen.is_new(*revision) for revision in (("a", "1"), ("b", "1"), ("a", "2"))] == [True] * 3
    assert [seen.is_new(*revision) for revision in (("b", "1"), ("a", "2"))] == [False] * 2
    assert seen.is_new("a", "3")
    assert seen.is_new("c", "1")
    assert [seen.is_new("a", "3"), seen.is_new("b", "1")] == [False, True]
