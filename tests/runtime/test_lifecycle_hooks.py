"""The hooks that run when a process ends or forks, called here as the interpreter calls them.

Whole processes are in ``test_lifecycle.py``. A child of a fork is simulated here: the parent's threads do not exist in
it, because none could be started.
"""

from __future__ import annotations

import _thread
import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import pytest

import kevents
from kevents import DropReason, aio
from kevents._broadcast import broadcaster as _broadcaster
from kevents._runtime import lifecycle as _lifecycle
from kevents._runtime.reentrant import Shared
from tests.broadcast.test_watcher import Station, no_threads
from tests.support.aio import AsyncSink, run
from tests.support.sinks import PATIENCE, ScriptedSink, check_ledgers, join_all, pod, statistics_of, thread_names


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the process-wide registry and section, so that only the test's own objects are registered."""
    monkeypatch.setattr(_lifecycle, "_registered", WeakSet())
    shared = Shared()
    monkeypatch.setattr(_broadcaster, "SHARED", shared)
    monkeypatch.setattr(_lifecycle, "SHARED", shared)


class Hooks:
    """Records the hook calls with their deadlines."""

    def __init__(self, name: str, told: list[tuple[str, str, float]]) -> None:
        self._name = name
        self._told = told
        _lifecycle.register(self)

    def begin_shutdown(self, deadline: float) -> bool:
        """Record the call."""
        self._told.append(("begin", self._name, deadline))
        return True

    def end_shutdown(self, deadline: float) -> int:
        """Record the call."""
        self._told.append(("end", self._name, deadline))
        return 0

    def flush_at_exit(self, deadline: float) -> None:
        """Record the call."""
        self._told.append(("flush", self._name, deadline))

    def after_fork(self) -> None:
        """Record the call."""
        self._told.append(("fork", self._name, 0.0))


class ForkedSink(ScriptedSink):
    """A sink that counts its forks."""

    forks = 0

    def after_fork(self) -> None:
        """Count the fork."""
        self.forks += 1


def record(broadcaster: kevents.EventBroadcaster, *messages: str) -> None:
    """Record events, each about its own pod."""
    recorder = broadcaster.new_recorder("c")
    for message in messages:
        recorder.event(pod(message), "Normal", "R", message)


# -- the hooks -------------------------------------------------------------------------------------------------------


def test_all_begin_their_end_before_any_is_waited_for() -> None:
    """At exit all hooks begin their shutdown before the first one is awaited, and all share a deadline."""
    told: list[tuple[str, str, float]] = []
    hooks = [Hooks(name, told) for name in "ab"]
    _lifecycle._shut_down_at_exit()
    assert [what for what, *_ in told] == ["begin", "begin", "end", "end"]
    assert len({name for _, name, _ in told}) == len(hooks)
    assert len({deadline for *_, deadline in told}) == 1


def test_each_is_reported() -> None:
    """Each registered object is asked to flush, by one shared deadline, and is notified of a fork."""
    told: list[tuple[str, str, float]] = []
    hooks = [Hooks(name, told) for name in "ab"]
    _lifecycle._flush_at_exit()
    assert len({deadline for *_, deadline in told}) == 1
    _lifecycle._after_fork_in_child()
    assert [
        *sorted((what, name) for what, name, _ in told[: len(hooks)]),
        *sorted((what, name) for what, name, _ in told[len(hooks) :]),
    ] == [("flush", "a"), ("flush", "b"), ("fork", "a"), ("fork", "b")]


# -- the end ---------------------------------------------------------------------------------------------------------


def test_a_flush_leaves_it_open() -> None:
    """The flush at exit leaves the broadcaster open. The final shutdown delivers events of later exit hooks."""
    sink = ScriptedSink()
    broadcaster = kevents.EventBroadcaster()
    broadcaster.start_recording_to_sink(sink)
    record(broadcaster, "a")
    _lifecycle._flush_at_exit()
    assert sink.messages == ["a"]
    record(broadcaster, "b")
    _lifecycle._shut_down_at_exit()
    assert sink.messages == ["a", "b"]
    assert thread_names() == []


