"""Build an ``ObjectReference`` from any object.

No client library is imported: objects are recognised by their keys and attributes, in this order:

1. kevents' own ``ObjectReference``, used unchanged.
2. A mapping with ``metadata``: a manifest, ``to_dict()`` of a model, a kopf ``Body``. camelCase before snake_case.
3. An object, not a mapping, with a manifest in ``.raw`` (kr8s) or ``.obj`` (pykube-ng).
4. A mapping or an object without ``metadata`` but with kind and name: a reference of another library.
5. An object with ``metadata``, and ``api_version`` or ``apiVersion``, and ``kind``.

A missing kind or version comes from the class: lightkube's ``_api_info``, :func:`register`, the table of the official
client's classes. A version that is still missing is that of the built-in kind, else empty.

A plain manifest and a model of the official client make up nearly all calls. Each has a fast path, which returns None
for anything unusual and leaves the result or the error to the general path.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Final
from weakref import ref

from kevents._model.objects import Event, ObjectReference
from kevents._model.wire import printable, require_frames
from kevents.exceptions import InvalidReferenceError

_Kind = tuple[str, str]  # apiVersion, kind
_Read = Callable[[str], Any]
_Foreign = Any  # an object of the caller's, of any type

_CAMEL: Final = {"api_version": "apiVersion", "resource_version": "resourceVersion", "field_path": "fieldPath"}
_OWNER_FIELDS: Final = ("controller", "blockOwnerDeletion", "block_owner_deletion")
_API_VERSION: Final = re.compile(r"(?:[a-z0-9][-a-z0-9.]*/)?[a-z][-a-z0-9]*")
_KIND: Final = re.compile(r"[A-Za-z][-A-Za-z0-9]*")
_DNS1123_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LONGEST_TYPE_NAME: Final = 100
_LONGEST_NAMESPACE: Final = 80
_CLIENTS: Final = ("cloudcoil", "hikaru", "kopf", "kr8s", "kubernetes", "kubernetes_asyncio", "lightkube", "pykube")

# Weak keys do not keep a class alive that was reloaded or made for one test. Single operations of a dictionary are
# atomic, also in the free-threaded build, so there is no lock.
_registered: Final[dict[ref[type], _Kind]] = {}


def get_reference(obj: object) -> ObjectReference:
    """Return the reference that an event about an object carries (client-go: ``GetReference``).

    Recorders do it for every event. All values are copied: later changes of the object have no effect.

    Args:
        obj: One of

            - an :class:`~kevents.ObjectReference`,
            - a mapping: a manifest, a kopf ``Body``, ``to_dict()`` of a model, a reference in the API's format,
            - a model of the official client, sync or async, also an item of a list,
            - an object of the dynamic client, kr8s, lightkube or pykube-ng,
            - an object of a class given to :func:`register`,
            - any other object with ``apiVersion`` or ``api_version``, ``kind`` and ``metadata``.

    Returns:
        The same :class:`~kevents.ObjectReference` if one was given, even an empty one. For a list of objects kind,
        apiVersion and resourceVersion. For anything else at least kind and name. A missing apiVersion is that of the
        built-in kind, and stays empty for any other kind.

    Raises:
        InvalidReferenceError: If the object is None, lacks one of these, holds a value that is not a text, or raised
            an exception. Also if its namespace is not a DNS-1123 label, if it is an owner reference to a namespaced
            object, or if it is an Event, because events about events would multiply.
    """
    reference = shared_reference(obj)
    return reference if reference is obj else ObjectReference(**_fields(reference))


def shared_reference(obj: object) -> ObjectReference:
    """As :func:`get_reference`, but equal objects often share one reference."""
    try:
        reference = _resolve(obj)
        if reference.checked:
            return reference
        is_event = reference.kind == "Event" and _is_version_of_events(reference.api_version)
    except _UnreadableError as unreadable:
        problem = f"reading it raised {_type_name(unreadable.__cause__)}"
        error = InvalidReferenceError(f"cannot build a reference from {_description(obj)}: {problem}")
        raise error from unreadable.__cause__
    if reference.namespace and not _is_namespace(reference.namespace):
        namespace = printable(repr(reference.namespace[:_LONGEST_NAMESPACE]))
        raise InvalidReferenceError(
            f"cannot build a reference from {_description(obj)}: its namespace {namespace} is not a DNS-1123 label"
        )
    if is_event:
        raise InvalidReferenceError(
            f"cannot build a reference from {_description(obj)}: it is an Event, and events about events are refused"
        )
    reference.checked = True
    return reference


def get_partial_reference(obj: object, field_path: str) -> ObjectReference:
    """Return the reference to a part of an object (client-go: ``GetPartialReference``).

    Args:
        obj: Any object that :func:`get_reference` takes. An :class:`~kevents.ObjectReference` is copied.
        field_path: The part, as in ``spec.containers{app}``.

    Raises:
        InvalidReferenceError: As in :func:`get_reference`, and if the path is not a text.
    """
    whole = shared_reference(obj)
    if not issubclass(type(field_path), str):  # isinstance would trust a false ``__class__``
        raise InvalidReferenceError(f"field_path is {_description(field_path)}, not a str")
    return ObjectReference(**_fields(whole) | {"field_path": str.__str__(field_path)})


def known_reference(obj: object) -> ObjectReference:
    """Return the readable fields of an object that has no valid reference, for reports. Never raises."""
    try:
        if isinstance(obj, ObjectReference):  # with an impossible namespace, or about an Event
            return obj
        content = _content(obj)
        read = _reader(content)
        metadata = read("metadata")
        of_metadata = read if metadata is None else _reader(metadata)
        api_version, kind = _kind_of_class(type(obj)) or (read("api_version"), read("kind"))
        fields = {"api_version": api_version, "kind": kind}
        fields |= {field: of_metadata(field) for field in ("namespace", "name", "uid")}
        return ObjectReference(**{field: str.__str__(text) for field, text in fields.items() if isinstance(text, str)})
    except Exception:  # noqa: BLE001 - the object's own code may raise anything
        return ObjectReference()


def register(cls: type, api_version: str, kind: str) -> None:
    """Set apiVersion and kind for objects of a class that have none themselves (client-go: ``AddKnownTypes``).

    Use it for your own classes. It holds for subclasses too, unless they are registered themselves. The last call
    wins. The objects need a ``metadata`` with a name, or a ``name`` (and ``namespace``, ``uid``) of their own.

    Args:
        cls: The class. It is not kept alive.
        api_version: ``example.com/v1``, ``v1``.
        kind: ``Widget``.

    Raises:
        TypeError: If ``cls`` is not a class, or another argument is not a text.
        ValueError: If ``api_version`` or ``kind`` is malformed.
    """
    if not isinstance(cls, type):
        raise TypeError(f"cls must be a class, not {_description(cls)}")
    for name, value, pattern, example in (
        ("api_version", api_version, _API_VERSION, "example.com/v1"),
        ("kind", kind, _KIND, "Widget"),
    ):
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str such as {example!r}, not {_description(value)}")
        if not pattern.fullmatch(value):
            raise ValueError(f"{name} must be one such as {example!r}, not {value!r}")
    _registered[ref(cls, _forget)] = str.__str__(api_version), str.__str__(kind)


def _forget(key: ref[type], forget: Callable[..., object] = _registered.pop) -> None:
    forget(key, None)


register(Event, "v1", "Event")


class _UnreadableError(Exception):
    """The caller's object raised the cause of this error."""


