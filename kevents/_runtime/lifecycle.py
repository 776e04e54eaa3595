"""What the end and the forking of a process mean for what lives in it."""

from __future__ import annotations

import atexit
import os
from time import monotonic
from typing import Protocol
from weakref import WeakSet

from kevents._runtime.reentrant import SECTION

EXIT_TIMEOUT = 2.0
"""Seconds that all broadcasters together have at the interpreter's exit: half to flush, half to end."""


class Resident(Protocol):
    """Something that must end with the process, and begin anew in a forked child."""

    def begin_shutdown(self, deadline: float) -> bool:
        """Hurry towards the end; does not wait. False if it was on its way, or over, already."""

    def end_shutdown(self, deadline: float) -> int:
        """Wait for the end, and give up what is left at the deadline."""

    def flush_at_exit(self, deadline: float) -> None:
        """Deliver what there is while everything still works; stay open, for later exit hooks may record."""

    def after_fork(self) -> None:
        """In the child, where the turn is free again: begin anew."""


_residents: WeakSet[Resident] = WeakSet()


def enlist(resident: Resident) -> None:
    """See to it that the resident is told."""
    _residents.add(resident)


def come_first() -> None:
    """Let a flush come before the exit hooks that were registered since: the official client's deletes certificates."""
    atexit.unregister(_flush_at_exit)
    atexit.register(_flush_at_exit)


def _flush_at_exit() -> None:
    deadline = monotonic() + EXIT_TIMEOUT / 2
    for resident in list(_residents):
        resident.flush_at_exit(deadline)


def _at_exit() -> None:
    deadline = monotonic() + EXIT_TIMEOUT / 2
    residents = list(_residents)
    for resident in residents:
        resident.begin_shutdown(deadline)
    for resident in residents:  # also one whose end was begun, and left by Ctrl-C or by a thread of its own
        resident.end_shutdown(deadline)


def _after_fork_in_child() -> None:
    SECTION.renew()  # once, and first: what residents make anew waits on its lock
    for resident in list(_residents):
        resident.after_fork()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
