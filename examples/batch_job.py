"""A short-lived job that records its progress: `kubectl get events` shows the events.

The names come from the environment, as a pod template sets them: JOB_NAME, POD_NAMESPACE, POD_NAME.
"""

import logging
import os
import sys

import kevents

LOG = logging.getLogger("batch-job")
TABLES = ("users", "orders", "invoices")


def copy(table: str) -> None:
    """Simulate the work. The last table fails."""
    if table == "invoices":
        raise ConnectionError("the bucket is gone")


def main() -> int:
    """Copy every table. The exit status is 1 if one of them failed."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    job = kevents.ObjectReference(
        kind="Job",
        api_version="batch/v1",
        namespace=os.environ.get("POD_NAMESPACE", "default"),
        name=os.environ.get("JOB_NAME", "nightly"),
    )
    source = kevents.EventSource("batch-job", kevents.default_host())
    failed = 0

    with kevents.EventBroadcaster() as broadcaster:
        broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())
        broadcaster.start_logging(LOG.info)  # also logs each event in the job's own log
        events = broadcaster.new_recorder(source).for_object(job)

        for table in TABLES:
            try:
                copy(table)
            except ConnectionError as error:
                failed += 1
                events.exception("CopyFailed", error)  # a Warning: "ConnectionError: the bucket is gone"
            else:
                events.normal("Copied", f"table {table} is copied")

        # A job ends when its work is done. Wait as long as it can afford, so that pending events are delivered.
        given_up = broadcaster.shutdown(timeout=10)

    if given_up:
        LOG.error("%d events could not be delivered", given_up)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
