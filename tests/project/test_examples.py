"""The examples, run unchanged against the embedded and the real API server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError, URLError

import pytest
from kubernetes import client, config

import kevents
from kevents.export import read_records
from tests.export.moto import HOW_TO_GET, SECRET, program, served
from tests.support.polling import poll
from tests.support.programs import Programs
from tests.support.real_server import RealServer

if TYPE_CHECKING:
    from kevents.testing import APIServer

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., subprocess.CompletedProcess[str]]
DEADLINE: Final = 60.0
MINIMAL = [("Pod/web-0", "Normal", "Greeted", "hello from Python", "minimal-example", "")]
BATCH_JOB = [
    ("Job/tonight", "Normal", "Copied", "table orders is copied", "batch-job", "tonight-x"),
    ("Job/tonight", "Normal", "Copied", "table users is copied", "batch-job", "tonight-x"),
    ("Job/tonight", "Warning", "CopyFailed", "ConnectionError: the bucket is gone", "batch-job", "tonight-x"),
]
CLIENT_GO = [
    ("Namespace/default", "Normal", "Checking", "100 % of the objects are checked", "checker", "checker-0"),
    ("Namespace/default", "Normal", "Checking", "50 % of the objects are checked", "checker", "checker-0"),
    ("Namespace/default", "Normal", "Checking", "75 % of the objects are checked", "checker", "checker-0"),
    ("Namespace/default", "Warning", "QuotaNear", "9 of 9", "checker", "checker-0"),
]
CONTROLLER = [
    ("ConfigMap/bad", "Warning", "BackupFailed", "ConnectionError: the bucket old is gone", "backup-controller", ""),
    ("ConfigMap/good", "Normal", "BackupDone", "everything is in the bucket", "backup-controller", ""),
]
SERVICE = [
    ("Pod/service-0", "Normal", "BackupDone", "everything is in the bucket", "backup-service", "service-0"),
    ("Pod/service-0", "Warning", "BackupRefused", "there is no bucket old", "backup-service", "service-0"),
]


def surroundings(kubeconfig: Path, **environment: str) -> dict[str, str]:
    """The environment of an example."""
    return {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(EXAMPLES.parent), **environment}


@pytest.fixture
def run(programs: Programs, tmp_path: Path) -> Run:
    """Runs an example with a kubeconfig and more environment variables."""

    def run(example: str, kubeconfig: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        return programs.run(EXAMPLES / example, kubeconfig, tmp_path, **variables)

    return run


def batch_job(run: Run, kubeconfig: Path, namespace: str) -> subprocess.CompletedProcess[str]:
    """Run the batch job with the environment of its pod template."""
    return run("batch_job.py", kubeconfig, JOB_NAME="tonight", POD_NAMESPACE=namespace, POD_NAME="tonight-x")


@contextmanager
def running(command: list[str], kubeconfig: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program in the background that must end by itself on SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", *command],
        env=surroundings(kubeconfig, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def terminate(process: subprocess.Popen[str]) -> tuple[int, str]:
    """End a program as Kubernetes does. Returns its exit status and output."""
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=DEADLINE)
    return process.returncode, said


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until a condition holds; fail if the program ends before."""
    if not poll(condition, DEADLINE, lambda: process.poll() is None):
        process.kill()
        pytest.fail(process.communicate()[0])


