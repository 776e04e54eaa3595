"""The dispatcher, the part of a watcher that serves a sink: accepting events, handing out attempts, ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from tenacity.wait import wait_fixed

from kevents import CorrelatorOptions, Event, EventSource, UnavailableError
from kevents._correlation.correlator import CoreDecider
from kevents._delivery.dispatcher import Dispatcher, default_retry_wait
from kevents._delivery.drop_reporter import DropReporter
from kevents._delivery.handlers import Handled
from kevents._model.statistics import DropReason
from kevents._queue.outcome import Delivered, Exists, Failed, Gone, Rejected, Unavailable, Verb
from kevents._queue.work_item import CLOSED, Attempt, Wait
from kevents._runtime.log import LimitedLog
from tests.support.sinks import PATIENCE, about

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from kevents._correlation.correlator import Write

DELIVERED = Delivered()


class Setup:
    """A dispatcher, and its reported drops."""

    def __init__(self, options: CorrelatorOptions | None = None, **changes: Any) -> None:
        self.drops: list[tuple[DropReason, str, int]] = []
        limits = {"senders": 4, "backlog": 100, "max_age": 3600.0, "sleep_duration": 10.0}
        settings = {"name": "s", **limits, "retry_wait": None}
        drop_reporter = DropReporter(LimitedLog(), self._dropped)
        self.dispatcher = Dispatcher(drop_reporter, partial(CoreDecider, options, None), None, **(settings | changes))
        self._serial = 0

    def _dropped(self, reason: DropReason, event: Event | None, events: int) -> None:
        self.drops.append((reason, event.message if event else "", events))

    def event(self, message: str, name: str = "web-0") -> Event:
        """An event as a recorder builds it."""
        self._serial += 1
        return Event(
            reference=about(name), type="Normal", reason="R", message=message, source=EventSource("c"),
            time=self._serial, serial=self._serial,
        )  # fmt: skip

    def accept(self, *messages: str) -> Handled:
        """Accept events with these messages, each about its own object."""
        return self.dispatcher.accept([self.event(message, message) for message in messages])

    def take(self) -> Attempt:
        """The next attempt."""
        step = self.dispatcher.take(monotonic())
        assert isinstance(step, Attempt), step
        return step

    def done(self, attempt: Attempt, outcome: Any) -> None:
        """End an attempt with this outcome."""
        self.dispatcher.done(attempt, outcome, monotonic())


def background(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run a call in its own thread. Returns the thread and the list of its result."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    return thread, results


def test_an_event_is_one_request() -> None:
    """An accepted event is handed out once, as a create, and ends with its outcome."""
    setup = Setup()
    assert setup.accept("a") == Handled()
    attempt = setup.take()
    assert (attempt.verb, attempt.namespace, attempt.body["message"]) == (Verb.CREATE, "prod", "a")
    assert isinstance(setup.dispatcher.take(monotonic()), Wait)
    setup.done(attempt, DELIVERED)
    statistics = setup.dispatcher.statistics()
    assert (statistics.accepted, statistics.delivered, statistics.backlog, statistics.created) == (1, 1, 0, 1)
    assert setup.dispatcher.flush(monotonic())


def test_a_loss_is_reported_once() -> None:
    """A loss by a sender while the worker reports its own losses is reported once."""
    setup = Setup(CorrelatorOptions(burst_size=1))
    setup.accept("written")
    attempt = setup.take()
    told = setup._dropped

    def while_the_worker_tells(reason: DropReason, event: Event | None, events: int) -> None:
        told(reason, event, events)
        if reason is DropReason.SPAM_FILTERED:
            setup.dispatcher.done(attempt, Rejected(422, "Invalid"), monotonic())

    setup.dispatcher._drop_reporter._on_drop = while_the_worker_tells
    setup.dispatcher.accept([setup.event("filtered", "written")])
    assert setup.drops == [
        (DropReason.SPAM_FILTERED, "filtered", 1),
        (DropReason.REJECTED, "written", 1),
    ]


def test_filtered_events_are_reported() -> None:
    """An event without a token is counted as filtered, and reported."""
    setup = Setup(CorrelatorOptions(burst_size=2))
    setup.dispatcher.accept([setup.event("same") for _ in range(5)])
    statistics = setup.dispatcher.statistics()
    assert (statistics.accepted, statistics.spam_filtered, statistics.backlog) == (5, 3, 2)
    assert setup.drops == [(DropReason.SPAM_FILTERED, "same", 1)] * 3


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_clock_of_the_options_that_raises(error: type[BaseException]) -> None:
    """If the clock raises anything, the system's clock decides, and the fallback is counted."""

    def clock() -> int:
        raise error

    setup = Setup(CorrelatorOptions(clock=clock))
    assert setup.accept("a") == Handled()
    statistics = setup.dispatcher.statistics()
    assert (statistics.accepted, statistics.backlog, statistics.fallbacks) == (1, 1, 1)


