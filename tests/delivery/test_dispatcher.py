"""A sink's side of its watcher: what is accepted, what is handed out, and when it has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from tenacity.wait import wait_fixed

from kevents import CorrelatorOptions, Event, EventSource, UnavailableError
from kevents._correlation.decisions import CoreDecider
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

DELIVERED = Delivered()


class Office:
    """A delivery, and what it tells."""

    def __init__(self, options: CorrelatorOptions | None = None, **changes: Any) -> None:
        """Begin with nothing."""
        self.drops: list[tuple[DropReason, str, int]] = []
        settings = {"senders": 4, "backlog": 100, "max_age": 3600.0, "sleep_duration": 10.0, "retry_wait": None}
        losses = DropReporter(LimitedLog(), self._dropped)
        self.delivery = Dispatcher(losses, partial(CoreDecider, options, None), **(settings | changes))
        self._serial = 0

    def _dropped(self, reason: DropReason, event: Event | None, events: int) -> None:
        self.drops.append((reason, event.message if event else "", events))

    def event(self, message: str, name: str = "web-0") -> Event:
        """An event as a recorder makes it."""
        self._serial += 1
        return Event(
            reference=about(name), type="Normal", reason="R", message=message, source=EventSource("c"),
            time=self._serial, serial=self._serial,
        )  # fmt: skip

    def accept(self, *messages: str) -> Handled:
        """Accept events with these messages, each about an object of its own."""
        return self.delivery.accept([self.event(message, message) for message in messages])

    def take(self) -> Attempt:
        """The next attempt."""
        step = self.delivery.take(monotonic())
        assert isinstance(step, Attempt), step
        return step

    def done(self, attempt: Attempt, outcome: Any) -> None:
        """What came of it."""
        self.delivery.done(attempt, outcome, monotonic())


def background(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """A call under way in a thread of its own, and what it returns."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    return thread, results


def test_an_event_is_one_request() -> None:
    """What is accepted is handed out once, as a create, and ends with its outcome."""
    office = Office()
    assert office.accept("a") == Handled([])
    attempt = office.take()
    assert (attempt.verb, attempt.namespace, attempt.body["message"]) == (Verb.CREATE, "prod", "a")
    assert isinstance(office.delivery.take(monotonic()), Wait)
    office.done(attempt, DELIVERED)
    statistics = office.delivery.statistics()
    assert (statistics.accepted, statistics.delivered, statistics.backlog, statistics.created) == (1, 1, 0, 1)
    assert office.delivery.flush(monotonic())


def test_a_loss_is_told_once() -> None:
    """What a sender loses while the worker is between its lock and its log is told by the sender alone."""
    office = Office(CorrelatorOptions(burst_size=1))
    office.accept("written")
    attempt = office.take()
    told = office._dropped

    def while_the_worker_tells(reason: DropReason, event: Event | None, events: int) -> None:
        told(reason, event, events)
        if reason is DropReason.SPAM_FILTERED:
            office.delivery.done(attempt, Rejected(422, "Invalid"), monotonic())

    office.delivery._drop_reporter._on_drop = while_the_worker_tells
    office.delivery.accept([office.event("filtered", "written")])
    assert office.drops == [
        (DropReason.SPAM_FILTERED, "filtered", 1),
        (DropReason.REJECTED, "written", 1),
    ]


def test_filtered_events_are_told() -> None:
    """An event without a token is counted as filtered, and told."""
    office = Office(CorrelatorOptions(burst_size=2))
    office.delivery.accept([office.event("same") for _ in range(5)])
    statistics = office.delivery.statistics()
    assert (statistics.accepted, statistics.spam_filtered, statistics.backlog) == (5, 3, 2)
    assert office.drops == [(DropReason.SPAM_FILTERED, "same", 1)] * 3


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_clock_of_the_options_that_raises(error: type[BaseException]) -> None:
    """What cannot be decided on, whatever is raised, fails alone, and is counted."""
    broken = [True]

    def clock() -> int:
        if broken:
            raise error
        return 0

    office = Office(CorrelatorOptions(clock=clock))
    event = office.event("a")
    handled = office.delivery.accept([event])
    assert [(failed, type(why)) for failed, why in handled.failed] == [(event, error)]
    broken.clear()
    assert office.accept("b") == Handled([])
    assert (office.delivery.accepted(), office.delivery.statistics().accepted) == (2, 1)


