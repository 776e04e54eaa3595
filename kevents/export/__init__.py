"""Exports a cluster's events to durable destinations; a position moves only after the destination has the data."""

from kevents.export._config.table_reader import Secret
from kevents.export._enrich.enricher import Enricher, EnricherStatistics
from kevents.export._model.options import BatchOptions, Destination, QueueOptions
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics, Progress, StreamStatistics
from kevents.export._model.types import Batch, Chunk, Position, Record, Reject, Retry, Sink, Stream
from kevents.export._pipeline.exporter import Exporter
from kevents.export._read.reader import Damage, ReadError, read_records
from kevents.export._route.routes import Route, Router
from kevents.export._sinks.elasticsearch import ElasticsearchSink
from kevents.export._sinks.file import FileSink, StdoutSink
from kevents.export._sinks.local_files import Checkpointed, CheckpointError, DeadLetters
from kevents.export._sinks.loki import LokiSink
from kevents.export._sinks.object_store import ObjectStoreSink
from kevents.export._sinks.otlp import OtlpSink
from kevents.export._sinks.slack import SlackSink, TeamsSink
from kevents.export._sinks.splunk import SplunkSink
from kevents.export._sinks.webhook import WebhookSink
from kevents.export._source.source import ClusterEventSource, EventStream, SourceStatistics

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
    "ElasticsearchSink",
    "Enricher",
    "EnricherStatistics",
    "EventStream",
    "ExportStatistics",
    "Exporter",
    "FileSink",
    "LokiSink",
    "ObjectStoreSink",
    "OtlpSink",
    "Position",
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
    "SlackSink",
    "SourceStatistics",
    "SplunkSink",
    "StdoutSink",
    "Stream",
    "StreamStatistics",
    "TeamsSink",
    "WebhookSink",
    "read_records",
]
