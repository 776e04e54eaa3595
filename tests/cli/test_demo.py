"""The demonstration: run in a child process, with checks of its table, its numbers and its own checks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import pytest

from kevents import EventBroadcaster
from kevents._cli.demo import story as _demo_story
from kevents._cli.demo.main import Outcome, check_list, checks
from kevents._cli.demo.screen import LiveScreen, Paper, PlainScreen, is_terminal, table
from kevents._cli.demo.story import Scene, Stage
from kevents._model.statistics import SinkStatistics

if TYPE_CHECKING:
    from tests.support.real_server import RealServer

pytestmark = pytest.mark.wire

COMMAND = [sys.executable, "-W", "error", "-m", "kevents", "demo", "--seconds", "3"]
RECORDED = 8 + 14 + 201 + 1 + 24 + 3
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environment(**changes: str) -> dict[str, str]:
    """The environment of this process, as on a terminal with colours."""
    kept = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "COLUMNS", "LINES"}}
    return {**kept, "TERM": "xterm-256color", "PYTHONUTF8": "1", **changes}


def play(*arguments: object, code: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the demonstration in a pipe. `code` runs first in the same process."""
    command = [*COMMAND, *map(str, arguments)]
    if code:
        start = f"{code}\nimport sys; from kevents._cli.main import main; sys.exit(main(['demo', '--seconds', '3']))"
        command = [sys.executable, "-W", "error", "-c", start]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", timeout=60, check=False, env=environment(**changes)
    )


in_one_worker = pytest.mark.xdist_group("demo")


@pytest.fixture(scope="module")
def plain() -> subprocess.CompletedProcess[str]:
    """One run of the demonstration in a pipe."""
    return play()


def rows(text: str) -> list[tuple[str, ...]]:
    """Count, type, reason and object of each table row."""
    return re.findall(r"^   \d+s +(\d+) +(Normal|Warning) +(\w+) +(\S+)  ", text, re.MULTILINE)


def numbers(text: str) -> dict[str, int]:
    """The numbers of the final summary."""
    return {name: int(number) for name, number in re.findall(r"^  +([a-z]+) +(\d+)  \S", text, re.MULTILINE)}


@in_one_worker
def test_ends_well(plain: subprocess.CompletedProcess[str]) -> None:
    """The demonstration ends by itself with status 0, nothing on stderr, and all checks passed."""
    assert (plain.returncode, plain.stderr) == (0, "")
    assert re.search(r"^All \d+ checks hold\.$", plain.stdout, re.MULTILINE)
    assert "✗" not in plain.stdout


@in_one_worker
def test_table(plain: subprocess.CompletedProcess[str]) -> None:
    """Each stage shows the changed rows with kubectl's columns."""
    similar = ("1", "Warning", "UploadFailed", "pod/uploader-0")
    expected = [
        ("8", "Warning", "ConnectFailed", "backup/nightly"),
        *[similar] * 9,
        ("5", "Warning", "UploadFailed", "pod/uploader-0"),
        ("201", "Warning", "BackOff", "pod/uploader-1"),
        ("9", "Warning", "ConnectFailed", "backup/nightly"),
        *(("6", "Warning", "ShardFailed", f"job/shard-{number}") for number in range(4)),
        ("1", "Normal", "Finished", "backup/nightly"),
    ]
    assert rows(plain.stdout) == expected
    heads = [line.split() for line in plain.stdout.splitlines() if "LAST SEEN" in line]
    assert heads == [["LAST", "SEEN", "COUNT", "TYPE", "REASON", "OBJECT", "MESSAGE"]] * 6
    assert "(combined from similar events): part 14" in plain.stdout


