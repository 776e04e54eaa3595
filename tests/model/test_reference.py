"""References built from objects of all kinds."""

from __future__ import annotations

import enum
import gc
import importlib
import importlib.util
import re
import threading
import time
import uuid
import weakref
from collections import ChainMap, UserDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock, create_autospec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kevents._model import reference as _reference
from kevents._model.objects import Event, EventSource, ObjectReference
from kevents._model.reference import (
    get_partial_reference,
    get_reference,
    official_kind,
    register,
    shared_reference,
)
from kevents.exceptions import InvalidReferenceError
from tests.support.collector import no_collection

Make = Any  # a callable that converts a body to another type

FIELDS = ("kind", "api_version", "namespace", "name", "uid", "resource_version", "field_path")
WEB_0 = ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u-1", resource_version="42")


LONGEST_COMPLAINT = 1500
SOON = 0.05  # seconds of processor time; microseconds are usual


def manifest() -> dict[str, Any]:
    """A pod as the API server returns it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "prod", "uid": "u-1", "resourceVersion": "42", "labels": {"a": "b"}},
        "spec": {"containers": []},
    }


def snake() -> dict[str, Any]:
    """The same pod in the form of a model's ``to_dict()``."""
    metadata = {"name": "web-0", "namespace": "prod", "uid": "u-1", "resource_version": "42", "generate_name": None}
    return {"api_version": "v1", "kind": "Pod", "metadata": metadata, "spec": {"host_pid": None}}


def complaint(obj: object) -> str:
    """The error text for an object without a reference."""
    with pytest.raises(InvalidReferenceError) as caught:
        get_reference(obj)
    return str(caught.value)


def outcome(obj: object) -> ObjectReference | str:
    """The reference or the error text. Any other result fails, and so does an unusable reference or text."""
    try:
        reference = get_reference(obj)
    except InvalidReferenceError as error:
        text = str(error)
    else:
        assert {type(getattr(reference, field)) for field in FIELDS} == {str}
        return reference
    assert 0 < len(text) <= LONGEST_COMPLAINT
    assert text.isprintable()
    return text


class Attributes:
    """A plain object with attributes from keywords."""

    def __init__(self, **attributes: object) -> None:
        self.__dict__.update(attributes)


class Live(Mapping[str, Any]):
    """A mapping that is no dictionary and shows another object's current state, like a kopf ``Body`` in a daemon."""

    def __init__(self, target: dict[str, Any]) -> None:
        self.target = target

    def __getitem__(self, key: str) -> object:
        """The value. A nested mapping is live as well."""
        value = self.target[key]
        return Live(value) if isinstance(value, dict) else value

    def __iter__(self) -> Iterator[str]:
        """The keys."""
        return iter(self.target)

    def __len__(self) -> int:
        """The number of keys."""
        return len(self.target)


# Accepted objects.


@pytest.mark.parametrize("make", [dict, UserDict, MappingProxyType, Live, lambda body: ChainMap({}, body)])
@pytest.mark.parametrize("body", [manifest, snake])
def test_mapping(make: Make, body: Make) -> None:
    """Pitfall 16: any mapping gives the same reference in camelCase and snake_case."""
    assert get_reference(make(body())) == WEB_0


@pytest.mark.parametrize("metadata", [dict, MappingProxyType, lambda fields: Attributes(**fields)])
@pytest.mark.parametrize("spelling", ["apiVersion", "api_version"])
def test_attributes(metadata: Make, spelling: str) -> None:
    """An object with api_version or apiVersion, kind and metadata is accepted in both spellings."""
    body = snake() if spelling == "api_version" else manifest()
    obj = Attributes(**{spelling: "v1"}, kind="Pod", metadata=metadata(body["metadata"]))
    assert get_reference(obj) == WEB_0


def test_manifest_with_a_model_inside() -> None:
    """The metadata of a dictionary may be an object, as in the official client."""
    metadata = Attributes(name="web-0", namespace="prod", uid="u-1", resource_version="42")
    assert get_reference({"apiVersion": "v1", "kind": "Pod", "metadata": metadata}) == WEB_0


def test_spellings_mixed() -> None:
    """Spellings may be mixed: camelCase outside, snake_case inside."""
    assert get_reference({**snake(), "apiVersion": "v1"}) == WEB_0


def test_raw() -> None:
    """An object with a manifest in ``raw`` (kr8s) is read from there only."""

    class Lazy:
        raw = manifest()

        @property
        def metadata(self) -> object:
            raise RuntimeError("asks the server")

    assert get_reference(Lazy()) == WEB_0


def test_raw_of_another_meaning() -> None:
    """A ``raw`` attribute without a manifest is ignored."""
    assert get_reference(Attributes(raw={"header": "x"}, **manifest())) == WEB_0
    assert get_reference(Attributes(raw=b"bytes", **manifest())) == WEB_0


