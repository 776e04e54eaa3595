"""The command `kevents tail`: live, filtered, in columns or JSON, and quiet about its end."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kevents._cli import main as _cli
from kevents.export import ClusterEventSource
from kevents.export._model.types import Chunk, Position, Record, Stream
from kevents.export._operate import commands as _commands
from kevents.export._operate import tail as _tail
from kevents.export._operate.columns import Columns
from kevents.export._operate.tail import as_columns, as_json, tail
from kevents.export._pipeline.bounded_queue import BoundedQueue
from kevents.export._route.routes import Route, Router
from kevents.testing import APIServer
from tests.export.operate.test_export_command import record
from tests.export.route.test_routes import EVENT

PATIENCE = 30.0
ROOT = Path(__file__).parents[3]
STREAM = Stream("cluster")
EVERYTHING = Router([Route(to="shown", all=True)])


class Feed:
    """A stream that gives what it is told, and then an error."""

    def __init__(self, bodies: list[dict[str, Any]], error: BaseException | None = None) -> None:
        """Take what is to come."""
        self.stream = STREAM
        self._bodies = bodies
        self._error = error
        self._stopped = threading.Event()
        self.given = 0

    def read(self, after: Position | None) -> Iterator[Chunk]:
        """Give one record after the other, and wait."""
        assert after is None
        for number, body in enumerate(self._bodies, 1):
            self.given = number
            yield Chunk([Record(STREAM, number, body, 0.0)], Position(STREAM, number, 0))
        if self._error is not None:
            raise self._error
        self._stopped.wait(30)

    def stop(self) -> None:
        """End it."""
        self._stopped.set()


def body(message: str, **fields: Any) -> dict[str, Any]:
    """A record's body."""
    return {**EVENT, "message": message, **fields}


# -- the parts -------------------------------------------------------------------------------------------------------


def test_streams() -> None:
    """What any of the streams gives is shown as it comes; one that fails ends all, in the main thread."""
    shown: list[str] = []
    feeds = [Feed([body("a")]), Feed([body("b"), body("c", type="Normal")], ValueError("broken"))]
    with pytest.raises(ValueError, match="broken"):
        tail(feeds, Router([Route(to="x", type="Warning")]), lambda record: shown.append(record.body["message"]))
    assert {"b"} <= set(shown) <= {"a", "b"}


def test_nobody_reads() -> None:
    """When nobody reads any more all streams are ended."""

    def show(record: Record) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        tail([Feed([body("a")]), Feed([])], EVERYTHING, show)


def test_lines() -> None:
    """Columns have their heads above the first line; JSON lines are those of an export. Each is passed on at once."""
    record_ = Record(STREAM, 1, body("it failed"), 0.0)
    text, data = Flushed(), FlushedBytes()
    for stream, show, flushed in (
        (text, as_columns(text, Columns(colour=False)), [2, 3]),
        (data, as_json(data), [1, 2]),
    ):
        show(record_)
        show(record_)
        assert stream.flushed == flushed
    assert data.getvalue().splitlines(keepends=True)[0] == record_.line() + b"\n"


def test_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing comes it looks again and again, so that Ctrl-C is noticed; what comes then is shown."""
    waits: list[float] = []

    class Slow(BoundedQueue):
        def get(self, timeout: float | None = None) -> Chunk | None:
            waits.append(timeout or 0.0)
            return super().get(0.0 if len(waits) == 1 else PATIENCE)

    monkeypatch.setattr(_tail, "BoundedQueue", Slow)
    shown: list[str] = []
    with pytest.raises(ValueError, match="broken"):
        tail([Feed([body("a")], ValueError("broken"))], EVERYTHING, lambda record: shown.append(record.body["message"]))
    assert shown == ["a"]
    assert all(0 < wait <= 1 for wait in waits)


def test_a_silent_start() -> None:
    """A hand-off that nothing comes to says so, after as long as it was to wait."""
    with pytest.raises(TimeoutError):
        BoundedQueue().get(0.0)


def test_a_pager_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not shown yet is not read either: memory is bounded while nobody reads on."""
    monkeypatch.setattr(_tail, "BoundedQueue", lambda: BoundedQueue(limit=1))
    feed = Feed([body("a")] * 1000, ValueError("broken"))
    ahead: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        tail([feed], EVERYTHING, lambda record: ahead.append(feed.given - record.rv))
    assert (len(ahead), max(ahead) <= 2) == (1000, True)


class Flushed(io.StringIO):
    """A stream that remembers how many lines there were at each flush."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.flushed: list[int] = []

    def flush(self) -> None:
        """Remember."""
        self.flushed.append(self.getvalue().count("\n"))


class FlushedBytes(io.BytesIO):
    """The same, of bytes."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.flushed: list[int] = []

    def flush(self) -> None:
        """Remember."""
        self.flushed.append(self.getvalue().count(b"\n"))


# -- the command -----------------------------------------------------------------------------------------------------

Tail = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(api_server: APIServer) -> Iterator[Tail]:
    """Start `kevents tail` as a process, with its output in a pipe."""
    made: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-W", "error", "-m", "kevents", "tail"]
        made.append(
            subprocess.Popen(
                [*command, "--kubeconfig", str(api_server.kubeconfig()), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": paths},
            )
        )
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[str], number: int) -> list[str]:
    """The next lines."""
    assert process.stdout
    return [process.stdout.readline().rstrip("\n") for _ in range(number)]