@in_one_worker
def test_numbers(plain: subprocess.CompletedProcess[str]) -> None:
    """The numbers of the summary add up, and every loss has its reason."""
    found = numbers(plain.stdout)
    expected = {"recorded": RECORDED, "refused": 2, "published": RECORDED - 2, "filtered": 175, "dropped": 0}
    expected |= {"delivered": RECORDED - 2 - 175, "created": 18, "aggregated": 5, "recreated": 1}
    assert {name: found[name] for name in expected} == expected
    assert found["created"] + found["patched"] + found["merged"] == found["delivered"]
    assert found["retried"] >= 1
    assert "1 invalid_reference, 1 invalid_type" in plain.stdout
    assert "spam_filtered" in plain.stdout


@in_one_worker
def test_shows_what_is_logged(plain: subprocess.CompletedProcess[str]) -> None:
    """The log lines of kevents are part of the output."""
    text = " ".join(plain.stdout.split())
    for part in (
        "(reason BackupFailed), invalid_type: event type 'Info' is not supported",
        "the API server is unavailable",
        "the API server answers again",
    ):
        assert part in text


@in_one_worker
def test_nothing_raw(plain: subprocess.CompletedProcess[str]) -> None:
    """Pitfall 71: in a pipe there are no colours, and escape codes in messages are shown as text."""
    assert [char for char in plain.stdout if char != "\n" and not char.isprintable()] == []
    assert r"the store said: \x1b[31;5m4 shards missing\x1b[0m" in plain.stdout
    assert [line for line in plain.stdout.splitlines() if len(line) > 100 and not re.match(r" +\d+s ", line)] == []


def test_broken_number() -> None:
    """If an event is missing on the server, its check fails and is shown (also in ASCII), and the status is 1."""
    done = play(
        PYTHONUTF8="0",
        PYTHONIOENCODING="ascii",
        code=(
            "from kevents import CoreV1EventSink as sink\n"
            "create = sink.create\n"
            "def forgetful(self, namespace, body, /):\n"
            "    if body['reason'] != 'Finished': create(self, namespace, body)\n"
            "sink.create = forgetful\n"
        ),
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "x the server's count: backup/nightly Finished: missing, but must be 1" in done.stdout
    assert "\n  + the server's count: pod/uploader-1 BackOff: 201\n" in done.stdout
    assert "checks failed: this is a bug in kevents" in done.stdout


def test_broken_pipe() -> None:
    """A reader that closes the pipe early causes no traceback."""
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_interrupted() -> None:
    """Ctrl-C prints one line without a traceback."""
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=environment()
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "\nkevents: interrupted\n")


@pytest.mark.slow
def test_takes_under_15_seconds() -> None:
    """The default demonstration ends within 15 seconds."""
    began = time.monotonic()
    assert subprocess.run([*COMMAND[:-2]], capture_output=True, check=False, env=environment()).returncode == 0
    assert time.monotonic() - began < 15


