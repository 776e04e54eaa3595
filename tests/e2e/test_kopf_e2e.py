"""A real kopf operator in a separate process records events on a real API server."""

from __future__ import annotations

import base64
import json
import re
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.processes.kopf_run import CLIENTS, ROOT, Operator
from tests.support.real_server import RealServer

pytest.importorskip("kopf", reason="needs kevents[kopf]")
pytestmark = pytest.mark.e2e

EVERYWHERE = ROOT / "tests/processes/kopf_everywhere.py"
POSTING = ROOT / "tests/processes/kopf_posting.py"
EXAMPLE = ROOT / "examples/kopf_operator.py"
BEGUN = {
    "AtImport",
    "AtStartup",
    "SyncHandler",
    "BareThread",
    "AsyncHandler",
    "Failed",
    "SyncDaemon",
    "AsyncDaemon",
    "Timer",
    "Logged",
}
ENDED = {"SyncDaemonEnded", "AsyncDaemonEnded", "AtCleanup", "AfterDrain"}


def new_namespace(server: RealServer) -> str:
    """Create a namespace."""
    name = f"kopf-{secrets.token_hex(4)}"
    assert server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).status == 201
    return name


def create(server: RealServer, namespace: str, name: str, spec: dict[str, Any], plural: str = "widgets") -> None:
    """Create a custom object."""
    kind = plural.removesuffix("s").capitalize()
    body = {"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    answer = server.request("POST", f"/apis/example.com/v1/namespaces/{namespace}/{plural}", body)
    assert answer.status == 201, answer.body


def events(server: RealServer, namespace: str, component: str) -> list[dict[str, Any]]:
    """Return the events of a component."""
    path = f"/api/v1/namespaces/{namespace}/events?fieldSelector=source={component}"
    items: list[dict[str, Any]] = server.request("GET", path).body["items"]
    return items


def reasons(found: list[dict[str, Any]]) -> set[str]:
    """Return the reasons of events."""
    return {event["reason"] for event in found}


def inline_kubeconfig(server: RealServer, folder: Path) -> Path:
    """Return a kubeconfig with an inline certificate, which the client stores in a temporary file until exit."""
    config = json.loads(server.kubeconfig("admin").read_text(encoding="utf-8"))
    cluster = config["clusters"][0]["cluster"]
    cluster["certificate-authority-data"] = base64.b64encode(
        Path(cluster.pop("certificate-authority")).read_bytes()
    ).decode()
    path = folder / "kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


@dataclass
class Life:
    """The complete run of an operator: its log, its exit status and its events on the server."""

    log: str
    status: int
    events: list[dict[str, Any]]
    by_kopf: list[dict[str, Any]]

    def of(self, reason: str) -> list[tuple[str, str, str, int]]:
        """Return object, type, message and count of the events with a reason."""
        return sorted(
            (event["involvedObject"]["name"], event["type"], event["message"], event["count"])
            for event in self.events
            if event["reason"] == reason
        )


def live(server: RealServer, folder: Path, environment: dict[str, str], hidden: tuple[str, ...]) -> Life:
    """Run the operator that records everywhere until all is seen, and end it with SIGTERM."""
    server.register("example.com/v1", "Widget", "widgets")
    namespace = new_namespace(server)
    create(server, namespace, "w", {})
    config = inline_kubeconfig(server, folder)
    with Operator(EVERYWHERE, folder, config, namespace=namespace, environment=environment, hidden=hidden) as operator:

        def all_begun() -> bool:
            found = events(server, namespace, "everywhere")
            counts = [event["count"] for event in found if event["reason"] == "Failed"]
            return reasons(found) >= BEGUN and sum(counts) >= 30

        operator.wait_until(all_begun)
        operator.wait_until(lambda: operator.said("1 failed"))
        status = operator.end()
        log = operator.log
    items = server.request("GET", f"/api/v1/namespaces/{namespace}/events").body["items"]
    return Life(log, status, events(server, namespace, "everywhere"), [e for e in items if e["reason"] == "FromKopf"])


LOGINS: dict[str, dict[str, str]] = {"client": {}, "own": {"OWN_LOGIN": "1", "SILENCE_KOPF": "1"}, "alone": {}}


@pytest.fixture(scope="module", params=LOGINS, ids=lambda login: f"login-{login}")
def login(request: pytest.FixtureRequest) -> str:
    """Give how the operator logs in: by the official client, by its own handler, or by kopf alone, without a client."""
    return str(request.param)


@pytest.fixture(scope="module")
def life(real_server: RealServer, tmp_path_factory: pytest.TempPathFactory, login: str) -> Iterator[Life]:
    """Give the whole life of an operator, the same for all tests."""
    return live(real_server, tmp_path_factory.mktemp("kopf"), LOGINS[login], CLIENTS if login == "alone" else ())


def test_everywhere(life: Life) -> None:
    """Pitfalls 1, 3: events from all kinds of handlers, daemons, timers and threads arrive once."""
    assert (life.status, reasons(life.events)) == (0, BEGUN | ENDED), life.log
    assert life.of("SyncHandler") == [("w", "Normal", "in a thread of kopf's", 1)]
    assert life.of("BareThread") == [("w", "Warning", "in a thread of its own", 1)]
    assert life.of("Timer") == [("w", "Normal", "ticked", 1)]
    for reason in ("SyncDaemon", "AsyncDaemon"):
        assert life.of(reason) == [("w", "Normal", "began", 1)]


def test_before_login_and_in_cleanup(life: Life, login: str) -> None:
    """Events recorded before login are delivered after it. Events recorded during cleanup are delivered, too."""
    assert life.of("AtImport") == [("notes", "Normal", "before anything", 1)]
    assert life.of("AtStartup") == [("notes", "Normal", "before login", 1)]
    for reason in ("SyncDaemonEnded", "AsyncDaemonEnded"):
        assert life.of(reason) == [("w", "Normal", "ended", 1)]
    assert life.of("AfterDrain") == [("notes", "Normal", "after everything", 1)]
    assert life.of("AtCleanup") == [("notes", "Normal", {"client": "loaded"}.get(login, "unset"), 1)]


def test_order_of_cleanup(life: Life) -> None:
    """Kevents' cleanup handler runs after those of the operator's module, although it was installed first."""
    ended = re.findall(r"kopf\.activities\.clea.*Activity '([^']+)' succeeded", life.log)
    assert [name.rpartition(".")[2] for name in ended] == ["cleanup", "kevents-cleanup-1", "latest"]


def test_thirty_failures(life: Life) -> None:
    """A handler that fails thirty times causes one event with a count of 30."""
    assert life.of("Failed") == [("w", "Warning", "ConnectionError: the bucket is gone", 30)]


def test_several_objects(life: Life) -> None:
    """An event about a list of objects is recorded once for each."""
    expected = [("notes", "Normal", "about both", 1), ("w", "Normal", "about both", 1)]
    assert life.of("AsyncHandler") == expected


def test_log_handler(life: Life) -> None:
    """Warnings of a handler's logger become events about its object. Lower levels and unposted records do not."""
    seen = life.of("Logged")
    assert {name for name, *_ in seen} == {"w"}
    assert {eventtype for _, eventtype, *_ in seen} == {"Warning"}
    assert ("w", "Warning", "seen by its logger", 1) in seen
    assert [message for *_, message, _ in seen if "worth" in message or "\n" in message] == []


def test_kopf_s_own_posting(life: Life, login: str) -> None:
    """Kopf's own event posting is unchanged unless it is disabled."""
    if login == "own":
        assert life.by_kopf == []
    else:
        assert [event["message"] for event in life.by_kopf] == ["kopf's own"]


def test_references(life: Life) -> None:
    """Events refer to the object's uid, so that kubectl describe finds them."""
    about = [event["involvedObject"] for event in life.events if event["involvedObject"]["name"] == "w"]
    assert {(ref["apiVersion"], ref["kind"]) for ref in about} == {("example.com/v1", "Widget")}
    assert len({ref["uid"] for ref in about}) == 1


def test_quiet(life: Life) -> None:
    """No event was lost, and kevents logged only that it waited for the login."""
    lines = [line for line in life.log.splitlines() if re.search(r"\] kevents ", line)]
    assert [line for line in lines if not re.search("has not logged in yet|answers again", line)] == []
    assert "Traceback" not in life.log


@pytest.mark.parametrize(
    ("posting", "by_kopf"),
    [
        (
            {"enabled": True, "level": "INFO", "loggers": True},
            {"EventByKopf", "InfoByKopf", "ExceptionByKopf", "Logging"},
        ),
        ({"enabled": True, "level": "ERROR", "loggers": False}, {"EventByKopf", "ExceptionByKopf"}),
        ({"enabled": False, "level": "INFO", "loggers": True}, set()),
    ],
    ids=["everything", "errors", "disabled"],
)
def test_posting_settings(real_server: RealServer, tmp_path: Path, posting: dict[str, Any], by_kopf: set[str]) -> None:
    """Kopf's settings limit kopf's own events. The recorder records every call, and log lines need its own handler."""
    real_server.register("example.com/v1", "Widget", "widgets")
    namespace = new_namespace(real_server)
    create(real_server, namespace, "w", {})
    environment = {"POSTING": json.dumps(posting)}

    def found() -> set[str]:
        items = real_server.request("GET", f"/api/v1/namespaces/{namespace}/events").body["items"]
        return reasons(items)

    expected = {"Event", "Info", "Exception", "Last"} | by_kopf
    with Operator(
        POSTING, tmp_path, real_server.kubeconfig(), namespace=namespace, environment=environment
    ) as operator:
        operator.wait_until(lambda: found() >= expected)
        assert operator.end() == 0
    assert found() == expected


# -- the example and the README --------------------------------------------------------------------------------------


def test_example(real_server: RealServer, tmp_path: Path) -> None:
    """The example records one event with a count while the backup fails, and another one after the fix."""
    real_server.kubectl("apply", "-f", str(ROOT / "examples/kopf/crd.yaml"))
    real_server.kubectl("wait", "--for=condition=Established", "crd/backups.example.com", "--timeout=30s")
    real_server.kubectl("apply", "--dry-run=server", "-f", str(ROOT / "examples/kopf/rbac.yaml"))
    namespace = new_namespace(real_server)
    with Operator(EXAMPLE, tmp_path, real_server.kubeconfig("admin"), namespace=namespace) as operator:
        real_server.kubectl("apply", "-n", namespace, "-f", str(ROOT / "examples/kopf/backups.yaml"))

        def counts() -> dict[tuple[str, str], int]:
            found = events(real_server, namespace, "backup-operator")
            return {(event["involvedObject"]["name"], event["reason"]): event["count"] for event in found}

        operator.wait_until(lambda: counts().get(("bad", "BackupFailed"), 0) >= 3)
        described = real_server.kubectl("describe", "-n", namespace, "backup", "bad")
        change = '{"spec":{"bucket":"main"}}'
        real_server.kubectl("patch", "-n", namespace, "backup", "bad", "--type=merge", "-p", change)
        operator.wait_until(lambda: ("bad", "BackupDone") in counts())
        assert operator.end(signal.SIGINT) == 0, operator.log
    [row] = re.findall(r"Warning +BackupFailed .*", described)
    assert re.search(r"\(x\d+ over .*backup-operator +ConnectionError: the bucket old is gone", row)
    assert ("good", "BackupDone") in counts()
    assert ("good", "BackupFailed") not in counts()
    assert len(events(real_server, namespace, "backup-operator")) == len(counts())


def test_permissions_of_the_example(real_server: RealServer, tmp_path: Path) -> None:
    """The example's role is sufficient for the operator."""
    real_server.kubectl("apply", "-f", str(ROOT / "examples/kopf/crd.yaml"))
    real_server.kubectl("wait", "--for=condition=Established", "crd/backups.example.com", "--timeout=30s")
    real_server.kubectl("apply", "-f", str(ROOT / "examples/kopf/rbac.yaml"))
    token = real_server.kubectl("create", "token", "backup-operator", "-n", "default").strip()
    config = json.loads(real_server.kubeconfig("admin").read_text(encoding="utf-8"))
    config["users"][0]["user"]["token"] = token
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config), encoding="utf-8")
    namespace = new_namespace(real_server)
    create(real_server, namespace, "good", {"bucket": "main"}, "backups")
    with Operator(EXAMPLE, tmp_path, path) as operator:
        operator.wait_until(lambda: {"BackupDone"} == reasons(events(real_server, namespace, "backup-operator")))
        assert operator.end() == 0, operator.log
        assert operator.said("orbidden") == []


def test_readme(real_server: RealServer, tmp_path: Path) -> None:
    """The example in the README is a working operator."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "kevents.kopf" in block]
    assert len([line for line in code.splitlines() if re.search("kevents|recorder", line)]) == 3
    file = tmp_path / "operator.py"
    file.write_text(code, encoding="utf-8")
    real_server.register("example.com/v1", "Widget", "widgets")
    namespace = new_namespace(real_server)
    create(real_server, namespace, "w", {})
    with Operator(file, tmp_path, real_server.kubeconfig("admin"), namespace=namespace) as operator:
        operator.wait_until(lambda: events(real_server, namespace, "widget-operator"))
        assert operator.end() == 0, operator.log
    [event] = events(real_server, namespace, "widget-operator")
    assert (event["involvedObject"]["kind"], event["involvedObject"]["name"], event["count"]) == ("Widget", "w", 1)
    assert f'"{event["reason"]}", "{event["message"]}"' in code
