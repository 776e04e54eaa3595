"""The sender threads: one request per attempt, for any behaviour of the sink."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic
from typing import Any

import pytest

from kevents import Event, EventSource, StatusError, UnavailableError
from kevents._correlation.correlator import CoreDecider
from kevents._delivery.dispatcher import SenderThreadPool, send
from kevents._delivery.drop_reporter import DropReporter
from kevents._model.statistics import DropReason
from kevents._queue.outcome import Delivered, Exists, Failed, Gone, Rejected, Unavailable, Verb
from kevents._queue.work_item import Attempt
from kevents._runtime.log import LimitedLog, is_in_kevents
from tests.support.sinks import PATIENCE, Call, Gate, ScriptedSink, about, thread_names


class MuteError(Exception):
    """An error whose `__str__` raises."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError


class FatalError(Exception):
    """An error whose `__str__` raises SystemExit."""

    def __str__(self) -> str:
        """Raise."""
        raise SystemExit


class Setup:
    """A pool of senders and its sink."""

    def __init__(self, sink: ScriptedSink, *, senders: int = 4, retry_wait: Any = lambda _: 0.0) -> None:
        self.sink = sink
        self.drops: list[tuple[DropReason, int]] = []
        self.pool = SenderThreadPool(
            DropReporter(LimitedLog(), lambda reason, _, events: self.drops.append((reason, events))),
            partial(CoreDecider, None, None), sink,
            name="s", senders=senders, backlog=10_000, max_age=3600.0, sleep_duration=10.0, retry_wait=retry_wait,
        )  # fmt: skip
        self._serial = 0

    def handle(self, *messages: str) -> None:
        """Pass on events with these messages, each about its own object."""
        batch = []
        for message in messages:
            self._serial += 1
            batch.append(
                Event(
                    reference=about(message), type="Normal", reason="R", message=message, source=EventSource("c"),
                    time=self._serial, serial=self._serial,
                )
            )  # fmt: skip
        self.pool.handle(batch)

    def attempt(self) -> Attempt:
        """An attempt with one event."""
        self.pool.accept(
            [
                Event(
                    reference=about(), type="Normal", reason="R", message="m", source=EventSource("c"), time=1, serial=1
                )
            ]
        )
        attempt = self.pool.take(monotonic())
        assert isinstance(attempt, Attempt)
        return attempt


def raise_no_thread(_: threading.Thread) -> None:
    """Raise as a thread that cannot be started."""
    raise RuntimeError("can't start new thread")


