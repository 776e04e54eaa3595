"""Metrics and probes over HTTP."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import kevents.export.prometheus
from kevents.export._config.table_reader import KNOWN
from kevents.export._model.statistics import DestinationStatistics, ExportStatistics, Progress, StreamStatistics
from kevents.export._model.types import Position, Stream
from kevents.export._operate import health as _health
from kevents.export._operate.health import HealthServer, ListenError, unalive, unready
from tests.support.polling import poll

SHOP = Stream("cluster", "shop")
READ, DURABLE = Position(SHOP, 90, 20_000_000_000), Position(SHOP, 70, 15_000_000_000)
STREAM = StreamStatistics(SHOP, read=9, gaps=1, routed=6, unrouted=2, waiting=1, position=READ, silent_for=3.0)
SINK = DestinationStatistics(
    "archive",
    offered=8,
    already_stored=1,
    written=3,
    dead_lettered=1,
    dropped=2,
    waiting=1,
    waiting_bytes=100,
    batches=2,
    bytes=300,
    retries=4,
    oldest_age=2.0,
    progress={SHOP: Progress(READ, DURABLE)},
)
GOOD = ExportStatistics("running", (STREAM,), (SINK,), 0.5)
QUIET = replace(GOOD, destinations=(replace(SINK, dropped=0),))


@dataclass
class Export:
    """An exporter with constant statistics."""

    ledgers: ExportStatistics = field(default_factory=lambda: GOOD)

    def statistics(self) -> ExportStatistics:
        """Return the statistics."""
        return self.ledgers


class LookUps:
    """An enricher with constant statistics."""

    def statistics(self) -> Any:
        """Return the statistics."""
        return SimpleNamespace(
            kube_api_read_cache_hits=7,
            kube_api_read_cache_misses=3,
            requests={"get": 4},
            states={"live": 9, "odd": 1},
            incomplete=1,
            errors=0,
        )


def get(url: str, method: str = "GET") -> tuple[int, str, str]:
    """Return the status, content type and text of a page."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def with_sink(**changes: Any) -> ExportStatistics:
    """Return good statistics with changes to the sink."""
    return replace(GOOD, destinations=(replace(SINK, **changes),))


def with_stream(**changes: Any) -> ExportStatistics:
    """Return good statistics with changes to the stream."""
    return replace(GOOD, streams=(replace(STREAM, **changes),))


# -- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        (GOOD, []),
        (replace(GOOD, state="starting"), ["the export is starting"]),
        (replace(GOOD, state="stopping"), ["the export is stopping"]),
        (with_stream(position=None), ["the events of namespace shop have not been read yet"]),
        (with_stream(silent_for=300.1), ["no answer about the events of namespace shop for 300 s"]),
        (
            with_stream(stream=Stream("cluster"), silent_for=400.0),
            ["no answer about the events of all namespaces for 400 s"],
        ),
        (with_sink(failing=3, oldest_age=60.0, last_error="refused"), []),
        (
            with_sink(failing=3, oldest_age=60.1, silent_for=70.0, last_error="refused"),
            ["the sink archive has acknowledged nothing for 70 s: refused"],
        ),
        (with_sink(failing=0, oldest_age=90.0), []),
        (with_sink(overdue=True, in_flight_for=61.0), ["the sink archive has been writing for 61 s"]),
    ],
)
def test_ready(statistics: ExportStatistics, expected: list[str]) -> None:
    """Ready means that all streams are read, positions are fresh and sinks acknowledge.

    Short failures do not matter.
    """
    assert unready(statistics, 300.0, 60.0) == expected


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        (GOOD, []),
        (replace(GOOD, state="starting"), []),
        (with_sink(failing=100, overdue=True, oldest_age=9999.0), []),
        (replace(GOOD, beat_age=30.1), ["the loop of the export has not run for 30 s"]),
        (replace(GOOD, state="ended"), ["the export has ended"]),
    ],
)
def test_alive(statistics: ExportStatistics, expected: list[str]) -> None:
    """Alive means that the main loop runs. A failing destination does not matter."""
    assert unalive(statistics) == expected


def test_over_http() -> None:
    """The probes answer 200 with ok, or 503 with the reasons."""
    export = Export(QUIET)
    with HealthServer(export) as server:
        for page in ("/readyz", "/livez", "/readyz?verbose=1"):
            assert get(server.address + page) == (200, "text/plain; charset=utf-8", "ok\n")
        export.ledgers = with_sink(dropped=0, overdue=True, in_flight_for=70.0, last_error="a\x1b[31m\nb")
        assert get(server.address + "/readyz")[::2] == (
            503,
            "the sink archive has been writing for 70 s: a\\x1b[31m\\nb\n",
        )
        assert get(server.address + "/livez")[::2] == (200, "ok\n")
        assert get(server.address + "/livez", "HEAD")[::2] == (200, "")
        assert get(server.address + "/")[::2] == (404, "there are /metrics, /readyz and /livez\n")
        assert get(server.address + "/livez", "POST")[0] == 501


