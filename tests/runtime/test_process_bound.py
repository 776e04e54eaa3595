"""Objects that belong to one process can be neither pickled nor copied. The error has the fix."""

from __future__ import annotations

import asyncio
import copy
import importlib
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import kevents
from kevents import aio, events
from kevents.testing import FakeEventsV1Recorder, FakeRecorder, FakeSink
from tests.support.sinks import pod


def asynchronous(make: Callable[[], Any]) -> Callable[[], Any]:
    """Make an object in a loop."""

    async def main() -> Any:
        return make()

    return lambda: asyncio.run(main())


def kopf_recorder() -> Any:
    """A recorder of kopf."""
    pytest.importorskip("kopf", reason="needs kevents[kopf]")
    return importlib.import_module("kevents.kopf").KopfRecorder("operator")


def fake_stream() -> Any:
    """A stream of events."""
    return aio.EventBroadcaster().start_event_watcher()


def asyncio_sink(name: str) -> Any:
    """A sink over an asynchronous client."""
    pytest.importorskip("kubernetes_asyncio", reason="needs kubernetes_asyncio")
    return getattr(aio, name)()


BOUND: dict[str, Callable[[], Any]] = {
    "EventBroadcaster": kevents.EventBroadcaster,
    "EventRecorder": lambda: kevents.EventBroadcaster().new_recorder("operator"),
    "BoundRecorder": lambda: kevents.EventBroadcaster().new_recorder("operator").for_object(pod()),
    "QueueWatcher": lambda: kevents.EventBroadcaster().start_event_watcher(print),
    "CoreV1EventSink": kevents.CoreV1EventSink,
    "EventsV1EventSink": events.EventsV1EventSink,
    "events.EventBroadcaster": lambda: events.EventBroadcaster(FakeSink(api_group="events.k8s.io")),
    "events.EventRecorder": lambda: events.EventBroadcaster(FakeSink(api_group="events.k8s.io")).new_recorder(
        "example.com/operator"
    ),
    "KopfRecorder": kopf_recorder,
    "FakeRecorder": FakeRecorder,
    "FakeEventsV1Recorder": FakeEventsV1Recorder,
    "FakeSink": FakeSink,
    "aio.EventBroadcaster": asynchronous(aio.EventBroadcaster),
    "EventStream": asynchronous(fake_stream),
    "aio.CoreV1EventSink": lambda: asyncio_sink("CoreV1EventSink"),
    "aio.EventsV1EventSink": lambda: asyncio_sink("EventsV1EventSink"),
}


def cloudpickled(value: object) -> object:
    """As Ray and dask pickle it, within a function."""
    return pytest.importorskip("cloudpickle", reason="needs cloudpickle").dumps(lambda: value)


@pytest.mark.parametrize("name", BOUND)
@pytest.mark.parametrize(
    "action", [copy.copy, copy.deepcopy, pickle.dumps, cloudpickled], ids=lambda each: each.__name__
)
def test_refused(name: str, action: Callable[[object], object]) -> None:
    """The error names the class, and says what to do in a worker."""
    thing = BOUND[name]()
    expected = f"{name.rpartition('.')[2]} cannot be pickled or copied, because it belongs to this process: in each "
    with pytest.raises(TypeError) as error:
        action(thing)
    assert str(error.value) == (
        expected
        + "worker (Ray, dask, multiprocessing with spawn), call kevents.get_recorder(...) or make a broadcaster"
    )


def test_argument_of_a_spawned_process() -> None:
    """A recorder as an argument fails in the parent, before the child starts."""
    recorder = kevents.EventBroadcaster().new_recorder("operator")
    process = multiprocessing.get_context("spawn").Process(
        target=recorder.event, args=(pod(), "Normal", "Started", "m")
    )
    with pytest.raises(TypeError, match="EventRecorder cannot be pickled"):
        process.start()
