"""The correlator's decisions beyond the traces of ``test_parity``."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Any

import pytest

from kevents._correlation.correlator import (
    NANO,
    CoreDecider,
    EventAggregator,
    EventCorrelator,
    EventSourceObjectSpamFilter,
)
from kevents._correlation.options import CorrelatorOptions, spam_key_by_object_and_reason
from kevents._model.objects import Event, EventSource, ObjectReference

POD = ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u1")
SOURCE = EventSource("kubelet", "node-1")


def event(message: str = "m", serial: int = 1, reference: ObjectReference = POD, **fields: Any) -> Event:
    """An event about the pod."""
    given = {"type": "Normal", "reason": "Started", "source": SOURCE, "time": serial * NANO, **fields}
    return Event(reference=reference, message=message, serial=serial, **given)


class World:
    """A correlator with a stopped clock, and the writes it decided on."""

    def __init__(self, **options: Any) -> None:
        self.now = 0
        self.correlator = EventCorrelator(CorrelatorOptions(**options, clock=lambda: self.now))
        self.did: Counter[str] = Counter()
        self.counts: dict[str, int] = {}
        self.messages: list[str] = []
        self.serial = 0

    def record(self, message: str = "m", **fields: Any) -> Event | None:
        """Record an event. Returns the event to write, if any."""
        self.serial += 1
        result = self.correlator.event_correlate(event(message, self.serial, **fields))
        self.did["skip" if result.skip else "create" if result.patch is None else "patch"] += 1
        if result.event is not None:
            self.counts[result.event.name] = result.event.count
            self.messages.append(result.event.message)
        return result.event

    @property
    def writes(self) -> tuple[int, int, int]:
        """The numbers of creates, patches and skips."""
        return self.did["create"], self.did["patch"], self.did["skip"]


class TestGoldenNumbers:
    """Two well-known results of client-go's defaults."""

    def test_different(self) -> None:
        """Pitfall 49: 60 different messages are 9 creates, 1 aggregate, 15 patches, 35 skips. Its count is 16."""
        world = World()
        for number in range(60):
            world.record(f"message {number}")
        assert world.writes == (10, 15, 35)
        assert list(world.counts.values()) == [1] * 9 + [16]
        assert world.correlator.aggregated == 51

    def test_identical(self) -> None:
        """Pitfall 49: 60 identical events are 1 create, 24 patches, 35 skips. The next patch carries the count 61."""
        world = World()
        for _ in range(60):
            world.record()
        assert world.writes == (1, 24, 35)
        assert list(world.counts.values()) == [25]
        world.now = 300 * NANO
        world.record()
        assert list(world.counts.values()) == [61]


# 12 messages about one object and reason in turn, 5 times each, with a stopped clock: creates, patches, and the final
# counts on the server (an aggregate comes last). The docs have the same table.
RECIPES: dict[str, tuple[dict[str, Any], int, int, list[int]]] = {
    "client-go's defaults": ({}, 10, 15, [3, *[2] * 8, 6]),
    "count identical events, never combine": ({"max_events": None}, 12, 13, [3, *[2] * 11]),
    "one row, always the latest message": (
        {"max_events": 1, "message_func": lambda event: event.message},
        1,
        24,
        [25],
    ),
    "every call its own event": ({"max_events": None, "count_identical": False}, 25, 0, [1] * 25),
    "no rate limit": ({"burst_size": None}, 10, 50, [*[5] * 9, 15]),
    "a budget for each reason": ({"spam_key_func": spam_key_by_object_and_reason}, 10, 15, [3, *[2] * 8, 6]),
}


class TestRecipes:
    """Options decide which events count as the same."""

    @pytest.mark.parametrize("wish", RECIPES)
    def test_table(self, wish: str) -> None:
        """Each recipe makes the creates, patches and final counts of the documented table."""
        options, creates, patches, counts = RECIPES[wish]
        world = World(**options)
        for _ in range(5):
            for number in range(12):
                world.record(f"message {number}")
        assert (*world.writes, list(world.counts.values())) == (creates, patches, 60 - creates - patches, counts)

    def test_latest_message(self) -> None:
        """One row per object, type and reason shows the latest message."""
        world = World(max_events=1, message_func=lambda event: event.message)
        for message in ("first", "second", "third"):
            world.record(message)
        assert world.messages == ["first", "second", "third"]
        assert list(world.counts.values()) == [3]

    def test_budget_for_each_reason(self) -> None:
        """Pitfall 50: 25 noisy events use up the budget of an important one, unless each reason has its own budget."""
        for options, expected in (({}, None), ({"spam_key_func": spam_key_by_object_and_reason}, "OOMKilled")):
            world = World(**options)
            for _ in range(25):
                world.record("noise", reason="Noisy")
            important = world.record("important", reason="OOMKilled")
            assert (important and important.reason) == expected


