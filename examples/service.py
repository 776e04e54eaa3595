"""A Flask service in a prefork server that records events about its own pod.

    gunicorn --chdir examples --workers 2 --preload service:app

Install: `pip install kevents flask gunicorn`. Each worker has its own counters: request `/events` more than once.

POD_NAME, POD_NAMESPACE and POD_UID come from the downward API. With gunicorn's `--preload` this file runs in the
master, which forks the workers; without it, in each worker. Both work: a forked broadcaster starts anew.
"""

import os

from flask import Flask, jsonify
from flask.typing import ResponseReturnValue

import kevents

pod = kevents.ObjectReference(
    kind="Pod",
    api_version="v1",
    namespace=os.environ.get("POD_NAMESPACE", "default"),
    name=os.environ.get("POD_NAME", "service-0"),
    uid=os.environ.get("POD_UID", ""),
)
source = kevents.EventSource("backup-service", kevents.default_host())

broadcaster = kevents.EventBroadcaster()
broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())
events = broadcaster.new_recorder(source).for_object(pod)
app = Flask(__name__)


@app.post("/backups/<bucket>")
def back_up(bucket: str) -> ResponseReturnValue:
    """Make a backup. The event does not delay the response."""
    if bucket != "main":
        events.warning("BackupRefused", f"there is no bucket {bucket}")
        return jsonify(error="no such bucket"), 404
    events.normal("BackupDone", "everything is in the bucket")
    return jsonify(bucket=bucket), 201


@app.get("/events")
def statistics() -> ResponseReturnValue:
    """The counters of this worker's events, for a probe or for people."""
    snapshot = broadcaster.statistics()
    dropped = {reason.value: number for reason, number in snapshot.dropped.items()}
    return jsonify(worker=os.getpid(), recorded=snapshot.recorded, dropped=dropped)
