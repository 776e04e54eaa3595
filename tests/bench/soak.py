"""Minutes on a real API server behind a faulty network: threads, asyncio and events.k8s.io in one process."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Final

import kevents
import kevents.aio
import kevents.events
from tests.bench.rig import say
from tests.support.proxy import BlackHole, Lossy, Mode, Pass, Proxy, Refuse, Slow
from tests.support.real_server import RealServer

__all__ = ["measure", "table"]

OPTIONS: Final = kevents.CorrelatorOptions(burst_size=None)
"""Without the rate limit every event must reach the server, so that a lost one is detected."""
TIMEOUT: Final = (2.0, 5.0)
PODS: Final = 40
LONGEST_ROUND: Final = 90.0
PATIENCE: Final = 120.0
PHASES: Final[tuple[tuple[Mode, float], ...]] = (
    (Pass(), 0.25),
    (Lossy(share=0.2), 0.2),
    (Refuse(), 0.2),
    (Slow(delay=0.2, bytes_per_second=100_000), 0.2),
    (BlackHole(), 0.15),
)
"""The phases of a round: the network mode and its share of the time."""

Row = dict[str, Any]


@dataclass
class Load:
    """Events of one API, recorded at a steady rate in a separate thread.

    Attributes:
        title: The title of the row.
        namespace: The namespace of the events.
        record: Records event number n about a pod.
        statistics: The broadcaster's statistics.
        recorded: Number of events recorded so far.
        slowest: The longest call, in seconds.
    """

    title: str
    namespace: str
    record: Callable[[dict[str, Any], int], None]
    statistics: Callable[[], kevents.Statistics]
    recorded: int = 0
    slowest: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self, rate: float) -> None:
        """Record ``rate`` events a second until `end`."""
        due = monotonic()
        while not self._ended.wait(max(due - monotonic(), 0.0)):
            due += 1 / rate
            begun = perf_counter()
            self.record(pod(self.namespace, self.recorded % PODS), self.recorded)
            self.slowest = max(self.slowest, perf_counter() - begun)
            self.recorded += 1

    def end(self) -> None:
        """Stop recording."""
        self._ended.set()


def pod(namespace: str, number: int) -> dict[str, Any]:
    """Return a pod's manifest."""
    metadata = {"namespace": namespace, "name": f"web-{number}", "uid": f"uid-{number}"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}


def reason(number: int) -> str:
    """Return a unique reason for one event in five, which becomes a separate API object, and a common one otherwise."""
    return f"Step{number}" if number % 5 == 0 else "BackOff"


def core(recorder: kevents.EventRecorder) -> Callable[[dict[str, Any], int], None]:
    """Return a function that records through core/v1."""
    return lambda about, number: recorder.event(about, "Warning", reason(number), "the bucket is gone")


def series(recorder: kevents.events.EventRecorder) -> Callable[[dict[str, Any], int], None]:
    """Return a function that records through events.k8s.io/v1."""
    return lambda about, number: recorder.event(about, "Warning", reason(number), "BackingUp", "the bucket is gone")


class Loop:
    """An event loop in a thread, for an asynchronous broadcaster."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="soak-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def end(self) -> None:
        """Let connections close, stop the loop and wait for its thread."""
        self.run(asyncio.sleep(1.0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


async def asynchronous() -> kevents.aio.EventBroadcaster:
    """Return an asynchronous broadcaster that writes to the API server of the environment."""
    broadcaster = kevents.aio.EventBroadcaster(correlator_options=OPTIONS)
    broadcaster.start_recording_to_sink(kevents.aio.CoreV1EventSink(request_timeout=TIMEOUT))
    return broadcaster


def resident() -> int:
    """Return the process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def environment(server: RealServer, proxy: Proxy) -> Iterator[None]:
    """Point KUBECONFIG to the server behind the proxy, with a user who can only write events."""
    config = json.loads(server.kubeconfig("recorder").read_text(encoding="utf-8"))
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    before = os.environ.get("KUBECONFIG")
    with tempfile.TemporaryDirectory(prefix="kevents-soak-") as folder:
        path = Path(folder) / "kubeconfig"
        path.write_text(json.dumps(config), encoding="utf-8")
        os.environ["KUBECONFIG"] = str(path)
        try:
            yield
        finally:
            os.environ.pop("KUBECONFIG")
            if before is not None:
                os.environ["KUBECONFIG"] = before


