"""Benchmarks of `event()` and of building references, by the type of the object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

import kevents
from tests.bench.subjects import SOURCE, manifest, reference

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

pytest.importorskip("pytest_benchmark")

BURST = 500


def model() -> object:
    """Return a pod as a model of the official client."""
    client = pytest.importorskip("kubernetes.client")
    metadata = client.V1ObjectMeta(name="web-0", namespace="prod", uid="0d3f1c8a", resource_version="1000")
    return client.V1Pod(api_version="v1", kind="Pod", metadata=metadata)


def kopf_body() -> object:
    """Return a pod as kopf passes it to a handler."""
    bodies = pytest.importorskip("kopf._cogs.structs.bodies")
    return bodies.Body(manifest())


OBJECTS: dict[str, Callable[[], Any]] = {
    "reference": reference,
    "dictionary": manifest,
    "model": model,
    "kopf body": kopf_body,
}


@pytest.fixture
def broadcaster() -> Iterator[kevents.EventBroadcaster]:
    """A broadcaster whose watcher does nothing."""
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(lambda _: None)
        yield broadcaster


@pytest.mark.parametrize("kind", OBJECTS)
def test_emit(benchmark: BenchmarkFixture, broadcaster: kevents.EventBroadcaster, kind: str) -> None:
    """500 events in a row, with earlier events already consumed."""
    recorder, obj = broadcaster.new_recorder(SOURCE), OBJECTS[kind]()

    def record() -> None:
        for _ in range(BURST):
            recorder.event(obj, "Normal", "BackOff", "back-off restarting failed container")

    def consume() -> None:
        assert broadcaster.flush()

    benchmark.pedantic(record, setup=consume, rounds=100, warmup_rounds=2)
    broadcaster.flush()
    assert broadcaster.statistics().published == 102 * BURST
    assert broadcaster.statistics().dropped == {}


@pytest.mark.parametrize("kind", OBJECTS)
def test_reference(benchmark: BenchmarkFixture, kind: str) -> None:
    """A reference is built from each type of object."""
    assert benchmark(kevents.get_reference, OBJECTS[kind]()).name == "web-0"
