"""How `kevents export` runs in its process: signals, the log, the status, and what it returns."""

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
from kevents.export._config.settings import Config
from kevents.export._model.statistics import ExportStatistics
from kevents.export._operate import commands as _commands
from kevents.export._operate.build import Parts, build
from kevents.export._operate.health import HealthServer
from kevents.export._operate.logs import is_terminal
from kevents.export._operate.run import LEFT, exported, run_export, shown
from kevents.export._operate.status import StatusLine
from kevents.testing import APIServer
from tests.export.operate.test_export_command import configuration, messages, read, record
from tests.export.operate.test_status import GOOD

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ScriptedExporter:
    """An exporter whose run is what it is told.

    Attributes:
        stopped: How often it was.
    """

    def __init__(self, during: Callable[[], object] = bool, left: int = 0) -> None:
        """Nothing runs yet."""
        self.stopped = 0
        self._during = during
        self._left = left

    def run(self) -> int:
        """Do it."""
        self._during()
        return self._left

    def stop(self) -> None:
        """Count it."""
        self.stopped += 1

    def statistics(self) -> ExportStatistics:
        """Figures."""
        return GOOD


class Terminal(io.StringIO):
    """A stream at which a person looks."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def parts(exporter: ScriptedExporter, health: HealthServer | None = None) -> Parts:
    """What runs."""
    return Parts(exporter, None, health)  # type: ignore[arg-type]


# -- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_it(number: signal.Signals, caplog: pytest.LogCaptureFixture) -> None:
    """SIGTERM and Ctrl-C stop the export once; the next one does what it does to any program, until it has ended."""
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


def test_what_is_left() -> None:
    """What was read and not acknowledged in time is told by the status."""
    assert run_export(parts(ScriptedExporter(left=3))) == LEFT


def test_an_export_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """What the export raises is raised; its end is logged all the same, and the signals are as before."""
    caplog.set_level(logging.INFO, "kevents.export")
    before = [signal.getsignal(each) for each in SIGNALS]

    def during() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        run_export(parts(ScriptedExporter(during)))
    assert caplog.messages[-1] == "the export has ended"
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_probes_while_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    """Metrics and probes are served as long as it runs; the log says where."""
    caplog.set_level(logging.INFO, "kevents.export")
    answers = []

    def during() -> None:
        with urllib.request.urlopen(f"{health.address}/livez", timeout=10) as answer:
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
    """A person on a terminal has a status line, unless records go there too; JSON is for programs, unless asked for."""
    stream = Terminal() if terminal else io.StringIO()
    with shown(stream, logs=logs, shared=shared) as status:
        logging.getLogger("kevents.export").info("hello")
    assert (isinstance(status, StatusLine), stream.getvalue().startswith("{")) == (line, as_json)


def test_who_looks() -> None:
    """A stream that is closed has nobody who looks at it."""
    stream = io.TextIOWrapper(io.BytesIO())
    assert (is_terminal(Terminal()), is_terminal(stream)) == (True, False)
    stream.close()
    assert not is_terminal(stream)


def test_an_export_on_a_terminal() -> None:
    """The log is above the line of status, which is taken away at the end."""
    stream = Terminal()
    exporter = ScriptedExporter(lambda: logging.getLogger("kevents.export").info("a detail"))
    assert exported(parts(exporter), stream=stream) == 0
    begun, detail, ended, erased = stream.getvalue().split("\n")
    assert begun.endswith(" INFO the export begins")
    assert detail.endswith(" INFO a detail")
    assert (ended.endswith(" INFO the export has ended"), erased) == (True, "\r\x1b[K")


def test_where_it_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """Without another stream the log goes to the standard error."""
    assert exported(parts(ScriptedExporter())) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert [json.loads(line)["message"] for line in err.splitlines()] == ["the export begins", "the export has ended"]


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.wire
def test_the_command(
    api_server: APIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kevents export` runs what its configuration says, and logs to the standard error."""
    made: list[Parts] = []

    def build_and_end(config: Config) -> Parts:
        made.append(build(config))
        threading.Thread(target=end, name="kevents-test-end").start()
        return made[-1]

    def end() -> None:
        try:
            assert api_server.wait_for(lambda: [r for r in api_server.requests if "watch" in r.query], timeout=30)
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
    """Where records go to the terminal that shows the log, there is no status line among them."""
    given: list[dict[str, Any]] = []
    path = tmp_path / "cfg.toml"
    where = f"path = {json.dumps(str(tmp_path))}\n" if sink == "file" else ""
    path.write_text(f'[sinks.out]\ntype = "{sink}"\n{where}[[routes]]\nto = "out"\nall = true\n', encoding="utf-8")
    monkeypatch.setattr(_commands, "build", lambda config: config)
    monkeypatch.setattr(_commands, "is_terminal", lambda _: terminal)
    monkeypatch.setattr(_commands, "exported", lambda _, **options: given.append(options) or 7)
    assert _cli.main(["export", "-c", str(path), "--logs", "text"]) == 7
    assert given == [{"logs": "text", "shared": shared}]


def test_debug_shows_where(tmp_path: Path) -> None:
    """With --debug what went wrong is raised, so that it is seen where; without, it is a line."""
    path = tmp_path / "cfg.toml"
    path.write_text(
        '[cluster]\nkubeconfig = "/nowhere"\n[sinks.out]\ntype = "stdout"\n[[routes]]\nto = "out"\nall = true\n',
        encoding="utf-8",
    )
    with pytest.raises(Exception, match="/nowhere"):
        _cli.main(["export", "-c", str(path), "--debug"])
    assert _cli.main(["export", "-c", str(path)]) == 2
