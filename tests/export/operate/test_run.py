"""Running an export in the process of `kevents export`: signals, log, progress and exit status."""

from __future__ import annotations

import io
import json
import logging
import signal
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kevents._cli import main as _cli
from kevents.export._config.file import Config
from kevents.export._config.table_reader import KNOWN
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics, StreamStatistics
from kevents.export._model.types import Stream
from kevents.export._operate import commands as _commands
from kevents.export._operate import commands as _run
from kevents.export._operate.build import Parts, build
from kevents.export._operate.commands import (
    UNACKNOWLEDGED,
    figures,
    log_setup,
    progress_shown,
    run_export,
    run_with_logs,
    status,
)
from kevents.export._operate.health import HealthServer
from kevents.export._operate.logs import FIELDS, StatusLine, is_terminal
from kevents.testing import APIServer
from tests.export.operate.test_export_command import configuration, messages, read, record

SIGNALS = (signal.SIGINT, signal.SIGTERM)
STREAMS = (StreamStatistics(Stream("c", "a"), read=1200), StreamStatistics(Stream("c", "b"), read=34))
ARCHIVE = DestinationStatistics("archive", written=1200, waiting=34, retries=2)
GOOD = ExportStatistics("running", STREAMS, (ARCHIVE,))
BAD = ExportStatistics(
    "running",
    (StreamStatistics(Stream("c"), read=9, gaps=1),),
    (DestinationStatistics("hook", dropped=1, refused=2, dead_lettered=3, failing=4, last_error="no\x1b[31m\nroute"),),
)


class ScriptedExporter:
    """An exporter whose run is scripted.

    Attributes:
        stopped: Number of calls of `stop`.
    """

    def __init__(self, during: Callable[[], object] = bool, left: int = 0) -> None:
        self.stopped = 0
        self._during = during
        self._left = left

    def run(self) -> int:
        """Run the script."""
        self._during()
        return self._left

    def stop(self) -> None:
        """Count the call."""
        self.stopped += 1

    def statistics(self) -> ExportStatistics:
        """Return constant statistics."""
        return GOOD


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def parts(exporter: ScriptedExporter, health: HealthServer | None = None) -> Parts:
    """Return the parts of an export."""
    return Parts(exporter, None, health)  # type: ignore[arg-type]


# -- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_it(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    """SIGTERM and SIGINT stop the export once. A second signal has its default action until the export has ended."""
    caplog.set_level(logging.INFO, "kevents.export")
    before = [signal.getsignal(each) for each in SIGNALS]
    meanwhile = []

    def during() -> None:
        signal.raise_signal(number)
        meanwhile.extend(signal.getsignal(each) for each in SIGNALS)

    exporter = ScriptedExporter(during)
    assert run_export(parts(exporter)) == 0
    assert (exporter.stopped, meanwhile) == (1, [signal.SIG_DFL] * 2)
    assert [signal.getsignal(each) for each in SIGNALS] == before
    assert caplog.messages == ["the export begins", f"the export has ended after {number.name}"]
    assert caplog.records[-1].fields["read"] == 1234  # type: ignore[attr-defined]


def test_remaining_events() -> None:
    """The exit status is 1 if not everything was acknowledged in time."""
    assert run_export(parts(ScriptedExporter(left=3))) == UNACKNOWLEDGED


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_sighup(caplog: pytest.LogCaptureFixture) -> None:
    """Fault 39: SIGHUP ends nothing and reloads nothing. A log line names the alternative."""
    caplog.set_level(logging.INFO, "kevents.export")
    before = signal.getsignal(signal.SIGHUP)
    exporter = ScriptedExporter(lambda: signal.raise_signal(signal.SIGHUP))
    assert run_export(parts(exporter)) == 0
    assert (exporter.stopped, signal.getsignal(signal.SIGHUP)) == (0, before)
    assert "SIGHUP is ignored: restart the export to apply a changed configuration" in caplog.messages