@pytest.mark.parametrize("make", [dict, Live, lambda fields: Attributes(**fields)])
@pytest.mark.parametrize("camel", [True, False])
def test_reference_of_another_making(make: Make, camel: bool) -> None:  # noqa: FBT001
    """A reference as a dictionary or a model keeps every field, including resourceVersion and fieldPath."""
    expected = get_partial_reference(WEB_0, "spec.containers{app}")
    fields = expected.to_dict() if camel else {field: getattr(expected, field) for field in FIELDS}
    assert get_reference(make(fields)) == expected


def test_reference_is_itself() -> None:
    """A reference is used unchanged, even with empty fields (client-go: no reference of one)."""
    for reference in (WEB_0, ObjectReference(kind="Pod", api_version="v1"), ObjectReference()):
        assert get_reference(reference) is reference


def test_a_reference_is_the_callers_own() -> None:
    """Events about equal objects may share a reference. Callers get one of their own: its changes reach no event."""
    shared = shared_reference(manifest())
    assert shared_reference(manifest()) is shared
    own = get_reference(manifest())
    assert own == shared
    assert own is not shared
    assert get_reference(manifest()) is not own


def test_reference_with_odd_fields() -> None:
    """In a reference None and enums become plain strings, and a number is refused."""

    class Kinds(str, enum.Enum):
        NODE = "Node"

    odd = ObjectReference(kind=Kinds.NODE, api_version="v1", name="n", namespace=None)  # type: ignore[arg-type]
    assert outcome(odd) == ObjectReference(kind="Node", api_version="v1", name="n")
    assert "name is an object of type int" in complaint(ObjectReference(name=7))  # type: ignore[arg-type]


@pytest.mark.parametrize("items", [[], [manifest()], None])
def test_list(items: object) -> None:
    """A list of objects gives kind, apiVersion and resourceVersion only (client-go: trace ``list``)."""
    body = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items}
    assert get_reference(body) == ObjectReference(kind="PodList", api_version="v1", resource_version="5")
    del body["metadata"]
    assert get_reference(body) == ObjectReference(kind="PodList", api_version="v1")


def test_list_as_object() -> None:
    """A list is recognised by its kind and its ``items``, also as an attribute."""
    pods = Attributes(api_version="v1", kind="PodList", metadata=Attributes(resource_version="5"), items=[])
    assert get_reference(pods) == ObjectReference(kind="PodList", api_version="v1", resource_version="5")


def test_object_called_list() -> None:
    """A custom resource whose kind ends in List is an ordinary object: it needs a name."""
    shopping = {"kind": "ShoppingList", "apiVersion": "example.com/v1", "metadata": {"generateName": "x-"}}
    assert "no metadata.name" in complaint(shopping)
    shopping["metadata"] = {"name": "x-1"}
    expected = ObjectReference(kind="ShoppingList", api_version="example.com/v1", name="x-1")
    assert get_reference({**shopping, "items": ["milk"]}) == expected


def test_partial_object_metadata() -> None:
    """A PartialObjectMetadata keeps the kind that it states."""
    body = {**manifest(), "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"}
    expected = ("PartialObjectMetadata", "default", "web-0")
    body["metadata"]["namespace"] = "default"
    reference = get_reference(body)
    assert (reference.kind, reference.namespace, reference.name) == expected


@pytest.mark.parametrize("absent", [{}, {"namespace": None, "uid": None, "resourceVersion": None}])
def test_cluster_scoped(absent: dict[str, None]) -> None:
    """Pitfalls 17 and 32: missing or null namespace, uid and resourceVersion are empty."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", **absent}}
    assert get_reference(node) == ObjectReference(kind="Node", api_version="v1", name="node-1")


@pytest.mark.parametrize("name", ["fd00:10:233::103", "A_b", "x" * 253, "a/b%c", "\ud800", "名前", "x" * 1_000_000])
def test_name_as_it_is(name: str) -> None:
    """Pitfall 25: the object's name is kept unchanged. Only the event's name is made valid."""
    assert get_reference({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}}).name == name


def test_str_subclasses() -> None:
    """Each field is a real ``str``, even if the object has an enum or a misbehaving subclass of ``str``."""

    class Lying(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "lie"

    body = {"apiVersion": Lying("v1"), "kind": Lying("Pod"), "metadata": {"name": Lying("web-0"), "uid": Lying("u")}}
    assert outcome(body) == ObjectReference(kind="Pod", api_version="v1", name="web-0", uid="u")


# A reference is a copy, and identifies an object.


@pytest.mark.parametrize("body", [manifest, snake])
@pytest.mark.parametrize("make", [dict, Live, lambda fields: Attributes(**fields)])
def test_later_changes(make: Make, body: Make) -> None:
    """Pitfall 14: the object is read during the call. Its later changes have no effect."""
    fields = body()
    reference = get_reference(make(fields))
    fields["kind"] = "Node"
    fields["metadata"].update(name="other", uid="u-2")
    assert reference == WEB_0


def test_resource_version_is_no_identity() -> None:
    """Pitfall 53: an object whose resourceVersion changes stays the same object."""
    later = manifest()
    later["metadata"]["resourceVersion"] = "43"
    assert get_reference(later) != WEB_0
    assert get_reference(later).identity == WEB_0.identity


def test_identities_differ() -> None:
    """Pitfalls 54 and 55: another split of namespace and name, or a new uid, is another object."""
    cases = [("a", "bc", ""), ("ab", "c", ""), ("a", "bc", "u-1"), ("a", "bc", "u-2")]
    identities = set()
    for namespace, name, uid in cases:
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name, "uid": uid}}
        identities.add(get_reference(body).identity)
    assert len(identities) == len(cases)


def test_partial_reference() -> None:
    """A partial reference is the object's reference with a field path (client-go: ``GetPartialReference``)."""
    expected = WEB_0.to_dict() | {"fieldPath": "spec.containers{app}"}
    assert get_partial_reference(manifest(), "spec.containers{app}").to_dict() == expected