def test_a_sink_that_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export is not ready while a sink drops records, and for a minute after the last drop."""
    now = 1000.0
    monkeypatch.setattr(_health, "monotonic", lambda: now)
    export = Export(QUIET)
    server = HealthServer(export)
    trouble = ["the sink archive drops records: its queue is full"]
    assert server._unready() == []
    export.ledgers = with_sink(dropped=1)
    assert (server._unready(), server._unready()) == (trouble, trouble)
    now += 59
    assert server._unready() == trouble
    export.ledgers = with_sink(dropped=2)
    assert server._unready() == trouble
    now += 59
    assert server._unready() == trouble
    now += 1
    assert server._unready() == []


def test_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall 72: resolved secrets are redacted in a sink's last error."""
    monkeypatch.setattr(KNOWN, "_forms", set())
    KNOWN.remember("hunter2")
    with HealthServer(Export(with_sink(dropped=0, overdue=True, last_error="401 for hunter2"))) as server:
        assert get(server.address + "/readyz")[2].endswith(": 401 for (not shown)\n")
        assert "hunter2" not in get(server.address + "/metrics")[2]


def test_loopback() -> None:
    """Pitfall 77: metrics and probes are served on loopback by default."""
    with HealthServer(Export()) as server:
        assert server.address.startswith("http://127.0.0.1:")
    assert server.address == ""


def test_ipv6() -> None:
    """An IPv6 address works."""
    with HealthServer(Export(), host="::1") as server:
        assert server.address.startswith("http://[::1]:")
        assert get(server.address + "/livez")[0] == 200


def test_taken() -> None:
    """The error for a port in use has the address and the fix."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"^cannot listen on 127.0.0.1:{port} .Address already in use.: use an"):
            HealthServer(Export(), port=port).start()


def test_a_client_that_disconnects() -> None:
    """A client that disconnects or sends garbage does not affect others."""
    with HealthServer(Export()) as server:
        port = int(server.address.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
        with socket.create_connection(("127.0.0.1", port)) as rubbish:
            rubbish.sendall(b"\x00\xff\r\n\r\n")
            assert rubbish.recv(100)
        assert get(server.address + "/livez")[0] == 200


def test_the_end_waits_for_no_client() -> None:
    """Closing does not wait for a request in progress."""
    asked, answer = threading.Event(), threading.Event()

    class Slow(Export):
        def statistics(self) -> ExportStatistics:
            asked.set()
            answer.wait(60)
            return super().statistics()

    server = HealthServer(Slow()).start()
    with socket.create_connection(("127.0.0.1", int(server.address.rpartition(":")[2]))) as client:
        client.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert asked.wait(60)
        began = monotonic()
        server.close()
        assert monotonic() - began < 30
        answer.set()
        assert client.recv(100).startswith(b"HTTP/1.0 200 OK")


def test_many_slow_clients() -> None:
    """Fault 27: of 600 slow clients at most 64 keep their connection, and probes are still answered."""
    with HealthServer(Export()) as server:
        before = threading.active_count()
        where = ("127.0.0.1", int(server.address.rpartition(":")[2]))
        clients = []
        try:
            for _ in range(600):
                clients.append(socket.create_connection(where, timeout=10))
                clients[-1].sendall(b"GET /livez HTTP/1.1\r\n")
            assert get(server.address + "/livez")[0] == 200
            assert poll(lambda: threading.active_count() <= before + 64, 10)
        finally:
            for client in clients:
                client.close()


def test_a_dripping_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 27: a request ends after 5 s in total, however often the client sends a byte."""
    monkeypatch.setattr(_health, "_REQUEST_TIMEOUT", 0.2)
    with HealthServer(Export()) as server:
        where = ("127.0.0.1", int(server.address.rpartition(":")[2]))
        with socket.create_connection(where, timeout=10) as client:
            client.sendall(b"GET /livez HTTP/1.1\r\nA: ")
            client.settimeout(0.05)

            def ended() -> bool:
                try:
                    client.sendall(b"a")
                    return client.recv(1) == b""
                except TimeoutError:
                    return False
                except OSError:
                    return True

            assert poll(ended, 10)


# -- metrics ---------------------------------------------------------------------------------------------------------

