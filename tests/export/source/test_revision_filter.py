"""New revisions, their count deltas, and the memory of revisions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kevents.export import Position, Record, Stream
from kevents.export._model.position import AGE
from kevents.export._source import revision_filter as _revision_filter
from kevents.export._source.revision_filter import (
    LastCounts,
    RevisionFilter,
)

STREAM = Stream("c-1")
HOUR = 3_600_000_000_000
NOW = 1_784_883_600_000_000_000  # 2026-07-24T09:00:00Z
MINUTES_LATER = "2026-07-24T09:05:00Z"
MINUTES_BEFORE = "2026-07-24T08:55:00Z"


def event(name: str, version: str, **fields: Any) -> dict[str, Any]:
    """Return an event without a uid."""
    return {"metadata": {"namespace": "prod", "name": name, "resourceVersion": version}, "count": 1, **fields}


def line(verb: str, body: object) -> bytes:
    """Return one watch line."""
    return json.dumps({"type": verb, "object": body}).encode() + b"\n"


def told(records: list[Record | None]) -> list[tuple[str, int, Any]]:
    """Return id, number and count of each record."""
    return [(record.id, record.rv, record.body["kevents"]["countDelta"]) for record in records if record is not None]


class TestRevisionFilter:
    """Detection of new revisions."""

    def test_old(self) -> None:
        """A revision at or below the position is counted as old and not delivered."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        found = [
            revisions.watched("ADDED", event("a", version), NOW, 0.0) for version in ("70", "71", "71", "69", "72")
        ]
        assert told(found) == [("prod/a:71", 71, 1), ("prod/a:72", 72, 1)]
        assert (revisions.old, revisions.order.last) == (3, 72)

    def test_long_numbers(self) -> None:
        """ResourceVersions are compared as numbers of any length."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 999, NOW))
        assert told([revisions.watched("ADDED", event("a", "1000"), NOW, 0.0)]) == [("prod/a:1000", 1000, 1)]

    def test_no_numbers(self) -> None:
        """Without numeric versions, an unseen revision is new and gets a number from the clock."""
        revisions = RevisionFilter(STREAM, Position(STREAM, NOW + 5, NOW))
        found = [
            revisions.watched("ADDED", event("a", "x"), NOW, 0.0),
            revisions.listed(event("a", "x"), NOW, 0.0),
            revisions.watched("MODIFIED", event("a", "y", count=3), NOW, 0.0),
            revisions.listed(event("b", "z"), NOW + 100, 0.0),
        ]
        assert told(found) == [("prod/a:x", NOW + 6, 1), ("prod/a:y", NOW + 7, 2), ("prod/b:z", NOW + 100, 1)]

    def test_sift(self) -> None:
        """Listed revisions above the position are delivered. The counts of the others are the baseline."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        listed = [event("a", "60", count=4), event("b", "71")]
        assert [revisions.sift(each) for each in listed] == [None, 71]
        assert told([revisions.watched("MODIFIED", event("a", "72", count=6), NOW, 0.0)]) == [("prod/a:72", 72, 2)]

    @pytest.mark.parametrize(
        ("created", "delta"),
        [(MINUTES_LATER, 5), (MINUTES_BEFORE, None), ("2026-07-24T09:00:30Z", None), (None, None)],
        ids=str,
    )
    def test_first_list_after_a_position(self, created: str | None, delta: int | None) -> None:
        """The delta is known only if the event was created after the position, with a margin for clock differences."""
        body = event("a", "71", count=5)
        if created:
            body["metadata"]["creationTimestamp"] = created
        found = RevisionFilter(STREAM, Position(STREAM, 70, NOW)).listed(body, NOW + HOUR, 0.0)
        assert [("prod/a:71", 71, delta)] == told([found])

    def test_later_lists(self) -> None:
        """After a complete list, unknown events are new. After `now`, only a count of 1 has a known delta."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        revisions.listed_all()
        assert told([revisions.listed(event("a", "71", count=5), NOW, 0.0)]) == [("prod/a:71", 71, 5)]
        revisions = RevisionFilter(STREAM, None)
        revisions.skip_to("70", NOW)
        found = [revisions.listed(event("a", "71", count=5), NOW, 0.0), revisions.listed(event("b", "72"), NOW, 0.0)]
        assert told(found) == [("prod/a:71", 71, None), ("prod/b:72", 72, 1)]

    def test_first_only(self) -> None:
        """With `first`, events created before the position are skipped. Uncertain ones are delivered again."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW), first_only=True)
        bodies = [event("a", "71", count=2), event("b", "72", count=2), event("b", "73", count=3)]
        bodies[0]["metadata"]["creationTimestamp"] = MINUTES_BEFORE
        assert told([revisions.listed(body, NOW, 0.0) for body in bodies]) == [("prod/b:72", 72, None)]
        assert revisions.order.last == 73

    def test_skip_to_an_earlier_storage(self) -> None:
        """`now` on a storage that was reset starts a new age, so that destinations do not treat its events as old."""
        revisions = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        revisions.skip_to("5", NOW)
        assert told([revisions.watched("ADDED", event("a", "6"), NOW, 0.0)]) == [("prod/a:6", AGE + 6, 1)]