def test_partial_reference_changes_nothing() -> None:
    """A partial reference is a copy (client-go changes the original)."""
    partial = get_partial_reference(WEB_0, "spec.x")
    assert (WEB_0.field_path, partial.field_path) == ("", "spec.x")
    assert partial.identity == WEB_0.identity


def test_partial_reference_refuses() -> None:
    """The path must be a string, and the object must have a reference."""
    with pytest.raises(InvalidReferenceError, match="field_path is an object of type int, not a str"):
        get_partial_reference(WEB_0, 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidReferenceError, match="None"):
        get_partial_reference(None, "spec.x")


# Refused objects.


def test_none() -> None:
    """Pitfall 18: None is refused (client-go: ``ErrNilObject``)."""
    assert complaint(None).startswith("cannot build a reference from None: it has no kind, no apiVersion")


@pytest.mark.parametrize(("missing", "shown"), [(["kind"], "kind"), (["kind", "apiVersion"], "kind, no apiVersion")])
def test_manifest_without_kind(missing: list[str], shown: str) -> None:
    """Pitfall 15: an item of a list as a dictionary has no kind. The error has the missing fields and the fix."""
    body = {key: value for key, value in manifest().items() if key not in missing}
    expected = (
        f"cannot build a reference from an object of type dict: it has no {shown}; "
        "set apiVersion and kind (items of a list have none), or give a kevents.ObjectReference"
    )
    assert complaint(body) == expected


def test_object_without_kind() -> None:
    """Pitfall 15: the error for a user's class names it and ``kevents.register``."""
    obj = Attributes(metadata=Attributes(name="x"))
    expected = (
        f"cannot build a reference from an object of type {__name__}.Attributes: it has no kind, no apiVersion; set "
        f"them, or register the class once: kevents.register({__name__}.Attributes, api_version, kind)"
    )
    assert complaint(obj) == expected


@pytest.mark.parametrize("metadata", [{}, {"name": ""}, {"name": None, "generateName": "web-"}, [], "text", 7, None])
def test_no_name(metadata: object) -> None:
    """Pitfall 17: without a name there is no reference, for any value of metadata."""
    body = {**manifest(), "metadata": metadata}
    assert "it has no metadata.name; correct it, or give a kevents.ObjectReference" in complaint(body)


@pytest.mark.parametrize("value", [7, True, 1.5, b"web-0", ["web-0"], {"a": 1}, object()])
@pytest.mark.parametrize("field", ["name", "namespace", "uid", "resourceVersion"])
def test_no_text(field: str, value: object) -> None:
    """A field that is no string is refused by name. It is neither converted nor ignored, and its value is not shown."""
    body = manifest()
    body["metadata"][field] = value
    assert f"{field} is an object of type {type(value).__name__}, not a str" in complaint(body)


@pytest.mark.parametrize("texts", range(6))
def test_no_texts_at_all(texts: int) -> None:
    """Several non-string fields of one type are refused, although the fast path compares types."""
    values = [*["v1"] * texts, *[7] * (6 - texts)]
    for fields in (values, values[::-1]):
        kind, api_version, name, namespace, uid, resource_version = fields
        metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": resource_version}
        assert "is an object of type int, not a str" in complaint(
            {"kind": kind, "apiVersion": api_version, "metadata": metadata}
        )


@pytest.mark.parametrize("obj", [None, "web-0", b"web-0", 7, [manifest()]])
def test_advice_to_those_without_an_object(obj: object) -> None:
    """The error for a value that is no object lists accepted types, and does not advise to register its class."""
    assert complaint(obj).endswith("; give a Kubernetes object, its manifest or a kevents.ObjectReference")


def test_long_type_name() -> None:
    """The error shows at most a hundred characters of a type's name."""
    obj = type("x" * 300, (Attributes,), {"__module__": "builtins"})()
    assert f"type {'x' * 100}: " in complaint(obj)


