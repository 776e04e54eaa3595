"""The tutorial on a real API server: its files, commands and outputs."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.support.polling import poll

if TYPE_CHECKING:
    from tests.support.real_server import RealServer

ROOT: Final = Path(__file__).parent.parent.parent
TEXT: Final = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
ELSEWHERE: Final = ("kind ", "python -m pip ")  # packages and a cluster exist already
DEADLINE: Final = 60.0
AFTER: Final = {  # the event to wait for before the next command
    "kubectl label configmap plan backup=nightly": ("BackupDone", 1),
    """kubectl patch configmap plan -p '{"data":{"bucket":"old"}}'""": ("BackupFailed", 2),
    """kubectl patch configmap plan -p '{"data":{"bucket":"main"}}'""": ("BackupDone", 3),
}


def files() -> Iterator[tuple[str, str]]:
    """Yield the files of the tutorial."""
    for code in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        yield code.splitlines()[0].removeprefix("# "), code


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the commands in order, each with its expected output lines."""
    for block in re.findall(r"^```console\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            yield command, shown


class Reader:
    """Follows the tutorial in a separate folder."""

    def __init__(self, server: RealServer, folder: Path, ends: ExitStack) -> None:
        self.server = server
        self.folder = folder
        self.ends = ends
        self.operator: subprocess.Popen[str] | None = None
        for name, code in files():
            (folder / name).write_text(code, encoding="utf-8")

    def follow(self, command: str) -> str:
        """Run one command and return its output."""
        program, *arguments = shlex.split(command)
        if program == "kubectl":
            return self.server.kubectl(*arguments)
        assert program == "python"
        if arguments == ["backups.py"]:
            self.operator = self.start(arguments)
            return ""
        process = self.start(arguments)
        told, _ = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, told
        return told

    def start(self, arguments: list[str]) -> subprocess.Popen[str]:
        """Start Python as in the reader's terminal."""
        environment = {"KUBECONFIG": str(self.server.kubeconfig()), "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.ends.enter_context(process)
        self.ends.callback(process.kill)
        return process

    def look_on(self, reason: str, count: int) -> None:
        """Wait until the plan has an event with this reason and count."""
        path = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=plan"

        def is_there() -> bool:
            items = self.server.request("GET", path).body["items"]
            return any(item["reason"] == reason and item["count"] >= count for item in items)

        assert poll(is_there, DEADLINE), f"no event {reason} with a count of {count}"


def gist(line: str) -> list[str]:
    """Return a row of a table without its ages."""
    return re.sub(r" \d+s( \(x\d+ over \d+s\))? ", " AGE ", line).split()


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tutorial(real_server: RealServer, tmp_path: Path, number: signal.Signals) -> None:
    """The commands of the tutorial print the shown output. On SIGINT and SIGTERM the operator exits silently."""
    real_server.kubectl("delete", "configmap", "plan", "--ignore-not-found")
    real_server.kubectl("delete", "events", "--field-selector=involvedObject.name=plan")
    with ExitStack() as ends:
        reader = Reader(real_server, tmp_path, ends)
        for command, shown in commands():
            if command.startswith(ELSEWHERE):
                continue
            told = [gist(line) for line in reader.follow(command).splitlines()]
            assert [line for line in shown if line != "..." and gist(line) not in told] == [], told
            if command in AFTER:
                reader.look_on(*AFTER[command])
        assert reader.operator is not None
        reader.operator.send_signal(number)
        told, _ = reader.operator.communicate(timeout=DEADLINE)
        assert (reader.operator.returncode, told) == (0, "")


@pytest.mark.e2e
def test_permission(real_server: RealServer, tmp_path: Path) -> None:
    """With the tutorial's RBAC objects, the pod's account has exactly the permissions that the operator needs."""
    [shown] = [yaml for yaml in re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) if "Role" in yaml]
    (tmp_path / "rbac.yaml").write_text(shown, encoding="utf-8")
    real_server.kubectl("apply", "-f", str(tmp_path / "rbac.yaml"))
    account = "--as=system:serviceaccount:default:default"
    allowed = real_server.kubectl("auth", "can-i", "--list", account, "-n", "elsewhere")
    rules = {line.split()[0]: line.split("[")[-1].rstrip("]") for line in allowed.splitlines() if line[:1].islower()}
    assert (rules["events"], rules["configmaps"]) == ("create patch", "list watch")
    assert rules.keys() & {"pods", "secrets", "*.*"} == set()
    real_server.kubectl("delete", "-f", str(tmp_path / "rbac.yaml"))


@pytest.mark.e2e
def test_permission_of_the_readme(real_server: RealServer) -> None:
    """With the commands of the README, a pod's account can write events only in its own namespace."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("## Permission\n", 1)[1]
    commands = re.findall(r"^kubectl .*$", text.split("\n## ")[0], re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        real_server.kubectl(*shlex.split(command)[1:])
    account = "--as=system:serviceaccount:default:default"
    for namespace, expected in (("default", True), ("elsewhere", False)):
        allowed = real_server.kubectl("auth", "can-i", "--list", account, "-n", namespace)
        assert bool(re.search(r"^events .*\[create patch\]$", allowed, re.MULTILINE)) == expected
    real_server.kubectl("delete", "rolebinding,role", "event-recorder", "-n", "default")


def test_every_wait_is_for_a_command_of_the_tutorial() -> None:
    """Every command with a wait exists in the tutorial."""
    assert AFTER.keys() - {command for command, _ in commands()} == set()
