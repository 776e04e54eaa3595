"""An export during outages, resets and expiry, in simulated time: nothing is lost silently."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_none

from kevents.export import (
    BatchOptions,
    Destination,
    Enricher,
    Exporter,
    FileSink,
    QueueOptions,
    Retry,
    Route,
    Stream,
    StreamStatistics,
)
from kevents.testing import APIServer, FakeClock
from tests.export.doubles import PATIENCE, MemorySink
from tests.export.held import bodies_in_folder, ids_in_folder
from tests.export.pipeline.test_exporter import check
from tests.export.reading import client, put, source
from tests.support.sinks import Gate

pytestmark = pytest.mark.wire

LIFE = 3600
MINUTE = 60
SMALL = BatchOptions(max_items=50, max_age=0.01)


class World:
    """A cluster in simulated time that compacts and expires like a real one, and exports of it to a folder."""

    def __init__(self, folder: Path, **server: Any) -> None:
        self.clock = FakeClock()
        options = {"event_ttl": LIFE, "history_age": 5 * MINUTE, "clock": self.clock, **server}
        self.server = APIServer(**options)
        self.folder = folder
        self.happened: list[str] = []
        self._number = 0

    def happen(self, events: int, namespace: str = "default") -> None:
        """Create events."""
        names = [f"e{self._number + more:06}" for more in range(events)]
        self._number += events
        self.happened += put(self.server, *names, namespace=namespace)

    def pass_time(self, seconds: float, events: int = 0) -> None:
        """Advance the clock, with events spread over that time."""
        steps = max(events, 1)
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            if events:
                self.happen(1)

    @contextmanager
    def exporting(self, **options: Any) -> Iterator[Export]:
        """Run an export for the block. Afterwards all records read are written."""
        sinks = options.pop("sinks", None) or {"archive": FileSink(self.folder)}
        source_options = options.pop("source", {})
        routes = options.pop("routes", [Route(to=list(sinks), all=True)])
        export = Export(
            Exporter(
                source(self.server, clock=self.clock, **source_options),
                routes=routes,
                sinks={
                    name: sink if isinstance(sink, Destination) else Destination(sink, SMALL, retry_wait=wait_none())
                    for name, sink in sinks.items()
                },
                **options,
            )
        )
        try:
            yield export
        finally:
            export.end()
        check(export.exporter.statistics())

    @property
    def held(self) -> list[str]:
        """The ids in the folder, sorted."""
        return sorted(ids_in_folder(self.folder))

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """The gaps in the folder."""
        return [body["kevents"]["gap"] for body in bodies_in_folder(self.folder) if "gap" in body["kevents"]]


class Export:
    """An export in a thread."""

    def __init__(self, exporter: Exporter) -> None:
        self.exporter = exporter
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="test-export")
        self._thread.start()

    def _run(self) -> None:
        try:
            self.exporter.run()
        except BaseException as error:  # noqa: BLE001 - checked by the test
            self.errors.append(error)

    def stream(self, scope: str = "") -> StreamStatistics:
        """Return the statistics of a stream."""
        streams = self.exporter.statistics().streams
        return next((one for one in streams if one.stream.scope == scope), StreamStatistics(Stream("", scope)))

    def written(self, name: str = "archive") -> int:
        """Return the number of records a sink has acknowledged."""
        return next(one.written for one in self.exporter.statistics().destinations if one.name == name)

    def wait(self, what: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        pause = threading.Event()
        for _ in range(int(PATIENCE / 0.01)):
            if what():
                return
            assert not self.errors, self.errors
            pause.wait(0.01)
        raise AssertionError(f"the condition did not become true: {self.exporter.statistics()}")

    def end(self) -> None:
        """Stop the export."""
        self.exporter.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        assert self.errors == []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A world with a running server."""
    made = World(tmp_path / "archive")
    with made.server:
        yield made


@pytest.mark.parametrize("seconds", [30, 10 * MINUTE, 50 * MINUTE])
@pytest.mark.parametrize("away", ["server", "export"])
def test_outage(world: World, away: str, seconds: float) -> None:
    """An outage shorter than the event TTL loses and duplicates no event and causes no gap."""
    world.happen(20)
    with world.exporting() as export:
        export.wait(lambda: export.written() == 20)
        if away == "server":
            world.server.stop_listening()
            world.pass_time(seconds, events=100)
            world.server.listen_again()
            export.wait(lambda: export.written() == 120)
    if away == "export":
        world.pass_time(seconds, events=100)
    with world.exporting() as export:
        world.happen(5)
        export.wait(lambda: world.happened[-1] in world.held)
    assert world.held == sorted(world.happened)
    assert world.gaps == []


@pytest.mark.parametrize("away", ["server", "export"])
def test_outage_longer_than_an_events_life(world: World, away: str) -> None:
    """An outage longer than the event TTL is reported as one gap and counted once."""
    world.happen(20)
    with world.exporting() as export:
        export.wait(lambda: export.written() == 20)
        if away == "server":
            world.server.stop_listening()
            world.pass_time(2 * LIFE, events=50)
            world.server.listen_again()
            export.wait(lambda: export.stream().gaps)
            assert export.stream().gaps == 1
    if away == "export":
        world.pass_time(2 * LIFE, events=50)
    with world.exporting() as export:
        world.happen(5)
        export.wait(lambda: world.happened[-1] in world.held)
        assert export.stream().gaps == (away == "export")
    [gap] = world.gaps
    assert gap["why"] == "expired"
    kept = {one for one in world.held if not one.startswith("gap:")}
    assert kept < set(world.happened)
    assert set(world.happened[-25:]) <= kept


