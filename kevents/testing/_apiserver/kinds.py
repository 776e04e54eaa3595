"""The kinds that the server knows, the discovery of the API, and how objects are read and shown.

Objects are shown whole, as metadata only, or as the table that kubectl prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from kevents._model.wire import format_age, parse_time
from kevents.testing._apiserver.requests import APIError, Reply, bad_request
from kevents.testing._apiserver.schema import CORE, EVENTS, META, REFERENCE, Struct, decode, from_view, to_view

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource of one API version."""

    group: str  # the API group, empty for core
    version: str  # the version of the group
    kind: str  # the kind of the objects
    resource: str  # the plural in paths
    namespaced: bool = True  # whether the objects are in namespaces
    short_names: tuple[str, ...] = ()  # abbreviations for kubectl
    struct: Struct | None = None  # the fields of the objects. None if they are not checked
    custom: bool = False  # whether it stands for a custom resource
    name_rule: str = "subdomain"  # the rule for names: `segment`, `subdomain` or `label`
    field_labels: tuple[str, ...] = ()  # the fields for field selectors, besides name and namespace
    has_status: bool = True  # whether the objects have a `status` subresource
    has_generation: bool = True  # whether the server counts changes of the spec in `metadata.generation`

    @property
    def api_version(self) -> str:
        """Group and version, as in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def bucket(self) -> str:
        """The store's name for the kind; both API versions of events share one."""
        return "events" if self.struct else f"{self.resource}.{self.group}"

    def read(self, body: object, unknown: list[str]) -> Object:
        """Convert parsed JSON into the stored form.

        Raises APIError: 400 for another kind or version. Raises DecodeError for a field of the wrong type.
        """
        view: Object = {} if body is None else self._checked(body)
        if self.struct is None:
            metadata = decode(view.get("metadata") or {}, META, unknown, "metadata")
            rest = {key: value for key, value in view.items() if key not in {"apiVersion", "kind", "metadata"}}
            return {"metadata": metadata, **rest}
        stored = from_view(decode(view, self.struct, unknown), self.group)
        stored.pop("kind", None)
        stored.pop("apiVersion", None)
        return {**stored, "metadata": stored.get("metadata", {})}

    def show(self, stored: Object) -> Object:
        """Convert the stored form into the form for clients."""
        if self.struct is not None:
            return to_view(stored, self.group, self.api_version)
        return {"kind": self.kind, "apiVersion": self.api_version, **stored}

    def _checked(self, body: object) -> Object:
        unrecognized = f"the object provided is unrecognized (must be of type {self.kind}): "
        if not isinstance(body, dict):
            what = "array" if isinstance(body, list) else "string" if isinstance(body, str) else "number"
            message = f"couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value"
            raise bad_request(unrecognized + message)
        kind, version = body.get("kind") or "", body.get("apiVersion") or ""
        if self.custom and not kind:
            raise bad_request(f"{unrecognized}Object 'Kind' is missing")
        if version and version != self.api_version:
            message = f"the API version in the data ({version}) does not match the expected API version"
            raise bad_request(f"{message} ({self.api_version})")
        if kind and kind != self.kind:
            message = f'{kind} in version "{self.version}" cannot be handled as a {self.kind}: '
            raise bad_request(f"{message}converting (v1.{kind}) to (core.{self.kind}): unknown conversion")
        return body


_CORE_LABELS: Final = (
    *(f"involvedObject.{field}" for field in REFERENCE.fields),
    *("reason", "reportingComponent", "source", "type"),
)
_EVENTS_LABELS: Final = (*(f"regarding.{field}" for field in REFERENCE.fields), "reason", "reportingController", "type")

