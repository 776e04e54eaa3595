"""Metrics and probes of an export over HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, Final

from kevents._model.wire import printable
from kevents.export._config.table_reader import KNOWN
from kevents.export._enrich.enricher import Enricher
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics, StreamStatistics
from kevents.export._pipeline.exporter import Exporter
from kevents.export.prometheus import ExportCollector

_TEXT: Final = "text/plain; charset=utf-8"
_REQUEST_TIMEOUT: Final = 5.0  # seconds for a whole request
_MOST_CONNECTIONS: Final = 64
_POLL: Final = 0.1
_DROP_MEMORY: Final = 60.0  # seconds after the last drop until the export is ready again
LONGEST_BEAT: Final = 30.0

Answer = tuple[HTTPStatus, str, bytes]


class ListenError(Exception):
    """The server cannot listen. The text names the address and the reason."""


def unready(statistics: ExportStatistics, stale_after: float, unacknowledged_after: float) -> list[str]:
    """The reasons why an export is not ready: a stream not read yet or stale, or a sink that does not acknowledge."""
    if statistics.state != "running":
        return [f"the export is {statistics.state}"]
    streams = [_stream_trouble(stream, stale_after) for stream in statistics.streams]
    sinks = [_sink_trouble(sink, unacknowledged_after) for sink in statistics.destinations]
    return [trouble for trouble in (*streams, *sinks) if trouble]


def _stream_trouble(stream: StreamStatistics, stale_after: float) -> str:
    name = f"namespace {stream.stream.scope}" if stream.stream.scope else "all namespaces"
    if stream.position is None:
        return f"the events of {name} have not been read yet"
    if stream.silent_for > stale_after:
        return f"no answer about the events of {name} for {stream.silent_for:.0f} s"
    return ""


def _sink_trouble(sink: DestinationStatistics, unacknowledged_after: float) -> str:
    why = f": {sink.last_error}" if sink.last_error else ""
    if sink.overdue:
        return f"the sink {sink.name} has been writing for {sink.in_flight_for:.0f} s{why}"
    if sink.failing and sink.oldest_age > unacknowledged_after:
        return f"the sink {sink.name} has acknowledged nothing for {sink.silent_for:.0f} s{why}"
    return ""


def unalive(statistics: ExportStatistics) -> list[str]:
    """The reason why an export is not alive: it has ended, or its loop does not run."""
    if statistics.state == "ended":
        return ["the export has ended"]
    if statistics.beat_age > LONGEST_BEAT:
        return [f"the loop of the export has not run for {statistics.beat_age:.0f} s"]
    return []


class HealthServer:
    """Serves ``/metrics``, ``/readyz`` and ``/livez`` in its own threads. A context manager: `start` and `close`."""

    def __init__(
        self,
        exporter: Exporter,
        enricher: Enricher | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        stale_after: float = 300.0,
        unacknowledged_after: float = 60.0,
    ) -> None:
        self._exporter = exporter
        self._collector = ExportCollector(exporter, enricher)
        self._where = (host, port)
        self._limits = (stale_after, unacknowledged_after)
        self._drops: dict[str, tuple[int, float]] = {}  # by sink: the records dropped, and when that was noticed
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """The URL while it listens, else empty."""
        if self._server is None:
            return ""
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def start(self) -> HealthServer:
        """Listen, and return the server itself. Raises ListenError if the address cannot be used."""
        host, port = self._where
        try:
            self._server = _Server(host, port, self._answer)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ListenError(f"cannot listen on {host}:{port} ({why}): use another address or port") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL,), name="kevents-health", daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening, without waiting for requests in progress."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def __enter__(self) -> HealthServer:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()

    def _answer(self, path: str, accept: str) -> Answer:
        if path == "/metrics":
            return self._metrics(accept)
        if path == "/readyz":
            return _probe(self._unready())
        if path == "/livez":
            return _probe(unalive(self._exporter.statistics()))
        return HTTPStatus.NOT_FOUND, _TEXT, b"there are /metrics, /readyz and /livez\n"

    def _unready(self) -> list[str]:
        statistics, now = self._exporter.statistics(), monotonic()
        troubles = unready(statistics, *self._limits)
        for sink in statistics.destinations:
            known, noticed = self._drops.get(sink.name, (0, -_DROP_MEMORY))
            if sink.dropped > known:
                noticed = now
            self._drops[sink.name] = (sink.dropped, noticed)
            if now - noticed < _DROP_MEMORY:
                troubles.append(f"the sink {sink.name} drops records: its queue is full")
        return troubles

    def _metrics(self, accept: str) -> Answer:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - loaded by kevents.export.prometheus
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

        registry = CollectorRegistry()
        registry.register(self._collector)
        encode, kind = choose_encoder(accept)
        return HTTPStatus.OK, kind, encode(registry)


def _probe(troubles: list[str]) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
    lines = (printable(KNOWN.clean(trouble)) for trouble in troubles or ["ok"])
    return status, _TEXT, "".join(f"{line}\n" for line in lines).encode()


class _Server(ThreadingHTTPServer):
    """A server whose clients cannot exhaust it: old connections end early, and the oldest gives way to a new one."""

    daemon_threads = True  # the shutdown does not wait for them
    request_queue_size = _MOST_CONNECTIONS

    def __init__(self, host: str, port: int, answer: Callable[[str, str], Answer]) -> None:
        self.answer = answer  # to a path and the header `Accept`
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._lock = threading.Lock()
        self._opened: dict[Any, float] = {}  # the sockets, with the time of their connection, oldest first
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        with self._lock:
            excess = list(self._opened)[: max(len(self._opened) + 1 - _MOST_CONNECTIONS, 0)]
            self._opened[request] = monotonic()
        self._end(excess)
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        with self._lock:
            oldest = monotonic() - _REQUEST_TIMEOUT
            late = [request for request, opened in self._opened.items() if opened < oldest]
        self._end(late)

    def _end(self, requests: list[Any]) -> None:
        for request in requests:
            with suppress(OSError):  # closed already
                request.shutdown(socket.SHUT_RDWR)  # its thread meets the end of the stream
            with self._lock:
                self._opened.pop(request, None)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._opened.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_TIMEOUT
    server: _Server
    server_version = "kevents"
    sys_version = ""

    def do_GET(self) -> None:
        status, kind, body = self.server.answer(self.path.partition("?")[0], self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server requires

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Log nothing: probes come every few seconds."""
