"""Outages in simulated time: the work queue and client-go's policy against the same scripted server.

``python -m tests.simulation`` prints two tables; ``docs/reliability.md`` shows rows of the first.
"""

from __future__ import annotations

import heapq
import math
import random
import statistics
import sys
from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any

from kevents._queue.outcome import Delivered, Verb, outcome_of
from kevents._queue.work_item import Attempt, Dropped, Wait
from kevents._queue.workqueue import WorkQueue
from kevents.exceptions import StatusError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SENDERS = 4
BACKLOG = 4096
MAX_AGE = 3600.0
SLEEP = 10.0
CLIENT_GO_QUEUE = 1000
GOOD = "good"
"""The namespace that works, in scenarios with broken ones."""
CLIENT_GO_TRIES = 12


@dataclass(frozen=True)
class Occurrence:
    """The simplest state for a work queue: a name and a count."""

    name: str
    count: int = 1
    namespace: str = "default"

    def to_dict(self) -> dict[str, Any]:
        """Return the body of a create."""
        return {"metadata": {"name": self.name}, "count": self.count}

    def to_patch(self) -> dict[str, Any]:
        """Return the body of a patch."""
        return {"count": self.count}


@dataclass(frozen=True)
class Answer:
    """The server's reaction to a request: its latency, its error, and whether the write succeeds despite an error."""

    latency: float
    error: Exception | None = None
    lands: bool = False


@dataclass(frozen=True)
class Call:
    """A request as a script sees it."""

    now: float
    verb: Verb
    name: str
    number: int
    namespace: str = "default"


@dataclass
class Server:
    """Stores events by name and answers as scripted."""

    script: Callable[[Call], Answer]
    counts: dict[str, int] = field(default_factory=dict)
    calls: int = 0
    calls_by_namespace: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def request(self, now: float, verb: Verb, state: Occurrence) -> tuple[float, Exception | None]:
        """Handle a request and return its latency and error."""
        self.calls += 1
        self.calls_by_namespace[state.namespace] += 1
        answer = self.script(Call(now, verb, state.name, self.calls, state.namespace))
        if answer.error is not None and not answer.lands:
            return answer.latency, answer.error
        error = self.write(verb, state)
        return answer.latency, answer.error or error

    def write(self, verb: Verb, state: Occurrence) -> StatusError | None:
        """Store the state as the API server does."""
        known = state.name in self.counts
        if verb is Verb.CREATE and known:
            return StatusError(409, "AlreadyExists")
        if verb is Verb.PATCH and not known:
            return StatusError(404, "NotFound")
        self.counts[state.name] = state.count
        return None


@dataclass
class Result:
    """The outcome of a scenario."""

    calls: int = 0
    calls_by_namespace: dict[str, int] = field(default_factory=dict)
    lags: list[float] = field(default_factory=list)
    lags_by_namespace: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    lost: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def losses(self) -> int:
        """Number of lost events."""
        return sum(self.lost.values())

    @property
    def worst(self) -> float:
        """The longest time from an event to its delivery, in seconds."""
        return max(self.lags, default=0.0)

    @property
    def median(self) -> float:
        """The median time from an event to its delivery, in seconds."""
        return statistics.median(self.lags) if self.lags else 0.0


@dataclass(frozen=True)
class Scenario:
    """Events as (moment, name) and the server's script. A name can have a namespace as prefix: `namespace/name`."""

    title: str
    arrivals: Sequence[tuple[float, str]]
    script: Callable[[Call], Answer]

    def occurrences(self) -> Iterator[tuple[float, Occurrence]]:
        """Yield the events with their counts."""
        counts: dict[str, int] = defaultdict(int)
        for moment, name in self.arrivals:
            counts[name] += 1
            namespace, _, _ = name.rpartition("/")
            yield moment, Occurrence(name, counts[name], namespace or "default")


