"""The kinds that the server knows, how their objects are read and shown, and the discovery of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.events import CORE, EVENTS, from_view, to_view
from kevents.testing._apiserver.requests import bad_request
from kevents.testing._apiserver.schema import META, Struct, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource of one API version.

    Attributes:
        group: The API group, empty for core.
        version: The version of the group.
        kind: The kind of the objects.
        resource: The plural in paths.
        namespaced: Whether the objects are in namespaces.
        short_names: Abbreviations for kubectl.
        struct: The fields of the objects; None if they are not checked.
        custom: Whether it stands for a custom resource.
        name_rule: The rule for names: `segment`, `subdomain` or `label`.
        field_labels: The fields for field selectors, besides name and namespace.
        has_status: Whether the objects have a `status` subresource.
        has_generation: Whether the server counts changes of the spec in `metadata.generation`.
    """

    group: str
    version: str
    kind: str
    resource: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    struct: Struct | None = None
    custom: bool = False
    name_rule: str = "subdomain"
    field_labels: tuple[str, ...] = ()
    has_status: bool = True
    has_generation: bool = True

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

        Args:
            body: The parsed JSON.
            unknown: Gets the paths of unknown fields.

        Raises:
            APIError: 400 for another kind or version.
            DecodeError: A field has the wrong type.
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


_REFERENCE_FIELDS: Final = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_INVOLVED: Final = tuple(f"involvedObject.{field}" for field in _REFERENCE_FIELDS)
_REGARDING: Final = tuple(f"regarding.{field}" for field in _REFERENCE_FIELDS)

_BUILT_IN: Final = (
    Kind(
        "",
        "v1",
        "Event",
        "events",
        short_names=("ev",),
        struct=CORE,
        has_status=False,
        name_rule="segment",
        field_labels=(*_INVOLVED, "reason", "reportingComponent", "source", "type"),
    ),
    Kind(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        short_names=("ev",),
        struct=EVENTS,
        has_status=False,
        field_labels=(*_REGARDING, "reason", "reportingController", "type"),
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
        """Return the kind of a path, or None."""
        return self._kinds.get((group, version, resource))

    def has(self, group: str, version: str) -> bool:
        """Whether there is such a group and version."""
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
