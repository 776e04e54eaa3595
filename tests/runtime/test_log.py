"""The log lines of kevents: few, one line each, and safe from broken log handlers."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from contextvars import copy_context

import pytest

from kevents._model.statistics import DropReason
from kevents._queue.outcome import Verb
from kevents._runtime.log import LimitedLog, in_kevents, is_in_kevents, log_line
from tests.support.interrupts import interrupted
from tests.support.sinks import PATIENCE


class Broken(logging.Handler):
    """A log handler that raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        """Raise."""
        raise self._error


class Clock:
    """A clock that tests move."""

    def __init__(self, log: LimitedLog, period: float) -> None:
        from cachetools import TTLCache

        self.now = 0.0
        log._logged = TTLCache(maxsize=256, ttl=period, timer=lambda: self.now)


@pytest.fixture
def broken(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give the logger of kevents a handler that raises the parameter."""
    handler = Broken(request.param)
    logging.getLogger("kevents").addHandler(handler)
    yield
    logging.getLogger("kevents").removeHandler(handler)


def test_the_first_at_once_then_a_sum(caplog: pytest.LogCaptureFixture) -> None:
    """The first line of a kind is logged at once. Later lines are counted in the next one after the period."""
    log = LimitedLog(period=60.0)
    clock = Clock(log, 60.0)
    for number in range(10):
        log.log_limited("k", f"line {number}", events=2)
    assert caplog.messages == ["line 0"]
    clock.now = 61.0
    log.log_limited("k", "line 10")
    assert caplog.messages == ["line 0", "line 10 (and 18 more like it since the last such line)"]


def test_kinds_and_levels_are_apart(caplog: pytest.LogCaptureFixture) -> None:
    """A line does not suppress lines of another kind or level."""
    caplog.set_level(logging.INFO, "kevents")
    log = LimitedLog()
    log.log_limited("a", "a")
    log.log_limited("b", "b")
    log.log_limited("a", "c", level=logging.INFO)
    assert caplog.messages == ["a", "b", "c"]


def test_a_line_that_is_not_said_is_not_made(caplog: pytest.LogCaptureFixture) -> None:
    """The text of a suppressed line is never built: in a storm it costs nothing."""
    made: list[str] = []

    def text() -> str:
        made.append("a loss")
        return made[-1]

    log = LimitedLog()
    for _ in range(100):
        log.log_limited("loss", text)
    assert (made, caplog.messages) == (["a loss"], ["a loss"])


def test_the_counts_of_suppressed_lines_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """At the end the number of suppressed lines is logged once."""
    log = LimitedLog()
    for _ in range(5):
        log.log_limited(("queue_full", "w-1"), "dropped", events=3)
    log.log_suppressed()
    log.log_suppressed()
    assert caplog.messages == ["dropped", "12 more like the last line about queue_full, w-1"]


def test_the_end_of_speaking() -> None:
    """A task started while kevents logs is inside kevents until its context ends, although the logging has ended."""
    with in_kevents():
        task = copy_context()
        assert task.run(is_in_kevents)
    assert not task.run(is_in_kevents)
    assert not is_in_kevents()


def test_a_kind_is_named_in_words(caplog: pytest.LogCaptureFixture) -> None:
    """The line about suppressed lines names their kind in plain words."""
    log = LimitedLog()
    for kind in ((DropReason.REJECTED, (Verb.PATCH, 403)), (DropReason.SHUTDOWN, None), "clock"):
        for _ in range(2):
            log.log_limited(kind, "dropped")
    log.log_suppressed()
    about = ["rejected, patch, 403", "shutdown", "clock"]
    assert caplog.messages[3:] == [f"1 more like the last line about {each}" for each in about]


def test_renewed(caplog: pytest.LogCaptureFixture) -> None:
    """After a fork suppressed lines are logged again."""
    log = LimitedLog()
    log.log_limited("k", "parent")
    log.reset()
    log.log_limited("k", "child")
    assert caplog.messages == ["parent", "child"]


def test_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Pitfall 71: line breaks and control characters are escaped in log lines: one line per record."""
    log_line(logging.WARNING, "a\nb\r\x1b[31mc\x00 % d %s \u202e \ud800")
    (message,) = caplog.messages
    assert message.isprintable()
    assert message[:26] == r"a\nb\r\x1b[31mc\x00 % d %s"


def test_own_log_records_are_not_recorded() -> None:
    """While kevents logs, only the logging thread is inside kevents."""
    heard: list[tuple[bool, bool]] = []

    class Curious(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            others: list[bool] = []
            thread = threading.Thread(target=lambda: others.append(is_in_kevents()))
            thread.start()
            thread.join(PATIENCE)
            heard.append((is_in_kevents(), others[0]))

    handler = Curious()
    logging.getLogger("kevents").addHandler(handler)
    log_line(logging.WARNING, "x")
    logging.getLogger("kevents").removeHandler(handler)
    assert heard == [(True, False)]
    assert not is_in_kevents()


@pytest.mark.parametrize("broken", [ValueError(), SystemExit(), GeneratorExit()], indirect=True, ids=repr)
@pytest.mark.usefixtures("broken")
def test_a_broken_handler(capfd: pytest.CaptureFixture[str]) -> None:
    """A log handler that raises breaks nothing. Standard error gets one line about it."""
    log = LimitedLog()
    for _ in range(100):
        log.log_limited("k", "x")
    assert capfd.readouterr().err.count("kevents: a log handler raised") == 1
    assert not is_in_kevents()


@pytest.mark.parametrize("broken", [KeyboardInterrupt()], indirect=True)
@pytest.mark.usefixtures("broken")
def test_ctrl_c() -> None:
    """Ctrl-C while kevents logs is raised to the caller, and the thread is outside kevents afterwards."""
    with pytest.raises(KeyboardInterrupt):
        log_line(logging.WARNING, "x")
    assert not is_in_kevents()


@pytest.mark.parametrize("broken", [ValueError()], indirect=True)
@pytest.mark.usefixtures("broken")
def test_a_broken_handler_without_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without standard error, a broken log handler is ignored."""
    monkeypatch.setattr("sys.stderr", None)
    log_line(logging.WARNING, "x")


def test_speaking_ends_with_the_block() -> None:
    """`in_kevents` nests, and ends with the outermost block, also after an exception."""
    with pytest.raises(ValueError, match="x"), in_kevents(), in_kevents():
        raise ValueError("x")
    assert not is_in_kevents()


def test_interrupted_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    """A line logged in the middle of another one is logged or counted: none is lost or doubled, and nothing blocks."""
    at, more = 0, True
    while more:
        at += 1
        caplog.clear()
        log = LimitedLog()
        more = interrupted(
            lambda log=log: log.log_limited("k", "outer"), at, lambda log=log: log.log_limited("k", "inner")
        )  # type: ignore[misc]
        log.log_suppressed()
        assert sum(1 + message.count("(and 1 more") for message in caplog.messages) == (2 if more else 1)
        assert not is_in_kevents()


def test_ctrl_c_anywhere() -> None:
    """Ctrl-C at any call within a line leaves a working log."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    at, more = 0, True
    while more:
        at += 1
        log = LimitedLog()
        try:
            more = interrupted(lambda log=log: log.log_limited("k", "outer"), at, interrupt, where="call")  # type: ignore[misc]
        except KeyboardInterrupt:
            more = True
        assert not log._busy
        assert not is_in_kevents()
    assert at > 3


def test_many_threads(caplog: pytest.LogCaptureFixture) -> None:
    """Many threads log the same line: it is logged once, and the count of suppressed lines is exact."""
    log = LimitedLog()

    def work() -> None:
        for _ in range(500):
            log.log_limited("k", "x")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    log.log_suppressed()
    assert caplog.messages == ["x", "3999 more like the last line about k"]


def test_a_finaliser_is_not_kevents_own_work() -> None:
    """Fault 9: finalisers that run while kevents logs or sends may record. Kevents' own logging may not."""
    seen: list[bool] = []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            seen.append(is_in_kevents())
            with in_kevents():
                seen.append(is_in_kevents())
            seen.append(is_in_kevents())

    with in_kevents():
        Cycle()
        gc.collect()
        assert is_in_kevents()
    assert seen == [False, True, False]
    Cycle()
    gc.collect()
    assert seen == [False, True, False] * 2
    assert not is_in_kevents()


@pytest.mark.parametrize("text", ["x" * 3_200_000, "\n" * 1_500, "x" * 999 + "\n"], ids=["long", "breaks", "edge"])
def test_no_line_is_long(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """A line has at most 1,000 characters. The number of suppressed lines is never cut."""
    log_line(logging.WARNING, text)
    log = LimitedLog()
    clock = Clock(log, 60.0)
    for _ in range(3):
        log.log_limited("k", text)
    clock.now = 61.0
    log.log_limited("k", text)
    assert [len(message) for message in caplog.messages] == [1000] * 3
    assert caplog.messages[0].endswith("...")
    assert caplog.messages[2].endswith("... (and 2 more like it since the last such line)")