_BUILT_IN: Final = (
    Kind("", "v1", "Event", "events", True, ("ev",), CORE, False, "segment", _CORE_LABELS, has_status=False),
    Kind(
        "events.k8s.io", "v1", "Event", "events", True, ("ev",), EVENTS, field_labels=_EVENTS_LABELS, has_status=False
    ),
    Kind("", "v1", "Namespace", "namespaces", False, ("ns",), name_rule="label", field_labels=("status.phase",)),
    Kind("", "v1", "Node", "nodes", False, ("no",), field_labels=("spec.unschedulable",)),
    Kind("", "v1", "Pod", "pods", True, ("po",), field_labels=("spec.nodeName", "status.phase")),
    Kind("", "v1", "ConfigMap", "configmaps", True, ("cm",), has_status=False, has_generation=False),
    Kind("", "v1", "Secret", "secrets", field_labels=("type",), has_status=False),
    Kind("", "v1", "Service", "services", True, ("svc",), has_generation=False),
    Kind("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",), has_status=False, has_generation=False),
    Kind("", "v1", "PersistentVolume", "persistentvolumes", False, ("pv",), has_generation=False),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", True, ("pvc",), has_generation=False),
    Kind("", "v1", "Endpoints", "endpoints", True, ("ep",), has_status=False, has_generation=False),
    Kind("apps", "v1", "Deployment", "deployments", True, ("deploy",)),
    Kind("apps", "v1", "ReplicaSet", "replicasets", True, ("rs",)),
    Kind("apps", "v1", "StatefulSet", "statefulsets", True, ("sts",)),
    Kind("apps", "v1", "DaemonSet", "daemonsets", True, ("ds",)),
    Kind("batch", "v1", "Job", "jobs"),
    Kind("batch", "v1", "CronJob", "cronjobs", True, ("cj",)),
    Kind("coordination.k8s.io", "v1", "Lease", "leases", has_status=False, has_generation=False),
    Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", has_status=False),
)

_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_HEALTH: Final = frozenset({"/healthz", "/livez", "/readyz"})
_FIXED: Final[dict[str, Object]] = {
    "/version": {
        "major": "1",
        "minor": "36",
        "gitVersion": "v1.36.3+kevents",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "",
    },
    "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "/openapi/v2": {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.3"}, "paths": {}},
    "/openapi/v3": {"paths": {}},
}


