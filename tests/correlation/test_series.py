"""The writes for repeated events of events.k8s.io, and their times."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kevents._correlation.series import SeriesDecider, SeriesOptions, key_with_note, key_without_note
from kevents._model.objects import Event, EventSource, ObjectReference, SeriesEvent
from kevents._model.wire import format_micro_time, is_qualified_name, parse_time
from tests.support.series import NANO, POD, START, World, series_event

NODE = ObjectReference(kind="Node", api_version="v1", name="node-1", uid="n")
CREATE, PATCH = "create", "patch"


def pod(**fields: str) -> ObjectReference:
    """The pod, with the given fields changed."""
    given = {"kind": "Pod", "api_version": "v1", "namespace": "prod", "name": "web-0", "uid": "u-1"}
    return ObjectReference(**{**given, **fields})


class TestWhen:
    """A series starts with its first event, and its count is written rarely."""

    def test_first_and_second_at_once(self) -> None:
        """The first occurrence is created and the second patched, both immediately."""
        world = World()
        world.record()
        world.advance(10)
        world.record()
        assert world.writes == [(0, CREATE, 1), (10, PATCH, 2)]
        assert world.requests[1].body == {"series": {"count": 2, "lastObservedTime": "2026-07-24T09:00:10.123456Z"}}

    def test_a_burst_is_one_create(self) -> None:
        """Occurrences that arrive before the create is sent are included in it."""
        world = World()
        world.record_batch([{}] * 100)
        assert world.writes == [(0, CREATE, 100)]
        assert world.queue.delivered == 100

    def test_later_ones_wait(self) -> None:
        """From the third occurrence on, the count grows in memory only."""
        world = World()
        for _ in range(50):
            world.record()
            world.advance(2)
        assert world.writes == [(0, CREATE, 1), (2, PATCH, 2)]
        assert world.queue.events == 48

    def test_refreshed_every_half_hour(self) -> None:
        """A continuing series is patched with its current count every 30 minutes."""
        world = World()
        for _ in range(140):
            world.record()
            world.advance(60)
        patches = [(60, PATCH, 2), (1860, PATCH, 31), (3660, PATCH, 61), (5460, PATCH, 91), (7260, PATCH, 121)]
        assert [write for write in world.writes if write[0] < 8000] == [(0, CREATE, 1), *patches]

    def test_ends_after_six_minutes(self) -> None:
        """Six minutes after the last occurrence the final count is patched, with the time of that occurrence."""
        world = World()
        for _ in range(5):
            world.record()
            world.advance(100)
        world.advance(10_000)
        assert world.writes == [(0, CREATE, 1), (100, PATCH, 2), (760, PATCH, 5)]
        assert world.requests[-1].body["series"]["lastObservedTime"] == "2026-07-24T09:06:40.123456Z"
        assert world.queue.keys == 0

    def test_each_occurrence_moves_the_end(self) -> None:
        """A series continues as long as its pauses are shorter than six minutes."""
        world = World()
        for _ in range(4):
            world.record()
            world.advance(359)
        assert world.writes == [(0, CREATE, 1), (359, PATCH, 2)]

    def test_silence_forgets(self) -> None:
        """An identity that was silent for six minutes starts a new series with a new name."""
        world = World()
        world.record()
        world.advance(360)
        world.record()
        assert world.writes == [(0, CREATE, 1), (360, CREATE, 1)]
        assert len({request.name for request in world.requests}) == 2

    def test_starts_anew_beside_its_final_count(self) -> None:
        """An identity that recurs at the very end of its series does not lose the final count."""
        world = World()
        for _ in range(3):
            world.record()
        world.now = 360.0
        world.record()
        first, second = world.requests[0].name, world.requests[-1].name
        assert {(r.verb, r.name, r.count) for r in world.requests[2:]} == {(PATCH, first, 3), (CREATE, second, 1)}

    def test_shorter_interval(self) -> None:
        """A growing count is written at most once per `series_interval`."""
        world = World(series_interval=10.0)
        for _ in range(40):
            world.record()
            world.advance(1)
        assert world.writes == [(0, CREATE, 1), (1, PATCH, 2), (11, PATCH, 11), (21, PATCH, 21), (31, PATCH, 31)]

    def test_after_a_quiet_interval_at_once(self) -> None:
        """An occurrence after a quiet interval is written immediately."""
        world = World(series_interval=10.0)
        for moment in (0, 1, 2, 30, 31, 100):
            world.advance(moment - world.now)
            world.record()
        expected = [(0, CREATE, 1), (1, PATCH, 2), (11, PATCH, 3), (30, PATCH, 4), (40, PATCH, 5), (100, PATCH, 6)]
        assert world.writes == expected

    def test_flush_writes_the_count(self) -> None:
        """A flush writes all current counts. Later occurrences wait again."""
        world = World()
        for _ in range(7):
            world.record()
        world.flush()
        world.record()
        assert world.writes == [(0, CREATE, 1), (0, PATCH, 2), (0, PATCH, 7)]
        world.advance(360)
        assert world.writes[-1] == (360, PATCH, 8)

    def test_eviction_writes_the_count(self) -> None:
        """An evicted identity has its current count written immediately."""
        world = World(lru_cache_size=2)
        for reason in "AAAABC":
            world.record(reason=reason)
        assert [w[1:] for w in world.writes] == [(CREATE, 1), (PATCH, 2), (CREATE, 1), (CREATE, 1), (PATCH, 4)]
        world.record(reason="A")
        assert world.writes[-1] == (0, CREATE, 1), "it starts anew"

    def test_eviction_in_one_batch(self) -> None:
        """An eviction in the same batch as the occurrences still writes all of them."""
        world = World(lru_cache_size=1)
        world.record(reason="A")
        world.record(reason="A")
        world.record_batch([{"reason": "A"}] * 3 + [{"reason": "B"}])
        assert {(body["reason"], body.get("series", {}).get("count", 1)) for body in world.stored.values()} == {
            ("A", 5),
            ("B", 1),
        }

    def test_bounded(self) -> None:
        """The number of remembered identities is bounded, and evictions are counted."""
        world = World(lru_cache_size=16)
        for number in range(100):
            world.record(reason=f"R{number}")
        assert world.decider.caches == {"series": (16, 84)}
        assert len(world.stored) == 100

    def test_waiting_takes_no_room(self) -> None:
        """Series that wait for their due time do not count against the backlog."""
        world = World(backlog=1)
        for number in range(10):
            for _ in range(3):
                world.record(reason=f"R{number}")
        assert (world.queue.keys, world.queue.events, world.queue.dropped) == (10, 10, {})

    def test_gone_is_created_with_its_series(self) -> None:
        """Pitfall 36: a patch of an expired event becomes a create of the same name with the series."""
        world = World()
        world.record()
        world.stored.clear()
        world.advance(5)
        world.record(note="later")
        assert world.writes == [(0, CREATE, 1), (5, PATCH, 2), (5, CREATE, 2)]
        first, _, again = world.requests
        assert again.body == {**first.body, **world.requests[1].body}

    def test_nothing_to_patch_in_a_first_one(self) -> None:
        """The patch after a 409 is empty for a single occurrence, because the server refuses a series of one."""
        assert series_event().to_patch() == {"metadata": {}}

    @given(
        steps=st.lists(
            st.tuples(st.sampled_from("ABCD"), st.sampled_from([0.0, 1.0, 70.0, 359.0, 400.0])), max_size=60
        ),
        interval=st.sampled_from([0.5, 60.0, 1800.0]),
    )
    def test_counts_add_up(self, steps: list[tuple[str, float]], interval: float) -> None:
        """After a flush the stored counts of each reason add up to its occurrences, for any sequence of events."""
        world = World(lru_cache_size=2, series_interval=interval)
        for reason, pause in steps:
            world.record(reason=reason)
            world.advance(pause)
        world.flush()
        stored = [(body["reason"], body.get("series", {}).get("count", 1)) for body in world.stored.values()]
        recorded = [reason for reason, _ in steps]
        assert {r: sum(count for reason, count in stored if r == reason) for r in set(recorded)} == {
            r: recorded.count(r) for r in set(recorded)
        }
        assert world.queue.delivered == len(steps)


class TestIdentity:
    """Which events belong to the same series."""

    def series(self, *fields: dict[str, Any], **options: Any) -> int:
        """The number of series for events with these fields."""
        world = World(**options)
        for each in fields:
            world.record(**each)
        return len({request.name for request in world.requests})

    @pytest.mark.parametrize(
        "fields",
        [
            {"type": "Warning"},
            {"reason": "B"},
            {"action": "Y"},
            {"related": NODE},
            {"source": EventSource("other", "c-1")},
            {"source": EventSource("example.com/c", "c-2")},
            {"regarding": pod(uid="u-2")},
            {"regarding": pod(name="web-1")},
            {"regarding": pod(namespace="test")},
            {"regarding": pod(kind="Job", api_version="batch/v1")},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    def test_different(self, fields: dict[str, Any]) -> None:
        """Events with another type, reason, action, source, regarding or related object are another series."""
        assert self.series({}, fields) == 2

    @pytest.mark.parametrize(
        "fields",
        [
            {"note": "other"},
            {"regarding": pod(resource_version="8")},
            {"regarding": pod(field_path="spec.containers{app}")},
            {"annotations": {"a": "b"}},
            {"labels": {"a": "b"}},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    def test_same(self, fields: dict[str, Any]) -> None:
        """Note, the object's version and part, annotations and labels do not split a series."""
        assert self.series({}, fields) == 1

    def test_versions_of_related(self) -> None:
        """A new version of the related object does not split a series either."""
        newer = ObjectReference(kind="Node", api_version="v1", name="node-1", uid="n", resource_version="8")
        assert self.series({"related": NODE}, {"related": newer}) == 1

    def test_with_note(self) -> None:
        """`key_with_note` makes a series of each note."""
        assert self.series({}, {"note": "other"}, {}, key_func=key_with_note) == 2

    def test_series_is_its_first_event(self) -> None:
        """A series keeps all fields of its first event, except count and time."""
        world = World()
        world.record(note="one", regarding=pod(resource_version="1"), annotations={"a": "1"})
        world.stored.clear()
        world.record(note="two", regarding=pod(resource_version="2"), annotations={"a": "2"})
        (stored,) = world.stored.values()
        assert (
            stored["note"],
            stored["regarding"]["resourceVersion"],
            stored["metadata"]["annotations"],
        ) == ("one", "1", {"a": "1"})

    def test_own_key(self) -> None:
        """A custom `key_func` decides."""
        world = World(key_func=lambda event: event.reason)
        world.record()
        world.record(regarding=pod(name="web-1"))
        assert world.writes == [(0, CREATE, 1), (0, PATCH, 2)]
        assert world.decider.fallbacks == 0

    @pytest.mark.parametrize("key", [None, [], {"a": 1}, ({},)], ids=["None", "list", "dict", "tuple of a dict"])
    def test_no_key(self, key: object) -> None:
        """If `key_func` returns no valid key, the default decides for that event, and the fallback is counted."""
        world = World(key_func=lambda _: key)
        world.record()
        world.record()
        assert world.writes == [(0, CREATE, 1), (0, PATCH, 2)]
        assert world.decider.fallbacks == 2

    def test_failing_key(self) -> None:
        """If `key_func` raises, no event is lost: the default decides, and the fallback is counted."""

        def fail(event: SeriesEvent) -> str:
            raise RuntimeError(event.reason)

        world = World(key_func=fail)
        world.record()
        world.record()
        assert (world.writes, world.decider.fallbacks) == ([(0, CREATE, 1), (0, PATCH, 2)], 2)

    def test_counted_as_aggregated(self) -> None:
        """Each occurrence that joins a series is counted."""
        world = World()
        world.record_batch([{}] * 5 + [{"reason": "B"}])
        assert world.decider.aggregated == 4

    def test_foreign_event(self) -> None:
        """An event of core/v1 is refused."""
        event = Event(reference=POD, type="Normal", reason="R", message="m", source=EventSource(), time=1, serial=1)
        with pytest.raises(TypeError, match=r"not an event of events\.k8s\.io"):
            SeriesDecider(SeriesOptions()).decide(event, 0.0)


