"""Enrichment of events with the metadata of a real API server."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, Final

import pytest
from kubernetes import config

from kevents.export import ClusterEventSource, Enricher, Exporter, Record, Route
from tests.export.doubles import MemorySink
from tests.support.metadata import record
from tests.support.polling import poll
from tests.support.real_server import RealServer
from tests.support.sinks import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

SPEC: Final = {"containers": [{"name": "main", "image": "i"}]}
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class Space:
    """A separate namespace, objects in it, and records of events about them."""

    def __init__(self, server: RealServer) -> None:
        self.server = server
        self.name = f"enrich-{secrets.token_hex(4)}"
        self.ok("POST", "/api/v1/namespaces", {"metadata": {"name": self.name}})

    def ok(self, method: str, path: str, body: object = None, **options: Any) -> dict[str, Any]:
        """Send a request as the administrator. It must succeed."""
        response = self.server.request(method, path, body, **options)
        assert response.status in {200, 201}, response.body
        made: dict[str, Any] = response.body
        return made

    def path(self, resource: str, name: str = "", base: str = "/api/v1") -> str:
        """Return the path of a resource or of one object."""
        return f"{base}/namespaces/{self.name}/{resource}{f'/{name}' if name else ''}"

    def pod(self, name: str = "web-0", **metadata: Any) -> dict[str, Any]:
        """Create a pod and return its metadata."""
        made = self.ok("POST", self.path("pods"), {"metadata": {"name": name, **metadata}, "spec": SPEC})["metadata"]
        assert isinstance(made, dict)
        return made

    def controller(self, kind: str, name: str, owner: dict[str, Any] | None = None) -> dict[str, Any]:
        """Create a Deployment or a ReplicaSet and return its metadata."""
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels}, "spec": SPEC}
        metadata = {"name": name, "ownerReferences": [owner] if owner else []}
        spec = {"selector": {"matchLabels": labels}, "template": template, "replicas": 0}
        made = self.ok(
            "POST", self.path(f"{kind.lower()}s", base="/apis/apps/v1"), {"metadata": metadata, "spec": spec}
        )["metadata"]
        assert isinstance(made, dict)
        return made

    def gone(self, resource: str, name: str) -> None:
        """Delete an object immediately."""
        self.ok("DELETE", self.path(resource, name) + "?gracePeriodSeconds=0")

    def record(self, kind: str, metadata: dict[str, Any], api_version: str = "v1", **fields: Any) -> Record:
        """Return a record of an event about an object."""
        involved = {"apiVersion": api_version, "namespace": metadata.get("namespace", "")}
        uid, rv = fields.pop("uid", metadata["uid"]), metadata["resourceVersion"]
        return record(
            kind, metadata["name"], uid, rv, read_at=monotonic(), time="2099-01-01T00:00:00Z", **fields, **involved
        )


def owned_by(kind: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a reference to the controller of an object."""
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def about(done: Record) -> dict[str, Any]:
    """Return the fields that enrichment added under `kevents`."""
    return {key: value for key, value in done.body["kevents"].items() if key not in {"v", "id", "time"}}


@pytest.fixture
def space(real_server: RealServer) -> Space:
    """A separate namespace."""
    return Space(real_server)


@pytest.fixture
def make(real_server: RealServer) -> Iterator[Callable[..., Enricher]]:
    """Yield a factory of enrichers for one of the server's users, with a `wait` long enough for a busy machine."""
    made: list[tuple[Any, Enricher]] = []

    def build(user: str = "admin", **options: Any) -> Enricher:
        client = config.new_client_from_config(str(real_server.kubeconfig(user)))
        enricher = Enricher(client, **{"wait": PATIENCE, **options})
        made.append((client, enricher))
        return enricher

    yield build
    for client, enricher in made:
        enricher.close()
        client.rest_client.pool_manager.clear()


