"""Reports of lost events: in the log with advice, and to the user's function."""

from __future__ import annotations

import logging

import pytest

from kevents import DropReason, Event, EventSource
from kevents._delivery.drop_reporter import ADVICE, DropReporter
from kevents._queue.outcome import Failed, Rejected, Unavailable, Verb
from kevents._queue.work_item import Dropped
from kevents._runtime.log import LimitedLog, is_in_kevents
from tests.support.sinks import about

ANONYMOUS = 'events is forbidden: User "system:anonymous" cannot create resource "events"'
DENIED = 'events is forbidden: User "u" cannot create resource "events" in API group "" in the namespace "prod"'
RULE = 'apiGroups: [""], resources: ["events"], verbs: ["create", "patch"]'
POLICIES = (
    'admission webhook "validation.gatekeeper.sh" denied the request: [no-events] events are not allowed',
    "events \"web-0.17\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no events",
    'events "web-0.17" is forbidden: exceeded quota: q, requested: count/events=1, used: count/events=10, limited: 10',
    "RBAC: access denied",
    "Access denied by the proxy",
)
EVENT = Event(reference=about(), type="Normal", reason="R", message="m", source=EventSource("c"), time=0, serial=1)


def test_every_reason_has_advice() -> None:
    """Every drop reason has advice."""
    assert set(ADVICE) == set(DropReason)


@pytest.mark.parametrize("reason", list(DropReason))
def test_a_loss_is_reported_twice(reason: DropReason, caplog: pytest.LogCaptureFixture) -> None:
    """A loss is logged once and passed to the function each time, except for a recursion."""
    calls: list[tuple[DropReason, Event | None, int]] = []
    reporter = DropReporter(LimitedLog(), lambda *args: calls.append(args))
    for _ in range(3):
        reporter.report(reason, EVENT, 2)
    expected = f"dropped 2 events about v1/Pod prod/web-0 (reason R), {reason.value}: {ADVICE[reason]}"
    assert caplog.messages == [expected]
    assert calls == ([] if reason is DropReason.RECURSION else [(reason, EVENT, 2)] * 3)


def test_without_an_event(caplog: pytest.LogCaptureFixture) -> None:
    """A loss may have no event, and its own explanation."""
    DropReporter(LimitedLog(), None).report(DropReason.SHUTDOWN, None, why="recorded too late")
    assert caplog.messages == ["dropped an event, shutdown: recorded too late"]


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit("x"), GeneratorExit("x")])
def test_a_function_that_raises(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """An exception of `on_drop` is logged, and goes no further."""

    def on_drop(*_: object) -> None:
        raise error

    reporter = DropReporter(LimitedLog(), on_drop)
    for _ in range(3):
        reporter.report(DropReason.QUEUE_FULL, EVENT)
    assert len(caplog.messages) == 2
    assert caplog.messages[1] == f"on_drop raised {type(error).__name__}: x"
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.ERROR]
    assert not is_in_kevents()


def test_ctrl_c() -> None:
    """Ctrl-C in `on_drop` is raised to the caller."""

    def on_drop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DropReporter(LimitedLog(), on_drop).report(DropReason.QUEUE_FULL, EVENT)
    assert not is_in_kevents()


def test_the_function_speaks_for_kevents() -> None:
    """`on_drop` runs inside kevents: an event that it records is a recursion."""
    heard: list[bool] = []
    DropReporter(LimitedLog(), lambda *_: heard.append(is_in_kevents())).report(DropReason.QUEUE_FULL, EVENT)
    assert heard == [True]


@pytest.mark.parametrize(
    ("dropped", "level", "text"),
    [
        (
            Dropped(DropReason.REJECTED, EVENT, 1, Verb.CREATE, Rejected(403, "Forbidden", DENIED)),
            logging.WARNING,
            f"the create was refused with 403 Forbidden: {DENIED}; the role lacks a rule, grant " + RULE,
        ),
        (
            Dropped(DropReason.REJECTED, EVENT, 1, Verb.PATCH, Rejected(403, "Forbidden", DENIED)),
            logging.WARNING,
            f"the patch was refused with 403 Forbidden: {DENIED}; the patch verb may be missing, grant " + RULE,
        ),
        (
            Dropped(DropReason.REJECTED, EVENT, 1, Verb.CREATE, Rejected(403, "Forbidden", ANONYMOUS)),
            logging.WARNING,
            (
                f"the create was refused with 403 Forbidden: {ANONYMOUS}; the request had no credentials, check the "
                "user of the kubeconfig and its exec plugin"
            ),
        ),
        (
            Dropped(DropReason.REJECTED, EVENT, 1, Verb.CREATE, Rejected(403, "Forbidden", "ends", quiet=True)),
            logging.DEBUG,
            "the create was refused with 403 Forbidden: ends",
        ),
        *(
            (
                Dropped(DropReason.REJECTED, EVENT, 1, Verb.CREATE, Rejected(403, "Forbidden", message)),
                logging.WARNING,
                f"the create was refused with 403 Forbidden: {message}",
            )
            for message in POLICIES
        ),
        (
            Dropped(DropReason.REJECTED, EVENT, 1, Verb.CREATE, Rejected(0, "ValueError", "")),
            logging.WARNING,
            "the create was refused with an error ValueError",
        ),
        (
            Dropped(DropReason.RETRIES_EXHAUSTED, EVENT, 1, None, Failed("broken")),
            logging.WARNING,
            f"{ADVICE[DropReason.RETRIES_EXHAUSTED]}; the last error: broken",
        ),
        (
            Dropped(DropReason.RETRIES_EXHAUSTED, EVENT, 1, None, Unavailable("reset")),
            logging.WARNING,
            f"{ADVICE[DropReason.RETRIES_EXHAUSTED]}; the last error: reset",
        ),
        (Dropped(DropReason.EXPIRED, EVENT, 1), logging.WARNING, ADVICE[DropReason.EXPIRED]),
    ],
)
def test_items_dropped_by_the_queue(dropped: Dropped, level: int, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfalls 43, 44, 45, fault 7: the line has the server's text, and for a 403 of RBAC also the missing rule."""
    caplog.set_level(logging.DEBUG, "kevents")
    DropReporter(LimitedLog(), None).report_dropped(dropped)
    assert caplog.messages == [f"dropped an event about v1/Pod prod/web-0 (reason R), {dropped.reason.value}: {text}"]
    assert [record.levelno for record in caplog.records] == [level]


def test_codes_and_verbs_are_apart(caplog: pytest.LogCaptureFixture) -> None:
    """The first refusal of each code and verb is logged. Later ones are summed up."""
    reporter = DropReporter(LimitedLog(), None)
    for verb in (Verb.CREATE, Verb.PATCH):
        for code in (403, 422):
            for _ in range(10):
                reporter.report_dropped(Dropped(DropReason.REJECTED, EVENT, 1, verb, Rejected(code, "R", "m")))
    assert len(caplog.messages) == 4
    reporter.log.log_suppressed()
    assert len(caplog.messages) == 8


def test_a_hostile_name_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 71: the names of objects are escaped in log lines."""
    event = Event(
        reference=about("a\nb\x1b[2J"),
        type="Normal",
        reason="R\r\nx",
        message="m",
        source=EventSource(),
        time=0,
        serial=1,
    )
    DropReporter(LimitedLog(), None).report(DropReason.QUEUE_FULL, event)
    (message,) = caplog.messages
    assert message.isprintable()
    assert r"v1/Pod prod/a\nb\x1b[2J (reason R\r\nx)" in message