def test_an_end_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 82: if no thread can be started, the flush at exit delivers all events itself and shuts down."""
    sink, seen = ScriptedSink(), []
    broadcaster = kevents.EventBroadcaster()
    broadcaster.start_event_watcher(lambda event: seen.append(event.message))
    broadcaster.start_recording_to_sink(sink)
    with no_threads(monkeypatch):
        record(broadcaster, "a", "b")
        assert [*seen, *sink.calls] == []
        monkeypatch.setattr(threading.Thread, "start", refuse)
        _lifecycle._flush_at_exit()
    assert (seen, sorted(sink.messages)) == (["a", "b"], ["a", "b"])
    assert {call.thread for call in sink.calls} == {threading.current_thread().name}
    record(broadcaster, "late")
    assert broadcaster.statistics().refused == {DropReason.SHUTDOWN: 1}
    _lifecycle._shut_down_at_exit()
    check_ledgers(broadcaster.statistics())


def refuse(_: threading.Thread) -> None:
    """Start no thread."""
    raise RuntimeError("can't start new thread")


# -- a fork ----------------------------------------------------------------------------------------------------------


@contextmanager
def parent(monkeypatch: pytest.MonkeyPatch, sink: ScriptedSink) -> Iterator[kevents.EventBroadcaster]:
    """A broadcaster with events that its threads have not handled yet."""
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(bool)
        broadcaster.start_recording_to_sink(sink)
        with no_threads(monkeypatch):
            record(broadcaster, "same", "same", "parent")
        yield broadcaster


def test_a_child_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 21: a child has none of the parent's events. It records, counts and delivers its own."""
    sink = ForkedSink()
    with parent(monkeypatch, sink) as broadcaster:
        assert (broadcaster.statistics().recorded, *(w.waiting for w in broadcaster.statistics().watchers)) == (3, 3, 3)
        _lifecycle._after_fork_in_child()
        statistics = broadcaster.statistics()
        assert (statistics.recorded, *(watcher.offered for watcher in statistics.watchers)) == (0, 0, 0)
        record(broadcaster, "same")
        assert broadcaster.flush(PATIENCE)
        assert [(call.verb, call.message, call.count) for call in sink.calls] == [("create", "same", 1)]
        assert broadcaster.statistics().recorded == 1
        check_ledgers(broadcaster.statistics())
    assert sink.forks == 1


@pytest.mark.parametrize("order", [1, -1])
def test_two_in_a_child(monkeypatch: pytest.MonkeyPatch, order: int) -> None:
    """Two broadcasters in a process both start anew in a child, in either order of notification."""
    first, second = ForkedSink(), ForkedSink()
    with parent(monkeypatch, first) as one, parent(monkeypatch, second) as other:
        monkeypatch.setattr(_lifecycle, "_registered", [one._publisher, other._publisher][::order])
        _lifecycle._after_fork_in_child()
        for broadcaster in (one, other):
            record(broadcaster, "child")
            assert broadcaster.flush(PATIENCE)
            assert broadcaster.shutdown() == 0
    assert [first.messages, second.messages] == [["child"]] * 2


def test_ended_broadcasters_stay_ended_in_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broadcaster that was shut down before the fork is also shut down in the child. Nothing waits for its end."""
    with parent(monkeypatch, ForkedSink()) as broadcaster:
        assert broadcaster.shutdown() == 0
        _lifecycle._after_fork_in_child()
        record(broadcaster, "late")
        assert broadcaster.statistics().refused == {DropReason.SHUTDOWN: 1}
        assert broadcaster.shutdown(timeout=3600) == 0
    assert thread_names() == []


def test_a_lock_that_another_thread_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another thread of the parent held during the fork is free in the child."""
    with parent(monkeypatch, ForkedSink()) as broadcaster:
        held = _lifecycle.SHARED.lock
        held.acquire()
        try:
            done = threading.Thread(target=lambda: (_lifecycle._after_fork_in_child(), record(broadcaster, "child")))
            done.start()
            done.join(PATIENCE)
            assert not done.is_alive()
        finally:
            held.release()
        assert broadcaster.statistics().recorded == 1


def test_a_handler_that_forks() -> None:
    """A handler that forks: in the child its batch is discarded, and another thread handles new events."""
    threads: list[str] = []
    forked = threading.Event()

    def handler(_: object) -> None:
        threads.append(f"{threading.get_ident()}")
        if not forked.is_set():
            station.shared.reset()
            station.watcher.after_fork()
            forked.set()

    station = Station(handler)
    station.publish()
    assert forked.wait(PATIENCE)
    join_all()
    assert station.watcher.statistics() == station.ledger()
    station.publish()
    assert station.watcher.flush(None)
    assert station.watcher.statistics() == station.ledger(offered=1, handled=1)
    assert station.watcher.stop() == 0
    assert len(threads) == 2


def test_a_sink_that_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink that forks: in the child its request is discarded without a log line, and its sender ends."""
    forked = threading.Event()

    def fork(_: object) -> None:
        if not forked.is_set():
            _lifecycle._after_fork_in_child()
            forked.set()

    sink = ForkedSink(always=fork)
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(sink)
        with no_threads(monkeypatch):  # the sender is the only thread, as in a child
            record(broadcaster, "parent")
            watcher = broadcaster._publisher.watchers[0]
            crew: Any = watcher.handler
            crew.handle([watcher._queue.popleft()])
        assert forked.wait(PATIENCE)
        join_all()
        assert statistics_of(broadcaster).offered == 0
        record(broadcaster, "child")
        assert broadcaster.flush(PATIENCE)
        ledger = statistics_of(broadcaster).sink
        assert ledger is not None
        assert (ledger.accepted, ledger.delivered) == (1, 1)
        assert sink.messages == ["parent", "child"]


# -- bare threads ----------------------------------------------------------------------------------------------------


@pytest.fixture
def only_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make threads of `threading` unavailable, so that only bare threads can be started."""
    start = threading.Thread.start

    def bare(function: Callable[..., object], arguments: tuple[object, ...]) -> int:
        start(threading.Thread(target=function, args=arguments, name="kevents-bare", daemon=True))
        return 0

    monkeypatch.setattr(_thread, "start_new_thread", bare)
    monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.mark.usefixtures("only_bare")
