"""The command `kevents export` as a process, with configurations, signals and exported records."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kevents._cli import main as _cli
from kevents.testing import APIServer
from tests.support.polling import poll

pytestmark = pytest.mark.wire
SECRET = "do-not-tell"
PATIENCE = 60.0


class Exporting:
    """An export process."""

    def __init__(self, config: Path, *arguments: str, **environment: str) -> None:
        root = str(Path(__file__).parents[3])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._log = (config.parent / "log").open("w+b")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-X", "dev", "-m", "kevents", "export", "-c", str(config), *arguments],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": paths, **environment},
        )

    @property
    def log(self) -> str:
        """The log of the process."""
        self._log.seek(0)
        return self._log.read().decode()

    def wait_until(self, done: Callable[[], object]) -> None:
        """Wait until a condition holds or the process ends."""
        assert poll(done, PATIENCE, lambda: self.process.poll() is None), self.log

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """End the process in any case."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self._log.close()
        if self.process.stdout:
            self.process.stdout.close()


@pytest.fixture
def export(tmp_path: Path) -> Iterator[Callable[..., Exporting]]:
    """Yield a factory of export processes, which are ended with the test."""
    made: list[Exporting] = []

    def make(config: str, *arguments: str, **environment: str) -> Exporting:
        path = tmp_path / "cfg.toml"
        path.write_text(config, encoding="utf-8")
        made.append(Exporting(path, *arguments, **environment))
        return made[-1]

    yield make
    for each in made:
        each.close()


def configuration(server: APIServer, folder: Path, more: str = "") -> str:
    """Return a configuration that writes everything to files after a short time."""
    return f"""\
[cluster]
kubeconfig = {json.dumps(str(server.kubeconfig()))}
[health]
listen = "127.0.0.1:0"
[sinks.archive]
type = "file"
path = {json.dumps(str(folder))}
batch = {{ max_age = "50ms" }}
{more}
[[routes]]
to = "archive"
all = true
"""


def record(server: APIServer, number: int, namespace: str = "default", **fields: Any) -> dict[str, Any]:
    """Create an event."""
    body = {
        "metadata": {"name": f"e{number}", "namespace": namespace},
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": f"web-{number}", "uid": f"u-{number}"},
        "type": "Warning" if number % 2 else "Normal",
        "reason": "Stepped",
        "message": f"step {number}",
        "count": 1,
        "firstTimestamp": "2026-07-24T09:00:00Z",
        "lastTimestamp": "2026-07-24T09:00:00Z",
        **fields,
    }
    return server.create("v1", "events", body)


