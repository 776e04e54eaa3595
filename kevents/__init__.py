"""The Kubernetes event recorder for Python: client-go's ``tools/record``, faithful, bounded and never silent.

A recorder emits into a broadcaster, whose watchers log, call handlers, or write to the API server::

    import kevents

    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())
        recorder = broadcaster.new_recorder("backup-operator")
        recorder.event(pod, "Warning", "BackupFailed", "the bucket is gone")
"""

import importlib
import sys
import typing

from kevents._broadcast.broadcaster import EventBroadcaster
from kevents._broadcast.default import get_recorder, own_pod, shutdown
from kevents._broadcast.recorder import BoundRecorder, EventRecorder, Recorder, default_host
from kevents._broadcast.watcher import Watcher
from kevents._clients.errors import client_errors
from kevents._clients.sync import CoreV1EventSink, EventSink
from kevents._correlation.correlator import (
    EventAggregator,
    EventCorrelateResult,
    EventCorrelator,
    EventSourceObjectSpamFilter,
)
from kevents._correlation.options import (
    CorrelatorOptions,
    event_aggregator_by_reason_func,
    event_aggregator_by_reason_message_func,
    get_spam_key,
    spam_key_by_object_and_reason,
)
from kevents._model.objects import EVENT_TYPE_NORMAL, EVENT_TYPE_WARNING, Event, EventSource, EventType, ObjectReference
from kevents._model.reference import get_partial_reference, get_reference, register
from kevents._model.statistics import DropReason, SinkStatistics, Statistics, WatcherStatistics
from kevents.exceptions import (
    InvalidEventError,
    InvalidMessageError,
    InvalidReferenceError,
    InvalidTypeError,
    KeventsError,
    SinkError,
    StatusError,
    UnavailableError,
)

__version__ = "0.1.0"

_MODULES = ("aio", "events", "export", "kopf", "log_handler", "prometheus", "testing")

if not typing.TYPE_CHECKING:  # a type checker asks for the import of the module

    def __getattr__(name: str) -> object:
        """Import a public module at its first use, as ``kevents.aio`` after ``import kevents``."""
        if name in _MODULES:
            return importlib.import_module(f"kevents.{name}")
        raise AttributeError(f"module 'kevents' has no attribute {name!r}", name=name, obj=sys.modules[__name__])


__all__ = [
    "EVENT_TYPE_NORMAL",
    "EVENT_TYPE_WARNING",
    "BoundRecorder",
    "CoreV1EventSink",
    "CorrelatorOptions",
    "DropReason",
    "Event",
    "EventAggregator",
    "EventBroadcaster",
    "EventCorrelateResult",
    "EventCorrelator",
    "EventRecorder",
    "EventSink",
    "EventSource",
    "EventSourceObjectSpamFilter",
    "EventType",
    "InvalidEventError",
    "InvalidMessageError",
    "InvalidReferenceError",
    "InvalidTypeError",
    "KeventsError",
    "ObjectReference",
    "Recorder",
    "SinkError",
    "SinkStatistics",
    "Statistics",
    "StatusError",
    "UnavailableError",
    "Watcher",
    "WatcherStatistics",
    "client_errors",
    "default_host",
    "event_aggregator_by_reason_func",
    "event_aggregator_by_reason_message_func",
    "get_partial_reference",
    "get_recorder",
    "get_reference",
    "get_spam_key",
    "own_pod",
    "register",
    "shutdown",
    "spam_key_by_object_and_reason",
]
