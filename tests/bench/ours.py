"""Measures kevents with the same metrics as the client-go program, and prints JSON."""

from __future__ import annotations

import argparse
import gc
import json
import sys
import threading
from statistics import median
from time import perf_counter, process_time
from typing import Any, Final

import kevents
from tests.bench.rows import with_senders
from tests.bench.subjects import MIXES, SOURCE, Mix, manifest, reference

__all__ = ["api_for", "deliver", "sink_for"]

OTHER_SENDERS: Final = {0: 1, 5: 8}
"""By delay in milliseconds: an additional number of senders."""
BURST: Final = 500
"""Events recorded between two flushes, few enough that no queue drops any."""

_NANO: Final = 1e9
_MICRO: Final = 1e6
_REPEATS: Final = 5
_PATIENCE: Final = 120.0


def emit(obj: object, number: int) -> dict[str, float]:
    """Return microseconds per `event()` call on an object, in bursts and without pauses, with a consumer running."""
    with kevents.EventBroadcaster() as broadcaster:
        watcher = broadcaster.start_event_watcher(_consume)
        recorder = broadcaster.new_recorder(SOURCE)
        record(recorder, obj, BURST)
        broadcaster.flush()
        bursts = []
        for _ in range(max(number // BURST, 1)):
            bursts.append(record(recorder, obj, BURST))
            broadcaster.flush()
        sustained = record(recorder, obj, number)
        lost = watcher.statistics().queue_full
    return {
        "burst_us": median(bursts) / BURST * _MICRO,
        "sustained_us": sustained / number * _MICRO,
        "sustained_lost": lost / number,
    }


def record(recorder: kevents.EventRecorder, obj: object, number: int) -> float:
    """Record `number` events and return the seconds."""
    begun = perf_counter()
    for _ in range(number):
        recorder.event(obj, "Normal", "BackOff", "back-off restarting failed container")
    return perf_counter() - begun


def _consume(event: kevents.Event) -> None:
    """Do nothing."""


def correlate(mix: Mix, number: int) -> float:
    """Return microseconds for each event of a mix, including the patch body, in the quickest of several runs.

    Events created in advance are excluded from garbage collection, because recorded events are short-lived.
    """
    events = mix.make(number)
    gc.collect()
    gc.freeze()
    found = []
    for _ in range(_REPEATS):
        decide = kevents.EventCorrelator(mix.options).event_correlate
        begun = perf_counter()
        for event in events:
            decide(event).patch  # noqa: B018 - the property builds the patch
        found.append((perf_counter() - begun) / number * _MICRO)
    gc.unfreeze()
    return min(found)


def api_for(url: str, ca_file: str = "", token: str = "") -> Any:
    """Return an api of the official client for the scripted server, or with a token for an embedded one."""
    from kubernetes import client

    configuration = client.Configuration()
    configuration.host = url
    configuration.ssl_ca_cert = ca_file or None
    if token:  # the two generations of the client use different names
        configuration.api_key = dict.fromkeys(("authorization", "BearerToken"), f"Bearer {token}")
    configuration.connection_pool_maxsize = 64  # as in the client that kevents creates: one connection for each sender
    return client.CoreV1Api(client.ApiClient(configuration))


def sink_for(url: str, ca_file: str = "", token: str = "") -> kevents.CoreV1EventSink:
    """Return a sink that connects by itself to the server of :func:`api_for`; for one sink at a time in a process."""
    from kubernetes import client

    client.Configuration.set_default(api_for(url, ca_file, token).api_client.configuration)
    return kevents.CoreV1EventSink()


class CountingSink:
    """Counts the acknowledged requests, as client-go's program does.

    Attributes:
        created: One entry for each event; several threads may append.
    """

    def __init__(self, sink: kevents.EventSink) -> None:
        self.created: list[None] = []
        self._sink = sink

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Create an event."""
        self._sink.create(namespace, body)
        self.created.append(None)

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Patch an event."""
        self._sink.patch(namespace, name, patch)


def deliver(sink: kevents.EventSink, number: int, senders: int = 4) -> dict[str, float]:
    """Creates a second through a sink, and the processor time that each takes of this process."""
    counting = CountingSink(sink)
    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(counting, senders=senders)
        recorder = broadcaster.new_recorder(SOURCE)
        _deliver(broadcaster, recorder, 0, 2 * senders)
        begun, used = perf_counter(), process_time()
        for first in range(0, number, BURST):
            _deliver(broadcaster, recorder, 1000 + first, min(BURST, number - first))
        seconds, cpu = perf_counter() - begun, process_time() - used
    return {
        "per_second": number / seconds,
        "cpu_us": cpu / number * _MICRO,
        "delivered": float(len(counting.created) - 2 * senders),
        "expected": float(number),
    }


def _deliver(broadcaster: kevents.EventBroadcaster, recorder: kevents.EventRecorder, first: int, number: int) -> None:
    """Record events, and wait until they are delivered."""
    for which in range(first, first + number):
        recorder.event(manifest(which), "Normal", "Scheduled", "assigned to a node")
    broadcaster.flush(_PATIENCE)


def thinking(part: str, scale: float) -> dict[str, Any]:
    """Run the measurements of a part that needs no server."""
    number = int(20_000 * scale)
    if part == "record":
        return {part: {"reference": emit(reference(), number), "object": emit(_model(), number)}}
    return {part: {name: correlate(mix, number) for name, mix in MIXES.items()}}


def _model() -> object:
    from kubernetes import client

    metadata = client.V1ObjectMeta(name="web-0", namespace="prod", uid="0d3f1c8a", resource_version="1000")
    return client.V1Pod(api_version="v1", kind="Pod", metadata=metadata)


def delivering(url: str, numbers: dict[int, int]) -> dict[str, Any]:
    """Measure deliveries by the server's delay in milliseconds, for some delays also with other numbers of senders."""

    def measured(delay: int, senders: int = 4) -> dict[str, float]:
        return deliver(sink_for(f"{url}/{delay}"), numbers[delay], senders)

    found = {str(delay): measured(delay) for delay in numbers}
    return found | {
        with_senders(delay, senders): measured(delay, senders)
        for delay, senders in OTHER_SENDERS.items()
        if delay in numbers
    }


def main() -> None:
    """Run the measurements and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ours", description=__doc__)
    parser.add_argument("--part", choices=["record", "correlate"], default="record", help="what to measure (record)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the number of events (1)")
    parser.add_argument("--url", default="", help="URL of the scripted server; without it, nothing is delivered")
    parser.add_argument("--deliver", type=json.loads, default={}, help='{"5": 300}: deliveries by delay in ms')
    options = parser.parse_args()
    if options.url:
        found = delivering(options.url, {int(delay): number for delay, number in options.deliver.items()})
    else:
        found = thinking(options.part, options.scale)
    sys.stdout.write(json.dumps(found) + "\n")
    assert threading.active_count() == 1


if __name__ == "__main__":
    main()
