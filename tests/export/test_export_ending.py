"""`kevents export` with hanging requests, signals and corrupt checkpoints, and its output on a terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kevents.testing import APIServer, Hang
from tests.export.operate.test_export_command import Exporting, configuration, record
from tests.support.polling import poll

pytestmark = pytest.mark.wire
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def export(tmp_path: Path) -> Iterator[Callable[[str], Exporting]]:
    """Yield a factory of export processes, which are ended with the test."""
    made: list[Exporting] = []

    def make(config: str) -> Exporting:
        path = tmp_path / "cfg.toml"
        path.write_text(config, encoding="utf-8")
        made.append(Exporting(path))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def silence() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def to_webhook(server: APIServer, folder: Path, url: str, grace: str) -> str:
    """Return a configuration that writes everything to a webhook."""
    text = configuration(server, folder / "unused")
    sink = f'type = "webhook"\nurl = {json.dumps(url)}\n'
    text = re.sub(r'type = "file"\npath = .*\n', lambda match: sink, text)
    return f'grace = "{grace}"\ncheckpoints = {json.dumps(str(folder / "positions"))}\n{text}'


def waiting(running: Exporting) -> bool:
    """True if the webhook has received a request."""
    address = running.log.partition("metrics and probes at ")[2].partition('"')[0]
    if not address:
        return False
    import urllib.request

    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        return 'kevents_export_sink_in_flight_records{sink="archive"} 1.0' in answer.read().decode()


def test_grace(api_server: APIServer, export: Callable[[str], Exporting], tmp_path: Path, silence: str) -> None:
    """A hanging destination is abandoned after the grace: the status is 1 and the log reports the pending records."""
    record(api_server, 1)
    running = export(to_webhook(api_server, tmp_path, silence, "1s"))
    running.wait_until(lambda: waiting(running))
    began = time.monotonic()
    assert running.end() == 1, running.log
    assert time.monotonic() - began < 30
    assert "1 record not acknowledged in time; the next run reads what is missing again" in running.log
    assert "Traceback" not in running.log
    assert not (tmp_path / "positions").exists()


@pytest.mark.parametrize(
    ("path", "watch"),
    [("kube-system", False), ("events", False), ("events", True)],
    ids=["connects", "lists", "watches"],
)
def test_a_request_without_an_answer(
    api_server: APIServer,
    export: Callable[[str], Exporting],
    tmp_path: Path,
    path: str,
    watch: bool,  # noqa: FBT001
) -> None:
    """A request that the server never answers does not delay shutdown, whatever the request."""
    asked = api_server.fail(Hang(), path=path, when=lambda request: watch is ("watch" in request.query))
    running = export(f'grace = "1h"\n{configuration(api_server, tmp_path)}')
    running.wait_until(lambda: asked.hits)
    began = time.monotonic()
    assert running.end() == 0, running.log
    assert time.monotonic() - began < 10  # the request's time-out is 15 s, that of a watch longer
    assert "Traceback" not in running.log


def test_a_second_signal(
    api_server: APIServer, export: Callable[[str], Exporting], tmp_path: Path, silence: str
) -> None:
    """A second signal ends the process immediately, within the grace."""
    record(api_server, 1)
    running = export(to_webhook(api_server, tmp_path, silence, "1h"))
    running.wait_until(lambda: waiting(running))

    def ended() -> bool:
        running.process.send_signal(signal.SIGTERM)  # resent until the first has been handled
        return running.process.poll() is not None

    assert poll(ended, 30)
    assert running.process.returncode == -signal.SIGTERM


def test_a_corrupt_checkpoint(api_server: APIServer, export: Callable[[str], Exporting], tmp_path: Path) -> None:
    """A corrupt checkpoint is reported with the fix, and nothing is written meanwhile."""
    (tmp_path / "positions").mkdir()
    (tmp_path / "positions/archive.json").write_text("{", encoding="utf-8")
    running = export(to_webhook(api_server, tmp_path, "http://127.0.0.1:9", "1s"))
    assert running.process.wait(60) == 2, running.log
    assert "archive.json cannot be read" in running.log
    assert "restore an earlier one, or remove it" in running.log
    assert "Traceback" not in running.log


# -- on a terminal ---------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with a process whose output goes to it."""

    def __init__(self, *arguments: str) -> None:
        pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")
        self._end, other = pty.openpty()
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm", "COLUMNS": "100"}
        environment.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kevents", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=other,
            stderr=other,
            env=environment,
        )
        os.close(other)
        self.text = ""

    def wait_for(self, pattern: str) -> None:
        """Read until the output matches."""
        while not re.search(pattern, self.text):
            try:
                data = os.read(self._end, 4096)
            except OSError:  # Linux: the other end is closed
                data = b""
            assert data, self.text
            self.text += data.decode("utf-8", "replace")

    def close(self) -> None:
        """End the process in any case."""
        self.process.kill()
        self.process.wait(60)
        os.close(self._end)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Yield a factory of terminals."""
    made: list[Terminal] = []

    def make(*arguments: str) -> Terminal:
        made.append(Terminal(*arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_status_line(api_server: APIServer, terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """On a terminal, a status line is redrawn in place below readable log lines."""
    record(api_server, 1)
    (tmp_path / "cfg.toml").write_text(configuration(api_server, tmp_path / "events"), encoding="utf-8")
    shown = terminal("export", "-c", str(tmp_path / "cfg.toml"))
    shown.wait_for(r"\r\x1b\[Krunning: 1 read, \d+/s \| archive: 1 written, 0 waiting")
    assert re.search(r"\d\d:\d\d:\d\d INFO the export begins\r\n", shown.text)
    shown.process.send_signal(signal.SIGINT)
    shown.wait_for(r"\r\x1b\[K\d\d:\d\d:\d\d INFO the export has ended after SIGINT\r\n")
    assert shown.process.wait(60) == 0


def test_colours(api_server: APIServer, terminal: Callable[..., Terminal]) -> None:
    """On a terminal, a warning is yellow. Pitfall 71: control characters of an event are escaped."""
    record(api_server, 1, message="\x1b]0;owned\x07")
    shown = terminal("tail", "--since", "9999d", "--kubeconfig", str(api_server.kubeconfig()))
    shown.wait_for(r"\x1b\[33mWarning\x1b\[0m .*\\x1b\]0;owned\\x07")
    assert "\x1b]0" not in shown.text
    shown.process.send_signal(signal.SIGINT)
    assert shown.process.wait(60) == 130


def test_from_now_on(api_server: APIServer, terminal: Callable[..., Terminal]) -> None:
    """A user who sees no events yet is shown the reason."""
    shown = terminal("tail", "--kubeconfig", str(api_server.kubeconfig()), "-n", "default")
    shown.wait_for("events of namespace default from now on; --since 1h shows earlier ones too")
