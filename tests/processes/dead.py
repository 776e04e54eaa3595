"""Records events into a sink that refuses or hangs, and returns: the process must end nevertheless."""

from __future__ import annotations

import sys
import threading
from typing import Any

import kevents
from tests.processes.common import REFERENCE


class DeadSink:
    """Refuses to connect, or never returns."""

    def create(self, namespace: str, body: dict[str, Any]) -> None:
        """Fail in the way that the second argument names."""
        if sys.argv[2] == "hang":
            threading.Event().wait()
        raise ConnectionRefusedError("nobody listens")

    patch = create  # type: ignore[assignment]


broadcaster = kevents.EventBroadcaster()
broadcaster.start_recording_to_sink(DeadSink())
for number in range(30):
    broadcaster.new_recorder("a-script").event(REFERENCE, "Normal", "Ended", f"number {number}")
