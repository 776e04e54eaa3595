"""Is interrupted by Ctrl-C in the middle of its shutdown, and ends: what it recorded must arrive all the same."""

from __future__ import annotations

import contextlib

from tests.processes.common import REFERENCE, broadcast

broadcaster = broadcast()
broadcaster.new_recorder("a-script").event(REFERENCE, "Normal", "Ended", "interrupted")


def interrupt(*_: object) -> int:
    """Stand in for the wait that Ctrl-C ends."""
    raise KeyboardInterrupt


watcher = broadcaster._publisher.watchers[0]
with contextlib.suppress(KeyboardInterrupt):
    watcher.end_stop = interrupt  # type: ignore[method-assign]
    broadcaster.shutdown()
del watcher.end_stop