def told(events: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The main fields of the events, sorted."""
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
    """The events of a component on a real server."""
    items = server.request("GET", f"/api/v1/namespaces/{namespace}/events?fieldSelector=source={component}").body
    return told(items["items"])


@pytest.mark.wire
def test_minimal(api_server: APIServer, run: Run) -> None:
    """The smallest example delivers its event before it ends."""
    done = run("minimal.py", api_server.kubeconfig())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert told(api_server.events()) == MINIMAL


@pytest.mark.wire
def test_minimal_without_a_server(api_server: APIServer, run: Run) -> None:
    """The smallest example reports an event that it could not deliver."""
    path = api_server.kubeconfig()
    api_server.stop_listening()
    done = run("minimal.py", path)
    assert done.returncode == 1
    assert "not delivered" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.wire
def test_batch_job(api_server: APIServer, run: Run) -> None:
    """The job's events are about the Job in its environment. The failure is a Warning, and is logged as well."""
    api_server.create_namespace("jobs")
    done = batch_job(run, api_server.kubeconfig(), "jobs")
    assert done.returncode == 1
    assert done.stderr.count("Event(ObjectReference(kind='Job'") == 3
    assert told(api_server.events("jobs")) == BATCH_JOB


@pytest.mark.wire
def test_client_go(api_server: APIServer, run: Run) -> None:
    """The program ported from Go creates and logs the same events as the original."""
    done = run("client_go.py", api_server.kubeconfig(), POD_NAME="checker-0")
    assert done.returncode == 0, done.stderr
    shown = (
        "INFO Event occurred object=default kind=Namespace type=Normal reason=Checking "
        'message="50 % of the objects are checked"'
    )
    assert (len(done.stderr.splitlines()), done.stderr.splitlines()[0]) == (4, shown)
    assert told(api_server.events()) == CLIENT_GO
    [warning] = [event for event in api_server.events() if event["type"] == "Warning"]
    assert warning["metadata"]["annotations"] == {"run": "7"}


def plans(create: Callable[[dict[str, Any]], object]) -> None:
    """Create two ConfigMaps with the backup label, one of which fails, and one without the label."""
    for name, bucket, labels in (("good", "main", {"backup": ""}), ("bad", "old", {"backup": ""}), ("other", "x", {})):
        metadata = {"name": name, "namespace": "default", "labels": labels}
        create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"bucket": bucket}})


def control(kubeconfig: Path, events: Callable[[], list[tuple[str, ...]]]) -> None:
    """Run the controller until it has recorded events about both plans, and end it."""
    pytest.importorskip("kubernetes.aio")
    # The client decides whether aiohttp closes the connection of a cancelled watch before the loop ends.
    command = ["-W", "ignore:unclosed:ResourceWarning", str(EXAMPLES / "asyncio_controller.py")]
    with running(command, kubeconfig) as controller:
        wait_until(lambda: set(CONTROLLER) <= set(events()), controller)
        assert terminate(controller) == (0, "")
    # A shared real server may hold other plans.
    assert set(CONTROLLER) <= set(events())


@pytest.mark.wire
def test_asyncio_controller(api_server: APIServer) -> None:
    """The controller records an event for each labelled plan, and ends on a signal with nothing left open."""
    plans(lambda body: api_server.create("v1", "configmaps", body))
    control(api_server.kubeconfig(), lambda: told(api_server.events()))


def tell(api_server: APIServer) -> None:
    """Record a Normal and a Warning event about a pod."""
    pod = kevents.ObjectReference(kind="Pod", api_version="v1", namespace="default", name="web-0", uid="u-1")
    with kevents.EventBroadcaster() as broadcaster:
        api = client.CoreV1Api(config.new_client_from_config(str(api_server.kubeconfig())))
        broadcaster.start_recording_to_sink(kevents.CoreV1EventSink(api))
        recorder = broadcaster.new_recorder("teller")
        recorder.event(pod, "Normal", "BackupStarted", "writing")
        recorder.event(pod, "Warning", "BackupFailed", "the bucket is gone")
        assert broadcaster.flush(10)
    api.api_client.close()


def exported(api_server: APIServer, folder: Path, *url: str, done: Callable[[], object], **environment: str) -> None:
    """Run the export until its work is done, and end it."""
    command = [str(EXAMPLES / "export_events.py"), str(folder), *url]
    with running(command, api_server.kubeconfig(), **environment) as export:
        wait_until(done, export)
        status, said = terminate(export)
    assert (status, said.count("Traceback")) == (0, 0), said


def is_watching(api_server: APIServer) -> bool:
    """Whether the export has read the existing events and is watching."""
    return any("watch" in request.query for request in api_server.requests)


def reasons(folder: Path) -> list[str]:
    """The reasons of the events exported into a folder."""
    if not any(folder.rglob("*.jsonl.gz*")):
        return []
    return [record["reason"] for record in read_records(str(folder))]