EXPECTED = {
    "kevents_export_state{state=running}": 1,
    "kevents_export_state{state=ended}": 0,
    "kevents_export_beat_age_seconds{}": 0.5,
    "kevents_export_stream_read_records_total{stream=shop}": 9,
    "kevents_export_stream_gaps_total{stream=shop}": 1,
    "kevents_export_stream_routed_records_total{stream=shop}": 6,
    "kevents_export_stream_unrouted_records_total{stream=shop}": 2,
    "kevents_export_stream_failed_records_total{stream=shop}": 0,
    "kevents_export_stream_waiting_records{stream=shop}": 1,
    "kevents_export_stream_position_timestamp_seconds{stream=shop}": 20,
    "kevents_export_stream_position_resource_version{stream=shop}": 90,
    "kevents_export_stream_silent_seconds{stream=shop}": 3,
    "kevents_export_sink_offered_records_total{sink=archive}": 8,
    "kevents_export_sink_already_stored_records_total{sink=archive}": 1,
    "kevents_export_sink_written_records_total{sink=archive}": 3,
    "kevents_export_sink_dead_letters_total{sink=archive}": 1,
    "kevents_export_sink_lost_records_total{reason=queue_full,sink=archive}": 2,
    "kevents_export_sink_lost_records_total{reason=refused,sink=archive}": 0,
    "kevents_export_sink_waiting_records{sink=archive}": 1,
    "kevents_export_sink_waiting_bytes{sink=archive}": 100,
    "kevents_export_sink_in_flight_records{sink=archive}": 0,
    "kevents_export_sink_oldest_age_seconds{sink=archive}": 2,
    "kevents_export_sink_batches_total{sink=archive}": 2,
    "kevents_export_sink_bytes_total{sink=archive}": 300,
    "kevents_export_sink_retries_total{sink=archive}": 4,
    "kevents_export_sink_failing_tries{sink=archive}": 0,
    "kevents_export_sink_overdue{sink=archive}": 0,
    "kevents_export_sink_silent_seconds{sink=archive}": 0,
    "kevents_export_sink_position_resource_version{sink=archive,stream=shop}": 90,
    "kevents_export_sink_committed_resource_version{sink=archive,stream=shop}": 70,
    "kevents_export_sink_committed_timestamp_seconds{sink=archive,stream=shop}": 15,
    "kevents_export_sink_lag_seconds{sink=archive,stream=shop}": 5,
    "kube_api_read_cache_hits{}": 7,
    "kube_api_read_cache_misses{}": 3,
    "kevents_export_enricher_requests_total{verb=get}": 4,
    "kevents_export_enricher_requests_total{verb=watch}": 0,
    "kevents_export_enricher_records_total{state=live}": 9,
    "kevents_export_enricher_records_total{state=gone}": 0,
    "kevents_export_enricher_records_total{state=odd}": 1,
    "kevents_export_enricher_incomplete_records_total{}": 1,
    "kevents_export_enricher_errors_total{}": 0,
}


def samples(text: str) -> dict[str, float]:
    """Return the samples by name and labels, and check that each is unique."""
    found = [s for family in text_string_to_metric_families(text) for s in family.samples]
    named = {f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value for s in found}
    assert len(named) == len(found)
    return named


def test_metrics() -> None:
    """Every statistic has its metric. The two of the cache have event-exporter's names."""
    with HealthServer(Export(), LookUps()) as server:
        status, kind, text = get(server.address + "/metrics")
    assert (status, kind.startswith("text/plain; version=")) == (200, True)
    found = samples(text)
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED
    assert {name.partition("{")[0] for name in found} == {name.partition("{")[0] for name in EXPECTED}


def test_metrics_of_the_beginning() -> None:
    """Before the first position there is no position metric. Without an enricher there are no enricher metrics."""
    with HealthServer(Export(ExportStatistics("starting", (StreamStatistics(SHOP),), ()))) as server:
        found = samples(get(server.address + "/metrics")[2])
    assert found["kevents_export_state{state=starting}"] == 1
    assert [name for name in found if "position" in name or "kube_api" in name] == []


def test_openmetrics() -> None:
    """OpenMetrics is served if Prometheus asks for it."""
    with HealthServer(Export()) as server:
        request = urllib.request.Request(server.address + "/metrics")
        request.add_header("Accept", "application/openmetrics-text; version=1.0.0")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            assert answer.read().endswith(b"# EOF\n")


def test_register() -> None:
    """A program can register the metrics of its exporter in its own registry, once."""
    registry = CollectorRegistry()
    kevents.export.prometheus.register(Export(), LookUps(), registry=registry)
    assert registry.get_sample_value("kevents_export_stream_read_records_total", {"stream": "shop"}) == 9
    with pytest.raises(ValueError, match="has metrics of an export already"):
        kevents.export.prometheus.register(Export(), registry=registry)


def test_without_prometheus_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without prometheus_client, the import error names the extra."""
    monkeypatch.delitem(sys.modules, "kevents.export.prometheus")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(
        ImportError, match=r"^kevents.export.prometheus needs prometheus_client: pip install 'kevents\["
    ):
        importlib.import_module("kevents.export.prometheus")