@pytest.mark.parametrize("obj", ["web-0", b"web-0", 7, 1.5, [manifest()], (), {1}, object(), Attributes, ..., len])
def test_no_object_at_all(obj: object) -> None:
    """A value that is no Kubernetes object is refused with the name of its type."""
    assert type(obj).__qualname__ in complaint(obj)


@pytest.mark.parametrize("api_version", ["v1", "events.k8s.io/v1", "events.k8s.io/v1beta1"])
def test_event(api_version: str) -> None:
    """Pitfall 19: an event about an Event is refused, in any form."""
    body = {**manifest(), "apiVersion": api_version, "kind": "Event"}
    reference = ObjectReference(api_version=api_version, kind="Event", name="web-0.17", namespace="prod")
    for obj in (body, Live(body), Attributes(**body), reference, reference.to_dict(), Attributes(raw=body)):
        assert "it is an Event, and events about events are refused" in complaint(obj)


def test_event_of_ours() -> None:
    """Pitfall 19: an event about a kevents.Event, or a reference to an Event without a version, is refused."""
    event = Event(reference=WEB_0, type="Normal", reason="R", message="m", source=EventSource("c"), time=1, serial=1)
    assert "it is an Event" in complaint(event)
    assert "it is an Event" in complaint(ObjectReference(kind="Event", name="x"))


def test_event_of_another_group() -> None:
    """An Event of another group is an ordinary object."""
    body = {**manifest(), "apiVersion": "calendar.example.com/v1", "kind": "Event"}
    assert get_reference(body).kind == "Event"


def test_raising_property() -> None:
    """An exception of an object's property is named in the error, without its text."""

    class Detached:
        kind = "Pod"

        @property
        def metadata(self) -> object:
            raise LookupError("the secret is hunter2")

    expected = "Detached: reading it raised LookupError"
    message = complaint(Detached())
    assert message.endswith(expected)


def test_value_is_never_shown() -> None:
    """Pitfall 72: errors show no value, and no unbounded type name."""
    huge = type("X" * 100_000 + "\x1b[2J\n", (), {"__repr__": lambda _: 1 / 0, "__str__": lambda _: 1 / 0})()
    for obj in (huge, {**manifest(), "kind": huge}, Attributes(metadata=huge)):
        assert isinstance(outcome(obj), str)


def test_class_without_a_name() -> None:
    """A class without a readable name is refused like any other."""

    class Secretive(type):
        @property
        def __module__(cls) -> str:  # type: ignore[override]
            raise RuntimeError("never")

    assert "an object of type (unknown): reading it raised RuntimeError" in complaint(Secretive("Nameless", (), {})())


def test_liars() -> None:
    """Objects that imitate a str or a reference, or raise when asked for their class, are refused."""

    class Hidden:
        @property  # type: ignore[misc]
        def __class__(self) -> type:
            raise RuntimeError("never")

    reference = create_autospec(ObjectReference, instance=True)
    lies: list[Any] = [Mock(spec=str), Mock(spec=ObjectReference), reference, Hidden()]
    for lie in lies:
        assert isinstance(outcome(lie), str)
        assert isinstance(outcome({**manifest(), "kind": lie}), str)
        assert isinstance(outcome({**manifest(), "metadata": {"name": "web-0", "uid": lie}}), str)
        with pytest.raises(InvalidReferenceError):
            get_partial_reference(WEB_0, lie)


def test_cycles() -> None:
    """An object that contains itself is read or refused without following the cycle."""
    body = manifest()
    body["spec"] = body["metadata"]["ownerReferences"] = body
    assert get_reference(body) == WEB_0
    body["metadata"] = body
    assert "no metadata.name" in complaint(body)
    obj = Attributes()
    obj.__dict__.update(metadata=obj, raw=obj, kind=obj, api_version=obj, name=obj)
    assert "kind is an object of type" in complaint(obj)


def test_endless_attributes() -> None:
    """An object whose attributes recurse is refused."""

    class Recursing:
        def __getattr__(self, name: str) -> object:
            return getattr(self, name + "x")

    with no_collection():
        assert "RecursionError" in complaint(Recursing())


@pytest.mark.parametrize(
    "make", [Mock, MagicMock, lambda: Mock(spec=dict), lambda: create_autospec(dict, instance=True)]
)
def test_mock(make: Make) -> None:
    """A plain mock, whose attributes are mocks, is refused."""
    assert isinstance(outcome(make()), str)


def test_mock_with_texts() -> None:
    """A mock whose fields are strings is accepted."""
    pod = MagicMock(api_version="v1", kind="Pod")
    pod.metadata = Mock(namespace="prod", uid="u-1", resource_version="42")
    pod.metadata.name = "web-0"
    assert get_reference(pod) == WEB_0


# Fields that are not texts, or missing.


