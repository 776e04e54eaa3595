"""What the server tells about itself: groups, versions, resources, health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kevents.testing._apiserver.http import Answer, json_answer
from kevents.testing._apiserver.status import no_such_resource

if TYPE_CHECKING:
    from kevents.testing._apiserver.kinds import Kind, Kinds
    from kevents.testing._apiserver.requests import Incoming

__all__ = ["Discovery"]

Object = dict[str, Any]

_VERBS: Final = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_VERSION: Final = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.3+kevents",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "",
}
_HEALTH: Final = frozenset({"/healthz", "/livez", "/readyz"})


class Discovery:
    """Answers to the paths that name no resource.

    Args:
        kinds: What there is.
    """

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds

    def answer(self, request: Incoming) -> Answer:
        """Give the answer to a path, 404 for one that is not known.

        Raises:
            APIError: 404 for a path below a version that exists.
        """
        path = request.path.rstrip("/") or "/"
        if path in _HEALTH:
            return Answer(200, b"ok", "text/plain; charset=utf-8")
        body = self._body(path)
        if body is not None:
            return json_answer(200, body)
        parts = path.split("/")
        if parts[1:3] == ["api", "v1"]:
            raise no_such_resource()
        return Answer(404, b"404 page not found\n", "text/plain; charset=utf-8")

    def _body(self, path: str) -> Object | None:
        fixed: dict[str, Object] = {
            "/version": _VERSION,
            "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
            "/openapi/v2": {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.3"}, "paths": {}},
            "/openapi/v3": {"paths": {}},
        }
        match path.split("/")[1:]:
            case [""]:
                found: Object | None = {"paths": self._paths()}
            case ["apis"]:
                groups = [self._group(group) for group in self._groups()]
                found = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
            case ["apis", group] if group in self._groups():
                found = {"kind": "APIGroup", "apiVersion": "v1", **self._group(group)}
            case ["apis", group, version]:
                found = self._resources(group, version)
            case ["api", version]:
                found = self._resources("", version)
            case _:
                found = fixed.get(path)
        return found

    def _groups(self) -> list[str]:
        return list(dict.fromkeys(kind.group for kind in self._kinds if kind.group))

    def _group(self, name: str) -> Object:
        versions = list(dict.fromkeys(kind.version for kind in self._kinds if kind.group == name))
        listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
        return {"name": name, "versions": listed, "preferredVersion": listed[0]}

    def _resources(self, group: str, version: str) -> Object | None:
        kinds = [kind for kind in self._kinds if (kind.group, kind.version) == (group, version)]
        if not kinds:
            return None
        resources = [_resource(kind) for kind in kinds]
        head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api_version}
        return {**head, "resources": resources}

    def _paths(self) -> list[str]:
        groups = [f"/apis/{name}" for name in self._groups()]
        versions = {f"/apis/{kind.api_version}" for kind in self._kinds if kind.group}
        return sorted(
            ["/api", "/api/v1", "/apis", "/openapi/v2", "/openapi/v3", "/version", *_HEALTH, *groups, *versions]
        )


def _resource(kind: Kind) -> Object:
    body: Object = {
        "name": kind.resource,
        "singularName": kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": _VERBS,
    }
    return {**body, "shortNames": list(kind.short_names)} if kind.short_names else body