def measure(minutes: float, rate: float = 10.0) -> dict[str, Any]:
    """Record for some minutes through a changing network, then compare the server with the recorded events.

    Args:
        minutes: Duration of the recording.
        rate: Events a second for each of the three broadcasters.

    Returns:
        The rows of the three broadcasters, and the resident memory after each round of faults, in bytes.
    """
    for name in ("kevents", "urllib3", "kubernetes", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with RealServer() as server, Proxy(server.port, seed=1) as proxy, environment(server, proxy):
        for namespace in ("soak-threads", "soak-asyncio", "soak-series"):
            server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        loop = Loop()
        try:
            return _run(server, proxy, loop, minutes * 60, rate)
        finally:
            loop.end()


def _run(server: RealServer, proxy: Proxy, loop: Loop, seconds: float, rate: float) -> dict[str, Any]:
    threads = kevents.EventBroadcaster(correlator_options=OPTIONS)
    threads.start_recording_to_sink(kevents.CoreV1EventSink(request_timeout=TIMEOUT))
    tasks: kevents.aio.EventBroadcaster = loop.run(asynchronous())
    events_v1 = kevents.events.EventBroadcaster(kevents.events.EventsV1EventSink(request_timeout=TIMEOUT))
    loads = [
        Load("threads, core/v1", "soak-threads", core(threads.new_recorder("soak")), threads.statistics),
        Load("asyncio, core/v1", "soak-asyncio", core(tasks.new_recorder("soak")), tasks.statistics),
        Load("threads, events.k8s.io/v1", "soak-series", series(events_v1.new_recorder("soak")), events_v1.statistics),
    ]
    workers = [threading.Thread(target=load.run, args=(rate,), daemon=True) for load in loads]
    for worker in workers:
        worker.start()
    memory = _change_network(proxy, seconds, min(LONGEST_ROUND, seconds))
    for load, worker in zip(loads, workers, strict=True):
        load.end()
        worker.join(PATIENCE)
    proxy.become(Pass())
    given_up = [threads.shutdown(PATIENCE), loop.run(tasks.shutdown(PATIENCE - 5)), events_v1.shutdown(PATIENCE)]
    rows = [_row(server, load, lost) for load, lost in zip(loads, given_up, strict=True)]
    return {"rows": rows, "memory": memory, "cuts": sum(proxy.cuts.values())}


def _change_network(proxy: Proxy, seconds: float, round_seconds: float) -> list[int]:
    """Cycle through the phases until the time is over, and return the memory after each round."""
    memory, until, waits = [], monotonic() + seconds, threading.Event()
    for number, (mode, share) in enumerate(cycle(PHASES), start=1):
        proxy.become(mode)
        waits.wait(share * round_seconds)
        if number % len(PHASES) == 0:
            memory.append(resident())
            say(f"soak: {max(until - monotonic(), 0) / 60:.1f} minutes to go, {memory[-1] / 2**20:.0f} MiB")
            if monotonic() >= until:
                return memory
    raise AssertionError("cycle() does not end")


def _row(server: RealServer, load: Load, given_up: int) -> Row:
    found = load.statistics()
    sink = found.watchers[0].sink
    assert sink is not None
    path = f"/apis/events.k8s.io/v1/namespaces/{load.namespace}/events"
    items = server.request("GET", path).body["items"]
    return {
        "title": load.title,
        "recorded": load.recorded,
        "on_server": sum(_count(item) for item in items),
        "objects": len(items),
        "dropped": sum(found.dropped.values()) + given_up,
        "adds_up": found.recorded == load.recorded == sink.delivered + sum(found.dropped.values()),
        "requests": sink.created + sink.patched,
        "retried": sink.retried,
        "slowest": load.slowest,
    }


def _count(event: dict[str, Any]) -> int:
    """Return the number of occurrences of an event of either API."""
    return int((event.get("series") or {}).get("count") or event.get("deprecatedCount") or 1)


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    columns = ("recorder", "recorded", "on the server", "API objects", "dropped", "statistics add up")
    lines = ["| " + " | ".join((*columns, "writes", "retried", "slowest call")) + " |", "| --- " * 9 + "|"]
    for row in found["rows"]:
        numbers = [f"{row[name]:,}" for name in ("recorded", "on_server", "objects", "dropped")]
        numbers += ["yes" if row["adds_up"] else "no", f"{row['requests']:,}", f"{row['retried']:,}"]
        lines.append("| " + " | ".join((row["title"], *numbers, f"{row['slowest'] * 1000:.1f} ms")) + " |")
    first, last = (found["memory"][which] / 2**20 for which in (0, -1))
    rounds = len(found["memory"])
    text = f"Resident memory after the first of {rounds} rounds: {first:.0f} MiB; after the last: {last:.0f} MiB."
    return "\n".join((*lines, "", text, f"The lossy network cut {found['cuts']:,} connections."))