def test_enum_and_uuid() -> None:
    """Fault 21: a kind may be an enum, and a uid a UUID."""
    uid = uuid.UUID("8f1e9c1e-3b9b-4a5c-9d7b-2f2f0c0c0c0c")

    class Kind(enum.Enum):
        POD = "Pod"

    class TextKind(str, enum.Enum):
        POD = "Pod"

    for kind in Kind.POD, TextKind.POD:
        body = {**manifest(), "kind": kind, "metadata": {**manifest()["metadata"], "uid": uid}}
        for obj in (body, Attributes(**body), ObjectReference(kind=kind, name="web-0", uid=uid)):  # type: ignore[arg-type]
            reference = get_reference(obj)
            assert (reference.kind, reference.uid) == ("Pod", str(uid))
            assert {type(reference.kind), type(reference.uid)} == {str}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("PersistentVolumeClaim", "v1"),
        ("Deployment", "apps/v1"),
        ("HorizontalPodAutoscaler", "autoscaling/v2"),
        ("Eviction", "policy/v1"),
        ("PodGroup", ""),
        ("Widget", ""),
    ],
)
def test_no_api_version(kind: str, expected: str) -> None:
    """Fault 18: a built-in kind without an apiVersion gets its own. For other kinds it stays empty."""
    reference = {"kind": kind, "name": "data-0", "namespace": "prod"}
    body = {"kind": kind, "metadata": {"name": "data-0", "namespace": "prod"}}
    for obj in (reference, body, Attributes(**reference), Attributes(**body), UserDict(body)):
        assert get_reference(obj) == ObjectReference(kind=kind, api_version=expected, name="data-0", namespace="prod")


def test_built_in_versions() -> None:
    """Fault 18: the default version of a built-in kind is a stable one of the installed client."""
    known = [official_kind("kubernetes.client", name) for name in dir(importlib.import_module("kubernetes.client"))]
    stable = {each for each in known if each is not None and re.search(r"(^|/)v\d+$", each[0])}
    for kind in {kind for _, kind in stable if not kind.endswith("List")} - {"Event"}:
        assert (_reference._built_in_version(kind), kind) in stable


@pytest.mark.parametrize(
    "namespace", ["Shop", "shop.eu", "50%", "a%2fb", "..", "{{ .Values.ns }}", "-a", "a" * 64, "a\n"]
)
def test_impossible_namespace(namespace: str) -> None:
    """Fault 6: a namespace that is not a DNS-1123 label is refused in every form. The error shows its start."""
    metadata = {**manifest()["metadata"], "namespace": namespace}
    reference = ObjectReference(kind="Pod", api_version="v1", name="p", namespace=namespace)
    for obj in ({**manifest(), "metadata": metadata}, Attributes(**manifest() | {"metadata": metadata}), reference):
        assert complaint(obj).endswith("is not a DNS-1123 label")
    assert get_reference({**manifest(), "metadata": {**metadata, "namespace": "a" * 63}}).namespace == "a" * 63
    assert len(complaint(ObjectReference(kind="Pod", name="p", namespace="x" * 10_000))) < 250


OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "uid": "u-1", "controller": True}


@pytest.mark.parametrize(
    "owner",
    [
        OWNER,
        {**OWNER, "controller": None, "apiVersion": "example.com/v1", "kind": "Node"},
        {"api_version": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "block_owner_deletion": None},
        Attributes(**OWNER),
        Attributes(**OWNER | {"controller": None, "blockOwnerDeletion": False}),
        type("V1OwnerReference", (Attributes,), {})(**OWNER | {"controller": None}),
    ],
)
def test_owner_reference(owner: object) -> None:
    """Fault 20: an owner reference is refused, because it has no namespace. The error has the fix."""
    assert complaint(owner).endswith(
        "an owner reference has no namespace; give the owner itself, or a kevents.ObjectReference with its namespace"
    )


def test_cluster_scoped_owner() -> None:
    """Fault 20: an owner reference with a namespace, or to a cluster-scoped kind, is accepted."""
    owner = {**OWNER, "apiVersion": "v1", "kind": "Node", "name": "node-1"}
    assert get_reference(owner) == ObjectReference(kind="Node", api_version="v1", name="node-1", uid="u-1")
    assert get_reference({**OWNER, "namespace": "prod"}).namespace == "prod"


@pytest.mark.parametrize("module", ["kubernetes.client.models.v1_object_reference", "kopf._cogs.structs.bodies"])
def test_advice_for_classes_of_clients(module: str) -> None:
    """Fault 19: the error does not advise to register a client's generic class."""
    cls = type("V1ObjectReference", (Attributes,), {"__module__": module})
    assert "register" not in complaint(cls(name="web-0"))
    assert "register" not in complaint(UserDict(name="web-0"))


# User classes.


