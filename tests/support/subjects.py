"""One interface for the embedded and the real API server, so that the same tests run against both."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import ssl
from typing import TYPE_CHECKING, Any, Protocol

from kevents.testing._apiserver.server import APIServer
from tests.support.real_server import RealServer, Response, send

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EmbeddedSubject", "RealSubject", "Subject", "Wire"]

VERBS = {"recorder": {"create", "patch"}, "creator": {"create"}, "stranger": set[str]()}
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Subject(Protocol):
    """An API server under test."""

    tokens: dict[str, str]

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""

    def register_widgets(self) -> None:
        """Register the custom resource `widgets` in `example.com/v1`."""

    def compact(self) -> None:
        """Compact the history up to now."""


class EmbeddedSubject:
    """The embedded server."""

    def __init__(self, server: APIServer) -> None:
        self.server = server
        self.tokens = {"admin": server.token, **{name: secrets.token_hex(8) for name in VERBS}}
        for name, verbs in VERBS.items():
            server.add_user(self.tokens[name], name, verbs)

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)

    def register_widgets(self) -> None:
        """Register the custom resource."""
        self.server.register("example.com/v1", "Widget", "widgets")

    def compact(self) -> None:
        """Compact the history up to now."""
        self.server.compact()


class RealSubject:
    """A real server."""

    def __init__(self, server: RealServer) -> None:
        self.server = server
        self.tokens = server.tokens

    def connect(self) -> http.client.HTTPConnection:
        """Return a new connection."""
        context = ssl.create_default_context(cafile=str(self.server.ca_file))
        return http.client.HTTPSConnection("127.0.0.1", self.server.port, timeout=60, context=context)

    def register_widgets(self) -> None:
        """Register the custom resource, and wait until it is served."""
        self.server.register("example.com/v1", "Widget", "widgets")

    def compact(self) -> None:
        """Compact the history up to now."""
        self.server.compact()


class Wire:
    """Raw requests to a server, in the test's own namespace.

    Attributes:
        namespace: The namespace.
        events: The path of its events in core/v1.
        new_events: The same in events.k8s.io/v1.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.namespace = f"t-{secrets.token_hex(6)}"
        self.events = f"/api/v1/namespaces/{self.namespace}/events"
        self.new_events = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        self.ok("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        user: str = "admin",
        token: str | None = None,
        content_type: str = "application/json",
        accept: str = "",
    ) -> Response:
        """Send one request as a user, or with a token (empty for none)."""
        given = self.subject.tokens[user] if token is None else token
        return send(self.subject.connect(), method, path, body, token=given, content_type=content_type, accept=accept)

    def ok(self, method: str, path: str, body: object = None, content_type: str = "application/json") -> Any:
        """Send a request that must succeed, and return the body of the response without `managedFields`."""
        response = self.request(method, path, body, content_type=content_type)
        assert response.status in {200, 201}, response.body
        return bare(response.body)

    def patch(self, name: str, body: object, content_type: str = STRATEGIC, *, new: bool = False) -> Response:
        """Patch an event."""
        base = self.new_events if new else self.events
        return self.request("PATCH", f"{base}/{name}", body, content_type=content_type)

    def event(self, name: str = "pod.1", **fields: object) -> dict[str, Any]:
        """The body of a core/v1 event as recorders write it."""
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self.namespace},
            "involvedObject": {"kind": "Pod", "namespace": self.namespace, "name": "pod", "apiVersion": "v1"},
            "reason": "Started",
            "message": "hello",
            "source": {"component": "c", "host": "h"},
            "firstTimestamp": "2026-07-24T09:00:00Z",
            "lastTimestamp": "2026-07-24T09:00:00Z",
            "count": 1,
            "type": "Normal",
            "reportingComponent": "c",
            "reportingInstance": "h",
        }
        return {**body, **fields}

    def new_event(self, name: str = "pod.1", **fields: object) -> dict[str, Any]:
        """The body of an events.k8s.io/v1 event as recorders write it."""
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": self.namespace},
            "eventTime": "2026-07-24T09:00:00.123456Z",
            "reportingController": "c",
            "reportingInstance": "h",
            "action": "Starting",
            "reason": "Started",
            "regarding": {"kind": "Pod", "namespace": self.namespace, "name": "pod", "apiVersion": "v1"},
            "note": "hello",
            "type": "Normal",
        }
        return {**body, **fields}

    @contextlib.contextmanager
    def watching(self, path: str, accept: str = "") -> Iterator[Iterator[dict[str, Any]]]:
        """Open a watch, and yield its parsed lines without `managedFields`."""
        connection = self.subject.connect()
        headers = {"Authorization": f"Bearer {self.subject.tokens['admin']}"}
        if accept:
            headers["Accept"] = accept
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            with connection.getresponse() as answer:
                yield (bare(json.loads(line)) for line in iter(answer.readline, b""))


def bare(value: Any) -> Any:
    """Return JSON without `managedFields`, which the embedded server does not keep."""
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if key != "managedFields"}
    return [bare(item) for item in value] if isinstance(value, list) else value
