"""What became of a watcher's events: every one that was offered is in one of its figures, at every moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kevents._model.statistics import WatcherStatistics

if TYPE_CHECKING:
    from kevents._model.statistics import SinkStatistics


class Done:
    """What a worker has done. It counts here without a lock, for nobody else does.

    Once the rest was given up it counts in vain: what it finishes after that is known as given up.
    """

    __slots__ = ("failed", "handled")

    def __init__(self, handled: int = 0, failed: int = 0) -> None:
        """So much."""
        self.handled = handled
        self.failed = failed


class Ledger:
    """The figures of a watcher; but for what the worker has done, they change under its lock.

    Attributes:
        done: What the worker has done.
        queue_full: How many events found no room.
        shutdown: How many were given up at a deadline.
        taken: How many the worker has taken out of the mailbox, but those given up since.
    """

    __slots__ = ("done", "queue_full", "shutdown", "taken")

    def __init__(self) -> None:
        """Nothing yet."""
        self.done = Done()
        self.queue_full = self.shutdown = self.taken = 0

    def ended(self) -> int:
        """How many events have found room, and their end."""
        return self.shutdown + self.done.handled + self.done.failed

    def came_too_late(self, events: int) -> None:
        """So many of those taken were given up."""
        self.taken -= events
        self.shutdown += events

    def give_up(self, waiting: int, accepted: int | None) -> int:
        """Give up what has not ended; how many events that is.

        Args:
            waiting: How many nobody has taken.
            accepted: How many the handler has accounted for itself, also of the batch in hand; None: it does not.
        """
        done = self.done = Done(self.done.handled, self.done.failed)
        in_hand = self.taken - done.handled - done.failed
        if accepted is not None:
            done.handled += min(max(accepted - done.handled - done.failed, 0), in_hand)
        given_up = waiting + self.taken - done.handled - done.failed
        self.taken = done.handled + done.failed
        self.shutdown += given_up
        return given_up

    def statistics(self, name: str, waiting: int, sink: SinkStatistics | None) -> WatcherStatistics:
        """A snapshot, with so many events waiting."""
        handled, failed = self.done.handled, self.done.failed
        return WatcherStatistics(
            name=name,
            offered=self.queue_full + self.shutdown + self.taken + waiting,
            queue_full=self.queue_full,
            shutdown=self.shutdown,
            handled=handled,
            failed=failed,
            waiting=waiting + self.taken - handled - failed,
            sink=sink,
        )