def test_register() -> None:
    """A registered class gives its objects a kind, and those of its subclasses, unless these are registered."""

    class Widget:
        def __init__(self) -> None:
            self.metadata = {"name": "w", "namespace": "prod"}

    class Special(Widget):
        pass

    class Gadget(Special):
        pass

    assert "kevents.register" in complaint(Widget())
    register(Widget, "example.com/v1", "Widget")
    register(Gadget, "example.com/v2", "Gadget")
    expected = [("example.com/v1", "Widget"), ("example.com/v1", "Widget"), ("example.com/v2", "Gadget")]
    references = [get_reference(cls()) for cls in (Widget, Special, Gadget)]
    assert [(reference.api_version, reference.kind) for reference in references] == expected
    assert references[0].namespace == "prod"


def test_register_again() -> None:
    """The last registration of a class is used."""
    cls = type("Widget", (Attributes,), {})
    for version in ("example.com/v1", "example.com/v2"):
        register(cls, version, "Widget")
        assert get_reference(cls(metadata={"name": "w"})).api_version == version


def test_register_without_metadata() -> None:
    """A registered object may have name and namespace as its own attributes."""
    cls = type("Widget", (Attributes,), {})
    register(cls, "example.com/v1", "Widget")
    expected = ObjectReference(kind="Widget", api_version="example.com/v1", name="w", namespace="prod")
    assert get_reference(cls(name="w", namespace="prod")) == expected


def test_register_yields_to_the_object() -> None:
    """The object's own kind takes precedence over its class, but an attribute ``kind`` of another meaning does not."""

    class Size(enum.Enum):
        BIG = 1

    cls = type("Widget", (Attributes,), {})
    register(cls, "example.com/v1", "Widget")
    own = get_reference(cls(apiVersion="example.com/v3", kind="Widget", metadata={"name": "w"}))
    other = get_reference(cls(kind=Size.BIG, metadata={"name": "w"}))
    assert (own.api_version, other.api_version) == ("example.com/v3", "example.com/v1")


@pytest.mark.parametrize(
    ("kind", "api_version", "expected"),
    [
        ("Gadget", None, ("Gadget", "")),
        ("Gadget", "", ("Gadget", "")),
        ("Pod", None, ("Pod", "v1")),
        ("Widget", None, ("Widget", "example.com/v1")),
        (None, "v1", ("Widget", "v1")),
        ("", "v1", ("Widget", "v1")),
        (7, "v1", ("Widget", "v1")),
        (None, None, ("Widget", "example.com/v1")),
    ],
)
def test_register_fills_gaps(kind: object, api_version: object, expected: tuple[str, str]) -> None:
    """Fault 19: a registered class fills only the fields that the object lacks."""
    cls = type("Widget", (Attributes,), {})
    register(cls, "example.com/v1", "Widget")
    reference = get_reference(cls(kind=kind, apiVersion=api_version, metadata={"name": "w"}))
    assert (reference.kind, reference.api_version) == expected


@pytest.mark.parametrize("missing", ["group", "version", "kind"])
def test_register_beside_half_a_resource(missing: str) -> None:
    """The registration is used if a class's own resource information (lightkube) is incomplete."""
    resource = SimpleNamespace(**{"group": "g", "version": "v1", "kind": "Gadget", missing: None})
    cls = type("Widget", (Attributes,), {"_api_info": SimpleNamespace(resource=resource)})
    register(cls, "example.com/v1", "Widget")
    assert get_reference(cls(metadata={"name": "w"})).api_version == "example.com/v1"


def test_register_mapping() -> None:
    """A registered mapping class is used if the mapping has no kind."""

    class Widget(UserDict[str, Any]):
        pass

    register(Widget, "example.com/v1", "Widget")
    assert get_reference(Widget(metadata={"name": "w"})).kind == "Widget"


