"""What a running export says of itself, redrawn on a terminal or logged."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from kevents.export._config.secrets import KNOWN
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics, StreamStatistics
from kevents.export._model.types import Stream
from kevents.export._operate import status as _status
from kevents.export._operate.logs import FIELDS
from kevents.export._operate.status import Progress, StatusLine, figures, status

if TYPE_CHECKING:
    import pytest

STREAMS = (StreamStatistics(Stream("c", "a"), read=1200), StreamStatistics(Stream("c", "b"), read=34))
ARCHIVE = DestinationStatistics("archive", written=1200, waiting=34, retries=2)
GOOD = ExportStatistics("running", STREAMS, (ARCHIVE,))
BAD = ExportStatistics(
    "running",
    (StreamStatistics(Stream("c"), read=9, gaps=1),),
    (DestinationStatistics("hook", dropped=1, refused=2, dead_lettered=3, failing=4, last_error="no\x1b[31m\nroute"),),
)


def test_status() -> None:
    """The line says what was read, how fast, and what each sink holds and lacks."""
    assert status(GOOD, 250.4) == "running: 1,234 read, 250/s | archive: 1,200 durable, 34 waiting"


def test_troubles() -> None:
    """Pitfall 71: what goes wrong is in the line, escaped."""
    hook = "hook: 0 durable, 0 waiting, 3 dead letters, 3 lost, failing: no\\x1b[31m\\nroute"
    assert status(BAD, 0) == f"running: 9 read, 0/s | {hook} | 1 gaps"


def test_pitfall_72(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: a secret in a trouble is not in the line."""
    monkeypatch.setattr(KNOWN, "_values", ())
    KNOWN.remember("hunter2")
    hook = DestinationStatistics("hook", failing=1, last_error="no hunter2")
    assert status(ExportStatistics("running", (), (hook,)), 0).endswith("failing: no (not shown)")


def test_figures() -> None:
    """The figures of a log line are those of the ledgers."""
    sink = {"durable": 1200, "waiting": 34, "retries": 2, "dead_letters": 0, "lost": 0}
    assert figures(GOOD) == {"state": "running", "read": 1234, "gaps": 0, "sinks": {"archive": sink}}
    assert {key: figures(BAD)["sinks"]["hook"][key] for key in ("dead_letters", "lost")} == {
        "dead_letters": 3,
        "lost": 3,
    }


def test_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is redrawn in place, cut to the terminal, and log lines go above it."""
    monkeypatch.setenv("COLUMNS", "30")
    stream = io.StringIO()
    line = StatusLine(stream)
    line.write("before\n")
    line.show("s" * 40)
    line.write("a log line\n")
    line.show("")
    assert stream.getvalue() == f"before\n\r\x1b[K{'s' * 29}\r\x1b[Ka log line\n{'s' * 29}\r\x1b[K"


def test_passed_on() -> None:
    """What was written above the status is passed on when the log asks for it."""
    below = io.BytesIO()
    line = StatusLine(io.TextIOWrapper(below, encoding="utf-8"))
    line.write("a log line\n")
    assert below.getvalue() == b""
    line.flush()
    assert below.getvalue() == b"a log line\n"


class Told:
    """RetryWaits for what a thread says."""

    def __init__(self) -> None:
        """Nothing has been said."""
        self.lines: list[str] = []
        self._said = threading.Semaphore(0)

    def show(self, line: str) -> None:
        """Hear a line."""
        self.lines.append(line)
        self._said.release()

    def wait(self) -> None:
        """Wait for one."""
        assert self._said.acquire(timeout=10)


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the status is shown again and again, and taken away at the end."""
    monkeypatch.setattr(_status, "_REDRAWN", 0.001)
    told = Told()
    with Progress(lambda: GOOD, told):  # type: ignore[arg-type]
        told.wait()
        told.wait()
    assert told.lines[0].startswith("running: 1,234 read, ")
    assert told.lines[1].startswith("running: 1,234 read, 0/s")
    assert told.lines[-1] == ""


def test_progress_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere it is a log line now and then, with its figures."""
    monkeypatch.setattr(_status, "_LOGGED", 0.001)
    told = Told()
    logger = logging.getLogger("kevents.test-progress")
    handler = _Handler(told.show)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with Progress(lambda: GOOD, None, logger):
        told.wait()
    logger.removeHandler(handler)
    assert told.lines[0] == f"progress {figures(GOOD)}"


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(f"{record.getMessage()} {getattr(record, FIELDS)}")
