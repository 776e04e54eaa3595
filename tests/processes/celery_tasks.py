"""A Celery application whose tasks record one event each. The broker is a folder.

Environment: ``OUT``, the file of the sink; ``BROKER``, the folder.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import celery

import kevents
from kevents._runtime import lifecycle
from tests.processes.common import REFERENCE, FileSink

_folder = Path(os.environ["BROKER"])
app = celery.Celery("tasks", broker="filesystem://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(_folder),
        "data_folder_out": str(_folder),
        "control_folder": str(_folder / "control"),
    },
    worker_max_tasks_per_child=1,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=False,
)
lifecycle.EXIT_TIMEOUT = 60.0  # the test is about complete delivery, not about the machine's load


class SlowSink(FileSink):
    """Takes longer than the one second that a Celery child lives on after its last task."""

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Append a create, late."""
        time.sleep(2)
        super().create(namespace, body)


broadcaster = kevents.EventBroadcaster()
broadcaster.start_recording_to_sink(SlowSink(os.environ["OUT"]))
events = broadcaster.new_recorder("a-task")


@app.task
def work(number: int) -> None:
    """Record one event as the last act."""
    events.event(REFERENCE, "Normal", "Worked", f"number {number}")