class TestSame:
    """Which events share a row."""

    @staticmethod
    def rows(*references: ObjectReference) -> int:
        """The number of rows for the same event about these objects."""
        world = World()
        for reference in references:
            world.record(reference=reference)
        return len(world.counts)

    def test_resource_version(self) -> None:
        """Pitfall 53: an object that changes each time still has one row whose count grows."""
        world = World()
        for version in range(20):
            world.record(reference=ObjectReference(kind="Pod", name="a", uid="u", resource_version=str(version)))
        assert list(world.counts.values()) == [20]

    def test_no_separator(self) -> None:
        """Pitfall 54: namespace "a" with name "bc" is another object than namespace "ab" with name "c"."""
        assert (
            self.rows(
                ObjectReference(kind="Pod", namespace="a", name="bc"),
                ObjectReference(kind="Pod", namespace="ab", name="c"),
            )
            == 2
        )

    def test_recreated(self) -> None:
        """Pitfall 55: an object recreated under the same name, with a new uid, has its own rows."""
        assert (
            self.rows(ObjectReference(kind="Pod", name="a", uid="1"), ObjectReference(kind="Pod", name="a", uid="2"))
            == 2
        )

    def test_part(self) -> None:
        """Two containers of a pod are two rows, with one budget and one aggregate."""
        parts = [ObjectReference(kind="Pod", name="a", uid="1", field_path=f"spec.containers{{{n}}}") for n in "ab"]
        assert self.rows(*parts) == 2
        world = World()
        for number in range(40):
            world.record("m", reference=parts[number % 2])
        assert world.did["skip"] == 15

    @pytest.mark.parametrize("field", ["type", "reason", "message", "source"])
    def test_fields(self, field: str) -> None:
        """Events that differ in type, reason, message or source have different rows."""
        world = World()
        other = {"type": "Warning", "reason": "Other", "message": "other", "source": EventSource("other")}[field]
        world.record()
        world.record(**{field: other})  # type: ignore[arg-type]
        assert list(world.counts.values()) == [1, 1]

    def test_wall_clock_going_back(self) -> None:
        """Pitfalls 24, 52: an event's last time is never before its first time."""
        world = World()
        written = [world.record(time=time * NANO) for time in (50, 40, 60)]
        assert [(each.first_time // NANO, each.time // NANO) for each in written if each is not None] == [
            (50, 50),
            (50, 50),
            (50, 60),
        ]


class TestAggregate:
    """Events that differ only in their message are combined."""

    def test_window(self) -> None:
        """Pitfall 51: an aggregate continues after 600 s of silence. One nanosecond later it starts anew."""
        for late, expected in ((0, "(combined from similar events): m10"), (1, "m10")):
            world = World(burst_size=None)
            for number in range(10):
                world.record(f"m{number}")
            world.now = 600 * NANO + late
            world.record("m10")
            assert world.messages[-1] == expected

    def test_clock_going_back(self) -> None:
        """Pitfall 52: a clock that goes back by hours neither opens nor freezes an aggregation window."""
        world = World(burst_size=None)
        world.now = 10_000 * NANO
        for number in range(9):
            world.record(f"m{number}")
        world.now = 0
        world.record("m9")
        world.now = 601 * NANO
        world.record("m10")
        assert world.messages[-2:] == ["(combined from similar events): m9", "m10"]

    def test_carries(self) -> None:
        """Pitfall 56: an aggregate carries annotations, labels, name and times of the occurrence that creates it."""
        world = World(max_events=1)
        recorded = event("m", 7, annotations={"a": "1"}, labels={"l": "2"})
        aggregate = world.correlator.event_correlate(recorded).event
        assert aggregate is not None
        body = aggregate.to_dict()
        assert body == {**recorded.to_dict(), "message": "(combined from similar events): m"}
        assert (body["reportingComponent"], body["reportingInstance"]) == ("kubelet", "node-1")

    def test_known_messages_pass(self) -> None:
        """The first nine messages keep their own rows after others were combined."""
        world = World(burst_size=None)
        for number in (*range(12), 0, 8):
            world.record(f"m{number}")
        assert world.messages[-2:] == ["m0", "m8"]

    def test_alone(self) -> None:
        """The aggregator can be used alone, as in client-go."""
        aggregator = EventAggregator(CorrelatorOptions(max_events=2))
        first, key = aggregator.event_aggregate(event("a"))
        second, other = aggregator.event_aggregate(event("b"))
        assert (first.message, second.message) == ("a", "(combined from similar events): b")
        assert key != other


class TestFilter:
    """The rate limit of each object."""

    def test_refill(self) -> None:
        """Pitfall 51: after 300 s one more event passes."""
        world = World(burst_size=1)
        world.record()
        for now, skips in ((300 * NANO - 1, 1), (300 * NANO, 1), (300 * NANO, 2)):
            world.now = now
            world.record()
            assert world.did["skip"] == skips

    def test_first_filtered(self) -> None:
        """Pitfall 60: if an event's first occurrence was filtered, the next one that passes has the whole count."""
        world = World(burst_size=1)
        world.record("noise")
        world.record("late")
        world.now = 300 * NANO
        written = world.record("late")
        assert written is not None
        assert (written.count, written.message) == (2, "late")

    def test_types_have_their_own(self) -> None:
        """Normal events do not use up the budget of warnings."""
        world = World(burst_size=1)
        world.record(type="Normal")
        assert world.record(type="Warning") is not None

    def test_alone(self) -> None:
        """The filter can be used alone: True means skip."""
        spam_filter = EventSourceObjectSpamFilter(CorrelatorOptions(burst_size=1, clock=lambda: 0))
        assert [spam_filter.filter(event()), spam_filter.filter(event())] == [False, True]


class Late:
    """A decider with a rate limit of one event, and one clock for both of its times."""

    def __init__(self, **options: Any) -> None:
        self.seconds = 0.0
        given = {"burst_size": 1, "clock": lambda: round(self.seconds * NANO), **options}
        self.decider = CoreDecider(CorrelatorOptions(**given), None)
        self.serial = 0

    def record(self, message: str = "m", **fields: Any) -> tuple[int, bool, float | None] | None:
        """Record an event. Returns count, catch_up flag and due time of the write, or None."""
        self.serial += 1
        write = self.decider.decide(event(message, self.serial, **fields), self.seconds)
        if write is None:
            return None
        assert isinstance(write.state, Event)
        return write.state.count, write.catch_up, write.due


class TestCatchUp:
    """The counts of rate-limited events are written later."""

    def test_when_there_is_a_token(self) -> None:
        """Each rate-limited occurrence raises the pending count, but keeps the due time: that of the next token."""
        late = Late()
        assert late.record() == (1, False, None)
        for count, seconds in ((2, 0.0), (3, 10.0), (4, 299.0)):
            late.seconds = seconds
            assert late.record() == (count, True, 300.0)

    def test_switched_off(self) -> None:
        """With `catch_up=False` nothing is written, as in client-go."""
        late = Late(catch_up=False)
        assert [late.record(), late.record()] == [(1, False, None), None]

    def test_it_takes_no_token_from_events(self) -> None:
        """A catch-up takes no token from events: they are written as in client-go, and delay the next catch-up."""
        late = Late()
        late.record()
        assert late.record() == (2, True, 300.0)
        late.seconds = 310.0
        assert late.record() == (3, False, None)
        assert late.record() == (4, True, 900.0)

    def test_an_event_supersedes_it(self) -> None:
        """A write of the event before its catch-up is due carries the count, and returns the token."""
        late = Late(burst_size=2)
        late.record()
        late.record("other")
        assert [late.record("other"), late.record()] == [(2, True, 300.0), (2, True, 600.0)]
        late.seconds = 300.0
        assert late.record() == (3, False, None)
        assert late.record() == (4, True, 900.0)

    def test_one_for_a_token(self) -> None:
        """Several events about one object take turns: one catch-up per token."""
        late = Late(burst_size=3)
        for message in "abc":
            late.record(message)
        assert [late.record(message) for message in "abc"] == [
            (2, True, 300.0), (2, True, 600.0), (2, True, 900.0)
        ]  # fmt: skip

    def test_quiet_time_pays_it_back(self) -> None:
        """Once the bucket is full again, earlier catch-ups no longer delay later ones."""
        late = Late()
        late.record()
        assert late.record() == (2, True, 300.0)
        late.seconds = 900.0
        assert late.record() == (3, False, None)
        assert late.record() == (4, True, 1200.0)

    def test_never_written(self) -> None:
        """An event whose first occurrence was filtered has no catch-up, because it has no API object to patch."""
        late = Late()
        late.record("noise")
        assert [late.record("late"), late.record("late")] == [None, None]

    def test_no_counts(self) -> None:
        """Without counts there is nothing to catch up."""
        late = Late(count_identical=False)
        assert [late.record(), late.record()] == [(1, False, None), None]

    def test_combined(self) -> None:
        """A combined event is caught up with its count and its latest message."""
        late = Late(burst_size=10)
        for number in range(10):
            late.record(f"number {number}")
        assert late.record("number 10") == (2, True, 300.0)
        write = late.decider.decide(event("number 11", 12), 0.0)
        assert write is not None
        assert isinstance(write.state, Event)
        assert (write.state.count, write.state.message) == (3, "(combined from similar events): number 11")

    def test_own_keys(self) -> None:
        """Catch-up works with a custom spam key."""
        late = Late(spam_key_func=lambda event: event.message)
        assert [late.record("a"), late.record("a"), late.record("b")] == [
            (1, False, None), (2, True, 300.0), (1, False, None)
        ]  # fmt: skip

    def test_forgotten(self) -> None:
        """An evicted event with a pending catch-up is due immediately. One already caught up is not."""
        for seconds, overdue in ((0.0, 1), (300.0, 0)):
            late = Late(lru_cache_size=1)
            late.record()
            write = late.decider.decide(event("m", 2), 0.0)
            assert write is not None
            late.seconds = seconds
            late.record("other", reference=ObjectReference(kind="Node", name="n"))
            keys = late.decider.overdue()
            assert list(keys) == [(write.state.namespace, write.state.name)] * overdue
            assert list(late.decider.overdue()) == []

    def test_a_clock_that_stands_still(self) -> None:
        """With a stopped wall clock, each catch-up needs another token in monotonic time."""
        late = Late(clock=lambda: 0)
        late.record()
        dues = []
        for seconds in (0.0, 299.0, 300.0, 301.0, 1000.0):
            late.seconds = seconds
            dues.append(late.record())
        assert [due for _, _, due in filter(None, dues)] == [300.0, 300.0, 900.0, 900.0, 1900.0]


def raises(_: Event) -> Any:
    """A user's function that raises."""
    raise RuntimeError("user")


class TestUserFunctions:
    """Pitfall 58: if a user's function fails or returns nonsense, the default replaces it for that event."""

    @pytest.mark.parametrize(
        "function",
        [
            raises,
            lambda _: None,
            lambda _: "ab",
            lambda _: ["a", "b"],
            lambda _: ("a",),
            lambda _: ("a", "b", "c"),
            lambda _: ([], "b"),
            lambda _: ("a", {}),
            lambda: ("a", "b"),
        ],
    )
    def test_key_func(self, function: Any) -> None:
        """For keys that are not a pair of hashables the default combines, and each event is counted once."""
        world = World(key_func=function)
        for number in range(10):
            world.record(f"m{number}")
        assert (world.did["create"], world.correlator.fallbacks) == (10, 10)
        assert world.messages[-1] == "(combined from similar events): m9"

    @pytest.mark.parametrize("function", [raises, lambda _: None, lambda _: b"x", lambda _: 5, lambda: "x"])
    def test_message_func(self, function: Any) -> None:
        """A message that is not a string is replaced by the default's, and counted once for each combined event."""
        world = World(max_events=1, message_func=function)
        world.record("a")
        world.record("b")
        assert world.messages == ["(combined from similar events): a", "(combined from similar events): b"]
        assert world.correlator.fallbacks == 2

    @pytest.mark.parametrize("function", [raises, lambda _: None, lambda _: [], lambda _: ("a", []), lambda: "x"])
    def test_spam_key_func(self, function: Any) -> None:
        """For an unhashable spam key the default applies, and each event is counted once."""
        world = World(spam_key_func=function)
        for _ in range(30):
            world.record()
        assert (world.did["skip"], world.correlator.fallbacks) == (5, 30)

    @pytest.mark.parametrize("clock", [lambda: 1 // 0, lambda: None, lambda: 1.5, lambda _: 5])
    def test_clock(self, clock: Any) -> None:
        """A clock that returns no nanoseconds is replaced by the system's, and counted once for each reading."""
        options = CorrelatorOptions(clock=clock)
        correlator = EventCorrelator(options)
        written = [correlator.event_correlate(event(serial=serial)).event for serial in (1, 2, 3)]
        assert [each.count for each in written if each is not None] == [1, 2, 3]
        assert correlator.fallbacks == 3
        assert not EventSourceObjectSpamFilter(options).filter(event())
        assert EventAggregator(options).event_aggregate(event())[0].message == "m"

    def test_only_that_event(self) -> None:
        """Only the events on which a function fails fall back to the default."""
        world = World(burst_size=1, spam_key_func=lambda event: {"good": "key"}[event.message])
        for message in ("good", "bad", "good"):
            world.record(message)
        assert (world.did["create"], world.did["skip"], world.correlator.fallbacks) == (2, 1, 1)

    def test_all_of_them(self) -> None:
        """Each failing function is counted separately."""
        world = World(max_events=1, key_func=raises, message_func=raises, spam_key_func=raises)
        world.record()
        assert (world.correlator.fallbacks, world.did["create"]) == (3, 1)

    def test_own_keys(self) -> None:
        """Keys may be any hashable values."""
        world = World(max_events=2, burst_size=None, key_func=lambda event: (event.reason, len(event.message)))
        for message in ("aa", "bb", "ccc"):
            world.record(message)
        assert world.messages == ["aa", "bb", "(combined from similar events): ccc"]
        assert world.correlator.fallbacks == 0

    def test_spam_key_sees_the_write(self) -> None:
        """A custom spam key function sees the event to be written: the count so far, the combined message."""
        seen: list[tuple[int, str]] = []
        world = World(max_events=2, spam_key_func=lambda event: seen.append((event.count, event.message)) or "key")
        for message in ("a", "a", "b"):
            world.record(message)
        assert seen == [(1, "a"), (2, "a"), (1, "(combined from similar events): b")]


class TestMemory:
    """Each cache is bounded, and counts its evictions."""

    def test_evictions(self) -> None:
        """Pitfall 57: with more live keys than places the oldest are evicted, counted, and start anew."""
        world = World(lru_cache_size=3)
        pods = [ObjectReference(kind="Pod", name=f"p{number}") for number in range(5)]
        for pod in (*pods, pods[0], pods[4]):
            world.record(reference=pod)
        assert world.correlator.caches == {"aggregate": (3, 3), "observe": (3, 3), "filter": (3, 3)}
        assert (world.did["create"], world.did["patch"]) == (6, 1)

    def test_update_state(self) -> None:
        """`update_state` stores count, name and first time of a server's answer."""
        correlator = EventCorrelator()
        correlator.update_state(event(serial=1, count=41, name="known", first_time=0))
        result = correlator.event_correlate(event(serial=9)).event
        assert result is not None
        assert (result.count, result.name, result.first_time, result.time) == (42, "known", 0, 9 * NANO)

    def test_result(self) -> None:
        """A result has the event and its patch, or is a skip."""
        correlator = EventCorrelator(CorrelatorOptions(burst_size=2))
        create, patch, skip = (correlator.event_correlate(event(serial=serial)) for serial in (1, 2, 3))
        assert (create.event is not None, create.patch, create.skip) == (True, None, False)
        assert patch.patch == {"count": 2, "lastTimestamp": "1970-01-01T00:00:02Z", "message": "m"}
        assert (skip.event, skip.patch, skip.skip) == (None, None, True)

    def test_events_do_not_change(self) -> None:
        """A recorded event, which other watchers share, is never changed."""
        correlator = EventCorrelator()
        recorded = [event(serial=serial) for serial in (1, 2)]
        for one in recorded:
            correlator.event_correlate(one)
        assert [(one.count, one.name) for one in recorded] == [(1, "web-0.1"), (1, "web-0.2")]


def test_long_texts_are_not_kept() -> None:
    """The caches hold digests of long texts, and distinguish them."""
    correlator = EventCorrelator(CorrelatorOptions(burst_size=None, max_events=3))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    writes = []
    for number in range(200):
        text = f"{number % 100:05d}" * 20_000
        event = Event(POD, "Normal", f"R{number % 100}", text, EventSource(), 1, number)
        writes.append(correlator.event_correlate(event).event)
        counts = [write.count for write in writes if write is not None]
        writes = [None]
        if number >= 100:
            assert counts == [2]
    del event, text
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 1_000_000, "100 messages of 100 kB are 10 MB"


def test_messages_are_cut_before_they_are_compared() -> None:
    """Messages that are equal up to `max_message_bytes` are the same event, and are counted."""
    decider = CoreDecider(None, 20)
    texts = ["x" * 100 + "1", "x" * 100 + "2"]
    writes = [decider.decide(Event(POD, "Normal", "R", text, EventSource(), 1, 1), 0.0) for text in texts]
    assert [(write.state.message, write.state.count) for write in writes if write] == [
        ("x" * 17 + "...", 1),
        ("x" * 17 + "...", 2),
    ]
