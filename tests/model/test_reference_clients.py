"""References from the objects of real client libraries, if they are installed."""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import json
import uuid
import weakref
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from kevents import EventBroadcaster
from kevents._model import reference as _reference
from kevents._model.objects import ObjectReference
from kevents._model.reference import get_partial_reference, get_reference, register
from kevents.exceptions import InvalidReferenceError

Client = Any  # a module of a client library; no type fits all of them
Model = Any

METADATA = {"name": "web-0", "namespace": "prod", "uid": "u-1", "resourceVersion": "42"}
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": METADATA}
WEB_0 = ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u-1", resource_version="42")
WIDGET = ObjectReference(
    kind="Widget", api_version="example.com/v1", namespace="prod", name="web-0", uid="u-1", resource_version="42"
)


def fresh(body: dict[str, Any]) -> dict[str, Any]:
    """A copy that a client may modify."""
    return copy.deepcopy(body)


def library(name: str) -> Client:
    """The client library, or skip the test."""
    return pytest.importorskip(name, reason=f"{name} is not installed")


def deserialize(client: Client, body: dict[str, Any], response_type: str) -> Model:
    """The model that a client's own deserializer makes of a response, for all client versions."""

    async def within_a_loop() -> Model:
        api = client.ApiClient()  # asynchronous clients open their session here
        try:
            if len(inspect.signature(api.deserialize).parameters) > 2:
                return api.deserialize(json.dumps(body), response_type, "application/json")
            return api.deserialize(SimpleNamespace(data=json.dumps(body)), response_type)
        finally:
            closing = api.close()
            if inspect.isawaitable(closing):
                await closing

    return asyncio.run(within_a_loop())


@pytest.fixture(params=["kubernetes.client", "kubernetes.aio.client", "kubernetes_asyncio.client"])
def client(request: pytest.FixtureRequest) -> Client:
    """Each variant of the official client."""
    return library(request.param)


def model(client: Client, name: str = "V1Pod", **fields: object) -> Model:
    """A pod model as user code builds it."""
    metadata = client.V1ObjectMeta(name="web-0", namespace="prod", uid="u-1", resource_version="42")
    return getattr(client, name)(metadata=metadata, **fields)


# The official client.


def test_model(client: Client) -> None:
    """A model of a response has a reference."""
    assert get_reference(deserialize(client, POD, "V1Pod")) == WEB_0


def test_list_and_items(client: Client) -> None:
    """Pitfall 15: an item of a list gets the kind of its class. The list itself has a reference without a name."""
    body = {
        "apiVersion": "v1",
        "kind": "PodList",
        "metadata": {"resourceVersion": "5"},
        "items": [{"metadata": METADATA}],
    }
    pods = deserialize(client, body, "V1PodList")
    assert (pods.items[0].kind, pods.items[0].api_version) == (None, None)
    assert get_reference(pods.items[0]) == WEB_0
    assert get_reference(pods) == ObjectReference(kind="PodList", api_version="v1", resource_version="5")


def test_list_built_by_hand(client: Client) -> None:
    """A list model without kind gets it from its class, with and without metadata."""
    pods = client.V1PodList(items=[], metadata=client.V1ListMeta(resource_version="5"))
    assert get_reference(pods) == ObjectReference(kind="PodList", api_version="v1", resource_version="5")
    assert get_reference(client.V1NodeList(items=[])) == ObjectReference(kind="NodeList", api_version="v1")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("V1Pod", ("v1", "Pod")),
        ("V1PodDisruptionBudget", ("policy/v1", "PodDisruptionBudget")),
        ("V1Job", ("batch/v1", "Job")),
        ("V1Ingress", ("networking.k8s.io/v1", "Ingress")),
        ("V1Lease", ("coordination.k8s.io/v1", "Lease")),
    ],
)
def test_model_without_kind(client: Client, name: str, expected: tuple[str, str]) -> None:
    """A model without kind gets it from its class, in every group."""
    reference = get_reference(model(client, name))
    assert (reference.api_version, reference.kind) == expected
    assert reference.uid == "u-1"


def test_model_with_half_a_kind(client: Client) -> None:
    """A model with a kind but no version gets its version from its class."""
    assert get_reference(model(client, kind="Pod")) == WEB_0


def test_subclass_of_a_model(client: Client) -> None:
    """A user's subclass counts as its official base class."""

    class MyPod(client.V1Pod):  # type: ignore[misc]
        pass

    metadata = client.V1ObjectMeta(name="web-0", namespace="prod", uid="u-1", resource_version="42")
    assert get_reference(MyPod(metadata=metadata)) == WEB_0