class TestLastCounts:
    """Count deltas."""

    def test_one_to_twenty(self) -> None:
        """The deltas of an event counted from 1 to 20 sum to 20."""
        counts = LastCounts()
        deltas = [counts.delta("a", count, born=count == 1) for count in range(1, 21)]
        assert deltas == [1] * 20

    def test_missed(self) -> None:
        """The next revision includes the occurrences of missed revisions."""
        counts = LastCounts()
        assert [counts.delta("a", 1, born=True), counts.delta("a", 7, born=False)] == [1, 6]

    def test_unknown(self) -> None:
        """Without a previous count the delta is unknown, except for a count of 1."""
        counts = LastCounts()
        assert (counts.delta("a", 7, born=False), counts.delta("b", 1, born=False)) == (None, 1)
        assert counts.delta("a", 8, born=False) == 1

    def test_same_again(self) -> None:
        """A revision with the same count has a delta of 0."""
        counts = LastCounts()
        assert [counts.delta("a", 3, born=True), counts.delta("a", 3, born=False)] == [3, 0]

    def test_written_again(self) -> None:
        """If a recorder writes an expired event again with a higher count, the delta is the difference."""
        counts = LastCounts()
        counts.delta("a", 5, born=True)
        assert counts.delta("a", 6, born=True) == 1

    def test_begun_again(self) -> None:
        """An event that starts again counts from the beginning. The delta of a decreased count is unknown."""
        counts = LastCounts()
        counts.delta("a", 5, born=True)
        assert (counts.delta("a", 1, born=True), counts.delta("a", 4, born=False)) == (1, 3)
        assert counts.delta("a", 2, born=False) is None

    def test_bounded(self) -> None:
        """The least recently seen events are forgotten, and the number of forgotten events is counted."""
        counts = LastCounts(2)
        for key in ("a", "b", "a", "c"):
            counts.note(key, 2)
        assert ("a" in counts, "b" in counts, "c" in counts) == (True, False, True)
        assert (len(counts), counts.forgotten) == (2, 1)
        assert counts.delta("b", 3, born=False) is None


class TestVersionsWithoutNumbers:
    """Revisions of servers whose versions are no numbers."""

    def test_new(self) -> None:
        """A revision is new once."""
        revisions = RevisionFilter(STREAM, None)
        given = [("a", "x"), ("a", "x"), ("a", "y"), ("b", "y")]
        found = [revisions.watched("ADDED", event(*each), NOW, 0.0) for each in given]
        assert [record is not None for record in found] == [True, False, True, True]

    def test_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The memory forgets the event that was least recently read. Its revision counts as new again."""
        monkeypatch.setattr(_revision_filter, "_MAX_REMEMBERED", 2)
        revisions = RevisionFilter(STREAM, None)
        given = ["ax", "bx", "ay", "bx", "ay", "az", "cx", "az", "bx"]
        found = [revisions.watched("ADDED", event(*each), NOW, 0.0) for each in given]
        assert [record is not None for record in found] == [True] * 3 + [False] * 2 + [True] * 2 + [False, True]
