"""Events through events.k8s.io/v1 on a real API server, as `kubectl` shows them."""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from kevents import DropReason
from kevents import events as door
from tests.support.series import NANO, START
from tests.support.subjects import RealSubject, Wire

if TYPE_CHECKING:
    from tests.support.real_server import RealServer

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

LIMIT = 60.0
GROUP = "events.events.k8s.io"

NewBroadcaster = Callable[..., door.EventBroadcaster]


@pytest.fixture
def server(real_server: RealServer) -> Wire:
    """A separate namespace on a real API server."""
    return Wire(RealSubject(real_server))


@pytest.fixture
def new_broadcaster(real_server: RealServer) -> Iterator[NewBroadcaster]:
    """Yield a factory of broadcasters, by default for an ordinary user who can create and patch events."""
    from kubernetes.config import new_client_from_config

    made: list[door.EventBroadcaster] = []
    clients: list[Any] = []

    def new_broadcaster(user: str = "recorder", **options: Any) -> door.EventBroadcaster:
        clients.append(new_client_from_config(config_file=str(real_server.kubeconfig(user))))
        made.append(door.EventBroadcaster(door.EventsV1EventSink(clients[-1]), **options))
        return made[-1]

    yield new_broadcaster
    for broadcaster in made:
        broadcaster.shutdown()
    for client in clients:
        client.close()