def test_labels_and_owners(space: Space, make: Callable[..., Enricher]) -> None:
    """A pod gets its labels, annotations, ReplicaSet and Deployment, each read once for many events."""
    deployment = space.controller("Deployment", "web")
    replicas = space.controller("ReplicaSet", "web-5d", owned_by("Deployment", deployment))
    pod = space.pod(
        labels={"app": "web"}, annotations={"note": "n"}, ownerReferences=[owned_by("ReplicaSet", replicas)]
    )
    enricher = make()
    records = [space.record("Pod", pod) for _ in range(20)]
    enricher.enrich(records)
    involved = records[-1].body["involvedObject"]
    expected = ({"app": "web"}, {"note": "n"}, False, replicas["uid"])
    assert (
        involved["labels"],
        involved["annotations"],
        involved["deleted"],
        involved["ownerReferences"][0]["uid"],
    ) == expected
    top = {
        "kind": "Deployment",
        "name": "web",
        "uid": deployment["uid"],
        "path": ["ReplicaSet/web-5d", "Deployment/web"],
    }
    assert about(records[-1]) == {"object": {"state": "live", "stale": False}, "topOwner": top}
    figures = enricher.statistics()
    assert (
        figures.kube_api_read_cache_hits,
        figures.kube_api_read_cache_misses,
        figures.owner_reads,
        figures.requests["get"],
    ) == (19, 1, 2, 3)


def test_changed(space: Space, make: Callable[..., Enricher]) -> None:
    """An event with a newer resourceVersion causes a read. An older one does not."""
    old = space.pod(labels={"app": "old"})
    enricher = make()
    enricher.enrich([space.record("Pod", old)])
    patch = {"metadata": {"labels": {"app": "new"}}}
    new = space.ok("PATCH", space.path("pods", "web-0"), patch, content_type="application/merge-patch+json")["metadata"]
    records = [space.record("Pod", new), space.record("Pod", old)]
    enricher.enrich(records)
    assert [each.body["involvedObject"]["labels"] for each in records] == [{"app": "new"}] * 2
    assert enricher.statistics().kube_api_read_cache_misses == 2


def test_deleted_and_recreated(space: Space, make: Callable[..., Enricher]) -> None:
    """A deleted object keeps its last labels as stale. An object that replaced another does not give it its labels."""
    first = space.pod("a", labels={"generation": "1"})
    unseen = space.pod("b", labels={"generation": "1"})
    enricher = make()
    enricher.enrich([space.record("Pod", first)])
    for name in ("a", "b"):
        space.gone("pods", name)
    later = {**first, "resourceVersion": str(int(unseen["resourceVersion"]) + 1000)}
    [gone, unknown] = records = [space.record("Pod", later), space.record("Pod", unseen)]
    enricher.enrich(records)
    assert gone.body["kevents"]["object"] == {"state": "gone", "stale": True}
    assert (
        gone.body["involvedObject"]["labels"],
        gone.body["involvedObject"]["deleted"],
    ) == ({"generation": "1"}, True)
    assert unknown.body["kevents"]["object"] == {"state": "gone", "stale": False}
    second = space.pod("b", labels={"generation": "2"})
    ghost = {**unseen, "uid": "00000000-0000-4000-8000-000000000001"}
    [replaced, live] = records = [space.record("Pod", ghost), space.record("Pod", second)]
    enricher.enrich(records)
    assert replaced.body["kevents"]["object"] == {"state": "replaced", "stale": False}
    assert (replaced.body["involvedObject"]["deleted"], replaced.body["involvedObject"].get("labels")) == (True, None)
    assert live.body["involvedObject"]["labels"] == {"generation": "2"}


def test_terminating(space: Space, make: Callable[..., Enricher]) -> None:
    """An object that is being deleted is `terminating` and `deleted`, as in event-exporter."""
    pod = space.pod(finalizers=["example.com/wait"])
    space.ok("DELETE", space.path("pods", "web-0"))
    done = space.record("Pod", pod)
    done.body["involvedObject"]["resourceVersion"] = ""
    make().enrich([done])
    assert (done.body["kevents"]["object"]["state"], done.body["involvedObject"]["deleted"]) == ("terminating", True)
    patch = {"metadata": {"finalizers": None}}
    space.ok("PATCH", space.path("pods", "web-0"), patch, content_type="application/merge-patch+json")


def test_secret(space: Space, make: Callable[..., Enricher]) -> None:
    """Pitfall 76: only the metadata of a Secret is read, without kubectl's last-applied annotation."""
    annotations = {LAST_APPLIED: "hunter2", "note": "n"}
    made = space.ok(
        "POST", space.path("secrets"), {"metadata": {"name": "s", "annotations": annotations}, "stringData": {"p": "x"}}
    )
    done = space.record("Secret", made["metadata"])
    make().enrich([done])
    assert done.body["involvedObject"]["annotations"] == {"note": "n"}
    assert "hunter2" not in done.line().decode()


