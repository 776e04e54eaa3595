"""The examples, run as they are: against the embedded and the real API server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kevents.testing import APIServer
    from tests.support.real_server import RealServer

EXAMPLES = Path(__file__).parent.parent / "examples"
MINIMAL = [("Pod/web-0", "Normal", "Greeted", "hello from Python", "minimal-example", "")]
BATCH_JOB = [
    ("Job/tonight", "Normal", "Copied", "table orders is copied", "batch-job", "tonight-x"),
    ("Job/tonight", "Normal", "Copied", "table users is copied", "batch-job", "tonight-x"),
    ("Job/tonight", "Warning", "CopyFailed", "ConnectionError: the bucket is gone", "batch-job", "tonight-x"),
]


def run(example: str, kubeconfig: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an example with a kubeconfig, warnings being errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / example)],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(EXAMPLES.parent), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_batch_job(kubeconfig: Path, namespace: str) -> subprocess.CompletedProcess[str]:
    """Run the batch job as its pod template would."""
    return run("batch_job.py", kubeconfig, JOB_NAME="tonight", POD_NAMESPACE=namespace, POD_NAME="tonight-x")


def told(events: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """What the events say, sorted."""
    return sorted(
        (
            f"{event['involvedObject']['kind']}/{event['involvedObject']['name']}",
            event["type"],
            event["reason"],
            event["message"],
            event["source"]["component"],
            event["source"].get("host", ""),
        )
        for event in events
    )


def real_events(server: RealServer, namespace: str, component: str) -> list[tuple[str, ...]]:
    """What a real server holds of a component's events."""
    items = server.request("GET", f"/api/v1/namespaces/{namespace}/events?fieldSelector=source={component}").body
    return told(items["items"])


@pytest.mark.wire
def test_minimal(api_server: APIServer) -> None:
    """The smallest program delivers its event before it ends."""
    done = run("minimal.py", api_server.kubeconfig())
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert MINIMAL == told(api_server.events())


@pytest.mark.wire
def test_minimal_without_a_server(api_server: APIServer) -> None:
    """The smallest program says so when its event could not be delivered."""
    path = api_server.kubeconfig()
    api_server.stop_listening()
    done = run("minimal.py", path)
    assert 1 == done.returncode
    assert "not delivered" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.wire
def test_batch_job(api_server: APIServer) -> None:
    """The job's events are about the Job of its environment; the failure is a Warning, and logged as well."""
    api_server.create_namespace("jobs")
    done = run_batch_job(api_server.kubeconfig(), "jobs")
    assert 1 == done.returncode
    assert 3 == done.stderr.count("Event(ObjectReference(kind='Job'")
    assert BATCH_JOB == told(api_server.events("jobs"))


@pytest.mark.e2e
def test_minimal_on_a_real_server(real_server: RealServer) -> None:
    """A real API server takes the event of the smallest program."""
    assert 0 == run("minimal.py", real_server.kubeconfig()).returncode
    assert MINIMAL == real_events(real_server, "default", "minimal-example")


@pytest.mark.e2e
def test_batch_job_on_a_real_server(real_server: RealServer) -> None:
    """A real API server takes the events of the job, whose user may create and patch events and nothing else."""
    assert 1 == run_batch_job(real_server.kubeconfig("recorder"), "default").returncode
    assert BATCH_JOB == real_events(real_server, "default", "batch-job")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_short(path: Path) -> None:
    """An example fits on a page: fewer than 60 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
