"""The command `kevents tail`: live and filtered events in columns or JSON."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kevents._cli import main as _cli
from kevents.export._model.types import Chunk, Position, Record, Stream
from kevents.export._operate import commands as _commands
from kevents.export._operate import tail as _tail
from kevents.export._operate.tail import (
    Columns,
    as_json,
    as_lines,
    colourful,
    display_width,
    flushed,
    name_of,
    safe_json,
    tail,
)
from kevents.export._pipeline.stream_worker import BoundedQueue
from kevents.export._route.routes import Route, Router
from kevents.export._source import source as _source
from kevents.testing import APIServer, FakeClock
from tests.export.operate.test_export_command import record
from tests.export.route.test_routes import EVENT, GAP

PATIENCE = 60.0
ROOT = Path(__file__).parents[3]
STREAM = Stream("cluster")
BODY: dict[str, Any] = {**EVENT, "lastTimestamp": "2026-07-24T09:00:05Z", "message": " it failed\n"}
EVERYTHING = Router([Route(to="shown", all=True)])


class Feed:
    """A stream with scripted records, optionally followed by an error."""

    def __init__(self, bodies: list[dict[str, Any]], error: BaseException | None = None) -> None:
        self.stream = STREAM
        self._bodies = bodies
        self._error = error
        self._stopped = threading.Event()
        self.given = 0

    def read(self, after: Position | None) -> Iterator[Chunk]:
        """Yield the records one by one, then raise the error or wait."""
        assert after is None
        for number, body in enumerate(self._bodies, 1):
            self.given = number
            yield Chunk([Record(STREAM, number, body, 0.0)], Position(STREAM, number, 0))
        if self._error is not None:
            raise self._error
        self._stopped.wait(60)

    def stop(self) -> None:
        """Stop the stream."""
        self._stopped.set()


def body(message: str, **fields: Any) -> dict[str, Any]:
    """Return a record's body."""
    return {**EVENT, "message": message, **fields}


# -- the parts -------------------------------------------------------------------------------------------------------


def test_streams() -> None:
    """Records of all streams are shown as they arrive. An error of one stream ends all in the main thread."""
    shown: list[str] = []
    feeds = [Feed([body("a")]), Feed([body("b"), body("c", type="Normal")], ValueError("broken"))]
    with pytest.raises(ValueError, match="broken"):
        tail(feeds, Router([Route(to="x", type="Warning")]), lambda record: shown.append(record.body["message"]))
    assert {"b"} <= set(shown) <= {"a", "b"}


def test_no_reader() -> None:
    """A closed pipe ends all streams."""

    def show(record: Record) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        tail([Feed([body("a")]), Feed([])], EVERYTHING, show)


def test_lines() -> None:
    """Columns have a header above the first line. JSON lines match those of an export. Each line is flushed."""
    record_ = Record(STREAM, 1, body("it failed"), 0.0)
    text, data = Flushed(), FlushedBytes()
    for stream, show, expected in (
        (text, flushed(text, as_lines(text, Columns(colour=False).line, "HEAD")), [2, 3]),
        (data, flushed(data, as_json(data)), [1, 2]),
    ):
        show(record_)
        show(record_)
        assert stream.flushed == expected
    assert data.getvalue().splitlines(keepends=True)[0] == record_.line() + b"\n"


def test_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing arrives, the queue is polled so that Ctrl-C is noticed. Later records are shown."""
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
    """`get` on an empty queue raises after the time-out."""
    with pytest.raises(TimeoutError):
        BoundedQueue().get(0.0)


def test_a_pager_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded while a pager waits: at most two records are read ahead."""
    monkeypatch.setattr(_tail, "BoundedQueue", lambda: BoundedQueue(limit=1))
    feed = Feed([body("a")] * 1000, ValueError("broken"))
    ahead: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        tail([feed], EVERYTHING, lambda record: ahead.append(feed.given - record.rv))
    assert (len(ahead), max(ahead) <= 2) == (1000, True)


class Flushed(io.StringIO):
    """A stream that stores the number of lines at each flush."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[int] = []

    def flush(self) -> None:
        """Store the number of lines."""
        self.flushed.append(self.getvalue().count("\n"))


class FlushedBytes(io.BytesIO):
    """The same for bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[int] = []

    def flush(self) -> None:
        """Store the number of lines."""
        self.flushed.append(self.getvalue().count(b"\n"))


# -- columns ----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def test_columns() -> None:
    """The columns are those of kubectl, with the object's kind in lower case."""
    columns = Columns(colour=False, timestamps=True)
    assert [columns.head(), columns.line(BODY)] == [
        "NAMESPACE   LAST SEEN             TYPE     REASON            OBJECT                    COUNT  MESSAGE",
        "shop        2026-07-24T09:00:05Z  Warning  BackOff           pod/web-0                 5      it failed",
    ]


