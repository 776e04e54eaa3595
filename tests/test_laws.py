"""Laws that hold for any order of calls: the work queue is compared with a simple model of itself and a server."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kevents._model.statistics import DropReason
from kevents._queue.outcome import Delivered, Exists, Failed, Gone, Outcome, Rejected, Unavailable, Verb, outcome_of
from kevents._queue.work_item import CLOSED, Attempt, Dropped, Wait
from kevents._queue.workqueue import WorkQueue
from kevents.exceptions import StatusError, UnavailableError
from tests.simulation import Answer, Occurrence, Server

NAMES = [f"e{number}" for number in range(7)]
SENDERS = 3
BACKLOG = 5
MAX_AGE = 100.0
OUTCOMES = {
    "answered": Answer(0),
    "landed, answer lost": Answer(0, UnavailableError("timed out"), lands=True),
    "landed, request failed": Answer(0, RuntimeError("broken"), lands=True),
    "failed": Answer(0, RuntimeError("broken")),
    "unavailable": Answer(0, UnavailableError("refused", retry_after=2.0)),
    "overloaded": Answer(0, StatusError(503, retry_after=20.0)),
    "rejected": Answer(0, StatusError(422, "Invalid")),
    "forbidden": Answer(0, StatusError(403, "Forbidden")),
}
SECONDS = st.sampled_from([0.0, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0])


@dataclass
class Model:
    """The pending events of one name, as in the tables of the design: offers by number, oldest first."""

    server_state: str
    due: float
    ages_from: float
    by_choice: bool
    state: Occurrence
    carried: list[int] = field(default_factory=list)
    later: list[int] = field(default_factory=list)
    later_due: float | None = None
    attempt: Attempt | None = None
    heard: int | None = None
    tries: int = 0
    changes: int = 0
    failed: bool = False
    hurried: bool = False

    @property
    def verb(self) -> Verb:
        """The verb follows from the server state."""
        return Verb.PATCH if self.server_state == "present" else Verb.CREATE


class QueueMachine(RuleBasedStateMachine):
    """Offers, attempts with every outcome, passing time, expiry, flush and shutdown, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.server = Server(lambda _: self.answer)
        self.answer = OUTCOMES["answered"]
        self.offered: Counter[str] = Counter()
        self.offers = 0
        self.models: dict[str, Model] = {}
        self.lost: Counter[DropReason] = Counter()
        self.delivered = 0
        self.acknowledged: dict[str, int] = {}
        self.answers: list[str] = []
        self.streak: set[str] = set()
        self.breaker_open = False
        self.last_unavailable = -math.inf
        self.is_lost = False
        self.longest_wait = math.inf
        self.marks: list[int] = []
        self.closed = False
        self.ended: list[Attempt] = []

    @initialize()
    def build(self) -> None:
        """Build the queue. Its jitter never shortens a pause."""
        self.queue = WorkQueue(
            senders=SENDERS, backlog=BACKLOG, max_age=MAX_AGE, sleep_duration=10.0, jitter=lambda: 1.0
        )

    # -- rules ---------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), delay=st.none() | st.sampled_from([1.0, 30.0, 1800.0]))
    def offer(self, name: str, delay: float | None) -> None:
        """Offer an event. With a delay it may wait, as a series does."""
        self.offers += 1
        self.offered[name] += 1
        state = Occurrence(name, self.offered[name])
        draining = self.longest_wait < math.inf  # during a shutdown no event is delayed
        due = None if delay is None else self.now if draining else self.now + delay
        full = name not in self.models and due is None and self._size() >= BACKLOG
        self.queue.offer(state, self.now, present=state.count > 1, due=None if delay is None else self.now + delay)
        self._read_notifications(refused=state if self.closed or full else None)
        model = self.models.get(name)
        if self.closed or (full and self._last_refused):
            return
        if model is None:
            server_state = "present" if state.count > 1 else "absent"
            at = self.now if due is None else due
            self.models[name] = Model(server_state, at, self.now, due is not None, state, [self.offers])
            return
        model.ages_from = self.now
        if model.attempt is None:
            model.carried.append(self.offers)
            model.state = state
            if model.by_choice:
                model.by_choice, model.due = due is not None, self.now if due is None else due
        else:
            if not model.later or model.later_due is not None:
                model.later_due = due
            model.later.append(self.offers)
            model.state = state

    @rule()
    def take(self) -> None:
        """Take a step: no attempt is early or concurrent with another of its name, and it has the newest state."""
        one_probes = any(model.attempt is not None and model.attempt is self.probe for model in self.models.values())
        breaker_open = self.breaker_open
        step = self.queue.take(self.now)
        self._read_notifications()
        assert not [name for name, model in self.models.items() if self._overdue(model)]
        if self.closed:
            assert CLOSED is step
            return
        if isinstance(step, Wait):
            assert step.seconds is None or step.seconds > 0
            assert step.version == self.queue.version
            if not breaker_open:
                assert (None if step.seconds is None else self.now + step.seconds) == pytest.approx(self._next_due())
            return
        assert isinstance(step, Attempt)
        model = self.models[step.name]
        assert model.attempt is None
        assert (step.verb, step.state, step.events) == (model.verb, model.state, len(model.carried))
        if breaker_open:
            assert not one_probes
            self.probe = step
        else:
            assert model.due <= self.now
        self._under_way_with(model, step)
        model.heard = len(self.answers) if model.heard is None else model.heard

    probe: Attempt | None = None

    @precondition(lambda self: self._under_way())
    @rule(data=st.data(), outcome=st.sampled_from(sorted(OUTCOMES)), wait=st.sampled_from([0.0, 0.5, 4.0, 10.0]))
    def finish(self, data: st.DataObject, outcome: str, wait: float) -> None:
        """End an attempt with any outcome."""
        attempt = data.draw(st.sampled_from(self._under_way()))
        self.answer = OUTCOMES[outcome]
        assert isinstance(attempt.state, Occurrence)
        before = self.server.counts.get(attempt.name, 0)
        _, error = self.server.request(self.now, attempt.verb, attempt.state)
        assert self.server.counts.get(attempt.name, 0) >= before
        outcome = outcome_of(attempt.verb, error)
        self.queue.done(attempt, outcome, self.now, wait)
        self.ended.append(attempt)
        self._settle(attempt, outcome, wait)
        self._read_notifications()

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(name=st.sampled_from(NAMES))
    def server_forgets(self, name: str) -> None:
        """Let an event expire on the server."""
        self.server.counts.pop(name, None)
        self.acknowledged.pop(name, None)

    @rule()
    def mark(self) -> None:
        """Begin a flush."""
        assert self.queue.mark() == self.offers
        self.marks.append(self.offers)

    @rule()
    def hasten(self) -> None:
        """Make all pending events due, as a flush does."""
        self.queue.flush_now(self.now)
        self._hurried()

    @rule(name=st.sampled_from(NAMES))
    def hasten_one(self, name: str) -> None:
        """Make the last count of an evicted series due now. A retry keeps its time."""
        self.queue.flush_now(self.now, ("default", name))
        chosen = self.models.get(name)
        if chosen is not None and (chosen.by_choice or chosen.attempt is not None):
            self._hastened({name: chosen})

    @precondition(lambda self: self.offers > 5)
    @rule()
    def drain(self) -> None:
        """Begin a shutdown."""
        self.longest_wait = 0.25
        self.queue.begin_stop(self.now, self.longest_wait, math.inf)
        self._hurried()

    @precondition(lambda self: self.offers > 15)
    @rule()
    def close(self) -> None:
        """Close the queue: all pending events are dropped, in flight or not, and late answers change nothing."""
        pending = sum(len(model.carried) + len(model.later) for model in self.models.values())
        assert self.queue.close() == pending
        self.closed = True
        late = self._under_way()
        self._read_notifications()
        assert self.models == {}
        for attempt in late:
            before = vars(self.queue).copy()
            self.queue.done(attempt, Delivered(), self.now, 0.0)
            assert vars(self.queue) == before

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def answer_twice(self, data: st.DataObject) -> None:
        """End an attempt a second time: nothing changes."""
        before = vars(self.queue).copy()
        self.queue.done(data.draw(st.sampled_from(self.ended)), Rejected(422, ""), self.now, 0.0)
        assert vars(self.queue) == before

    # -- laws ----------------------------------------------------------------------------------------------------

    @invariant()
    def ledger(self) -> None:
        """Each event is delivered, dropped or pending, and every drop has a notification."""
        if not hasattr(self, "queue"):
            return
        queue = self.queue
        assert queue.delivered + queue.dropped.total() + queue.events == self.offers
        assert (queue.delivered, queue.dropped) == (self.delivered, self.lost)
        assert queue.rejected_by_code.total() == self.lost[DropReason.REJECTED]
        assert queue.notifications == []

    @invariant()
    def pending(self) -> None:
        """The pending keys, events and attempts match the model, and so do the flush marks."""
        if not hasattr(self, "queue"):
            return
        carried = [len(model.carried) + len(model.later) for model in self.models.values()]
        assert (self.queue.keys, self.queue.events) == (len(carried), sum(carried))
        assert self.queue.in_flight == len(self._under_way())
        oldest = min((model.carried[0] for model in self.models.values()), default=math.inf)
        for mark in self.marks:
            assert self.queue.flushed(mark) == (oldest > mark)

    @invariant()
    def breaker(self) -> None:
        """The circuit breaker is open exactly when the model's is."""
        if hasattr(self, "queue"):
            assert self.queue.breaker.open == self.breaker_open

    def teardown(self) -> None:
        """In the end all events are delivered or expired, and the server holds at least the acknowledged counts."""
        self.answer = OUTCOMES["answered"]
        for _ in range(400):
            for attempt in self._under_way():
                self.finish_well(attempt)
            step = self.queue.take(self.now)
            self._read_notifications()
            if isinstance(step, Attempt):
                self._under_way_with(self.models[step.name], step)
            elif isinstance(step, Wait) and step.seconds is not None:
                self.now += math.nextafter(step.seconds, math.inf)
            else:
                break
        assert (self.queue.events, self.models) == (0, {})
        for name, count in self.acknowledged.items():
            assert count <= self.server.counts[name]  # more, if a write was stored but its answer was lost

    def finish_well(self, attempt: Attempt) -> None:
        """End an attempt with the server's answer."""
        assert isinstance(attempt.state, Occurrence)
        _, error = self.server.request(self.now, attempt.verb, attempt.state)
        outcome = outcome_of(attempt.verb, error)
        self.queue.done(attempt, outcome, self.now, 1.0)
        self._settle(attempt, outcome, 1.0)
        self._read_notifications()

    # -- the model -----------------------------------------------------------------------------------------------

    _last_refused = False

    def _under_way_with(self, model: Model, attempt: Attempt) -> None:
        if model.by_choice:
            model.ages_from = max(model.ages_from, model.due)
        model.attempt, model.by_choice = attempt, False

    def _under_way(self) -> list[Attempt]:
        return [model.attempt for model in self.models.values() if model.attempt is not None]

    def _next_due(self) -> float | None:
        """The next due time. Keys that failed before leave one sender to the others."""
        failing = sum(model.failed for model in self.models.values() if model.attempt is not None)
        waiting = [model for model in self.models.values() if model.attempt is None]
        free = [model.due for model in waiting if not model.failed or failing < SENDERS - 1]
        return min(free, default=None)

    def _size(self) -> int:
        return sum(not model.by_choice for model in self.models.values())

    def _overdue(self, model: Model) -> bool:
        return model.attempt is None and not model.by_choice and model.ages_from + MAX_AGE <= self.now

    def _hurried(self) -> None:
        """Waiting items are due now. Items in flight retry without a pause, unless the server asks for one."""
        self._hastened(self.models)
        for model in self.models.values():
            model.hurried |= model.attempt is not None

    def _hastened(self, models: dict[str, Model]) -> None:
        for model in models.values():
            model.later_due = None
            if model.attempt is None and model.due > self.now:
                if model.by_choice:
                    model.ages_from = self.now
                model.due, model.by_choice = self.now, False

    def _read_notifications(self, refused: Occurrence | None = None) -> None:
        notifications = self.queue.take_notifications()
        self._last_refused = False
        for notification in notifications:
            if not isinstance(notification, Dropped):
                continue
            self.lost[notification.reason] += notification.events
            if notification.state is refused:
                expected = DropReason.SHUTDOWN if self.closed else DropReason.BACKLOG_FULL
                assert (notification.reason, notification.events) == (expected, 1)
                self._last_refused = True
            elif notification.reason in (DropReason.EXPIRED, DropReason.SHUTDOWN):
                self._ended_waiting(notification)
            else:
                assert self.expected_drop == notification
                self.expected_drop = None
        assert self.expected_drop is None

    expected_drop: Dropped | None = None

    def _ended_waiting(self, notification: Dropped) -> None:
        model = self.models.pop(notification.state.name)
        assert self._overdue(model) or self.closed
        assert (notification.state, notification.events) == (model.state, len(model.carried) + len(model.later))

    def _settle(self, attempt: Attempt, outcome: Outcome, wait: float) -> None:
        """Apply the table of server states and outcomes."""
        model = self.models[attempt.name]
        model.attempt = None
        if outcome == Rejected(403, "Forbidden") and self.now - self.last_unavailable <= 30:
            outcome = Failed("403 Forbidden: ")
        others = [name for name in self.answers[model.heard or 0 :] if name != attempt.name]
        charged = bool(others) or not isinstance(outcome, Unavailable)
        self._listen(attempt, outcome)
        model.heard = len(self.answers)
        match model.server_state, outcome:
            case _, Delivered():
                assert isinstance(attempt.state, Occurrence)
                self.delivered += attempt.events
                self.acknowledged[attempt.name] = attempt.state.count
                assert self.server.counts[attempt.name] == attempt.state.count
                self._end(attempt)
            case "present", Gone():
                self._change(attempt, "unknown", outcome, wait)
            case "unknown", Exists():
                self._change(attempt, "present", outcome, wait)
            case "absent", Exists():
                rejected = Rejected(409, "AlreadyExists", quiet=True)
                self._drop(attempt, DropReason.REJECTED, attempt.verb, rejected)
            case _, Rejected():
                self._drop(attempt, DropReason.REJECTED, attempt.verb, outcome)
            case _, (Failed(after=after) | Unavailable(after=after)):
                model.changes = 0
                wait, model.hurried = 0.0 if model.hurried else wait, False
                self._retry(attempt, outcome, max(wait, after or 0), charged=charged)
            case unexpected:
                raise AssertionError(unexpected)

    def _change(self, attempt: Attempt, server_state: str, outcome: Outcome, wait: float) -> None:
        model = self.models[attempt.name]
        model.server_state = server_state
        model.changes += 1
        if model.changes > 12:
            self._retry(attempt, outcome, wait, charged=True)
        else:
            self._join(model, -math.inf)

    def _retry(self, attempt: Attempt, outcome: Outcome, wait: float, *, charged: bool) -> None:
        model = self.models[attempt.name]
        model.server_state = "unknown" if model.server_state == "absent" else model.server_state
        model.failed = True
        model.tries += charged and self.longest_wait == math.inf
        if model.tries == 12:
            self._drop(attempt, DropReason.RETRIES_EXHAUSTED, None, outcome)
        else:
            self._join(model, self.now + min(wait, self.longest_wait))

    def _join(self, model: Model, due: float) -> None:
        model.carried += model.later
        model.later, model.later_due = [], None
        model.due = due

    def _drop(self, attempt: Attempt, reason: DropReason, verb: Verb | None, outcome: Outcome) -> None:
        self.expected_drop = Dropped(reason, attempt.state, attempt.events, verb, outcome)
        self._end(attempt)

    def _end(self, attempt: Attempt) -> None:
        model = self.models.pop(attempt.name)
        if model.later:
            due, by_choice = (self.now, False) if model.later_due is None else (model.later_due, True)
            fresh = Model("present", due, model.ages_from, by_choice, model.state, model.later)
            self.models[attempt.name] = fresh

    def _listen(self, attempt: Attempt, outcome: Outcome) -> None:
        if isinstance(outcome, Unavailable):
            self.last_unavailable = self.now
            self.streak.add(attempt.name)
            self.breaker_open |= len(self.streak) >= SENDERS
        else:
            self.answers.append(attempt.name)
            self.streak.clear()
            self.breaker_open = False
            self.probe = None
        if self.probe is attempt:
            self.probe = None


