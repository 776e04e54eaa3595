"""The asyncio API on a real API server: examples of the docs, many coroutines, and the faults of the threaded tests."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kevents
from kevents import aio
from tests.e2e import test_faults_e2e as faults
from tests.support.load import Witness
from tests.support.proxy import BlackHole, Refuse
from tests.support.real_server import RealServer, required_assets
from tests.support.sinks import check_ledgers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

pytest.importorskip("aiohttp", reason="needs kevents[aio]")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent.parent
FAULTS = [
    faults.test_killed,
    faults.test_killed_for_a_minute,
    faults.test_paused,
    faults.test_etcd_paused,
    faults.test_token_revoked_and_restored,
]
DIRECT = "direct"
PACKAGES = ("kubernetes.aio", "kubernetes_asyncio")
NETWORK_FAULTS = [faults.test_slow_network, faults.test_lossy_network]
# Requested after `new_run`, so it closes first: an aborted TLS connection waits for the other side.
proxy = faults.proxy


@pytest.fixture(scope="module")
def server() -> Iterator[RealServer]:
    """A real API server that only this module uses, to be killed and paused."""
    required_assets()
    with RealServer() as server:
        yield server


def asyncio_example(page: str) -> str:
    """Return the first asyncio example of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[str] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return next(code for code in found if "aio." in code)


PAGES = {
    "docs/aio.md": "the bucket is gone",
    "docs/events-v1.md": "no room in bucket b-1",
}


