"""The command `kevents`: its help, and one clear line for every error of its user."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest

import kevents
from kevents._cli import main as _cli
from kevents._cli.api import ClusterError
from kevents._cli.demo.story import Cluster
from kevents.testing._apiserver.server import kubeconfig

if TYPE_CHECKING:
    from kevents.testing import APIServer
    from tests.support.real_server import RealServer

SECRET = "do-not-tell"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process. Returns its status, output and errors."""

    def command(*arguments: object) -> tuple[int, str, str]:
        try:
            status = _cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        written = capsys.readouterr()
        return status, written.out, written.err

    return command


def refused(run: Run, path: object) -> str:
    """The error line for this kubeconfig."""
    status, out, err = run("demo", "--kubeconfig", path)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("kevents: ")
    assert SECRET not in err
    return err


def test_help(run: Run) -> None:
    """The help names the commands, and shows an example."""
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    for part in ("kevents demo", "kevents record pod/web-0", "kevents tail", "kevents export -c", "'.[export]'"):
        assert part in out
    assert all(len(line) <= 120 for line in out.splitlines())


@pytest.mark.parametrize("command", ["demo", "record", "tail", "export", "check", "read"])
def test_help_has_examples(run: Run, command: str) -> None:
    """The help of each command has two examples at least."""
    _, out, _ = run(command, "--help")
    examples = out.split("\nexamples:\n")[1].split("\n\n")[0].splitlines()
    assert len([line for line in examples if f"kevents {command}" in line or "| kevents" in line]) >= 2


def test_help_of_the_demo(run: Run) -> None:
    """The help of the demonstration has its options and exit statuses."""
    _, out, _ = run("demo", "--help")
    for part in ("--kubeconfig FILE", "--seconds N", "--plain", "NO_COLOR", "exit status"):
        assert part in out


@pytest.mark.parametrize("columns", [60, 80, 132])
@pytest.mark.parametrize("command", ["", "demo", "tail", "export", "check", "read"])
def test_help_fills_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, command: str, columns: int) -> None:
    """Paragraphs and tables use the terminal's width and never exceed it. Examples are not wrapped."""
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, _ = run(*filter(None, [command]), "--help")
    assert status == 0
    examples = re.compile(r" +(kevents|import|kubectl|with|broadcaster|recorder|AWS)")
    assert [line for line in out.splitlines() if len(line) > columns - 2 and not examples.match(line)] == []
    paragraph = out.split("\n\n")[1].split("\n")  # after the usage
    words = [line.split()[0] for line in paragraph[1:]]
    assert words
    assert [word for line, word in zip(paragraph, words, strict=False) if len(f"{line} {word}") <= columns - 2] == []