def test_a_fault_of_kevents(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A fault while deciding drops only its event as `internal`. Its traceback is logged once."""
    monkeypatch.setattr(DropReporter, "raise_internal", False)
    setup = Setup()
    decide = setup.dispatcher._decider.decide

    def faulty(event: Event, now: float) -> Write | None:
        if event.message == "bad":
            raise KeyError("ours")
        return decide(event, now)

    monkeypatch.setattr(setup.dispatcher._decider, "decide", faulty)
    assert setup.accept("bad", "good", "bad") == Handled()
    statistics = setup.dispatcher.statistics()
    assert (statistics.accepted, statistics.dropped, statistics.backlog) == (3, {DropReason.INTERNAL: 2}, 1)
    assert setup.drops == [(DropReason.INTERNAL, "bad", 1)] * 2
    traces = [record for record in caplog.records if record.exc_info]
    assert [str(record.exc_info[1]) for record in traces if record.exc_info] == ["'ours'"]


def test_a_fault_of_kevents_fails_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests of kevents a fault while deciding is raised, and counted as well."""
    setup = Setup()
    monkeypatch.setattr(setup.dispatcher._decider, "decide", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        setup.accept("a")
    assert setup.dispatcher.statistics().dropped == {DropReason.INTERNAL: 1}


def test_too_late() -> None:
    """After the end no event is accepted: the batch is too late."""
    setup = Setup()
    setup.dispatcher.stop(0.0)
    assert setup.accept("a") == Handled(too_late=True)
    assert setup.dispatcher.statistics().accepted == 0


def test_flush_retries_and_waits() -> None:
    """Flush makes retries due at once, and returns when they have ended."""
    setup = Setup(retry_wait=wait_fixed(1000))
    setup.accept("a")
    setup.done(setup.take(), Failed("broken"))
    assert isinstance(setup.dispatcher.take(monotonic()), Wait)
    thread, results = background(lambda: setup.dispatcher.flush(None))
    attempt = _next(setup)
    setup.done(attempt, DELIVERED)
    thread.join(PATIENCE)
    assert results == [True]


def _next(setup: Setup) -> Attempt:
    """The next attempt, awaited as a sender does."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        match setup.dispatcher.take(monotonic()):
            case Attempt() as attempt:
                return attempt
            case Wait(_, version):
                setup.dispatcher.wait(version, 1.0)
    raise AssertionError("no attempt")


def test_flush_ends_when_events_expire() -> None:
    """An expired event has ended: flush without a timeout returns."""
    setup = Setup(max_age=0.05, retry_wait=wait_fixed(0.06))
    setup.accept("a")
    setup.done(setup.take(), Failed("broken"))
    thread, results = background(lambda: setup.dispatcher.flush(None))
    while (step := setup.dispatcher.take(monotonic())) is not CLOSED and setup.dispatcher.statistics().backlog:
        if isinstance(step, Wait):
            setup.dispatcher.wait(step.version, step.seconds)
        elif isinstance(step, Attempt):
            setup.done(step, Failed("broken"))
    thread.join(PATIENCE)
    assert results == [True]
    assert setup.drops == [(DropReason.EXPIRED, "a", 1)]


def test_flush_does_not_wait_for_later_events() -> None:
    """Events accepted after flush was called do not prolong it."""
    setup = Setup()
    setup.accept("a")
    attempt = setup.take()
    assert not setup.dispatcher.flush(monotonic())
    thread, results = background(lambda: setup.dispatcher.flush(None))
    setup.accept("b")
    setup.done(attempt, DELIVERED)
    setup.done(_next(setup), DELIVERED)
    thread.join(PATIENCE)
    assert results == [True]


def test_flush_is_woken_by_the_last_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Earlier deliveries do not wake a caller of flush: each would cost a switch between threads."""
    setup = Setup()
    setup.accept("a", "b", "c")
    thread, results = background(lambda: setup.dispatcher.flush(None))
    _until(lambda: bool(setup.dispatcher._marks))
    woken: list[int] = []
    notify_all = setup.dispatcher._ends.notify_all

    def wake() -> None:
        woken.append(setup.dispatcher._queue.keys)
        notify_all()

    monkeypatch.setattr(setup.dispatcher._ends, "notify_all", wake)
    for _ in range(3):
        setup.done(_next(setup), DELIVERED)
    thread.join(PATIENCE)
    assert (results, set(woken)) == ([True], {0})


@pytest.mark.parametrize(
    "waits", [[ValueError], [SystemExit], [KeyboardInterrupt], [-1.0], ["soon"], [float("nan")], [float("inf")], [None]]
)
def test_a_retry_wait_that_makes_no_sense(waits: list[Any]) -> None:
    """If the user's retry_wait raises or returns nonsense, the default decides, and the fallback is counted."""

    def retry_wait(_: object) -> Any:
        if isinstance(waits[0], type):
            raise waits[0]
        return waits[0]

    setup = Setup(retry_wait=retry_wait, sleep_duration=10.0)
    setup.accept("a")
    setup.done(setup.take(), Failed("broken"))
    step = setup.dispatcher.take(monotonic())
    assert isinstance(step, Wait)
    assert step.seconds is not None
    assert 0.3 < step.seconds <= 1.0
    assert setup.dispatcher.statistics().fallbacks == 1


def test_a_retry_wait_is_asked_for_what_waits() -> None:
    """The user's retry_wait is called for retries only, including a 403 after an outage."""
    asked: list[int] = []

    def retry_wait(state: RetryCallState) -> float:
        asked.append(state.attempt_number)
        return 0.0

    setup = Setup(retry_wait=retry_wait)
    setup.accept("a")
    setup.done(setup.take(), DELIVERED)
    setup.accept("a")
    for outcome in (Gone(), Exists(), Rejected(422, "Invalid")):
        setup.done(setup.take(), outcome)
    assert asked == []
    setup.accept("b")
    for outcome in (Failed("broken"), Unavailable("refused"), Rejected(403, "Forbidden")):
        setup.done(setup.take(), outcome)
    assert asked == [1, 2, 3]
    assert setup.dispatcher.statistics().dropped == {DropReason.REJECTED: 1}


def test_a_wait_beyond_any_clock() -> None:
    """A retry wait beyond the longest possible wait of a lock is capped, instead of raising in the sender."""
    setup = Setup(retry_wait=lambda _: 1e300)
    setup.accept("a")
    setup.done(setup.take(), Failed("broken"))
    step = setup.dispatcher.take(monotonic())
    assert isinstance(step, Wait)
    thread, _ = background(lambda: setup.dispatcher.wait(step.version, step.seconds))
    _until_idle(setup)
    assert setup.dispatcher.stop(0.0) == 1
    thread.join(PATIENCE)
    assert not thread.is_alive()


def _until_idle(setup: Setup, senders: int = 1) -> None:
    """Wait until that number of threads waits for work."""
    _until(lambda: setup.dispatcher._idle >= senders)


def _until(true: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not true():
        assert monotonic() < deadline


def test_an_interrupted_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that was interrupted during its wait is not idle: new work needs another sender."""
    setup = Setup()
    step = setup.dispatcher.take(monotonic())
    assert isinstance(step, Wait)

    def interrupted(_: float | None) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup.dispatcher._work, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            setup.dispatcher.wait(step.version, None)
    setup.accept("a")
    assert setup.dispatcher.lacks_senders()


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, float("nan"), -1.0])
def test_any_deadline(timeout: float) -> None:
    """Flush and stop accept any deadline: extreme, past or NaN."""
    setup = Setup()
    setup.accept("a")
    setup.done(setup.take(), DELIVERED)
    deadline = monotonic() + timeout
    assert setup.dispatcher.flush(deadline)
    setup.dispatcher.begin_stop(deadline)
    setup.dispatcher.end_input()
    assert setup.dispatcher.stop(deadline) == 0


def test_close_gives_up_what_is_left() -> None:
    """`stop` drops pending and in-flight events, and wakes waiting threads. A late outcome changes nothing."""
    setup = Setup()
    setup.accept("a", "b")
    late = setup.take()
    thread, results = background(lambda: setup.dispatcher.flush(None))
    assert setup.dispatcher.stop(0.0) == 2
    thread.join(PATIENCE)
    assert results == [True]
    before = setup.dispatcher.statistics()
    setup.done(late, DELIVERED)
    assert setup.dispatcher.statistics() == before
    assert before.dropped == {DropReason.SHUTDOWN: 2}
    assert sorted(setup.drops) == [(DropReason.SHUTDOWN, "a", 1), (DropReason.SHUTDOWN, "b", 1)]
    assert CLOSED is setup.dispatcher.take(monotonic())


def test_items_given_up_by_the_queue_are_counted() -> None:
    """Events dropped when a sender closes the queue at the deadline are included in the result of `stop`."""
    setup = Setup()
    setup.accept("a", "b", "c")
    setup.dispatcher.begin_stop(monotonic())
    assert CLOSED is setup.dispatcher.take(monotonic())
    assert setup.dispatcher.stop(0.0) == 3


def test_a_drained_queue_is_closed() -> None:
    """After the last event has ended the queue is closed, and no event was dropped."""
    setup = Setup()
    setup.accept("a")
    attempt = setup.take()
    setup.dispatcher.end_input()
    assert isinstance(setup.dispatcher.take(monotonic()), Wait)
    thread, results = background(lambda: setup.dispatcher.stop(monotonic() + PATIENCE))
    setup.done(attempt, DELIVERED)
    thread.join(PATIENCE)
    assert results == [0]
    assert CLOSED is setup.dispatcher.take(monotonic())
    assert setup.dispatcher.stop(0.0) == 0


def test_a_waiting_sender_is_woken() -> None:
    """A sender that waits without a timeout is woken by new work, a hastened retry and the end."""
    setup = Setup()
    attempts: list[Attempt] = []

    def sender() -> None:
        while (step := setup.dispatcher.take(monotonic())) is not CLOSED:
            if isinstance(step, Attempt):
                attempts.append(step)
                setup.done(step, DELIVERED)
            else:
                assert step.seconds is None
                setup.dispatcher.wait(step.version, step.seconds)

    thread, _ = background(sender)
    _until_idle(setup)
    setup.accept("a")
    assert setup.dispatcher.flush(None)
    _until_idle(setup)
    setup.dispatcher.end_input()
    thread.join(PATIENCE)
    assert [attempt.body["message"] for attempt in attempts] == ["a"]


def test_no_wait_if_something_changed() -> None:
    """A sender does not miss a change between its look at the queue and its wait."""
    setup = Setup()
    step = setup.dispatcher.take(monotonic())
    assert isinstance(step, Wait)
    setup.accept("a")
    setup.dispatcher.wait(step.version, None)
    assert isinstance(setup.dispatcher.take(monotonic()), Attempt)


def test_senders_are_lacking() -> None:
    """More senders are needed when more keys wait than senders are idle."""
    setup = Setup()
    assert not setup.dispatcher.lacks_senders()
    setup.accept("a")
    assert setup.dispatcher.lacks_senders()
    attempt = setup.take()
    assert not setup.dispatcher.lacks_senders()
    setup.accept("b")
    assert setup.dispatcher.lacks_senders()
    setup.dispatcher.stop(0.0)
    assert not setup.dispatcher.lacks_senders()
    assert attempt.body["message"] == "a"


def test_outcomes_are_counted() -> None:
    """Each outcome has its own counter: refused, recreated, failed, unavailable."""
    setup = Setup(retry_wait=wait_fixed(0))
    setup.accept("refused", "gone")
    refused = setup.take()
    setup.done(refused, Rejected(422, "Invalid"))
    gone = setup.take()
    setup.done(gone, DELIVERED)
    setup.dispatcher.accept([setup.event("gone", "gone")])
    patch = setup.take()
    assert (patch.verb, patch.body["count"]) == (Verb.PATCH, 2)
    setup.done(patch, Gone())
    again = setup.take()
    assert (again.verb, again.body["count"], again.name) == (Verb.CREATE, 2, patch.name)
    setup.done(again, Unavailable("refused"))
    setup.done(_next(setup), DELIVERED)
    statistics = setup.dispatcher.statistics()
    assert (statistics.accepted, statistics.delivered, statistics.backlog) == (3, 2, 0)
    assert (statistics.rejected_by_code, statistics.dropped) == ({422: 1}, {DropReason.REJECTED: 1})
    assert (statistics.recreated, statistics.retried, statistics.created) == (1, 1, 2)
    assert setup.drops == [(DropReason.REJECTED, "refused", 1)]


def test_an_interrupted_owner_must_not_wait() -> None:
    """A thread inside a call of the dispatcher is recognised, because it must not wait for senders."""
    setup = Setup()
    assert not setup.dispatcher.owns_this_thread()
    with setup.dispatcher._lock:
        assert setup.dispatcher.owns_this_thread()


def test_default_waits() -> None:
    """The n-th wait is 1, 2, 4 ... seconds up to the longest, each times a random factor between 0.5 and 1."""
    wait = default_retry_wait(10.0)

    class State:
        attempt_number = 0

    for number, longest in enumerate((1, 2, 4, 8, 10, 10), start=1):
        State.attempt_number = number
        seconds = [wait(State) for _ in range(100)]  # type: ignore[arg-type]
        assert longest / 2 <= min(seconds)
        assert max(seconds) <= longest


def test_an_error_of_the_sink_is_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    """One log line reports that the server is unavailable, with the cause, and one that it answers again."""
    caplog.set_level("INFO", "kevents")
    setup = Setup(retry_wait=wait_fixed(0))
    setup.accept("a", "b")
    for _ in range(2):
        setup.done(setup.take(), Unavailable(str(UnavailableError("no route"))))
    for _ in range(2):
        setup.done(_next(setup), DELIVERED)
    assert len(caplog.messages) == 2
    assert caplog.messages[0] == "the API server is unavailable, events wait for it: no route"
    assert "the API server answers again after " in caplog.messages[1]
