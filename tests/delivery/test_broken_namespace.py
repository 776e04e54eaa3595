"""Fault 1 against the embedded API server: every write in one namespace fails, as with a broken admission webhook."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

import kubernetes.config
import pytest

import kevents
from kevents import aio
from tests.support.sinks import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from kevents.testing import APIServer

BROKEN = 60
GOOD = 50
PROBES = 40
"""The most requests of a broken namespace in the first seconds: four, ten fast probes, and doubling pauses."""


def record(recorder: kevents.EventRecorder, namespace: str, events: int) -> None:
    """Record events, each about its own object: a Pod, or a Node for the namespace `default`."""
    for number in range(events):
        kind, where = ("Node", "") if namespace == "default" else ("Pod", namespace)
        about = kevents.ObjectReference(kind=kind, api_version="v1", namespace=where, name=f"p{number}", uid="u")
        recorder.event(about, "Normal", "Started", "up")


def names(api_server: APIServer, namespace: str) -> set[str]:
    """The names of the objects that have an event."""
    return {event["involvedObject"]["name"] for event in api_server.events(namespace)}


def until(true: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = monotonic() + PATIENCE
    while not true():
        assert monotonic() < deadline


@pytest.fixture(autouse=True)
def namespaces(api_server: APIServer) -> None:
    """Create the namespaces."""
    for name in ("shop", "good"):
        api_server.create_namespace(name)


@pytest.mark.parametrize("broken", ["shop", "default"])
def test_threads(api_server: APIServer, caplog: pytest.LogCaptureFixture, broken: str) -> None:
    """Events of another namespace are written while those of the broken one wait, also cluster-scoped events."""
    caplog.set_level("INFO", "kevents")
    client = kubernetes.config.new_client_from_config(str(api_server.kubeconfig()))  # type: ignore[no-untyped-call]
    with kevents.EventBroadcaster() as broadcaster:
        watcher = broadcaster.start_recording_to_sink(kevents.CoreV1EventSink(client))
        recorder = broadcaster.new_recorder("op")
        with api_server.fail(500, path=f"/namespaces/{broken}/") as rule:
            record(recorder, broken, BROKEN)
            until(lambda: rule.hits >= 4)
            record(recorder, "good", GOOD)
            until(lambda: len(names(api_server, "good")) == GOOD)
            assert rule.hits <= PROBES
            until(lambda: any(f"fails every write in the namespace {broken}" in line for line in caplog.messages))

            def figures() -> tuple[int, int]:
                sink = watcher.statistics().sink
                assert sink is not None
                return sink.delivered, sink.backlog

            until(lambda: figures() == (GOOD, BROKEN))
        assert broadcaster.flush(PATIENCE)
        assert len(names(api_server, broken)) == BROKEN
    assert any(f"writes in the namespace {broken} are answered again" in line for line in caplog.messages)


def test_tasks(api_server: APIServer) -> None:
    """With sender tasks, events of another namespace are written while those of the broken one wait."""
    config = pytest.importorskip("kubernetes_asyncio.config")
    path = str(api_server.kubeconfig())

    async def run() -> None:
        async with aio.EventBroadcaster() as broadcaster:
            broadcaster.start_recording_to_sink(aio.CoreV1EventSink(lambda: config.new_client_from_config(path)))
            recorder = broadcaster.new_recorder("op")
            with api_server.fail(500, path="/namespaces/shop/") as rule:
                record(recorder, "shop", BROKEN)
                await asyncio.to_thread(until, lambda: rule.hits >= 4)
                record(recorder, "good", GOOD)
                await asyncio.to_thread(until, lambda: len(names(api_server, "good")) == GOOD)
                assert rule.hits <= PROBES
            assert await broadcaster.flush(PATIENCE)
            assert len(names(api_server, "shop")) == BROKEN

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
