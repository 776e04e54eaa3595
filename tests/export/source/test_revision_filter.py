"""Which revisions are new, what a watch's lines are, and whether anything may be missing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kevents.exceptions import StatusError, UnavailableError
from kevents.export import Position, Record, Stream
from kevents.export._model.position import AGE, Order
from kevents.export._source.events_api import GoneError
from kevents.export._source.gaps import why_gap
from kevents.export._source.listing import ListResult
from kevents.export._source.revision_filter import EventHeader, Metadata, RevisionFilter, Series
from kevents.export._source.watch_decoder import WatchDecoder

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


class TestIntake:
    """What is new."""

    def test_old(self) -> None:
        """A revision that is not above the position is old: it is counted and not told."""
        intake = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        found = [intake.watched("ADDED", event("a", version), NOW, 0.0) for version in ("70", "71", "71", "69", "72")]
        assert told(found) == [("prod/a:71", 71, 1), ("prod/a:72", 72, 1)]
        assert (intake.old, intake.order.last) == (3, 72)

    def test_long_numbers(self) -> None:
        """ResourceVersions are numbers of any length."""
        intake = RevisionFilter(STREAM, Position(STREAM, 999, NOW))
        assert told([intake.watched("ADDED", event("a", "1000"), NOW, 0.0)]) == [("prod/a:1000", 1000, 1)]

    def test_no_numbers(self) -> None:
        """Where they are none, a revision is new that was not seen, and gets a number from the clock."""
        intake = RevisionFilter(STREAM, Position(STREAM, NOW + 5, NOW))
        found = [
            intake.watched("ADDED", event("a", "x"), NOW, 0.0),
            intake.listed(event("a", "x"), NOW, 0.0),
            intake.watched("MODIFIED", event("a", "y", count=3), NOW, 0.0),
            intake.listed(event("b", "z"), NOW + 100, 0.0),
        ]
        assert told(found) == [("prod/a:x", NOW + 6, 1), ("prod/a:y", NOW + 7, 2), ("prod/b:z", NOW + 100, 1)]

    def test_sift(self) -> None:
        """Of a list what is above the position is taken; of the others the counts are remembered."""
        intake = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        heads = [EventHeader(Metadata("a", "prod", "60"), 4), EventHeader(Metadata("b", "prod", "71"), 1)]
        assert [intake.sift(head) for head in heads] == [None, 71]
        assert told([intake.watched("MODIFIED", event("a", "72", count=6), NOW, 0.0)]) == [("prod/a:72", 72, 2)]

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
        intake = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        intake.listed_all()
        assert told([intake.listed(event("a", "71", count=5), NOW, 0.0)]) == [("prod/a:71", 71, 5)]
        intake = RevisionFilter(STREAM, None)
        intake.skip_to("70", NOW)
        found = [intake.listed(event("a", "71", count=5), NOW, 0.0), intake.listed(event("b", "72"), NOW, 0.0)]
        assert told(found) == [("prod/a:71", 71, None), ("prod/b:72", 72, 1)]

    def test_first_only(self) -> None:
        """With `first`, what was certainly there before the position was told then; in doubt it is told again."""
        intake = RevisionFilter(STREAM, Position(STREAM, 70, NOW), first_only=True)
        bodies = [event("a", "71", count=2), event("b", "72", count=2), event("b", "73", count=3)]
        bodies[0]["metadata"]["creationTimestamp"] = MINUTES_BEFORE
        assert told([intake.listed(body, NOW, 0.0) for body in bodies]) == [("prod/b:72", 72, None)]
        assert intake.order.last == 73

    def test_skip_to_an_earlier_storage(self) -> None:
        """`now` on a storage that was reset begins a new age, so that destinations do not take it for old."""
        intake = RevisionFilter(STREAM, Position(STREAM, 70, NOW))
        intake.skip_to("5", NOW)
        assert told([intake.watched("ADDED", event("a", "6"), NOW, 0.0)]) == [("prod/a:6", AGE + 6, 1)]


class TestFollowing:
    """A watch taken apart."""

    def take(self, *data: bytes) -> tuple[WatchDecoder, list[Record]]:
        """Give what becomes of bytes as they come."""
        following = WatchDecoder(RevisionFilter(STREAM, None), "70")
        records = [record for piece in data for record in following.take(piece, NOW, 0.0)]
        return following, records

    def test_lines(self) -> None:
        """Lines that come in pieces are put together; an end without a line end waits."""
        data = line("ADDED", event("a", "71")) + line("MODIFIED", event("a", "72", count=2))
        following, records = self.take(data[:50], data[50:100], data[100:-1])
        assert (told([*records]), following.version) == ([("prod/a:71", 71, 1)], "71")

    def test_others(self) -> None:
        """Deletions and bookmarks tell how far it is, and are no records."""
        data = line("DELETED", event("a", "71")) + line("BOOKMARK", {"metadata": {"resourceVersion": "75"}})
        following, records = self.take(data)
        assert (records, following.version, following.lines) == ([], "75", 2)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            ({"code": 410, "reason": "Expired"}, GoneError),
            ({"code": 500, "reason": "Expired"}, GoneError),
            ({"code": 410}, GoneError),
            ({"code": 500, "message": "etcdserver: no leader"}, StatusError),
            ({}, StatusError),
            (None, StatusError),
            ([], StatusError),
        ],
        ids=str,
    )
    def test_errors(self, status: object, kind: type[Exception]) -> None:
        """What is told instead of an event ends the watch; what came before it counts."""
        following, records = self.take(line("ADDED", event("a", "71")) + line("ERROR", status) + b"rubbish\n")
        assert (kind, 1) == (type(following.trouble), len(records))

    def test_no_json(self) -> None:
        """What is no JSON ends the watch, what has no end too; empty lines are nothing."""
        following, records = self.take(b"\n\n<html>\n")
        assert (UnavailableError, []) == (type(following.trouble), records)
        following, records = self.take(b"x" * (1 << 24), b"x")
        assert (str(following.trouble), records) == ("what came is no watch: a line without end", [])

    @pytest.mark.parametrize("body", [None, 7, {}, {"metadata": None}, {"metadata": 7}])
    def test_unreadable(self, body: object) -> None:
        """What is no event is counted, and the next one is told."""
        following, records = self.take(line("ADDED", body) + line("ADDED", event("a", "71")))
        assert (following.unreadable, len(records), following.trouble) == (1, 1, None)

    def test_odd_fields(self) -> None:
        """An event with fields of wrong shapes is told as it is."""
        odd = event("a", "71", series=7, involvedObject="x", count="many", lastTimestamp=5)
        _, records = self.take(line("ADDED", odd))
        assert (records[0].body["series"], records[0].body["kevents"]["countDelta"]) == (7, 1)


class TestGaps:
    """Whether anything may be missing."""

    @pytest.mark.parametrize(
        ("pause", "listed", "why"),
        [
            (2 * HOUR, ListResult("90", 1, False, 80, 0), "expired"),
            (2 * HOUR, ListResult("90", 0, False, None, 0), "expired"),
            (HOUR, ListResult("90", 1, False, 80, 0), ""),
            (2 * HOUR, ListResult("90", 2, True, 80, 0), ""),
            (2 * HOUR, ListResult("90", 1, False, 71, 0), ""),
            (2 * HOUR, ListResult("70", 0, False, None, 0), ""),
            (2 * HOUR, ListResult("x", 1, False, 71, 0), "expired"),
            (HOUR, ListResult("x", 1, False, 71, 0), ""),
        ],
        ids=["some", "none left", "short", "older lives", "no room", "nothing written", "no order", "short, no order"],
    )
    def test_expired(self, pause: int, listed: ListResult, why: str) -> None:
        """Only after a pause longer than events live, where nothing older lives and there is room for something."""
        assert why == why_gap(Position(STREAM, 70, NOW), listed, Order(70), NOW + pause, 3600.0)

    def test_reset(self) -> None:
        """A storage that was reset is a gap however short the pause."""
        order = Order(70)
        order.reset()
        assert why_gap(Position(STREAM, 70, NOW), ListResult("5", 0, False, None, 0), order, NOW, 3600.0) == "reset"