def read(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    """Return the output of `kevents read --json`."""
    capsys.readouterr()
    assert _cli.main(["read", "--json", *map(str, arguments)]) == 0
    written = capsys.readouterr()
    assert written.err == ""
    return [json.loads(line) for line in written.out.splitlines()]


def messages(records: list[dict[str, Any]]) -> list[str]:
    """Return the messages without the word "step"."""
    return [record["message"].removeprefix("step ") for record in records]


def everywhere(folder: Path) -> int:
    """Return the total size of a folder's files in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# -- from end to end -------------------------------------------------------------------------------------------------


def test_end_to_end(
    api_server: APIServer,
    export: Callable[..., Exporting],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After SIGTERM and a restart, every revision is read back once and in order."""
    folder = tmp_path / "events"
    config = configuration(api_server, folder)
    for number in range(3):
        record(api_server, number)
    first = export(config)
    first.wait_until(lambda: '"message": "the export begins"' in first.log and everywhere(folder))
    for number in range(3, 6):
        record(api_server, number)
    size = everywhere(folder)
    first.wait_until(lambda: everywhere(folder) > size)
    assert first.end() == 0, first.log
    for number in range(6, 9):
        record(api_server, number)
    second = export(config)
    second.wait_until(lambda: any(folder.rglob("*")) and "8" in messages(read(capsys, folder)))
    assert second.end() == 0, second.log
    records = read(capsys, folder)
    assert messages(records) == [str(number) for number in range(9)]
    expected = [f"{event['metadata']['uid']}:{event['metadata']['resourceVersion']}" for event in api_server.events()]
    assert sorted(record["kevents"]["id"] for record in records) == sorted(expected)
    last = json.loads(second.log.splitlines()[-1])
    assert (last["message"], last["sinks"]["archive"]["written"]) == ("the export has ended after SIGTERM", 3)


def test_secrets(api_server: APIServer, export: Callable[..., Exporting], tmp_path: Path) -> None:
    """Pitfall 72: no log line contains the kubeconfig's token or a secret, even after errors."""
    more = '[sinks.hook]\ntype = "webhook"\nurl = { env = "HOOK" }\nbatch = { max_age = "50ms" }\n'
    more += 'headers = { Authorization = { env = "HOOK_AUTHORIZATION" }, X-Key = { env = "HOOK_KEY" } }\n'
    config = configuration(api_server, tmp_path / "events", more).replace('to = "archive"', 'to = ["archive", "hook"]')
    record(api_server, 1)
    running = export(
        f'grace = "1s"\ncheckpoints = "{tmp_path}/positions"\n{config}',
        "--debug",
        HOOK=f"http://user:{SECRET}@127.0.0.1:9/{SECRET}",
        HOOK_AUTHORIZATION=f"Bearer {SECRET}",
        HOOK_KEY=f"broken\n{SECRET}",
    )
    running.wait_until(lambda: '"level": "warning"' in running.log and "hook" in running.log.partition("warning")[2])
    assert running.end() == 1, running.log
    assert api_server.token not in running.log
    assert SECRET not in running.log


def test_interrupt(api_server: APIServer, export: Callable[..., Exporting], tmp_path: Path) -> None:
    """Ctrl-C ends the export like SIGTERM."""
    running = export(configuration(api_server, tmp_path / "events"))
    running.wait_until(lambda: "the export begins" in running.log)
    assert running.end(signal.SIGINT) == 0, running.log
    assert "the export has ended after SIGINT" in running.log
    assert "Traceback" not in running.log


def test_to_stdout(
    api_server: APIServer, export: Callable[..., Exporting], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Records go to the standard output and the log to the standard error. Piped records can be read back."""
    record(api_server, 1)
    config = configuration(api_server, tmp_path / "unused").replace(
        f'type = "file"\npath = {json.dumps(str(tmp_path / "unused"))}', 'type = "stdout"'
    )
    running = export(config)
    assert running.process.stdout
    line = running.process.stdout.readline()
    assert running.end() == 0, running.log
    assert messages([json.loads(line)]) == ["1"]
    (tmp_path / "piped.jsonl").write_bytes(line)
    assert messages(read(capsys, tmp_path / "piped.jsonl")) == ["1"]


def test_probes(api_server: APIServer, export: Callable[..., Exporting], tmp_path: Path) -> None:
    """Pitfall 77: the log has the address of the metrics and probes."""
    import urllib.request

    record(api_server, 1)
    running = export(configuration(api_server, tmp_path / "events", '[enrich]\nwait = "60s"'))
    running.wait_until(lambda: "metrics and probes at " in running.log)
    address = running.log.partition("metrics and probes at ")[2].partition('"')[0]
    assert address.startswith("http://127.0.0.1:")

    def page(path: str) -> str:
        with urllib.request.urlopen(address + path, timeout=60) as answer:
            return str(answer.read().decode())

    running.wait_until(lambda: 'written_records_total{sink="archive"} 1.0' in page("/metrics"))
    assert (page("/readyz"), page("/livez")) == ("ok\n", "ok\n")
    metrics = page("/metrics")
    assert re.search(r"^kube_api_read_cache_misses 1\.0$", metrics, re.MULTILINE), metrics
    assert running.end() == 0


# -- exports that fail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('type = "file"', 'type = "fil"'), "sinks.archive.type: must be "),
        (("[health]", '[health]\nstale_after = "x"'), "health.stale_after: must be a time with its unit"),
        (('kubeconfig = "', 'kubeconfig = "/nowhere'), "kevents: cannot use the kubeconfig /nowhere"),
        (("[cluster]", '[cluster]\ncontext = "none"'), "context none ("),
        (
            ("[sinks.archive]", '[sinks.a]\ntype="webhook"\nurl={env="NO_SUCH"}\n[sinks.archive]'),
            "sinks.a.url: the environment variable NO_SUCH is not set",
        ),
        (('"127.0.0.1:0"', '"192.0.2.1:80"'), "kevents: cannot listen on 192.0.2.1:80 ("),
    ],
)
def test_cannot_begin(
    api_server: APIServer, capsys: pytest.CaptureFixture[str], tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    """An export that cannot start exits with status 2 and a short error without a traceback."""
    config = configuration(api_server, tmp_path / "events").replace(*change)
    if "webhook" in config:
        config = f'checkpoints = "{tmp_path}"\n' + config.replace('to = "archive"', 'to = ["archive", "a"]')
    path = tmp_path / "cfg.toml"
    path.write_text(config, encoding="utf-8")
    assert _cli.main(["export", "-c", str(path)]) == 2
    told = capsys.readouterr().err
    assert expected in told
    assert "Traceback" not in told


@pytest.mark.parametrize("verbs", [set(), {"get"}])
def test_no_permission(
    api_server: APIServer, export: Callable[..., Exporting], tmp_path: Path, verbs: set[str]
) -> None:
    """The error of a missing permission has the rule. Without access to the cluster's UID, the export exits."""
    api_server.add_user(SECRET, "weak-user", verbs)
    config = configuration(api_server, tmp_path / "events")
    weak = str(api_server.kubeconfig(token=SECRET))
    running = export(config.replace(config.splitlines()[1], f"kubeconfig = {json.dumps(weak)}"))
    if verbs:
        running.wait_until(lambda: "list" in running.log and "events" in running.log)
        assert running.end() == 0, running.log
    else:
        assert running.process.wait(PATIENCE) == 2, running.log
        assert '"namespaces" named "kube-system"' in running.log
        assert 'or give it an id of your own: id = "..." in [cluster]' in running.log
    assert SECRET not in running.log
    assert "Traceback" not in running.log


def test_no_reader(api_server: APIServer, export: Callable[..., Exporting], tmp_path: Path) -> None:
    """With a closed standard output, the export exits with status 141 and without a traceback."""
    config = configuration(api_server, tmp_path / "unused").replace(
        f'type = "file"\npath = {json.dumps(str(tmp_path / "unused"))}', 'type = "stdout"'
    )
    running = export(config)
    running.wait_until(lambda: "the export begins" in running.log)
    assert running.process.stdout
    running.process.stdout.close()
    record(api_server, 1)
    assert running.process.wait(PATIENCE) == 141, running.log
    assert "Traceback" not in running.log