@contextmanager
def running(sink: ScriptedSink, **settings: Any) -> Iterator[Setup]:
    """A pool that is stopped at the end."""
    made = Setup(sink, **settings)
    yield made
    made.pool.end_input()
    made.pool.stop(monotonic() + PATIENCE)
    assert made.pool.statistics().backlog == 0
    assert sink.doubled == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Delivered()),
        (StatusError(409, "AlreadyExists"), Exists()),
        (StatusError(422, "Invalid", "no"), Rejected(422, "Invalid", "no")),
        (StatusError(503), Unavailable("StatusError: 503")),
        (UnavailableError("no route", retry_after=3), Unavailable("UnavailableError: no route", 3.0)),
        (ConnectionResetError("reset"), Unavailable("ConnectionResetError: reset")),
        (RuntimeError("odd"), Failed("RuntimeError: odd")),
        (ValueError("odd"), Rejected(0, "ValueError", "ValueError: odd")),
        (SystemExit(1), Unavailable("SystemExit: 1")),
        (KeyboardInterrupt(), Unavailable("KeyboardInterrupt: ")),
        (GeneratorExit(), Unavailable("GeneratorExit: ")),
        (MuteError(), Failed("MuteError")),
        (FatalError(), Failed("FatalError")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_sink_raises_is_a_outcome(error: BaseException | None, outcome: object) -> None:
    """No exception of a sink reaches the sender's thread."""
    setup = Setup(ScriptedSink(always=error))
    attempt = setup.attempt()
    assert send(setup.sink, attempt) == outcome


def test_a_status_of_nonsense_is_a_outcome() -> None:
    """An error with fields of the wrong type is handled like any other error."""
    for error in (StatusError("x"), StatusError(400, message=None), StatusError(403, causes=[3])):  # type: ignore[arg-type, list-item]
        setup = Setup(ScriptedSink(always=error))
        assert isinstance(send(setup.sink, setup.attempt()), Failed | Rejected)


def test_the_verb_and_the_body() -> None:
    """A create carries the whole body, a patch the name and the patch."""
    sink = ScriptedSink()
    setup = Setup(sink)
    attempt = setup.attempt()
    assert send(sink, attempt) == Delivered()
    attempt.verb = Verb.PATCH
    assert send(sink, attempt) == Delivered()
    create, patch = sink.calls
    assert (create.verb, create.namespace, create.name, create.body["message"]) == ("create", "prod", attempt.name, "m")
    assert (
        patch.verb, patch.namespace, patch.name, set(patch.body),
    ) == ("patch", "prod", attempt.name, {"count", "lastTimestamp", "message"})  # fmt: skip


@pytest.mark.parametrize("threads", [True, False], ids=["in a thread", "in a bare thread"])
def test_requests_are_made_inside_kevents(*, threads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events and log lines of a sink are recognised as kevents' own, in whichever thread the request is made."""
    inside: list[bool] = []
    with monkeypatch.context() as patch:
        if not threads:
            patch.setattr(threading.Thread, "start", raise_no_thread)
        with running(ScriptedSink(always=lambda _: inside.append(is_in_kevents()))) as setup:
            setup.handle("a", "b")
    assert inside == [True, True]
    assert not is_in_kevents()


def test_gone_of_a_patch() -> None:
    """After a 404 a patch is Gone, and a create is rejected."""
    sink = ScriptedSink(always=StatusError(404, "NotFound"))
    setup = Setup(sink)
    attempt = setup.attempt()
    assert send(sink, attempt) == Rejected(404, "NotFound")
    attempt.verb = Verb.PATCH
    assert send(sink, attempt) == Gone()


def test_threads_come_as_they_are_needed() -> None:
    """No thread starts before the first event, and never more threads than senders."""
    gate = Gate()
    with running(ScriptedSink(gate=gate), senders=3) as setup:
        assert thread_names("kevents-s-sender") == []
        setup.handle("a")
        assert thread_names("kevents-s-sender") == ["kevents-s-sender-1"]
        assert setup.pool.flush(None)
        gate.shut()
        setup.handle(*[f"e{number}" for number in range(10)])
        gate.wait_entered(4)
        assert len(thread_names("kevents-s-sender")) == 3
        gate.open()
    assert setup.sink.most_at_once == 3
    assert len(setup.sink.written) == 11


def test_never_two_at_once_for_one_event() -> None:
    """An event is never written concurrently, and ends with the exact count."""
    gate = Gate(shut=True)
    with running(ScriptedSink(gate=gate)) as setup:
        setup.handle("a")
        gate.wait_entered()
        for _ in range(20):
            batch = [
                Event(
                    reference=about("a"),
                    type="Normal",
                    reason="R",
                    message="a",
                    source=EventSource("c"),
                    time=2,
                    serial=2,
                )
            ]
            setup.pool.handle(batch)
        gate.open()
    assert setup.sink.most_at_once == 1
    assert [call.verb for call in setup.sink.written] == ["create", "patch"]
    assert setup.sink.written[-1].count == 21


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, RuntimeError, MuteError, FatalError])
def test_a_sender_survives(error: type[BaseException]) -> None:
    """A sender survives any exception of the sink, and retries."""
    with running(ScriptedSink(faults={1: error()}), senders=1) as setup:
        setup.handle("a", "b")
        assert setup.pool.flush(None)
    assert set(setup.sink.messages) == {"a", "b"}


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without threads events wait. The next batch tries to start one, and `stop` sends the events itself."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    for later in (True, False):
        with running(ScriptedSink()) as setup:
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", refuse)
                setup.handle("a")
            assert setup.pool._threads == []
            if later:
                setup.handle("b")
                assert setup.pool.flush(None)
        assert sorted(setup.sink.messages) == (["a", "b"] if later else ["a"])
        assert (threading.current_thread().name not in [call.thread for call in setup.sink.calls]) == later


def test_its_threads_are_its_own() -> None:
    """`owns_this_thread` is true inside the sink's requests, even in the first one."""
    answers: list[bool] = []
    setup = Setup(ScriptedSink(always=lambda _: answers.append(setup.pool.owns_this_thread())))
    setup.handle("a", "b", "c", "d")
    assert setup.pool.flush(None)
    assert answers == [True] * 4
    assert not setup.pool.owns_this_thread()
    setup.pool.end_input()
    setup.pool.stop(monotonic() + PATIENCE)
    assert setup.pool.statistics().backlog == 0


def test_a_sink_that_returns_late() -> None:
    """A call that returns after the deadline changes no counter, and its sender ends."""
    gate = Gate(shut=True)
    setup = Setup(ScriptedSink(gate=gate))
    setup.handle("a", "b")
    gate.wait_entered(2)
    setup.pool.end_input()
    assert setup.pool.stop(monotonic() + 0.01) == 2
    before = setup.pool.statistics()
    gate.open()
    for thread in list(setup.pool._threads):
        thread.join(PATIENCE)
    assert setup.pool.statistics() == before
    assert setup.drops == [(DropReason.SHUTDOWN, 1)] * 2


def test_order_of_one_event() -> None:
    """The counts of one event arrive in ascending order, despite failures in between."""
    faults: dict[int, BaseException | Any] = {
        2: RuntimeError("odd"), 4: UnavailableError(), 5: StatusError(404, "NotFound"), 9: StatusError(500),
    }  # fmt: skip
    with running(ScriptedSink(faults=faults)) as setup:
        for number in range(20):
            setup.pool.handle(
                [
                    Event(
                        reference=about("a"), type="Normal", reason="R", message="a", source=EventSource("c"),
                        time=number, serial=1,
                    )
                ]
            )  # fmt: skip
            if number % 3 == 0:
                assert setup.pool.flush(None)
    counts = [call.count for call in setup.sink.written]
    assert counts == sorted(counts)
    assert counts[-1] == 20
    assert len({call.name for call in setup.sink.calls}) == 1


def test_call_repr() -> None:
    """The repr of a `Call` does not show the body."""
    assert "secret" not in repr(Call("create", "n", "e", {"message": "secret"}))
