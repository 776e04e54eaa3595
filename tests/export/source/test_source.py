"""The source reads a cluster's events in order, through outages, resets and malformed answers."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

from kevents.exceptions import StatusError, UnavailableError
from kevents.export import ClusterEventSource, Position
from kevents.export._model.position import AGE
from kevents.export._source import api as _api
from kevents.export._source import source as _source
from kevents.export._source.listing import Backlog
from kevents.testing import APIServer, Delay, FakeClock, Garbage, Request, Reset, Status
from tests.export.reading import Reading, client, event, put, source
from tests.support.collector import no_collection

pytestmark = pytest.mark.wire

SECOND = 1_000_000_000


def is_watch(request: Request) -> bool:
    """True if a request is a watch."""
    return "watch" in request.query


def is_list(request: Request) -> bool:
    """True if a request asks for a page of events."""
    return request.path.endswith("/events") and "watch" not in request.query


def away(server: APIServer, reading: Reading) -> None:
    """Stop the server and wait until the stream notices: the simulated clock advances immediately afterwards."""
    failures = reading.stream.statistics().failures
    server.stop_listening()
    reading.wait(lambda: reading.stream.statistics().failures > failures)


class TestOrder:
    """Lists and watches, one after the other."""

    def test_list_and_watch(self, api_server: APIServer) -> None:
        """The list comes first, sorted by resourceVersion, then the watch. No event is delivered twice."""
        expected = put(api_server, "z", "a", "m")
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_listed()
            assert reading.ids == expected
            expected += put(api_server, "b", "c")
            reading.wait_for(5)
        assert reading.ids == expected
        assert int(expected[-1].rpartition(":")[2]) == reading.position.rv

    def test_pages(self, api_server: APIServer) -> None:
        """A paged list is sorted across all pages, even when it does not fit in memory."""
        names = [f"e{number * 7 % 50:02}" for number in range(50)]
        expected = put(api_server, *names)
        (stream,) = source(api_server, page=7, backlog=2000).open()
        with Reading(stream) as reading:
            reading.wait_listed()
        assert reading.ids == expected
        pages = [request for request in api_server.requests if is_list(request)]
        assert [request.query["limit"] for request in pages] == ["7"] * 8
        assert len({request.connection for request in pages}) == 1
        assert stream.statistics().lists == 1

    def test_resume(self, api_server: APIServer) -> None:
        """After a restart, only newer revisions are delivered. Counts continue from the last known count."""
        put(api_server, "a", "b")
        (stream,) = source(api_server).open()
        with Reading(stream) as first:
            first.wait_listed()
        changed = api_server._store.modify("events", "default", "a", lambda old: {**old, "count": 3})
        expected = put(api_server, "c")
        (stream,) = source(api_server).open()
        with Reading(stream, first.position) as second:
            second.wait_listed()
        version = changed["metadata"]["resourceVersion"]
        assert [f"{changed['metadata']['uid']}:{version}", *expected] == second.ids
        assert second.deltas == [None, 1]  # the count of `a` at the saved position is unknown
        assert [record.body["kevents"]["verb"] for record in second.records] == ["MODIFIED", "ADDED"]

    def test_known_counts(self, api_server: APIServer) -> None:
        """After a restart, the listed counts of already delivered events are the baseline for later deltas."""
        put(api_server, "a", count=4)
        (stream,) = source(api_server).open()
        with Reading(stream) as first:
            first.wait_listed()
        (stream,) = source(api_server).open()
        with Reading(stream, first.position) as second:
            second.wait_listed()
            api_server._store.modify("events", "default", "a", lambda old: {**old, "count": 6})
            second.wait_for(1)
        assert (first.deltas, second.deltas) == ([4], [2])

    def test_now(self, api_server: APIServer) -> None:
        """With `start="now"`, existing events are skipped whatever the position."""
        put(api_server, "a", "b")
        (stream,) = source(api_server, start="now").open()
        with Reading(stream, Position(stream.stream, 1, 0)) as reading:
            reading.wait(lambda: reading.chunks)
            expected = put(api_server, "c")
            reading.wait_for(1)
        assert reading.ids == expected
        assert len([request for request in api_server.requests if is_list(request)]) == 1

    def test_all(self, api_server: APIServer) -> None:
        """With `start="all"`, every existing event is delivered whatever the position."""
        expected = put(api_server, "a", "b")
        (stream,) = source(api_server, start="all").open()
        with Reading(stream, Position(stream.stream, 10_000, 0)) as reading:
            reading.wait_listed()
        assert reading.ids == expected

    def test_empty(self, api_server: APIServer) -> None:
        """Without events, each list and each finished watch still advances the position."""
        (stream,) = source(api_server, watch=1).open()
        with Reading(stream) as reading:
            reading.wait(lambda: len(reading.chunks) > 2)
        assert [chunk.records for chunk in reading.chunks if chunk.records] == []
        assert reading.chunks[0].position.time < reading.chunks[1].position.time

    def test_namespaces(self, api_server: APIServer) -> None:
        """Each namespace is a separate stream."""
        for name in ("red", "blue", "green"):
            api_server.create_namespace(name)
            put(api_server, "a", namespace=name)
        streams = source(api_server, namespaces=["red", "blue", "red"]).open()
        assert [stream.stream.scope for stream in streams] == ["red", "blue"]
        with Reading(streams[0]) as red, Reading(streams[1]) as blue:
            red.wait_listed()
            blue.wait_listed()
            put(api_server, "b", namespace="blue")
            blue.wait_for(2)
        found = [[record.body["metadata"]["namespace"] for record in reading.records] for reading in (red, blue)]
        assert found == [["red"], ["blue", "blue"]]

    def test_core_only(self, api_server: APIServer) -> None:
        """The source uses only core/v1, so it also reads servers without events.k8s.io."""
        series = {"count": 3, "lastObservedTime": "2026-07-24T09:00:00.000001Z"}
        api_server.create(
            "events.k8s.io/v1",
            "events",
            {
                "metadata": {"name": "new"},
                "eventTime": "2026-07-24T08:00:00.000001Z",
                "reportingController": "c",
                "reportingInstance": "i",
                "action": "A",
                "reason": "R",
                "regarding": {"namespace": "default", "name": "x"},
                "series": series,
                "type": "Normal",
            },
        )
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_listed()
        assert reading.deltas == [3]
        assert series["lastObservedTime"] == reading.records[0].body["kevents"]["time"]
        assert {request.path.split("/")[1] for request in api_server.requests} == {"api"}

    def test_tls(self, api_server: APIServer) -> None:
        """The source reads over TLS."""
        expected = put(api_server, "a")
        (stream,) = source(api_server, tls=True).open()
        with Reading(stream) as reading:
            reading.wait_listed()
            expected += put(api_server, *[f"b{number}" for number in range(200)])
            reading.wait_for(201)
        assert reading.ids == expected


class TestCounts:
    """Count deltas of revisions."""

    def test_one_to_twenty(self, api_server: APIServer) -> None:
        """An event counted from 1 to 20 produces 20 revisions whose deltas sum to 20."""
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_listed()
            put(api_server, "a")
            for count in range(2, 21):
                api_server._store.modify("events", "default", "a", lambda old, c=count: {**old, "count": c})
            reading.wait_for(20)
        assert (reading.deltas, len(set(reading.ids))) == ([1] * 20, 20)

    def test_during_an_outage(self, api_server: APIServer) -> None:
        """Occurrences during an outage are reported in one delta with the next revision."""
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_listed()
            put(api_server, "a")
            reading.wait_for(1)
            api_server.stop_listening()
            api_server._store.modify("events", "default", "a", lambda old: {**old, "count": 9})
            put(api_server, "b", count=4)
            api_server.compact()
            api_server.listen_again()
            reading.wait_for(3)
        assert reading.deltas == [1, 8, 4]

    def test_deleted(self, api_server: APIServer) -> None:
        """An expired event produces no record, but the position advances."""
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            expected = put(api_server, "a")
            reading.wait_for(1)
            api_server.expire()
            reading.wait(lambda: reading.position.rv > reading.records[-1].rv)
        assert reading.ids == expected

    def test_first(self, api_server: APIServer) -> None:
        """With `repeats="first"`, each event is delivered once and later revisions only advance the position.

        A restart does not change that.
        """
        clock = FakeClock()
        with APIServer(clock=clock) as server:
            (stream,) = source(server, repeats="first", clock=clock, watch=1).open()
            with Reading(stream) as first:
                first.wait_listed()
                expected = put(server, "a")
                clock.advance(120)
                server._store.modify("events", "default", "a", lambda old: {**old, "count": 2})
                first.wait(lambda: first.position.time == clock())
            clock.advance(120)
            server._store.modify("events", "default", "a", lambda old: {**old, "count": 3})
            clock.advance(120)
            later = put(server, "b", count=2)
            (stream,) = source(server, repeats="first", clock=clock).open()
            with Reading(stream, first.position) as second:
                second.wait_listed()
        assert (expected, later) == (first.ids, second.ids)

    def test_window(self, api_server: APIServer) -> None:
        """With a window, the latest revision is delivered when the window ends, with the sum of the deltas."""
        (stream,) = source(api_server, repeats="1s").open()
        with Reading(stream) as reading:
            reading.wait_listed()
            before = reading.position.rv
            put(api_server, "a")
            for count in (2, 3, 4):
                api_server._store.modify("events", "default", "a", lambda old, c=count: {**old, "count": c})
            reading.wait_for(1)
        assert (reading.deltas, reading.records[0].body["count"]) == ([4], 4)
        assert before + 4 == reading.records[0].rv

    def test_window_is_heard_of(self, api_server: APIServer) -> None:
        """While a window fills, incoming revisions yield empty chunks that do not advance the position."""
        (stream,) = source(api_server, repeats="30m").open()
        with Reading(stream) as reading:
            reading.wait_listed()
            before, chunks = reading.position, len(reading.chunks)
            for number in range(1, 4):
                put(api_server, f"e{number}")
                reading.wait(lambda number=number: len(reading.chunks) >= chunks + number)
            assert ([], {chunk.position for chunk in reading.chunks[chunks:]}) == (reading.records, {before})
        assert ([1, 1, 1], reading.position.rv) == (reading.deltas, before.rv + 3)

    def test_window_at_the_end(self, api_server: APIServer) -> None:
        """Revisions still in a window are delivered when reading stops."""
        (stream,) = source(api_server, repeats="30m").open()
        with Reading(stream) as reading:
            reading.wait_listed()
            put(api_server, "a", "b")
            reading.wait(lambda: stream.statistics().revisions == 2)
            assert reading.records == []
        assert reading.deltas == [1, 1]


class TestGone:
    """The server no longer has the requested resourceVersion."""

    @pytest.mark.parametrize("gone", ["event", "status", "empty"])
    def test_forms(self, gone: Any) -> None:
        """Every form of "gone" leads to a list that delivers the missed events."""
        with APIServer(gone=gone) as server:
            expected = put(server, "a")
            (stream,) = source(server).open()
            with Reading(stream) as reading:
                reading.wait_listed()
                server.stop_listening()
                expected += put(server, "b", "c")
                server.compact()
                server.listen_again()
                reading.wait_for(3)
                expected += put(server, "d")
                reading.wait_for(4)
            assert reading.ids == expected
            statistics = stream.statistics()
            assert (statistics.gone, statistics.lists, statistics.gaps) == (1, 2, 0)

    def test_always_gone(self, api_server: APIServer) -> None:
        """If every watch is answered with 410, the retry delay grows and lists deliver all events."""
        with api_server.fail(Status(410, "Expired"), when=is_watch) as rule:
            (stream,) = source(api_server, retry=(0.05, 0.2)).open()
            with Reading(stream) as reading:
                expected = put(api_server, "a")
                reading.wait_for(1)
                expected += put(api_server, "b")
                reading.wait_for(2)
                hits = rule.hits
            assert reading.ids == expected
        assert hits < 100

    def test_page(self, api_server: APIServer) -> None:
        """A list whose continue token expires starts again with larger pages."""
        expected = put(api_server, *"abcdef")
        api_server.fail(Status(410, "Expired"), times=1, when=lambda request: "continue" in request.query)
        (stream,) = source(api_server, page=2).open()
        with Reading(stream) as reading:
            reading.wait_listed()
        assert reading.ids == expected
        assert [request.query["limit"] for request in api_server.requests if is_list(request)] == ["2", "2", "20"]


class TestOutages:
    """Outages in simulated time. The server keeps events for an hour and its watch history for five minutes."""

    @pytest.mark.parametrize(("seconds", "gone"), [(30, 0), (600, 1), (3000, 1)])
    def test_nothing_is_lost(self, seconds: int, gone: int) -> None:
        """An outage shorter than the event TTL loses no event and reports no gap."""
        clock = FakeClock()
        with APIServer(clock=clock, event_ttl=3600, history_age=300) as server:
            expected = put(server, "before")
            (stream,) = source(server, clock=clock).open()
            with Reading(stream) as reading:
                reading.wait_listed()
                away(server, reading)
                for number in range(100):
                    clock.advance(seconds / 100)
                    expected += put(server, f"during-{number}")
                server.listen_again()
                reading.wait_for(101)
                expected += put(server, "after")
                reading.wait_for(102)
            assert (reading.ids, reading.gaps) == (expected, [])
            # A watch that is cut within its first second also counts as gone.
            assert stream.statistics().gone in {gone, gone + 1}
            assert 1 + stream.statistics().gone == stream.statistics().lists

    def test_gap(self) -> None:
        """An outage longer than the event TTL reports one gap with its start and end.

        Surviving events are delivered.
        """
        clock = FakeClock()
        with APIServer(clock=clock, event_ttl=3600, history_age=300) as server:
            expected = put(server, "before")
            (stream,) = source(server, clock=clock, cluster_name="blue").open()
            with Reading(stream) as reading:
                reading.wait_listed()
                away(server, reading)
                put(server, "lost")
                clock.advance(4000)
                lives = put(server, "lives")
                server.listen_again()
                reading.wait_for(3)
                away(server, reading)
                clock.advance(600)
                more = put(server, "more")
                server.listen_again()
                reading.wait_for(4)
            gap = reading.records[1].id
            assert [*expected, gap, *lives, *more] == reading.ids
            assert [
                {
                    "why": "expired",
                    "cluster": stream.stream.cluster,
                    "scope": "",
                    "after": expected[0].rpartition(":")[2],
                    "from": "2026-01-01T00:00:00Z",
                    "until": "2026-01-01T01:06:40Z",
                }
            ] == reading.gaps
            assert (stream.statistics().gaps, reading.records[1].body["clusterName"]) == (1, "blue")

    def test_gap_over_a_restart(self) -> None:
        """Downtime longer than the event TTL reports one gap, even if no event is left."""
        clock = FakeClock()
        with APIServer(clock=clock, event_ttl=3600) as server:
            put(server, "before")
            (stream,) = source(server, clock=clock).open()
            with Reading(stream) as first:
                first.wait_listed()
            put(server, "lost")
            clock.advance(7200)
            readings = []
            for _ in range(2):
                (stream,) = source(server, clock=clock).open()
                with Reading(stream, first.position if not readings else readings[-1].position) as reading:
                    reading.wait_listed()
                readings.append(reading)
        assert [len(reading.gaps) for reading in readings] == [1, 0]

    def test_suspended(self) -> None:
        """The position's time is at most the watch's planned end, even if the process was suspended meanwhile."""
        clock = FakeClock()
        with APIServer(clock=clock) as server:
            (stream,) = source(server, clock=clock, watch=1).open()
            with Reading(stream) as reading:
                reading.wait(lambda: stream.statistics().watches == 1)
                began = clock()
                clock.advance(7200)
                reading.wait(lambda: len(reading.chunks) == 2)
        assert began + SECOND == reading.chunks[1].position.time

    def test_no_gap_while_something_lives(self) -> None:
        """There is no gap if an event from before the outage still exists: none has expired."""
        clock = FakeClock()
        with APIServer(clock=clock, event_ttl=None) as server:
            expected = put(server, "before")
            (stream,) = source(server, clock=clock).open()
            with Reading(stream) as reading:
                reading.wait_listed()
                away(server, reading)
                clock.advance(10_000)
                expected += put(server, "after")
                server.compact()
                server.listen_again()
                reading.wait_for(2)
        assert (reading.ids, reading.gaps) == (expected, [])

    def test_no_gap_where_nothing_was_written(self) -> None:
        """There is no gap if nothing was written meanwhile."""
        clock = FakeClock()
        with APIServer(clock=clock, event_ttl=3600) as server:
            (stream,) = source(server, clock=clock).open()
            with Reading(stream) as first:
                first.wait_listed()
            clock.advance(10_000)
            (stream,) = source(server, clock=clock).open()
            with Reading(stream, first.position) as second:
                second.wait_listed()
        assert (first.gaps, second.gaps) == ([], [])


class TestReset:
    """The storage was restored from an older backup."""

    def test_while_reading(self, api_server: APIServer) -> None:
        """A reset is detected although the watch reports nothing.

        It is reported as a gap, and the events are listed again.
        """
        kept = put(api_server, "kept")
        backup = api_server.backup()
        lost = put(api_server, "a", "b", "c")
        (stream,) = source(api_server, watch=1).open()
        with Reading(stream) as reading:
            reading.wait_for(4)
            api_server.restore(backup)
            reading.wait_for(6)
            after = put(api_server, "after")
            reading.wait_for(7)
        assert [gap["why"] for gap in reading.gaps] == ["reset"]
        assert [*kept, *lost, reading.ids[4], *kept, *after] == reading.ids
        assert reading.records[4].rv == reading.records[5].rv - 1 > AGE
        statistics = stream.statistics()
        assert (statistics.resets, statistics.gaps) == (1, 1)

    def test_over_a_restart(self, api_server: APIServer) -> None:
        """A reset during downtime is reported once. The next restart reports nothing."""
        put(api_server, "kept")
        backup = api_server.backup()
        put(api_server, "a", "b")
        (stream,) = source(api_server).open()
        with Reading(stream) as first:
            first.wait_listed()
        api_server.restore(backup)
        (stream,) = source(api_server).open()
        with Reading(stream, first.position) as second:
            second.wait_listed()
        (stream,) = source(api_server).open()
        with Reading(stream, second.position) as third:
            third.wait_listed()
            expected = put(api_server, "after")
            third.wait_for(1)
        assert ([gap["why"] for gap in second.gaps], len(second.ids)) == (["reset"], 2)
        assert third.ids == expected
        assert f"{first.position.rv:020d}" < f"{second.position.rv:020d}" < f"{third.position.rv:020d}"


class TestFaults:
    """Failures and malformed answers of the server."""

    @pytest.mark.parametrize(
        "fault",
        [
            Status(500, "InternalError"),
            Status(503, retry_after=0),
            Status(429, "TooManyRequests"),
            Status(401, "Unauthorized"),
            Reset(),
            Garbage(b"<html>proxy</html>", content_type="text/html", after_processing=False),
            Garbage(b"", after_processing=False),
            Garbage(b"{}", after_processing=False),
            Garbage(b'{"type":"ADDED"', after_processing=False),
            Garbage(b'{"type":"ERROR","object":{"code":500}}\n', after_processing=False),
            Delay(0.01),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("what", [is_list, is_watch])
    def test_failures(self, api_server: APIServer, fault: Any, what: Any) -> None:
        """Failed requests are retried and no event is lost."""
        expected = put(api_server, "a", "b")
        api_server.fail(fault, times=4, when=what)
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_for(2)
            expected += put(api_server, "c")
            reading.wait_for(3)
        assert (reading.ids, reading.gaps) == (expected, [])

    def test_cut(self, api_server: APIServer) -> None:
        """A watch that is cut resumes at its position without a list."""
        (stream,) = source(api_server).open()
        expected = []
        with Reading(stream) as reading:
            reading.wait_listed()
            for name in "abcdef":
                expected += put(api_server, name)
                reading.wait_for(len(expected))
                api_server.stop_listening()
                api_server.listen_again()
        assert reading.ids == expected
        assert stream.statistics().lists == 1

    def test_slow(self) -> None:
        """A reader that is cut off because it is too slow loses no event."""
        with APIServer(watch_buffer=20, history=50) as server:
            (stream,) = source(server).open()
            chunks = stream.read(None)
            next(chunks)
            expected = put(server, "first")
            found = [record.id for record in next(chunks).records]
            expected += put(server, *[f"e{number:04}" for number in range(600)], message="x" * 50_000)
            while len(found) < len(expected):
                found += [record.id for record in next(chunks).records]
            stream.stop()
            chunks.close()
        assert found == expected
        assert stream.statistics().lists > 1

    def test_forbidden(self, api_server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
        """A 403 is logged with the permissions that are missing, and retried until access is granted."""
        expected = put(api_server, "a")
        api_server.add_user("t", "exporter", {"get"})
        (stream,) = source(api_server, token="t").open()
        with caplog.at_level(logging.INFO, "kevents"), Reading(stream) as reading:
            api_server.wait_for(lambda: [found for found in api_server.requests if found.status == 403])
            api_server.add_user("t", "exporter", {"get", "list", "watch"})
            reading.wait_listed()
        assert reading.ids == expected
        lines = [record.getMessage() for record in caplog.records]
        assert 'User "exporter" cannot list resource "events"' in lines[0]
        assert lines[0].endswith('a role must allow "list" and "watch" of "events" in the API group "" there')
        assert "the events of all namespaces are read again" in lines[1]

    def test_no_secret(self, api_server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
        """Pitfall 72: no log line and no repr contains the token."""
        (stream,) = source(api_server).open()
        api_server.fail(500, times=2)
        with caplog.at_level(logging.DEBUG, "kevents"), Reading(stream) as reading:
            reading.wait_listed()
        assert caplog.records
        told = [record.getMessage() for record in caplog.records]
        assert [text for text in [*told, repr(source(api_server))] if api_server.token in text] == []

    def test_now_after_failures(self, api_server: APIServer) -> None:
        """With `start="now"`, a failing server is retried. "Now" is the time of the first answer."""
        put(api_server, "before")
        api_server.fail(503, times=2, when=is_list)
        (stream,) = source(api_server, start="now").open()
        with Reading(stream) as reading:
            reading.wait(lambda: reading.chunks)
            expected = put(api_server, "after")
            reading.wait_for(1)
        assert (reading.ids, stream.statistics().failures) == (expected, 2)

    def test_a_token_with_a_line_break(self, api_server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
        """Pitfall 72: a token that is no valid header is retried like other failures and never logged."""
        (stream,) = source(api_server, token="hunter2\n", cluster="mine").open()
        with caplog.at_level(logging.DEBUG, "kevents"), Reading(stream) as reading:
            reading.wait(lambda: stream.statistics().failures > 1)
        assert (reading.chunks, api_server.requests) == ([], ())
        assert "hunter2" not in caplog.text

    def test_huge(self, api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pitfall 78: reading an endless answer stops at the size limit, for every page size."""
        monkeypatch.setattr(_api, "_MAX_PAGE", 1 << 20)
        attempts = len([500, 250, 125, 62, 31, 15, 7, 3, 1])
        api_server.fail(Garbage(b"x", size=1 << 30, after_processing=False), times=attempts, when=is_list)
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            expected = put(api_server, "a")
            reading.wait_for(1)
        assert (reading.ids, stream.statistics().failures) == (expected, 1)

    def test_a_page_that_is_too_large(self, api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fault 25: a page over the size limit is halved until it fits, and no namespace is cut off."""
        monkeypatch.setattr(_api, "_MAX_PAGE", 30_000)
        api_server.create_namespace("big")
        expected = put(api_server, "first")
        expected += put(api_server, *[f"e{number:02}" for number in range(40)], namespace="big", message="x" * 5000)
        expected += put(api_server, "last")
        (stream,) = source(api_server, page=32).open()
        with Reading(stream) as reading:
            reading.wait_listed()
        assert (reading.ids, stream.statistics().failures) == (expected, 0)
        limits = [int(found.query["limit"]) for found in api_server.requests if is_list(found)]
        assert limits[:4] == [32, 16, 8, 4]
        assert set(limits[4:]) == {4}

    def test_an_event_that_is_too_large(self, api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A single event over the size limit is a failure that is retried."""
        monkeypatch.setattr(_api, "_MAX_PAGE", 1000)
        expected = put(api_server, "a", message="x" * 5000)
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait(lambda: stream.statistics().failures > 2)
            monkeypatch.undo()
            reading.wait_for(1)
        assert reading.ids == expected

    def test_unreadable(self, api_server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
        """Items that are no events are counted and logged. The other items are delivered."""
        body = b'{"metadata":{"resourceVersion":"70"},"items":[{"metadata":7},{"metadata":{"resourceVersion":"60"}}]}'
        lines = b'{"type":"ADDED","object":7}\n{"type":"ADDED","object":{"metadata":{"resourceVersion":"71"}}}\n'
        api_server.fail(Garbage(body, after_processing=False), times=1, when=is_list)
        api_server.fail(Garbage(lines, after_processing=False), times=1, when=is_watch)
        (stream,) = source(api_server).open()
        with caplog.at_level(logging.ERROR, "kevents"), Reading(stream) as reading:
            reading.wait_for(2)
        assert reading.ids[:2] == ["/:60", "/:71"]
        assert stream.statistics().unreadable == 2
        assert "1 of the events of all namespaces cannot be read" in caplog.text

    def test_an_odd_count(self, api_server: APIServer) -> None:
        """A listed event whose count is no number is delivered, as one of a watch is."""
        body = b'{"metadata":{"resourceVersion":"70"},"items":[{"metadata":{"resourceVersion":"60"},"count":"many"}]}'
        api_server.fail(Garbage(body, after_processing=False), times=1, when=is_list)
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_for(1)
        assert (reading.ids[0], stream.statistics().unreadable) == ("/:60", 0)

    def test_a_deep_event(self, api_server: APIServer) -> None:
        """A deeply nested event is delivered and does not block the others."""
        deep = (
            b'{"metadata":{"resourceVersion":"%d","managedFields":' + b'[{"f:a":' * 3000 + b"7" + b"}]" * 3000 + b"}}"
        )
        items = deep % 60 + b',{"metadata":{"resourceVersion":"61"}}'
        body = b'{"metadata":{"resourceVersion":"70"},"items":[' + items + b"]}"
        lines = b'{"type":"ADDED","object":' + deep % 71 + b"}\n"
        api_server.fail(Garbage(body, after_processing=False), times=1, when=is_list)
        api_server.fail(Garbage(lines, after_processing=False), times=1, when=is_watch)
        (stream,) = source(api_server).open()
        with no_collection(), Reading(stream) as reading:
            reading.wait_for(3)
        counted = stream.statistics()
        assert (reading.ids[:3], counted.failures, counted.unreadable) == (["/:60", "/:61", "/:71"], 0, 0)

    def test_bytes_that_are_no_text(self, api_server: APIServer) -> None:
        """An event that is not valid UTF-8 is counted and does not block the others."""
        items = b'{"metadata":{"resourceVersion":"60"},"message":"\xff"},{"metadata":{"resourceVersion":"61"}}'
        body = b'{"metadata":{"resourceVersion":"70"},"items":[' + items + b"]}"
        api_server.fail(Garbage(body, after_processing=False), times=1, when=is_list)
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_for(1)
        assert (reading.ids[0], stream.statistics().unreadable) == ("/:61", 1)

    def test_a_watch_that_is_not_read(self, api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """After a long pause, the stream lists again instead of reading the rest of a stale watch.

        Nothing is duplicated.
        """
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_listed()
            monkeypatch.setattr(_source, "_STALE", -1.0)
            expected = put(api_server, "a")
            reading.wait(lambda: stream.statistics().lists > 1)
            monkeypatch.undo()
            expected += put(api_server, "b")
            reading.wait_for(2)
        assert (reading.ids, reading.gaps) == (expected, [])

    def test_a_disk_that_fails(self, api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """If the backlog file cannot be read, the events are listed again.

        Records already delivered are not repeated.
        """
        expected = put(api_server, "a", "b", "c")
        whole = Backlog.in_order
        failures = [OSError(5, "Input/output error")]

        def torn(backlog: Backlog) -> Iterator[tuple[int, bytes]]:
            for number, item in enumerate(whole(backlog)):
                if number == 2 and failures:
                    raise failures.pop()
                yield item

        monkeypatch.setattr(Backlog, "in_order", torn)
        (stream,) = source(api_server, page=2).open()
        with Reading(stream) as reading:
            reading.wait_listed()
        assert (reading.ids, stream.statistics().lists, stream.statistics().failures) == (expected, 2, 1)

    def test_list_for_a_watch(self, api_server: APIServer) -> None:
        """If the server answers watches with lists, the retry delay grows."""
        body = b'{"kind":"EventList","metadata":{"resourceVersion":"90"},"items":[]}'
        (stream,) = source(api_server, retry=(0.05, 0.2)).open()
        with api_server.fail(Garbage(body, after_processing=False), when=is_watch) as rule, Reading(stream) as reading:
            expected = put(api_server, "a")
            reading.wait_for(1)
            expected += put(api_server, "b")
            reading.wait_for(2)
            hits = rule.hits
        assert reading.ids == expected
        assert hits < 100

    def test_full_disk(
        self, api_server: APIServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A full disk is logged and retried. No event is lost."""
        put(api_server, "before")
        (stream,) = source(api_server, backlog=200).open()
        expected = [record.id for chunk in [next(stream.read(None))] for record in chunk.records]
        expected += put(api_server, "a", "b", "c")
        made = tempfile.TemporaryFile
        answers = [OSError(28, "No space left on device"), OSError(28, "No space left on device"), None]

        def sometimes(**options: Any) -> Any:
            if error := answers.pop(0):
                raise error
            return made(**options)

        monkeypatch.setattr(tempfile, "TemporaryFile", sometimes)
        (stream,) = source(api_server, backlog=200).open()
        with caplog.at_level(logging.WARNING, "kevents"), Reading(stream) as reading:
            reading.wait_listed()
        assert (reading.ids, answers) == (expected, [])
        assert "No space left on device" in caplog.text

    def test_no_numbers(self, api_server: APIServer) -> None:
        """ResourceVersions that are no numbers are supported. No event is delivered twice."""
        items = [{"metadata": {"namespace": "n", "name": name, "resourceVersion": f"v{name}"}} for name in "ba"]
        body = json.dumps({"metadata": {"resourceVersion": "v1"}, "items": items}).encode()
        told = [{"type": "ADDED", "object": {"metadata": {**items[0]["metadata"], "resourceVersion": "vx"}}}]
        lines = b"".join(json.dumps(line).encode() + b"\n" for line in told)
        api_server.fail(Garbage(body, after_processing=False), when=is_list)
        api_server.fail(Garbage(lines, after_processing=False), times=1, when=is_watch)
        api_server.fail(Status(410), times=1, when=is_watch)
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait(lambda: stream.statistics().lists == 2)
            reading.wait(lambda: stream.statistics().old >= 1)
        assert reading.ids[:3] == ["n/b:vb", "n/a:va", "n/b:vx"]
        assert len(set(reading.ids[:3])) == 3


class TestStop:
    """Stopping a stream."""

    def test_waiting_watch(self, api_server: APIServer) -> None:
        """Stopping ends a waiting watch immediately."""
        (stream,) = source(api_server).open()
        with Reading(stream) as reading:
            reading.wait_listed()
            api_server.wait_for(lambda: [found for found in api_server.requests if is_watch(found) and found.status])

    def test_waiting_retry(self, api_server: APIServer) -> None:
        """Stopping ends a retry delay immediately."""
        (stream,) = source(api_server, retry=(1e6, 1e6)).open()
        api_server.fail(500)
        with Reading(stream):
            api_server.wait_for(lambda: [found for found in api_server.requests if found.status == 500])

    def test_in_a_list(self, api_server: APIServer) -> None:
        """A list that is stopped midway saves no position, so the rest is delivered after a restart."""
        expected = put(api_server, *"abcde")
        (stream,) = source(api_server, page=2).open()
        chunks = stream.read(None)
        first = next(chunks)
        stream.stop()
        assert list(chunks) == []
        (stream,) = source(api_server, page=2).open()
        with Reading(stream, first.position) as rest:
            rest.wait_listed()
        assert [*(record.id for record in first.records), *rest.ids] == expected

    @pytest.mark.parametrize("start", ["resume", "now"])
    def test_before_the_beginning(self, api_server: APIServer, start: Any) -> None:
        """A stream that was stopped before reading yields nothing. Stopping twice is harmless."""
        (stream,) = source(api_server, start=start).open()
        stream.stop()
        stream.stop()
        assert list(stream.read(None)) == []

    def test_abandoned(self, api_server: APIServer) -> None:
        """Abandoning the iterator leaves no open connection."""
        (stream,) = source(api_server).open()
        chunks = stream.read(None)
        next(chunks)
        put(api_server, "a")
        next(chunks)
        chunks.close()


class TestOpen:
    """The cluster's identity."""

    def test_uid(self, api_server: APIServer) -> None:
        """A cluster is identified by the UID of kube-system."""
        (stream,) = source(api_server).open()
        metadata = [found["metadata"] for found in api_server.objects("v1", "namespaces")]
        assert stream.stream.cluster in [found["uid"] for found in metadata if found["name"] == "kube-system"]

    def test_given(self, api_server: APIServer) -> None:
        """A configured cluster name needs no request."""
        (stream,) = source(api_server, cluster="mine").open()
        assert (stream.stream.cluster, api_server.requests) == ("mine", ())

    def test_reach(self, api_server: APIServer) -> None:
        """`reach` checks the permission to list events in each namespace."""
        source(api_server, namespaces=["a", "b"]).reach()
        found = [(request.path.split("/")[-2:], request.query["limit"]) for request in api_server.requests]
        assert found == [(["a", "events"], "1"), (["b", "events"], "1")]
        api_server.add_user("t", "nobody", {"get"})
        with pytest.raises(StatusError, match=r'403 .* a role must allow "list" and "watch" of "events"$'):
            source(api_server, token="t").reach()

    def test_forbidden(self, api_server: APIServer) -> None:
        """The error of a 403 names the missing permission."""
        api_server.add_user("t", "exporter", {"list", "watch"})
        with pytest.raises(StatusError, match=r'403 .* a role must allow "get" of "namespaces" named "kube-system"'):
            source(api_server, token="t").open()

    def test_unreachable(self) -> None:
        """An unreachable server raises an error."""
        server = APIServer(port=1)
        with pytest.raises(UnavailableError, match="refused"):
            source(server).open()

    def test_patience(self, api_server: APIServer) -> None:
        """`patience` retries a server that is still starting."""
        api_server.fail(403, times=2)
        assert len(source(api_server, patience=20.0).open()) == 1

    @pytest.mark.parametrize("body", [b"{}", b"<html>", b'{"metadata":{}}'])
    def test_no_api_server(self, api_server: APIServer, body: bytes) -> None:
        """A server that is no API server is reported as such."""
        api_server.fail(Garbage(body, after_processing=False))
        with pytest.raises(UnavailableError, match=r"not from an API server|no uid"):
            source(api_server).open()

    def test_no_configuration(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        """Without a Kubernetes configuration, `open` fails immediately in spite of `patience`."""
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(UnavailableError, match="no Kubernetes configuration"):
            ClusterEventSource(patience=1000.0).open()

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"start": "later"}, "start must be 'resume', 'now' or 'all', not 'later'"),
            ({"repeats": "twice"}, 'repeats must be "all", "first" or a window'),
            ({"repeats": "10m", "event_life": 1000}, "half of event_life, 500 s, not"),
            ({"namespaces": "default"}, r"namespaces must be a list of names, not a text: \['default'\]"),
            ({"namespaces": [""]}, 'namespaces: "" is no name of a namespace: leave it out for all namespaces'),
            ({"namespaces": ["*"]}, r'namespaces: "\*" is no name'),
            ({"namespaces": ["Shop"]}, 'namespaces: "Shop" is no name of a namespace; did you mean "shop"'),
            ({"namespaces": [".."]}, r'namespaces: "\.\." is no name'),
            ({"namespaces": ["a", 7]}, "namespaces must be names, not 7"),
            ({"event_life": 0}, "event_life must be"),
            ({"page": 0}, "page must be"),
            ({"retry": (0, 1)}, "retry must be"),
        ],
        ids=str,
    )
    def test_options(self, api_server: APIServer, options: Any, text: str) -> None:
        """The error of an invalid option names the option and the accepted values."""
        with pytest.raises(ValueError, match=text):
            source(api_server, **options)

    def test_no_client(self) -> None:
        """An object that is no client is refused by the constructor."""
        with pytest.raises(TypeError, match="api must be"):
            ClusterEventSource(7)

    def test_client(self, api_server: APIServer) -> None:
        """A client and a callable are accepted."""
        made = client(api_server)
        for given in (made, lambda: made):
            assert len(ClusterEventSource(given).open()) == 1


def test_event_helper() -> None:
    """The events of these tests have no uid: the server assigns it."""
    assert "uid" not in event("a")["metadata"]
