"""A decider, a work queue and a server in memory with a simulated clock: the requests for events, and their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kevents._correlation.series import SeriesDecider, SeriesOptions
from kevents._model.objects import EventSource, ObjectReference, SeriesEvent
from kevents._queue.outcome import Delivered, Exists, Gone, Outcome, Verb
from kevents._queue.work_item import Attempt, Key, Wait
from kevents._queue.workqueue import WorkQueue

START: Final = 1_784_883_600_123_456_789  # 2026-07-24T09:00:00.123456Z
NANO: Final = 1_000_000_000
POD: Final = ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u-1")
SOURCE: Final = EventSource("example.com/c", "c-1")


def series_event(**fields: Any) -> SeriesEvent:
    """An event about a pod, with the given fields changed."""
    given = {"regarding": POD, "type": "Normal", "reason": "Pulled", "action": "Pulling", "note": "n", "source": SOURCE}
    return SeriesEvent(**{**given, "time": START, "serial": START, **fields})


@dataclass(frozen=True)
class Request:
    """One request to the server."""

    at: float
    verb: str
    name: str
    body: dict[str, Any] = field(compare=False)

    @property
    def count(self) -> int:
        """The number of occurrences in the request."""
        count: int = self.body.get("series", {}).get("count", 1)
        return count


class World:
    """Decides on recorded events, queues and writes them when they are due, like a dispatcher with one sender."""

    def __init__(self, *, backlog: int = 4096, **options: Any) -> None:
        self.now = 0.0
        self.decider = SeriesDecider(SeriesOptions(**options))
        self.queue = WorkQueue(senders=1, backlog=backlog, max_age=3600.0, sleep_duration=10.0, jitter=lambda: 1.0)
        self.requests: list[Request] = []
        self.stored: dict[Key, dict[str, Any]] = {}
        self._serial = START

    def record(self, **fields: Any) -> None:
        """Record an event now, and write all that is due."""
        self.record_batch([fields])

    def record_batch(self, batch: Sequence[dict[str, Any]]) -> None:
        """Record events in one batch, and write all that is due."""
        events = []
        for fields in batch:
            self._serial += 1
            given = {"time": START + round(self.now * NANO), "serial": self._serial, **fields}
            events.append(series_event(**given))
        self.accept(events)

    def accept(self, events: Sequence[SeriesEvent]) -> None:
        """Accept events in one batch, and write all that is due."""
        for event in events:
            if not event.serial:
                self._serial += 1
                event.serial = self._serial
            write = self.decider.decide(event, self.now)
            self.queue.offer(write.state, self.now, present=write.there, due=write.due)
        for key in self.decider.overdue():
            self.queue.flush_now(self.now, key)
        self.deliver()

    def deliver(self) -> float | None:
        """Write all that is due. Returns the seconds until the next write."""
        while isinstance(step := self.queue.take(self.now), Attempt):
            self.queue.done(step, self._answer(step), self.now, 1.0)
        return step.seconds if isinstance(step, Wait) else None

    def advance(self, seconds: float) -> None:
        """Let time pass, and perform each write at its due time."""
        end = self.now + seconds
        while (pause := self.deliver()) is not None and self.now + pause <= end:
            self.now += pause
        self.now = end

    def flush(self) -> None:
        """Write all pending events, as flush and shutdown do."""
        self.queue.flush_now(self.now)
        self.deliver()

    def _answer(self, attempt: Attempt) -> Outcome:
        key, body = (attempt.namespace, attempt.name), attempt.body
        self.requests.append(Request(self.now, attempt.verb.value, attempt.name, body))
        if attempt.verb is Verb.CREATE:
            return Exists() if self.stored.setdefault(key, body) is not body else Delivered()
        if key not in self.stored:
            return Gone()
        self.stored[key] = {**self.stored[key], **body}
        return Delivered()

    @property
    def writes(self) -> list[tuple[float, str, int]]:
        """The time, verb and count of each request."""
        return [(request.at, request.verb, request.count) for request in self.requests]
