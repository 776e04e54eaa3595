"""The exporter as a whole: start at the lowest position, shutdown within the grace, and restart."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from tenacity import wait_fixed, wait_none

from kevents.export import (
    Batch,
    BatchOptions,
    Checkpointed,
    CheckpointError,
    Chunk,
    Destination,
    Exporter,
    ExportStatistics,
    Position,
    QueueOptions,
    Reject,
    Retry,
    Route,
    StdoutSink,
    Stream,
)
from tests.export.doubles import (
    PATIENCE,
    STREAM,
    By,
    Everywhere,
    MemorySink,
    ScriptedSource,
    ScriptedStream,
    chunk,
    position,
)
from tests.support.sinks import Gate, join_all

OTHER = Stream("cluster-1", "prod")
QUICK = BatchOptions(max_items=100, max_age=0.01)


def destination(sink: MemorySink, **options: Any) -> Destination:
    """Return a destination with immediate retries."""
    return Destination(sink, **{"batch": QUICK, "retry_wait": wait_none(), **options})


def exporter(source: ScriptedSource | ScriptedStream, **parts: Any) -> Exporter:
    """Return an export of all records to all sinks."""
    sinks = parts.pop("sinks")
    given = {"routes": Everywhere(*sinks), "batch": QUICK, **parts}
    return Exporter(source if isinstance(source, ScriptedSource) else ScriptedSource(source), sinks=sinks, **given)


class Run:
    """An export in a thread, with its result."""

    def __init__(self, export: Exporter) -> None:
        self.export = export
        self.left: int | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="test-run")
        self._thread.start()

    def _run(self) -> None:
        try:
            self.left = self.export.run()
        except BaseException as error:  # noqa: BLE001 - checked by the test
            self.error = error

    def wait(self) -> None:
        """Wait until the export ends."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def running(export: Exporter) -> Iterator[Run]:
    """Run the export, stop it, and check its statistics."""
    run = Run(export)
    try:
        yield run
    finally:
        export.stop()
        run.wait()
        check(export.statistics())
    assert run.error is None, run.error


def check(seen: ExportStatistics) -> None:
    """Check that each record read and each delivery is counted exactly once."""
    for stream in seen.streams:
        assert stream.routed + stream.unrouted + stream.failed + stream.waiting == stream.read, stream
    for one in seen.destinations:
        parts = (one.already_stored, one.written, one.dead_lettered, one.refused, one.dropped, one.waiting)
        assert sum(parts) == one.offered, one
    assert sum(stream.deliveries for stream in seen.streams) <= sum(one.offered for one in seen.destinations)


def test_from_the_source_to_the_sinks() -> None:
    """When `run` returns, every sink has all records in order and nothing is waiting."""
    archive, pager = MemorySink(), MemorySink()
    export = exporter(
        ScriptedStream([chunk(1, 250), chunk(251, 300)]),
        sinks={"archive": archive, "pager": pager},
        routes=By(lambda record: ["archive", "pager"] if record.rv % 100 == 0 else ["archive"]),
    )
    assert export.statistics().state == "new"
    with running(export) as run:
        archive.wait(lambda: len(archive.rvs()) == 300)
        assert export.statistics().state == "running"
    assert archive.rvs() == list(range(1, 301))
    assert pager.rvs() == [100, 200, 300]
    assert (run.left, export.statistics().state, export.statistics().waiting) == (0, "ended", 0)
    assert position(300) == archive.positions[STREAM] == pager.positions[STREAM]
    assert (archive.closed, pager.closed) == (1, 1)


def test_routes_as_a_list() -> None:
    """Routes can be given as a list. A route to an unknown sink is refused."""
    sink = MemorySink()
    with running(exporter(ScriptedStream([chunk(1, 3)]), sinks={"a": sink}, routes=[Route(to="a", all=True)])):
        sink.wait(sink.rvs)
    assert sink.rvs() == [1, 2, 3]
    with pytest.raises(ValueError, match="a route leads to 'b', but the sinks are 'a'"):
        exporter(ScriptedStream(), sinks={"a": sink}, routes=[Route(to="b", all=True)])


