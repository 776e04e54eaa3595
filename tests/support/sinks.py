"""Test doubles in memory: a sink that follows a script, and a gate that holds its callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import kevents
from kevents import ObjectReference

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "PATIENCE",
    "Call",
    "Gate",
    "ScriptedSink",
    "about",
    "await_end",
    "check_ledgers",
    "join_all",
    "pod",
    "statistics_of",
    "thread_names",
]

PATIENCE: Final = 60.0
"""Seconds after which a test gives up waiting for an event that should be immediate."""


def pod(name: str = "web-0") -> dict[str, Any]:
    """A pod's manifest."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "prod", "uid": f"uid-{name}"}}


def about(name: str = "web-0") -> ObjectReference:
    """A reference to a pod."""
    return ObjectReference(kind="Pod", api_version="v1", namespace="prod", name=name, uid=f"uid-{name}")


def thread_names(part: str = "kevents") -> list[str]:
    """The names of live threads that contain `part`."""
    return sorted(thread.name for thread in threading.enumerate() if part in thread.name)


def join_all() -> None:
    """Join all threads of kevents."""
    for thread in threading.enumerate():
        if thread.name.startswith("kevents"):
            thread._started.wait(PATIENCE)  # type: ignore[attr-defined]
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread.name


def await_end(broadcaster: kevents.EventBroadcaster, *others: kevents.Watcher) -> None:
    """After a shutdown that timed out: wait until the last worker, which may only just be starting, has ended."""
    for watcher in (*broadcaster._publisher.watchers, *others):
        with watcher._shared.lock:
            worker = watcher._worker
            assert worker.changed.wait_for(lambda worker=worker: worker.ended, PATIENCE)  # type: ignore[misc]
    join_all()


class Gate:
    """Callers of :meth:`pass_through` are counted, and held while it is shut.

    Attributes:
        entered: The number of callers so far.
    """

    def __init__(self, *, shut: bool = False) -> None:
        self._condition = threading.Condition()
        self._shut = shut
        self.entered = 0

    def shut(self) -> None:
        """Hold all later callers."""
        with self._condition:
            self._shut = True

    def open(self) -> None:
        """Release all callers."""
        with self._condition:
            self._shut = False
            self._condition.notify_all()

    def pass_through(self, _: object = None) -> None:
        """Wait while it is shut. Usable as an event handler."""
        with self._condition:
            self.entered += 1
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: not self._shut, 2 * PATIENCE)

    def wait_entered(self, number: int = 1) -> None:
        """Wait until that number of callers has arrived."""
        with self._condition:
            assert self._condition.wait_for(lambda: self.entered >= number, PATIENCE), self.entered


@dataclass(eq=False)
class Call:
    """One request to the sink."""

    verb: str
    namespace: str
    name: str
    body: dict[str, Any] = field(repr=False)
    thread: str = ""

    @property
    def message(self) -> str:
        """The event's message."""
        return str(self.body.get("message", ""))

    @property
    def count(self) -> int:
        """The event's count."""
        return int(self.body["count"])


Fault = Callable[[Call], object]


class ScriptedSink:
    """Records the requests, and fails by call number, from 1.

    Args:
        faults: For a call's number an exception to raise, or a function to call with the call.
        always: The same for every other call.
        gate: The gate that every call passes first.

    Attributes:
        calls: All requests, including failed ones.
        written: The requests that succeeded.
        doubled: Keys that had two concurrent writes; must stay empty.
        most_at_once: The highest number of concurrent calls.
    """

    def __init__(
        self,
        faults: dict[int, BaseException | Fault] | None = None,
        always: BaseException | Fault | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.faults = faults or {}
        self.always = always
        self.gate = gate or Gate()
        self.calls: list[Call] = []
        self.written: list[Call] = []
        self.doubled: list[tuple[str, str]] = []
        self.most_at_once = 0
        self._under_way: list[tuple[str, str]] = []
        self._changed = threading.Condition()

    def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event."""
        self._call(Call("create", namespace, body["metadata"]["name"], body, threading.current_thread().name))

    def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Patch an event."""
        self._call(Call("patch", namespace, name, patch, threading.current_thread().name))

    def _call(self, call: Call) -> None:
        with self._under(call):
            self.gate.pass_through()
            fault = self.faults.get(self.calls.index(call) + 1, self.always)
            if isinstance(fault, BaseException):
                raise fault
            if fault is not None:
                fault(call)
            with self._changed:
                self.written.append(call)
                self._changed.notify_all()

    @contextmanager
    def _under(self, call: Call) -> Iterator[None]:
        key = call.namespace, call.name
        with self._changed:
            self.calls.append(call)
            if key in self._under_way:
                self.doubled.append(key)
            self._under_way.append(key)
            self.most_at_once = max(self.most_at_once, len(self._under_way))
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._under_way.remove(key)

    def wait_calls(self, number: int) -> None:
        """Wait until that number of requests has arrived."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.calls) >= number, PATIENCE), len(self.calls)

    @property
    def messages(self) -> list[str]:
        """The messages of the written events."""
        return [call.message for call in self.written]


def statistics_of(broadcaster: kevents.EventBroadcaster, number: int = 0) -> kevents.WatcherStatistics:
    """The statistics of one watcher."""
    return broadcaster.statistics().watchers[number]


def check_ledgers(statistics: kevents.Statistics) -> None:
    """Check the three laws of the ledgers, and that no value is negative."""
    values = [statistics.recorded, statistics.no_watcher, statistics.published, *statistics.refused.values()]
    assert sum(statistics.refused.values()) + statistics.no_watcher + statistics.published == statistics.recorded
    for watcher in statistics.watchers:
        ended = (watcher.queue_full, watcher.shutdown, watcher.handled, watcher.failed, watcher.waiting)
        assert sum(ended) == watcher.offered
        values += ended
        if watcher.sink is not None:
            values += _checked_sink(watcher.sink)
    assert [value for value in values if value < 0] == []


def _checked_sink(sink: kevents.SinkStatistics) -> Iterable[int]:
    ended = (sink.spam_filtered, sink.delivered, *sink.dropped.values(), sink.backlog)
    assert sum(ended) == sink.accepted
    return [*ended, sink.in_flight, sink.merged]