def test_count_from_1_to_20(world: World) -> None:
    """An event counted from 1 to 20 gives 20 revisions whose deltas sum to 20."""
    with world.exporting() as export:
        export.wait(lambda: export.exporter.statistics().state == "running" and export.stream().position)
        put(world.server, "again", count=1)
        for count in range(2, 21):
            counted = {"count": count}
            world.server._store.modify("events", "default", "again", lambda old, new=counted: {**old, **new})
        export.wait(lambda: export.written() == 20)
    bodies = bodies_in_folder(world.folder)
    assert [body["count"] for body in bodies] == list(range(1, 21))
    assert sum(body["kevents"]["countDelta"] for body in bodies) == 20


def test_a_route_that_rarely_matches(world: World) -> None:
    """The position counts records read, not written: a sink without matches for hours has no gap after a restart."""
    put(world.server, "rare", type="Warning")
    rarely = [Route(to="archive", type="Warning")]
    with world.exporting(routes=rarely) as export:
        export.wait(lambda: export.written() == 1)
        for _ in range(6):
            world.pass_time(LIFE / 2, events=10)
            last = int(world.happened[-1].rpartition(":")[2])
            export.wait(lambda last=last: export.stream().position.rv >= last)
        assert export.written() == 1
    world.pass_time(LIFE / 2, events=10)
    with world.exporting(routes=rarely) as export:
        put(world.server, "rare-too", type="Warning")
        export.wait(lambda: len(world.held) == 2)
    assert world.gaps == []


def test_one_of_two_is_dead_for_ten_minutes(tmp_path: Path) -> None:
    """While one sink is blocked, reading stops and the server cuts the watch.

    Later both sinks receive everything once.
    """
    world = World(tmp_path / "archive", watch_buffer=50)
    gate = Gate(shut=True)
    dead = MemorySink(always=lambda _: gate.pass_through())
    with world.server:
        few = QueueOptions(max_items=100)
        sinks = {"archive": FileSink(world.folder), "dead": Destination(dead, SMALL, few)}
        with world.exporting(sinks=sinks) as export:
            world.happen(1)
            gate.wait_entered()
            world.pass_time(10 * MINUTE, events=1500)
            assert export.written() < 1500
            gate.open()
            export.wait(lambda: export.written("dead") == len(world.happened))
            export.wait(lambda: export.written() == len(world.happened))
    assert world.held == sorted(world.happened)
    assert sorted(one.id for batch in dead.batches for one in batch.records) == sorted(world.happened)


def test_namespaces_from_their_positions(tmp_path: Path) -> None:
    """Each namespace resumes at its own position, even if the sinks were at different positions."""
    world = World(tmp_path / "archive")
    memory = MemorySink()
    with world.server:
        for name in ("red", "blue"):
            world.server.create_namespace(name)
        for round_ in range(1, 4):
            memory.faults = {memory.calls + 2: Retry("no")}
            sinks = {"archive": FileSink(world.folder), "memory": memory}
            with world.exporting(sinks=sinks, source={"namespaces": ["red", "blue"]}) as export:
                world.happen(30, "red")
                world.happen(7, "blue")
                export.wait(lambda: len(world.held) == 37 * round_)  # noqa: B023
            world.pass_time(10 * MINUTE)
    assert world.held == sorted(world.happened)
    assert sorted(one.id for batch in memory.batches for one in batch.records) == sorted(world.happened)
    assert {position.stream.scope for position in memory.positions.values()} == {"red", "blue"}


def test_the_storage_was_reset(world: World) -> None:
    """After etcd was restored from a backup, new events are exported and the gap is reported once."""
    world.happen(10)
    backup = world.server.backup()
    world.happen(10)
    with world.exporting(source={"watch": 1}) as export:
        export.wait(lambda: export.written() == 20)
        world.server.restore(backup)  # a watch from a future version returns nothing until it ends
        world.happen(5)
        export.wait(lambda: world.happened[-1] in world.held)
    assert [gap["why"] for gap in world.gaps] == ["reset"]
    with world.exporting() as export:
        world.happen(5)
        export.wait(lambda: world.happened[-1] in world.held)
    assert set(world.happened) <= set(world.held)
    assert [gap["why"] for gap in world.gaps] == ["reset"]


def test_the_whole(world: World) -> None:
    """Source, enricher, routes and sinks together: each record is enriched and arrives at the right sinks."""
    labels = {"app": "web"}
    pod = world.server.create("v1", "pods", {"metadata": {"name": "web-0", "namespace": "default", "labels": labels}})
    involved = {
        "kind": "Pod",
        "apiVersion": "v1",
        "namespace": "default",
        "name": "web-0",
        "uid": pod["metadata"]["uid"],
    }
    warnings = MemorySink()
    routes = [Route(to="archive", all=True), Route(to="warnings", type="Warning", labels={"app": "web"})]
    sinks = {"archive": FileSink(world.folder), "warnings": warnings}
    enricher = Enricher(client(world.server), wait=60.0)
    with world.exporting(sinks=sinks, routes=routes, enrich=enricher) as export:
        put(world.server, "a", "b", type="Normal", involvedObject=involved)
        put(world.server, "c", type="Warning", involvedObject=involved)
        export.wait(lambda: export.written() == 3 and export.written("warnings") == 1)
    assert [body["involvedObject"]["labels"] for body in bodies_in_folder(world.folder)] == [labels] * 3
    assert [one.body["metadata"]["name"] for batch in warnings.batches for one in batch.records] == ["c"]
    assert (
        enricher.statistics().kube_api_read_cache_hits,
        enricher.statistics().kube_api_read_cache_misses,
    ) == (2, 1)
