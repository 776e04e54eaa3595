"""Is interrupted by Ctrl-C during its shutdown: the recorded event must arrive nevertheless."""

from __future__ import annotations

import contextlib

from tests.processes.common import REFERENCE, broadcast

broadcaster = broadcast()
broadcaster.new_recorder("a-script").event(REFERENCE, "Normal", "Ended", "interrupted")


def interrupt(*_: object) -> int:
    """Replaces the wait that Ctrl-C interrupts."""
    raise KeyboardInterrupt


watcher = broadcaster._publisher.watchers[0]
with contextlib.suppress(KeyboardInterrupt):
    watcher.end_stop = interrupt  # type: ignore[method-assign]
    broadcaster.shutdown()
del watcher.end_stop