class Kinds:
    """The kinds by group, version and resource. Kinds can be added while the server runs."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        for kind in _BUILT_IN:
            self.add(kind)

    def __iter__(self) -> Iterator[Kind]:
        return iter(tuple(self._kinds.values()))

    def add(self, kind: Kind) -> None:
        """Add a kind, or replace it."""
        self._kinds[kind.group, kind.version, kind.resource] = kind

    def find(self, group: str, version: str, resource: str) -> Kind | None:
        return self._kinds.get((group, version, resource))

    def has(self, group: str, version: str) -> bool:
        return any((kind.group, kind.version) == (group, version) for kind in self)

    def has_built_in(self, group: str) -> bool:
        """Whether it is the group of a kind that is no custom resource."""
        return any(kind.group == group and not kind.custom for kind in self)

    def discover(self, path: str) -> Object | str | None:
        """Answer a path that names no resource: JSON, text, or None if it is unknown."""
        found: Object | str | None = "ok" if path in _HEALTH else _FIXED.get(path)
        match path.split("/")[1:]:
            case [""]:
                found = {"paths": self._paths()}
            case ["apis"]:
                groups = [self._group(group) for group in self._groups()]
                found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
            case ["apis", group] if group in self._groups():
                found = {"kind": "APIGroup", "apiVersion": "v1", **self._group(group)}
            case ["apis", group, version]:
                found = self._resources(group, version)
            case ["api", version]:
                found = self._resources("", version)
        return found

    def _groups(self) -> list[str]:
        return list(dict.fromkeys(kind.group for kind in self if kind.group))

    def _group(self, name: str) -> Object:
        versions = list(dict.fromkeys(kind.version for kind in self if kind.group == name))
        listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
        return {"name": name, "versions": listed, "preferredVersion": listed[0]}

    def _resources(self, group: str, version: str) -> Object | None:
        kinds = [kind for kind in self if (kind.group, kind.version) == (group, version)]
        if not kinds:
            return None
        head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api_version}
        return {**head, "resources": [_resource(kind) for kind in kinds]}

    def _paths(self) -> list[str]:
        groups = [f"/apis/{name}" for name in self._groups()]
        versions = {f"/apis/{kind.api_version}" for kind in self if kind.group}
        return sorted(["/api/v1", "/apis", *_FIXED, *_HEALTH, *groups, *versions])


def _resource(kind: Kind) -> Object:
    body: Object = {
        "name": kind.resource,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": _VERBS,
    }
    return {**body, "shortNames": list(kind.short_names)} if kind.short_names else body


@dataclass(frozen=True, slots=True)
class Shape:
    """The form that the client asked for."""

    as_: str = ""  # the parameter `as` of `Accept`: empty, `PartialObjectMetadata`, or `Table`
    include: str = ""  # the query parameter `includeObject`: how much of the object a row of a table has


_PARTIAL: Final = ("PartialObjectMetadata", "PartialObjectMetadataList")
_META: Final = "meta.k8s.io/v1"


def negotiate(accept: str, *, listed: bool = False, include: str = "") -> Shape:
    """Parse an `Accept` header: the first type that the server knows decides.

    Raises APIError: 406 if the server knows none of the types, 400 for an unknown `includeObject`.
    """
    if accept in {"", "*/*", "application/json"}:
        return Shape()
    for wish in accept.split(","):
        name, *parameters = [part.strip() for part in wish.split(";")]
        given = dict(part.partition("=")[::2] for part in parameters)
        as_ = given.get("as", "")
        if (
            name in {"*/*", "application/json"}
            and as_ in {"", "Table", _PARTIAL[listed]}
            and given.get("v", "v1") == "v1"
        ):
            if as_ == "Table" and include not in {"", "Metadata", "Object", "None"}:
                wrong = f"includeObject: Invalid value: \"{include}\": must be 'Metadata', 'Object', 'None', or empty"
                raise bad_request(f"Unable to convert to Table as requested: {wrong}")
            return Shape(as_.removesuffix("List"), include)
    types = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    raise APIError(406, "NotAcceptable", f"406: Not Acceptable\n\nAvailable representations: {types}", {})


def render(reply: Reply, shape: Shape, now: int) -> Object:
    if reply.body is not None:
        return dict(reply.body)
    if reply.metadata is None:
        return render_object(reply.kind, reply.objects[0], shape, now)
    if shape.as_ == "Table":
        return _table(reply.kind, reply.objects, dict(reply.metadata), now, shape.include)
    if shape.as_ == "PartialObjectMetadata":
        items = [_partial(stored) for stored in reply.objects]
        return {"kind": "PartialObjectMetadataList", "apiVersion": _META, "metadata": reply.metadata, "items": items}
    items = [reply.kind.show(stored) for stored in reply.objects]
    if not reply.kind.custom:
        for item in items:
            del item["kind"], item["apiVersion"]
    head = {"kind": f"{reply.kind.kind}List", "apiVersion": reply.kind.api_version}
    return {**head, "metadata": reply.metadata, "items": items}


def render_object(kind: Kind, stored: Object, shape: Shape, now: int, *, header: bool = True) -> Object:
    """Return one object; `header` is whether a table has the definitions of its columns."""
    if shape.as_ == "PartialObjectMetadata":
        return _partial(stored)
    if shape.as_ == "Table":
        version = stored["metadata"].get("resourceVersion", "")
        return _table(kind, (stored,), {"resourceVersion": version}, now, shape.include, header=header)
    return kind.show(stored)


def _partial(stored: Object) -> Object:
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": stored["metadata"]}


def _table(
    kind: Kind, objects: tuple[Object, ...], metadata: Object, now: int, include: str, *, header: bool = True
) -> Object:
    shown = {"None": lambda _: None, "Object": kind.show}.get(include, _partial)
    rows = [{"cells": _cells(kind, stored, now), "object": shown(stored)} for stored in objects]
    body: Object = {"kind": "Table", "apiVersion": _META, "metadata": metadata}
    return {**body, "columnDefinitions": _columns(kind) if header else None, "rows": rows}


_NANOSECONDS: Final = 1_000_000_000
_COLUMNS: Final = {  # a star: only in wide output
    "events": "Last Seen, Type, Reason, Object, Subobject*, Source*, Message, First Seen*, Count*, Name*",
    "namespaces.": "Name, Status, Age",
    "pods.": "Name, Ready, Status, Restarts, Age",
    "configmaps.": "Name, Data, Age",
    "nodes.": "Name, Status, Roles, Age, Version, Internal-IP*, External-IP*, OS-Image*, Kernel-Version*, "
    "Container-Runtime*",
}


def _columns(kind: Kind) -> list[Object]:
    columns = []
    for column in _COLUMNS.get(kind.bucket, "Name, Age").split(", "):
        name = column.rstrip("*")
        shown = {"name": name, "type": "string", "format": "name" if name == "Name" else ""}
        columns.append({**shown, "description": f"{name} of the {kind.kind}", "priority": int(column != name)})
    return columns


def _cells(kind: Kind, stored: Object, now: int) -> list[object]:
    if kind.bucket == "events":
        return _event_cells(stored, now)
    if kind.bucket == "nodes.":
        return _node_cells(stored, now)
    metadata, status = stored["metadata"], stored.get("status", {})
    cells: list[object] = []
    if kind.bucket == "pods.":
        statuses = status.get("containerStatuses", [])
        ready = sum(bool(status.get("ready")) for status in statuses)
        restarts = sum(status.get("restartCount", 0) for status in statuses)
        containers = stored.get("spec", {}).get("containers", [])
        cells = [f"{ready}/{len(containers)}", status.get("phase", ""), str(restarts)]
    elif kind.bucket == "namespaces.":
        cells = [status.get("phase", "")]
    elif kind.bucket == "configmaps.":
        cells = [len(stored.get("data", {}))]
    return [metadata.get("name", ""), *cells, _age(metadata.get("creationTimestamp"), now)]


def _event_cells(event: Object, now: int) -> list[object]:
    involved, source = event.get("involvedObject", {}), event.get("source", {})
    kind, name = involved.get("kind", ""), involved.get("name", "")
    first = event.get("firstTimestamp") or event.get("eventTime")
    series = event.get("series")
    last = event.get("lastTimestamp") or first if series is None else series.get("lastObservedTime")
    count = event.get("count") or 1 if series is None else series.get("count", 0)
    component = source.get("component") or event.get("reportingComponent", "")
    host = source.get("host") or event.get("reportingInstance", "")
    return [
        _age(last, now),
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind.lower()}/{name}" if name else kind.lower(),
        involved.get("fieldPath", ""),
        f"{component}, {host}" if host else component,
        event.get("message", "").strip(),
        _age(first, now),
        count,
        event["metadata"].get("name", ""),
    ]


def _node_cells(node: Object, now: int) -> list[object]:
    metadata, status = node["metadata"], node.get("status", {})
    ready = {condition.get("type"): condition.get("status") for condition in status.get("conditions", ())}.get("Ready")
    states = ["Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"]
    if node.get("spec", {}).get("unschedulable"):
        states.append("SchedulingDisabled")
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key.removeprefix(prefix) for key in metadata.get("labels", {}) if key.startswith(prefix))
    addresses = {address.get("type"): address.get("address") for address in reversed(status.get("addresses", ()))}
    info = status.get("nodeInfo", {})
    return [
        metadata["name"],
        ",".join(states),
        ",".join(roles) or "<none>",
        _age(metadata.get("creationTimestamp"), now),
        info.get("kubeletVersion", ""),
        *(addresses.get(key, "<none>") for key in ("InternalIP", "ExternalIP")),
        *(info.get(key) or "<unknown>" for key in ("osImage", "kernelVersion", "containerRuntimeVersion")),
    ]


def _age(text: str | None, now: int) -> str:
    if not text:
        return "<unknown>"
    seconds = int((now - parse_time(text)) / _NANOSECONDS)
    return "<invalid>" if seconds < -1 else format_age(seconds)