@pytest.mark.wire
def test_live(api_server: APIServer, run: Tail) -> None:
    """Pitfall 71: events are shown as they happen, escaped, without colours in a pipe; Ctrl-C ends it silently."""
    record(api_server, 1)
    process = run("--since", "9999d")
    head, first = lines(process, 2)
    assert head.split() == ["LAST", "SEEN", "NAMESPACE", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"]
    assert first.split()[1:] == ["default", "Warning", "Stepped", "pod/web-1", "1", "step", "1"]
    record(api_server, 2, message="two\nlines \x1b[31m")
    [line] = lines(process, 1)
    assert line.endswith("pod/web-2                 1      two\\nlines \\x1b[31m")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.wire
def test_filters(api_server: APIServer, run: Tail) -> None:
    """Only what the filters want is shown: namespaces, warnings, kinds, names, reasons."""
    api_server.create_namespace("shop")
    for number in range(1, 4):
        record(api_server, number)
        record(api_server, number + 10, "shop")
    record(api_server, 21, "shop", reason="Other")
    process = run(
        "-n", "shop", "-n", "default", "--warning", "--kind", "Pod", "--name", "web-1*", "--json", "--since=9d"
    )
    record(api_server, 1, "shop", lastTimestamp="2999-01-01T00:00:00Z")
    record(api_server, 12, "default", lastTimestamp="2999-01-01T00:00:00Z")
    record(api_server, 113, "default", lastTimestamp="2999-01-01T00:00:00Z", reason="Seen")
    seen = [json.loads(line)["involvedObject"]["name"] for line in lines(process, 2)]
    assert sorted(seen) == ["web-1", "web-113"]


@pytest.mark.wire
def test_from_now_on(api_server: APIServer, run: Tail) -> None:
    """Without --since only what happens from now on is shown."""
    record(api_server, 1)
    process = run("--json")
    assert api_server.wait_for(lambda: [r for r in api_server.requests if "watch" in r.query], timeout=30)
    record(api_server, 2)
    assert json.loads(lines(process, 1)[0])["message"] == "step 2"


@pytest.mark.wire
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "events of all namespaces from now on; --since 1h shows earlier ones too\n"),
        (["-n", "shop", "-n", "default"], "events of namespace shop, default from now on; --since 1h shows earlier"),
        (["--since", "1h"], ""),
    ],
)
def test_in_this_process(
    api_server: APIServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    """A person on a terminal who sees nothing yet is told why; Ctrl-C ends it with its status, and no word."""

    def interrupted(streams: Any, wanted: Router, show: object) -> None:
        shown.append(len(streams))
        raise KeyboardInterrupt

    shown: list[int] = []
    monkeypatch.setattr(_commands, "tail", interrupted)
    monkeypatch.setattr(_commands, "is_terminal", lambda _: True)
    assert _cli.main(["tail", "--kubeconfig", str(api_server.kubeconfig()), *arguments]) == 130
    out, err = capsys.readouterr()
    assert (out, shown) == ("", [arguments.count("-n") or 1])
    assert err == told if not told else err.startswith(told)


@pytest.mark.wire
def test_a_user_of_one_namespace(api_server: APIServer, run: Tail) -> None:
    """It takes no permission but that to read events."""
    api_server.add_user("poor-token", "poor", ["list", "watch"])
    record(api_server, 1)
    process = run(
        "-n", "default", "--json", "--since", "9999d", "--kubeconfig", str(api_server.kubeconfig(token="poor-token"))
    )
    assert json.loads(lines(process, 1)[0])["message"] == "step 1"


# -- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "1"], 'kevents: --since must be a time with its unit, such as 30s, 10m or 2h, not "1"\n'),
        (["--kind", "pod"], 'kevents: --kind: "pod" never matches; did you mean "Pod"?\n'),
        (
            ["--kubeconfig", "none"],
            "kevents: cannot use the kubeconfig none (No such file or directory): take one that",
        ),
    ],
)
def test_wrong(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the user got wrong is one line, with what to do."""
    assert _cli.main(["tail", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith(expected), err.count("\n")) == ("", True, 1)


@pytest.mark.wire
def test_no_cluster(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any cluster the command says how to name one, as its user can."""
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert _cli.main(["tail"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "; set KUBECONFIG, or name a kubeconfig (--kubeconfig of tail; kubeconfig in the table [cluster]" in err
    assert "CoreV1EventSink" not in err


@pytest.mark.wire
def test_nobody_answers(api_server: APIServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster that does not answer is told after some patience."""
    path = str(api_server.kubeconfig())
    api_server.stop_listening()
    assert _cli.main(["tail", "--kubeconfig", path]) == 2
    *tried, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"kevents: no answer from the API server at {api_server.tls_url} (NewConnectionError: ")
    assert "Connection refused" in last
    assert last.endswith("): is the cluster running, and does 'kubectl get events' work?")
    assert [
        line for line in tried if "WARNING the cluster cannot be reached, trying again for up to " not in line
    ] == []


@pytest.mark.wire
def test_refused(api_server: APIServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster that refuses has been reached, and is not said to be out of reach."""
    monkeypatch.setattr(_commands, "ClusterEventSource", partial(ClusterEventSource, patience=1.0))
    api_server.add_user("t", "stranger", set())
    assert _cli.main(["tail", "--kubeconfig", str(api_server.kubeconfig(token="t"))]) == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert " WARNING the cluster refuses a request, trying again for up to 10 s: 403 Forbidden: " in first
    assert last.startswith("kevents: 403 Forbidden: ")