def test_help_keeps_examples(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table row wraps below its text. An example line is never wrapped, even on a narrow terminal."""
    monkeypatch.setenv("COLUMNS", "50")
    _, out, _ = run("tail", "--help")
    assert "\n  kevents tail --kind Pod --name 'web-*' -o json | jq .reason\n" in out
    assert "\n  1    it failed while running\n  2    it could not begin: the arguments, the\n       kubeconfig," in out


def test_help_says_where_tail_begins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tail starts with new events unless --since is given. Read starts with the first event."""
    monkeypatch.setenv("COLUMNS", "200")
    assert "last 30s, 10m, 2h or 7d; default: only new events\n" in run("tail", "--help")[1]
    assert "only events since then: a duration before now, or a time\n" in run("read", "--help")[1]


def test_no_command(run: Run) -> None:
    """Without a command the help is printed, and the status is that of a wrong usage."""
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "kevents demo" in err


def test_version(run: Run) -> None:
    """`--version` prints the version of the package."""
    assert run("--version") == (0, f"kevents {kevents.__version__}\n", "")


def test_module() -> None:
    """`python -m kevents` runs the command."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "kevents", "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"kevents {kevents.__version__}\n", "")


@pytest.mark.parametrize("seconds", ["2.9", "61", "nan", "-5", "soon", ""])
def test_wrong_seconds(run: Run, seconds: str) -> None:
    """The error for a wrong duration shows it and the allowed range."""
    status, _, err = run("demo", f"--seconds={seconds}")
    assert status == 2
    assert f"argument --seconds: must be a number from 3 to 60, not {seconds!r}" in err


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"", "Invalid"),
        (b"\xff\xfe" + SECRET.encode(), "it holds no configuration, "),
        (b"token: {" + SECRET.encode(), "it holds no configuration, ParserError"),
        (b"[1, 2]", "it holds no configuration, "),
        (b"current-context: x\nusers: [{name: x, user: {token: " + SECRET.encode() + b"}}]", "Invalid"),
    ],
)
def test_unusable_kubeconfig(run: Run, tmp_path: Path, content: bytes | None, why: str) -> None:
    """The error for an unusable kubeconfig has its path, the reason and the fix, but none of its content."""
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_bytes(content)
    line = refused(run, path)
    assert f"cannot use the kubeconfig {path} (" in line
    assert why in line
    assert "~/.kube/config" in line


def test_a_name_with_escapes(run: Run, tmp_path: Path) -> None:
    """Pitfall 71: arguments are escaped in errors."""
    assert "\x1b" not in refused(run, f"{tmp_path}/\x1b[31m")


@pytest.mark.wire
def test_no_answer(run: Run, api_server: APIServer) -> None:
    """The error for an unreachable cluster has its address and the fix."""
    path = api_server.kubeconfig()
    api_server.stop_listening()
    line = refused(run, path)
    assert f"no answer from the API server at {api_server.tls_url} (" in line
    assert f"kubectl --kubeconfig {path} get events" in line


@pytest.mark.wire
@pytest.mark.parametrize(
    ("verbs", "missing"),
    [
        (set(), "list"),
        ({"create", "patch"}, "list"),
        ({"list"}, "create"),
        ({"list", "create"}, "patch"),
        ({"list", "create", "patch"}, "delete"),
    ],
)
def test_refused_user(run: Run, api_server: APIServer, verbs: set[str], missing: str) -> None:
    """A missing permission is reported with its rule, before anything is written."""
    api_server.add_user(SECRET, "weak-user", verbs)
    line = refused(run, api_server.kubeconfig(token=SECRET))
    assert f"refused to {missing} events" in line
    assert 'User "weak-user"' in line
    assert 'verbs: ["create", "patch", "list", "delete"]' in line
    assert api_server.events() == []


@pytest.mark.wire
def test_unknown_user(run: Run, api_server: APIServer) -> None:
    """Rejected credentials are not reported as a missing permission."""
    assert "its credentials are not accepted" in refused(run, api_server.kubeconfig(token=SECRET))


class Website(BaseHTTPRequestHandler):
    """A web server that is not an API server."""

    def do_GET(self) -> None:
        """Answer with an HTML page."""
        self.send_response(404 if getattr(self.server, "lost", False) else 200)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


@contextmanager
def website(*, lost: bool) -> Iterator[str]:
    """Run the web server. Yields its address."""
    with HTTPServer(("127.0.0.1", 0), Website) as server:
        server.lost = lost  # type: ignore[attr-defined]
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.wire
@pytest.mark.parametrize("lost", [False, True])
def test_no_api_server(run: Run, tmp_path: Path, *, lost: bool) -> None:
    """The error for a web server shows that it is not an API server."""
    path = tmp_path / "kubeconfig"
    with website(lost=lost) as address:
        path.write_text(kubeconfig(address, SECRET), encoding="utf-8")
        line = refused(run, path)
    assert address in line
    assert "Kubernetes API server" in line


@pytest.mark.wire
def test_cleaning_up_in_vain(api_server: APIServer) -> None:
    """If the cluster is gone before the cleanup, the error names the remaining events."""
    cluster = Cluster(str(api_server.kubeconfig()))
    api_server.stop_listening()
    with pytest.raises(ClusterError, match=f"events of {cluster.component} are left in the namespace default"):
        cluster.clean_up()


@pytest.mark.e2e
@pytest.mark.parametrize(("user", "missing"), [("stranger", "list"), ("recorder", "list")])
def test_refused_user_on_a_real_server(run: Run, real_server: RealServer, user: str, missing: str) -> None:
    """A refusal by a real API server is reported like one by the embedded server."""
    line = refused(run, real_server.kubeconfig(user))
    assert f"refused to {missing} events" in line
    assert f'User "{user}" cannot {missing} resource "events"' in line


# -- how it ends -----------------------------------------------------------------------------------------------------


def test_seconds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration takes the given time, within the allowed range."""
    given: list[float] = []
    monkeypatch.setattr(_cli, "demonstrate", lambda out, server, seconds, plain: given.append(seconds) or 0)
    assert run("demo", "--seconds", "7.5") == (0, "", "")
    assert given == [7.5]
    for wrong in ("2.9", "61", "nan", "soon"):
        status, _, err = run("demo", "--seconds", wrong)
        assert (status, f"must be a number from 3 to 60, not '{wrong}'" in err) == (2, True)


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C prints one line without a traceback, and gives the usual status."""

    def interrupt(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(_cli, "demonstrate", interrupt)
    assert run("demo") == (130, "", "\nkevents: interrupted\n")


def test_no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed pipe ends the command with the status of SIGPIPE, and the exit does not fail again."""
    there, here = os.pipe()
    os.close(there)
    with os.fdopen(here, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(_cli, "demonstrate", lambda out, *_, **__: out.writelines(["a line"]) or out.flush())
        assert _cli.main(["demo"]) == 141
        monkeypatch.undo()


def test_a_bug_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing module of kevents itself is a bug, and the error does not advise to install a package."""
    monkeypatch.delattr("kevents.export._operate.commands", raising=False)
    monkeypatch.setitem(sys.modules, "kevents.export._operate.commands", None)
    with pytest.raises(ModuleNotFoundError, match=r"_operate\.commands"):
        _cli.main(["tail"])


@pytest.mark.wire
def test_no_official_client(api_server: APIServer) -> None:
    """A command and an export that have connected have not loaded the official client."""
    api_server.create("v1", "pods", {"metadata": {"name": "web-0"}})
    code = """
import sys
from kevents._cli.main import main
from kevents.export import ClusterEventSource
assert main(["record", "pod/web-0", "Normal", "Tested", "by kevents"]) == 0
[stream] = ClusterEventSource().open()
print([name for name in ("kubernetes", "pydantic", "asyncio") if name in sys.modules])
"""
    environment = {**os.environ, "KUBECONFIG": str(api_server.kubeconfig())}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
    assert [event["reason"] for event in api_server.events()] == ["Tested"]
