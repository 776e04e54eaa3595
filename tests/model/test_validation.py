"""Invalid options raise immediately, and the error has their name and value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from kevents import CoreV1EventSink, EventBroadcaster, EventSource
from kevents._model.validation import require_callable, require_count, require_positive, require_sink
from kevents.testing import FakeRecorder
from tests.support.sinks import ScriptedSink

NO_COUNTS: list[Any] = [0, -1, 1.0, 1.5, True, False, None, "1", math.nan, math.inf, [1], Decimal(1)]
NO_NUMBERS: list[Any] = [
    0, 0.0, -0.0, -1, True, False, None, "1", math.nan, math.inf, -math.inf, 10**400, [1], Decimal(1), Fraction(1),
]  # fmt: skip


@pytest.mark.parametrize("value", NO_COUNTS, ids=repr)
def test_no_count(value: object) -> None:
    """Pitfall 59: a count is a whole number of at least 1."""
    with pytest.raises(ValueError, match=r"^n must be a whole number of at least 1, not .*; hint$"):
        require_count("n", value, "; hint")


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: repr(value)[:20])
def test_no_number(value: Any) -> None:
    """Pitfall 59: a number is finite, above 0, and within the range of nanoseconds."""
    with pytest.raises(ValueError, match=r"^n must be a number from 1e-09 to 1e\+09, not "):
        require_positive("n", value)


def test_valid_values() -> None:
    """A valid value is returned."""
    assert [require_count("n", value) for value in (1, 10**30)] == [1, 10**30]
    assert [require_positive("n", value) for value in (1, 0.5, 1e-9, 1e9)] == [1.0, 0.5, 1e-9, 1e9]
    require_callable("f", print)
    require_sink(ScriptedSink())


def test_no_function() -> None:
    """A callback must be callable."""
    with pytest.raises(ValueError, match=r"^f must be callable, not 3$"):
        require_callable("f", 3)


class AsyncCall:
    """An object with an async `__call__`."""

    async def __call__(self, *_: object) -> None:
        """Do nothing."""


async def _asynchronous(*_: object) -> None:
    """Do nothing."""


@pytest.mark.parametrize("function", [_asynchronous, partial(_asynchronous, 1), AsyncCall()])
def test_no_plain_function(function: Any) -> None:
    """A coroutine function is refused as a callback, because it would never run."""
    with pytest.raises(TypeError, match=r"^f must be a plain function, not the coroutine function "):
        require_callable("f", function)
    broadcaster = EventBroadcaster()
    for start in (broadcaster.start_event_watcher, broadcaster.start_logging):
        with pytest.raises(TypeError, match="must be a plain function"):
            start(function)
    with pytest.raises(TypeError, match=r"^on_drop must be a plain function"):
        EventBroadcaster(on_drop=function)


@pytest.mark.parametrize(
    ("source", "text"),
    [(7, "source must be an EventSource or a component's name, not 7"),
     (None, "source must be an EventSource or a component's name, not None"),
     (b"c", "source must be an EventSource or a component's name, not b'c'"),
     (EventSource(7), "the source's component must be a text, not 7"),  # type: ignore[arg-type]
     (EventSource("c", None), "the source's host must be a text, not None")],  # type: ignore[arg-type]
)  # fmt: skip
@pytest.mark.parametrize("new_recorder", [EventBroadcaster().new_recorder, FakeRecorder])
def test_no_source(new_recorder: Callable[[Any], object], source: object, text: str) -> None:
    """A recorder refuses an invalid source in its constructor."""
    with pytest.raises(TypeError, match=f"^{text}$"):
        new_recorder(source)


def test_no_sink() -> None:
    """A sink must have two plain methods. An asynchronous sink is refused."""

    class Half:
        def create(self, *_: object) -> None:
            """The only method."""

    class Async:
        async def create(self, *_: object) -> None:
            """Never called."""

        async def patch(self, *_: object) -> None:
            """Never called."""

    for sink, text in ((None, "no method create"), (Half(), "no method patch"), (Async(), "coroutine function")):
        with pytest.raises(TypeError, match=text):
            require_sink(sink)


def test_sink_of_another_group() -> None:
    """A broadcaster refuses a sink with another ``api_group``. A sink without the attribute fits every broadcaster."""
    sink = ScriptedSink()
    for group in ("", "events.k8s.io"):
        require_sink(sink, group)
    sink.api_group = "events.k8s.io"  # type: ignore[attr-defined]
    require_sink(sink, "events.k8s.io")
    with pytest.raises(TypeError, match=r"^ScriptedSink writes events\.k8s\.io/v1 .* core/v1 events: use a CoreV1"):
        require_sink(sink, "")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("queue_length", NO_COUNTS),
        ("max_message_bytes", [value for value in NO_COUNTS if value is not None]),
        ("sleep_duration", NO_NUMBERS),
        ("clock", [None, 3, "now"]),
        ("on_drop", [3, "now"]),
        ("correlator_options", [3, {}, "default"]),
    ],
)
def test_options_of_a_broadcaster(option: str, values: list[Any]) -> None:
    """Pitfall 59: an invalid option of a broadcaster raises at construction. 0 never means the default."""
    for value in values:
        with pytest.raises(ValueError, match=f"^{option} must be "):
            EventBroadcaster(**{option: value})


@pytest.mark.parametrize(
    ("option", "values"),
    [("senders", NO_COUNTS), ("backlog", NO_COUNTS), ("max_age", NO_NUMBERS), ("retry_wait", [3, "1s"])],
)
def test_options_of_a_sink(option: str, values: list[Any]) -> None:
    """Pitfall 59: an invalid option of a sink raises at the start, and nothing is started."""
    broadcaster = EventBroadcaster()
    for value in values:
        with pytest.raises(ValueError, match=f"^{option} must be "):
            broadcaster.start_recording_to_sink(ScriptedSink(), **{option: value})
    assert broadcaster.statistics().watchers == ()


@pytest.mark.parametrize(
    "start",
    [
        lambda broadcaster: broadcaster.start_logging(3),
        lambda broadcaster: broadcaster.start_event_watcher(None),
        lambda broadcaster: broadcaster.start_structured_logging("loud"),
        lambda broadcaster: broadcaster.start_structured_logging(logger=3),
    ],
)
def test_watchers_of_nonsense(start: Callable[[EventBroadcaster], object]) -> None:
    """Pitfall 59: an invalid watcher raises at the start, and nothing is started."""
    broadcaster = EventBroadcaster()
    with pytest.raises(ValueError, match=" must be "):
        start(broadcaster)
    assert broadcaster.statistics().watchers == ()


def test_no_sinks() -> None:
    """A class, a client and other objects without the methods of a sink are refused; the error says what to give."""
    client = pytest.importorskip("kubernetes.client")
    broadcaster = EventBroadcaster()
    for sink, expected in (
        (CoreV1EventSink, "CoreV1EventSink is a class, not an EventSink: give an instance, CoreV1EventSink(...)"),
        (client.CoreV1Api(), "CoreV1Api is not an EventSink: it has no method create; give a CoreV1EventSink, which "),
        (None, "NoneType is not an EventSink: it has no method create; give a CoreV1EventSink, which "),
    ):
        with pytest.raises(TypeError, match=f"^{re.escape(expected)}"):
            broadcaster.start_recording_to_sink(sink)  # type: ignore[arg-type]
    assert broadcaster.statistics().watchers == ()


def test_sources() -> None:
    """A recorder's source is an `EventSource`, or the component's name."""
    broadcaster = EventBroadcaster()
    assert broadcaster.new_recorder("c").source == EventSource("c")
    assert broadcaster.new_recorder(EventSource("c", "h")).source == EventSource("c", "h")
