"""The calls of operators that post events by hand today, as kevents takes them with the least change: none is lost.

Each loses events where only a manifest with ``apiVersion``, ``kind`` and a type of Kubernetes is taken. The shapes are
those of mysql-operator, py-kube-downscaler, a volume autoscaler, kopf operators and others.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kubernetes import client, config

import kevents
from kevents import aio
from tests.support.sinks import PATIENCE
from tests.support.subjects import Wire

pytestmark = pytest.mark.wire

Given = dict[str, Any]
NAME = "web-0"


class Port(NamedTuple):
    """An operator's call and what the server must hold then.

    Attributes:
        record: Records one event; called with a recorder and a namespace.
        involved: Kind and apiVersion of the involved object.
        event: More fields of the event.
    """

    record: Callable[[Any, str], None]
    involved: tuple[str, str]
    event: Given


def library(name: str) -> Any:
    """A library of the tests, or a skip."""
    return pytest.importorskip(name, reason="needs the extra test-clients")


def listed(model: str, namespace: str) -> Any:
    """An item of a list as the official client returns it: without kind and apiVersion."""
    metadata = client.V1ObjectMeta(name=NAME, namespace=namespace, uid="u-1", resource_version="7")
    return getattr(client, model)(metadata=metadata)


def manifest(kind: str, api_version: str, namespace: str) -> Given:
    """A manifest, as a webhook or a watch gives it."""
    metadata = {"name": NAME, "namespace": namespace, "uid": "u-1", "resourceVersion": "7"}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def mysql_operator(recorder: Any, namespace: str) -> None:
    """A reference with a field path, the type Error, and an action, in a function that posts a body by hand."""
    reference = {
        "apiVersion": "mysql.oracle.com/v2",
        "kind": "InnoDBCluster",
        "name": NAME,
        "namespace": namespace,
        "uid": "u-1",
        "resourceVersion": "7",
        "fieldPath": "spec.instances",
    }
    recorder.event(reference, "Error", "SplitBrain", "the members do not agree", action="CheckCluster")


def downscaler(recorder: Any, namespace: str) -> None:
    """An object of pykube-ng, as it lists Deployments."""
    item = {"metadata": {"name": NAME, "namespace": namespace, "uid": "u-1"}, "spec": {"replicas": 3}}
    recorder.event(library("pykube").Deployment(None, item), "Normal", "ScaleDown", "from 3 to 0 replicas")


def downscaler_of_a_custom_resource(recorder: Any, namespace: str) -> None:
    """An object of a class for pykube-ng that the operator defines itself."""
    pykube = library("pykube")

    class Stack(pykube.objects.NamespacedAPIObject):  # type: ignore[misc, name-defined]
        version, endpoint, kind = "zalando.org/v1", "stacks", "Stack"

    item = {"metadata": {"name": NAME, "namespace": namespace, "uid": "u-1"}}
    recorder.normal(Stack(None, item), "ScaleDown", "from 3 to 0 replicas")


def volume_autoscaler(recorder: Any, namespace: str) -> None:
    """An item of a list, without kind and apiVersion."""
    recorder.warning(listed("V1PersistentVolumeClaim", namespace), "VolumeResizeFailed", "no room")


def volume_autoscaler_by_name(recorder: Any, namespace: str) -> None:
    """Kind, name and namespace, as they were handed to a function that made a ``V1ObjectReference``."""
    recorder.event({"kind": "PersistentVolumeClaim", "name": NAME, "namespace": namespace}, "warning", "Failed", "no")


def object_reference(recorder: Any, namespace: str) -> None:
    """A ``V1ObjectReference`` without apiVersion."""
    claim = client.V1ObjectReference(kind="PersistentVolumeClaim", name=NAME, namespace=namespace, uid="u-1")
    recorder.event(claim, "Normal", "VolumeResized", "from 1 to 2 GiB")


def camel_or_snake(recorder: Any, namespace: str) -> None:
    """``to_dict()`` of a model that holds its kind."""
    job = listed("V1Job", namespace)
    job.kind, job.api_version = "Job", "batch/v1"
    recorder.event(job.to_dict(), "NORMAL", "Completed", "done")


def webhook(recorder: Any, namespace: str) -> None:
    """The parent in the request of a webhook, and the second object of the event."""
    recorder.event(
        manifest("BlueGreen", "ctl.example.com/v1", namespace),
        "Critical",
        "PromotionFailed",
        "the new side is not ready",
        related=listed("V1Service", namespace),
    )


def charm(recorder: Any, namespace: str) -> None:
    """An object of lightkube."""
    service = library("lightkube.resources.core_v1").Service
    item = {"metadata": {"name": NAME, "namespace": namespace, "uid": "u-1"}}
    recorder.event(service.from_dict(item), "Normal", "Upgraded", "to revision 3")


def dynamic(recorder: Any, namespace: str) -> None:
    """An object of the official client's dynamic client."""
    resource = importlib.import_module("kubernetes.dynamic.resource")
    widget = resource.ResourceInstance(None, manifest("Widget", "example.com/v1", namespace))
    recorder.exception(widget, "SyncFailed", ConnectionError("refused"))


