"""Metrics and probes over HTTP: is the export ready, is it alive, and what its ledgers say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from kevents._model.wire import printable
from kevents.export._config.secrets import KNOWN
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics, StreamStatistics
from kevents.export.prometheus import ExportCollector, HasLookUps, HasStatistics

_TEXT: Final = "text/plain; charset=utf-8"
_SLOWEST_CLIENT: Final = 5.0
_POLL: Final = 0.1
LONGEST_BEAT: Final = 30.0


class ListenError(Exception):
    """The address cannot be had; the text names it, and why."""


def unready(statistics: ExportStatistics, stale_after: float, unacknowledged_after: float) -> list[str]:
    """Say why an export is not ready: it has not read, a position is stale, a sink does not acknowledge.

    Args:
        statistics: Its ledgers.
        stale_after: Seconds without a word of a stream after which its position is stale.
        unacknowledged_after: Seconds that a record may wait for a sink that fails.

    Returns:
        The reasons; none if it is ready.
    """
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
        return f"nothing has been heard of the events of {name} for {stream.silent_for:.0f} s"
    return ""


def _sink_trouble(sink: DestinationStatistics, unacknowledged_after: float) -> str:
    why = f": {sink.last_error}" if sink.last_error else ""
    if sink.overdue:
        return f"the sink {sink.name} has been writing for {sink.in_flight_for:.0f} s{why}"
    if sink.failing and sink.oldest_age > unacknowledged_after:
        return f"the sink {sink.name} has acknowledged nothing for {sink.silent_for:.0f} s{why}"
    return ""


def unalive(statistics: ExportStatistics) -> list[str]:
    """Say why an export is not alive: it has ended, or its loop does not beat; nothing if it is."""
    if statistics.state == "ended":
        return ["the export has ended"]
    if statistics.beat_age > LONGEST_BEAT:
        return [f"the export has not looked after its parts for {statistics.beat_age:.0f} s"]
    return []


class HealthServer:
    """Serves ``/metrics``, ``/readyz`` and ``/livez`` in threads of its own. A context manager: `start` and `close`.

    Args:
        exporter: Whose ledgers.
        enricher: Its enricher, if it has one.
        host: The address; loopback unless told otherwise: whoever can reach it can read it.
        port: The port; 0 for a free one.
        stale_after: Seconds without a word of a stream after which the export is not ready.
        unacknowledged_after: Seconds that a record may wait for a sink that fails.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        exporter: HasStatistics,
        enricher: HasLookUps | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        stale_after: float = 300.0,
        unacknowledged_after: float = 60.0,
    ) -> None:
        """Prepare; nothing listens yet."""
        self._exporter = exporter
        self._collector = ExportCollector(exporter, enricher)
        self._where = (host, port)
        self._limits = (stale_after, unacknowledged_after)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it listens, as a URL; empty while it does not."""
        if self._server is None:
            return ""
        host, port = self._server.server_address[:2]
        return (
            f"http://[{host!s}]:{port}" if self._server.address_family == socket.AF_INET6 else f"http://{host!s}:{port}"
        )

    def start(self) -> HealthServer:
        """Listen; give the server itself.

        Raises:
            ListenError: If the address cannot be had.
        """
        host, port = self._where
        try:
            self._server = _Server(host, port, self._pages())
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ListenError(f"cannot listen on {host}:{port} ({why}): take another address or port") from None
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL,), name="kevents-health", daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Listen no more; a client that is being answered is not waited for."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = self._thread = None

    def __enter__(self) -> HealthServer:
        """Start."""
        return self.start()

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def _pages(self) -> dict[str, Page]:
        return {
            "/metrics": self._metrics,
            "/readyz": lambda accept: _probe(unready(self._exporter.statistics(), *self._limits)),  # noqa: ARG005
            "/livez": lambda accept: _probe(unalive(self._exporter.statistics())),  # noqa: ARG005
        }

    def _metrics(self, accept: str) -> Answer:
        from prometheus_client import CollectorRegistry  # noqa: PLC0415 - loaded already: this room needs it
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

        registry = CollectorRegistry()
        registry.register(self._collector)
        encode, kind = choose_encoder(accept)
        return HTTPStatus.OK, kind, encode(registry)


Answer = tuple[HTTPStatus, str, bytes]
Page = Callable[[str], Answer]


def _probe(troubles: list[str]) -> Answer:
    status = HTTPStatus.SERVICE_UNAVAILABLE if troubles else HTTPStatus.OK
    lines = (printable(KNOWN.clean(trouble)) for trouble in troubles or ["ok"])
    return status, _TEXT, "".join(f"{line}\n" for line in lines).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # none is waited for at the end: a client that sends a byte a second has no time-out

    def __init__(self, host: str, port: int, pages: dict[str, Page]) -> None:
        self.pages = pages
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _SLOWEST_CLIENT
    server: _Server
    server_version = "kevents"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a page."""
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            status, kind, body = HTTPStatus.NOT_FOUND, _TEXT, b"there are /metrics, /readyz and /livez\n"
        else:
            status, kind, body = page(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server asks for

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401
        """Log nothing: probes come every few seconds."""