def test_without_namespaces() -> None:
    """With one namespace, there is no namespace column."""
    columns = Columns(colour=False, namespaces=False, timestamps=True)
    assert columns.line(BODY)[:58] == "2026-07-24T09:00:05Z  Warning  BackOff           pod/web-0"


def test_widths() -> None:
    """A column grows with its values up to a limit. A longer value shifts the rest of the line."""
    columns = Columns(colour=False, namespaces=False, timestamps=True)
    long = columns.line({**BODY, "reason": "R" * 30})
    short = columns.line(BODY)
    assert short.index("pod/web-0") + 6 == long.index("pod/web-0")
    assert short.index("BackOff") + 24 + 2 == short.index("pod/web-0")


def test_colours() -> None:
    """A warning is yellow and the object cyan. Without colours there are no escape sequences."""
    line = Columns(colour=True).line(BODY)
    assert "\x1b[33mWarning\x1b[0m" in line
    assert "\x1b[36mpod/web-0\x1b[0m" in line
    assert "\x1b" not in Columns(colour=False).line(BODY)
    assert "33m" not in Columns(colour=True).line({**BODY, "type": "Normal"})


def test_escapes() -> None:
    """Pitfall 71: control characters, line breaks and bidirectional overrides are escaped."""
    evil = {
        **BODY,
        "message": "a\x1b[2Jb\rc\nd\u202ee\x9bf",
        "reason": "R\x07",
        "type": "T\x1b",
        "involvedObject": {"kind": "P\x1b", "name": "n\n", "namespace": "s\x1b"},
        "metadata": {"namespace": "x\x1b"},
        "lastTimestamp": "\x1b]0;owned\x07",
        "count": "\x1b",
    }
    line = Columns(colour=False).line(evil)
    assert line.isprintable()
    assert "a\\x1b[2Jb\\rc\\nd\\u202ee\\x9bf" in line
    gap = {"kevents": {"gap": {"from": "\x1b", "until": "\n", "why": "\r", "scope": "\x07"}}}
    assert Columns(colour=False).line(gap).isprintable()


def test_encoding() -> None:
    """Characters that the terminal's encoding lacks are escaped."""
    assert "m\\xfc\\u2603" in Columns(colour=False, encoding="ascii").line({**BODY, "message": "mü☃"})


def test_gap() -> None:
    """A gap is one line with the times of the missing events."""
    word = {"why": "expired", "scope": "shop", "from": "2026-07-24T08:00:00Z", "until": "2026-07-24T10:00:00Z"}
    line = Columns(colour=True).line({"kevents": {"gap": word}})
    expected = "gap: events in shop between 2026-07-24T08:00:00Z and 2026-07-24T10:00:00Z may be missing (expired)"
    assert line == f"\x1b[1;31m{expected}\x1b[0m"
    assert "between 1 and ? may be missing (unknown)" in Columns(colour=False).line(GAP)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"metadata": [], "series": 5, "involvedObject": "x"},
        {"involvedObject": None, "metadata": None, "message": None, "series": None},
    ],
)
def test_little(body: dict[str, Any]) -> None:
    """An incomplete record is shown."""
    assert "<unknown>" in Columns(colour=False).line(body)


def test_series() -> None:
    """A series is shown with its own count and the time of its last occurrence."""
    body = {**BODY, "count": None, "series": {"count": 7, "lastObservedTime": "2026-07-24T10:00:00.000001Z"}}
    line = Columns(colour=False, timestamps=True).line(body)
    assert (line[12:32], line[line.index(" 7 ") :][:3]) == ("2026-07-24T10:00:00Z", " 7 ")


def test_colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are used only on terminals, and not with NO_COLOR or TERM=dumb."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert (colourful(Terminal()), colourful(io.StringIO())) == (True, False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colourful(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not colourful(Terminal())


def test_ages() -> None:
    """By default, times are shown as ages."""
    assert Columns(colour=False).line({**BODY, "lastTimestamp": "1999-01-01T00:00:00Z"}).split()[1].endswith("y")


