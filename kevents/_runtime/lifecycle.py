"""Hooks for the exit and the fork of the process. Every broadcaster registers itself here."""

from __future__ import annotations

import atexit
import os
from time import monotonic
from typing import Protocol
from weakref import WeakSet

from kevents._runtime.reentrant import SECTION

EXIT_TIMEOUT = 2.0
"""Seconds that all broadcasters together have at interpreter exit: half to flush, half to shut down."""


class LifecycleHooks(Protocol):
    """An object that must end with the process and start anew in a forked child."""

    def begin_shutdown(self, deadline: float) -> bool:
        """Start to shut down without waiting. Returns False if a shutdown is running or complete."""

    def end_shutdown(self, deadline: float) -> int:
        """Wait until the deadline, then drop what is left. Returns the number of dropped events."""

    def flush_at_exit(self, deadline: float) -> None:
        """Deliver pending events and stay open: later exit hooks may still record."""

    def after_fork(self) -> None:
        """Start anew in the forked child. The process-wide section is free at this point."""


_registered: WeakSet[LifecycleHooks] = WeakSet()


def register(hooks: LifecycleHooks) -> None:
    """Call the hooks of an object at exit and after a fork, as long as the object lives."""
    _registered.add(hooks)


def flush_before_other_exit_hooks() -> None:
    """Flush before the exit hooks registered so far: the official client's hook deletes its certificate files."""
    atexit.unregister(_flush_at_exit)
    atexit.register(_flush_at_exit)


def _flush_at_exit() -> None:
    deadline = monotonic() + EXIT_TIMEOUT / 2
    for hooks in list(_registered):
        hooks.flush_at_exit(deadline)


def _shut_down_at_exit() -> None:
    deadline = monotonic() + EXIT_TIMEOUT / 2
    registered = list(_registered)
    for hooks in registered:
        hooks.begin_shutdown(deadline)
    for hooks in registered:  # also after a shutdown that Ctrl-C interrupted or a watcher's own thread began
        hooks.end_shutdown(deadline)


def _after_fork_in_child() -> None:
    SECTION.reset()  # first: the objects below create conditions on its lock
    for hooks in list(_registered):
        hooks.after_fork()


atexit.register(_shut_down_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
