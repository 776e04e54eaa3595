"""The end and the forking of processes, each in its own child process."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.support.polling import poll

ROOT = Path(__file__).parents[2]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(module: str, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a script of ``tests/processes`` under ``-X dev``."""
    command = [sys.executable, "-X", "dev", "-m", f"tests.processes.{module}", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def written(path: Path) -> list[dict[str, Any]]:
    """The requests in the file of the file sink."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def counts(requests: list[dict[str, Any]]) -> dict[tuple[int, str], dict[str, int]]:
    """The last count of each name, by process and message."""
    last: dict[tuple[int, str], dict[str, int]] = defaultdict(dict)
    for request in requests:
        last[request["pid"], request["message"]][request["name"]] = request["count"]
    return last


@pytest.mark.parametrize(
    ("how", "code", "messages"),
    [
        ("return", 0, ["return"]),
        ("raise", 1, ["raise"]),
        ("sys.exit", 3, ["sys.exit"]),
        ("thread", 0, ["thread"]),
        ("atexit", 0, ["atexit", "from a hook"]),
        ("atexit-before", 0, ["atexit-before", "from an older hook"]),
    ],
)
def test_ending(tmp_path: Path, how: str, code: int, messages: list[str]) -> None:
    """Pitfalls 61, 82: a process that ends normally delivers its last event, although it keeps no reference."""
    out = tmp_path / "out"
    done = run("ending", str(out), how)
    assert done.returncode == code, done.stderr
    assert sorted(request["message"] for request in written(out)) == sorted(messages)


def test_ending_after_an_interrupted_shutdown(tmp_path: Path) -> None:
    """The exit hook continues a shutdown that Ctrl-C has interrupted."""
    out = tmp_path / "out"
    done = run("interrupted", str(out))
    assert done.returncode == 0, done.stderr
    assert [request["message"] for request in written(out)] == ["interrupted"]


def test_ending_with_many_events(tmp_path: Path) -> None:
    """Two thousand events recorded just before the end are delivered, each once."""
    out = tmp_path / "out"
    done = run("ending", str(out), "many")
    assert done.returncode == 0, done.stderr
    assert sorted(r["message"] for r in written(out)) == sorted(["many", *(f"number {n}" for n in range(2000))])


@pytest.mark.parametrize("how", ["refuse", "hang"])
def test_ending_with_a_dead_sink(tmp_path: Path, how: str) -> None:
    """A sink that refuses or hangs does not keep the process from ending. The dropped events are logged."""
    begun = monotonic()
    done = run("dead", str(tmp_path / "out"), how)
    assert done.returncode == 0, done.stderr
    assert monotonic() - begun < 20, "the exit hook has two seconds"
    assert "shutdown" in done.stderr


@needs_fork
@pytest.mark.parametrize(
    ("situation", "in_parent", "children"),
    [
        ("before", 1, 1),
        ("queued", 51, 1),
        ("locked", 2, 1),
        ("multiprocessing", 2, 1),
        ("prefork", 1, 3),
        ("two", 2, 1),
    ],
)
def test_forking(tmp_path: Path, situation: str, in_parent: int, children: int) -> None:
    """Pitfall 21: after a fork neither side hangs, sends the other's events or patches its counts."""
    out = tmp_path / "out"
    done = run("forking", str(out), situation)
    assert done.returncode == 0, done.stderr
    by_process = counts(written(out))
    same = {pid: names for (pid, message), names in by_process.items() if message == "same"}
    assert sorted(sum(names.values()) for names in same.values()) == [1] * children + [in_parent]
    assert len({name for names in same.values() for name in names}) == children + 1, "each side has its own object"
    assert sum(message == "child" for _, message in by_process) == children


@needs_fork
@pytest.mark.slow
def test_forking_in_the_middle_of_everything(tmp_path: Path) -> None:
    """Twenty forks while four threads record: every child delivers its own two events and ends."""
    out = tmp_path / "out"
    done = run("forking", str(out), "busy")
    assert done.returncode == 0, done.stderr
    by_process = counts(written(out))
    assert sum(message == "child" for _, message in by_process) == 20
    assert len({pid for pid, _ in by_process}) == 21
    same = [sum(names.values()) for (_, message), names in by_process.items() if message == "same"]
    assert sorted(same)[:20] == [1] * 20


START_METHODS = multiprocessing.get_all_start_methods()


@pytest.mark.parametrize("where", ["parent", "child"])
@pytest.mark.parametrize("method", START_METHODS)
@pytest.mark.parametrize("kind", ["process", "pool", "executor"])
def test_children_that_end_by_themselves(tmp_path: Path, kind: str, method: str, where: str) -> None:
    """Pitfall: a child of `multiprocessing` delivers its last event, wherever the broadcaster was created."""
    out = tmp_path / "out"
    done = run("children", str(out), kind, method, where)
    assert done.returncode == 0, done.stderr
    assert sorted(request["message"] for request in written(out)) == ["number 0", "number 1"]


@needs_fork
def test_children_of_billiard(tmp_path: Path) -> None:
    """A child of billiard, Celery's copy of `multiprocessing`, delivers its last event."""
    pytest.importorskip("billiard")
    out = tmp_path / "out"
    done = run("children", str(out), "billiard", "fork", "parent")
    assert done.returncode == 0, done.stderr
    assert sorted(request["message"] for request in written(out)) == ["number 0", "number 1"]


@needs_fork
def test_celery(tmp_path: Path) -> None:
    """Fault 11: each child of Celery's pool delivers its event, although it ends after one task."""
    pytest.importorskip("celery")
    out, broker = tmp_path / "out", tmp_path / "broker"
    broker.mkdir()
    environment = os.environ | {"OUT": str(out), "BROKER": str(broker)}
    command = [sys.executable, "-m", "celery", "-A", "tests.processes.celery_tasks"]
    for number in range(4):
        call = [*command, "call", "tests.processes.celery_tasks.work", f"--args=[{number}]"]
        subprocess.run(call, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=60)
    with subprocess.Popen(
        [*command, "worker", "--pool=prefork", "--concurrency=2", "--loglevel=warning"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            poll(lambda: len(written(out)) == 4, 60, lambda: worker.poll() is None)
        finally:
            worker.terminate()
            _, log = worker.communicate(timeout=60)
    assert sorted(r["message"] for r in written(out)) == [f"number {number}" for number in range(4)], log


@pytest.mark.parametrize("how", ["shutdown", "exit"])
def test_isolated_subinterpreter(tmp_path: Path, how: str) -> None:
    """Fault 12: without daemon threads, the thread that shuts down delivers the events, or the exit hook does."""
    out = tmp_path / "out"
    done = run("subinterpreter", str(out), how)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(request["message"] for request in written(out)) == [f"number {number}" for number in range(10)]