def test_forbidden(space: Space, make: Callable[..., Enricher], caplog: pytest.LogCaptureFixture) -> None:
    """A forbidden kind is requested once in five minutes and logged. Other kinds are not affected."""
    now = 0.0
    binding = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{space.name}-pods"}
    user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "stranger"}
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
    space.ok("POST", f"{RBAC}/clusterroles", {"metadata": {"name": binding["name"]}, "rules": [rule]})
    space.ok(
        "POST",
        f"{RBAC}/namespaces/{space.name}/rolebindings",
        {"metadata": {"name": "pods"}, "roleRef": binding, "subjects": [user]},
    )
    pod = space.pod(labels={"app": "web"})
    maps = [
        space.ok("POST", space.path("configmaps"), {"metadata": {"name": f"c{number}"}})["metadata"]
        for number in range(3)
    ]
    enricher = make("stranger", clock=lambda: monotonic() + now)
    space.server._wait_status(200, "GET", space.path("pods", "web-0"), None, space.server.tokens["stranger"])
    records = [*(space.record("ConfigMap", each) for each in maps), space.record("Pod", pod)]
    enricher.enrich(records)
    assert [each.body["kevents"]["object"]["state"] for each in records] == ["forbidden"] * 3 + ["live"]
    assert enricher.statistics().requests["get"] == 2
    assert 'allow apiGroups: [""], resources: ["configmaps"], verbs: ["get"]' in caplog.text
    for passed, requests in ((299.0, 2), (301.0, 3)):
        now = passed
        again = space.record("ConfigMap", maps[0])
        again.read_at += passed
        enricher.enrich([again])
        assert enricher.statistics().requests["get"] == requests


def test_kind_of_later(space: Space, make: Callable[..., Enricher]) -> None:
    """A custom resource that is created later is found a minute after the last attempt."""
    now = 0.0
    enricher = make(clock=lambda: monotonic() + now)
    group = f"{space.name}.example.com"
    kinds = [f"{group}/v1", "Widget"]
    [before] = [record("Widget", "w", "u", apiVersion=kinds[0], namespace=space.name, read_at=monotonic())]
    enricher.enrich([before, before])
    assert before.body["kevents"]["object"]["state"] == "skipped"
    assert enricher.statistics().requests == {"discover": 1}
    space.server.register(kinds[0], "Widget", "widgets")
    listed_when(space, group)
    body = {"apiVersion": kinds[0], "kind": "Widget", "metadata": {"name": "w", "labels": {"a": "b"}}}
    made = space.ok("POST", space.path("widgets", base=f"/apis/{kinds[0]}"), body)["metadata"]
    for passed, state in ((20.0, "skipped"), (61.0, "live")):
        now = passed
        later = space.record("Widget", made, kinds[0])
        later.read_at += passed
        enricher.enrich([later])
        assert later.body["kevents"]["object"]["state"] == state