class TestBody:
    """The body in the form of the API."""

    def test_create(self) -> None:
        """The body has the names of events.k8s.io/v1, the time with six digits, no count and no source."""
        event = series_event(related=NODE, annotations={"a": "b"}, labels={"c": "d"})
        name = f"web-0.{START:x}"
        regarding = {"kind": "Pod", "apiVersion": "v1", "namespace": "prod", "name": "web-0", "uid": "u-1"}
        assert event.to_dict() == {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "prod", "annotations": {"a": "b"}, "labels": {"c": "d"}},
            "eventTime": "2026-07-24T09:00:00.123456Z",
            "reportingController": "example.com/c",
            "reportingInstance": "c-1",
            "action": "Pulling",
            "reason": "Pulled",
            "regarding": regarding,
            "related": {"kind": "Node", "apiVersion": "v1", "name": "node-1", "uid": "n"},
            "note": "n",
            "type": "Normal",
        }

    def test_series(self) -> None:
        """A series has a count of at least two and its last time, in creates and patches alike."""
        event = series_event().replace(count=3, time=START + 7 * NANO)
        series = {"count": 3, "lastObservedTime": "2026-07-24T09:00:07.123456Z"}
        assert (event.to_dict()["series"], event.to_dict()["eventTime"]) == (series, "2026-07-24T09:00:00.123456Z")
        assert event.to_patch() == {"series": series}

    def test_cluster_scoped(self) -> None:
        """Pitfall 32: an event about a cluster-scoped object is in `default`, and its reference has no namespace."""
        body = series_event(regarding=NODE).to_dict()
        assert (body["metadata"]["namespace"], body["regarding"].get("namespace")) == ("default", None)

    @pytest.mark.parametrize("texts", ["a\ud800b", "a\x00b\n", "🔥 世界"])
    def test_texts(self, texts: str) -> None:
        """Pitfall 28: every text becomes valid Unicode; a lone surrogate becomes the replacement character."""
        body = series_event(note=texts, reason=texts, action=texts).to_dict()
        expected = texts.replace("\ud800", "\ufffd")
        assert [body[name] for name in ("note", "reason", "action")] == [expected] * 3

    def test_clock_set_back(self) -> None:
        """Pitfall 24: an occurrence with a time before the first one gets the time of the first."""
        world = World()
        world.record()
        world.record(time=START - 5 * NANO)
        assert world.requests[1].body["series"]["lastObservedTime"] == "2026-07-24T09:00:00.123456Z"

    def test_names(self) -> None:
        """The fields that core/v1 calls reference, message and source have the names of events.k8s.io."""
        event = series_event()
        assert (
            event.regarding,
            event.note,
            event.reporting_controller,
            event.reporting_instance,
        ) == (POD, "n", "example.com/c", "c-1")

    def test_read_back(self) -> None:
        """A written event can be read back, to the microsecond."""
        event = series_event(related=NODE, annotations={"a": "b"}, labels={"c": "d"}).replace(
            count=3, time=START + NANO
        )
        again = SeriesEvent.from_dict(event.to_dict())
        assert again.to_dict() == event.to_dict()
        assert (
            again.count,
            again.time // 1000,
            again.first_time // 1000,
        ) == (3, event.time // 1000, event.first_time // 1000)

    @pytest.mark.parametrize(
        "body", [None, "an event", {"series": "x"}, {"series": {"count": [1]}}, {"related": "x"}, {"regarding": [1]}]
    )
    def test_read_nonsense(self, body: Any) -> None:
        """A body that is not an event is a ValueError, as in core/v1."""
        with pytest.raises(ValueError, match="not an Event object of the API"):
            SeriesEvent.from_dict(body)

    def test_read_core(self) -> None:
        """An event written through core/v1 can be read from events.k8s.io."""
        body = {
            "metadata": {"name": "x.1", "namespace": "prod"},
            "eventTime": None,
            "regarding": {"kind": "Pod", "name": "x", "namespace": "prod"},
            "note": "m",
            "deprecatedSource": {"component": "kubelet", "host": "node-1"},
            "deprecatedFirstTimestamp": "2026-07-24T09:00:00Z",
            "deprecatedLastTimestamp": "2026-07-24T09:00:09Z",
            "deprecatedCount": 4,
        }
        event = SeriesEvent.from_dict(body)
        moments = (parse_time("2026-07-24T09:00:00Z"), parse_time("2026-07-24T09:00:09Z"))
        assert (
            event.regarding.name,
            event.note,
            event.reporting_controller,
            event.reporting_instance,
            event.count,
            event.first_time,
            event.time,
        ) == ("x", "m", "kubelet", "node-1", 4, *moments)


class TestWire:
    """Times and names in the form that events.k8s.io requires."""

    @pytest.mark.parametrize(
        ("nanoseconds", "expected"),
        [
            (START, "2026-07-24T09:00:00.123456Z"),
            (START // NANO * NANO, "2026-07-24T09:00:00.000001Z"),
            (START // NANO * NANO + 999, "2026-07-24T09:00:00.000001Z"),
            (START // NANO * NANO + 120_000_000, "2026-07-24T09:00:00.120000Z"),
            (START // NANO * NANO + 999_999_999, "2026-07-24T09:00:00.999999Z"),
            (0, "1970-01-01T00:00:00.000001Z"),
        ],
    )
    def test_micro_time(self, nanoseconds: int, expected: str) -> None:
        """Pitfall 22: a time has six digits, and its microsecond is never 0."""
        assert format_micro_time(nanoseconds) == expected

    @pytest.mark.parametrize(
        "name",
        ["c", "C", "my.name_x-1", "9", "a" * 63, "example.com/c", "a/B", f"{'p.' * 126}p/{'n' * 63}"],
    )
    def test_qualified_name(self, name: str) -> None:
        """A qualified name is at most 63 letters, digits, `-`, `_` and `.`, optionally after a DNS name and a slash."""
        assert is_qualified_name(name)

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "a" * 64,
            "-a",
            "a-",
            ".a",
            "a b",
            "é",
            "a/b/c",
            "/a",
            "a/",
            "A/b",
            "a_b/c",
            f"{'p.' * 127}/b",
            "a\n",
            "a/b\n",
        ],
    )
    def test_no_qualified_name(self, name: str) -> None:
        """Pitfall 30: reporting controllers that the real server refuses are detected beforehand."""
        assert not is_qualified_name(name)


class TestOptions:
    """Invalid options are refused immediately."""

    def test_defaults(self) -> None:
        """The defaults are client-go's, plus a bound on the cache."""
        options = SeriesOptions()
        assert (
            options.series_interval,
            options.finish_after,
            options.lru_cache_size,
            options.key_func,
        ) == (1800.0, 360.0, 4096, key_without_note)

    @pytest.mark.parametrize("name", ["series_interval", "finish_after", "lru_cache_size"])
    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "10", None, True], ids=repr)
    def test_numbers(self, name: str, value: object) -> None:
        """A number must be finite and above 0."""
        with pytest.raises(ValueError, match=name):
            SeriesOptions(**{name: value})  # type: ignore[arg-type]

    def test_key_func(self) -> None:
        """`key_func` must be callable."""
        with pytest.raises(ValueError, match="key_func"):
            SeriesOptions(key_func="note")  # type: ignore[arg-type]
