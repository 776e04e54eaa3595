"""What a watcher does with its events: the protocol, and the handler that calls a user's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kevents._model.objects import Event
    from kevents._model.statistics import SinkStatistics


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a batch: the events that failed with their errors, and whether all came too late."""

    failed: Sequence[tuple[Event, BaseException]] = ()
    too_late: bool = False


_ALL_HANDLED = Handled()


class Handler(Protocol):
    """What a watcher does with its events: called in its worker thread, with a batch at a time."""

    @property
    def most(self) -> int:
        """How many events it wants at once."""

    @property
    def sink(self) -> object | None:
        """Where it writes events, if it writes them: one sink is written to once only."""

    def start(self) -> None:
        """The first event is on its way: begin what cannot begin any more at interpreter exit. Does not wait."""

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Deal with the events; never raises."""

    def hasten(self) -> None:
        """Try at once what waits to be tried again. Does not wait."""

    def flush(self, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:
        """Wait until what was handled has ended, or the wait is given up; False if the deadline passed."""

    def nudge(self) -> None:
        """Let whoever waits ask again whether the wait is given up."""

    def drain(self, deadline: float) -> None:
        """Hurry: the end is at the deadline. Does not wait."""

    def finish(self) -> None:
        """The last batch was handled."""

    def settle(self, deadline: float) -> None:
        """Wait, at most until the deadline, until all that was handled has ended."""

    def close(self) -> int:
        """Give up what is left; how many events that was."""

    def after_fork(self) -> None:
        """In the child: begin anew."""

    def taken(self) -> int | None:
        """How many events it has accounted for; None if it keeps no account."""

    def owns_this_thread(self) -> bool:
        """Whether the calling thread is one that it must not wait for."""

    def statistics(self) -> SinkStatistics | None:
        """Its own ledger, if it has one."""


class CallHandler:
    """Calls a function with each event; one that raises, whatever it raises, fails for that event only."""

    most = 1
    sink = None

    def __init__(self, function: Callable[[Event], object]) -> None:
        """Keep the function."""
        self._function = function

    def start(self) -> None:
        """There is nothing to begin."""

    def handle(self, batch: Sequence[Event]) -> Handled:
        """Call the function with each event."""
        failed = []
        for event in batch:
            try:
                self._function(event)
            except BaseException as error:  # noqa: BLE001 - SystemExit in a handler must not end the watcher either
                failed.append((event, error))
        return Handled(failed) if failed else _ALL_HANDLED

    def hasten(self) -> None:
        """Nothing is tried again."""

    def flush(self, deadline: float | None, given_up: Callable[[], bool] = bool) -> bool:  # noqa: ARG002
        """What was handled has ended."""
        return True

    def nudge(self) -> None:
        """Nobody waits."""

    def drain(self, deadline: float) -> None:
        """There is nothing behind the function to be hurried."""

    def finish(self) -> None:
        """There is nothing behind the function to be told."""

    def settle(self, deadline: float) -> None:
        """What was handled has ended."""

    def close(self) -> int:
        """Nothing is left."""
        return 0

    def after_fork(self) -> None:
        """There is nothing to begin anew."""

    def taken(self) -> int | None:
        """It keeps no account of its own."""
        return None

    def owns_this_thread(self) -> bool:
        """It has no threads."""
        return False

    def statistics(self) -> SinkStatistics | None:
        """It has no ledger of its own."""
        return None