def test_too_late() -> None:
    """After the end nothing is accepted: the batch came too late."""
    office = Office()
    office.delivery.stop(0.0)
    assert office.accept("a") == Handled([], too_late=True)
    assert office.delivery.statistics().accepted == 0


def test_flush_retries_and_waits() -> None:
    """Flush makes what is in back-off due at once, and returns when that has ended."""
    office = Office(retry_wait=wait_fixed(1000))
    office.accept("a")
    office.done(office.take(), Failed("broken"))
    assert isinstance(office.delivery.take(monotonic()), Wait)
    thread, results = background(lambda: office.delivery.flush(None))
    attempt = _next(office)
    office.done(attempt, DELIVERED)
    thread.join(PATIENCE)
    assert results == [True]


def _next(office: Office) -> Attempt:
    """The next attempt, waited for as a sender does."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        match office.delivery.take(monotonic()):
            case Attempt() as attempt:
                return attempt
            case Wait(_, version):
                office.delivery.wait(version, 1.0)
    raise AssertionError("no attempt")


def test_flush_ends_when_events_expire() -> None:
    """An event that expires has ended: flush without a time-out returns."""
    office = Office(max_age=0.05, retry_wait=wait_fixed(0.06))
    office.accept("a")
    office.done(office.take(), Failed("broken"))
    thread, results = background(lambda: office.delivery.flush(None))
    while (step := office.delivery.take(monotonic())) is not CLOSED and office.delivery.statistics().backlog:
        if isinstance(step, Wait):
            office.delivery.wait(step.version, step.seconds)
        elif isinstance(step, Attempt):
            office.done(step, Failed("broken"))
    thread.join(PATIENCE)
    assert results == [True]
    assert office.drops == [(DropReason.EXPIRED, "a", 1)]


def test_flush_does_not_wait_for_later_events() -> None:
    """What is accepted after flush was called does not prolong it."""
    office = Office()
    office.accept("a")
    attempt = office.take()
    assert not office.delivery.flush(monotonic())
    thread, results = background(lambda: office.delivery.flush(None))
    office.accept("b")
    office.done(attempt, DELIVERED)
    office.done(_next(office), DELIVERED)
    thread.join(PATIENCE)
    assert results == [True]


@pytest.mark.parametrize(
    "waits", [[ValueError], [SystemExit], [KeyboardInterrupt], [-1.0], ["soon"], [float("nan")], [float("inf")], [None]]
)
def test_a_retry_wait_that_makes_no_sense(waits: list[Any]) -> None:
    """Where the user's wait raises or gives nonsense, the default decides, which is counted."""

    def retry_wait(_: object) -> Any:
        if isinstance(waits[0], type):
            raise waits[0]
        return waits[0]

    office = Office(retry_wait=retry_wait, sleep_duration=10.0)
    office.accept("a")
    office.done(office.take(), Failed("broken"))
    step = office.delivery.take(monotonic())
    assert isinstance(step, Wait)
    assert step.seconds is not None
    assert 0.3 < step.seconds <= 1.0
    assert office.delivery.statistics().fallbacks == 1


def test_a_retry_wait_is_asked_for_what_waits() -> None:
    """The user's wait is asked for writes that have to wait, a 403 after an outage too, and for no others."""
    asked: list[int] = []

    def retry_wait(state: RetryCallState) -> float:
        asked.append(state.attempt_number)
        return 0.0

    office = Office(retry_wait=retry_wait)
    office.accept("a")
    office.done(office.take(), DELIVERED)
    office.accept("a")
    for outcome in (Gone(), Exists(), Rejected(422, "Invalid")):
        office.done(office.take(), outcome)
    assert asked == []
    office.accept("b")
    for outcome in (Failed("broken"), Unavailable("refused"), Rejected(403, "Forbidden")):
        office.done(office.take(), outcome)
    assert asked == [1, 2, 3]
    assert office.delivery.statistics().dropped == {DropReason.REJECTED: 1}