def _look(function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - the function's result
    """Call a function that reads the caller's object, whose properties, mappings and metaclasses may raise anything.

    An error that is raised elsewhere is a fault of kevents.
    """
    try:
        return function(*arguments)
    except Exception as error:
        require_frames(error)
        raise _UnreadableError from error


def _resolve(obj: object) -> ObjectReference:
    cls = type(obj)
    if issubclass(cls, ObjectReference):
        return _real(obj)
    try:  # as _look does, without its frame
        texts = _texts_of_manifest(obj) if cls is dict else _texts_of_model(obj, cls)
    except Exception as error:
        require_frames(error)
        raise _UnreadableError from error
    if texts is None:
        return _from_anything(obj)
    kind, api_version, name, namespace, uid, resource_version = texts
    if (
        type(kind) is type(api_version) is type(name) is type(namespace) is type(uid) is type(resource_version) is str
        and kind
        and api_version
        and name
    ):
        return _from_texts(kind, api_version, name, namespace, uid, resource_version)
    return _from_anything(obj)


@lru_cache(maxsize=1024)
def _is_namespace(text: str) -> bool:
    return _DNS1123_LABEL.fullmatch(text) is not None


def _is_version_of_events(api_version: str) -> bool:
    # Only explicit references come without a version, and they often omit core's "v1".
    return api_version in {"", "v1"} or api_version.startswith("events.k8s.io/")


def _texts_of_manifest(obj: _Foreign) -> tuple[object, ...] | None:
    metadata = obj.get("metadata")
    if type(metadata) is not dict:
        return None
    resource_version = metadata.get("resourceVersion")
    if resource_version is None:
        resource_version = metadata.get("resource_version", "")
    namespace, uid = metadata.get("namespace", ""), metadata.get("uid", "")
    return obj.get("kind"), obj.get("apiVersion"), metadata.get("name"), namespace, uid, resource_version


def _texts_of_model(obj: _Foreign, cls: type) -> tuple[object, ...] | None:
    known = official_kind(cls.__module__, cls.__name__)
    if known is None:
        return None
    metadata = obj.metadata
    kind, api_version = obj.kind, obj.api_version
    if kind is None and api_version is None:
        api_version, kind = _registered.get(ref(type(obj)), known)
    try:
        name, namespace, uid = metadata.name, metadata.namespace, metadata.uid
        resource_version = metadata.resource_version
    except AttributeError:  # no metadata, that of a list, or a dictionary
        return None
    return kind, api_version, name, namespace or "", uid or "", resource_version or ""


@lru_cache(maxsize=1024)
def _from_texts(
    kind: str, api_version: str, name: str, namespace: str, uid: str, resource_version: str, /
) -> ObjectReference:
    return ObjectReference(
        kind=kind, api_version=api_version, namespace=namespace, name=name, uid=uid, resource_version=resource_version
    )


def _real(reference: _Foreign) -> ObjectReference:
    """Return the reference itself, or a copy if a field is not a plain ``str`` (None, an enum)."""
    r: ObjectReference = reference
    if (
        type(r.kind) is type(r.api_version) is type(r.namespace) is type(r.name) is str
        and type(r.uid) is type(r.resource_version) is type(r.field_path) is str
    ):
        return r
    return _checked(reference, _fields(reference), ())


def _fields(reference: ObjectReference) -> dict[str, Any]:
    fields = ("kind", "api_version", "namespace", "name", "uid", "resource_version", "field_path")
    return {field: getattr(reference, field) for field in fields}


def _from_anything(obj: object) -> ObjectReference:
    content = _look(_content, obj)
    read = _look(_reader, content)
    api_version, kind = _kind(obj, content, read)
    metadata = read("metadata")
    of_metadata = read if metadata is None else _look(_reader, metadata)
    fields = {"kind": kind, "api_version": api_version, "resource_version": of_metadata("resource_version")}
    name = of_metadata("name")
    if not _look(bool, name) and _look(_is_list, content, kind):
        return _checked(obj, fields, ("kind",))
    fields |= {"name": name, "namespace": of_metadata("namespace"), "uid": of_metadata("uid")}
    if metadata is None:
        fields["field_path"] = read("field_path")
        is_owner = not _look(bool, fields["namespace"]) and _look(_is_owner_reference, obj)
        if is_owner and not _is_cluster_scoped(api_version, kind):
            raise InvalidReferenceError(
                f"cannot build a reference from {_description(obj)}: an owner reference has no namespace; "
                "give the owner itself, or a kevents.ObjectReference with its namespace"
            )
    return _checked(obj, fields, ("kind", "name"))


def _content(obj: object) -> object:
    """Return the object, or its manifest (kr8s and pykube-ng, whose other attributes may send requests)."""
    if isinstance(obj, Mapping):
        return obj
    manifests = (getattr(obj, name, None) for name in ("raw", "obj"))
    return next((each for each in manifests if isinstance(each, Mapping) and "metadata" in each), obj)


def _kind(obj: _Foreign, content: object, read: _Read) -> tuple[object, object]:
    """Return apiVersion and kind: the object's own, else those of its class, else the version of a built-in kind."""
    kind, api_version = read("kind"), read("api_version")
    if content is not obj:
        kind = kind if _look(bool, kind) else _look(getattr, obj, "kind", None)
        api_version = api_version if _look(bool, api_version) else _look(getattr, obj, "version", None)
    if not (_as_text(kind) and _as_text(api_version)):
        known = _look(_kind_of_class, type(obj))
        if known is not None:
            kind = _as_text(kind) or known[1]
            api_version = _as_text(api_version) or (known[0] if kind == known[1] else "")
        if not _look(bool, api_version):
            api_version = _built_in_version(_as_text(kind) or "")
    return api_version, kind


def _as_text(value: object) -> str | None:
    """Return the text of a ``str``, an enum or a UUID. None for anything else."""
    if value is None or type(value) is str:
        return value
    text: str | None = _look(_text_of, value)
    return text


def _text_of(value: object) -> str | None:
    if isinstance(value, Enum) and not isinstance(value, str):
        value = value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    return str.__str__(value) if isinstance(value, str) else None


def _is_owner_reference(obj: object) -> bool:
    if isinstance(obj, Mapping):
        return any(field in obj for field in _OWNER_FIELDS)
    marked = any(isinstance(getattr(obj, field, None), bool) for field in _OWNER_FIELDS)
    return marked or type(obj).__name__.endswith("OwnerReference")


def _reader(thing: _Foreign) -> _Read:
    """Return a function that reads a field by its snake_case name. None if the field is missing or null."""
    if isinstance(thing, Mapping):

        def read(field: str) -> _Foreign:
            value = thing.get(_CAMEL.get(field, field))
            return thing.get(field) if value is None and field in _CAMEL else value
    else:

        def read(field: str) -> _Foreign:
            value = getattr(thing, field, None)
            return getattr(thing, _CAMEL[field], None) if value is None and field in _CAMEL else value

    return partial(_look, read)


def _is_list(content: _Foreign, kind: object) -> bool:
    """True for a list of the API, such as ``PodList`` with ``items`` (client-go: ``meta.ListAccessor``)."""
    if not (_as_text(kind) or "").endswith("List"):
        return False
    items = content.get("items", "") if isinstance(content, Mapping) else getattr(content, "items", "")
    return items is None or isinstance(items, (list, tuple))


def _kind_of_class(cls: type) -> _Kind | None:
    resource = getattr(getattr(cls, "_api_info", None), "resource", None)
    group, version, kind = (getattr(resource, field, None) for field in ("group", "version", "kind"))
    if isinstance(group, str) and isinstance(version, str) and isinstance(kind, str):
        return (f"{group}/{version}" if group else version), kind
    bases = cls.__mro__
    registered = (_registered.get(ref(base)) for base in bases)
    official = (official_kind(base.__module__, base.__name__) for base in bases)
    return next(filter(None, registered), None) or next(filter(None, official), None)


def _checked(obj: object, fields: Mapping[str, Any], required: tuple[str, ...]) -> ObjectReference:
    texts = {field: text for field, value in fields.items() if (text := _as_text(value)) is not None}
    wrong = [field for field, value in fields.items() if value is not None and field not in texts]
    missing = [field for field in fields if field in required and not texts.get(field) and field not in wrong]
    if not (wrong or missing):
        return ObjectReference(**texts)
    # The error names types and no values: a value may be huge, secret, or raise when it is shown.
    problems = [f"{_CAMEL.get(field, field)} is {_description(fields[field])}, not a str" for field in wrong]
    if missing:
        labels = {"kind": "kind" if texts.get("api_version") else "kind, no apiVersion", "name": "metadata.name"}
        problems.append(f"it has no {', no '.join(labels[field] for field in missing)}")
    advice = _look(_advice, obj, wrong + missing)
    raise InvalidReferenceError(f"cannot build a reference from {_description(obj)}: {', '.join(problems)}; {advice}")


def _advice(obj: object, fields: list[str]) -> str:
    if obj is None or isinstance(obj, (str, bytes, int, float, list, tuple, set)):
        return "give a Kubernetes object, its manifest or a kevents.ObjectReference"
    if "kind" not in fields and "api_version" not in fields:
        return "correct it, or give a kevents.ObjectReference"
    if isinstance(obj, Mapping) or type(obj).__module__.partition(".")[0] in _CLIENTS:
        return "set apiVersion and kind (items of a list have none), or give a kevents.ObjectReference"
    return f"set them, or register the class once: kevents.register({_type_name(obj)}, api_version, kind)"


def _description(obj: object) -> str:
    return "None" if obj is None else f"an object of type {_type_name(obj)}"


def _type_name(obj: object) -> str:
    cls = type(obj)
    try:
        name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
        return printable(name[:_LONGEST_TYPE_NAME])
    except Exception:  # noqa: BLE001 - a metaclass may raise anything
        return "(unknown)"


# Kinds of the official client, by class name. Items of a list and models built by hand have no ``apiVersion`` and
# ``kind``, but ``V1beta1Lease`` names a version and a kind, and almost every kind has only one group. A test walks the
# installed client and fails on a class that is missing here.

_MODULES: Final = ("kubernetes.", "kubernetes_asyncio.")

# ``CoreV1Event``: group prefix (only where a name would be ambiguous), version, kind.
_CLASS_NAME: Final = re.compile(r"([A-Z][a-z]+)?V([0-9]+(?:(?:alpha|beta)[0-9]+)?)([A-Z]\w*?)(List)?")

_KINDS: Final[dict[str, str]] = {
    "": """Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node PersistentVolume
        PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service ServiceAccount
        Status""",
    "admissionregistration.k8s.io": """MutatingAdmissionPolicy MutatingAdmissionPolicyBinding
        MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
        ValidatingWebhookConfiguration""",
    "apiextensions.k8s.io": "CustomResourceDefinition",
    "apiregistration.k8s.io": "APIService",
    "apps": "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    "authentication.k8s.io": "SelfSubjectReview TokenRequest TokenReview",
    "authorization.k8s.io": """LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectRulesReview
        SubjectAccessReview""",
    "autoscaling": "HorizontalPodAutoscaler Scale",
    "batch": "CronJob Job",
    "certificates.k8s.io": "CertificateSigningRequest ClusterTrustBundle PodCertificateRequest",
    "coordination.k8s.io": "Lease LeaseCandidate",
    "discovery.k8s.io": "EndpointSlice",
    "events.k8s.io": "Event",
    "flowcontrol.apiserver.k8s.io": "FlowSchema PriorityLevelConfiguration",
    "internal.apiserver.k8s.io": "StorageVersion",
    "lifecycle.k8s.io": "Eviction EvictionRequest",
    "networking.k8s.io": "IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR",
    "node.k8s.io": "RuntimeClass",
    "policy": "Eviction PodDisruptionBudget",
    "rbac.authorization.k8s.io": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "resource.k8s.io": """DeviceClass DeviceTaintRule PodSchedulingContext ResourceClaim ResourceClaimParameters
        ResourceClaimTemplate ResourceClass ResourceClassParameters ResourcePoolStatusRequest ResourceSlice""",
    "scheduling.k8s.io": "CompositePodGroup PodGroup PriorityClass Workload",
    "storage.k8s.io": """CSIDriver CSINode CSIStorageCapacity StorageClass VolumeAttachment
        VolumeAttributesClass""",
    "storagemigration.k8s.io": "StorageVersionMigration",
}

_PREFIXES: Final = {
    "Authentication": "authentication.k8s.io",
    "Core": "",
    "Events": "events.k8s.io",
    "Resource": "resource.k8s.io",
}

# Eviction is the one kind of two groups whose class name has no prefix.
_BY_VERSION: Final = {("Eviction", "1"): "policy", ("Eviction", "1alpha1"): "lifecycle.k8s.io"}

_UNSTABLE: Final = """
    CompositePodGroup EvictionRequest LeaseCandidate PodGroup PodSchedulingContext ResourceClaimParameters
    ResourceClass ResourceClassParameters ResourcePoolStatusRequest StorageVersion Workload"""
_CLUSTER_SCOPED: Final = """
    APIService CSIDriver CSINode CertificateSigningRequest ClusterRole ClusterRoleBinding ClusterTrustBundle
    ComponentStatus CustomResourceDefinition DeviceClass DeviceTaintRule FlowSchema IPAddress IngressClass
    MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration Namespace Node PersistentVolume
    PriorityClass PriorityLevelConfiguration ResourcePoolStatusRequest ResourceSlice RuntimeClass
    SelfSubjectAccessReview SelfSubjectReview SelfSubjectRulesReview ServiceCIDR StorageClass StorageVersion
    StorageVersionMigration SubjectAccessReview TokenReview ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
    ValidatingWebhookConfiguration VolumeAttachment VolumeAttributesClass"""

_GROUPS: Final = {kind: group for group, kinds in _KINDS.items() for kind in kinds.split()}


@lru_cache(maxsize=1024)
def official_kind(module: str, name: str) -> tuple[str, str] | None:
    """Return ``(apiVersion, kind)`` for a class of the official client (``V1Pod`` ...), None for any other class.

    The arguments are the names of its module and of itself, so that the cache keeps no class alive.
    """
    match = _CLASS_NAME.fullmatch(name) if module.startswith(_MODULES) else None
    if match is None:
        return None
    prefix, version, kind, plural = match.groups()
    if kind not in _GROUPS:
        return None
    group = _PREFIXES.get(prefix) if prefix else _BY_VERSION.get((kind, version), _GROUPS[kind])
    if group is None or kind not in _KINDS[group].split():
        return None
    return (f"{group}/v{version}" if group else f"v{version}"), kind + (plural or "")


@lru_cache(maxsize=1024)
def _built_in_version(kind: str) -> str:
    """Return the apiVersion of a built-in kind. Empty for other kinds and those without a stable version."""
    if kind not in _GROUPS or kind in _UNSTABLE.split():
        return ""
    group = _BY_VERSION.get((kind, "1"), _GROUPS[kind])
    version = "v2" if kind == "HorizontalPodAutoscaler" else "v1"
    return f"{group}/{version}" if group else version


def _is_cluster_scoped(api_version: object, kind: object) -> bool:
    name = _as_text(kind)
    group = (_as_text(api_version) or "").rpartition("/")[0]
    return name in _CLUSTER_SCOPED.split() and group == _GROUPS[name]