def test_begins_at_the_lowest_position() -> None:
    """Reading starts at the lowest position of all sinks, and no sink receives a record twice."""
    stream = ScriptedStream([chunk(1, 100), chunk(101, 200)])
    ahead, behind = MemorySink(positions={STREAM: position(150)}), MemorySink(positions={STREAM: position(30)})
    with running(exporter(stream, sinks={"ahead": ahead, "behind": behind})):
        behind.wait(lambda: 200 in behind.rvs())
        ahead.wait(lambda: 200 in ahead.rvs())
    assert stream.after == [position(30)]
    assert behind.rvs() == list(range(31, 201))
    assert ahead.rvs() == list(range(151, 201))


def test_a_sink_that_holds_nothing_yet() -> None:
    """If one sink has no position, everything is read: it may have been killed before its first batch."""
    stream = ScriptedStream([chunk(1, 100)])
    old, new = MemorySink(positions={STREAM: position(60)}), MemorySink()
    with running(exporter(stream, sinks={"old": old, "new": new})):
        new.wait(lambda: 100 in new.rvs())
        old.wait(lambda: 100 in old.rvs())
    assert stream.after == [None]
    assert (new.rvs(), old.rvs()) == (list(range(1, 101)), list(range(61, 101)))


def test_a_sink_that_never_holds_positions() -> None:
    """A sink without positions starts at the position of the others, or else where the source starts."""
    for positions, after in (({STREAM: position(60)}, position(60)), ({}, None)):
        stream = ScriptedStream([chunk(61, 100)])
        archive, screen = MemorySink(positions=dict(positions)), MemorySink(holds_positions=False)
        with running(exporter(stream, sinks={"archive": archive, "screen": screen})):
            screen.wait(lambda screen=screen: 100 in screen.rvs())
        assert stream.after == [after]


def test_restarted_again_and_again() -> None:
    """After several restarts, every sink has every record exactly once."""
    positions: tuple[dict[Stream, Any], ...] = ({}, {})
    found: tuple[list[int], ...] = ([], [])
    for round_ in range(1, 6):
        stream = ScriptedStream([chunk(first, first + 9) for first in range(1, 400, 10)])
        sinks = [MemorySink(positions=held) for held in positions]
        sinks[1].faults = {2: Retry("no"), 5: OSError("no")}
        export = exporter(stream, sinks={name: destination(sink) for name, sink in zip("ab", sinks, strict=True)})
        with running(export):
            sinks[0].wait(lambda: len(found[0]) + len(sinks[0].rvs()) >= 80 * round_)  # noqa: B023
        for before, sink in zip(found, sinks, strict=True):
            before.extend(sink.rvs())
    assert list(range(1, 401)) == found[0] == found[1]


def test_streams_apart() -> None:
    """Several streams are read in parallel, each from its own position."""
    sink = MemorySink(positions={OTHER: position(50, OTHER)})
    streams = [ScriptedStream([chunk(1, 100)]), ScriptedStream([chunk(1, 80, OTHER)], OTHER)]
    export = exporter(ScriptedSource(*streams), sinks={"a": Destination(sink, QUICK)})
    sink.positions[STREAM] = position(10)
    with running(export):
        sink.wait(lambda: 100 in sink.rvs(STREAM) and 80 in sink.rvs(OTHER))
    assert (streams[0].after, streams[1].after) == ([position(10)], [position(50, OTHER)])
    assert (sink.rvs(STREAM), sink.rvs(OTHER)) == (list(range(11, 101)), list(range(51, 81)))


def test_one_of_two_is_dead() -> None:
    """While one sink is blocked, reading stops. The other sink catches up, and nothing is lost."""
    gate = Gate(shut=True)
    dead, well = MemorySink(always=lambda _: gate.pass_through()), MemorySink()
    stream = ScriptedStream([chunk(first, first + 99) for first in range(1, 10_001, 100)])
    queue = QueueOptions(max_items=500)
    sinks = {"dead": destination(dead, queue=queue), "well": destination(well, queue=queue)}
    with running(exporter(stream, sinks=sinks)) as run:
        well.wait(lambda: STREAM in well.positions and well.positions[STREAM].rv >= 500)
        gate.wait_entered()
        assert stream.given < 20
        statistics = {one.name: one for one in run.export.statistics().destinations}
        assert statistics["dead"].progress[STREAM].committed is None
        assert statistics["well"].progress[STREAM].committed == well.positions[STREAM]
        gate.open()
        dead.wait(lambda: 10_000 in dead.rvs())
    assert list(range(1, 10_001)) == dead.rvs() == well.rvs()