class Kevents:
    """The work queue and its senders in simulated time."""

    def __init__(self, scenario: Scenario, seed: int = 1, senders: int = SENDERS, max_age: float = MAX_AGE) -> None:
        share = random.Random(seed)
        self._jitter = lambda: share.uniform(0.5, 1.0)
        self._arrivals = deque(scenario.occurrences())
        self._server = Server(scenario.script)
        self._under_way: list[tuple[float, int, Attempt, Exception | None]] = []
        self._numbers = count()
        self._idle = senders
        self._moments: dict[str, deque[float]] = defaultdict(deque)
        self._result = Result()
        self.queue = WorkQueue(
            senders=senders, backlog=BACKLOG, max_age=max_age, sleep_duration=SLEEP, jitter=self._jitter
        )

    def run(self) -> Result:
        """Run the scenario."""
        now: float | None = 0.0
        while now is not None:
            while self._arrivals and self._arrivals[0][0] <= now:
                self._offer(*self._arrivals.popleft())
            while self._under_way and self._under_way[0][0] <= now:
                self._done(*heapq.heappop(self._under_way))
            wake = self._take(now)
            self._account()
            coming = [self._arrivals[0][0]] if self._arrivals else []
            coming += [self._under_way[0][0]] if self._under_way else []
            coming += [] if wake is None else [wake]
            now = max(min(coming), math.nextafter(now, math.inf)) if coming else None
        self._result.calls = self._server.calls
        self._result.calls_by_namespace = self._server.calls_by_namespace
        self._result.counts = self._server.counts
        assert self.queue.events == 0
        return self._result

    def _offer(self, moment: float, state: Occurrence) -> None:
        self._moments[state.name].append(moment)
        self.queue.offer(state, moment, present=state.count > 1)

    def _take(self, now: float) -> float | None:
        while self._idle:
            step = self.queue.take(now)
            if isinstance(step, Wait):
                return None if step.seconds is None else now + step.seconds
            assert isinstance(step, Attempt)
            assert isinstance(step.state, Occurrence)
            latency, error = self._server.request(now, step.verb, step.state)
            heapq.heappush(self._under_way, (now + latency, next(self._numbers), step, error))
            self._idle -= 1
        return None

    def _done(self, now: float, _: int, attempt: Attempt, error: Exception | None) -> None:
        self._idle += 1
        outcome = outcome_of(attempt.verb, error)
        if isinstance(outcome, Delivered):
            moments = self._moments[attempt.name]
            lags = [now - moments.popleft() for _ in range(attempt.events)]
            self._result.lags += lags
            self._result.lags_by_namespace[attempt.namespace] += lags
        self.queue.done(attempt, outcome, now, min(SLEEP, 2.0**attempt.waits) * self._jitter())

    def _account(self) -> None:
        for notification in self.queue.take_notifications():
            if isinstance(notification, Dropped):
                self._result.lost[str(notification.reason)] += notification.events
                moments = self._moments[notification.state.name]
                if notification.reason == "backlog_full":
                    moments.clear()  # a new key: only the event that was just refused
                for _ in range(min(notification.events, len(moments))):
                    moments.popleft()


def client_go(scenario: Scenario, seed: int = 1) -> Result:
    """client-go's policy: one event at a time. StatusErrors are final, and other errors are retried up to twelve times.

    Its broadcaster never blocks: events that do not fit a full watcher's queue of 1000 are lost.
    """
    share, server, result = random.Random(seed), Server(scenario.script), Result()
    arrivals = deque(scenario.occurrences())
    waiting: deque[tuple[float, Occurrence]] = deque()
    now = 0.0
    while arrivals or waiting:
        if not waiting:
            now = max(now, arrivals[0][0])
        while arrivals and arrivals[0][0] <= now:
            event = arrivals.popleft()
            if len(waiting) < CLIENT_GO_QUEUE:
                waiting.append(event)
            else:
                result.lost["queue full"] += 1
        moment, state = waiting.popleft()
        now, lost = _client_go_write(server, state, now, share)
        if lost:
            result.lost[lost] += 1
        else:
            result.lags.append(now - moment)
            result.lags_by_namespace[state.namespace].append(now - moment)
    result.calls, result.counts, result.calls_by_namespace = server.calls, server.counts, server.calls_by_namespace
    return result


