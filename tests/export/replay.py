"""An API server without computing cost: it sends events prepared in advance, at full speed or at a given rate.

A measurement against it measures the export alone. It serves the requests of a source and an enricher: the namespace
kube-system, list pages and watches of events, discovery, and the metadata of pods, their owners and nodes. Run as a
program, it prints its port and exits when its standard input is closed.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

CLUSTER: Final = "5f0e7a52-2c33-4f8e-9c55-0d7c1f1f7a11"
BURST: Final = 200
BEFORE: Final = 1000
"""The resourceVersion before that of the first event."""

_EVENT: Final = (
    '{"kind":"Event","apiVersion":"v1","metadata":{"name":"web-%(pod)05d.18%(rv)014x","namespace":"prod",'
    '"uid":"%(rv)08x-8f6c-4c1b-9d53-6a0c5f1e2b3d","resourceVersion":"%(rv)d","creationTimestamp":"%(now)s",'
    '"managedFields":[{"manager":"kubelet","operation":"Update","apiVersion":"v1","time":"%(now)s",'
    '"fieldsType":"FieldsV1","fieldsV1":{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},'
    '"f:lastTimestamp":{},"f:message":{},"f:reason":{},"f:reportingComponent":{},"f:reportingInstance":{},'
    '"f:source":{"f:component":{},"f:host":{}},"f:type":{}}}]},"involvedObject":{"kind":"Pod","namespace":"prod",'
    '"name":"web-%(pod)05d","uid":"%(pod)08x-aaaa-4bbb-8ccc-0123456789ab","apiVersion":"v1",'
    '"resourceVersion":"1","fieldPath":"spec.containers{app}"},"reason":"%(reason)s",'
    '"message":"Back-off %(salt)x restarting failed container app in pod web-%(pod)05d_prod at %(sent)d",'
    '"source":{"component":"kubelet","host":"node-%(node)02d"},"firstTimestamp":"%(now)s",'
    '"lastTimestamp":"%(now)s","count":1,"type":"Warning","eventTime":null,"reportingComponent":"kubelet",'
    '"reportingInstance":"node-%(node)02d"}'
)


@dataclass(frozen=True)
class Plan:
    """The contents of the cluster.

    Attributes:
        listed: Number of events that exist at the start.
        watched: Number of events that arrive during the watch.
        rate: Events per second; 0: as fast as they are read.
        objects: Number of pods that the events are about.
    """

    listed: int = 0
    watched: int = 0
    rate: float = 0.0
    objects: int = 1000


def event(rv: int, plan: Plan) -> bytes:
    """Return the n-th event as the server writes it. Its message ends with its creation time on the monotonic clock."""
    values = {
        "rv": BEFORE + rv,
        "pod": rv * 7919 % plan.objects,
        "node": rv % 50,
        "reason": ("BackOff", "Unhealthy", "Failed", "Pulled")[rv % 4],
        "salt": rv * 2654435761 % 2**32,
        "sent": time.monotonic_ns(),
        "now": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return (_EVENT % values).encode()


def frame(item: bytes) -> bytes:
    """Return a watch event in its own chunk, as the real server sends it."""
    line = b'{"type":"ADDED","object":' + item + b"}\n"
    return b"%x\r\n%s\r\n" % (len(line), line)


def metadata(kind: str, name: str, uid: str, owner: tuple[str, str, str] | None) -> bytes:
    """Return the metadata of an object."""
    owners = (
        [dict(zip(("kind", "name", "uid"), owner, strict=True), apiVersion="apps/v1", controller=True)] if owner else []
    )
    labels = {"app": "web", "tier": "front", "pod-template-hash": "6b7f9c5d4"}
    annotations = {"team": "blue", "checksum/config": "9f86d081884c7d659a2feaa0c55ad015"}
    body = {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {
            "name": name, "namespace": "prod", "uid": uid, "resourceVersion": "5",
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": labels, "annotations": annotations,
            "ownerReferences": owners,
        },
    }  # fmt: skip
    return json.dumps(body).encode()


def node(name: str) -> bytes:
    """Return a node as a table with its metadata."""
    meta = {"name": name, "uid": f"uid-{name}", "resourceVersion": "5", "creationTimestamp": "2026-01-01T00:00:00Z"}
    row = {"cells": [name, "10.0.0.7"], "object": {"metadata": meta}}
    columns = [{"name": "Name"}, {"name": "Internal-IP"}]
    return json.dumps({"kind": "Table", "columnDefinitions": columns, "rows": [row]}).encode()


def resources(*kinds: tuple[str, str, bool]) -> bytes:
    """Return a discovery document."""
    listed = [{"kind": kind, "name": name, "namespaced": spaced, "verbs": ["get"]} for kind, name, spaced in kinds]
    return json.dumps({"kind": "APIResourceList", "resources": listed}).encode()


DISCOVERY: Final = {
    "/api/v1": resources(("Pod", "pods", True), ("Node", "nodes", False), ("Event", "events", True)),
    "/apis": json.dumps({"groups": [{"name": "apps", "versions": [{"version": "v1"}]}]}).encode(),
    "/apis/apps/v1": resources(("ReplicaSet", "replicasets", True), ("Deployment", "deployments", True)),
    "/api/v1/namespaces/kube-system": json.dumps({"metadata": {"name": "kube-system", "uid": CLUSTER}}).encode(),
}


class Cluster:
    """The server's contents, prepared before the first request.

    Args:
        plan: The contents of the cluster.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.items = [event(rv, plan) for rv in range(1, plan.listed + 1)]
        quick = () if plan.rate else range(plan.listed + 1, plan.listed + plan.watched + 1)
        frames = [frame(event(rv, plan)) for rv in quick]
        self.pieces = [b"".join(frames[first : first + BURST]) for first in range(0, len(frames), BURST)]
        self.sent = plan.listed
        self.begun = time.monotonic()

    def page(self, start: int, limit: int) -> bytes:
        """Return a page of the list."""
        end = min(start + limit, len(self.items))
        more = {"continue": str(end), "remainingItemCount": len(self.items) - end} if end < len(self.items) else {}
        meta = json.dumps({"resourceVersion": str(BEFORE + self.plan.listed), **more}).encode()
        items = b",".join(self.items[start:end])
        return b'{"kind":"EventList","apiVersion":"v1","metadata":' + meta + b',"items":[' + items + b"]}"

    def object(self, path: str) -> bytes | None:
        """Return the metadata at a path."""
        kind, _, name = path.rpartition("/")[0].rpartition("/")[2], "", path.rpartition("/")[2]
        if kind == "pods":
            uid = f"{int(name[4:]):08x}-aaaa-4bbb-8ccc-0123456789ab"
            return metadata("Pod", name, uid, ("ReplicaSet", "web-6b7f9c5d4", "uid-rs"))
        if kind == "replicasets":
            return metadata("ReplicaSet", name, "uid-rs", ("Deployment", "web", "uid-deploy"))
        if kind == "deployments":
            return metadata("Deployment", name, "uid-deploy", None)
        return node(name) if kind == "nodes" else None

    def watched(self, version: int) -> Any:
        """Yield the watch in pieces."""
        if not self.plan.rate:
            yield from self.pieces[(version - BEFORE - self.plan.listed) // BURST :]
            return
        begun, sent = time.monotonic(), 0
        while sent < self.plan.watched:
            due = min(int((time.monotonic() - begun) * self.plan.rate), self.plan.watched)
            first = self.plan.listed + sent + 1
            if due > sent:
                yield b"".join(frame(event(rv, self.plan)) for rv in range(first, first + due - sent))
            sent = due
            time.sleep(0.005)


class Handler(BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    cluster: Cluster
    over: threading.Event

    def do_GET(self) -> None:
        """Answer a request."""
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path.endswith("/events"):
            if query.get("watch") in {"true", "True", "1"}:
                return self._watch(int(query.get("resourceVersion") or 0))
            body = self.cluster.page(int(query.get("continue") or 0), int(query.get("limit") or 500))
        else:
            body = DISCOVERY.get(parts.path) or self.cluster.object(parts.path) or b""
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()
        return None

    def _watch(self, version: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        for piece in self.cluster.watched(version):
            self.wfile.write(piece)
            self.wfile.flush()
        self.over.wait()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Server(ThreadingHTTPServer):
    """Listens on loopback and ignores closed connections."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Serve until the standard input is closed."""
    Handler.cluster = Cluster(Plan(**json.loads(sys.argv[1])))
    Handler.over = threading.Event()
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
