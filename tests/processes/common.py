"""Helpers for the scripts, such as a sink that any process can append requests to."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import kevents

REFERENCE = kevents.ObjectReference(kind="Pod", api_version="v1", namespace="prod", name="web-0", uid="u-1")


class FileSink:
    """Appends each request, with the id of the process that made it, to a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Append a create."""
        self._append("create", body["metadata"]["name"], body["count"], body["message"])

    def patch(self, namespace: str, name: str, patch: dict[str, Any]) -> None:
        """Append a patch."""
        self._append("patch", name, patch["count"], patch.get("message", ""))

    def _append(self, verb: str, name: str, count: int, message: str) -> None:
        line = json.dumps({"pid": os.getpid(), "verb": verb, "name": name, "count": count, "message": message})
        with open(self.path, "a", encoding="utf-8") as file:  # noqa: PTH123 - one write appends the whole line
            file.write(line + "\n")


def broadcast() -> kevents.EventBroadcaster:
    """A broadcaster that writes to the file named by the first argument. No event is combined or filtered."""
    broadcaster = kevents.EventBroadcaster(
        correlator_options=kevents.CorrelatorOptions(max_events=None, burst_size=None), sleep_duration=0.05
    )
    broadcaster.start_recording_to_sink(FileSink(sys.argv[1]))
    return broadcaster


def recorder() -> kevents.EventRecorder:
    """A recorder whose broadcaster has no other reference, as a set-up function often leaves it."""
    return broadcast().new_recorder("a-script")