@pytest.mark.wire
def test_export_to_a_file(api_server: APIServer, tmp_path: Path) -> None:
    """The folder holds every event once, even after a restart of the export."""
    tell(api_server)
    for _ in range(2):
        api_server.clear_requests()
        exported(api_server, tmp_path, done=lambda: is_watching(api_server) and len(reasons(tmp_path)) == 2)
    assert sorted(reasons(tmp_path)) == ["BackupFailed", "BackupStarted"]


@pytest.mark.wire
def test_export_to_s3(api_server: APIServer, tmp_path: Path) -> None:
    """Warnings are exported to the bucket as well."""
    if program() is None:
        pytest.skip(HOW_TO_GET)
    tell(api_server)
    with served(tmp_path) as moto:
        moto.make_bucket("bucket")
        environment = {
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "S3_ENDPOINT": f"http://127.0.0.1:{moto.port}",
        }
        url = "s3://bucket/events"
        done = lambda: b".jsonl.gz" in moto.request("GET", "/bucket?list-type=2")[1]  # noqa: E731 - asked at once
        exported(api_server, tmp_path / "folder", url, done=done, **environment)
        assert [record["reason"] for record in read_records(url, options=moto.options())] == ["BackupFailed"]


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ask(method: str, url: str) -> int:
    """The status of a request; 0 if the connection fails."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=DEADLINE) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code
    except URLError:
        return 0


@pytest.mark.wire
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn forks, and Windows does not")
@pytest.mark.parametrize("preload", [["--preload"], []], ids=["preload", "no preload"])
def test_service(api_server: APIServer, preload: list[str]) -> None:
    """Events of every worker are delivered, whether the application is loaded before or after the fork."""
    url = f"http://127.0.0.1:{free_port()}"
    gunicorn = ["-m", "gunicorn", "--chdir", str(EXAMPLES), "--workers", "2", "--no-control-socket"]
    command = [*gunicorn, "--bind", url.removeprefix("http://"), *preload, "service:app"]
    workers: set[int] = set()

    def have_begun() -> bool:
        """Whether both workers have answered. One that is starting misses the signal, and is killed after 30 s."""
        if ask("GET", f"{url}/events") == 200:
            with urllib.request.urlopen(f"{url}/events", timeout=DEADLINE) as answer:
                workers.add(json.load(answer)["worker"])
        return len(workers) == 2

    with running(command, api_server.kubeconfig(), POD_NAME="service-0") as service:
        wait_until(have_begun, service)
        assert ask("POST", f"{url}/backups/main") == 201
        assert ask("POST", f"{url}/backups/old") == 404
        status, said = terminate(service)
    assert (status, said.count("Traceback")) == (0, 0), said
    assert told(api_server.events()) == SERVICE


@pytest.mark.e2e
def test_client_go_on_a_real_server(real_server: RealServer, run: Run) -> None:
    """A real API server accepts the events of the program ported from Go."""
    assert run("client_go.py", real_server.kubeconfig(), POD_NAME="checker-0").returncode == 0
    assert real_events(real_server, "default", "checker") == CLIENT_GO


@pytest.mark.e2e
def test_asyncio_controller_on_a_real_server(real_server: RealServer) -> None:
    """The controller watches a real API server, which accepts its events."""
    plans(lambda body: real_server.request("POST", "/api/v1/namespaces/default/configmaps", body))
    control(real_server.kubeconfig(), lambda: real_events(real_server, "default", "backup-controller"))


@pytest.mark.e2e
def test_minimal_on_a_real_server(real_server: RealServer, run: Run) -> None:
    """A real API server accepts the event of the smallest example."""
    assert run("minimal.py", real_server.kubeconfig()).returncode == 0
    assert real_events(real_server, "default", "minimal-example") == MINIMAL


@pytest.mark.e2e
def test_batch_job_on_a_real_server(real_server: RealServer, run: Run) -> None:
    """A real API server accepts the events of the job, whose user may only create and patch events."""
    assert batch_job(run, real_server.kubeconfig("recorder"), "default").returncode == 1
    assert real_events(real_server, "default", "batch-job") == BATCH_JOB


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_short(path: Path) -> None:
    """An example fits on a page: it has fewer than 60 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