def _client_go_write(server: Server, state: Occurrence, now: float, share: random.Random) -> tuple[float, str]:
    for tries in range(CLIENT_GO_TRIES):
        if tries:
            now += SLEEP * (share.random() if tries == 1 else 1.0)
        error: Exception | None = None
        for verb in (Verb.PATCH, Verb.CREATE) if state.count > 1 else (Verb.CREATE,):
            latency, error = server.request(now, verb, state)
            now += latency
            if not (isinstance(error, StatusError) and error.code == 404 and verb is Verb.PATCH):
                break
        if error is None:
            return now, ""
        if isinstance(error, StatusError):
            return now, f"final {error.code}"
    return now, "tries"


# -- scenarios -------------------------------------------------------------------------------------------------------

QUICK = Answer(0.005)
REFUSED = Answer(0.002, UnavailableError("connection refused"))
TIMED_OUT = Answer(15.0, UnavailableError("timed out"))


def status(code: int, latency: float = 0.005, retry_after: float | None = None) -> Answer:
    """Return an answer with that status."""
    return Answer(latency, StatusError(code, retry_after=retry_after))


@cache
def steady(rate: float, seconds: float, objects: int | None = None) -> tuple[tuple[float, str], ...]:
    """Return events at a steady rate, each about a new object or about `objects` objects in turns."""
    total = round(rate * seconds)
    return tuple((number / rate, f"e{number if objects is None else number % objects}") for number in range(total))


def out_until(end: float, answer: Callable[[Call], Answer]) -> Callable[[Call], Answer]:
    """Return a script that uses `answer` until `end` and succeeds afterwards."""
    return lambda call: answer(call) if call.now < end else QUICK


def coin(seed: int, heads: Answer, tails: Answer) -> Callable[[Call], Answer]:
    """Return a script that chooses between two answers at random."""
    chance = random.Random(seed)
    return lambda _: heads if chance.random() < 0.5 else tails


def mixed(call: Call) -> Answer:
    """A server whose storage fails, with status 500 and time-outs in turns."""
    return TIMED_OUT if call.number % 2 else status(500)


def poisoned(name: str, answer: Answer) -> Callable[[Call], Answer]:
    """Return a script that uses `answer` for events whose name ends with `name` and succeeds otherwise."""
    return lambda call: answer if call.name.endswith(name) else QUICK


def broken(*namespaces: str, answer: Answer | None = None) -> Callable[[Call], Answer]:
    """Return a script that fails all requests of some namespaces, by default with 500, and succeeds otherwise."""
    return lambda call: (answer or status(500)) if call.namespace in namespaces else QUICK


@cache
def beside(
    broken_events: int, *namespaces: str, seconds: float = 600, rate: float = 1000
) -> tuple[tuple[float, str], ...]:
    """Return events spread over broken namespaces, and ten a second of a working one."""
    bad = [(number / rate, f"{namespaces[number % len(namespaces)]}/e{number}") for number in range(broken_events)]
    return tuple(sorted(bad + [(moment, f"{GOOD}/{name}") for moment, name in steady(10, seconds)]))