def on_terminal(columns: int, lines: int, *arguments: str, **changes: str) -> tuple[int, str]:
    """Run the demonstration on a terminal of this size. Returns its status and its output."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    size = lines.to_bytes(2, sys.byteorder) + columns.to_bytes(2, sys.byteorder) + bytes(4)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**changes)
    ) as process:
        os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            written = read_all(terminal)
        return process.wait(60), written.decode().replace("\r\n", "\n")


def read_all(terminal: IO[bytes]) -> bytes:
    """Read all output until the other side is closed, which a terminal reports as an error."""
    parts: list[bytes] = []
    try:
        while part := terminal.read(65536):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize(("columns", "lines", "no_color"), [(80, 24, ""), (100, 30, "1")])
def test_on_a_terminal(columns: int, lines: int, no_color: str) -> None:
    """On a terminal the screen is redrawn in place, in colours unless NO_COLOR is set. No frame exceeds the screen."""
    status, text = on_terminal(columns, lines, NO_COLOR=no_color)
    frames = re.split(r"\x1b\[\d+F", text)
    assert status == 0
    assert len(frames) > 10
    assert max(frame.partition("\x1b[J")[0].count("\n") for frame in frames) < lines
    assert columns > max(
        len(line) for frame in frames for line in ESCAPES.sub("", frame.partition("\x1b[J")[0]).split("\n")
    )
    assert re.findall(r"\x1b\[\?25[lh]", text) == ["\x1b[?25l", "\x1b[?25h"]
    assert (not re.search(r"\x1b\[[0-9;]*m", text)) == bool(no_color)
    assert ("is not written again" in text) == (lines == 30)
    assert "checks hold." in text
    last = ESCAPES.sub("", frames[-1])
    assert (len(re.findall(r"^ ✓ \d\.", last, re.MULTILINE)), True) == (6, "6. Mistakes" in last)


def test_plain_on_a_terminal() -> None:
    """With `--plain` lines are appended on a terminal as well."""
    status, text = on_terminal(80, 24, "--plain")
    assert (status, "\x1b" in text, len(rows(text))) == (0, False, 18)


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX terminal")
@pytest.mark.parametrize(("kind", "expected"), [("xterm", True), ("dumb", False)])
def test_dumb_terminal(monkeypatch: pytest.MonkeyPatch, kind: str, expected: bool) -> None:  # noqa: FBT001
    """On a dumb terminal lines are appended."""
    monkeypatch.setenv("TERM", kind)
    terminal: Any = type("Terminal", (), {"isatty": lambda self: True})()
    assert is_terminal(terminal) == expected


@pytest.mark.e2e
def test_on_a_real_server(real_server: RealServer) -> None:
    """On a real cluster the numbers are the same, the outage is explained, and the events are removed."""
    before = real_server.kubectl("get", "events", "-A", "-o", "name")
    done = play("--kubeconfig", real_server.kubeconfig())
    text = " ".join(done.stdout.split())
    assert (done.returncode, done.stderr) == (0, "")
    assert "A real API server is not stopped for a demonstration" in text
    assert "have been removed from the cluster" in text
    assert numbers(done.stdout)["recorded"] == RECORDED
    assert real_server.kubectl("get", "events", "-A", "-o", "name") == before


@pytest.mark.e2e
def test_interrupted_on_a_real_server(real_server: RealServer) -> None:
    """After Ctrl-C the events are removed from the cluster, too."""
    before = real_server.kubectl("get", "events", "-A", "-o", "name")
    command = [*COMMAND, "--kubeconfig", str(real_server.kubeconfig())]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", env=environment()
    ) as process:
        assert process.stdout is not None
        assert any("1 object, count 8" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert real_server.kubectl("get", "events", "-A", "-o", "name") == before


# -- its parts ---------------------------------------------------------------------------------------------------


class Stream:
    """Collects the output."""

    encoding = "utf-8"

    text = ""

    def write(self, text: str) -> int:
        """Append the text."""
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing to flush."""


def paper(*, colour: bool = False) -> tuple[Paper, Stream]:
    """A paper of 60 columns, and its output."""
    stream: Any = Stream()
    return Paper(stream, colour=colour, width=60), stream


def test_expectations_are_those_of_the_design() -> None:
    """The expected numbers follow from client-go's defaults: burst 25, combined from the tenth, a token in 300 s."""
    assert (_demo_story.FILTERED, _demo_story.AGGREGATED) == (175, 5)
    stages = _demo_story.stages("-x", "{0}", 1.0)
    counts = {key: value for stage in stages for key, value in stage.expected.items()}
    assert {
        ("backup/nightly-x", "ConnectFailed"): (9,),
        ("pod/uploader-1-x", "BackOff"): (201,),
    }.items() <= counts.items()
    assert counts["pod/uploader-0-x", "UploadFailed"] == (1,) * 9 + (5,)


@pytest.mark.parametrize("length", ["title", "result"])
def test_stages_fit_into_80_columns(length: str) -> None:
    """A stage's title and result fit on one line of 80 columns."""
    limits = {"title": 33, "result": 39}
    assert [s.title for s in _demo_story.stages("", "", 1.0) if len(getattr(s, length)) > limits[length]] == []


