"""A cluster's events to durable places, none lost: the mark moves only when the destination has the bytes."""

from kevents.export._checkpoint import Checkpointed, CheckpointError
from kevents.export._deadletter import DeadLetters
from kevents.export._enricher import Enricher, EnricherStatistics
from kevents.export._exporter import Exporter
from kevents.export._file import FileSink
from kevents.export._objectstore import ObjectStoreSink
from kevents.export._options import BatchOptions, Destination, QueueOptions
from kevents.export._otlp import OtlpSink
from kevents.export._read import Damage, ReadError, read_records
from kevents.export._routes import Route, Router
from kevents.export._secrets import Secret
from kevents.export._source import ClusterEventSource
from kevents.export._statistics import DestinationStatistics, ExportStatistics, Progress, StreamStatistics
from kevents.export._stdout import StdoutSink
from kevents.export._stream import EventStream
from kevents.export._tally import SourceStatistics
from kevents.export._types import Batch, Chunk, Mark, Record, Reject, Retry, Sink, Stream
from kevents.export._webhook import WebhookSink

__all__ = [
    "Batch",
    "BatchOptions",
    "CheckpointError",
    "Checkpointed",
    "Chunk",
    "ClusterEventSource",
    "Damage",
    "DeadLetters",
    "Destination",
    "DestinationStatistics",
    "Enricher",
    "EnricherStatistics",
    "EventStream",
    "ExportStatistics",
    "Exporter",
    "FileSink",
    "Mark",
    "ObjectStoreSink",
    "OtlpSink",
    "Progress",
    "QueueOptions",
    "ReadError",
    "Record",
    "Reject",
    "Retry",
    "Route",
    "Router",
    "Secret",
    "Sink",
    "SourceStatistics",
    "StdoutSink",
    "Stream",
    "StreamStatistics",
    "WebhookSink",
    "read_records",
]
