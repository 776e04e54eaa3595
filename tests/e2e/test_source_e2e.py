"""The export's source on a real API server."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import kubernetes.client
import kubernetes.config
import pytest

from kevents.exceptions import StatusError
from kevents.export import ClusterEventSource
from tests.export.reading import QUICK, Reading, event
from tests.support.real_server import LEFT_BY_SSL, RealServer, required_assets

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

MERGE = "application/merge-patch+json"


@pytest.fixture
def namespace(real_server: RealServer) -> str:
    """A separate namespace."""
    return made_namespace(real_server)


@pytest.fixture
def own_server() -> Iterator[RealServer]:
    """A real server that the test can kill."""
    required_assets()
    with RealServer() as server:
        yield server


def made_namespace(server: RealServer) -> str:
    """Create a namespace."""
    name = f"t-{secrets.token_hex(6)}"
    server.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


def source(server: RealServer, user: str = "admin", **options: Any) -> ClusterEventSource:
    """Return a source that reads as a user."""
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(server.kubeconfig(user)), client_configuration=configuration)
    configuration.retries = False
    api = kubernetes.client.ApiClient(configuration)
    return ClusterEventSource(api, **{"retry": QUICK, "patience": 0.5, **options})


def put(server: RealServer, namespace: str, *names: str, **fields: Any) -> list[str]:
    """Store events and return the ids of their revisions."""
    path = f"/api/v1/namespaces/{namespace}/events"
    made = [server.request("POST", path, event(name, namespace, **fields)).body["metadata"] for name in names]
    return [identity(metadata) for metadata in made]


def patch(server: RealServer, namespace: str, name: str, count: int) -> str:
    """Set an event's count and return the id of the revision."""
    path = f"/api/v1/namespaces/{namespace}/events/{name}"
    return identity(server.request("PATCH", path, {"count": count}, content_type=MERGE).body["metadata"])


def identity(metadata: dict[str, Any]) -> str:
    """Return the id of a revision."""
    return f"{metadata['uid']}:{metadata['resourceVersion']}"


def test_list_and_watch(real_server: RealServer, namespace: str) -> None:
    """The paged list comes first, in order, then the watch, each revision with its count delta."""
    expected = put(real_server, namespace, *[f"e{number * 7 % 20:02}" for number in range(20)])
    (stream,) = source(real_server, namespaces=[namespace], page=6).open()
    with Reading(stream) as reading:
        reading.wait_listed()
        expected += put(real_server, namespace, "counted")
        expected += [patch(real_server, namespace, "counted", count) for count in range(2, 21)]
        reading.wait_for(40)
    assert reading.ids == expected
    assert reading.deltas == [1] * 40
    body = reading.records[-1].body
    assert (body["count"], body["kevents"]["verb"], body["involvedObject"]["deleted"]) == (20, "MODIFIED", False)
    assert set() == {"kind", "apiVersion"} & body.keys()
    assert "managedFields" not in body["metadata"]


def test_same_revision(real_server: RealServer, namespace: str) -> None:
    """A watched and a listed revision give the same record."""
    (stream,) = source(real_server, namespaces=[namespace]).open()
    with Reading(stream) as watched:
        watched.wait_listed()
        put(real_server, namespace, "a", message="hello \u2028 <&> \U0001f389")
        watched.wait_for(1)
    (stream,) = source(real_server, namespaces=[namespace]).open()
    with Reading(stream) as listed:
        listed.wait_listed()
    assert [record.line() for record in listed.records] == [record.line() for record in watched.records]


def test_resume(real_server: RealServer, namespace: str) -> None:
    """After a restart, only newer revisions are delivered, even if the history was compacted."""
    put(real_server, namespace, "a", "b")
    (stream,) = source(real_server, namespaces=[namespace]).open()
    with Reading(stream) as first:
        first.wait_listed()
    expected = [patch(real_server, namespace, "a", 2), *put(real_server, namespace, "c")]
    real_server.compact()
    (stream,) = source(real_server, namespaces=[namespace]).open()
    with Reading(stream, first.position) as second:
        second.wait_listed()
    assert (second.ids, second.gaps) == (expected, [])


def test_other_view(real_server: RealServer, namespace: str) -> None:
    """An event written through events.k8s.io is read through core/v1 with its series."""
    body = {
        "metadata": {"name": "new", "namespace": namespace},
        "eventTime": "2026-07-24T08:00:00.000001Z",
        "reportingController": "example.com/c",
        "reportingInstance": "i",
        "action": "A",
        "reason": "R",
        "regarding": {"kind": "Pod", "namespace": namespace, "name": "x"},
        "note": "text",
        "type": "Normal",
    }
    (stream,) = source(real_server, namespaces=[namespace]).open()
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    with Reading(stream) as reading:
        reading.wait_listed()
        real_server.request("POST", path, body)
        series = {"series": {"count": 5, "lastObservedTime": "2026-07-24T08:06:00.000001Z"}}
        real_server.request("PATCH", f"{path}/new", series, content_type=MERGE)
        reading.wait_for(2)
    own = [record.body["kevents"] for record in reading.records]
    assert [found["countDelta"] for found in own] == [1, 4]
    assert [body["eventTime"], series["series"]["lastObservedTime"]] == [found["time"] for found in own]
    assert reading.records[1].body["message"] == "text"


@pytest.mark.filterwarnings(LEFT_BY_SSL)
def test_outage(own_server: RealServer) -> None:
    """After the API server was killed and restarted, or paused, no event is missing."""
    namespace = made_namespace(own_server)
    (stream,) = source(own_server, namespaces=[namespace]).open()
    with Reading(stream) as reading:
        expected = put(own_server, namespace, "before")
        reading.wait_for(1)
        own_server.kill()
        own_server.start_again()
        expected += put(own_server, namespace, "after")
        reading.wait_for(2)
        own_server.pause()
        own_server.resume()
        expected += put(own_server, namespace, "later")
        reading.wait_for(3)
    assert (reading.ids, reading.gaps) == (expected, [])


def test_gone(own_server: RealServer) -> None:
    """A watch from a compacted version is gone, and a list delivers the missed events."""
    namespace = made_namespace(own_server)
    (stream,) = source(own_server, namespaces=[namespace]).open()
    expected = put(own_server, namespace, "a")
    chunks = stream.read(None)
    found = [record.id for record in next(chunks).records]
    next(chunks)  # the end of the list, before the watch starts
    expected += put(own_server, namespace, "b", "c", "d")
    own_server.compact()
    while len(found) < len(expected):
        found += [record.id for record in next(chunks).records]
    stream.stop()
    chunks.close()
    assert found == expected
    assert (stream.statistics().gone, stream.statistics().lists) == (1, 2)


def test_forbidden(real_server: RealServer) -> None:
    """The error for a user without permission names the missing rule."""
    with pytest.raises(StatusError, match=r'403 .* a role must allow "get" of "namespaces" named "kube-system"'):
        source(real_server, "stranger").open()


def test_cluster(real_server: RealServer) -> None:
    """A cluster is identified by the UID of kube-system, and a quiet stream causes no failures."""
    uid = real_server.request("GET", "/api/v1/namespaces/kube-system").body["metadata"]["uid"]
    (stream,) = source(real_server, namespaces=["kube-node-lease"], watch=1).open()
    assert uid == stream.stream.cluster
    with Reading(stream) as reading:
        reading.wait(lambda: len(reading.chunks) == 4)
    statistics = stream.statistics()
    assert (statistics.lists, statistics.gone, statistics.failures, statistics.resets) == (1, 0, 0, 0)