def test_a_wait_beyond_any_clock() -> None:
    """A retry wait of more seconds than a lock can wait is waited as long as it can, not raised into the sender."""
    office = Office(retry_wait=lambda _: 1e300)
    office.accept("a")
    office.done(office.take(), Failed("broken"))
    step = office.delivery.take(monotonic())
    assert isinstance(step, Wait)
    thread, _ = background(lambda: office.delivery.wait(step.version, step.seconds))
    _until_idle(office)
    assert office.delivery.stop(0.0) == 1
    thread.join(PATIENCE)
    assert not thread.is_alive()


def _until_idle(office: Office, senders: int = 1) -> None:
    """Wait until so many threads wait for work."""
    deadline = monotonic() + PATIENCE
    while office.delivery._idle < senders:
        assert monotonic() < deadline


def test_an_interrupted_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was interrupted while he waited for work is no idle sender: what comes needs another."""
    office = Office()
    step = office.delivery.take(monotonic())
    assert isinstance(step, Wait)

    def interrupted(_: float | None) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(office.delivery._work, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            office.delivery.wait(step.version, None)
    office.accept("a")
    assert office.delivery.lacks_senders()


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, float("nan"), -1.0])
def test_any_deadline(timeout: float) -> None:
    """No deadline is too far, too near or too odd for flush, drain and settle."""
    office = Office()
    office.accept("a")
    office.done(office.take(), DELIVERED)
    deadline = monotonic() + timeout
    assert office.delivery.flush(deadline)
    office.delivery.begin_stop(deadline)
    office.delivery.end_input()
    assert office.delivery.stop(deadline) == 0


def test_close_gives_up_what_is_left() -> None:
    """Close gives up what waits and what is in flight, and wakes who waits; a late outcome changes nothing."""
    office = Office()
    office.accept("a", "b")
    late = office.take()
    thread, results = background(lambda: office.delivery.flush(None))
    assert office.delivery.stop(0.0) == 2
    thread.join(PATIENCE)
    assert results == [True]
    before = office.delivery.statistics()
    office.done(late, DELIVERED)
    assert office.delivery.statistics() == before
    assert before.dropped == {DropReason.SHUTDOWN: 2}
    assert sorted(office.drops) == [(DropReason.SHUTDOWN, "a", 1), (DropReason.SHUTDOWN, "b", 1)]
    assert CLOSED is office.delivery.take(monotonic())


def test_what_the_queue_gave_up_itself_is_counted() -> None:
    """A sender may see the deadline first, and close the queue: what that gave up is still what close says."""
    office = Office()
    office.accept("a", "b", "c")
    office.delivery.begin_stop(monotonic())
    assert CLOSED is office.delivery.take(monotonic())
    assert office.delivery.stop(0.0) == 3


def test_a_drained_queue_is_closed() -> None:
    """After the last event has ended, nothing comes any more, and nothing was given up."""
    office = Office()
    office.accept("a")
    attempt = office.take()
    office.delivery.end_input()
    assert isinstance(office.delivery.take(monotonic()), Wait)
    thread, results = background(lambda: office.delivery.stop(monotonic() + PATIENCE))
    office.done(attempt, DELIVERED)
    thread.join(PATIENCE)
    assert results == [0]
    assert CLOSED is office.delivery.take(monotonic())
    assert office.delivery.stop(0.0) == 0


def test_a_waiting_sender_is_woken() -> None:
    """Work, a retry that is hastened, and the end wake a sender that waits without a time-out."""
    office = Office()
    attempts: list[Attempt] = []

    def sender() -> None:
        while (step := office.delivery.take(monotonic())) is not CLOSED:
            if isinstance(step, Attempt):
                attempts.append(step)
                office.done(step, DELIVERED)
            else:
                assert step.seconds is None
                office.delivery.wait(step.version, step.seconds)

    thread, _ = background(sender)
    _until_idle(office)
    office.accept("a")
    assert office.delivery.flush(None)
    _until_idle(office)
    office.delivery.end_input()
    thread.join(PATIENCE)
    assert [attempt.body["message"] for attempt in attempts] == ["a"]


def test_no_wait_if_something_changed() -> None:
    """A sender that has not yet begun to wait does not sleep through what happened since it looked."""
    office = Office()
    step = office.delivery.take(monotonic())
    assert isinstance(step, Wait)
    office.accept("a")
    office.delivery.wait(step.version, None)
    assert isinstance(office.delivery.take(monotonic()), Attempt)


def test_senders_are_lacking() -> None:
    """More senders are wanted when more keys wait than senders are idle."""
    office = Office()
    assert not office.delivery.lacks_senders()
    office.accept("a")
    assert office.delivery.lacks_senders()
    attempt = office.take()
    assert not office.delivery.lacks_senders()
    office.accept("b")
    assert office.delivery.lacks_senders()
    office.delivery.stop(0.0)
    assert not office.delivery.lacks_senders()
    assert attempt.body["message"] == "a"


def test_outcomes_reach_the_ledger() -> None:
    """Refused, gone and created again, failed, unreachable: each is counted under its name."""
    office = Office(retry_wait=wait_fixed(0))
    office.accept("refused", "gone")
    refused = office.take()
    office.done(refused, Rejected(422, "Invalid"))
    gone = office.take()
    office.done(gone, DELIVERED)
    office.delivery.accept([office.event("gone", "gone")])
    patch = office.take()
    assert (patch.verb, patch.body["count"]) == (Verb.PATCH, 2)
    office.done(patch, Gone())
    again = office.take()
    assert (again.verb, again.body["count"], again.name) == (Verb.CREATE, 2, patch.name)
    office.done(again, Unavailable("refused"))
    office.done(_next(office), DELIVERED)
    statistics = office.delivery.statistics()
    assert (statistics.accepted, statistics.delivered, statistics.backlog) == (3, 2, 0)
    assert (statistics.rejected_by_code, statistics.dropped) == ({422: 1}, {DropReason.REJECTED: 1})
    assert (statistics.recreated, statistics.retried, statistics.created) == (1, 1, 2)
    assert office.drops == [(DropReason.REJECTED, "refused", 1)]


def test_an_interrupted_owner_must_not_wait() -> None:
    """A thread that is in the middle of a call of the delivery's is told from others: it must not wait for senders."""
    office = Office()
    assert not office.delivery.owns_this_thread()
    with office.delivery._lock:
        assert office.delivery.owns_this_thread()


def test_default_waits() -> None:
    """The n-th wait is 1, 2, 4 ... seconds up to the longest, of each a share between a half and one."""
    wait = default_retry_wait(10.0)

    class State:
        attempt_number = 0

    for number, longest in enumerate((1, 2, 4, 8, 10, 10), start=1):
        State.attempt_number = number
        seconds = [wait(State) for _ in range(100)]  # type: ignore[arg-type]
        assert longest / 2 <= min(seconds)
        assert max(seconds) <= longest


def test_an_error_of_the_sink_is_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    """One line says that the server is unavailable, with the cause; one that it answers again."""
    caplog.set_level("INFO", "kevents")
    office = Office(retry_wait=wait_fixed(0))
    office.accept("a", "b")
    for _ in range(2):
        office.done(office.take(), Unavailable(str(UnavailableError("no route"))))
    for _ in range(2):
        office.done(_next(office), DELIVERED)
    assert len(caplog.messages) == 2
    assert caplog.messages[0] == "the API server is unavailable, events wait for it: no route"
    assert "the API server answers again after " in caplog.messages[1]