def of_a_kopf_body(recorder: Any, namespace: str) -> None:
    """The body that kopf gives to a handler."""
    body = library("kopf").Body(manifest("Backup", "example.com/v1", namespace))
    recorder.event(body, "Normal", "Created", "the backup is there")


def cluster_scoped(recorder: Any, namespace: str) -> None:
    """A cluster-scoped custom resource: without a namespace. Its events are in ``default``."""
    tenant = manifest("Tenant", "example.com/v1", namespace)
    del tenant["metadata"]["namespace"]
    tenant["metadata"]["uid"] = namespace
    recorder.event(tenant, "Fatal", "QuotaExceeded", "9 of 8 namespaces")


PORTS = {
    "mysql-operator": Port(
        mysql_operator,
        ("InnoDBCluster", "mysql.oracle.com/v2"),
        {"type": "Warning", "reason": "SplitBrain", "action": "CheckCluster"},
    ),
    "py-kube-downscaler": Port(downscaler, ("Deployment", "apps/v1"), {"type": "Normal", "reason": "ScaleDown"}),
    "py-kube-downscaler, own class": Port(
        downscaler_of_a_custom_resource, ("Stack", "zalando.org/v1"), {"type": "Normal", "reason": "ScaleDown"}
    ),
    "volume autoscaler": Port(
        volume_autoscaler, ("PersistentVolumeClaim", "v1"), {"type": "Warning", "reason": "VolumeResizeFailed"}
    ),
    "volume autoscaler, by name": Port(
        volume_autoscaler_by_name, ("PersistentVolumeClaim", "v1"), {"type": "Warning", "reason": "Failed"}
    ),
    "object reference": Port(
        object_reference, ("PersistentVolumeClaim", "v1"), {"type": "Normal", "reason": "VolumeResized"}
    ),
    "model as a dictionary": Port(camel_or_snake, ("Job", "batch/v1"), {"type": "Normal", "reason": "Completed"}),
    "webhook": Port(
        webhook,
        ("BlueGreen", "ctl.example.com/v1"),
        {"type": "Warning", "reason": "PromotionFailed", "message": "the new side is not ready"},
    ),
    "charm": Port(charm, ("Service", "v1"), {"type": "Normal", "reason": "Upgraded"}),
    "dynamic client": Port(
        dynamic, ("Widget", "example.com/v1"), {"type": "Warning", "message": "ConnectionError: refused"}
    ),
    "kopf body": Port(of_a_kopf_body, ("Backup", "example.com/v1"), {"type": "Normal", "reason": "Created"}),
    "cluster-scoped": Port(
        cluster_scoped, ("Tenant", "example.com/v1"), {"type": "Warning", "reason": "QuotaExceeded"}
    ),
}


@pytest.fixture
def api(wire: Wire) -> Any:
    """A client for the server."""
    api = config.new_client_from_config(str(wire.subject.server.kubeconfig()))
    yield api
    api.close()


