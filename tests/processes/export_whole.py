"""A whole export that is killed and restarted. Each one is forked from a process that has imported everything.

The first argument is a plan in JSON: the API server's URL and token, the namespaces, and the sinks as expressions. Each
line on standard input starts an export. It runs until it is killed or, if the line names a resourceVersion for each
namespace, until all sinks hold every record up to there. The script prints its process id, and then its exit code.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from typing import Any

import kubernetes.client
import obstore  # noqa: F401 - imported before the forks

import kevents.export
from kevents.export import (
    BatchOptions,
    ClusterEventSource,
    Destination,
    Enricher,
    Exporter,
    ExportStatistics,
    Route,
    WebhookSink,
)

LARGEST_BATCH = 20
"""The number of records that a kill may duplicate if the destination cannot hold the position."""


def connected(plan: dict[str, Any]) -> kubernetes.client.CoreV1Api:
    """A client for the plan's server."""
    configuration = kubernetes.client.Configuration()
    configuration.host = plan["url"]
    configuration.api_key = {"authorization": f"Bearer {plan['token']}"}
    return kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))


def exporter(plan: dict[str, Any]) -> Exporter:
    """The export of a plan. Its batches are small, so that a kill can hit many different moments."""
    api = connected(plan)
    sinks = {name: eval(text, vars(kevents.export)) for name, text in plan["sinks"].items()}
    small = BatchOptions(max_items=LARGEST_BATCH, max_age=0.02)
    return Exporter(
        ClusterEventSource(api, namespaces=plan.get("namespaces"), retry=(0.01, 0.1), page=100),
        routes=[Route(to=list(sinks), all=True)],
        sinks={name: Destination(sink, small) for name, sink in sinks.items()},
        enrich=Enricher(api, qps=1000.0, burst=1000) if plan.get("enrich") else None,
    )


def holds(statistics: ExportStatistics, upto: dict[str, int]) -> bool:
    """Whether every sink holds every stream up to the given resourceVersions."""
    return statistics.state == "running" and all(
        progress.committed is not None and progress.committed.rv >= upto.get(stream.scope, max(upto.values()))
        for sink in statistics.destinations
        for stream, progress in sink.progress.items()
    )


def live(plan: dict[str, Any], upto: dict[str, int]) -> int:
    """Run the export; with `upto`, until every sink holds the records up to there."""
    export = exporter(plan)

    def watch() -> None:
        pause = threading.Event()
        while not holds(export.statistics(), upto):
            pause.wait(0.02)
        export.stop()

    if upto:
        threading.Thread(target=watch, daemon=True).start()
    return 1 if export.run() else 0


def tell(number: int) -> None:
    """Print a number."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def warm(plan: dict[str, Any]) -> None:
    """Run the late imports. No thread and no connection may exist before a fork."""
    ClusterEventSource(connected(plan))
    WebhookSink("http://127.0.0.1:1/").close()
    assert threading.active_count() == 1


def main() -> None:
    """Fork an export for each line."""
    logging.disable()
    plan = json.loads(sys.argv[1])
    warm(plan)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            code = 3
            try:
                code = live(plan, json.loads(line))
            finally:
                os._exit(code)
        tell(pid)
        tell(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