def test_dropping_for_one_that_is_dead() -> None:
    """With `drop`, the records of a blocked sink are dropped and counted. The other sink receives everything."""
    gate = Gate(shut=True)
    dead, well = MemorySink(always=lambda _: gate.pass_through()), MemorySink()
    stream = ScriptedStream([chunk(first, first + 99) for first in range(1, 5_001, 100)])
    sinks = {"dead": destination(dead, queue=QueueOptions(max_items=500), when_full="drop"), "well": well}
    with running(exporter(stream, sinks=sinks)) as run:
        well.wait(lambda: 5_000 in well.rvs())
        gate.open()
    seen = {one.name: one for one in run.export.statistics().destinations}
    assert well.rvs() == list(range(1, 5_001))
    assert (seen["dead"].offered, seen["dead"].dropped) == (5_000, 5_000 - len(dead.rvs()))
    assert dead.positions[STREAM] == position(5_000)


def test_a_sink_that_fails_for_a_while() -> None:
    """A sink that fails in various ways for a while receives everything once and in order."""
    faults = {
        n: (Retry("no", after=0.0), OSError("no"), SystemExit(), ValueError("no"))[n % 4] for n in range(1, 60, 2)
    }
    sink = MemorySink(faults=faults)
    stream = ScriptedStream([chunk(first, first + 99) for first in range(1, 5_001, 100)])
    with running(exporter(stream, sinks={"a": destination(sink)})):
        sink.wait(lambda: 5_000 in sink.rvs())
    assert sink.rvs() == list(range(1, 5_001))


def test_stopped_within_the_grace(caplog: pytest.LogCaptureFixture) -> None:
    """With a failing sink, the export ends within the grace, counts unwritten records and closes the sink."""
    sink = MemorySink(always=Retry("dead"))
    export = exporter(
        ScriptedStream([chunk(1, 1000)]), sinks={"a": destination(sink, retry_wait=wait_fixed(100))}, grace=0.5
    )
    run = Run(export)
    sink.wait(lambda: sink.calls)
    before = monotonic()
    export.stop()
    run.wait()
    assert monotonic() - before < PATIENCE / 2
    assert (run.left, sink.closed, run.error) == (1000, 1, None)
    assert "1000 records not acknowledged in time; the next run reads what is missing again" in caplog.messages
    check(export.statistics())


def test_a_sink_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """If a sink's call hangs, `run` returns within the grace and logs the sink's name."""
    gate = Gate(shut=True)
    sink = MemorySink(always=lambda _: gate.pass_through())
    export = exporter(ScriptedStream([chunk(1, 10)]), sinks={"a": sink}, grace=0.3)
    run = Run(export)
    gate.wait_entered()
    export.stop()
    run.wait()
    assert (run.left, sink.closed) == (10, 0)
    assert "a has not returned from a call; its thread is left running and the sink is not closed" in caplog.messages
    gate.open()
    sink.wait(lambda: sink.closed)


def test_a_sink_that_has_died_does_not_hold_up_the_end() -> None:
    """A fatal sink error ends the export soon, even with a full queue. Other sinks receive all records read."""
    dead, well = MemorySink(always=BrokenPipeError()), MemorySink()
    dead.final_errors = (BrokenPipeError,)  # type: ignore[attr-defined]
    stream = ScriptedStream([chunk(1 + 500 * n, 500 + 500 * n) for n in range(40)])
    full = destination(dead, queue=QueueOptions(max_items=1))
    before = monotonic()
    run = Run(exporter(stream, sinks={"dead": full, "well": well}, grace=PATIENCE))
    run.wait()
    assert isinstance(run.error, BrokenPipeError)
    assert monotonic() - before < PATIENCE / 2
    seen = run.export.statistics()
    check(seen)
    assert well.rvs() == [*range(1, seen.streams[0].read + 1)]


class Unanswered(ScriptedStream):
    """A stream with an unanswered request that cannot be interrupted."""

    def __init__(self, chunks: Sequence[Chunk], gate: Gate) -> None:
        super().__init__(chunks)
        self._gate = gate

    def read(self, after: Position | None, highest: Position | None = None) -> Iterator[Chunk]:
        """Yield the chunks, wait at the gate, and yield one more."""
        for found in super().read(after, highest):
            yield found
            if self.given == len(self._chunks):
                self._gate.pass_through()
                yield chunk(100, 101)