def test_register_keeps_nothing_alive() -> None:
    """Registered and unregistered classes can be garbage collected."""
    gc.collect()
    before = len(_reference._registered)
    cls = type("Widget", (Attributes,), {"__module__": "kubernetes.client"})
    register(cls, "example.com/v1", "Widget")
    get_reference(cls(metadata={"name": "w"}))
    gone = weakref.ref(cls)
    del cls
    gc.collect()
    assert (gone(), len(_reference._registered)) == (None, before)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((Attributes(), "v1", "Pod"), TypeError, "cls must be a class"),
        (
            (Attributes, 1, "Pod"),
            TypeError,
            "not an object of type int",
        ),
        ((Attributes, "v1", None), TypeError, "kind must be a str such as 'Widget', not None"),
        ((Attributes, "", "Pod"), ValueError, "'example.com/v1', not ''"),
        (
            (Attributes, "Widget", "example.com/v1"),
            ValueError,
            "'example.com/v1', not 'Widget'",
        ),
        ((Attributes, "a/b/v1", "Pod"), ValueError, "'example.com/v1', not 'a/b/v1'"),
        ((Attributes, "/v1", "Pod"), ValueError, "'example.com/v1', not '/v1'"),
        ((Attributes, "v1", ""), ValueError, "kind must be one such as 'Widget', not ''"),
        ((Attributes, "v1", "my kind"), ValueError, "kind must be one such as 'Widget', not 'my kind'"),
        ((Attributes, "v1", "Pod\n"), ValueError, "kind"),
    ],
)
def test_register_wrongly(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    """Invalid arguments of `register` raise, and nothing is registered."""
    with pytest.raises(error, match=re.escape(text)):
        register(*arguments)
    assert "kevents.register" in complaint(Attributes(metadata={"name": "w"}))


def test_threads() -> None:
    """Classes are registered and collected in several threads while references are built, without errors."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for round_ in range(200):
                cls = type(f"W{round_}", (Attributes,), {})
                register(cls, f"g{number}.com/v{round_}", "Widget")
                reference = get_reference(cls(metadata={"name": "w"}))
                assert reference.api_version == f"g{number}.com/v{round_}"
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# The table of the official client's classes.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("V1Pod", ("v1", "Pod")),
        ("V1PodList", ("v1", "PodList")),
        ("V1Deployment", ("apps/v1", "Deployment")),
        ("V2HorizontalPodAutoscaler", ("autoscaling/v2", "HorizontalPodAutoscaler")),
        ("V1beta1LeaseCandidate", ("coordination.k8s.io/v1beta1", "LeaseCandidate")),
        ("CoreV1Event", ("v1", "Event")),
        ("EventsV1EventList", ("events.k8s.io/v1", "EventList")),
        ("AuthenticationV1TokenRequest", ("authentication.k8s.io/v1", "TokenRequest")),
        ("ResourceV1ResourceClaim", ("resource.k8s.io/v1", "ResourceClaim")),
        ("V1ResourceClaimList", ("resource.k8s.io/v1", "ResourceClaimList")),
        ("V1Eviction", ("policy/v1", "Eviction")),
        ("V1alpha1Eviction", ("lifecycle.k8s.io/v1alpha1", "Eviction")),
        ("V1Scale", ("autoscaling/v1", "Scale")),
        ("V1alpha1StorageVersion", ("internal.apiserver.k8s.io/v1alpha1", "StorageVersion")),
        ("CoreV1ResourceClaim", None),
        ("StorageV1TokenRequest", None),
        ("V1PodSpec", None),
        ("V1", None),
        ("Pod", None),
    ],
)
def test_official_kind(name: str, expected: tuple[str, str] | None) -> None:
    """A class name of the official client gives version and kind. Similar names give nothing."""
    assert official_kind("kubernetes.client.models.v1_pod", name) == expected


@pytest.mark.parametrize("module", ["kubernetesque.models", "my.kubernetes.client", "kubernetes", ""])
def test_class_name_elsewhere(module: str) -> None:
    """Pitfall 15: a class with an official name in another package gives no kind."""
    assert official_kind(module, "V1Pod") is None
    cls = type("V1Pod", (Attributes,), {"__module__": module})
    assert "no kind" in complaint(cls(metadata={"name": "w"}))


def official_classes(module: str) -> dict[str, str]:
    """Return name and metadata type of each class that is an object or a list of the API, read from its source.

    Importing the classes takes ten times as long.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        pytest.skip(f"{module} is not installed")
    found = {}
    for file in Path(spec.origin).parent.glob("models/*.py"):
        text = file.read_text(encoding="utf-8")
        [types] = re.findall(r"^    openapi_types\b[^=\n]*= \{(.*?)\}", text, re.DOTALL | re.MULTILINE) or [""]
        shown = dict(re.findall(r"""['"](\w+)['"]: ['"]([^'"]+)['"]""", types))
        if {"api_version", "kind", "metadata"} <= set(shown):
            [name] = re.findall(r"^class (\w+)\((?:object|BaseModel)\):", text, re.MULTILINE)
            found[name] = shown["metadata"]
    return found


@pytest.mark.parametrize("module", ["kubernetes.client", "kubernetes.aio.client", "kubernetes_asyncio.client"])
def test_table_is_complete(module: str) -> None:
    """Pitfall 15: every class of the installed client with kind and metadata is in the table."""
    classes = official_classes(module)
    assert len(classes) > 150
    assert set(classes.values()) == {"V1ObjectMeta", "V1ListMeta"}
    missing = {name for name in classes if official_kind(module, name) is None}
    exempt = {name for name in classes if re.fullmatch(r"V\w+APIGroupDiscovery(List)?", name)}
    assert missing == exempt


def test_table_is_right() -> None:
    """The apiVersion of each list class matches the path of the API that returns it."""
    api = importlib.import_module("kubernetes.client.api")
    paths: dict[str, set[str]] = {}
    for file in Path(str(api.__file__)).parent.glob("*_v[0-9]*_api.py"):
        text = file.read_text(encoding="utf-8")
        versions = set(re.findall(r"['\"]/(?:apis/|api/)((?:[a-z0-9.]+/)?v[a-z0-9]+)/", text))
        # The client 37 imports each class by its name. Others only name it in their docstrings.
        lists = set(re.findall(r"import (\w+List)\b", text) + re.findall(r":return: (\w+List)\b", text))
        for name in filter(re.compile(r"(?:[A-Z][a-z]+)?V\d+\w+List").fullmatch, lists):
            paths.setdefault(name, set()).update(versions)
    del paths["V1APIResourceList"]
    assert {"V1PodList", "V1DeploymentList"} <= set(paths)
    table = {name: official_kind("kubernetes.client", name) for name in paths}
    assert {name: {known[0]} for name, known in table.items() if known is not None} == paths


# Arbitrary input.

KEYS = st.sampled_from(
    [
        *("apiVersion", "api_version", "kind", "metadata", "name", "namespace", "uid"),
        *("resourceVersion", "resource_version", "fieldPath", "field_path", "items", "raw", "generateName"),
    ]
)
TEXTS = st.sampled_from(["v1", "apps/v1", "Pod", "PodList", "Event", "events.k8s.io/v1", ""]) | st.text(max_size=5)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.binary(max_size=3) | st.just(object())
MAPPINGS = (dict, UserDict, MappingProxyType, Live, ChainMap, lambda body: SimpleNamespace(**body))
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(lambda make, body: make(body), st.sampled_from(MAPPINGS), st.dictionaries(KEYS, inner))
    ),
    max_leaves=12,
)
ERRORS = (AttributeError, ValueError, KeyError, RuntimeError, RecursionError, MemoryError, StopIteration, OSError)


