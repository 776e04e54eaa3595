"""A cluster's metadata in memory, behind an imitation of the official client. It fails on demand."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import unquote

from kevents.export import Record, Stream

__all__ = ["UIDS", "Cluster", "Reply", "record"]

STREAM: Final = Stream("cluster")
CORE: Final = {"Pod": "pods", "Node": "nodes", "Secret": "secrets", "Service": "services"}
APPS: Final = {"ReplicaSet": "replicasets", "Deployment": "deployments"}


def UIDS(number: int) -> str:  # noqa: N802 - reads as a constant with an index
    """A UID as servers give them."""
    return f"00000000-0000-4000-8000-{number:012d}"


@dataclass
class Reply:
    """An answer that the test provides."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def read(self, most: int) -> bytes:
        """Return the body once."""
        part, self.body = self.body[:most], self.body[most:]
        return part

    def close(self) -> None:
        """Nothing to close."""

    release_conn = close


class Cluster:
    """The objects of a cluster, served as an API server serves them.

    Attributes:
        requests: The requested paths, in order.
        accepts: The requested `Accept` header, by path.
        answer: Called with the path before each answer. Its result, unless None, replaces the answer.
        verbs: The verbs of each kind in discovery. Lists are served only with "list".
        page: The number of objects on a page of a list.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.accepts: dict[str, str] = {}
        self.answer: Callable[[str], Reply | None] = lambda path: None
        self.verbs = ["get"]
        self.page = 500
        self.versions: dict[str, dict[str, str]] = {"v1": dict(CORE), "apps/v1": dict(APPS)}
        self._objects: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._rv = 100

    @property
    def api(self) -> Any:
        """An object that stands for a `CoreV1Api`."""
        configuration = SimpleNamespace(host="", auth_settings=dict)
        rest = SimpleNamespace(pool_manager=SimpleNamespace(request=self._request))
        client = SimpleNamespace(rest_client=rest, configuration=configuration, default_headers={})
        return SimpleNamespace(api_client=client, create_namespaced_event=print)

    def put(self, kind: str, name: str, uid: str, namespace: str = "default", **metadata: Any) -> str:
        """Create or change an object. Returns its resourceVersion."""
        self._rv += 1
        where = {} if kind == "Node" else {"namespace": namespace}
        body = {"name": name, **where, "uid": uid, "resourceVersion": str(self._rv), **metadata}
        self._objects[self._path(kind, namespace, name)] = body
        return str(self._rv)

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Delete an object."""
        del self._objects[self._path(kind, namespace, name)]

    def set_version(self, kind: str, name: str, rv: str, namespace: str = "default") -> None:
        """Set the resourceVersion of an object."""
        self._objects[self._path(kind, namespace, name)]["resourceVersion"] = rv

    def labels(self, kind: str, name: str, namespace: str = "default") -> dict[str, str] | None:
        """The labels of an object; None if it does not exist."""
        found = self._objects.get(self._path(kind, namespace, name))
        return None if found is None else found.get("labels", {})

    def counts(self) -> Counter[str]:
        """The number of requests by path."""
        return Counter(self.requests)

    def objects_read(self) -> list[str]:
        """The requested paths of objects, without discovery."""
        return [path for path in self.requests if path.count("/") > 3 or "/nodes/" in path]

    def _path(self, kind: str, namespace: str, name: str) -> str:
        version, resource = next((v, kinds[kind]) for v, kinds in self.versions.items() if kind in kinds)
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        return f"{base}/nodes/{name}" if kind == "Node" else f"{base}/namespaces/{namespace}/{resource}/{name}"

    def _request(self, method: str, url: str, *, headers: dict[str, str], **options: Any) -> Reply:
        path = unquote(url.partition("?")[0])
        with self._lock:
            self.requests.append(path)
            self.accepts[path] = headers["Accept"]
        special = self.answer(path)
        if special is not None:
            return special
        found = (
            self._discovery(path) or self._object(path, headers["Accept"]) or self._list(path, url, headers["Accept"])
        )
        if found is None:
            details = {"name": path.rpartition("/")[2]}
            return Reply(404, json.dumps({"kind": "Status", "code": 404, "details": details}).encode())
        return Reply(200, json.dumps(found).encode())

    def _discovery(self, path: str) -> dict[str, Any] | None:
        groups = [version.partition("/") for version in self.versions if "/" in version]
        if path == "/apis":
            listed = [{"name": g, "versions": [{"groupVersion": f"{g}/{v}", "version": v}]} for g, _, v in groups]
            return {"kind": "APIGroupList", "groups": listed}
        for version, kinds in self.versions.items():
            if path == (f"/apis/{version}" if "/" in version else f"/api/{version}"):
                resources = [
                    {"name": resource, "kind": kind, "namespaced": kind != "Node", "verbs": self.verbs}
                    for kind, resource in kinds.items()
                ]
                return {"kind": "APIResourceList", "resources": resources}
        return None

    def _list(self, path: str, url: str, accept: str) -> dict[str, Any] | None:
        prefix = f"{path}/"
        if "list" not in self.verbs or not path.endswith((*CORE.values(), *APPS.values())):
            return None
        names = sorted(found for found in self._objects if found.startswith(prefix) and "/" not in found[len(prefix) :])
        begin = int(url.partition("continue=")[2].partition("&")[0] or 0)
        shown, left = names[begin : begin + self.page], len(names) - begin - self.page
        metadata = {"continue": str(begin + self.page), "remainingItemCount": left} if left > 0 else {}
        objects = [self._object(name, accept) or {} for name in shown]
        if "as=Table" not in accept:
            return {"kind": "PartialObjectMetadataList", "metadata": metadata, "items": objects}
        rows = [row for table in objects for row in table["rows"]]
        columns = [{"name": "Name"}, {"name": "Internal-IP"}, {"name": "External-IP"}]
        return {"kind": "Table", "metadata": metadata, "columnDefinitions": columns, "rows": rows}

    def _object(self, path: str, accept: str) -> dict[str, Any] | None:
        metadata = self._objects.get(path)
        if metadata is None:
            return None
        partial = {"kind": "PartialObjectMetadata", "metadata": {k: v for k, v in metadata.items() if k != "address"}}
        if "as=Table" not in accept:
            return partial
        columns = [{"name": "Name"}, {"name": "Internal-IP"}, {"name": "External-IP"}]
        cells = [metadata["name"], metadata.get("address", "<none>"), "<none>"]
        return {"kind": "Table", "columnDefinitions": columns, "rows": [{"cells": cells, "object": partial}]}


def record(
    kind: str = "Pod",
    name: str = "web-0",
    uid: str = "",
    rv: str = "",
    *,
    read_at: float = 0.0,
    time: str = "2026-11-22T12:00:00Z",
    host: str = "",
    **involved: Any,
) -> Record:
    """A record of an event about an object."""
    version = "apps/v1" if kind in APPS else "v1"
    where = {} if kind == "Node" else {"namespace": "default"}
    reference = {"apiVersion": version, "kind": kind, **where, "name": name, "uid": uid, "resourceVersion": rv}
    body = {
        "metadata": {"namespace": "default", "name": "e", "creationTimestamp": time},
        "involvedObject": {**{key: value for key, value in reference.items() if value}, "deleted": False, **involved},
        "source": {"host": host} if host else {},
        "kevents": {"v": 1, "id": "e:1", "time": time},
    }
    return Record(STREAM, 1, body, read_at)
