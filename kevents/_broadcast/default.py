"""The process-wide broadcaster behind ``kevents.get_recorder``, and the reference of the process's own pod."""

from __future__ import annotations

import atexit
import logging
import os
from typing import TYPE_CHECKING, Final

from kevents._broadcast.broadcaster import EventBroadcaster
from kevents._broadcast.recorder import default_host
from kevents._clients.endpoint import is_configured, kubeconfig, pod_namespace
from kevents._clients.sync import CoreV1EventSink
from kevents._model.objects import EventSource, ObjectReference
from kevents._runtime.log import log_line
from kevents.exceptions import InvalidReferenceError

if TYPE_CHECKING:
    from kevents._broadcast.recorder import EventRecorder

_MANIFEST: Final = """ Add to the container in the pod's manifest:
  env:
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
  - {name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}"""
_EXIT_TIMEOUT: Final = 5.0
"""Seconds for pending events at the interpreter's exit, before the exit hooks that all broadcasters share."""
_NOT_CONFIGURED: Final = (
    "no Kubernetes configuration (no service account of a pod, no kubeconfig {}): events are not sent, but logged at "
    "level INFO by the logger kevents.events"
)
_broadcasters: Final[dict[str, EventBroadcaster]] = {}
"""At most one, under an empty key: ``dict.setdefault`` needs no lock, which a fork could leave locked."""


def get_recorder(source: EventSource | str) -> EventRecorder:
    """A recorder of the process-wide broadcaster, as ``logging.getLogger`` is for loggers.

    The first call makes the broadcaster. It writes to the API server of the environment: the kubeconfig, or the
    service account of the pod. Without either, events are only logged, by the logger ``kevents.events``. Pending
    events are delivered at the interpreter's exit, within 5 s, or by :func:`kevents.shutdown`. Safe in threads and
    after a fork.

    Args:
        source: The component's name; the event's host is then :func:`kevents.default_host`.

    Raises:
        TypeError: If the source is neither a text nor an :class:`~kevents.EventSource`.
    """
    broadcaster = _broadcasters.get("")
    if broadcaster is None:
        configured = is_configured()
        made = EventBroadcaster()
        if configured:
            made.start_recording_to_sink(CoreV1EventSink())
        else:
            made.start_structured_logging()
        broadcaster = _broadcasters.setdefault("", made)
        if broadcaster is made:
            atexit.register(broadcaster.flush, _EXIT_TIMEOUT)
            if not configured:
                log_line(logging.WARNING, _NOT_CONFIGURED.format(kubeconfig()))
    return broadcaster.new_recorder(EventSource(source, default_host()) if isinstance(source, str) else source)


def shutdown(timeout: float = 5.0) -> int:
    """Deliver the pending events of the recorders of :func:`get_recorder`, and end their broadcaster.

    Later events of these recorders are dropped with the reason ``shutdown``. The next call of ``get_recorder`` makes a
    new broadcaster. Without a broadcaster nothing happens.

    Args:
        timeout: Seconds after which pending events are dropped.

    Returns:
        The number of dropped events.
    """
    broadcaster = _broadcasters.pop("", None)
    return 0 if broadcaster is None else broadcaster.shutdown(timeout)


def own_pod() -> ObjectReference:
    """The pod in which this process runs, from the variables ``POD_NAME``, ``POD_NAMESPACE`` and ``POD_UID``.

    Without ``POD_NAMESPACE``, the namespace of the pod's service account is used. Without ``POD_UID``, the reference
    has no uid. ``kubectl describe pod`` then does not list its events, and this is logged.

    Raises:
        InvalidReferenceError: The name or the namespace is not known. The text says what to add to the pod's manifest.
    """
    name = os.environ.get("POD_NAME", "")
    namespace = os.environ.get("POD_NAMESPACE") or pod_namespace()
    if not name or not namespace:
        missing = "POD_NAMESPACE" if name else "POD_NAME"
        raise InvalidReferenceError(f"this process's pod is not known: {missing} is not set.{_MANIFEST}")
    uid = os.environ.get("POD_UID", "")
    if not uid:
        text = f"POD_UID is not set: 'kubectl describe pod {name}' does not list events without a uid.{_MANIFEST}"
        log_line(logging.WARNING, text)
    return ObjectReference(kind="Pod", api_version="v1", namespace=namespace, name=name, uid=uid)