def test_a_request_without_an_answer_does_not_hold_up_the_end() -> None:
    """A stream that waits for its server is abandoned. Records read before are written, later ones are not."""
    gate, sink = Gate(shut=True), MemorySink()
    export = exporter(Unanswered([chunk(1, 10)], gate), sinks={"a": sink}, grace=PATIENCE)
    before = monotonic()
    run = Run(export)
    gate.wait_entered()
    export.stop()
    run.wait()
    assert monotonic() - before < PATIENCE / 2
    gate.open()
    join_all()
    assert (sink.rvs(), run.left, run.error, export.statistics().streams[0].read) == ([*range(1, 11)], 0, None, 10)


def test_waits_for_records_already_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose records wait for space is not abandoned: they are written within the grace."""
    monkeypatch.setattr("kevents.export._pipeline.exporter._A_MOMENT", 0.01)
    gate = Gate(shut=True)
    sink = MemorySink(always=lambda _: gate.pass_through())
    stream = ScriptedStream([chunk(1, 2000)])
    full = destination(sink, queue=QueueOptions(max_items=1))
    export = exporter(stream, sinks={"a": full}, grace=PATIENCE)
    run = Run(export)
    gate.wait_entered()
    export.stop()
    # longer than the wait for a stream that waits for its server
    assert not run.export._streams[0].join(monotonic() + 0.1)
    gate.open()
    run.wait()
    assert (sink.rvs(), run.left) == ([*range(1, 2001)], 0)


class Unopened(ScriptedSource):
    """A source that cannot reach its server yet."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(error=OSError("no route"))
        self._gate = gate

    def open(self) -> Sequence[ScriptedStream]:
        """Wait and raise."""
        self._gate.pass_through()
        return super().open()


def test_stopped_while_it_connects() -> None:
    """`stop` works while the source waits for its server."""
    gate, sink = Gate(shut=True), MemorySink()
    run = Run(exporter(Unopened(gate), sinks={"a": sink}))
    gate.wait_entered()
    run.export.stop()
    run.wait()
    assert (run.left, run.error, sink.closed) == (0, None, 1)
    gate.open()
    join_all()


@pytest.mark.parametrize("early", [True, False])
def test_stopped_before_it_began(early: bool) -> None:  # noqa: FBT001
    """Stopped before `run` or while a sink returns no position, the export ends immediately and closes all sinks."""
    sink = MemorySink(ask_faults=dict.fromkeys(range(1, 10_000), Retry("no connection")))
    stream = ScriptedStream([chunk(1, 10)])
    export = exporter(stream, sinks={"a": destination(sink, retry_wait=wait_fixed(100))})
    if early:
        export.stop()
    run = Run(export)
    if not early:
        sink.wait(lambda: sink.asked)
    export.stop()
    run.wait()
    assert (run.left, run.error, sink.closed, stream.after) == (0, None, 1, [])


def test_stopped_by_a_signal() -> None:
    """A signal handler can call `stop` during `run`."""
    sink = MemorySink()
    export = exporter(ScriptedStream([chunk(1, 10)]), sinks={"a": sink})
    before = signal.signal(signal.SIGTERM, lambda *_: export.stop())
    try:
        killer = threading.Thread(
            target=lambda: (sink.wait(sink.rvs), signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM))  # type: ignore[arg-type]
        )
        killer.start()
        assert export.run() == 0
        killer.join(PATIENCE)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sink.rvs() == list(range(1, 11))


def test_a_source_that_cannot_open() -> None:
    """`run` raises the error of a source that cannot connect, and the sinks are closed."""
    sink = MemorySink()
    export = exporter(ScriptedSource(error=PermissionError("events is forbidden")), sinks={"a": sink})
    with pytest.raises(PermissionError, match="events is forbidden"):
        export.run()
    assert (sink.closed, export.statistics().state) == (1, "ended")


def test_a_source_that_fails() -> None:
    """`run` raises the error of a failing source after the records read before are written."""
    sink = MemorySink()
    export = exporter(ScriptedStream([chunk(1, 500)], error=RuntimeError("a bug")), sinks={"a": sink})
    with pytest.raises(RuntimeError, match="a bug"):
        export.run()
    assert sink.rvs() == list(range(1, 501))


def test_a_damaged_checkpoint(tmp_path: Path) -> None:
    """An unreadable checkpoint ends the export with its error before anything is read."""
    path = tmp_path / "positions.json"
    path.write_text("{", encoding="utf-8")
    stream = ScriptedStream([chunk(1, 5)])
    export = exporter(stream, sinks={"a": destination(Checkpointed(MemorySink(), path))})  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=r"the checkpoint .* cannot be read"):
        export.run()
    assert stream.after == []