def test_node(space: Space, make: Callable[..., Enricher]) -> None:
    """An event from a node gets the node's addresses, and so does an event about the node whose UID is its name."""
    name = f"n-{space.name}"
    space.ok("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": {"zone": "a"}}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.9"}, {"type": "ExternalIP", "address": "1.2.3.4"}]
    }
    space.ok("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, content_type="application/merge-patch+json")
    pod = space.record("Pod", space.pod(), host=name)
    node = record("Node", name, name, time="2099-01-01T00:00:00Z", read_at=monotonic())
    enricher = make()
    enricher.enrich([pod, node])
    assert [each.body["kevents"]["node"] for each in (pod, node)] == [{"addresses": ["10.0.0.9", "1.2.3.4"]}] * 2
    assert node.body["involvedObject"]["labels"] == {"zone": "a"}


def test_services(space: Space, make: Callable[..., Enricher]) -> None:
    """A pod has the services whose EndpointSlices contain it, and for a while those it left."""
    pod = space.pod()
    slices = space.path("endpointslices", base="/apis/discovery.k8s.io/v1")

    def slice_of(service: str) -> dict[str, Any]:
        target = {"kind": "Pod", "name": pod["name"], "namespace": space.name, "uid": pod["uid"]}
        labels = {"kubernetes.io/service-name": service}
        endpoint = {"addresses": ["10.1.0.1"], "targetRef": target}
        metadata = {"name": f"{service}-x", "labels": labels}
        return {"metadata": metadata, "addressType": "IPv4", "endpoints": [endpoint], "ports": []}

    space.ok("POST", slices, slice_of("web"))
    with make(services=True) as enricher:
        assert names_when(enricher, space, pod, ["web"]) == ["web"]
        space.ok("POST", slices, slice_of("api"))
        assert names_when(enricher, space, pod, ["api", "web"]) == ["api", "web"]
        space.ok("DELETE", f"{slices}/web-x")
        space.ok("POST", slices, slice_of("last"))  # seeing this slice means that the deletion was seen, too
        assert names_when(enricher, space, pod, ["api", "last", "web"]) == ["api", "last", "web"]
        assert {"list", "watch"} <= set(enricher.statistics().requests)


def test_burst(space: Space, real_server: RealServer) -> None:
    """Fault 23: 500 events in about a second, about new pods with owners, are all enriched by under 60 requests."""
    number = 500
    records: dict[str, dict[str, Any]] = {}

    def owned(n: int) -> None:
        deployment = space.controller("Deployment", f"d{n}")
        replicas = space.controller("ReplicaSet", f"r{n}", owned_by("Deployment", deployment))
        records[f"e{n}"] = space.pod(f"p{n}", labels={"n": str(n)}, ownerReferences=[owned_by("ReplicaSet", replicas)])

    def happen(n: int) -> None:
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": space.name, "name": f"p{n}"}
        pod = records[f"e{n}"]
        involved |= {"uid": pod["uid"], "resourceVersion": pod["resourceVersion"]}
        body = {"metadata": {"name": f"e{n}"}, "involvedObject": involved, "reason": "Scheduled", "type": "Normal"}
        core.create_namespaced_event(space.name, body, _preload_content=False).read()

    from kubernetes.client import CoreV1Api  # takes a second

    client = config.new_client_from_config(str(real_server.kubeconfig("admin")))
    core, enricher, sink = CoreV1Api(client), Enricher(client), MemorySink()
    exporter = Exporter(
        ClusterEventSource(client, namespaces=[space.name], start="now"),
        routes=[Route(to="memory", all=True)],
        sinks={"memory": sink},
        enrich=enricher,
    )
    with ThreadPoolExecutor(9) as pool:
        list(pool.map(owned, range(number)))
        running = pool.submit(exporter.run)
        assert poll(lambda: exporter.statistics().streams and exporter.statistics().streams[0].position, PATIENCE)
        began = monotonic()
        list(pool.map(happen, range(number)))
        took = monotonic() - began
        assert poll(lambda: exporter.statistics().destinations[0].written >= number, PATIENCE)
        exporter.stop()
        running.result(PATIENCE)
    figures = enricher.statistics()
    written = [each.body for batch in sink.batches for each in batch.records]
    print(f"{number} events in {took:.1f} s: {figures.requests}")  # noqa: T201 - the figure in the docs
    assert {body["involvedObject"]["labels"]["n"] for body in written} == {str(n) for n in range(number)}
    assert {body["kevents"]["topOwner"]["kind"] for body in written} == {"Deployment"}
    assert (figures.states["live"], figures.incomplete) == (number, 0)
    assert sum(figures.requests.values()) < 60
    client.rest_client.pool_manager.clear()


def listed_when(space: Space, group: str) -> None:
    """Wait until the server lists an API group, which happens after it serves the group's objects."""
    deadline = monotonic() + 30
    while group not in {each["name"] for each in space.ok("GET", "/apis")["groups"]}:
        assert monotonic() < deadline


def names_when(enricher: Enricher, space: Space, pod: dict[str, Any], expected: list[str]) -> object:
    """Wait up to ten seconds until a pod has the expected services, and return its services."""
    deadline = monotonic() + 10
    while True:
        done = space.record("Pod", pod)
        enricher.enrich([done])
        found = done.body["kevents"].get("services")
        if found == expected or monotonic() > deadline:
            return found
