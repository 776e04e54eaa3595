"""The API server of the demonstration: an embedded one, or that of a kubeconfig."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any, Final

from kevents._cli.api import Api, ClusterError, MissingError
from kevents._clients.client import client_from_kubeconfig
from kevents._clients.sync import CoreV1EventSink
from kevents.exceptions import StatusError
from kevents.testing import APIServer

NAMESPACE: Final = "default"
_EVENTS: Final = f"/api/v1/namespaces/{NAMESPACE}/events"
_RULE: Final = 'apiGroups: [""], resources: ["events"], verbs: ["create", "patch", "list", "delete"]'
_PERMISSION: Final = f"its user lacks a permission: bind a role with the rule {_RULE} in the namespace {NAMESPACE}"


class Cluster:
    """A sink that writes to an API server, with the requests and the outage of the story.

    Args:
        kubeconfig: A kubeconfig.
        server: Its embedded server. Without one, names get a random suffix, and the outage is made in this process.
    """

    def __init__(self, kubeconfig: str, server: APIServer | None = None) -> None:
        """Connect, and check every permission with a request that changes nothing."""
        client = client_from_kubeconfig(kubeconfig)
        self.suffix = "" if server else f"-{secrets.token_hex(2)}"
        self.component = f"backup-operator{self.suffix}"
        self._api, self._sink = Api(client, kubeconfig, _PERMISSION), CoreV1EventSink(client)
        self.title = f"the API server at {self._api.host}, namespace {NAMESPACE}"
        self.outage = (
            "A real API server is not stopped for a demonstration: the connection is cut within this process. For {0} "
            "each write meets a 503, for another {0} a refused connection."
        )
        if server:
            self.title = "an embedded API server"
            self.outage = "For {0} it answers 503, for another {0} it refuses connections."
        self._server = server
        self._error: Exception | None = None  # during the outage
        self._events: list[dict[str, Any]] = []  # as last listed
        self._check_permissions()

    def _check_permissions(self) -> None:
        name = f"kevents-demo{self.suffix}"
        body = {"metadata": {"name": name, "namespace": NAMESPACE}, "involvedObject": {"namespace": NAMESPACE}}
        self.events()
        self._api.request("create", f"{_EVENTS}?dryRun=All", body)
        with suppress(MissingError):
            self._api.request("patch", f"{_EVENTS}/{name}?dryRun=All", {"count": 2})
        self.delete(name)

    def create(self, namespace: str, body: dict[str, Any], /) -> None:
        """Create an event."""
        if self._error and not self._server:
            raise self._error
        self._sink.create(namespace, body)

    def patch(self, namespace: str, name: str, patch: dict[str, Any], /) -> None:
        """Patch an event."""
        if self._error and not self._server:
            raise self._error
        self._sink.patch(namespace, name, patch)

    def events(self) -> list[dict[str, Any]]:
        """Return the stored events; during the outage, those stored before it."""
        if self._error is None:
            answer = self._api.request("list", f"{_EVENTS}?fieldSelector=source%3D{self.component}")
            self._events = answer["items"]
        return self._events

    def delete(self, name: str) -> None:
        """Delete an event, if it exists."""
        with suppress(MissingError):
            self._api.request("delete", f"{_EVENTS}/{name}")

    def clean_up(self) -> None:
        """Delete the events of the story."""
        try:
            for event in self.events():
                self.delete(event["metadata"]["name"])
        except ClusterError as error:
            left = f"events of {self.component} are left in the namespace {NAMESPACE}; they expire by themselves"
            raise ClusterError(f"{error}; {left}") from None

    def answer_503(self) -> None:
        """Begin the outage."""
        self._error = StatusError(503, "ServiceUnavailable", "scripted by the demonstration")
        if self._server:
            self._server.fail(503)

    def refuse_connections(self) -> None:
        """Make the outage worse."""
        self._error = ConnectionRefusedError("scripted by the demonstration")
        if self._server:
            self._server.stop_listening()

    def recover(self) -> None:
        """End the outage, if there is one."""
        if self._server and self._error:
            self._server.clear_faults()
            self._server.listen_again()
        self._error = None