def scenarios(part: float = 1.0) -> list[Scenario]:
    """Return all scenarios with fresh scripts, which may have state.

    Args:
        part: The part of the events to use where more of the same only take more time: the scenario is shorter, or
            has fewer events per second than its title says. Outages have all their events.
    """
    refused, busy, down = (lambda _: REFUSED), (lambda _: status(429, retry_after=5)), (lambda _: status(503))
    slow = lambda _: Answer(0.02)  # noqa: E731
    landed = Answer(15.0, UnavailableError("timed out"), lands=True)
    return [
        Scenario("no connection for 60 s, 50 new events/s", steady(50, 120), out_until(60, refused)),
        Scenario("no connection for 300 s, 50/s on 500 objects", steady(50, 330, 500), out_until(300, refused)),
        Scenario("no connection for 300 s, 50 new events/s", steady(50, 330), out_until(300, refused)),
        Scenario("503 for 300 s, 3,000 new events in that time", steady(10, 300), out_until(300, down)),
        Scenario("503 for 300 s, 3,000 new events at its start", steady(1000, 3), out_until(300, down)),
        Scenario("500 and time-outs mixed for 300 s, 10 new/s", steady(10, 330), out_until(300, mixed)),
        Scenario("429 with Retry-After: 5 for 30 s, 50 new/s", steady(50, 60), out_until(30, busy)),
        Scenario("503 to half of the calls by chance, 50 new/s", steady(50, 300 * part), coin(1, status(503), QUICK)),
        Scenario("a server that needs 20 ms, 200 new events/s", steady(200, 60 * part), slow),
        Scenario("a server that needs 20 ms, 1,000/s on 20 objects", steady(1000, 60 * part, 20), slow),
        Scenario("every 100th event always met by 500, 50 new/s", steady(50 * part, 240), poisoned("00", status(500))),
        Scenario("one event always times out, 50 new events/s", steady(50 * part, 600), poisoned("e7", TIMED_OUT)),
        Scenario(
            "the first create times out, but landed",
            steady(10, 1, 1),
            lambda call: landed if call.number == 1 else QUICK,
        ),
        *(
            Scenario(
                f"500 to {number:,} events of one namespace, 10/s of another",
                beside(number, "bad", seconds=600 * part),
                broken("bad"),
            )
            for number in (4, 60, 200, 600, 5000)
        ),
        Scenario(
            "500 to 600 events of two namespaces, 10/s of another",
            beside(600, "b1", "b2", seconds=600 * part),
            broken("b1", "b2"),
        ),
        Scenario(
            "500 to 50 new events/s of one namespace, 10/s of another",
            beside(round(15_000 * part), "bad", seconds=300 * part, rate=50),
            broken("bad"),
        ),
        Scenario(
            "500 after 10 s to 60 events of one namespace, 10/s of another",
            beside(60, "bad", seconds=600 * part),
            broken("bad", answer=status(500, latency=10.0)),
        ),
    ]


def main() -> None:
    """Print both tables."""
    outages: list[tuple[str, ...]] = [
        ("scenario", "events", "lost", "calls", "median", "worst", "lost", "calls", "median", "worst"),
        ("---",) * 10,
    ]
    namespaces: list[tuple[str, ...]] = [
        ("scenario", "lost", "median", "worst", "calls for the broken", "lost", "median", "worst"),
        ("---",) * 8,
    ]
    for ours, theirs in zip(scenarios(), scenarios(), strict=True):
        results = (Kevents(ours).run(), client_go(theirs))
        if GOOD in results[0].lags_by_namespace:
            good = sum(name.startswith(f"{GOOD}/") for _, name in ours.arrivals)
            lost, *delays = _healthy(results[0], good)
            broken_calls = results[0].calls - results[0].calls_by_namespace[GOOD]
            namespaces.append((ours.title, lost, *delays, f"{broken_calls:,}", *_healthy(results[1], good)))
        else:
            outages.append((ours.title, f"{len(ours.arrivals):,}", *_all(results[0]), *_all(results[1])))
    for row in (*outages, (), *namespaces):
        sys.stdout.write("| " + " | ".join(row) + " |\n" if row else "\n")


def _all(result: Result) -> tuple[str, ...]:
    return f"{result.losses:,}", f"{result.calls:,}", f"{result.median:.1f} s", f"{result.worst:.1f} s"


def _healthy(result: Result, events: int) -> tuple[str, ...]:
    lags = result.lags_by_namespace[GOOD]
    return f"{events - len(lags):,}", f"{statistics.median(lags):.2f} s", f"{max(lags):.2f} s"


if __name__ == "__main__":
    main()
