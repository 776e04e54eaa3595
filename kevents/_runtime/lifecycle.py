"""Hooks for the exit and the fork of the process. Every broadcaster registers itself here."""

from __future__ import annotations

import atexit
import os
import sys
from time import monotonic
from types import ModuleType
from typing import Final, NoReturn, Protocol, SupportsIndex
from weakref import WeakSet

from kevents._runtime.reentrant import SHARED

EXIT_TIMEOUT = 2.0
"""Seconds that all broadcasters together have at interpreter exit: half to flush, half to shut down."""


class LifecycleHooks(Protocol):
    """An object that must end with the process and start anew in a forked child."""

    def begin_shutdown(self, deadline: float) -> bool:
        """Start to shut down without waiting. Returns False if a shutdown is running or complete."""

    def end_shutdown(self, deadline: float) -> int:
        """Wait until the deadline, then drop the pending events. Returns the number of dropped events."""

    def flush_at_exit(self, deadline: float) -> None:
        """Deliver pending events and stay open: later exit hooks may still record."""

    def after_fork(self) -> None:
        """Start anew in the forked child. The shared lock is free at this point."""


class ProcessBound:
    """Base of objects that belong to their process. They can be neither pickled nor copied."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        """Raise TypeError, with advice. ``pickle``, ``copy`` and ``cloudpickle`` call this."""
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied, because it belongs to this process: in each "
            "worker (Ray, dask, multiprocessing with spawn), call kevents.get_recorder(...) or make a broadcaster"
        )


_PROCESS_PACKAGES: Final = ("multiprocessing", "billiard")
"""Their child processes skip ``atexit``, but run finalizers. billiard is celery's copy of multiprocessing."""

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
    SHARED.reset()  # first: the objects below create conditions on its lock
    for hooks in list(_registered):
        hooks.after_fork()
    _hook_into_process_packages()


def _hook_into_process_packages() -> None:
    """Deliver events at the end of child processes of ``multiprocessing`` and celery. Imports neither."""
    for package in _PROCESS_PACKAGES:
        util, process = sys.modules.get(f"{package}.util"), sys.modules.get(f"{package}.process")
        if util is None or process is None:
            continue
        if util not in _hooked:
            _hooked.append(util)
            util.register_after_fork(util, _add_finalizer)  # a child's first steps remove all earlier finalizers
        if type(process.current_process()).__name__ != "_MainProcess":  # imported late, in a child without fork
            _add_finalizer(util)
    signals = sys.modules.get("celery.signals")
    if signals is not None:  # the children of celery's pool skip finalizers, too
        signals.worker_process_shutdown.connect(_end_child, weak=False)


_hooked: Final[list[ModuleType]] = []


def _add_finalizer(util: ModuleType) -> None:
    util.Finalize(None, _end_child, exitpriority=-100)  # after the user's finalizers, which may record


def _end_child(**_: object) -> None:
    _flush_at_exit()
    _shut_down_at_exit()


_hook_into_process_packages()
atexit.register(_shut_down_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
