"""The process-wide broadcaster of ``kevents.get_recorder``, and the process's own pod."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import kevents
from kevents._broadcast import default
from kevents._clients import endpoint
from kevents.testing import APIServer
from tests.support.sinks import PATIENCE, pod


@pytest.fixture(autouse=True)
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Start each test without a configuration, and end the process-wide broadcaster."""
    for name in ("KUBERNETES_SERVICE_HOST", "POD_NAME", "POD_NAMESPACE", "POD_UID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    yield
    kevents.shutdown()


def test_three_lines_reach_the_server(api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder from the environment writes to its API server. ``kevents.shutdown`` delivers the event."""
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig()))
    api_server.create_namespace("prod")
    recorder = kevents.get_recorder("backup-operator")
    recorder.event(pod(), "Warning", "BackupFailed", "the bucket is gone")
    assert kevents.shutdown(PATIENCE) == 0
    [event] = api_server.events()
    assert (event["reason"], event["source"]["component"]) == ("BackupFailed", "backup-operator")
    assert event["source"]["host"] == kevents.default_host()


def test_one_broadcaster(api_server: APIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All recorders share one broadcaster, even if several threads create them at the same time."""
    monkeypatch.setenv("KUBECONFIG", str(api_server.kubeconfig()))
    begin = threading.Barrier(8)

    def ask() -> None:
        begin.wait(PATIENCE)
        kevents.get_recorder("operator")
        found.append(default._broadcasters[""])

    found: list[kevents.EventBroadcaster] = []
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert {id(broadcaster) for broadcaster in found} == {id(default._broadcasters[""])}
    assert len(found[0].statistics().watchers) == 1


def test_without_a_cluster(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Without a configuration events are logged, and one line explains this."""
    caplog.set_level(logging.INFO, logger="kevents")
    for name in ("one", "two"):
        kevents.get_recorder(name).event(pod(), "Normal", "Started", "it runs")
    assert kevents.shutdown(PATIENCE) == 0
    said = [record.getMessage() for record in caplog.records if record.name == "kevents"]
    [line] = said
    assert f"no kubeconfig {tmp_path / 'none'})" in line
    assert line.endswith("events are not sent, but logged at level INFO by the logger kevents.events")
    assert len([record for record in caplog.records if record.name == "kevents.events"]) == 2


def test_after_shutdown() -> None:
    """After a shutdown an old recorder drops later events. A new one has a new broadcaster."""
    old = kevents.get_recorder("operator")
    broadcaster = default._broadcasters[""]
    assert kevents.shutdown() == 0
    assert kevents.shutdown() == 0
    old.event(pod(), "Normal", "Late", "too late")
    assert broadcaster.statistics().refused == {kevents.DropReason.SHUTDOWN: 1}
    kevents.get_recorder("operator").event(pod(), "Normal", "Started", "again")
    assert default._broadcasters[""].statistics().recorded == 1


def test_wrong_source() -> None:
    """An object that is not a source is refused immediately."""
    with pytest.raises(TypeError, match="source must be an EventSource or a component's name"):
        kevents.get_recorder(3)  # type: ignore[arg-type]


def test_delivered_at_exit_and_after_a_fork(api_server: APIServer, tmp_path: Path) -> None:
    """A short program and its forked child deliver their events without a shutdown."""
    api_server.create_namespace("prod")
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import os, kevents
            recorder = kevents.get_recorder("job")
            child = os.fork()
            recorder.event({pod()!r}, "Normal", "Parent" if child else "Child", "it runs")
            if child:
                os.waitpid(child, 0)
            """
        ),
        encoding="utf-8",
    )
    environment = {"KUBECONFIG": str(api_server.kubeconfig()), "PATH": ""}
    subprocess.run([sys.executable, "-W", "ignore", str(program)], env=environment, check=True, timeout=PATIENCE * 2)
    assert sorted(event["reason"] for event in api_server.events()) == ["Child", "Parent"]


class TestOwnPod:
    """The reference of the pod of this process."""

    def test_all_known(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """The three variables make a reference that kubectl describe can match."""
        for name, value in (("POD_NAME", "web-0"), ("POD_NAMESPACE", "prod"), ("POD_UID", "u-1")):
            monkeypatch.setenv(name, value)
        expected = kevents.ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u-1")
        assert kevents.own_pod() == expected
        assert caplog.messages == []

    def test_without_name(self) -> None:
        """The error shows the lines to add to the manifest."""
        with pytest.raises(kevents.InvalidReferenceError, match=r"(?s)POD_NAME is not set.*fieldPath: metadata\.name"):
            kevents.own_pod()

    def test_without_namespace(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """The namespace of the service account is the fallback. Without it, the error names the variable."""
        monkeypatch.setenv("POD_NAME", "web-0")
        monkeypatch.setattr(endpoint, "SERVICE_ACCOUNT", tmp_path)
        with pytest.raises(kevents.InvalidReferenceError, match="POD_NAMESPACE is not set"):
            kevents.own_pod()
        (tmp_path / "namespace").write_text("prod\n", encoding="utf-8")
        assert kevents.own_pod().namespace == "prod"

    def test_without_uid(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        """Without a uid the reference has none, and a log line explains the consequence."""
        monkeypatch.setenv("POD_NAME", "web-0")
        monkeypatch.setenv("POD_NAMESPACE", "prod")
        assert kevents.own_pod().uid == ""
        assert "does not list events without a uid" in caplog.text