def pod(server: Wire, name: str = "web-0") -> dict[str, Any]:
    """Return the manifest of a pod in the test's namespace."""
    metadata = {"name": name, "namespace": server.namespace, "uid": "6cb0e5ec-8e2c-4d55-a6a6-5e9b21c63b12"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def stored(server: Wire) -> list[dict[str, Any]]:
    """Return the events of the test's namespace, read through events.k8s.io."""
    found: list[dict[str, Any]] = server.ok("GET", server.new_events)["items"]
    return found


def counts(server: Wire) -> dict[str, int]:
    """Return the stored number of occurrences by reason."""
    return {event["reason"]: event.get("series", {"count": 1})["count"] for event in stored(server)}


def test_kubectl(real_server: RealServer, server: Wire, new_broadcaster: NewBroadcaster) -> None:
    """`kubectl events`, `kubectl get events.events.k8s.io` and `kubectl get events` show the recorded events."""
    broadcaster = new_broadcaster()
    recorder = broadcaster.new_recorder("example.com/backup-operator")
    for number in range(3):
        recorder.eventf(pod(server), None, "Warning", "BackupFailed", "BackingUp", "no room, try %d", number)
        assert broadcaster.flush(LIMIT)
    recorder.eventf(pod(server, "web-1"), None, "Normal", "BackupDone", "BackingUp", "42 files")
    assert broadcaster.flush(LIMIT)
    everything = real_server.kubectl("events", "-n", server.namespace)
    assert re.search(r"\(x3 over .*\)\s+Warning\s+BackupFailed\s+Pod/web-0\s+no room, try 0", everything), everything
    assert re.search(r"Normal\s+BackupDone\s+Pod/web-1\s+42 files", everything), everything
    of_one = real_server.kubectl("events", "-n", server.namespace, "--for", "pod/web-1")
    assert ("BackupDone" in of_one, "BackupFailed" in of_one) == (True, False)
    for resource in (GROUP, "events"):
        table = real_server.kubectl("get", resource, "-n", server.namespace)
        assert re.search(r"Warning\s+BackupFailed\s+pod/web-0\s+no room, try 0", table), table
        assert re.search(r"Normal\s+BackupDone\s+pod/web-1\s+42 files", table), table
    columns = "custom-columns=C:.reportingController,A:.action,R:.reason,N:.series.count"
    table = real_server.kubectl("get", GROUP, "-n", server.namespace, "-o", columns)
    assert re.search(r"example\.com/backup-operator\s+BackingUp\s+BackupFailed\s+3", table), table


def test_describe_node(real_server: RealServer, server: Wire, new_broadcaster: NewBroadcaster) -> None:
    """Pitfall 32: `kubectl describe` finds an event about a cluster-scoped object."""
    name = f"node-{secrets.token_hex(4)}"
    node = server.ok("POST", "/api/v1/nodes", {"metadata": {"name": name}})
    broadcaster = new_broadcaster()
    node = {"apiVersion": "v1", "kind": "Node", **{key: node[key] for key in ("metadata",)}}
    broadcaster.new_recorder("c").eventf(node, pod(server), "Normal", "NodeReady", "Checking", "it is back")
    assert broadcaster.flush(LIMIT)
    assert re.search(r"Normal\s+NodeReady\s+.*it is back", real_server.kubectl("describe", "node", name))


def test_all_fields(server: Wire, new_broadcaster: NewBroadcaster) -> None:
    """Related object, annotations, labels and controller arrive unchanged."""
    broadcaster = new_broadcaster()
    recorder = broadcaster.new_recorder("example.com/c", reporting_instance="c-1")
    related, extra = pod(server, "web-1"), {"annotations": {"a": "b"}, "labels": {"c": "d"}}
    recorder.event(pod(server), "Normal", "R", "A", "🔥 é\n", related=related, **extra)
    assert broadcaster.flush(LIMIT)
    (event,) = stored(server)
    assert (
        event["note"],
        event["regarding"]["name"],
        event["related"]["name"],
        event["reportingController"],
        event["reportingInstance"],
        event["metadata"]["annotations"],
        event["metadata"]["labels"],
    ) == ("🔥 é\n", "web-0", "web-1", "example.com/c", "c-1", {"a": "b"}, {"c": "d"})


def test_final_counts(server: Wire, new_broadcaster: NewBroadcaster) -> None:
    """After `flush` and `shutdown`, the counts on the server are complete."""
    broadcaster = new_broadcaster()
    recorder = broadcaster.new_recorder("c")
    for number in range(500):
        recorder.eventf(pod(server), None, "Normal", f"R{number % 5}", "A", "n")
    assert broadcaster.flush(LIMIT)
    assert counts(server) == {f"R{number}": 100 for number in range(5)}
    for _ in range(50):
        recorder.eventf(pod(server), None, "Normal", "R0", "A", "n")
    assert broadcaster.shutdown(LIMIT) == 0
    assert counts(server)["R0"] == 150
    assert broadcaster.statistics().dropped == {}


def test_expired(server: Wire, new_broadcaster: NewBroadcaster) -> None:
    """Pitfall 36: a deleted event is created again under its name with its series."""
    broadcaster = new_broadcaster()
    recorder = broadcaster.new_recorder("c")
    for _ in range(2):
        recorder.eventf(pod(server), None, "Normal", "R", "A", "n")
        assert broadcaster.flush(LIMIT)
    (before,) = stored(server)
    server.ok("DELETE", f"{server.new_events}/{before['metadata']['name']}")
    recorder.eventf(pod(server), None, "Normal", "R", "A", "n")
    assert broadcaster.flush(LIMIT)
    (after,) = stored(server)
    assert (
        after["metadata"]["name"],
        after["eventTime"],
        after["series"]["count"],
    ) == (before["metadata"]["name"], before["eventTime"], 3)
    found = broadcaster.statistics().watchers[0].sink
    assert found is not None
    assert found.recreated == 1


@pytest.mark.parametrize("moment", [START // NANO * NANO, START // NANO * NANO + 120_000_000])
def test_times(server: Wire, new_broadcaster: NewBroadcaster, moment: int) -> None:
    """Pitfall 22: times with 0 microseconds or trailing zeros are accepted in creates, patches and series."""
    broadcaster = new_broadcaster(clock=lambda: moment)
    recorder = broadcaster.new_recorder("c")
    for reason in ("Single", "Merged", "Merged", "Merged"):
        recorder.eventf(pod(server), None, "Normal", reason, "A", "n")
    assert broadcaster.flush(LIMIT)
    recorder.eventf(pod(server), None, "Normal", "Single", "A", "n")
    assert broadcaster.flush(LIMIT)
    expected = "2026-07-24T09:00:00.000001Z" if moment % NANO == 0 else "2026-07-24T09:00:00.120000Z"
    assert set(counts(server).items()) == {("Single", 2), ("Merged", 3)}
    times = [(event["eventTime"], event["series"]["lastObservedTime"]) for event in stored(server)]
    assert times == [(expected, expected)] * 2


@pytest.mark.parametrize("controller", ["c" * 63, f"{'p.' * 126}p/{'n' * 63}", "a_b.C-1"])
def test_limits(server: Wire, new_broadcaster: NewBroadcaster, controller: str) -> None:
    """Pitfalls 13, 25, 26 and 30: events with any texts are sent in a form that the server accepts."""
    broadcaster = new_broadcaster()
    recorder = broadcaster.new_recorder(controller, reporting_instance="🔥" * 100)
    texts = ["x", "é" * 1030, "🔥" * 1024, "a\x00b", "a\ud800b", " ", "x" * 129]
    for text in texts:
        recorder.event(pod(server, "A_b:7"), "Normal", text, text, text)
    recorder.event(pod(server), "Normal", "R", "A", "")
    assert broadcaster.flush(LIMIT)
    assert broadcaster.statistics().dropped == {}
    assert len(stored(server)) == len(texts) + 1
    assert {128} >= {len(event["reportingInstance"].encode()) for event in stored(server)} - {127}


def test_patch_of_a_lost_answer(server: Wire, new_broadcaster: NewBroadcaster) -> None:
    """Pitfall 38: a create whose answer was lost is not duplicated, and its empty patch is accepted."""
    broadcaster = new_broadcaster()
    sink = broadcaster._publisher.watchers[0].handler.sink  # type: ignore[attr-defined]
    create, lost = sink.create, iter([ConnectionResetError("lost")])

    def forgetful(namespace: str, body: dict[str, Any], /) -> None:
        create(namespace, body)
        for error in lost:
            raise error

    sink.create = forgetful
    broadcaster.new_recorder("c").eventf(pod(server), None, "Normal", "R", "A", "n")
    assert broadcaster.flush(LIMIT)
    assert counts(server) == {"R": 1}
    assert broadcaster.statistics().dropped == {}


def test_no_permission(server: Wire, new_broadcaster: NewBroadcaster, caplog: pytest.LogCaptureFixture) -> None:
    """Pitfalls 43 and 44: for a user without permission, the missing rule is logged once."""
    caplog.set_level(logging.WARNING, logger="kevents")
    told = threading.Semaphore(0)
    broadcaster = new_broadcaster("stranger", on_drop=lambda *_: told.release())
    recorder = broadcaster.new_recorder("c")
    for number in range(5):
        recorder.eventf(pod(server), None, "Normal", f"R{number}", "A", "n")
    assert broadcaster.flush(LIMIT)
    assert broadcaster.statistics().dropped == {DropReason.REJECTED: 5}
    assert all(told.acquire(timeout=LIMIT) for _ in range(5))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "kevents"]
    assert 'cannot create resource "events" in API group "events.k8s.io"' in line
    assert 'grant apiGroups: ["events.k8s.io"], resources: ["events"], verbs: ["create", "patch"]' in line