def test_model_of_a_cluster_scoped_object(client: Client) -> None:
    """Pitfall 32: a node has no namespace, and gets none."""
    node = client.V1Node(metadata=client.V1ObjectMeta(name="node-1"))
    assert get_reference(node) == ObjectReference(kind="Node", api_version="v1", name="node-1")


def test_to_dict(client: Client) -> None:
    """Pitfall 16: the snake_case dictionary of a model with a kind gives the same reference."""
    pod = model(client, api_version="v1", kind="Pod")
    assert get_reference(pod.to_dict()) == WEB_0
    with pytest.raises(InvalidReferenceError, match="items of a list have none"):
        get_reference(model(client).to_dict())


def test_serialized_model(client: Client) -> None:
    """The camelCase dictionary of a model gives the same reference."""

    async def serialized() -> Model:
        api = client.ApiClient()
        body = api.sanitize_for_serialization(model(client, api_version="v1", kind="Pod"))
        closing = api.close()
        if inspect.isawaitable(closing):
            await closing
        return body

    assert get_reference(asyncio.run(serialized())) == WEB_0


def test_manifest_with_metadata_model(client: Client) -> None:
    """A dictionary with a V1ObjectMeta inside, a valid body for the official client, is accepted."""
    metadata = client.V1ObjectMeta(name="web-0", namespace="prod", uid="u-1", resource_version="42")
    assert get_reference({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}) == WEB_0


def test_object_reference_model(client: Client) -> None:
    """A V1ObjectReference is accepted with every field."""
    fields = {"api_version": "v1", "kind": "Pod", "name": "web-0", "namespace": "prod", "uid": "u-1"}
    reference = client.V1ObjectReference(**fields, resource_version="42", field_path="spec.x")
    expected = get_partial_reference(WEB_0, "spec.x")
    assert get_reference(reference) == expected
    assert get_reference(reference.to_dict()) == expected


def test_model_without_name(client: Client) -> None:
    """Pitfall 17: a model without a name, or without metadata, is refused."""
    for pod in (client.V1Pod(), client.V1Pod(metadata=client.V1ObjectMeta(generate_name="web-"))):
        with pytest.raises(InvalidReferenceError, match=r"V1Pod: it has no metadata\.name"):
            get_reference(pod)


def test_model_of_an_event(client: Client) -> None:
    """Pitfall 19: an Event of either group is refused, also as an item of a list."""
    core = {"metadata": METADATA, "involvedObject": {}}
    new = {"metadata": METADATA, "eventTime": "2026-07-24T09:00:00.000001Z"}
    events = [
        deserialize(client, {"items": [core]}, "CoreV1EventList").items[0],
        deserialize(client, {"items": [new]}, "EventsV1EventList").items[0],
    ]
    for event in events:
        with pytest.raises(InvalidReferenceError, match="events about events are refused"):
            get_reference(event)


def test_model_of_no_object(client: Client) -> None:
    """A model that is not an API object is refused."""
    with pytest.raises(InvalidReferenceError, match="V1ObjectMeta: it has no kind, no apiVersion"):
        get_reference(client.V1ObjectMeta(name="web-0"))


# The official client's dynamic client.


def dynamic_instance(body: dict[str, Any]) -> Model:
    """A response of the dynamic client."""
    resource = library("kubernetes.dynamic.resource")
    return resource.ResourceInstance(None, fresh(body))


def test_dynamic_instance() -> None:
    """An object of the dynamic client has a reference, although missing attributes are None."""
    assert get_reference(dynamic_instance(POD)) == WEB_0


def test_dynamic_list() -> None:
    """A list of the dynamic client has a reference without a name. Its items have their own."""
    body = {
        "apiVersion": "v1",
        "kind": "PodList",
        "metadata": {"resourceVersion": "5"},
        "items": [{"metadata": METADATA}],
    }
    pods = dynamic_instance(body)
    assert get_reference(pods) == ObjectReference(kind="PodList", api_version="v1", resource_version="5")
    assert get_reference(pods.items[0]) == WEB_0
    assert get_reference(pods.to_dict()["items"][0]) == WEB_0


def test_dynamic_part() -> None:
    """A reference inside an object of the dynamic client is accepted. Any other part is refused."""
    part = {"apiVersion": "v1", "kind": "Pod", "name": "web-0", "namespace": "prod", "uid": "u-1"}
    endpoint = dynamic_instance({**POD, "kind": "Endpoint", "targetRef": part, "spec": {"replicas": 1}})
    assert get_reference(endpoint.targetRef).identity == WEB_0.identity
    with pytest.raises(InvalidReferenceError, match="it has no kind, no apiVersion"):
        get_reference(endpoint.spec)


