"""The real kubectl on the embedded API server."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.real_server import required_assets, run_kubectl

if TYPE_CHECKING:
    from pathlib import Path

    from kevents.testing._apiserver.server import APIServer

pytestmark = pytest.mark.e2e


class Kubectl:
    """Runs kubectl against an embedded server that has a pod, a widget and an event about each."""

    def __init__(self, server: APIServer) -> None:
        self.server = server
        self.programs = required_assets()
        server.register("example.com/v1", "Widget", "widgets")
        spec = {"containers": [{"name": "main", "image": "i"}]}
        self.record("Pod", "v1", server.create("v1", "pods", {"metadata": {"name": "web"}, "spec": spec}))
        widget = server.create("example.com/v1", "widgets", {"metadata": {"name": "gear"}, "spec": {"size": 3}})
        self.record("Widget", "example.com/v1", widget)

    def record(self, kind: str, api_version: str, about: dict[str, Any]) -> None:
        """Store an event about an object."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        name, uid = about["metadata"]["name"], about["metadata"]["uid"]
        reference = {"kind": kind, "apiVersion": api_version, "namespace": "default", "name": name, "uid": uid}
        body: dict[str, Any] = {
            "metadata": {"name": f"{name}.1"},
            "involvedObject": reference,
            "reason": "Started",
            "type": "Normal",
        }
        body |= {"message": "hello", "count": 3, "firstTimestamp": now, "lastTimestamp": now}
        self.server.create("v1", "events", {**body, "source": {"component": "tester"}})

    def __call__(self, *arguments: str) -> str:
        """Run kubectl."""
        return run_kubectl(self.programs, self.server.kubeconfig(), *arguments)


@pytest.fixture
def kubectl(api_server: APIServer) -> Kubectl:
    """A kubectl for an embedded server."""
    return Kubectl(api_server)


@pytest.mark.parametrize("resource", ["events", "ev", "events.events.k8s.io"])
def test_get_events(kubectl: Kubectl, resource: str) -> None:
    """`kubectl get events` prints the server's own table, in both API versions."""
    head, *rows = kubectl("get", resource).splitlines()
    assert head.split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert [row.split()[1:] for row in rows] == [
        ["Normal", "Started", "widget/gear", "hello"],
        ["Normal", "Started", "pod/web", "hello"],
    ]


def test_get_events_wide(kubectl: Kubectl) -> None:
    """Wide output has the source, the count and the name."""
    last = kubectl("get", "events", "-o", "wide", "--field-selector=involvedObject.kind=Pod").splitlines()[1]
    assert last.split()[-2:] == ["3", "web.1"]
    assert "tester" in last


def test_events(kubectl: Kubectl) -> None:
    """`kubectl events` prints the count."""
    row = kubectl("events", "--for=pod/web").splitlines()[1]
    assert "(x3 over" in row
    assert row.split()[-4:] == ["Normal", "Started", "Pod/web", "hello"]


@pytest.mark.parametrize(("kind", "name"), [("pod", "web"), ("widget", "gear")])
def test_describe(kubectl: Kubectl, kind: str, name: str) -> None:
    """`kubectl describe` shows the events of a pod and of a custom object."""
    text = kubectl("describe", kind, name)
    assert text.splitlines()[-1].split()[-2:] == ["tester", "hello"]
    assert "(x3 over" in text


def test_json(kubectl: Kubectl) -> None:
    """`-o json` prints the events."""
    listed = json.loads(kubectl("get", "events", "-o", "json", "--field-selector=involvedObject.name=web"))
    assert [(item["kind"], item["count"]) for item in listed["items"]] == [("Event", 3)]


def test_watch(kubectl: Kubectl) -> None:
    """`kubectl get events -w` prints a line for a new event."""
    server = kubectl.server
    command = [str(kubectl.programs / "kubectl"), f"--kubeconfig={server.kubeconfig()}", "get", "events", "-w"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"HOME": "/nonexistent"}) as process:
        assert process.stdout is not None
        try:
            first = [process.stdout.readline() for _ in range(3)]
            kubectl.record("Pod", "v1", {"metadata": {"name": "late", "uid": "u"}})
            line = process.stdout.readline()
        finally:
            process.kill()
    assert (len(first), line.split()[1:]) == (3, ["Normal", "Started", "pod/late", "hello"])


def test_forbidden(kubectl: Kubectl) -> None:
    """A user without permission gets the server's message."""
    kubectl.server.add_user("weak", "weak-user", {"create"})
    path = kubectl.server.kubeconfig(token="weak")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run_kubectl(kubectl.programs, path, "get", "events")
    expected = 'events is forbidden: User "weak-user" cannot list resource "events" in API group "" in the namespace'
    assert expected in caught.value.stderr


def test_sorted(kubectl: Kubectl) -> None:
    """`kubectl get --sort-by` sorts by any field, for which it requests whole objects."""
    rows = kubectl("get", "events", "--no-headers", "--sort-by=.involvedObject.name", "-o", "wide").splitlines()
    assert [row.split()[-1] for row in rows] == ["gear.1", "web.1"]


def test_delete_that_is_only_tried(kubectl: Kubectl) -> None:
    """`kubectl delete --dry-run=server` deletes nothing."""
    assert "dry run" in kubectl("delete", "events", "--all", "--dry-run=server")
    assert [event["metadata"]["name"] for event in kubectl.server.events()] == ["gear.1", "web.1"]


def test_delete(kubectl: Kubectl) -> None:
    """`kubectl delete` deletes an event and returns without waiting."""
    assert kubectl("delete", "event", "web.1").startswith('event "web.1" deleted')
    assert [event["metadata"]["name"] for event in kubectl.server.events()] == ["gear.1"]


def test_api_resources(kubectl: Kubectl) -> None:
    """`kubectl api-resources` lists the registered kind."""
    rows = [line.split() for line in kubectl("api-resources", "--no-headers").splitlines()]
    assert ["widgets", "example.com/v1", "true", "Widget"] in rows


@pytest.mark.parametrize("mode", ["--server-side=false", "--server-side"])
def test_apply(kubectl: Kubectl, tmp_path: Path, mode: str) -> None:
    """`kubectl apply --validate=false` creates and changes an object, client-side and server-side."""
    manifest = tmp_path / "manifest.json"
    for value in ("1", "2"):
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": value}}
        manifest.write_text(json.dumps(body), encoding="utf-8")
        kubectl("apply", "--validate=false", mode, "-f", str(manifest))
    [found] = kubectl.server.objects("v1", "configmaps")
    assert found["data"] == {"a": "2"}


def test_nodes(kubectl: Kubectl) -> None:
    """`kubectl get nodes -o wide` prints the addresses of a node."""
    status = {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}
    kubectl.server.create("v1", "nodes", {"metadata": {"name": "n"}, "status": status})
    [row] = kubectl("get", "nodes", "-o", "wide", "--no-headers").splitlines()
    assert row.split()[:2] + row.split()[-5:-3] == ["n", "Unknown", "10.0.0.1", "<none>"]
