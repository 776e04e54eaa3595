"""Forks in the situation that its second argument names; parent and child then record and exit normally."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import warnings

from kevents._runtime.reentrant import SHARED
from tests.processes.common import REFERENCE, broadcast

warnings.simplefilter("ignore", DeprecationWarning)  # forking a process that has threads is the subject
broadcaster = broadcast()
events = broadcaster.new_recorder("a-script")
situation = sys.argv[2]


def record(message: str) -> None:
    """Record an event that parent and child both record: the correlator sees the same event."""
    events.event(REFERENCE, "Normal", "Forked", message)


def child() -> None:
    """Record in the child."""
    record("same")
    record("child")


def fork_and_wait() -> None:
    """Fork; the child exits as any script does."""
    pid = os.fork()
    if pid == 0:
        child()
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(10)


if situation == "before":
    fork_and_wait()
elif situation == "queued":
    for _ in range(50):
        record("same")
    fork_and_wait()
elif situation == "locked":
    record("same")
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        """Hold the lock of the watchers, while the other thread forks."""
        with SHARED.lock:
            holding.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(10)
    fork_and_wait()
    done.set()
    holder.join()
elif situation == "busy":
    stop = threading.Event()

    def keep_recording() -> None:
        """Record without a pause, so that the fork happens in the middle of a call."""
        while not stop.is_set():
            record("same")

    threads = [threading.Thread(target=keep_recording) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        fork_and_wait()
    stop.set()
    for thread in threads:
        thread.join()
elif situation == "multiprocessing":
    record("same")
    context = multiprocessing.get_context("fork")

    def work() -> None:
        """Shut down explicitly, as the documentation advises, because such children skip the exit hooks."""
        child()
        broadcaster.shutdown()

    process = context.Process(target=work)
    process.start()
    process.join(20)
    if process.exitcode:
        sys.exit(10)
elif situation == "prefork":
    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            child()
            sys.exit(0)
        pids.append(pid)
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        if status:
            sys.exit(10)
elif situation == "two":
    record("same")
    other = broadcast()
    others = other.new_recorder("another-script")
    others.event(REFERENCE, "Normal", "Forked", "other's in the parent")
    if (pid := os.fork()) == 0:
        child()
        others.event(REFERENCE, "Normal", "Forked", "other's in the child")
        ended = [each.flush(10) and not each.shutdown() for each in (broadcaster, other)]
        sys.exit(0 if all(ended) else 10)
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(10)
record("same")
