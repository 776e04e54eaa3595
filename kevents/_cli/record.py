"""The command ``kevents record``: looks an object up, and writes one event about it."""

from __future__ import annotations

import argparse
import difflib
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple, NoReturn, TextIO
from urllib.parse import quote

from kevents._broadcast.recorder import EventRecorder, default_host
from kevents._cli.api import Api, ClusterError, ExistsError, FailingError, MissingError, find
from kevents._clients.endpoint import namespace_of, pod_namespace
from kevents._model.objects import Event, EventSource, ObjectReference
from kevents.exceptions import InvalidEventError

_METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
_VERSION: Final = re.compile(r"v\d+((alpha|beta)\d+)?")
_NAME: Final = re.compile(r"[^/%\s]+")
_WAITS: Final = (0.5, 1.0, 2.0)  # seconds after each failed attempt but the last
_PERMISSION: Final = (
    'its user lacks a permission: bind a role that may "create" "events", and "get" the object; without "get", give '
    "the object's uid with --uid"
)


class UsageError(ClusterError):
    """The arguments do not name an object, or make no event."""


class Resource(NamedTuple):
    """A resource type of the server."""

    group_version: str
    name: str  # the plural
    kind: str
    namespaced: bool

    def path(self, namespace: str, name: str) -> str:
        prefix = "apis" if "/" in self.group_version else "api"
        inner = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced else ""
        return f"/{prefix}/{self.group_version}{inner}/{self.name}/{quote(name, safe='')}"


def type_and_name(text: str) -> tuple[str, str]:
    """Split ``pod/web-0``. Raises ArgumentTypeError for any other form."""
    kind, slash, name = text.partition("/")
    if not slash or not kind or not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"the object must be written TYPE/NAME, such as pod/web-0, not {text!r}")
    return kind, name


def record(options: argparse.Namespace, stream: TextIO) -> int:
    """Write an event, and its name to the stream. Returns 0 once the server has stored it.

    Raises:
        UsageError: If the arguments are wrong, or the object does not exist.
        ClusterError: If the server refuses, or does not answer.
        KubeconfigError: If the kubeconfig is unusable.
    """
    kind, name = options.object
    if not options.reason.strip():
        raise UsageError("the reason must not be empty; it is one word in CamelCase, such as BackupFailed")
    api = Api(find(options.kubeconfig, options.context), options.kubeconfig, _PERMISSION)
    namespace = options.namespace or default_namespace(options.kubeconfig, options.context)
    reference = _reference(api, kind, name, namespace, options.uid)
    event = _event(options, reference)
    path = f"/api/v1/namespaces/{quote(event.namespace, safe='')}/events"
    with suppress(ExistsError):  # an attempt whose answer was lost
        _persistently(api, "create", path, event.to_dict())
    where = f" in namespace {event.namespace}" if event.namespace != "default" else ""
    stream.write(f"event/{event.name} created{where}\n")
    return 0


def default_namespace(path: str, context: str) -> str:
    """The namespace that kubectl would use: that of the kubeconfig's context, or of the pod, else ``default``."""
    in_cluster = not path and not context and os.environ.get("KUBERNETES_SERVICE_HOST")
    return (in_cluster and pod_namespace()) or namespace_of(path, context) or "default"


def _reference(api: Api, kind: str, name: str, namespace: str, uid: str) -> ObjectReference:
    resource = _resolve(api, kind)
    version = ""
    if not uid:
        path = resource.path(namespace, name)
        try:
            metadata = _persistently(api, "get", path, what=resource.name, accept=_METADATA).get("metadata") or {}
        except MissingError:
            where = f" in namespace {namespace}" if resource.namespaced else ""
            fix = "; give its namespace with -n" if resource.namespaced else ""
            raise UsageError(f"{resource.name}/{name} does not exist{where}{fix}") from None
        uid, version = str(metadata.get("uid") or ""), str(metadata.get("resourceVersion") or "")
    return ObjectReference(
        kind=resource.kind,
        api_version=resource.group_version,
        name=name,
        namespace=namespace if resource.namespaced else "",
        uid=uid,
        resource_version=version,
    )


def _resolve(api: Api, text: str) -> Resource:
    """Find a resource type by kind, plural or short name, with an optional ``.group`` or ``.version.group``."""
    word, _, group = text.lower().partition(".")
    version, _, rest = group.partition(".")
    version, group = (version, rest) if _VERSION.fullmatch(version) else ("", group)
    names: set[str] = set()
    for group_version in _group_versions(api, group, version):
        path = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        try:
            listed = _persistently(api, "get", path, what="resource types").get("resources") or []
        except (MissingError, FailingError):  # an extension API server that is down hides only its own types
            continue
        for each in listed:
            known = {each["kind"].lower(), each["name"], each.get("singularName"), *(each.get("shortNames") or ())}
            if "/" not in each["name"]:
                names |= known - {None, ""}
                if word in known:
                    return Resource(group_version, each["name"], each["kind"], bool(each.get("namespaced")))
    close = difflib.get_close_matches(word, names, n=1)
    fix = f"; did you mean {close[0]}?" if close else "; 'kubectl api-resources' lists the types"
    raise UsageError(f"the server has no resource type {text!r}{fix}")


def _group_versions(api: Api, group: str, version: str) -> Iterator[str]:
    """The versions to search, in kubectl's order: core first, then the groups in the server's order."""
    if not group:
        yield version or "v1"
    if version and group:
        yield f"{group}/{version}"
        return
    for each in _persistently(api, "get", "/apis", what="API groups").get("groups") or []:
        if not group or each["name"] == group:
            yield (each.get("preferredVersion") or each["versions"][0])["groupVersion"]


def _persistently(api: Api, verb: str, path: str, body: object = None, **options: str) -> Any:  # noqa: ANN401
    """Make a request, again if the server is failing."""
    for wait in _WAITS:
        with suppress(FailingError):
            return api.request(verb, path, body, **options)
        time.sleep(wait)
    return api.request(verb, path, body, **options)


class _Outbox:
    """Takes the only event of a recorder."""

    now = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.events: list[Event] = []

    def publish(self, event: Event, /) -> None:
        event.serial = event.time
        self.events.append(event)

    def refuse(self, error: Exception, event: Event | None, logger: logging.Logger, /) -> NoReturn:  # noqa: ARG002
        raise error

    def omit(self, error: InvalidEventError, logger: logging.Logger, /) -> NoReturn:  # noqa: ARG002
        raise error

    def report_change(self, text: str, logger: logging.Logger, /) -> None:  # noqa: ARG002
        sys.stderr.write(f"kevents: {text}\n")


def _event(options: argparse.Namespace, reference: ObjectReference) -> Event:
    outbox = _Outbox()
    recorder = EventRecorder(EventSource(options.component, default_host()), outbox)
    try:
        recorder.event(reference, options.type, options.reason, options.message)
    except InvalidEventError as error:
        raise UsageError(str(error)) from None
    return outbox.events[0]