def test_bare_threads_will_do() -> None:
    """If only bare threads can be started, one handles and one sends, and both count as the broadcaster's own."""
    own: list[bool] = []
    sink = ScriptedSink(always=lambda _: own.append(broadcaster._publisher.owns_this_thread()))
    broadcaster = kevents.EventBroadcaster()
    broadcaster.start_recording_to_sink(sink)
    record(broadcaster, "a", "b")
    assert broadcaster.flush(PATIENCE)
    assert (sorted(sink.messages), own) == (["a", "b"], [True, True])
    assert {call.thread for call in sink.calls} == {"kevents-bare"}
    assert broadcaster.shutdown() == 0
    join_all()
    assert not broadcaster._publisher.owns_this_thread()


def test_a_crew_without_even_a_bare_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that could not be started is forgotten: the next start tries again."""
    sink = ScriptedSink()
    with kevents.EventBroadcaster() as broadcaster:
        crew: Any = broadcaster.start_recording_to_sink(sink).handler
        with no_threads(monkeypatch):
            with pytest.raises(RuntimeError, match="can't create new thread"):
                crew.start()
            assert crew._threads == []
        crew.start()
        crew.start()
        assert len(crew._threads) == 1
        record(broadcaster, "a")
        assert broadcaster.flush(PATIENCE)
    assert sink.messages == ["a"]


# -- the asyncio API -------------------------------------------------------------------------------------------------


class ForkedAsyncSink(AsyncSink):
    """A coroutine sink that counts its forks."""

    forks = 0

    def after_fork(self) -> None:
        """Count the fork."""
        self.forks += 1


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_coroutine_that_forks(monkeypatch: pytest.MonkeyPatch, *, cancelled: bool) -> None:
    """A fork in a running event loop: in the child the parent's tasks end silently, however they end."""

    def fork(_: object) -> None:
        if not sink.forks:
            _lifecycle._after_fork_in_child()
            if cancelled:
                raise asyncio.CancelledError

    sink = ForkedAsyncSink(always=fork)

    async def main() -> None:
        async with aio.EventBroadcaster() as events:
            watcher = events.start_recording_to_sink(sink, senders=1)._watcher
            with no_threads(monkeypatch):
                events.new_recorder("c").event(pod("parent"), "Normal", "R", "parent")
                watcher.handler.handle([watcher._queue.popleft()])
            await sink.wait_calls(1)
            await asyncio.wait([task for task in asyncio.all_tasks() if task.get_name().startswith("kevents-")])
            assert watcher.statistics().offered == 0
            events.new_recorder("c").event(pod("child"), "Normal", "R", "child")
            assert await events.flush(PATIENCE)
            ledger = watcher.statistics().sink
            assert ledger is not None
            assert (ledger.accepted, ledger.delivered, sink.closed) == (1, 1, 0)

    run(main())
    assert sink.messages == (["child"] if cancelled else ["parent", "child"])
    assert (sink.forks, sink.closed) == (1, 1)


def test_several_broadcasters(monkeypatch: pytest.MonkeyPatch) -> None:
    """All broadcasters of a process, of either API, start anew in a child. Their sinks need not support forks."""

    async def main() -> None:
        assert await events.flush(PATIENCE)
        assert await events.shutdown() == 0

    plain, coroutines = ScriptedSink(), AsyncSink()
    with kevents.EventBroadcaster() as broadcaster:
        events = aio.EventBroadcaster()
        broadcaster.start_recording_to_sink(plain)
        events.start_recording_to_sink(coroutines)
        with no_threads(monkeypatch):
            broadcaster.new_recorder("c").event(pod(), "Normal", "R", "parent")
        _lifecycle._after_fork_in_child()
        for recorder in (broadcaster.new_recorder("c"), events.new_recorder("c")):
            recorder.event(pod(), "Normal", "R", "child")
        run(main())
        assert broadcaster.flush(PATIENCE)
    assert (plain.messages, coroutines.messages) == (["child"], ["child"])


def test_a_stream_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child, a stream does not yield events that were handed over in the parent."""

    async def main() -> list[str]:
        async with aio.EventBroadcaster() as events, events.start_event_watcher() as stream:
            watcher = events._core._publisher.watchers[0]
            with no_threads(monkeypatch):
                events.new_recorder("c").event(pod(), "Normal", "R", "parent")
                watcher.handler.begin_stop(0.0)
                watcher.handler.handle([watcher._queue.popleft()])
            _lifecycle._after_fork_in_child()
            events.new_recorder("c").event(pod(), "Normal", "R", "child")
            async for event in stream:
                return [event.message]
        return []

    assert run(main()) == ["child"]