# Other libraries.


def test_kopf_body() -> None:
    """A kopf body, a mapping but no dictionary, is read during the call."""
    kopf = library("kopf")
    body = fresh(POD)
    reference = get_reference(kopf.Body(body))
    body["metadata"]["name"] = "other"
    assert reference == WEB_0


def test_kopf_reference() -> None:
    """The reference that kopf stores on its log records (``k8s_ref``) is accepted."""
    bodies = library("kopf._cogs.structs.bodies")
    reference = bodies.build_object_reference(bodies.Body(fresh(POD)))
    assert get_reference(reference).identity == WEB_0.identity


@pytest.mark.parametrize("body", [POD, {"metadata": METADATA}])
def test_kr8s(body: dict[str, Any]) -> None:
    """A kr8s object is read from its manifest, without requests or credentials."""
    objects = library("kr8s.asyncio.objects")
    assert get_reference(objects.Pod(fresh(body))) == WEB_0


def test_kr8s_class_of_ones_own() -> None:
    """An object of a kr8s class for a custom resource is accepted."""
    objects = library("kr8s.asyncio.objects")
    widget = objects.new_class("Widget", "example.com/v1", asyncio=True)
    assert get_reference(widget({"metadata": dict(METADATA)})) == WIDGET


def test_lightkube_model() -> None:
    """A lightkube object is accepted, read from the server or built without a kind."""
    pod = library("lightkube.resources.core_v1").Pod
    metadata = library("lightkube.models.meta_v1").ObjectMeta(**METADATA)
    assert get_reference(pod.from_dict(fresh(POD), lazy=False)) == WEB_0
    assert get_reference(pod(metadata=metadata)) == WEB_0


def test_lightkube_generic_resource() -> None:
    """A generic lightkube resource, a dictionary whose metadata may be a model, gets its kind from its class."""
    widget = library("lightkube.generic_resource").create_namespaced_resource("example.com", "v1", "Widget", "widgets")
    metadata = library("lightkube.models.meta_v1").ObjectMeta(**METADATA)
    assert get_reference(widget({"metadata": dict(METADATA)})) == WIDGET
    assert get_reference(widget(metadata=metadata)) == WIDGET


def test_lightkube_event() -> None:
    """Pitfall 19: lightkube's Event is refused."""
    event = library("lightkube.resources.core_v1").Event
    with pytest.raises(InvalidReferenceError, match="events about events are refused"):
        get_reference(event.from_dict({"metadata": dict(METADATA), "involvedObject": {}}, lazy=False))


def pykube_pod(body: dict[str, Any]) -> Any:
    """A pod of pykube-ng, as read or listed."""
    return library("pykube").Pod(None, fresh(body))


@pytest.mark.parametrize("body", [POD, {"metadata": METADATA}])
def test_pykube(body: dict[str, Any]) -> None:
    """Fault 17: an object of pykube-ng, also an item of a list, is read from its manifest and its class."""
    assert get_reference(pykube_pod(body)) == WEB_0


def test_pykube_class_of_ones_own() -> None:
    """Fault 17: objects of user-defined pykube-ng classes, and of those made by ``object_factory``, are accepted."""
    objects = library("pykube").objects

    class Widget(objects.NamespacedAPIObject):  # type: ignore[misc]
        version, endpoint, kind = "example.com/v1", "widgets", "Widget"

    resources = {"resources": [{"kind": "Widget", "name": "widgets", "namespaced": True}]}
    made = objects.object_factory(SimpleNamespace(resource_list=lambda _: resources), "example.com/v1", "Widget")
    for cls in (Widget, made):
        assert get_reference(cls(None, {"metadata": dict(METADATA)})) == WIDGET


def test_pykube_cluster_scoped() -> None:
    """Pitfall 32: a node of pykube-ng has no namespace, and gets none."""
    node = library("pykube").Node(None, {"metadata": {"name": "node-1"}})
    assert get_reference(node) == ObjectReference(kind="Node", api_version="v1", name="node-1")


def test_pykube_event() -> None:
    """Pitfall 19: pykube-ng's Event is refused."""
    with pytest.raises(InvalidReferenceError, match="events about events are refused"):
        get_reference(library("pykube").Event(None, {"metadata": dict(METADATA)}))