def test_wide() -> None:
    """Wide rows have all columns of kubectl's wide output."""
    columns = Columns(colour=False, wide=True, timestamps=True)
    heads = ["NAMESPACE", "LAST SEEN", "TYPE", "REASON", "OBJECT", "SUBOBJECT", "SOURCE", "FIRST SEEN", "COUNT", "NAME"]
    assert columns.head() == "  ".join(head.ljust(columns._widths[head]) for head in heads) + "  MESSAGE"
    involved = {**BODY["involvedObject"], "fieldPath": "spec.containers{web}"}
    row = columns.line({**BODY, "involvedObject": involved, "source": {"component": "kubelet", "host": "node-1"}})
    assert "  spec.containers{web}  kubelet, node-1  " in row


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "…"), ("ascii", "...")])
def test_cut(encoding: str, mark: str) -> None:
    """A row is cut to the terminal's width with a mark. Wide characters count as two columns."""
    for width in (40, 60, 80, 100, 130):
        columns = Columns(colour=False, encoding=encoding, cut=lambda width=width: width)  # type: ignore[misc]
        rows = [
            columns.head(),
            columns.line({**BODY, "message": "日本" * 50}),
            columns.line({**BODY, "message": "m" * 200}),
        ]
        assert [row for row in rows if display_width(row) > width] == []
        assert all(row.endswith(mark) for row in rows[1:])
    coloured = Columns(colour=True, cut=lambda: 80).line({**BODY, "message": "m" * 200})
    assert coloured.endswith("m\x1b[2m…\x1b[0m")


def test_narrow() -> None:
    """On a narrow terminal, columns start small and COUNT is omitted, so that the message has space."""
    row = Columns(colour=False, namespaces=False, cut=lambda: 76).line({**BODY, "message": "the bucket is gone"})
    assert row.endswith("  the bucket is gone")


def test_a_long_word_on_a_narrow_terminal() -> None:
    """A long reason of one event does not push the message of later ones off the screen."""
    columns = Columns(colour=False, cut=lambda: 60)
    columns.line({**BODY, "reason": "R" * 200})
    assert columns.line({**BODY, "message": "gone"}).endswith("  gone")


@pytest.mark.parametrize("text", ["a\x9b31mb", "a\x85b", "a\u202eb", "a\x7fb", "a\u2066b", "\U000e0001", "ü\u200d日"])
def test_json_for_terminals(text: str) -> None:
    """Fault 31: a JSON line has no C1 control, bidirectional override or DEL, and still the same value."""
    line = json.dumps({"message": text}, ensure_ascii=False).encode()
    shown = safe_json(line)
    assert shown.decode().isprintable()
    assert json.loads(shown) == {"message": text}


def test_json_unchanged() -> None:
    """Other JSON lines are unchanged."""
    for line in (b'{"message":"plain"}', '{"message":"über ☃"}'.encode()):
        assert safe_json(line) == line


def test_names() -> None:
    """-o name prints names as kubectl does."""
    assert name_of({"metadata": {"name": "web-0.17a\x1b"}}) == "event/web-0.17a\\x1b"
    assert name_of({}) == "event/"


# -- the command -----------------------------------------------------------------------------------------------------

Tail = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(api_server: APIServer) -> Iterator[Tail]:
    """Yield a factory of `kevents tail` processes with their output in a pipe."""
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
    """Read the next lines."""
    assert process.stdout
    return [process.stdout.readline().rstrip("\n") for _ in range(number)]


@pytest.mark.wire
def test_live(api_server: APIServer, run: Tail) -> None:
    """Pitfall 71: events are shown live and escaped, without colours in a pipe. Ctrl-C ends the command silently."""
    record(api_server, 1)
    process = run("--since", "9999d")
    head, first = lines(process, 2)
    assert head.split() == ["NAMESPACE", "LAST", "SEEN", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"]
    namespace, _, *rest = first.split()
    assert [namespace, *rest] == ["default", "Warning", "Stepped", "pod/web-1", "1", "step", "1"]
    record(api_server, 2, message="two\nlines \x1b[31m")
    [line] = lines(process, 1)
    assert line.endswith("pod/web-2                 1      two\\nlines \\x1b[31m")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.wire
def test_filters(api_server: APIServer, run: Tail) -> None:
    """Only matching records are shown: namespaces, warnings, kinds, names, reasons."""
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
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-o", "name"], "event/e1"),
        (["-A", "-w", "--no-headers", "--timestamps", "-n", "nowhere"], "default     2026-07-24T09:00:01Z  Warning"),
        (["-n", "default", "--for", "pods/web-1", "--types", "warning", "--no-headers"], None),
        (["-o", "json"], "{"),
    ],
)
def test_habits(api_server: APIServer, run: Tail, arguments: list[str], expected: str | None) -> None:
    """The command accepts the flags of kubectl."""
    record(api_server, 1, lastTimestamp="2026-07-24T09:00:01Z")
    [line] = lines(run("--since", "9999d", *arguments), 1)
    if expected is None:
        assert line.split()[1:] == ["Warning", "Stepped", "pod/web-1", "1", "step", "1"]
    else:
        assert line.startswith(expected)