def stored(wire: Wire, namespace: str) -> list[Given]:
    """The events of a namespace that this test has recorded."""
    items = wire.ok("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
    return [event for event in items if event["source"].get("component") == wire.namespace]


@pytest.mark.parametrize("name", PORTS)
def test_threads(name: str, wire: Wire, api: Any) -> None:
    """Each call reaches the server with all that the operator has given."""
    port = PORTS[name]
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(kevents.CoreV1EventSink(client.CoreV1Api(api)))
        port.record(broadcaster.new_recorder(wire.namespace), wire.namespace)
        assert broadcaster.flush(PATIENCE)
        assert broadcaster.statistics().dropped == {}
    [event] = stored(wire, "default" if port.record is cluster_scoped else wire.namespace)
    involved = event["involvedObject"]
    assert (involved["kind"], involved["apiVersion"], involved["name"]) == (*port.involved, NAME)
    assert {key: event[key] for key in port.event} == port.event
    if port.record is mysql_operator:
        assert (involved["fieldPath"], involved["resourceVersion"]) == ("spec.instances", "7")
    if port.record is webhook:
        assert event["related"]["kind"] == "Service"


@pytest.mark.parametrize("package", ["kubernetes.aio", "kubernetes_asyncio"])
def test_asynchronous_operator(package: str, wire: Wire) -> None:
    """An operator in an event loop records what it lists, and what it has in hand, in the same way."""
    module = pytest.importorskip(package, reason=f"needs {package}")

    async def main() -> None:
        configuration = importlib.import_module(f"{package}.config")
        async with await configuration.new_client_from_config(str(wire.subject.server.kubeconfig())) as api:
            core = module.client.CoreV1Api(api)
            spec = {"containers": [{"name": "app", "image": "app:1"}]}
            await core.create_namespaced_pod(wire.namespace, {"metadata": {"name": NAME}, "spec": spec})
            async with aio.EventBroadcaster() as broadcaster:
                broadcaster.start_recording_to_sink(aio.CoreV1EventSink(core))
                recorder = broadcaster.new_recorder(wire.namespace)
                for item in (await core.list_namespaced_pod(wire.namespace)).items:
                    recorder.warning(item, "BackupFailed", "the bucket is gone")
                mysql_operator(recorder, wire.namespace)
                assert await broadcaster.flush(PATIENCE)

    asyncio.run(main())
    kinds = sorted(event["involvedObject"]["kind"] for event in stored(wire, wire.namespace))
    assert kinds == ["InnoDBCluster", "Pod"]


def test_cron_job(wire: Wire, tmp_path: Path) -> None:
    """A CronJob's container that ends after its last line, and knows of Kubernetes only its environment."""
    program = tmp_path / "nightly.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import kevents

            events = kevents.get_recorder({wire.namespace!r}).for_object(kevents.own_pod())
            with events.step("Backup", "writing to the bucket"):
                pass
            """
        ),
        encoding="utf-8",
    )
    environment = {
        "KUBECONFIG": str(wire.subject.server.kubeconfig()),
        "POD_NAME": NAME,
        "POD_NAMESPACE": wire.namespace,
        "POD_UID": "u-1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    done = subprocess.run(
        [sys.executable, str(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found = stored(wire, wire.namespace)
    assert sorted(event["reason"] for event in found) == ["BackupStarted", "BackupSucceeded"]
    assert {event["involvedObject"]["uid"] for event in found} == {"u-1"}


def test_dictionary_of_a_list(caplog: pytest.LogCaptureFixture) -> None:
    """An item of a list as plain JSON names no kind. It is refused, and the log line says what to add."""
    item = {"metadata": {"name": NAME, "namespace": "prod", "uid": "u-1"}}
    seen: list[kevents.Event] = []
    with caplog.at_level(logging.WARNING, "kevents"), kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_event_watcher(seen.append)
        recorder = broadcaster.new_recorder("autoscaler")
        recorder.event(item, "Normal", "Resized", "from 1 to 2 GiB")
        recorder.event({"kind": "PersistentVolumeClaim", **item}, "Normal", "Resized", "from 1 to 2 GiB")
        assert broadcaster.flush(PATIENCE)
    assert [(event.reference.kind, event.reference.api_version) for event in seen] == [("PersistentVolumeClaim", "v1")]
    assert "items of a list have none" in caplog.text