def test_closed_standard_output() -> None:
    """A closed standard output ends the export. The records of other sinks are written."""
    reading, writing = os.pipe()
    os.close(reading)
    sink = MemorySink()
    with open(writing, "wb", buffering=0) as pipe:  # noqa: PTH123 - a file descriptor
        export = exporter(ScriptedStream([chunk(1, 5)]), sinks={"a": sink, "b": StdoutSink(pipe)})
        with pytest.raises(BrokenPipeError):
            export.run()
    assert sink.rvs() == [1, 2, 3, 4, 5]


def test_dead_letters_by_path(tmp_path: Path) -> None:
    """With a path for dead letters, rejected records are stored there with the reason."""

    def refuse(batch: Batch) -> None:
        raise Reject("too long", batch.records[:1])

    sink = MemorySink(faults={1: refuse})
    path = tmp_path / "dead.jsonl"
    with running(exporter(ScriptedStream([chunk(1, 5)]), sinks={"a": sink}, dead_letters=path)):
        sink.wait(lambda: sink.positions)
    [letter] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (
        letter["kevents"]["id"],
        letter["kevents"]["rejected"]["sink"],
        letter["kevents"]["rejected"]["why"],
    ) == ("uid-1:1", "a", "too long")


def test_it_runs_once() -> None:
    """A second `run` is refused."""
    export = exporter(ScriptedStream(), sinks={"a": MemorySink()})
    export.stop()
    assert export.run() == 0
    with pytest.raises(RuntimeError, match="an Exporter runs once: make another one"):
        export.run()


class Enricher:
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        """Record the call."""
        self.calls.append("start")

    def enrich(self, records: Sequence[object]) -> None:
        """Record the call."""
        self.calls.append("enrich")

    def close(self) -> None:
        """Record the call."""
        self.calls.append("close")


def test_the_enricher_is_begun_and_ended() -> None:
    """The enricher is started before the first record and closed after the last."""
    enricher, sink = Enricher(), MemorySink()
    with running(exporter(ScriptedStream([chunk(1, 2)]), sinks={"a": sink}, enrich=enricher)):
        sink.wait(sink.rvs)
    assert enricher.calls == ["start", "enrich", "close"]


def test_an_enricher_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """A slow enricher does not outlast the grace. An error while closing it is logged."""
    gate, sink = Gate(shut=True), MemorySink()
    enricher = Enricher()
    enricher.close = lambda: (gate.pass_through(), 1 / 0)  # type: ignore[assignment, method-assign, return-value]
    run = Run(exporter(ScriptedStream([chunk(1, 2)]), sinks={"a": sink}, enrich=enricher, grace=0.5))
    sink.wait(sink.rvs)
    run.export.stop()
    run.wait()
    assert (run.left, run.error) == (0, None)
    gate.open()
    join_all()
    assert "closing the enricher raised ZeroDivisionError: division by zero" in caplog.messages


def test_a_strange_name() -> None:
    """A route to an unknown sink, no sinks, and an invalid grace are refused by the constructor."""
    with pytest.raises(ValueError, match="a route leads to 'archiv', but the sinks are 'archive', 'pager'"):
        exporter(ScriptedStream(), sinks={"archive": MemorySink(), "pager": MemorySink()}, routes=Everywhere("archiv"))
    with pytest.raises(ValueError, match="sinks must name at least one destination"):
        exporter(ScriptedStream(), sinks={})
    with pytest.raises(ValueError, match="grace must be a number"):
        exporter(ScriptedStream(), sinks={"a": MemorySink()}, grace=0)


def test_a_write_that_is_overdue(caplog: pytest.LogCaptureFixture) -> None:
    """An overdue write is reported while the export continues."""
    gate = Gate(shut=True)
    sink = MemorySink(always=lambda _: gate.pass_through())
    export = exporter(ScriptedStream([chunk(1, 10)]), sinks={"a": destination(sink, write_timeout=0.01)})
    told = threading.Event()
    for worker in export._workers.values():
        log = worker.log_overdue
        worker.log_overdue = lambda log=log: (log(), told.set())  # type: ignore[assignment, method-assign, misc]
    with running(export):
        gate.wait_entered()
        assert told.wait(PATIENCE)
        assert told.wait(PATIENCE)
        assert export.statistics().destinations[0].overdue
        gate.open()
    assert any("a has not answered a write for" in line for line in caplog.messages)