@pytest.mark.wire
def test_unknown_namespace(api_server: APIServer, run: Tail) -> None:
    """An unknown namespace is reported, and its events are shown once it exists."""
    process = run("-n", "later", "--json")
    assert process.stderr
    assert process.stderr.readline() == "kevents: the namespace later does not exist; waiting for it\n"
    assert api_server.wait_for(lambda: [r for r in api_server.requests if "watch" in r.query], timeout=30)
    api_server.create_namespace("later")
    record(api_server, 1, "later")
    assert json.loads(lines(process, 1)[0])["message"] == "step 1"


@pytest.mark.parametrize("arguments", [["--bogus"], ["shop"], ["-n"], ["-o", "yaml"], ["--warn"]])
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown flag, a missing value or a surplus argument prints the usage of the command."""
    with pytest.raises(SystemExit) as ended:
        _cli.main(["tail", *arguments])
    assert (ended.value.code, capsys.readouterr().err.split("\n")[0][:27]) == (2, "usage: kevents tail [-h] [-")


@pytest.mark.wire
def test_from_now_on(api_server: APIServer, run: Tail) -> None:
    """Without --since, only new events are shown."""
    record(api_server, 1)
    process = run("--json")
    assert api_server.wait_for(lambda: [r for r in api_server.requests if "watch" in r.query], timeout=120)
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
    """On a terminal, a line explains the empty start. Ctrl-C ends the command silently with status 130."""

    def interrupted(streams: Any, wanted: Router, show: object) -> None:
        shown.append(len(streams))
        raise KeyboardInterrupt

    shown: list[int] = []
    api_server.create_namespace("shop")
    monkeypatch.setattr(_commands, "tail", interrupted)
    monkeypatch.setattr(_commands, "is_terminal", lambda _: True)
    assert _cli.main(["tail", "--kubeconfig", str(api_server.kubeconfig()), *arguments]) == 130
    out, err = capsys.readouterr()
    assert (out, shown) == ("", [arguments.count("-n") or 1])
    assert err == told if not told else err.startswith(told)


@pytest.mark.wire
def test_a_user_of_one_namespace(api_server: APIServer, run: Tail) -> None:
    """The command needs only the permission to read events."""
    api_server.add_user("poor-token", "poor", ["list", "watch"])
    record(api_server, 1)
    process = run(
        "-n", "default", "--json", "--since", "9999d", "--kubeconfig", str(api_server.kubeconfig(token="poor-token"))
    )
    assert json.loads(lines(process, 1)[0])["message"] == "step 1"


# -- wrong arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "1"], "kevents: --since must be a duration such as 30s, 10m or 2h, or a time"),
        (["-n", "Shop"], 'kevents: --namespace: "Shop" is no name of a namespace; did you mean "shop"?\n'),
        (["-n", "shop,jobs"], "kevents: --namespace: give it once for each: -n shop -n jobs\n"),
        (["--for", "web-0"], 'kevents: --for must be written TYPE/NAME, such as pod/web-0, not "web-0"\n'),
        (["--types", " ,"], "kevents: --types must list types, such as Warning,Error\n"),
        (
            ["-l", "app web"],
            'kevents: --selector: "app web" is no requirement such as app=web, tier!=db or a in (b, c)',
        ),
        (
            ["--kubeconfig", "none"],
            "kevents: cannot use the kubeconfig none (No such file or directory): give the path",
        ),
    ],
)
def test_wrong(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error of an invalid option is one line with the fix."""
    assert _cli.main(["tail", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith(expected), err.count("\n")) == ("", True, 1)


@pytest.mark.wire
def test_no_cluster(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cluster, the error names the options of the command."""
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert _cli.main(["tail"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "; set KUBECONFIG, or name a kubeconfig (--kubeconfig of tail; kubeconfig in the table [cluster]" in err
    assert "CoreV1EventSink" not in err


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connection retries wait in simulated time, so that their number does not depend on the machine."""
    clock = FakeClock(0)
    monkeypatch.setattr(_source, "monotonic", lambda: clock() / 1e9)
    monkeypatch.setattr(_source, "sleep", clock.advance)


@pytest.mark.wire
@pytest.mark.usefixtures("virtual_time")
def test_no_answer(api_server: APIServer, capsys: pytest.CaptureFixture[str]) -> None:
    """An unreachable cluster is an error after some retries."""
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
@pytest.mark.usefixtures("virtual_time")
def test_refused(api_server: APIServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A cluster that answers 403 is not reported as unreachable."""
    api_server.add_user("t", "stranger", set())
    assert _cli.main(["tail", "--kubeconfig", str(api_server.kubeconfig(token="t"))]) == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert " WARNING the cluster refuses a request, trying again for up to 10 s: 403 Forbidden: " in first
    assert last.startswith("kevents: 403 Forbidden: ")
