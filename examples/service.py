"""A Flask service in a prefork server that says under its own pod who asked for what.

    gunicorn --chdir examples --workers 2 --preload service:app

Install: `pip install kevents flask gunicorn`. Each worker counts for itself: ask `/events` more than once.

POD_NAME, POD_NAMESPACE and POD_UID come from the downward API. Under gunicorn's `--preload` this file runs in the
master and the workers are forked from it; without it, in each worker. Both work: a forked broadcaster begins anew.
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
    """Make a backup; the request is not held up by the event about it."""
    if bucket != "main":
        events.warning("BackupRefused", f"there is no bucket {bucket}")
        return jsonify(error="no such bucket"), 404
    events.normal("BackupDone", "everything is in the bucket")
    return jsonify(bucket=bucket), 201


@app.get("/events")
def statistics() -> ResponseReturnValue:
    """What has become of this worker's events: for a probe, or for whoever wonders."""
    snapshot = broadcaster.statistics()
    dropped = {reason.value: number for reason, number in snapshot.dropped.items()}
    return jsonify(worker=os.getpid(), recorded=snapshot.recorded, dropped=dropped)