def test_pykube_in_kopf() -> None:
    """Fault 17: ``event()`` of the kopf recorder accepts one object of pykube-ng, and several."""
    library("kopf")
    kevents_kopf = importlib.import_module("kevents.kopf")
    seen: list[str] = []
    with EventBroadcaster() as broadcaster:
        recorder = kevents_kopf.KopfRecorder("c", broadcaster)
        broadcaster.start_event_watcher(lambda event: seen.append(event.reference.name))
        recorder.event(pykube_pod(POD), "Normal", "R", "m")
        recorder.event([pykube_pod(POD), POD], "Normal", "R", "m")
        assert broadcaster.statistics().refused == {}
    assert seen == ["web-0"] * 3


def test_hikaru() -> None:
    """Fault 17: a dataclass of hikaru is accepted."""
    models = library("hikaru.model.rel_1_28.v1")
    assert get_reference(models.Pod(metadata=models.ObjectMeta(**METADATA))) == WEB_0


def test_cloudcoil() -> None:
    """Fault 17: a pydantic model of cloudcoil is accepted."""
    models = library("cloudcoil.models.kubernetes.core.v1")
    metadata = {"name": "web-0", "namespace": "prod", "uid": "u-1", "resourceVersion": "42"}
    assert get_reference(models.Pod.model_validate({"metadata": metadata})) == WEB_0


def test_pydantic() -> None:
    """A user's pydantic model, with the API's names as aliases, is accepted."""
    pydantic = library("pydantic")
    meta = pydantic.create_model("Meta", name=(str, ...), namespace=(str, ...), uid=(str, ...),
                                 resourceVersion=(str, ...))  # fmt: skip
    widget = pydantic.create_model(
        "Widget",
        api_version=(str, pydantic.Field("example.com/v1", alias="apiVersion")),
        kind=(str, "Widget"),
        metadata=(meta, ...),
    )
    assert get_reference(widget(metadata=METADATA)) == WIDGET


def test_dataclass() -> None:
    """A user's dataclass is accepted, in either spelling."""

    @dataclass
    class Metadata:
        name: str = "web-0"
        namespace: str = "prod"
        uid: uuid.UUID | str = "u-1"
        resource_version: str = "42"

    @dataclass
    class Widget:
        metadata: Metadata = field(default_factory=Metadata)
        apiVersion: str = "example.com/v1"  # noqa: N815 - the API's name
        kind: str = "Widget"

    assert get_reference(Widget()) == WIDGET
    assert get_reference(asdict(Widget())) == WIDGET


@pytest.mark.parametrize("name", ["kubernetes.client", "kubernetes.aio.client", "kubernetes_asyncio.client"])
def test_owner_reference_model(name: str) -> None:
    """Fault 20: an owner reference is refused with the fix, and one to a node is accepted."""
    client = library(name)
    owner = client.V1OwnerReference(api_version="apps/v1", kind="ReplicaSet", name="web-5d", uid="u-1")
    for obj in (owner, owner.to_dict()):
        with pytest.raises(InvalidReferenceError, match="give the owner itself"):
            get_reference(obj)
    node = client.V1OwnerReference(api_version="v1", kind="Node", name="node-1", uid="u-1")
    assert get_reference(node) == ObjectReference(kind="Node", api_version="v1", name="node-1", uid="u-1")


def test_kopf_owner_reference() -> None:
    """Fault 20: the owner reference that kopf builds is refused with the fix."""
    kopf = library("kopf")
    owner = kopf.build_owner_reference(fresh(POD))
    with pytest.raises(InvalidReferenceError, match="give the owner itself"):
        get_reference(owner)


def test_kopf_meta() -> None:
    """Fault 19: kopf's ``Meta`` has no kind. The error does not advise to register it."""
    kopf = library("kopf")
    with pytest.raises(InvalidReferenceError, match="items of a list have none"):
        get_reference(kopf.Body(fresh(POD)).metadata)


def test_object_reference_without_version(client: Client) -> None:
    """Faults 18 and 19: a reference model without apiVersion is accepted. Registering its class changes no kind."""
    claim = client.V1ObjectReference(kind="PersistentVolumeClaim", name="data-0", namespace="prod")
    expected = ObjectReference(kind="PersistentVolumeClaim", api_version="v1", name="data-0", namespace="prod")
    assert get_reference(claim) == expected
    register(client.V1ObjectReference, "v1", "Pod")
    try:
        assert get_reference(claim) == expected
    finally:
        _reference._registered.pop(weakref.ref(client.V1ObjectReference))
