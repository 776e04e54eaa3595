"""The kinds that an API server knows, and how their objects are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.events import CORE, EVENTS, from_view, to_view
from kevents.testing._apiserver.schema import META, DecodeError, Struct, decode
from kevents.testing._apiserver.status import bad_request

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Kind", "Kinds"]

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource of one API version.

    Attributes:
        group: The API group, empty for core.
        version: The version in it.
        kind: The kind of its objects.
        resource: The plural, as paths have it.
        namespaced: Whether its objects live in namespaces.
        short_names: Abbreviations for kubectl.
        struct: The fields of its objects; None when they are not checked.
        custom: Whether it stands for a custom resource.
        name_rule: What a name must be: `segment`, `subdomain` or `label`.
        field_labels: What a field selector may name, besides name and namespace.
        has_status: Whether its objects have a status, with a path of its own.
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

    @property
    def api_version(self) -> str:
        """Group and version as objects carry them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def bucket(self) -> str:
        """Where the store keeps the objects; both views of events share one."""
        return "events" if self.struct else f"{self.resource}.{self.group}"

    def read(self, body: object, unknown: list[str]) -> Object:
        """Read an object from parsed JSON into its stored form.

        Args:
            body: What the client sent.
            unknown: Collects the paths of unknown fields.

        Raises:
            APIError: 400 for another kind or version.
            DecodeError: A field has the wrong shape.
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
        """Give a stored object as clients see it."""
        if self.struct is not None:
            return to_view(stored, self.group, self.api_version)
        return {"kind": self.kind, "apiVersion": self.api_version, **stored}

    def _checked(self, body: object) -> Object:
        if not isinstance(body, dict):
            what = "array" if isinstance(body, list) else "string" if isinstance(body, str) else "number"
            message = f"couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go value"
            raise bad_request(f"the object provided is unrecognized (must be of type {self.kind}): {message}")
        kind, version = body.get("kind") or "", body.get("apiVersion") or ""
        if self.custom and not kind:
            message = f"the object provided is unrecognized (must be of type {self.kind}): Object 'Kind' is missing"
            raise bad_request(message)
        if version and version != self.api_version:
            message = f"the API version in the data ({version}) does not match the expected API version"
            raise bad_request(f"{message} ({self.api_version})")
        if kind and kind != self.kind:
            message = f'{kind} in version "{self.version}" cannot be handled as a {self.kind}: '
            raise bad_request(f"{message}converting (v1.{kind}) to (core.{self.kind}): unknown conversion")
        return body


_INVOLVED: Final = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

BUILT_IN: Final = (
    Kind(
        "",
        "v1",
        "Event",
        "events",
        short_names=("ev",),
        struct=CORE,
        has_status=False,
        name_rule="segment",
        field_labels=(*(f"involvedObject.{f}" for f in _INVOLVED), "reason", "reportingComponent", "source", "type"),
    ),
    Kind(
        "events.k8s.io",
        "v1",
        "Event",
        "events",
        short_names=("ev",),
        struct=EVENTS,
        has_status=False,
        field_labels=(*(f"regarding.{f}" for f in _INVOLVED), "reason", "reportingController", "type"),
    ),
    Kind("", "v1", "Namespace", "namespaces", False, ("ns",), name_rule="label", field_labels=("status.phase",)),
    Kind("", "v1", "Node", "nodes", False, ("no",), field_labels=("spec.unschedulable",)),
    Kind("", "v1", "Pod", "pods", True, ("po",), field_labels=("spec.nodeName", "status.phase")),
    Kind("", "v1", "ConfigMap", "configmaps", True, ("cm",), has_status=False),
    Kind("", "v1", "Secret", "secrets", field_labels=("type",), has_status=False),
    Kind("", "v1", "Service", "services", True, ("svc",)),
    Kind("apps", "v1", "Deployment", "deployments", True, ("deploy",)),
    Kind("apps", "v1", "ReplicaSet", "replicasets", True, ("rs",)),
    Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", has_status=False),
)


class Kinds:
    """The kinds by group, version and resource; more may be added while a server runs."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        for kind in BUILT_IN:
            self.add(kind)

    def __iter__(self) -> Iterator[Kind]:
        """Give all kinds, in the order in which they were added."""
        return iter(tuple(self._kinds.values()))

    def add(self, kind: Kind) -> None:
        """Add a kind, or replace it."""
        self._kinds[kind.group, kind.version, kind.resource] = kind

    def find(self, group: str, version: str, resource: str) -> Kind | None:
        """Give the kind that answers to a path; None for none."""
        return self._kinds.get((group, version, resource))

    def has(self, group: str, version: str) -> bool:
        """Tell whether there is such a group and version."""
        return any((kind.group, kind.version) == (group, version) for kind in self)


__all__ += ["DecodeError"]