@pytest.mark.parametrize(("page", "text"), PAGES.items(), ids=PAGES)
def test_examples_of_the_docs(server: RealServer, tmp_path: Path, page: str, text: str) -> None:
    """The asyncio examples of the docs create their event on a real API server, without a warning."""
    namespace = faults.make_namespace(server)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": namespace, "uid": "u"}}
    path = tmp_path / "example.py"
    path.write_text(f"import tests.processes.patient\npod = {pod!r}\n{asyncio_example(page)}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(path)],
        env={**os.environ, "KUBECONFIG": str(faults.kubeconfig(server)), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    [event] = server.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events").body["items"]
    assert (event["reason"], event["note"]) == ("BackupFailed", text)
    assert event.get("deprecatedCount", 1) == 1
    assert "series" not in event


def test_many_at_once(server: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of 20,000 events from 50 coroutines and 8 threads are counted on a real API server."""
    namespace = faults.make_namespace(server)
    monkeypatch.setenv("KUBECONFIG", str(faults.kubeconfig(server)))
    pods = [
        kevents.ObjectReference(kind="Pod", api_version="v1", namespace=namespace, name=f"web-{n}", uid=f"u-{n}")
        for n in range(20)
    ]
    coroutines, threads, each = 50, 8, 345

    def record(recorder: kevents.EventRecorder, who: int, number: int) -> None:
        recorder.event(pods[who % 20], "Normal", f"Step{number % 10}", f"number {number % 15}")

    async def coroutine(recorder: kevents.EventRecorder, who: int) -> None:
        for number in range(each):
            record(recorder, who, number)
            await asyncio.sleep(0)

    async def main() -> kevents.Statistics:
        options = kevents.CorrelatorOptions(max_events=None, burst_size=None)
        async with aio.EventBroadcaster(correlator_options=options, queue_length=20_010) as events:
            events.start_recording_to_sink(aio.CoreV1EventSink())
            recorder = events.new_recorder("many")

            def many(who: int) -> None:
                for number in range(each):
                    record(recorder, who, number)

            others = (asyncio.to_thread(many, who) for who in range(threads))
            await asyncio.gather(*(coroutine(recorder, who) for who in range(coroutines)), *others)
            assert await events.flush(faults.FLUSH)
            return events.statistics()

    statistics = asyncio.run(main())
    check_ledgers(statistics)
    assert (statistics.recorded, statistics.dropped) == ((coroutines + threads) * each, {})
    assert sum(faults.events_on(server, namespace).values()) == statistics.recorded


@pytest.mark.parametrize("package", [DIRECT, *PACKAGES])
def test_series(server: RealServer, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directly and with either package, 5,000 occurrences from coroutines and threads become ten series."""
    namespace, path = faults.make_namespace(server), faults.kubeconfig(server)
    monkeypatch.setenv("KUBECONFIG", str(path))
    api = given_api(package, path)
    pod = kevents.ObjectReference(kind="Pod", api_version="v1", namespace=namespace, name="web-0", uid="u")

    async def main() -> kevents.Statistics:
        sink = aio.EventsV1EventSink(api)
        async with aio.EventsV1Broadcaster(sink) as events:
            recorder = events.new_recorder("example.com/c", reporting_instance="c-1")

            def record(who: int) -> None:
                for number in range(500):
                    recorder.eventf(pod, None, "Normal", f"R{number % 10}", "Stepping", "%d of %d", number, who)

            async def coroutine(who: int) -> None:
                record(who)

            others = (asyncio.to_thread(record, who) for who in range(5))
            await asyncio.gather(*map(coroutine, range(5)), *others)
            assert await events.flush(faults.FLUSH)
            recorder.eventf(pod, None, "Normal", "R0", "Stepping", "one more")
        return events.statistics()

    statistics = asyncio.run(main(), debug=True)
    check_ledgers(statistics)
    assert (statistics.recorded, statistics.dropped) == (5001, {})
    columns = "custom-columns=R:.reason,A:.action,C:.reportingController,N:.series.count"
    table = server.kubectl("get", "events.events.k8s.io", "-n", namespace, "-o", columns)
    expected = [["R0", "Stepping", "example.com/c", "501"]]
    expected += [[f"R{number}", "Stepping", "example.com/c", "500"] for number in range(1, 10)]
    assert sorted(line.split() for line in table.splitlines()[1:]) == expected
    assert re.search(r"\(x501 over .*\)\s+Normal\s+R0\s+Pod/web-0", server.kubectl("events", "-n", namespace))


class Face:
    """An asynchronous broadcaster with synchronous methods, in a separate event loop."""

    def __init__(self, **options: Any) -> None:
        self.events = aio.EventBroadcaster(**options)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop", daemon=True)
        self._thread.start()
        self.new_recorder = self.events.new_recorder
        self.start_event_watcher = self.events.start_event_watcher
        self.statistics = self.events.statistics

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(faults.FLUSH * 2)

    def start_recording_to_sink(self, sink: aio.EventSink) -> aio.Watcher:
        """Start recording in the loop."""

        async def start() -> aio.Watcher:
            return self.events.start_recording_to_sink(sink)

        watcher: aio.Watcher = self.run(start())
        return watcher

    def flush(self, timeout: float) -> bool:
        """Run `flush` in the loop."""
        return bool(self.run(self.events.flush(timeout)))

    def shutdown(self, timeout: float) -> int:
        """Shut down the broadcaster and the loop."""
        if self.loop.is_closed():
            return 0
        given_up: int = self.run(self.events.shutdown(timeout))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()
        return given_up


class AsyncRun(faults.Run):
    """A run of the fault tests with the asyncio broadcaster."""

    def __init__(
        self,
        server: RealServer,
        caplog: pytest.LogCaptureFixture,
        *,
        port: int | None = None,
        ca: Path | None = None,
        request_timeout: tuple[float, float] = (5, 15),
        package: str = DIRECT,
    ) -> None:
        super().__init__(server, caplog, port=port, ca=ca, request_timeout=request_timeout)
        self.broadcaster.shutdown(5)
        path = faults.kubeconfig(server, port, ca)
        os.environ["KUBECONFIG"] = str(path)  # the fixture restores it
        face: Any = Face(correlator_options=faults.OPTIONS)
        self.witness = Witness(faults.OPTIONS)
        face.start_event_watcher(self.witness)
        sink = aio.CoreV1EventSink(given_api(package, path), request_timeout=request_timeout)
        self.broadcaster = face
        self.watcher = face.start_recording_to_sink(sink)
        self.recorder = face.new_recorder(kevents.EventSource("faults", "here"))


def given_api(package: str, path: Path) -> Any:
    """Return a callable that makes a client of a package, None for a direct sink."""
    if package == DIRECT:
        return None
    new_client = pytest.importorskip(f"{package}.config", reason=f"needs {package}").new_client_from_config
    return lambda: new_client(str(path))


@pytest.fixture(params=[DIRECT, PACKAGES[-1]])
def new_run(
    request: pytest.FixtureRequest,
    server: RealServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., faults.Run]]:
    """Yield a factory of runs, directly or over a client, which are closed with the test."""
    monkeypatch.setenv("KUBECONFIG", "")
    runs: list[faults.Run] = []

    def make(**options: Any) -> faults.Run:
        runs.append(AsyncRun(server, caplog, package=request.param, **options))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_faults(server: RealServer, new_run: Callable[..., faults.Run], fault: Callable[..., None]) -> None:
    """A server that is killed, paused or rejects the user for a while causes no lost event."""
    fault(server, new_run)


@pytest.mark.slow
@pytest.mark.parametrize("fault", NETWORK_FAULTS, ids=lambda fault: fault.__name__)
def test_network_faults(new_run: Callable[..., faults.Run], proxy: Any, fault: Callable[..., None]) -> None:
    """A slow or lossy network causes no lost event."""
    fault(proxy, new_run)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [BlackHole(), Refuse()], ids=["black-hole", "refuse"])
def test_no_network(new_run: Callable[..., faults.Run], proxy: Any, mode: Any) -> None:
    """Pitfall 47: a network that drops all packets or refuses connections for a while causes no lost event."""
    faults.test_no_network(proxy, new_run, mode)


@pytest.mark.slow
def test_namespace_deleted(server: RealServer, new_run: Callable[..., faults.Run]) -> None:
    """Pitfall 45: events in a terminating namespace are rejected without warnings and counted."""
    faults.test_namespace_deleted(server, new_run)


@pytest.mark.slow
def test_certificate_of_another_authority(tmp_path: Path, new_run: Callable[..., faults.Run]) -> None:
    """Pitfall 40: with an untrusted server certificate, events wait, and the log names the certificate."""
    faults.test_certificate_of_another_authority(tmp_path, new_run)