def test_failed_check_shows_the_expected_value() -> None:
    """A failed check shows the actual and the expected value, a passed one its value."""
    board, stream = paper()
    board.write(*check_list([("good", 1, 1), ("bad", {"a": 1}, {})], board))
    assert stream.text == "  ✓ good: 1\n  ✗ bad: none, but must be 1 a\n"


@pytest.mark.parametrize("broken", ["count", "missing", "more"])
def test_every_object_is_checked(broken: str) -> None:
    """A wrong count, a missing object and an extra object each fail a check."""
    expected = {("pod/a", "R"): (1, 2), ("pod/b", "R"): (3,)}
    events = [event("a", 1), event("a", 2), event("b", 3)]
    held = {"count": [*events[:2], event("b", 4)], "missing": events[:2], "more": [*events, event("c", 1)]}[broken]
    unused: Any = None
    scene = Scene(unused, unused, unused)
    outcome = Outcome(scene, EventBroadcaster().statistics(), SinkStatistics(), 0, events, expected)
    server = [check for check in checks(outcome) if "server" in check[0]]
    assert [check for check in server if check[1] != check[2]] == []
    assert len(server) == 3
    server = [check for check in checks(outcome._replace(events=held)) if "server" in check[0]]
    assert [check for check in server if check[1] != check[2]] != []


def event(name: str, count: int, message: str = "m", kind: str = "Warning") -> dict[str, Any]:
    """An event as a server stores it."""
    return {
        "metadata": {"name": f"{name}.{count:x}"},
        "involvedObject": {"kind": "Pod", "name": name},
        "type": kind,
        "reason": "R",
        "message": message,
        "count": count,
        "lastTimestamp": "2026-07-24T09:00:00Z",
    }


def text_of(lines: Sequence[list[tuple[str, str]]]) -> list[str]:
    """The lines without styles."""
    return ["".join(text for text, _ in line) for line in lines]


def test_table_escapes_and_aligns() -> None:
    """Pitfall 71: the table has one line per event, escaped control characters and aligned columns."""
    now = 1784883607 * 10**9
    expected = [
        "LAST SEEN  COUNT  TYPE     REASON  OBJECT      MESSAGE",
        r"7s         1      Warning  R       pod/a\x1bb  one\ntwo",
        "7s         200    Normal   R       pod/b       m",
    ]
    assert text_of(table([event("a\x1bb", 1, "one\ntwo"), event("b", 200, kind="Normal")], now)) == expected


def test_cut() -> None:
    """A line that is too long is cut with an ellipsis, with any styles."""
    board, _ = paper()
    line = [("abc", "bold"), ("def", "")]
    assert [board.text(line, width) for width in (6, 5, 3)] == ["abcdef", "abcd…", "ab…"]


STAGE = Stage("title", "result", "an explanation", lambda _: iter(()), {})


def test_plain_screen_marks_a_failed_stage() -> None:
    """A failed stage is marked, and shown with its log lines."""
    board, stream = paper()
    screen = PlainScreen(board, lambda: [event("a", 1)], [("t", "")], [STAGE])
    screen.begin(STAGE)
    screen.note("something was logged")
    screen.finish(STAGE, good=False)
    screen.close()
    assert "   log: something was logged\n   ✗ result\n" in stream.text


def test_live_screen_keeps_what_changed_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """If not all rows fit, the most recently changed ones are shown in order, and the rest is counted."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "12")
    board, stream = paper()
    counts = dict.fromkeys("abcdefghij", 1)
    stored = lambda: [{**event(name, 1), "count": count} for name, count in counts.items()]  # noqa: E731
    screen = LiveScreen(board, stored, [("t", "")], [STAGE])
    screen.begin(STAGE)
    screen.pause(0)
    counts["b"] = 2
    screen.pause(0)
    screen.finish(STAGE, good=True)
    screen.close()
    last = re.split(r"\x1b\[\d+F", stream.text)[-1]
    shown = re.findall(r"pod/(\w)", last)
    assert (shown[0], shown) == ("b", sorted(shown))
    assert f"… and {10 - len(shown)} more" in last