def test_an_export_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An error of the export is raised after its end is logged and the signal handlers are restored."""
    caplog.set_level(logging.INFO, "kevents.export")
    before = [signal.getsignal(each) for each in SIGNALS]

    def during() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        run_export(parts(ScriptedExporter(during)))
    assert caplog.messages[-1] == "the export has ended"
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_probes_while_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    """Metrics and probes are served while the export runs, and the log has the address."""
    caplog.set_level(logging.INFO, "kevents.export")
    answers = []

    def during() -> None:
        with urllib.request.urlopen(f"{health.address}/livez", timeout=60) as answer:
            answers.append((answer.status, caplog.messages[0].endswith(f" at {health.address}")))

    exporter = ScriptedExporter(during)
    health = HealthServer(exporter)
    assert run_export(parts(exporter, health)) == 0
    assert (answers, health.address) == ([(200, True)], "")


# -- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminal", "logs", "shared", "line", "as_json"),
    [
        (True, "auto", False, True, False),
        (True, "text", False, True, False),
        (True, "json", False, False, True),
        (True, "auto", True, False, False),
        (False, "auto", False, False, True),
        (False, "text", False, False, False),
    ],
)
def test_for_whom_it_logs(*, terminal: bool, logs: str, shared: bool, line: bool, as_json: bool) -> None:
    """A terminal gets text with a status line, unless records go there too. Other outputs get JSON."""
    stream = Terminal() if terminal else io.StringIO()
    with log_setup(stream, logs=logs, shared=shared) as status_line:
        logging.getLogger("kevents.export").info("hello")
    assert (isinstance(status_line, StatusLine), stream.getvalue().startswith("{")) == (line, as_json)


def test_who_looks() -> None:
    """A closed stream is no terminal."""
    stream = io.TextIOWrapper(io.BytesIO())
    assert (is_terminal(Terminal()), is_terminal(stream)) == (True, False)
    stream.close()
    assert not is_terminal(stream)


def test_an_export_on_a_terminal() -> None:
    """The log is above the status line, which is removed at the end."""
    stream = Terminal()
    exporter = ScriptedExporter(lambda: logging.getLogger("kevents.export").info("a detail"))
    assert run_with_logs(parts(exporter), stream=stream) == 0
    begun, detail, ended, erased = stream.getvalue().split("\n")
    assert begun.endswith(" INFO the export begins")
    assert detail.endswith(" INFO a detail")
    assert (ended.endswith(" INFO the export has ended"), erased) == (True, "\r\x1b[K")


def test_where_it_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """By default the log goes to the standard error."""
    assert run_with_logs(parts(ScriptedExporter())) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["the export begins", "the export has ended"]


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.wire
def test_the_command(
    api_server: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kevents export` runs its configuration and logs to the standard error."""
    made: list[Parts] = []

    def build_and_end(config: Config) -> Parts:
        made.append(build(config))
        threading.Thread(target=end, name="kevents-test-end").start()
        return made[-1]

    def end() -> None:
        try:
            assert api_server.wait_for(lambda: [r for r in api_server.requests if "watch" in r.query], timeout=120)
        finally:
            made[-1].exporter.stop()

    record(api_server, 1)
    path = tmp_path / "cfg.toml"
    path.write_text(configuration(api_server, tmp_path / "events"), encoding="utf-8")
    monkeypatch.setattr(_commands, "build", build_and_end)
    assert _cli.main(["export", "-c", str(path)]) == 0
    out, err = capsys.readouterr()
    assert (out, json.loads(err.splitlines()[-1])["message"]) == ("", "the export has ended")
    assert messages(read(capsys, tmp_path / "events")) == ["1"]