@given(ANYTHING)
def test_anything(obj: object) -> None:
    """Any value gives a valid reference or an InvalidReferenceError."""
    outcome(obj)


@given(
    metadata=st.dictionaries(KEYS, SCALARS),
    rest=st.dictionaries(KEYS, ANYTHING),
    make=st.sampled_from(MAPPINGS),
)
def test_nearly_right(metadata: dict[str, object], rest: dict[str, object], make: Make) -> None:
    """A manifest with some fields replaced gives a reference or an InvalidReferenceError."""
    body = manifest()
    outcome(make(body | {"metadata": make(body["metadata"] | metadata)}))
    outcome(make(body | rest))


@given(st.dictionaries(KEYS, st.sampled_from(ERRORS) | TEXTS), st.sampled_from(ERRORS), st.booleans())
def test_raising_objects(answers: dict[str, Any], other: type[Exception], nested: bool) -> None:  # noqa: FBT001
    """Objects and mappings that raise when read give a reference or an InvalidReferenceError."""

    def answer(name: str) -> object:
        value = answers.get(name, other)
        if isinstance(value, str):
            return value
        raise value(name)

    class Raising:
        def __getattr__(self, name: str) -> object:
            return answer(name)

    class RaisingMapping(dict[str, object]):
        def get(self, key: str, default: object = None) -> object:
            return answer(key)

    for obj in (Raising(), RaisingMapping()):
        outcome({**manifest(), "metadata": obj} if nested else obj)


@given(
    kind=st.text(min_size=1).filter(lambda kind: kind != "Event"),
    api_version=st.text(min_size=1),
    name=st.text(min_size=1),
    namespace=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True) | st.none(),
    uid=st.text() | st.none(),
    resource_version=st.text() | st.none(),
)
def test_all_shapes_agree(kind: str, api_version: str, **fields: str | None) -> None:
    """Pitfall 16: the same object in any form gives the same reference, by the fast path and the general one."""
    camel = {{"resource_version": "resourceVersion"}.get(field, field): value for field, value in fields.items()}
    expected = ObjectReference(kind=kind, api_version=api_version, **{k: v or "" for k, v in fields.items()})
    model = type("V1Pod", (Attributes,), {"__module__": "kubernetes.client.models.v1_pod"})
    shapes = [
        {"apiVersion": api_version, "kind": kind, "metadata": camel},
        {"apiVersion": api_version, "kind": kind, "metadata": fields},
        {"api_version": api_version, "kind": kind, "metadata": fields},
        UserDict({"apiVersion": api_version, "kind": kind, "metadata": UserDict(camel)}),
        SimpleNamespace(apiVersion=api_version, kind=kind, metadata=SimpleNamespace(**camel)),
        model(api_version=api_version, kind=kind, metadata=SimpleNamespace(**fields)),
        SimpleNamespace(raw={"apiVersion": api_version, "kind": kind, "metadata": camel}),
        {"apiVersion": api_version, "kind": kind, **camel},
        expected,
    ]
    assert [get_reference(shape) for shape in shapes] == [expected] * len(shapes)


@settings(max_examples=10)
@given(st.integers(min_value=1, max_value=5))
def test_quick(magnitude: int) -> None:
    """The cost does not depend on the size of the object."""
    body = manifest()
    body["metadata"]["labels"] = dict.fromkeys(map(str, range(10**magnitude)), "")
    body["status"] = [body] * 10**magnitude
    begin = time.thread_time()
    assert get_reference(body) == WEB_0
    assert time.thread_time() - begin < SOON
