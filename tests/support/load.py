"""A load of events for runs with faults: recorded at a steady rate, and compared with the events on the server."""

from __future__ import annotations

import statistics
import threading
from collections import Counter
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Final

import kevents
from tests.support.sinks import check_ledgers

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Load", "Witness", "check_ended", "counts_on"]

_PATIENCE: Final = 60.0
_SLOW: Final = 0.005
_SLOWEST: Final = 1.0
"""Generous: calls take 0.1 ms, but machines that run tests are often busy with others."""


class Load:
    """Records events from its own thread; a context manager: `start` and `stop`.

    Every third event is always the same. Another third differs in the message, so that these events are combined after
    a while. The last third differs in the reason, so that each has its own API object.

    Args:
        recorder: The recorder under load.
        namespace: The namespace of the objects.
        rate: Events per second.
        objects: The number of objects.

    Attributes:
        recorded: The number of events recorded so far.
        calls: The duration of each call, in seconds.
        errors: The exceptions that the calls raised; must stay empty.
    """

    def __init__(
        self, recorder: kevents.EventRecorder, namespace: str, *, rate: float = 50.0, objects: int = 4
    ) -> None:
        self.recorded = 0
        self.calls: list[float] = []
        self.errors: list[BaseException] = []
        self._recorder = recorder
        self._pause = 1 / rate
        self._objects = [_pod(namespace, f"web-{number}") for number in range(objects)]
        self._grown = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> Self:
        """Begin to record."""
        self._thread.start()
        return self

    def stop(self) -> int:
        """Stop recording. Returns the number of recorded events."""
        self._ended.set()
        self._thread.join(_PATIENCE)
        if self.errors:
            raise self.errors[0]
        return self.recorded

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def go_on(self, seconds: float) -> None:
        """Wait until the events of that many seconds, at the load's rate, were recorded."""
        with self._grown:
            goal = self.recorded + round(seconds / self._pause)
            if not self._grown.wait_for(lambda: self.recorded >= goal, seconds * 3 + _PATIENCE):
                raise AssertionError(f"only {self.recorded} of {goal} events were recorded")

    @property
    def slowest(self) -> float:
        """The longest call, in seconds."""
        return max(self.calls)

    @property
    def slow(self) -> float:
        """The 99th percentile of the calls, in seconds: the machine may suspend the thread in any of them."""
        return statistics.quantiles(self.calls, n=100)[-1]

    @property
    def usual(self) -> float:
        """The median call, in seconds."""
        return statistics.median(self.calls)

    def __str__(self) -> str:
        """The figures."""
        slowest, usual = self.slowest * 1000, self.usual * 1e6
        return f"{self.recorded} recorded, slowest call {slowest:.2f} ms, median {usual:.0f} us"

    def check_never_waited(self) -> None:
        """Check that no call waited for a request, and that almost none waited at all."""
        assert self.slow < _SLOW
        assert self.slowest < _SLOWEST

    def _run(self) -> None:
        due = monotonic()
        try:
            while not self._ended.wait(max(due - monotonic(), 0.0)):
                due += self._pause
                self._record(self.recorded)
                with self._grown:
                    self.recorded += 1
                    self._grown.notify_all()
        except BaseException as error:  # noqa: BLE001 - stop raises it
            self.errors.append(error)

    def _record(self, number: int) -> None:
        which, turn = number % 3, number // 3
        pod = self._objects[turn % len(self._objects)]
        reason, message = [
            ("BackOff", "back-off restarting failed container"),
            ("Pulled", f"pulled image number {turn}"),
            (f"Step{turn}", "reached"),
        ][which]
        begun = perf_counter()
        self._recorder.event(pod, "Warning" if which == 0 else "Normal", reason, message)
        self.calls.append(perf_counter() - begun)


class Witness:
    """A watcher's handler that computes the API objects which the server must hold: their names and counts.

    It correlates the events itself, since it sees the same events in the same order as the sink's watcher. The result
    is right as long as no event is dropped.

    Args:
        options: The broadcaster's options.

    Attributes:
        counts: The count of each API object, by name.
    """

    def __init__(self, options: kevents.CorrelatorOptions) -> None:
        self.counts: dict[str, int] = {}
        self._correlator = kevents.EventCorrelator(options)

    def __call__(self, event: kevents.Event) -> None:
        """Correlate an event, and keep the count."""
        result = self._correlator.event_correlate(event)
        if result.event is not None:
            self.counts[result.event.name] = result.event.count


def check_ended(found: kevents.Statistics, recorded: int) -> None:
    """Check the three ledgers of a broadcaster whose watchers are idle and whose recording has ended."""
    check_ledgers(found)
    assert found.recorded == recorded
    for watcher in found.watchers:
        assert watcher.offered == found.published
        assert watcher.waiting == 0
        if watcher.sink is not None:
            assert watcher.sink.accepted == watcher.handled


def counts_on(events: list[dict[str, Any]]) -> dict[str, int]:
    """The counts of the API objects, by name. Fails if a name occurs twice."""
    names = Counter(event["metadata"]["name"] for event in events)
    assert [name for name, times in names.items() if times > 1] == []
    return {event["metadata"]["name"]: event["count"] for event in events}


def _pod(namespace: str, name: str) -> dict[str, Any]:
    metadata = {"namespace": namespace, "name": name, "uid": f"uid-of-{name}"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