@pytest.mark.parametrize(
    ("sink", "terminal", "shared"), [("stdout", True, True), ("stdout", False, False), ("file", True, False)]
)
def test_records_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, sink: str, terminal: bool, shared: bool
) -> None:
    """There is no status line if records go to the same terminal."""
    given: list[dict[str, Any]] = []
    path = tmp_path / "cfg.toml"
    where = f"path = {json.dumps(str(tmp_path))}\n" if sink == "file" else ""
    path.write_text(f'[sinks.out]\ntype = "{sink}"\n{where}[[routes]]\nto = "out"\nall = true\n', encoding="utf-8")
    monkeypatch.setattr(_commands, "build", lambda config: config)
    monkeypatch.setattr(_commands, "is_terminal", lambda _: terminal)
    monkeypatch.setattr(_commands, "run_with_logs", lambda _, **options: given.append(options) or 7)
    assert _cli.main(["export", "-c", str(path), "--logs", "text"]) == 7
    assert given == [{"logs": "text", "shared": shared}]


def test_debug_shows_where(tmp_path: Path) -> None:
    """With --debug, an error is raised with its traceback. Otherwise it is one line."""
    path = tmp_path / "cfg.toml"
    path.write_text(
        '[cluster]\nkubeconfig = "/nowhere"\n[sinks.out]\ntype = "stdout"\n[[routes]]\nto = "out"\nall = true\n',
        encoding="utf-8",
    )
    with pytest.raises(Exception, match="/nowhere"):
        _cli.main(["export", "-c", str(path), "--debug"])
    assert _cli.main(["export", "-c", str(path)]) == 2


# -- progress ----------------------------------------------------------------------------------------------------------


def test_status() -> None:
    """The status line has the number of records, the rate and the progress of each sink."""
    assert status(GOOD, 250.4) == "running: 1,234 read, 250/s | archive: 1,200 written, 34 waiting"


def test_status_of_a_failing_sink() -> None:
    """Pitfall 71: errors in the status line are escaped."""
    hook = "hook: 0 written, 0 waiting, 3 dead letters, 3 lost, failing: no\\x1b[31m\\nroute"
    assert status(BAD, 0) == f"running: 9 read, 0/s | {hook} | 1 gaps"


def test_status_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: secrets are redacted in the status line."""
    monkeypatch.setattr(KNOWN, "_forms", set())
    KNOWN.remember("hunter2")
    hook = DestinationStatistics("hook", failing=1, last_error="no hunter2")
    assert status(ExportStatistics("running", (), (hook,)), 0).endswith("failing: no (not shown)")


def test_figures() -> None:
    """The statistics of a log line match those of the export."""
    sink = {"written": 1200, "waiting": 34, "retries": 2, "dead_letters": 0, "lost": 0}
    assert figures(GOOD) == {"state": "running", "read": 1234, "gaps": 0, "sinks": {"archive": sink}}
    assert {key: figures(BAD)["sinks"]["hook"][key] for key in ("dead_letters", "lost")} == {
        "dead_letters": 3,
        "lost": 3,
    }


class Shown:
    """Collects status lines and waits for them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._arrived = threading.Semaphore(0)

    def show(self, line: str) -> None:
        """Store a line."""
        self.lines.append(line)
        self._arrived.release()

    def wait(self) -> None:
        """Wait for a line."""
        assert self._arrived.acquire(timeout=10)


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal, the status line is redrawn, and removed at the end."""
    monkeypatch.setattr(_run, "_REDRAW_PERIOD", 0.001)
    shown = Shown()
    with progress_shown(lambda: GOOD, shown):  # type: ignore[arg-type]
        shown.wait()
        shown.wait()
    assert shown.lines[0].startswith("running: 1,234 read, ")
    assert shown.lines[1].startswith("running: 1,234 read, 0/s")
    assert shown.lines[-1] == ""


def test_progress_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, the statistics are logged periodically."""
    monkeypatch.setattr(_run, "_LOG_PERIOD", 0.001)
    shown = Shown()
    logger = logging.getLogger("kevents.test-progress")
    handler = _Handler(shown.show)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    monkeypatch.setattr(_run, "LOGGER", logger)
    with progress_shown(lambda: GOOD, None):
        shown.wait()
    logger.removeHandler(handler)
    assert shown.lines[0] == f"progress {figures(GOOD)}"


class _Handler(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(f"{record.getMessage()} {getattr(record, FIELDS)}")