QueueMachine.TestCase.settings = settings(max_examples=75, stateful_step_count=80)
TestWorkQueue = QueueMachine.TestCase
TestWorkQueue.__doc__ = "The work queue does what the model says, in every order of calls."


@pytest.mark.slow
class TestWorkQueueLong(QueueMachine.TestCase):  # type: ignore[misc]
    """The same, with more orders of calls."""

    settings = settings(max_examples=300, stateful_step_count=80)


OUTCOMES_ANYWHERE = st.sampled_from(
    [
        Delivered(),
        Gone(),
        Exists(),
        Rejected(422, "Invalid"),
        Failed("broken"),
        Unavailable("down"),
        Unavailable("x", 3.0),
    ]
)


class NamespacesMachine(RuleBasedStateMachine):
    """Events of several namespaces with any outcome: every event is accounted for, and nothing gets stuck."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.offered = 0
        self.offers: Counter[tuple[str, str]] = Counter()
        self.under_way: list[Attempt] = []
        self.queue = WorkQueue(
            senders=SENDERS, backlog=BACKLOG, max_age=MAX_AGE, sleep_duration=10.0, jitter=lambda: 1.0
        )

    @rule(
        namespace=st.sampled_from("abc"),
        name=st.sampled_from(NAMES[:4]),
        delay=st.none() | st.sampled_from([1.0, 30.0]),
    )
    def offer(self, namespace: str, name: str, delay: float | None) -> None:
        """Offer an event."""
        self.offered += 1
        self.offers[namespace, name] += 1
        count = self.offers[namespace, name]
        due = None if delay is None else self.now + delay
        self.queue.offer(Occurrence(name, count, namespace), self.now, present=count > 1, due=due)

    @rule()
    def take(self) -> None:
        """Give an idle sender a step."""
        step = self.queue.take(self.now)
        if isinstance(step, Attempt):
            self.under_way.append(step)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), outcome=OUTCOMES_ANYWHERE, wait=SECONDS)
    def done(self, data: st.DataObject, outcome: Outcome, wait: float) -> None:
        """End a request."""
        attempt = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))
        self.queue.done(attempt, outcome, self.now, wait)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule()
    def flush(self) -> None:
        """Flush."""
        self.queue.flush_now(self.now)

    @invariant()
    def sums(self) -> None:
        """Each event is delivered, dropped or pending. Each item is in one namespace. The counters match the items."""
        queue = self.queue
        assert self.offered == queue.delivered + queue.dropped.total() + queue.events
        namespaces = queue._namespaces.values()
        assert {key for namespace in namespaces for key in namespace.items} == set(queue._items)
        assert queue.in_flight == sum(namespace.in_flight for namespace in namespaces) == len(self.under_way)
        assert queue._size == sum(not item.by_choice for item in queue._items.values())

    @invariant()
    def probes(self) -> None:
        """An open namespace has one item in the delay queue or one probe in flight. A closed one has all its items."""
        for namespace in self.queue._namespaces.values():
            waiting = [item for item in namespace.items.values() if item.attempt is None]
            queued = [item for item in waiting if item.order]
            if not namespace.breaker.open:
                assert queued == waiting
            elif namespace.breaker.probe is not None:
                assert queued == []
            else:
                assert queued == ([namespace.probe] if waiting else [])

    def teardown(self) -> None:
        """After all answers, every pending event ends soon."""
        for attempt in self.under_way:
            self.queue.done(attempt, Delivered(), self.now, 1.0)
        for _ in range(200):
            match self.queue.take(self.now):
                case Attempt() as attempt:
                    self.queue.done(attempt, Delivered(), self.now, 1.0)
                case Wait(None, _):
                    break
                case Wait(seconds, _):
                    assert seconds is not None
                    self.now += seconds
        assert (self.queue.keys, self.queue.events) == (0, 0)


NamespacesMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=60)
TestNamespaces = NamespacesMachine.TestCase
TestNamespaces.__doc__ = "Namespaces fail apart, in every order of calls."


@pytest.mark.slow
class TestNamespacesLong(NamespacesMachine.TestCase):  # type: ignore[misc]
    """The same, with more orders of calls."""

    settings = settings(max_examples=150, stateful_step_count=60)
